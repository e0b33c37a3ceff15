/*
 * sluice send: the files of the command line, in order, over one connection.
 *
 * A file begins when all of the one before it has been sent, while its fin may still be pending: so
 * many small files share round trips and the server's group commit. At most ACTIVE_MAX are under
 * way.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "commands.h"
#include "upload.h"

enum { ACTIVE_MAX = 64, SAY_EACH_MAX = 20 };

struct send {
	struct options options;
	struct session session;
	struct progress progress;
	struct upload_env env;
	struct upload *active[ACTIVE_MAX]; /* in the order of the command line */
	int active_count;
	int next;                /* index into options.args of the file that begins next */
	int done_count, failed_count;
	uint64_t total_bytes;    /* of all files; 0 when a pipe is among them */
	uint64_t finished_bytes; /* of those that are over */
};

static void on_up(void *arg)
{
	(void)arg; /* the pump looks at session_room */
}

static void on_down(void *arg)
{
	struct send *s = arg;

	s->env.segments_inflight = 0;
	for (int i = 0; i < s->active_count; i++) {
		upload_on_down(s->active[i]);
	}
}

static void on_ack(void *arg, const struct session_tag *tag, uint8_t reason, struct mqtt_str text)
{
	(void)arg;
	upload_on_ack(tag->owner, tag, reason, text);
}

static void on_message(void *arg, const struct mqtt_publish *p, const char *payload)
{
	struct send *s = arg;
	struct reply r;

	if (reply_parse(payload, p->payload_bytes, &r) < 0) {
		return; /* others may publish to this topic, too */
	}
	for (int i = 0; i < s->active_count; i++) {
		struct upload *u = s->active[i];
		if (u->file_id && strlen(u->file_id) == r.cmd.fileid_bytes &&
			memcmp(u->file_id, r.cmd.fileid, r.cmd.fileid_bytes) == 0) {
			upload_on_reply(u, &r);
		}
	}
	reply_fini(&r);
}

static void on_notice(void *arg, const char *text)
{
	struct send *s = arg;

	progress_note(&s->progress, "%s; trying again", text);
}

static const struct session_handler handler_template = {
	.on_up = on_up,
	.on_down = on_down,
	.on_ack = on_ack,
	.on_message = on_message,
	.on_notice = on_notice,
};

/* What the bar is a fraction of. Files that can't be examined are reported when their turn
 * comes. */
static void add_up(struct send *s)
{
	struct stat st;

	for (int i = 0; i < s->options.args_count; i++) {
		if (strcmp(s->options.args[i], "-") == 0) {
			s->total_bytes = 0;
			return;
		}
		if (stat(s->options.args[i], &st) == 0 && S_ISREG(st.st_mode)) {
			s->total_bytes += (uint64_t)st.st_size;
		}
	}
}

/* Takes what is over out of the list. */
static void retire(struct send *s)
{
	char bytes[32];
	int kept = 0;

	for (int i = 0; i < s->active_count; i++) {
		struct upload *u = s->active[i];
		if (!upload_is_over(u)) {
			s->active[kept++] = u;
			continue;
		}
		if (u->state == UPLOAD_DONE) {
			s->done_count++;
			if (s->progress.is_terminal && s->options.args_count <= SAY_EACH_MAX) {
				progress_note(&s->progress, "%s: exported and verified, %s",
					u->path, progress_bytes(upload_stored(u), bytes));
			}
		} else {
			s->failed_count++;
		}
		s->finished_bytes += u->is_pipe ? upload_stored(u) : u->source.size;
		upload_free(u);
	}
	s->active_count = kept;
}

static bool may_begin_next(const struct send *s)
{
	return s->next < s->options.args_count && s->active_count < ACTIVE_MAX &&
	       (s->active_count == 0 || upload_is_sent(s->active[s->active_count - 1]));
}

/* Lets every upload send what it can, and begins others. */
static int pump(struct send *s)
{
	for (int i = 0; i < s->active_count; i++) {
		upload_pump(s->active[i]);
	}
	/* Files are opened only while there is a connection: none is kept open in vain. */
	while (s->session.state == SESSION_UP && may_begin_next(s)) {
		struct upload *u = upload_new(&s->env, s->options.args[s->next]);
		if (!u) {
			return -ENOMEM;
		}
		s->next++;
		s->active[s->active_count++] = u;
		upload_pump(u);
		retire(s);
	}
	retire(s);
	return 0;
}

/* Hashes what will be needed anyway while the socket is full; true when that is not finished. */
static bool use_idle_time(struct send *s)
{
	bool wants_cpu = false;

	for (int i = 0; i < s->active_count && !wants_cpu; i++) {
		wants_cpu = s->active[i]->wants_cpu || upload_idle(s->active[i]);
	}
	return wants_cpu;
}

static struct upload *input_reader(struct send *s)
{
	for (int i = 0; i < s->active_count; i++) {
		if (upload_wants_input(s->active[i])) {
			return s->active[i];
		}
	}
	return NULL;
}

static void draw(struct send *s)
{
	int next = s->next < s->options.args_count ? s->next : 0;
	const char *path = s->active_count ? s->active[0]->path : s->options.args[next];
	const char *slash = strrchr(path, '/');
	struct progress_view v = {
		.label = slash ? slash + 1 : path,
		.done = (unsigned)(s->done_count + s->failed_count),
		.total = (unsigned)s->options.args_count,
		.stored = s->finished_bytes,
		.size = s->total_bytes,
		.sent = s->session.link.bytes_sent,
	};

	if (!s->progress.is_terminal) {
		return;
	}
	for (int i = 0; i < s->active_count; i++) {
		v.stored += upload_stored(s->active[i]);
	}
	if (s->session.state != SESSION_UP) {
		v.state = "no connection";
	} else if (s->active_count && s->active[0]->state == UPLOAD_FINNED &&
		   upload_stored(s->active[0]) >= s->active[0]->source.size) {
		v.state = "the server verifies it";
	} else if (s->active_count && s->active[0]->state == UPLOAD_PAUSED) {
		v.state = "the server has no room";
	}
	progress_draw(&s->progress, session_now_ms(), &v);
}

/* 0 when all files are over, else session_wait's errors. */
static int run(struct send *s)
{
	while (s->active_count > 0 || s->next < s->options.args_count) {
		int r = pump(s);
		if (r < 0) {
			return r;
		}
		if (s->active_count == 0 && s->next == s->options.args_count) {
			break;
		}
		bool wants_cpu = use_idle_time(s);
		draw(s);
		struct upload *reader = input_reader(s);
		struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
		int wait_ms = wants_cpu ? 0 : s->progress.is_terminal ? 200 : 1000;
		/* A pipe that has run dry is looked at again at once: what it gave may go out
		 * now. */
		bool was_wet = reader && !reader->is_input_dry;
		r = session_wait(&s->session, reader ? &input : NULL, was_wet ? 0 : wait_ms);
		if (r < 0) {
			return r;
		}
		if (reader && input.revents) {
			upload_on_input(reader);
		} else if (reader) {
			reader->is_input_dry = true;
		}
	}
	return 0;
}

/* How far the first unfinished file is, and how to go on. */
static void say_rest(struct send *s)
{
	const struct upload *u = s->active_count ? s->active[0] : NULL;
	int rest = s->active_count + s->options.args_count - s->next;

	if (u && u->is_pipe) {
		progress_say(&s->progress, "-: not finished; a pipe has to be sent anew");
	} else if (u && upload_stored(u) > 0) {
		progress_say(&s->progress, "%s: not finished, %" PRIu64 "%% of it is stored; "
			"the same command goes on from there", u->path,
			(uint64_t)((double)upload_stored(u) * 100 / (double)u->source.size));
	}
	if (rest > 1) {
		progress_say(&s->progress, "%d of %d files are not finished", rest,
			s->options.args_count);
	}
}

static int conclude(struct send *s, int r)
{
	progress_clear(&s->progress);
	if (r == -EINTR) {
		progress_say(&s->progress, "interrupted");
		say_rest(s);
		return 128 + session_caught_signal();
	}
	if (r == -ECONNABORTED) {
		progress_say(&s->progress, "%s", s->session.error);
		say_rest(s);
		return s->session.exit_code;
	}
	if (r < 0) {
		progress_say(&s->progress, "%s", strerror(-r));
		return EXIT_REFUSED;
	}
	if (s->failed_count > 0 && s->options.args_count > 1) {
		progress_say(&s->progress, "%d of %d files failed", s->failed_count,
			s->options.args_count);
	}
	return s->failed_count ? EXIT_REFUSED : EXIT_OK;
}

int send_main(int argc, char **argv)
{
	static struct send s; /* static: the table of packet identifiers is large for a stack */
	static char client_id[IDENT_CLIENT_MAX];
	struct session_handler handler = handler_template;
	int r = options_parse(&s.options, OPTIONS_SEND, argc, argv);

	if (r != 0) {
		return r < 0 ? EXIT_OK : r;
	}
	if (!s.options.client_id) {
		ident_client_id(true, client_id);
		s.options.client_id = client_id;
	}
	struct session_conf conf = options_session_conf(&s.options);
	handler.arg = &s;
	progress_init(&s.progress, s.options.quiet);
	session_init(&s.session, &conf, &handler);
	session_catch_signals();
	s.env = (struct upload_env){&s.options, &s.session, &s.progress, 0};
	add_up(&s);
	int exit_code = conclude(&s, run(&s));
	for (int i = 0; i < s.active_count; i++) {
		upload_free(s.active[i]);
	}
	session_fini(&s.session);
	return exit_code;
}
