/*
 * Surroundings for the tests of daemon/journal.c, over a real ring and directory.
 *
 * The model of the daemon's state is a bitmap of units per transfer and the number of the turn that
 * it was last changed in. What recovery would read from the directory, at any moment, must be the
 * state after one whole turn, and of one that is not older than the last turn acknowledged.
 */
#ifndef SLUICE_TEST_JOURNAL_WORLD_H
#define SLUICE_TEST_JOURNAL_WORLD_H

#include "ring_world.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "journal.h"
#include "log.h"
#include "reactor.h"
#include "store.h"

enum { TIDS = 8, UNITS = 64, TURNS_MAX = 4000, FIRST_SEQ = 5, REACTOR = 3 };

struct state {
	uint64_t turn;
	bool open[TIDS];
	uint64_t units[TIDS]; /* one bit each */
};

struct waiter {
	struct journal_waiter w;
	uint32_t done_count;
	uint32_t at; /* of all completions, which this was */
	int err;
	uint64_t turn; /* in which it was registered */
};

static struct ring_world w;
static struct conf conf;
static struct store store;
static struct reactor rt;
static struct journal *j;
static struct state state;
static uint32_t completions, errors_logged;
static char *big_text; /* part of every checkpoint, when there is one */
static uint32_t big_text_bytes;
static bool checkpoint_fails; /* there is no memory for one of its records */

/* --- the daemon around it --------------------------------------------------------------------- */

static inline void units_put(const struct state *s, uint32_t tid, void (*put)(void *, const struct record *), void *arg)
{
	for (uint32_t from = 0; from < UNITS; from++) {
		uint32_t to = from;
		while (to < UNITS && s->units[tid] >> to & 1)
			to++;
		if (to == from)
			continue;
		struct record r = {.type = RECORD_EXTENT, .tid = tid, .from = from, .to = to};
		put(arg, &r);
		from = to;
	}
}

static inline void checkpoint(void *arg, void (*put)(void *put_arg, const struct record *r), void *put_arg)
{
	const struct state *s = arg;
	for (uint32_t tid = 0; tid < TIDS; tid++) {
		struct record open = {.type = RECORD_OPEN, .tid = tid, .clientid = "c", .clientid_bytes = 1,
			.fileid = "f", .fileid_bytes = 1, .text = "staged", .text_bytes = 6};
		if (!s->open[tid])
			continue;
		put(put_arg, &open);
		units_put(s, tid, put, put_arg);
	}
	if (big_text) {
		struct record meta = {.type = RECORD_META, .tid = 99, .text = big_text,
			.text_bytes = big_text_bytes};
		put(put_arg, &meta);
	}
	if (checkpoint_fails)
		put(put_arg, NULL);
	struct record turn = {.type = RECORD_RESERVE, .tid = TIDS, .size = s->turn};
	put(put_arg, &turn);
}

static inline void on_log(const char *line, size_t bytes)
{
	(void)line;
	(void)bytes;
	errors_logged++;
}

static inline void start(uint64_t journal_bytes)
{
	ring_world_init(&w);
	log_init(CONF_LOG_ERROR, sys_wall_ms, on_log);
	conf.io.journal_bytes = journal_bytes;
	store.set_fd = w.dir_fd;
	rt.idx = REACTOR;
	rt.conf = &conf;
	rt.ring = w.ring;
	cr_assert_eq(journal_new(&rt, &store, FIRST_SEQ, checkpoint, &state, &j), 0);
}

static inline void set_up(void)
{
	start(1 << 20);
}

static inline void tear_down(void)
{
	journal_free(j);
	ring_world_fini(&w);
}

TestSuite(journal, .init = set_up, .fini = tear_down);

static inline void set_up_small(void)
{
	start(4096);
}

TestSuite(journal_small, .init = set_up_small, .fini = tear_down);

static inline void on_waited(struct journal_waiter *waiter, int err)
{
	struct waiter *x = (struct waiter *)waiter;
	cr_assert_not(waiter->waiting);
	x->done_count++;
	x->at = ++completions;
	x->err = err;
}

static inline void wait_for(struct waiter *x, enum journal_level level)
{
	x->w.done = on_waited;
	x->turn = state.turn;
	journal_wait(j, &x->w, level);
	cr_assert(x->w.waiting);
}

static inline void append_extent(uint64_t tid, uint64_t from, uint64_t to)
{
	struct record r = {.type = RECORD_EXTENT, .tid = tid, .from = from, .to = to};
	journal_append(j, &r);
}

/* Turns as the reactor does until nothing is left to do. */
static inline void settle(void)
{
	uint64_t end_ms = sys_mono_ms() + 10000;
	do {
		cr_assert_lt(sys_mono_ms(), end_ms);
		journal_flush(j);
		ring_turn(w.ring, ring_busy_count(w.ring) ? 100 : 0);
	} while (!journal_is_idle(j) || ring_busy_count(w.ring) > 0);
}

/* --- recovery, as simple as can be ------------------------------------------------------------ */

static inline void apply(struct state *s, const struct record *r)
{
	switch (r->type) {
	case RECORD_OPEN:
		s->open[r->tid] = true;
		s->units[r->tid] = 0;
		break;
	case RECORD_EXTENT:
		cr_assert(s->open[r->tid]);
		for (uint64_t u = r->from; u < r->to; u++)
			s->units[r->tid] |= 1ull << u;
		break;
	case RECORD_ABORTED:
		s->open[r->tid] = false;
		s->units[r->tid] = 0;
		break;
	case RECORD_RESERVE:
		s->turn = r->size;
		break;
	default:
		break;
	}
}

struct found {
	struct state state;
	uint64_t file_seq, file_bytes, used_bytes;
	uint32_t records; /* behind the checkpoint, without marks */
	uint32_t marks;
	uint64_t marked_off; /* by the last of them */
	bool whole;
};

/* False: it was there when the directory was read, but the rotation has taken it away since. */
static inline bool read_file(const char *name, struct found *ret)
{
	static uint8_t buf[4 << 20];
	uint32_t reactor_idx = 0;
	char check[JOURNAL_NAME_MAX];
	int fd = sys_openat(w.dir_fd, name, O_RDONLY, 0);
	if (fd == -ENOENT)
		return false;
	cr_assert_geq(fd, 0);
	int64_t bytes = sys_pread(fd, buf, sizeof(buf), 0);
	sys_close(fd);
	cr_assert_geq(bytes, 0);
	*ret = (struct found){.file_bytes = (uint64_t)bytes};
	struct record_reader reader = {.buf = buf, .buf_bytes = (size_t)bytes, .off = RECORD_HEADER_BYTES};
	if (record_header_decode(buf, (size_t)bytes, &reader.salt, &ret->file_seq, &reactor_idx))
		return true; /* still being made */
	cr_assert_eq(reactor_idx, REACTOR);
	journal_file_name(reactor_idx, ret->file_seq, check);
	cr_assert_str_eq(check, name);
	struct record r;
	int more;
	uint64_t turn = 0;
	while ((more = record_next(&reader, &r)) == 1) {
		/* What the checkpoint holds already is not written a second time. */
		cr_assert(!ret->whole || r.type != RECORD_RESERVE || r.size > turn);
		turn = r.type == RECORD_RESERVE ? r.size : turn;
		if (r.type == RECORD_SYNC_MARK) {
			cr_assert_gt(r.size, ret->marked_off);
			cr_assert_leq(r.size, reader.off);
			ret->marks++;
			ret->marked_off = r.size;
			continue;
		}
		ret->records += ret->whole;
		ret->whole |= r.type == RECORD_CHECKPOINT_END;
		apply(&ret->state, &r);
	}
	cr_assert_eq(more, 0);
	ret->used_bytes = reader.off;
	return true;
}

struct recovery {
	struct found best;
	uint32_t files;
};

static inline int on_name(void *arg, const char *name)
{
	struct recovery *rc = arg;
	struct found f;
	if (name[0] != 'r')
		return 0;
	if (!read_file(name, &f))
		return -EAGAIN;
	rc->files++;
	if (f.whole && f.file_seq > rc->best.file_seq)
		rc->best = f;
	return 0;
}

static inline struct recovery recover(void)
{
	struct recovery rc;
	int err;
	do {
		rc = (struct recovery){0};
		err = sys_list_dir(w.dir_fd, on_name, &rc);
	} while (err == -EAGAIN);
	cr_assert_eq(err, 0);
	cr_assert(rc.best.whole);
	return rc;
}

static inline bool is_same(const struct state *a, const struct state *b)
{
	return memcmp(a->open, b->open, sizeof(a->open)) == 0 && memcmp(a->units, b->units, sizeof(a->units)) == 0;
}

static inline void expect_same(const struct state *got, const struct state *wanted)
{
	cr_assert_eq(got->turn, wanted->turn);
	for (int i = 0; i < TIDS; i++) {
		cr_assert_eq(got->open[i], wanted->open[i], "turn %lu, %d", (unsigned long)got->turn, i);
		cr_assert_eq(got->units[i], wanted->units[i], "turn %lu, %d", (unsigned long)got->turn, i);
	}
}

/* With nothing on its way, all of it is there. */
static inline void expect_recovered(void)
{
	struct recovery rc = recover();
	expect_same(&rc.best.state, &state);
}

/* Fills the file up until room is left for so many more small records. */
static inline void fill_file(uint32_t left)
{
	struct record meta = {.type = RECORD_META, .tid = 98, .text = "0123456789", .text_bytes = 10};
	struct recovery rc = recover();
	while (rc.best.file_bytes - rc.best.used_bytes >= (left + 1) * record_size(&meta)) {
		journal_append(j, &meta);
		settle();
		rc = recover();
	}
	cr_assert_gt(rc.best.records, 10);
}

#endif
