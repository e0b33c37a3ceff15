/*
 * Transfers, everything at once: pipelined commands of two clients, segments small and large,
 * whole and cut, right and wrong, fins, aborts, expiry, a consumer that takes files away, restarts
 * at rest and kill -9, against upload_model.h.
 *
 * Each life of the daemon runs in a process of its own, which shares the model with the test. One
 * that is to be killed does it itself, at a random step or inside a random answer, while workers
 * of the kernel and threads go on; the test then looks at the directory, tells the model what was
 * never answered, and starts the next life in it.
 *
 * The client is as conn.c is: its commands are in order, a pass over its buffer ends with
 * ingest_flush, each segment asks the gate first, and while a large one streams, or the gate is
 * shut (to a segment, or behind an init that waits), nothing else of it is begun.
 *
 * A seed decides what is done, not what kernel and threads do meanwhile, so one may have to run often:
 * SEED=n runs one, SEEDS=n so many, TRACE=1 tells what happens.
 */
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "log.h"
#include "upload_files.h"
#include "upload_model.h"

enum { SEEDS = 120, CLIENTS = 2, LIVES_MAX = 4, BUFFER_BYTES = 128 * 1024, PREFIX_BYTES_MAX = 4000 };

/* Seeds that have found something. */
static const uint64_t seeds_kept[] = {4, 7, 10, 11, 27, 37, 67, 74, 80, 81, 99, 121, 152, 171};

/* A connection. */
struct client {
	uint32_t idx;
	int fds[2];               /* ours, and the sender's */
	struct upload_gate gate;  /* pprev != NULL: shut */
	struct cmd planned;       /* a segment that waits for the gate, or that streams */
	bool has_planned;
	struct cmd *streaming;
	struct seg *seg;
	uint8_t *payload;         /* of seg */
	uint32_t payload_bytes, sent;
	bool is_waiting;          /* for seg to resume */
};

static struct bench bench;
static struct client clients[CLIENTS];
static int listen_fd;
static uint32_t answers_left; /* the process dies inside the answer that makes it 0 */
static bool is_child;

/* Of the address sanitizer, where it is linked in. */
extern int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

static void on_failure(const char *text)
{
	fprintf(stderr, "seed %llu, life %u: %s\n", (unsigned long long)w->seed, w->life, text);
	if (is_child)
		_exit(3);
}

static void die(void)
{
	w->was_killed = true;
	w->kills++;
	raise(SIGKILL);
}

/* --- answers ---------------------------------------------------------------------------------- */

static void on_answer(struct caught *caught)
{
	struct cmd *c = (struct cmd *)caught;
	struct file *f = c->file;
	if (c->kind == CMD_FIN && !c->c.discarded && c->c.o.reason == 0) {
		const struct transfer *t = transfer_find(bench.rt.uploads, &f->id);
		check(f, t && t->state == TRANSFER_EXPORTED, "success without an export");
		c->version = version_take(&bench, f, t);
	}
	if (answers_left > 0 && --answers_left == 0)
		die();
	log_advance(f);
}

static struct reply *reply_for(struct cmd *c)
{
	struct reply *rp = calloc(1, sizeof(*rp));
	c->c = (struct caught){.ended = on_answer};
	rp->conn = (struct conn *)&c->c;
	rp->qos = 1;
	rp->dup = c->dup;
	return rp;
}

/* --- segments --------------------------------------------------------------------------------- */

static void plan_segment(struct file *f, struct cmd *c)
{
	uint32_t blocks = once_in(3) ? BLOCKS : 1 + any(6);
	*c = (struct cmd){.kind = CMD_SEGMENT, .file = f, .from = any(BLOCKS), .is_large = once_in(3)};
	c->to = min_of(BLOCKS, c->from + 1 + any(blocks));
	/* Most are what was sent before, or continue it. */
	if (f->last && once_in(2) && c->from < f->last->size)
		c->stamp = f->last->stamps[c->from];
	else if (f->stamps_count && (any(3) || f->stamps_count + 1 == STAMPS))
		c->stamp = (uint8_t)(1 + any(f->stamps_count));
	else
		c->stamp = (uint8_t)++f->stamps_count;
	c->dup = once_in(4);
	c->has_sum = once_in(3);
	c->wrong_sum = c->has_sum && once_in(5);
}

static uint8_t *make_payload(const struct cmd *c, uint32_t *ret_bytes)
{
	*ret_bytes = (c->to - c->from) * w->block_bytes;
	uint8_t *data = malloc(*ret_bytes);
	for (uint32_t i = c->from; i < c->to; i++)
		block_fill(data + (size_t)(i - c->from) * w->block_bytes, i, c->stamp);
	return data;
}

static struct filecmd make_filecmd(const struct cmd *c, const uint8_t *data, uint32_t bytes)
{
	struct filecmd cmd = {.verb = FILECMD_SEGMENT, .offset = (uint64_t)c->from * w->block_bytes,
		.has_checksum = c->has_sum};
	struct sha256 s;
	if (!c->has_sum)
		return cmd;
	sha256_init(&s);
	sha256_update(&s, data, bytes);
	sha256_digest(&s, cmd.checksum);
	cmd.checksum[5] ^= c->wrong_sum;
	return cmd;
}

static void on_gate(struct upload_gate *g)
{
	(void)g; /* unlinked by now: the planned segment asks again */
}

static void on_resume(void *arg)
{
	((struct client *)arg)->is_waiting = false;
}

/* True: the planned segment was begun or refused. False: it waits, for the gate or for another
 * buffer. */
static bool begin_planned(struct client *cl, struct buf *buf, uint32_t *used)
{
	struct uploads *u = bench.rt.uploads;
	struct file *f = cl->planned.file;
	struct outcome o;
	uint32_t bytes, prefix = 0;
	if (!upload_gate_pass(u, &f->id, &cl->gate))
		return false;
	uint8_t *data = make_payload(&cl->planned, &bytes);
	bool is_large = cl->planned.is_large || bytes > BUFFER_BYTES / 2;
	if (!is_large && bytes > BUFFER_BYTES - *used) {
		free(data);
		return false;
	}
	cl->has_planned = false;
	struct filecmd cmd = make_filecmd(&cl->planned, data, bytes);
	struct cmd *c = log_push(f, &cl->planned);
	trace("[%u] segment [%u,%u) stamp %u%s%s%s\n", f->idx, c->from, c->to, c->stamp,
		is_large ? " large" : "", c->dup ? " dup" : "", c->wrong_sum ? " wrong" : c->has_sum ? " sum" : "");
	struct reply *rp = reply_for(c);
	if (!upload_segment_admit(u, &f->id, &cmd, bytes, &o)) {
		reply_finish(rp, &o);
		free(data);
		return true;
	}
	if (is_large && *used < BUFFER_BYTES && once_in(2))
		prefix = any(min_of(min_of(bytes, PREFIX_BYTES_MAX), BUFFER_BYTES - *used));
	memcpy(buf->data + *used, data, is_large ? prefix : bytes);
	if (is_large) {
		cl->is_waiting = false;
		cl->payload = data;
		cl->payload_bytes = bytes;
		cl->sent = prefix;
		cl->streaming = c;
		cl->seg = ingest_begin(u, &f->id, &cmd, bytes, buf, buf->data + *used, prefix, rp, on_resume, cl);
		bench_check(cl->seg, "a segment was not begun");
		*used += prefix;
	} else {
		ingest_small(u, &f->id, &cmd, buf, buf->data + *used, bytes, rp);
		*used += bytes;
		free(data);
	}
	return true;
}

static void listen_once(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	listen_fd = socket(AF_INET, SOCK_STREAM, 0);
	cr_assert_eq(bind(listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_assert_eq(listen(listen_fd, 8), 0);
}

/* Over TCP: a local socket can't throw away bytes as one of TCP can. */
static void connect_client(struct client *cl)
{
	struct sockaddr_in addr;
	socklen_t bytes = sizeof(addr);
	bool is_named = getsockname(listen_fd, (struct sockaddr *)&addr, &bytes) == 0;
	cl->fds[1] = socket(AF_INET, SOCK_STREAM, 0);
	bench_check(is_named && connect(cl->fds[1], (struct sockaddr *)&addr, bytes) == 0, "no connection");
	cl->fds[0] = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK);
	bench_check(cl->fds[0] >= 0 && fcntl(cl->fds[1], F_SETFL, O_NONBLOCK) == 0, "no connection");
	(void)setsockopt(cl->fds[1], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	cl->gate.resume = on_gate;
}

static void disconnect_client(struct client *cl)
{
	if (cl->seg)
		ingest_cut(cl->seg);
	cl->seg = NULL;
	free(cl->payload);
	cl->payload = NULL;
	cl->has_planned = false;
	upload_gate_cancel(&cl->gate);
	close(cl->fds[0]);
	close(cl->fds[1]);
}

/* Sends a piece, and takes what has arrived. */
static void stream_step(struct client *cl)
{
	uint32_t left = cl->payload_bytes - cl->sent, piece = once_in(3) ? left : min_of(left, 1 + any(60000));
	ssize_t n = left ? write(cl->fds[1], cl->payload + cl->sent, piece) : 0;
	cl->sent += n > 0 ? (uint32_t)n : 0;
	if (cl->is_waiting)
		return;
	cl->is_waiting = true; /* before the call, which may already say that it goes on in the next turn */
	switch (ingest_pull(cl->seg, cl->fds[0], UINT32_MAX)) {
	case INGEST_POLL:
		cl->is_waiting = false;
		break;
	case INGEST_WAIT:
		break;
	case INGEST_DONE:
		bench_check(cl->sent == cl->payload_bytes, "done with %u of %u", cl->sent, cl->payload_bytes);
		cl->is_waiting = false;
		cl->seg = NULL;
		free(cl->payload);
		cl->payload = NULL;
		break;
	case INGEST_EOF:
		bench_fail("the end of a stream that goes on");
	}
}

/* --- the other commands ----------------------------------------------------------------------- */

/* False: it waits, and so does what comes after it. */
static bool do_init(struct client *cl, struct file *f)
{
	static const char *const more[METAS] = {"", "", ",\"size\":", ",\"user_data\":{\"n\":1}",
		",\"checksum\":\"0123456789012345678901234567890123456789012345678901234567890123\""};
	struct cmd plan = {.kind = CMD_INIT, .meta = 1 + (once_in(3) ? any(METAS - 1) : f->idx),
		.metas_before = f->metas, .was_alone = f->log_count == 0};
	char json[160];
	snprintf(json, sizeof(json), plan.meta == META_A_SIZED ? "{\"name\":\"%s\"%s%u}" : "{\"name\":\"%s\"%s}",
		meta_names[plan.meta], more[plan.meta], BLOCKS / 2 * w->block_bytes);
	trace("[%u] init %s\n", f->idx, json);
	f->metas |= 1u << plan.meta;
	struct reply *rp = reply_for(log_push(f, &plan));
	return upload_init(bench.rt.uploads, &f->id, json, (uint32_t)strlen(json), rp) ||
		upload_gate_pass(bench.rt.uploads, &f->id, &cl->gate);
}

/* What the blocks will be when all that is under way has succeeded. */
static void predict(const struct file *f, struct file *ret)
{
	ret->last = f->last;
	ret->is_open = f->is_open;
	memcpy(ret->blocks, f->blocks, sizeof(ret->blocks));
	for (uint32_t i = 0; i < f->log_count; i++) {
		const struct cmd *c = log_cmd((struct file *)f, i);
		for (uint32_t k = c->from; c->kind == CMD_SEGMENT && !c->wrong_sum && k < c->to; k++)
			ret->blocks[k] = (struct block){stamp_bit(c->stamp), COVERED};
		if (c->kind == CMD_SEGMENT)
			ret->is_open = YES;
	}
}

static void plan_fin(const struct file *f, struct cmd *c)
{
	static struct file then;
	uint8_t stamps[BLOCKS];
	uint32_t kind = any(4);
	predict(f, &then);
	while (c->size < BLOCKS && then.blocks[c->size].presence != MISSING)
		c->size++;
	if (f->last && (c->size == 0 || once_in(3)))
		c->size = f->last->size;
	if (once_in(8))
		c->size = any(BLOCKS + 1);
	if (kind == 0 && f->last) {
		c->has_sum = true;
		memcpy(c->sum, f->last->digest, 32);
	} else if (kind < 3 && content_is_sure(&then, c->size, stamps)) {
		c->has_sum = true;
		blocks_digest(stamps, c->size, c->sum);
		c->sum[7] ^= once_in(6);
	}
}

static void do_fin(struct file *f)
{
	struct cmd plan = {.kind = CMD_FIN};
	plan_fin(f, &plan);
	struct filecmd cmd = {.verb = FILECMD_FIN, .size = (uint64_t)plan.size * w->block_bytes,
		.has_checksum = plan.has_sum, .is_async = once_in(2)};
	memcpy(cmd.checksum, plan.sum, 32);
	trace("[%u] fin %u%s\n", f->idx, plan.size, plan.has_sum ? " sum" : "");
	struct reply *rp = reply_for(log_push(f, &plan));
	rp->is_async = cmd.is_async;
	upload_fin(bench.rt.uploads, &f->id, &cmd, rp);
}

static void do_abort(struct file *f)
{
	struct cmd plan = {.kind = CMD_ABORT};
	trace("[%u] abort\n", f->idx);
	upload_abort(bench.rt.uploads, &f->id, reply_for(log_push(f, &plan)));
}

static void do_status(struct file *f)
{
	struct cmd plan = {.kind = CMD_STATUS};
	upload_status(bench.rt.uploads, &f->id, reply_for(log_push(f, &plan)));
}

/* True: goes on with the next command in this pass. */
static bool begin_command(struct client *cl, struct buf *buf, uint32_t *used)
{
	struct file *f;
	do
		f = &w->files[any(FILES)];
	while (f->idx % CLIENTS != cl->idx);
	if (f->log_count > LOG_MAX - 4)
		return false;
	uint32_t what = any(100);
	if (what < 14 || f->metas == 1u << META_NONE) {
		return do_init(cl, f);
	} else if (what < 76) {
		plan_segment(f, &cl->planned);
		cl->has_planned = true;
		return begin_planned(cl, buf, used) && !cl->seg;
	} else if (what < 92) {
		do_fin(f);
	} else if (what < 95) {
		do_abort(f);
	} else {
		do_status(f);
	}
	return true;
}

/* As one pass over a receive buffer: commands, and the beginning of a stream. */
static void begin_commands(struct client *cl)
{
	uint32_t used = 0, left = 1 + any(6);
	if (cl->gate.pprev)
		return;
	struct buf *buf = bufs_take(bench.rt.bufs);
	if (!buf)
		return;
	bool goes_on = !cl->has_planned || (begin_planned(cl, buf, &used) && !cl->seg);
	while (goes_on && left--)
		goes_on = begin_command(cl, buf, &used);
	buf_unref(buf);
}

/* As a connection's turn: it may end one stream and begin the next. */
static void client_step(struct client *cl)
{
	if (cl->seg && once_in(40)) {
		disconnect_client(cl);
		connect_client(cl);
	}
	if (cl->seg)
		stream_step(cl);
	if (!cl->seg && once_in(2)) {
		begin_commands(cl);
		if (cl->seg && once_in(2))
			stream_step(cl);
	}
	ingest_flush(bench.rt.uploads);
}

/* --- what else happens ------------------------------------------------------------------------ */

static void on_age_recorded(struct journal_waiter *waiter, int err)
{
	struct cmd *c = container_of(waiter, struct cmd, waiter);
	bench_check(err == 0, "the journal failed: %d", err);
	c->c.done = true;
	c->c.o.text = "recorded";
	log_advance(c->file);
}

/* The time to live, or the replay window, of a transfer that nothing happens to is over. */
static void age(struct file *f)
{
	struct transfer *t = transfer_find(bench.rt.uploads, &f->id);
	if (!t || t->pins || t->segs || t->fins || t->aborts || t->inits || transfer_is_held_up(t) ||
		f->log_count > LOG_MAX - 4)
		return;
	uint64_t tid = t->tid;
	struct cmd plan = {.kind = CMD_AGE, .was_exported = t->state == TRANSFER_EXPORTED};
	trace("[%u] ages%s\n", f->idx, plan.was_exported ? " (exported)" : "");
	t->active_ms = 0;
	timers_arm(&bench.rt.timers, &t->ttl, 0);
	timers_expire(&bench.rt.timers, ring_now_ms(bench.rt.ring));
	t = transfer_find(bench.rt.uploads, &f->id);
	check(f, !t || t->tid != tid, "does not expire");
	struct cmd *c = log_push(f, &plan);
	c->waiter.done = on_age_recorded;
	journal_wait(bench.rt.journal, &c->waiter, JOURNAL_WRITTEN);
}

/* The consumer takes an exported file, often with its directory. */
static void take(struct file *f, struct version *v)
{
	char path[PATH_BYTES + 96];
	if (v->taken)
		return;
	trace("[%u] takes %s\n", f->idx, v->path);
	snprintf(path, sizeof(path), "%s/export/%s", bench.dir, v->path);
	check(f, unlink(path) == 0, "%s is gone", path);
	v->taken = true;
	if (once_in(2)) {
		strcpy(strrchr(path, '/') + 1, ".manifest.json");
		(void)unlink(path);
		*strrchr(path, '/') = 0;
		check(f, rmdir(path) == 0, "%s holds something else", path);
	}
	if (v != f->last || (f->was_at_rest && f->is_open == YES))
		return;
	/* What was acknowledged as its replay can't be taken over any more. */
	state_shake(f);
	for (uint32_t i = 0; i < f->log_count; i++)
		log_cmd(f, i)->shaky = true;
}

static void take_any(void)
{
	struct file *f = &w->files[any(FILES)];
	if (f->versions_count)
		take(f, &f->versions[any(f->versions_count)]);
}

/* --- at rest ---------------------------------------------------------------------------------- */

static void finish_streams(void)
{
	for (uint32_t k = 0, left = CLIENTS; k < 5000 && left; k++) {
		bool is_waiting = true;
		left = 0;
		for (uint32_t i = 0; i < CLIENTS; i++) {
			if (!clients[i].seg)
				continue;
			stream_step(&clients[i]);
			is_waiting = is_waiting && clients[i].is_waiting;
			left++;
		}
		ingest_flush(bench.rt.uploads);
		turn_for(&bench, is_waiting);
	}
	for (uint32_t i = 0; i < CLIENTS; i++) {
		const struct client *cl = &clients[i];
		bench_check(!cl->seg, "client %u: its segment does not end: %u of %u sent, %u taken%s: %s", i, cl->sent,
			cl->payload_bytes, ingest_taken(cl->seg), cl->is_waiting ? ", waits" : "",
			bench_seg_text(&bench, cl->seg));
	}
}

static const struct file *file_with(const char *path, uint32_t *count)
{
	for (uint32_t i = 0; i < FILES; i++) {
		const struct file *f = &w->files[i];
		for (uint32_t k = 0; k < f->versions_count; k++) {
			if (!f->versions[k].taken && strcmp(f->versions[k].path, path) == 0) {
				++*count;
				return f;
			}
		}
	}
	return NULL;
}

/* Every file in the export directory is one that the model knows. */
static void check_exports(const char *under, uint32_t *count)
{
	char full[PATH_BYTES + 80], path[PATH_BYTES];
	snprintf(full, sizeof(full), "%s/export/%s", bench.dir, under);
	DIR *dir = opendir(full);
	bench_check(dir, "no directory %s", full);
	for (struct dirent *e; (e = readdir(dir));) {
		snprintf(path, sizeof(path), "%.70s%s%.70s", under, *under ? "/" : "", e->d_name);
		if (e->d_name[0] == '.' || strcmp(path, "c0/f0/foreign") == 0)
			continue;
		if (e->d_type == DT_DIR)
			check_exports(path, count);
		else
			bench_check(file_with(path, count), "%s was exported, but nobody was told", path);
	}
	closedir(dir);
}

static int check_staging_name(void *arg, const char *name)
{
	++*(uint32_t *)arg;
	const struct uploads *u = bench.rt.uploads;
	for (uint32_t i = 0; i < u->table_size; i++) {
		for (const struct transfer *t = u->table[i]; t; t = t->hash_next) {
			if (t->state == TRANSFER_OPEN && t->staging_exists && strcmp(t->staging, name) == 0)
				return 0;
		}
	}
	bench_fail("the staging file %s is nobody's", name);
	return 0;
}

/* The counters are what the open transfers justify, and nothing is held that nobody uses. */
static void check_counters(void)
{
	const struct uploads *u = bench.rt.uploads;
	const struct store *s = bench.rt.store;
	uint64_t staged = 0, unallocated = 0, backlog = 0, open = 0;
	uint32_t files = 0, names = 0;
	for (uint32_t i = 0; i < u->table_size; i++) {
		for (const struct transfer *t = u->table[i]; t; t = t->hash_next) {
			bool is_open = t->state != TRANSFER_EXPORTED;
			bench_check(t->is_counted == is_open, "%s is counted wrongly", t->fileid);
			staged += t->reserved;
			unallocated += t->reserved - t->allocated;
			backlog += t->backlog;
			open += t->is_counted;
			files += t->state == TRANSFER_OPEN && t->staging_exists;
			bench_check(t->state != TRANSFER_EXPORTED || t->fd < 0, "%s holds a descriptor", t->fileid);
		}
	}
	bench_check(s->staged_bytes == staged, "staged_bytes %llu, not %llu",
		(unsigned long long)s->staged_bytes, (unsigned long long)staged);
	bench_check(s->unallocated_bytes == unallocated, "unallocated_bytes %llu, not %llu",
		(unsigned long long)s->unallocated_bytes, (unsigned long long)unallocated);
	bench_check(s->backlog_bytes == backlog, "backlog_bytes %llu, not %llu",
		(unsigned long long)s->backlog_bytes, (unsigned long long)backlog);
	bench_check(s->open_count == open, "open_count %llu, not %llu", (unsigned long long)s->open_count,
		(unsigned long long)open);
	bench_check(s->scratch_bytes == 0, "scratch_bytes %llu", (unsigned long long)s->scratch_bytes);
	bench_check(bufs_used(bench.rt.bufs) == 0, "%u buffers are out", bufs_used(bench.rt.bufs));
	bench_check(pipes_used(bench.rt.bufs) == 0, "%u pipes are out", pipes_used(bench.rt.bufs));
	int err = sys_list_dir(s->staging_fd, check_staging_name, &names);
	bench_check(err == 0 && names == files, "%u staging files of %u", names, files);
}

static void check_at_rest(void)
{
	uint32_t found = 0, known = 0;
	for (uint32_t i = 0; i < FILES; i++) {
		struct file *f = &w->files[i];
		struct cmd status = {.kind = CMD_STATUS, .file = f};
		struct reply *rp = reply_for(&status);
		status.c.ended = NULL;
		upload_status(bench.rt.uploads, &f->id, rp);
		settle(&bench);
		check(f, status.c.done, "no status");
		model_resolve(&bench, f, &status.c.o);
		for (uint32_t k = 0; k < f->versions_count; k++)
			known += !f->versions[k].taken;
	}
	check_exports("", &found);
	bench_check(found == known, "%u exports of %u are there", found, known);
	check_counters();
	check_files(&bench);
}

static void come_to_rest(void)
{
	finish_streams();
	settle(&bench);
	check_at_rest();
	trace("at rest\n");
}

/* --- a life ----------------------------------------------------------------------------------- */

static void step(void)
{
	uint32_t what = any(100);
	if (what < 50)
		client_step(&clients[any(CLIENTS)]);
	else if (what < 93)
		turn_for(&bench, ring_busy_count(bench.rt.ring) && once_in(3));
	else if (what < 95)
		take_any();
	else if (what < 97)
		age(&w->files[any(FILES)]);
	else if (what < 99)
		for (uint32_t i = any(30); i; i--)
			turn_for(&bench, ring_busy_count(bench.rt.ring) > 0);
	else
		come_to_rest();
}

static int count_one(void *arg, const char *name)
{
	(void)name;
	++*(int *)arg;
	return 0;
}

static int count_fds(void)
{
	int count = 0, fd = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
	bench_check(fd >= 0 && sys_list_dir(fd, count_one, &count) == 0, "no /proc/self/fd");
	close(fd);
	return count;
}

/* Nothing is left of anything but what was exported, and that is as it was. */
static void check_end(void)
{
	for (uint32_t i = 0; i < FILES; i++)
		do_abort(&w->files[i]);
	settle(&bench);
	check_at_rest();
	bench_check(bench.rt.store->open_count == 0 && bench.rt.store->staged_bytes == 0, "not all is gone");
	for (uint32_t i = 0; i < FILES; i++) {
		struct file *f = &w->files[i];
		for (uint32_t k = 0; k < f->versions_count; k++) {
			struct version v = f->versions[k];
			if (v.taken)
				continue;
			version_read(&bench, f, &v);
			check(f, memcmp(v.digest, f->versions[k].digest, 32) == 0, "%s has changed", v.path);
		}
	}
}

static void live(bool is_last)
{
	int fds = count_fds();
	uint32_t steps = 10 + any(once_in(4) ? 400 : 150), die_at = UINT32_MAX;
	if (!is_last && any(4))
		die_at = any(steps);
	bench_up(&bench);
	enter_users(&bench);
	if (die_at != UINT32_MAX && once_in(2))
		answers_left = 1 + any(30);
	for (uint32_t i = 0; i < CLIENTS; i++) {
		clients[i] = (struct client){.idx = i};
		connect_client(&clients[i]);
	}
	/* What a crash left open is learned at rest. */
	settle(&bench);
	check_at_rest();
	for (uint32_t i = 0; i < steps; i++) {
		if (i == die_at)
			die();
		step();
	}
	if (die_at != UINT32_MAX)
		die();
	come_to_rest();
	for (uint32_t i = 0; i < CLIENTS; i++)
		disconnect_client(&clients[i]);
	if (is_last)
		check_end();
	leave_users();
	bench_down(&bench);
	bench_check(count_fds() == fds, "%d descriptors are left", count_fds() - fds);
	if (w->seed % 16 == 0 && __lsan_do_recoverable_leak_check)
		bench_check(__lsan_do_recoverable_leak_check() == 0, "memory is left");
}

static void run_life(bool is_last)
{
	int status = 0;
	w->was_killed = false;
	pid_t pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		is_child = true;
		live(is_last);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	bool is_killed = w->was_killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	cr_assert(is_killed || status == 0, "seed %llu, life %u ended with %x: SEED=%llu TRACE=1 tells more",
		(unsigned long long)w->seed, w->life, (unsigned)status, (unsigned long long)w->seed);
	trace(is_killed ? "--- killed\n" : "--- ended\n");
	for (uint32_t i = 0; is_killed && i < FILES; i++)
		file_crash(&w->files[i]);
}

/* --- a seed ----------------------------------------------------------------------------------- */

static void choose_conf(struct conf *c)
{
	static const uint32_t block_bytes[] = {8, 100, 1000, 4096, 10007, 30000};
	w->block_bytes = block_bytes[any(6)];
	c->verify.step_bytes = 1 + any(100000);
	c->transfer.backlog_bytes_max = once_in(2) ? any(100000) : 64 << 20;
	c->transfer.prealloc = once_in(2) ? CONF_SPARSE : CONF_RESERVE;
	c->transfer.ttl_max_s = c->transfer.replay_window_s = 60;
	c->io.journal_bytes = 4096 << any(6);
	c->io.open_files_max = 1 + any(3);
	c->export.layout = once_in(3) ? CONF_LAYOUT_EMQX : CONF_LAYOUT_PLAIN;
	c->export.manifest = w->has_manifest = any(4);
	c->export.parallel_max = 1 + any(3);
	w->may_refuse = once_in(5);
	if (w->may_refuse && once_in(2))
		c->transfer.scratch_bytes_max = any(BLOCKS) * w->block_bytes;
	else if (w->may_refuse)
		c->transfer.staged_bytes_max = 2 * BLOCKS * w->block_bytes;
	if (w->seed % 3) /* no draw: the seeds that were kept stay what they were */
		c->transfer.files_client_max = c->transfer.files_user_max = 100;
	if (w->may_refuse && w->seed % 2)
		c->transfer.files_client_max = 1 + w->seed / 2 % 3;
	else if (w->may_refuse)
		c->transfer.files_user_max = 1 + w->seed / 2 % 3;
	bench.pipe_bytes = 4096u << any(6);
	bench.pipes_max = 1 + any(4);
	bench.buffers_max = 2 + any(8);
}

/* Somebody else's directory where one of ours would be. */
static void foreign_export(void)
{
	static const char *const dirs[] = {"export", "export/c0", "export/c0/f0", "export/c0/f0/foreign"};
	char path[96];
	for (uint32_t i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%s", bench.dir, dirs[i]);
		cr_assert_eq(mkdir(path, 0755), 0);
	}
}

static void run_seed(uint64_t seed, const char *parent)
{
	static const struct upload_id ids[FILES] = {{"c0", 2, "f0", 2, NULL}, {"c1", 2, "f0", 2, NULL},
		{"c0", 2, "%/..", 4, NULL}};
	uint64_t acks = w->acks, exports = w->exports, kills = w->kills;
	*w = (struct world){.seed = seed, .rng = seed * 0x9e3779b97f4a7c15 + 1, .acks = acks, .exports = exports,
		.kills = kills};
	for (uint32_t i = 0; i < FILES; i++) {
		w->files[i].idx = i;
		w->files[i].id = ids[i];
		w->files[i].metas = 1u << META_NONE;
	}
	any(1);
	bench_prepare(&bench, parent);
	choose_conf(&bench.conf);
	if (once_in(8))
		foreign_export();
	uint32_t lives = 1 + any(LIVES_MAX);
	for (w->life = 1; w->life <= lives; w->life++)
		run_life(w->life == lives);
	bench_remove(&bench);
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text ? strtoull(text, NULL, 10) : otherwise;
}

Test(upload_model, acknowledged_is_there_and_exported_is_right)
{
	/* In memory: this is about order, not about disks. */
	const char *parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	uint64_t one = number_of("SEED", 0), seeds = number_of("SEEDS", SEEDS);
	w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(w, MAP_FAILED);
	is_traced = getenv("TRACE");
	bench_on_failure = on_failure;
	listen_once();
	log_init(is_traced ? CONF_LOG_DEBUG : CONF_LOG_ERROR, sys_wall_ms, NULL);
	if (one) {
		run_seed(one, parent);
		return;
	}
	for (size_t i = 0; i < sizeof(seeds_kept) / sizeof(seeds_kept[0]); i++)
		run_seed(seeds_kept[i], parent);
	for (uint64_t seed = 1; seed <= seeds; seed++)
		run_seed(seed, parent);
	cr_assert(w->acks > seeds && w->exports > seeds / 2 && w->kills > seeds / 2,
		"%llu acks, %llu exports, %llu kills", (unsigned long long)w->acks,
		(unsigned long long)w->exports, (unsigned long long)w->kills);
}
