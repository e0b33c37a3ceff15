/*
 * Surroundings for the tests of transfers, which drive them straight through upload.h: a real ring
 * and a real directory, but no connections. Replies are caught by the functions below, which stand
 * in for reply.c.
 *
 * What goes wrong ends in bench_fail. It fails the test, but a process that was forked off a test
 * may not use criterion: it sets bench_on_failure.
 */
#ifndef SLUICE_TEST_UPLOAD_BENCH_H
#define SLUICE_TEST_UPLOAD_BENCH_H

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conf.h"
#include "events.h"
#include "recover.h"
#include "segment.h"
#include "sha256.h"
#include "transfer.h"

static void (*bench_on_failure)(const char *text);

__attribute__((format(printf, 1, 2))) static inline void bench_fail(const char *format, ...)
{
	char text[512];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (bench_on_failure)
		bench_on_failure(text);
	cr_assert_fail("%s", text);
}

#define bench_check(condition, ...) ((condition) ? (void)0 : bench_fail(__VA_ARGS__))

/* --- stand-ins for the connection side -------------------------------------------------------- */

struct caught {
	bool done, discarded, acked;     /* acked: ahead of its end */
	struct outcome o;
	void (*ended)(struct caught *c); /* called when it is done; may be NULL */
};

static void reply_end(struct reply *rp, const struct outcome *o, bool discarded)
{
	struct caught *c = (struct caught *)rp->conn;
	bench_check(!c->done, "answered twice");
	c->done = true;
	c->discarded = discarded;
	c->o = o ? *o : (struct outcome){.text = "success"};
	free(rp);
	if (c->ended)
		c->ended(c);
}

void reply_finish(struct reply *rp, const struct outcome *o)
{
	reply_end(rp, o, false);
}

void reply_discard(struct reply *rp)
{
	reply_end(rp, NULL, true);
}

void reply_fail(struct reply *rp, uint8_t reason, const char *text, bool is_transient)
{
	struct outcome o = {.reason = reason, .text = text, .is_transient = is_transient};
	reply_end(rp, &o, false);
}

void reply_detach(struct reply *rp)
{
	rp->is_detached = true;
}

void reply_ack_now(struct reply *rp)
{
	((struct caught *)rp->conn)->acked = true;
}

void events_publish(struct reactor *rt, const char *kind, const struct answer_event *e)
{
	(void)rt;
	(void)kind;
	(void)e;
}

uint32_t reactor_owner(const char *clientid, uint32_t clientid_bytes, uint32_t count)
{
	(void)clientid;
	(void)clientid_bytes;
	(void)count;
	return 0;
}

/* --- the bench -------------------------------------------------------------------------------- */

struct bench {
	char dir[64];
	struct conf conf;
	struct reactor rt;
	struct reactor *rts[1];
	uint32_t pipe_bytes, pipes_max, buffers_max;
};

static inline void bench_up(struct bench *b)
{
	char error[512] = "";
	struct ring_conf rc = {.entries = 256, .workers_max = 8, .splices_max = 4, .syncs_max = 4};
	int err;
	b->rt = (struct reactor){.count = 1, .conf = &b->conf};
	b->rts[0] = &b->rt;
	b->rt.peers = b->rts;
	timers_init(&b->rt.timers, sys_mono_ms());
	err = store_open(&b->conf, &b->rt.store, error, sizeof(error));
	bench_check(err == 0, "%s", error);
	err = verify_new(2, &b->rt.verify);
	bench_check(err == 0, "no verify pool: %d", err);
	err = bufs_new(128 * 1024, b->buffers_max, b->pipe_bytes, b->pipes_max, &b->rt.bufs);
	bench_check(err == 0, "no buffers: %d", err);
	err = recover_run(b->rts, 1, error, sizeof(error));
	bench_check(err == 0, "%s", error);
	err = ring_new(&rc, &b->rt.ring);
	bench_check(err == 0, "no ring: %d", err);
	uploads_resume(b->rt.uploads);
}

/* As a reactor's. */
static inline void turn_for(struct bench *b, uint32_t timeout_ms)
{
	journal_flush(b->rt.journal);
	ring_turn(b->rt.ring, timeout_ms);
	timers_expire(&b->rt.timers, ring_now_ms(b->rt.ring));
	bufs_step(b->rt.bufs);
	journal_flush(b->rt.journal);
}

static inline void turn(struct bench *b)
{
	turn_for(b, 5);
}

static inline bool is_at_rest(const struct bench *b)
{
	return uploads_is_idle(b->rt.uploads) && journal_is_idle(b->rt.journal) &&
		ring_busy_count(b->rt.ring) == 0;
}

static inline void settle(struct bench *b)
{
	for (int i = 0; i < 2000; i++) {
		turn_for(b, i ? 5 : 0);
		if (is_at_rest(b))
			return;
	}
	bench_fail("does not come to rest");
}

/* What a large segment may be waiting for; valid until the next call. */
static inline const char *bench_seg_text(struct bench *b, const struct seg *s)
{
	static char text[320];
	const struct transfer *t = s->t;
	snprintf(text, sizeof(text), "segment %d, to scratch %d, transfer %d, staging %d with %u users, "
		"%u segments (%u queued), hashing %u, syncing %d, seeding %d, publishing %d, file op %d, "
		"%u operations, journal %s, %u pipes, %u buffers", s->state, stream_scratch_fd(s), t->state,
		t->staging_state, t->fd_users, t->segs_count, t->segs_queued, t->hashing, t->syncing,
		t->seeding, t->publish != NULL, t->file_op.state, ring_busy_count(b->rt.ring),
		journal_is_idle(b->rt.journal) ? "idle" : "busy", pipes_used(b->rt.bufs),
		bufs_used(b->rt.bufs));
	return text;
}

/* An end at rest: what is in memory only is gone. */
static inline void bench_down(struct bench *b)
{
	for (int i = 0; i < 2000 && ring_busy_count(b->rt.ring); i++)
		turn(b);
	uploads_free(b->rt.uploads);
	journal_free(b->rt.journal);
	/* A thread whose post has been run may still be about to look whether the ring must be
	 * woken. */
	verify_free(b->rt.verify);
	ring_free(b->rt.ring);
	bufs_free(b->rt.bufs);
	store_close(b->rt.store);
}

/* A directory of its own below parent, and a configuration. */
static inline void bench_prepare(struct bench *b, const char *parent)
{
	memset(b, 0, sizeof(*b));
	snprintf(b->dir, sizeof(b->dir), "%s/sluice-upload-XXXXXX", parent);
	cr_assert_not_null(mkdtemp(b->dir));
	cr_assert_eq(conf_init(&b->conf), 0);
	free(b->conf.data);
	b->conf.data = strdup(b->dir);
	b->conf.verify.step_bytes = 4096;
	b->pipe_bytes = 1 << 20;
	b->pipes_max = 4;
	b->buffers_max = 16;
}

static inline void bench_remove(struct bench *b)
{
	char command[128];
	conf_fini(&b->conf);
	snprintf(command, sizeof(command), "rm -rf '%s'", b->dir);
	cr_assert_eq(system(command), 0);
}

#endif
