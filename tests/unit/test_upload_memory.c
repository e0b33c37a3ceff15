/*
 * An upload during which one allocation fails: each of them, one after the other, alone or with all that follow until
 * the commands have been given.
 *
 * Every command is answered and everything comes to rest. What was acknowledged is there after a restart, and the
 * upload can be finished then; the file is the one that was sent.
 */
#include <stdlib.h>

/* What this file itself takes does not fail. */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
#define malloc __real_malloc
#define calloc __real_calloc
#include "upload_commands.h"
#undef malloc
#undef calloc
#include <cjson/cJSON.h>

static struct {
	_Atomic bool armed;
	bool and_on;
	uint32_t nth;
	_Atomic uint32_t calls;
} fault;

static bool hits(void)
{
	if (!atomic_load(&fault.armed))
		return false;
	uint32_t n = atomic_fetch_add(&fault.calls, 1) + 1;
	return n == fault.nth || (fault.and_on && n > fault.nth);
}

#define FAILING(type, name, parameters, arguments) \
	type __real_##name parameters; \
	type __wrap_##name parameters; \
	type __wrap_##name parameters \
	{ \
		return hits() ? NULL : __real_##name arguments; \
	}

FAILING(void *, malloc, (size_t bytes), (bytes))
FAILING(void *, calloc, (size_t count, size_t bytes), (count, bytes))
FAILING(void *, realloc, (void *p, size_t bytes), (p, bytes))
FAILING(char *, strdup, (const char *text), (text))
FAILING(char *, strndup, (const char *text, size_t bytes), (text, bytes))

int __wrap_asprintf(char **ret, const char *format, ...);
int __wrap_asprintf(char **ret, const char *format, ...)
{
	va_list args;
	if (hits())
		return -1;
	va_start(args, format);
	int bytes = vasprintf(ret, format, args);
	va_end(args);
	return bytes;
}

static void *hooked_malloc(size_t bytes)
{
	return __wrap_malloc(bytes);
}

/* The bench's sockets are no TCP ones: they drop nothing without copying it. */
int __wrap_sock_discard(int fd, uint32_t len);
int __wrap_sock_discard(int fd, uint32_t len)
{
	static uint8_t dropped[65536];
	ssize_t n = recv(fd, dropped, len < sizeof(dropped) ? len : sizeof(dropped), MSG_DONTWAIT);
	return n < 0 ? -errno : (int)n;
}

/* --- the commands ----------------------------------------------------------------------------- */

enum { BYTES = 200000, SEGMENTS = 3 };
#define META "{\"name\":\"a\",\"size\":200000,\"user_data\":[1]}"
#define META_NEXT "{\"name\":\"b\"}"

static const struct extent segments[SEGMENTS] = {{0, 150000}, {150000, 199000}, {199000, BYTES}};

struct run {
	struct bench b;
	uint8_t *data, digest[32];
	bool by_segment; /* not an init begins the next generation, but a segment with other bytes */
	bool init_acked, acked[SEGMENTS], fin_acked, next_acked, next_segment_acked, aborted;
	uint32_t refusals;
};

static bool note(struct run *r, struct caught c)
{
	/* Nothing that is wrong with the command: it may be sent again. */
	if (c.o.reason)
		cr_assert(c.o.is_transient || strcmp(c.o.text, "incomplete") == 0, "allocation %u: %s", fault.nth,
			c.o.text);
	r->refusals += c.o.reason != 0;
	return c.o.reason == 0;
}

/* As do_large, also when there is no memory for a segment. */
static struct caught send_large(struct bench *b, const struct extent *e, const uint8_t *data)
{
	struct caught c;
	struct outcome refused;
	int fds[2];
	bool resumed = false;
	uint32_t bytes = (uint32_t)(e->to - e->from), sent = 0;
	struct filecmd cmd = segment_cmd(e->from);
	if (!upload_segment_admit(b->rt.uploads, &ID, &cmd, bytes, &refused))
		return (struct caught){.o = refused};
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	struct seg *s = ingest_begin(b->rt.uploads, &ID, &cmd, bytes, NULL, NULL, 0, reply_for(&c), note_resume,
		&resumed);
	for (int i = 0; s && i < 100000; i++) {
		ssize_t n = sent < bytes ? write(fds[1], data + e->from + sent, bytes - sent) : 0;
		sent += n > 0 ? (uint32_t)n : 0;
		enum ingest_pull p = ingest_pull(s, fds[0], UINT32_MAX);
		ingest_flush(b->rt.uploads);
		if (p == INGEST_DONE)
			break;
		for (int k = 0; p == INGEST_WAIT && k < 2000 && !resumed; k++)
			turn(b);
		cr_assert(p != INGEST_WAIT || resumed, "allocation %u: never resumed", fault.nth);
		resumed = false;
	}
	settle(b);
	cr_assert(c.done, "allocation %u: no answer to a large segment", fault.nth);
	close(fds[0]);
	close(fds[1]);
	return c;
}

/* As do_small, whose buffer is the connection's. */
static struct caught send_small(struct bench *b, const struct extent *e, const uint8_t *data)
{
	struct caught c;
	struct outcome refused;
	struct filecmd cmd = segment_cmd(e->from);
	uint32_t bytes = (uint32_t)(e->to - e->from);
	if (!upload_segment_admit(b->rt.uploads, &ID, &cmd, bytes, &refused))
		return (struct caught){.o = refused};
	bool was_armed = atomic_exchange(&fault.armed, false);
	struct buf *buf = bufs_take(b->rt.bufs);
	atomic_store(&fault.armed, was_armed);
	memcpy(buf->data, data + e->from, bytes);
	ingest_small(b->rt.uploads, &ID, &cmd, buf, buf->data, bytes, reply_for(&c));
	ingest_flush(b->rt.uploads);
	buf_unref(buf);
	settle(b);
	cr_assert(c.done, "allocation %u: no answer to a small segment", fault.nth);
	return c;
}

static struct caught send_segment(struct bench *b, int i, const uint8_t *data)
{
	return i < 2 ? send_large(b, &segments[i], data) : send_small(b, &segments[i], data);
}

static void all_commands(struct run *r)
{
	static const struct extent first = {0, 1000};
	struct bench *b = &r->b;
	r->init_acked = note(r, do_init(b, META));
	for (int i = 0; i < SEGMENTS; i++)
		r->acked[i] = note(r, send_segment(b, i, r->data));
	(void)do_status(b);
	r->fin_acked = note(r, do_fin(b, BYTES, r->digest));
	if (!r->fin_acked)
		return;
	r->next_acked = !r->by_segment && note(r, do_init(b, META_NEXT));
	if (!r->by_segment && !r->next_acked)
		return;
	r->next_segment_acked = note(r, send_small(b, &first, r->data + 7));
	r->aborted = !r->by_segment && fault.nth % 2 && note(r, do_abort(b));
}

/* --- what must be there ----------------------------------------------------------------------- */

static void check_next(const struct run *r, const struct transfer *t)
{
	if (r->aborted) {
		cr_assert(t->generation == 1 && t->state == TRANSFER_EXPORTED, "allocation %u", fault.nth);
		return;
	}
	cr_assert_eq(t->generation, 2, "allocation %u", fault.nth);
	const char *name = r->by_segment ? "a" : "b";
	cr_assert(t->has_meta && t->meta.name && strcmp(t->meta.name, name) == 0,
		"allocation %u: metadata of the next", fault.nth);
	cr_assert(!r->next_segment_acked || cover_has(&t->cover, 0, 1000), "allocation %u", fault.nth);
}

static void check_kept(struct run *r, const char *when)
{
	const struct transfer *t = transfer_find(r->b.rt.uploads, &ID);
	if (r->fin_acked)
		assert_file(&r->b, "cam/f1/a", r->data, BYTES);
	if (r->next_acked || r->next_segment_acked) {
		check_next(r, t);
		return;
	}
	if (r->fin_acked) {
		cr_assert_not_null(t);
		return;
	}
	if (r->init_acked)
		cr_assert(t && t->has_meta && strcmp(t->meta.name, "a") == 0, "allocation %u, %s: metadata", fault.nth,
			when);
	for (int i = 0; i < SEGMENTS; i++)
		cr_assert(!r->acked[i] || t->state != TRANSFER_OPEN ||
			cover_has(&t->cover, segments[i].from, segments[i].to), "allocation %u, %s: segment %d",
			fault.nth, when, i);
}

static void finish(struct run *r)
{
	assert_ok(do_init(&r->b, META));
	for (int i = 0; i < SEGMENTS; i++)
		assert_ok(send_segment(&r->b, i, r->data));
	assert_ok(do_fin(&r->b, BYTES, r->digest));
	assert_file(&r->b, "cam/f1/a", r->data, BYTES);
}

/* --- the test --------------------------------------------------------------------------------- */

/* False: there is no such allocation. */
static bool fail_one(uint32_t nth, bool and_on, bool by_segment, uint32_t *refusals)
{
	struct run r = {.data = noise(BYTES + 10, 1), .by_segment = by_segment};
	digest_of(r.data, BYTES, r.digest);
	bench_prepare(&r.b, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	r.b.conf.io.journal_bytes = 64 * 1024;
	bench_up(&r.b);
	fault.nth = nth;
	fault.and_on = and_on;
	atomic_store(&fault.calls, 0);
	atomic_store(&fault.armed, true);
	all_commands(&r);
	atomic_store(&fault.armed, false);
	bool was_hit = atomic_load(&fault.calls) >= nth;
	cr_assert(was_hit || r.refusals == 0);
	*refusals += r.refusals;
	check_kept(&r, "at once");
	bench_restart(&r.b);
	settle(&r.b);
	check_kept(&r, "after a restart");
	if (!r.fin_acked)
		finish(&r);
	bench_down(&r.b);
	bench_remove(&r.b);
	free(r.data);
	return was_hit;
}

static void fail_each(bool and_on, bool by_segment)
{
	cJSON_Hooks hooks = {hooked_malloc, free};
	uint32_t nth = 1, refusals = 0;
	cJSON_InitHooks(&hooks);
	while (fail_one(nth, and_on, by_segment, &refusals))
		nth++;
	fprintf(stderr, "%u allocations, %u refusals\n", nth - 1, refusals);
	cr_expect_geq(nth, 50);
	cr_expect_geq(refusals, nth / 2);
}

Test(upload_memory, one_allocation_fails, .timeout = 120)
{
	fail_each(false, false);
	fail_each(false, true);
}

Test(upload_memory, all_fail_from_one_on, .timeout = 120)
{
	fail_each(true, false);
	fail_each(true, true);
}
