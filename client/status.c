/*
 * sluice status and sluice abort: one question per file id, its answer on a line.
 *
 *   0123…cdef: open, 1048576 of 4194304 bytes (25%), missing 1048576-4194304
 *
 * The answer is the response message: it is the same in both versions of MQTT.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"
#include "ident.h"
#include "options.h"
#include "progress.h"
#include "refusal.h"
#include "reply.h"
#include "session.h"
#include "source.h"

enum { TOPIC_MAX = 2048, SHOWN_MAX = 8 };

struct ask {
	struct options options;
	enum options_command command;
	struct session session;
	struct progress progress;
	const char *label;      /* of the file being asked about */
	const char *file_id;
	bool is_asked;          /* the command is on its way */
	bool is_answered;
	uint64_t asked_ms;
	int failed_count;
};

static void on_up(void *arg)
{
	(void)arg;
}

static void on_down(void *arg)
{
	struct ask *a = arg;

	a->is_asked = false;
}

static const char *verb(const struct ask *a)
{
	return a->command == OPTIONS_ABORT ? "abort" : "status";
}

static void refused(struct ask *a, uint8_t reason, const char *text)
{
	char refusal[512];

	refusal_format(verb(a), NULL, reason, text, refusal, sizeof(refusal));
	progress_say(&a->progress, "%s: %s", a->label, refusal);
	a->failed_count++;
	a->is_answered = true;
}

static void on_ack(void *arg, const struct session_tag *tag, uint8_t reason, struct mqtt_str text)
{
	struct ask *a = arg;
	char copy[REFUSAL_TEXT_MAX];

	(void)tag;
	if (a->is_answered || reason == 0) {
		return; /* the response message says more */
	}
	if (reason == MQTT_RC_NO_MATCHING_SUBSCRIBERS) {
		session_fail(&a->session, EXIT_REFUSED,
			"the server has no file transfer: it treats $file as an ordinary topic");
		return;
	}
	refusal_copy_text(text.s, text.bytes, copy);
	refused(a, reason, copy);
}

static void print_status(const struct ask *a, const struct reply *r)
{
	static const char *const names[] = {
		[REPLY_NONE] = "not known to the server",
		[REPLY_OPEN] = "open",
		[REPLY_VERIFYING] = "being verified",
		[REPLY_EXPORTED] = "exported",
	};

	printf("%s: %s", a->label, names[r->state]);
	if (r->state != REPLY_NONE) {
		printf(", %" PRIu64, r->received);
		if (r->has_size) {
			printf(" of %" PRIu64, r->size);
		}
		printf(" bytes");
		if (r->has_size && r->size > 0) {
			printf(" (%.0f%%)", (double)r->received * 100 / (double)r->size);
		}
	}
	for (size_t i = 0; i < r->missing_count && i < SHOWN_MAX; i++) {
		printf("%s%" PRIu64 "-%" PRIu64, i ? ", " : ", missing ", r->missing[i].from,
			r->missing[i].to);
	}
	printf(r->missing_count > SHOWN_MAX || r->truncated ? ", …\n" : "\n");
}

static void on_message(void *arg, const struct mqtt_publish *p, const char *payload)
{
	struct ask *a = arg;
	enum filecmd_verb want = a->command == OPTIONS_ABORT ? FILECMD_ABORT : FILECMD_STATUS;
	char text[REFUSAL_TEXT_MAX];
	struct reply r;

	if (a->is_answered || reply_parse(payload, p->payload_bytes, &r) < 0) {
		return;
	}
	if (r.cmd.verb == want && r.cmd.fileid_bytes == strlen(a->file_id) &&
		memcmp(r.cmd.fileid, a->file_id, r.cmd.fileid_bytes) == 0) {
		if (r.reason_code != 0) {
			refusal_copy_text(r.description, strlen(r.description), text);
			refused(a, r.reason_code, text);
		} else if (r.has_status) {
			print_status(a, &r);
		} else {
			printf("%s: aborted\n", a->label);
		}
		a->is_answered = true;
	}
	reply_fini(&r);
}

static void on_notice(void *arg, const char *text)
{
	struct ask *a = arg;

	progress_note(&a->progress, "%s; trying again", text);
}

static int ask_one(struct ask *a, const char *label, const char *file_id)
{
	static const struct session_payload empty = {.mem = "", .fd = -1};
	struct session_tag tag = {.owner = a};
	char topic[TOPIC_MAX];
	int r = 0;

	a->label = label;
	a->file_id = file_id;
	a->is_asked = a->is_answered = false;
	snprintf(topic, sizeof(topic), "$file/%s/%s", file_id, verb(a));
	while (r == 0 && !a->is_answered) {
		if (!a->is_asked && session_replies_ready(&a->session) &&
			session_publish(&a->session, &tag, topic, &empty) == 0) {
			a->is_asked = true;
			a->asked_ms = session_now_ms();
		}
		if (a->is_asked && session_now_ms() - a->asked_ms >= a->options.timeout_ms) {
			session_fail(&a->session, EXIT_REFUSED,
				"the server does not answer on $file-response/%.200s",
				a->options.client_id);
		}
		r = session_wait(&a->session, NULL, 1000);
	}
	return r;
}

/* The file id that send would give to this file. */
static int ask_file(struct ask *a, const char *path)
{
	const char *slash = strrchr(path, '/');
	char file_id[IDENT_FILE_BYTES];
	struct source source;

	source_init(&source);
	int r = source_open(&source, path);
	if (r < 0) {
		progress_say(&a->progress, "%s: %s", path,
			r == -EINVAL ? "it is no regular file" : strerror(-r));
		a->failed_count++;
		return 0;
	}
	const char *name = a->options.name ? a->options.name : slash ? slash + 1 : path;
	ident_file_id(path, name, source.size, &source.mtime, file_id);
	source_fini(&source);
	return ask_one(a, path, file_id);
}

static int run(struct ask *a)
{
	int r = 0;

	if (a->options.file_id) {
		return ask_one(a, a->options.file_id, a->options.file_id);
	}
	for (int i = 0; r == 0 && i < a->options.args_count; i++) {
		r = ask_file(a, a->options.args[i]);
	}
	return r;
}

static int ask_main(enum options_command command, int argc, char **argv)
{
	static struct ask a;
	static char client_id[IDENT_CLIENT_MAX];
	struct session_handler handler = {&a, on_up, on_down, on_ack, on_message, on_notice};
	int exit_code = EXIT_OK;
	int r = options_parse(&a.options, command, argc, argv);

	if (r != 0) {
		return r < 0 ? EXIT_OK : r;
	}
	a.command = command;
	progress_init(&a.progress, a.options.quiet);
	if (!a.options.client_id) {
		/* With another id we would ask about another client's files. */
		if (ident_client_id(false, client_id) < 0) {
			progress_say(&a.progress, "a sluice with the client id %s is running; "
				"when it has ended, ask again", client_id);
			return EXIT_REFUSED;
		}
		a.options.client_id = client_id;
	}
	struct session_conf conf = options_session_conf(&a.options);
	session_init(&a.session, &conf, &handler);
	session_catch_signals();
	r = run(&a);
	if (r == -EINTR) {
		exit_code = 128 + session_caught_signal();
	} else if (r < 0) {
		progress_say(&a.progress, "%s", a.session.error);
		exit_code = a.session.exit_code;
	} else if (a.failed_count > 0) {
		exit_code = EXIT_REFUSED;
	}
	session_fini(&a.session);
	return exit_code;
}

int status_main(int argc, char **argv)
{
	return ask_main(OPTIONS_STATUS, argc, argv);
}

int abort_main(int argc, char **argv)
{
	return ask_main(OPTIONS_ABORT, argc, argv);
}
