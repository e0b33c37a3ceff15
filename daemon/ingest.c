/*
 * Segments: order, locks, checks, and the moment from which one counts.
 *
 * A transfer's unfinished segments stand in a list in order of arrival. One may start when no
 * earlier one in the list overlaps it: so overlapping ones are carried out one after the other, and
 * the last write wins. The range of a started segment is thereby locked until it leaves the list.
 *
 * Over bytes that are not covered yet, the payload goes straight into the staging file: nobody
 * relies on them until the extent is in the journal. Over covered bytes (a retransmission, or a
 * repair) nothing is touched until the payload has arrived whole, matched its checksum and turned
 * out to differ: a small one waits in its buffer, a large one in a scratch file. Equal bytes change
 * nothing, also where they are only a part of the segment. Different ones: first a record takes the
 * range out of coverage, then the bytes are written, then the extent is recorded anew. A crash
 * between leaves the range missing, never wrong.
 *
 * A segment of a transfer that is already exported is compared with the exported file. Equal: a
 * replay, acknowledged and remembered as such. Different, or not comparable: it begins the next
 * generation, which takes over the replays acknowledged so far, so that a file sent again with
 * changes ends whole.
 *
 * A segment of a connection of durability power stays in the list, its range locked, until its bytes
 * are on the disk (sync.c); only then does it count.
 *
 * Neighbouring small segments that may start together become one gathered write (group.c).
 */
#include "upload.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "log.h"
#include "mqtt.h"
#include "segment.h"
#include "spool.h"

enum { EXPORT_FDS_MAX = 16, LOCKED_MAX = 16 };

/* --- life ------------------------------------------------------------------------------------- */

static struct seg *seg_new(struct uploads *u, struct transfer *t, struct user *user, const struct filecmd *cmd,
	uint32_t bytes, struct reply *rp)
{
	struct seg *s = calloc(1, sizeof(*s));
	if (!s) {
		reply_fail(rp, MQTT_RC_UNSPECIFIED, "no_memory", true);
		return NULL;
	}
	s->u = u;
	s->t = t;
	s->reply = rp;
	s->off = cmd->offset;
	s->bytes = bytes;
	s->export_fd = -1;
	s->is_power = rp->is_power;
	s->has_checksum = cmd->has_checksum;
	memcpy(s->checksum, cmd->checksum, sizeof(s->checksum));
	/* A transfer that is open stays so while it has segments. */
	if (t->state != TRANSFER_OPEN)
		s->user = user_ref(user);
	transfer_pin(t);
	return s;
}

static void list_push(struct transfer *t, struct seg *s)
{
	if (!t->segs) {
		t->segs_ordered = true;
		t->segs_end = 0;
	}
	if (s->off < t->segs_end)
		t->segs_ordered = false;
	if (seg_end(s) > t->segs_end)
		t->segs_end = seg_end(s);
	s->state = SEG_QUEUED;
	s->next = NULL;
	s->pprev = t->segs_tail;
	*t->segs_tail = s;
	t->segs_tail = &s->next;
	t->segs_queued++;
	t->segs_count++;
}

static void list_remove(struct seg *s)
{
	struct transfer *t = s->t;
	if (!s->pprev)
		return;
	if (s->state == SEG_QUEUED)
		t->segs_queued--;
	t->segs_count--;
	*s->pprev = s->next;
	if (s->next)
		s->next->pprev = s->pprev;
	else
		t->segs_tail = s->pprev;
	s->next = NULL;
	s->pprev = NULL;
}

void seg_set_state(struct seg *s, enum seg_state state)
{
	if (s->state == SEG_QUEUED && s->pprev)
		s->t->segs_queued--;
	s->state = state;
}

static void step_next_generation(struct transfer *t)
{
	struct upload_id id = {t->clientid, t->clientid_bytes, t->fileid, t->fileid_bytes, NULL};
	struct transfer *head = transfer_find(t->u, &id);
	if (head && head != t)
		transfer_step(head);
}

/* Frees the segment; whoever waited for its range goes on. */
static void seg_free(struct seg *s)
{
	struct transfer *t = s->t;
	list_remove(s);
	if (s->export_fd >= 0)
		sys_close(s->export_fd);
	stream_free(s);
	buf_unref(s->buf);
	user_leave(s->user);
	free(s);
	if (!t->gone || t->segs)
		transfer_step(t);
	else if (t->state == TRANSFER_EXPORTED)
		step_next_generation(t); /* it waited for us */
	transfer_unpin(t);
}

void seg_discard(struct seg *s)
{
	if (s->reply)
		reply_discard(s->reply);
	s->reply = NULL;
	seg_free(s);
}

void seg_fail(struct seg *s, const struct outcome *o)
{
	struct reply *rp = s->reply;
	s->reply = NULL;
	chain_on_failed(s);
	STAT_ADD(s->u->rt, segments_refused, 1);
	if (rp)
		reply_finish(rp, o);
	if (s->stream && !stream_fail(s, o))
		return; /* the connection still drains the payload; stream.c frees it */
	seg_free(s);
}

void seg_fail_errno(struct seg *s, int err)
{
	struct outcome o;
	outcome_storage(&o, err);
	if (s->reply)
		log_warn("segment failed", LS("clientid", s->t->clientid, s->t->clientid_bytes),
			LS("fileid", s->t->fileid, s->t->fileid_bytes), LU("offset", s->off),
			LE("error", err), NULL);
	seg_fail(s, &o);
}

/* --- the end ---------------------------------------------------------------------------------- */

static void on_settled(struct journal_waiter *w, int err)
{
	struct seg *s = container_of(w, struct seg, waiter);
	if (err) {
		seg_fail_errno(s, err);
		return;
	}
	STAT_ADD(s->u->rt, segments, 1);
	if (s->is_replay)
		STAT_ADD(s->u->rt, segments_replayed, 1);
	struct reply *rp = s->reply;
	s->reply = NULL;
	reply_finish(rp, NULL);
	seg_free(s);
}

/* Acknowledged when the journal has got so far. */
static void seg_wait_journal(struct seg *s)
{
	list_remove(s);
	seg_set_state(s, SEG_SETTLING);
	buf_unref(s->buf);
	s->buf = NULL;
	s->waiter.done = on_settled;
	journal_wait(s->u->rt->journal, &s->waiter, s->is_power ? JOURNAL_SYNCED : JOURNAL_WRITTEN);
	transfer_touch(s->t);
}

/* From now on the segment counts. */
static void seg_count(struct seg *s, enum record_type type)
{
	struct transfer *t = s->t;
	struct record r = {.type = type, .tid = t->tid, .from = s->off, .to = seg_end(s)};
	int err = type == RECORD_SYNCED ? transfer_add_synced(t, s->off, seg_end(s)) :
		transfer_add_extent(t, s->off, seg_end(s));
	if (err) {
		seg_fail_errno(s, err);
		return;
	}
	journal_append(s->u->rt->journal, &r);
	chain_on_counted(s);
	seg_wait_journal(s);
}

static void on_synced(struct journal_waiter *w, int err)
{
	struct seg *s = container_of(w, struct seg, waiter);
	if (err)
		seg_fail_errno(s, err);
	else
		seg_count(s, RECORD_SYNCED);
}

static void seg_sync(struct seg *s)
{
	seg_set_state(s, SEG_SYNCING);
	buf_unref(s->buf);
	s->buf = NULL;
	s->waiter.done = on_synced;
	sync_file(s->t, &s->waiter, false);
}

/* The bytes are where they belong. */
void seg_settle(struct seg *s)
{
	if (s->t->state == TRANSFER_EXPORTED)
		seg_count(s, RECORD_EXTENT); /* compared with an export, which is on the disk */
	else if (s->staging_gen != s->t->staging_gen)
		seg_fail_errno(s, -EIO); /* meanwhile its file failed to sync */
	else if (s->is_power)
		seg_sync(s);
	else
		seg_count(s, RECORD_EXTENT);
}

/* Nothing was changed: acknowledged with what was acknowledged before, or better. */
static void seg_settle_unchanged(struct seg *s)
{
	s->is_replay = true;
	if (s->is_power && s->t->state != TRANSFER_EXPORTED &&
		!cover_has(&s->t->synced, s->off, seg_end(s)))
		seg_sync(s);
	else
		seg_wait_journal(s);
}

/* --- writing ---------------------------------------------------------------------------------- */

static void on_copied(struct seg *s, int err)
{
	staging_put(s->t);
	if (err)
		seg_fail_errno(s, err);
	else
		seg_settle(s);
}

/* To the staging file: from the buffer, or from the scratch file. False: the file is not open; try
 * again. */
static bool seg_write(struct seg *s)
{
	if (!staging_get(s->t))
		return false;
	s->group_next = NULL;
	if (s->stream) {
		seg_set_state(s, SEG_WRITING);
		s->staging_gen = s->t->staging_gen;
		stream_copy(s, on_copied);
	} else {
		group_write(s->t, s);
	}
	return true;
}

/* Waits in its place until the staging file can be used: it may be open again, or being
 * preallocated, at any moment. */
static void seg_wait_file(struct seg *s)
{
	s->state = SEG_QUEUED;
	s->t->segs_queued++;
}

static void on_uncovered(struct journal_waiter *w, int err)
{
	struct seg *s = container_of(w, struct seg, waiter);
	if (err)
		seg_fail_errno(s, err);
	else if (!seg_write(s))
		seg_wait_file(s);
}

/* --- checking --------------------------------------------------------------------------------- */

static void seg_requeue(struct seg *s, struct transfer *to)
{
	/* A stream that has not begun counts no file yet; one in a scratch file takes it along. */
	struct transfer *from = s->t;
	list_remove(s);
	transfer_pin(to);
	s->t = to;
	if (s->export_fd >= 0)
		sys_close(s->export_fd);
	s->export_fd = -1;
	list_push(to, s);
	transfer_step(to);
	if (from->segs)
		transfer_step(from); /* whoever waited there for its range moves on, too */
	transfer_unpin(from);
}

/* The segment differs from the exported file, or that can't be told: it belongs to the next
 * generation. */
static void seg_to_next_generation(struct seg *s)
{
	struct transfer *t = s->t;
	struct upload_id id = {t->clientid, t->clientid_bytes, t->fileid, t->fileid_bytes, NULL};
	struct transfer *head = t->gone ? transfer_find(s->u, &id) : t;
	int err = 0;
	if (!head)
		err = -EIO;
	else if (head->state == TRANSFER_EXPORTED)
		head = transfer_next_generation(head, s->user, seg_end(s), &err);
	if (!err)
		err = transfer_reserve_to(head, seg_end(s));
	if (err)
		seg_fail_errno(s, err);
	else
		seg_requeue(s, head);
}

static void checked_against_export(struct seg *s)
{
	if (s->job.differs || s->t->gone) {
		seg_to_next_generation(s);
	} else {
		s->is_replay = true;
		seg_settle(s); /* into the exported transfer's cover: acknowledged replays */
	}
}

static void on_checked(struct op *op);

static struct verify_range seg_source(const struct seg *s)
{
	if (!s->stream)
		return (struct verify_range){.fd = -1, .mem = s->payload};
	if (stream_scratch_fd(s) >= 0)
		return (struct verify_range){.fd = stream_scratch_fd(s)};
	return (struct verify_range){.fd = s->t->fd, .off = s->off};
}

/* Compares the next part that is covered, of a segment that brings new bytes, too. Where all of them
 * are equal nothing is taken out of coverage: what was acknowledged stays so, whenever the daemon
 * dies. False: there is none left. */
static bool compare_next(struct seg *s)
{
	struct transfer *t = s->t;
	struct extent e;
	if (s->stream && stream_scratch_fd(s) < 0)
		return false; /* the range was not covered when it began, and is locked since */
	if (s->compared == seg_end(s) || !cover_next(&t->cover, s->compared, &e) || e.from >= seg_end(s))
		return false;
	if (!s->fd_counted && !staging_get(t)) {
		seg_wait_file(s);
		return true;
	}
	uint64_t from = e.from > s->compared ? e.from : s->compared;
	uint64_t to = e.to < seg_end(s) ? e.to : seg_end(s);
	s->fd_counted = true;
	s->compared = to;
	s->job.bytes = to - from;
	s->job.data = seg_source(s);
	if (s->job.data.fd < 0)
		s->job.data.mem += from - s->off;
	else
		s->job.data.off += from - s->off;
	s->job.with = (struct verify_range){.fd = t->fd, .off = from};
	s->job.compares = true;
	seg_set_state(s, SEG_CHECKING);
	s->job.op.done = on_checked;
	s->job.ring = s->u->rt->ring;
	s->job.states[0] = s->job.states[1] = NULL;
	s->job.then = NULL;
	verify_submit(s->u->rt->verify, &s->job);
	return true;
}

static void checked_against_staging(struct seg *s)
{
	bool differs = s->job.compares && s->job.differs;
	/* Compared equal; unless the range was taken out meanwhile together with a neighbour's. */
	if (s->job.compares && !differs && cover_has(&s->t->cover, s->off, seg_end(s))) {
		seg_settle_unchanged(s);
		return;
	}
	if (!differs && compare_next(s))
		return;
	if (differs && cover_overlaps(&s->t->cover, s->off, seg_end(s))) {
		/* After a power cut no old record may vouch for the new bytes. */
		bool was_synced = cover_overlaps(&s->t->synced, s->off, seg_end(s));
		transfer_uncover(s->t, s->off, seg_end(s));
		seg_set_state(s, SEG_UNCOVERING);
		s->waiter.done = on_uncovered;
		journal_wait(s->u->rt->journal, &s->waiter, was_synced ? JOURNAL_SYNCED : JOURNAL_WRITTEN);
	} else if (s->stream && stream_scratch_fd(s) < 0) {
		seg_settle(s); /* the payload was written where it belongs before it was checked */
	} else if (!seg_write(s)) {
		seg_wait_file(s);
	}
}

static void on_checked(struct op *op)
{
	struct seg *s = container_of(op, struct seg, job.op);
	struct transfer *t = s->t;
	struct outcome o;
	uint8_t digest[32] = {0};
	transfer_pin(t);
	bool counted = s->fd_counted;
	s->fd_counted = false;
	bool wants_sum = s->has_checksum && !s->checked;
	if (wants_sum)
		sha256_digest(&s->sha, digest);
	bool is_right = op->res >= 0 && (!wants_sum || memcmp(digest, s->checksum, 32) == 0);
	chain_on_checked(s, is_right);
	if (op->res < 0) {
		seg_fail_errno(s, op->res);
	} else if (!is_right) {
		outcome_mismatch(&o, s->checksum, digest);
		seg_fail(s, &o);
	} else {
		s->checked = true;
		if (s->is_against_export)
			checked_against_export(s);
		else
			checked_against_staging(s);
	}
	if (counted)
		staging_put(t);
	if (!t->gone)
		transfer_step(t);
	transfer_unpin(t);
}

static void check_submit(struct seg *s)
{
	seg_set_state(s, SEG_CHECKING);
	s->job.op.done = on_checked;
	s->job.ring = s->u->rt->ring;
	s->job.bytes = s->bytes;
	s->job.data = seg_source(s);
	s->job.states[0] = s->job.states[1] = NULL;
	s->job.then = NULL;
	if (s->has_checksum && !s->checked) {
		sha256_init(&s->sha);
		s->job.states[0] = &s->sha;
	}
	if (!chain_offer(s))
		verify_submit(s->u->rt->verify, &s->job);
}

/* Each comparison holds a descriptor: more than a few at once wait for one of them to end. */
static bool fd_is_short(const struct seg *s)
{
	uint32_t open = 0;
	for (const struct seg *e = s->t->segs; e != s; e = e->next)
		open += e->export_fd >= 0;
	return open >= EXPORT_FDS_MAX;
}

/* Compares with the exported file; a local open, served from the directory cache. False: later. */
static bool check_against_export(struct seg *s)
{
	struct transfer *t = s->t;
	struct sys_stat st;
	if (fd_is_short(s))
		return false;
	s->is_against_export = true;
	s->job.compares = false;
	s->job.differs = true;
	int fd = sys_openat(s->u->store->export_fd, t->exported.path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM) {
		seg_set_state(s, SEG_CHECKING);
		seg_fail_errno(s, fd); /* whether the file is there is not known */
		return true;
	}
	bool same_file = fd >= 0 && sys_fstat(fd, &st) == 0 && st.is_regular && st.size == t->exported.size;
	s->export_fd = fd;
	if (same_file && seg_end(s) <= t->exported.size) {
		s->job.compares = true;
		s->job.with = (struct verify_range){.fd = fd, .off = s->off};
		check_submit(s);
	} else if (!same_file && s->reply->dup && !s->has_checksum) {
		seg_set_state(s, SEG_CHECKING);
		seg_settle_unchanged(s); /* can't be compared, but says of itself that it is a repetition */
	} else {
		seg_set_state(s, SEG_CHECKING);
		seg_to_next_generation(s);
	}
	return true;
}

/* Whole in memory or in its file: what has to be looked at before it counts? False: the staging
 * file is not open. */
static bool seg_check(struct seg *s)
{
	struct transfer *t = s->t;
	s->is_against_export = false;
	if (t->state == TRANSFER_EXPORTED)
		return check_against_export(s);
	s->job.compares = cover_overlaps(&t->cover, s->off, seg_end(s));
	bool in_staging = s->stream && stream_scratch_fd(s) < 0;
	if (in_staging && s->staging_gen != t->staging_gen) {
		seg_set_state(s, SEG_CHECKING);
		seg_fail_errno(s, -EIO); /* its file has been replaced */
		return true;
	}
	bool wants_sum = s->has_checksum && !s->checked;
	if (!s->job.compares && !wants_sum)
		return in_staging ? (seg_settle(s), true) : seg_write(s);
	if (s->job.compares || in_staging) {
		if (!staging_get(t))
			return false;
		s->fd_counted = true;
		s->job.with = (struct verify_range){.fd = t->fd, .off = s->off};
	}
	s->compared = s->off;
	if (s->job.compares && !cover_has(&t->cover, s->off, seg_end(s))) {
		s->job.compares = false; /* partly new: part by part, when the checksum is right */
		if (!wants_sum && !in_staging)
			return compare_next(s);
	}
	check_submit(s);
	return true;
}

void seg_on_received(struct seg *s)
{
	s->received = true;
	if (!seg_check(s))
		seg_wait_file(s);
}

/* --- starting --------------------------------------------------------------------------------- */

/* Does an earlier segment of the list overlap s? */
static bool is_locked(const struct transfer *t, const struct seg *s)
{
	if (t->segs_ordered)
		return false;
	for (const struct seg *e = t->segs; e != s; e = e->next) {
		if (e->off < seg_end(s) && s->off < seg_end(e))
			return true;
	}
	return false;
}

static bool may_gather(const struct transfer *t, const struct seg *s)
{
	return s->state == SEG_QUEUED && !s->stream && (!s->has_checksum || s->checked) &&
		t->state != TRANSFER_EXPORTED && !cover_overlaps(&t->cover, s->off, seg_end(s));
}

/* s may start, and so may those that follow it both in the list and in the file: one write. False:
 * file not open. */
static bool gather(struct transfer *t, struct seg *s)
{
	if (!staging_get(t))
		return false;
	struct seg *last = s;
	uint32_t count = 1;
	s->group_next = NULL;
	for (struct seg *n = s->next; n && count < GROUP_MAX; n = n->next) {
		if (n->off != seg_end(last) || !may_gather(t, n) || is_locked(t, n))
			break;
		n->group_next = NULL;
		last->group_next = n;
		last = n;
		count++;
	}
	group_write(t, s);
	return true;
}

/* False: nothing of this transfer can start now. */
static bool seg_start(struct transfer *t, struct seg *s)
{
	if (may_gather(t, s))
		return gather(t, s);
	if (!s->stream || s->received)
		return seg_check(s);
	bool to_scratch = t->state == TRANSFER_EXPORTED || cover_overlaps(&t->cover, s->off, seg_end(s));
	if (!to_scratch && !staging_get(t))
		return false;
	seg_set_state(s, SEG_RECEIVING);
	s->staging_gen = t->staging_gen;
	stream_start(s, to_scratch);
	return true;
}

static void fail_queued(struct transfer *t, int err)
{
	for (;;) {
		struct seg *s = t->segs;
		while (s && s->state != SEG_QUEUED)
			s = s->next;
		if (!s)
			return;
		seg_set_state(s, SEG_CHECKING);
		seg_fail_errno(s, err);
	}
}

/* t was exported and has a next generation by now: what had not started goes there. One that is
 * locked follows when the segment before it has gone, so the order of overlapping ones is kept. */
static void move_on(struct transfer *t)
{
	struct upload_id id = {t->clientid, t->clientid_bytes, t->fileid, t->fileid_bytes, NULL};
	struct transfer *head = transfer_find(t->u, &id);
	for (struct seg *s = t->segs, *next; s && head; s = next) {
		next = s->next;
		if (s->state == SEG_QUEUED && !is_locked(t, s))
			seg_requeue(s, head);
	}
}

void ingest_step(struct transfer *t)
{
	if (t->segs_queued == 0 || t->stepping)
		return;
	if (t->gone) {
		t->stepping = true;
		move_on(t);
		t->stepping = false;
		return;
	}
	if (t->state == TRANSFER_VERIFYING || t->state == TRANSFER_PUBLISHING)
		return; /* sealed */
	t->stepping = true;
	transfer_pin(t);
	int journal_err = journal_error(t->u->rt->journal);
	if (t->staging_state == STAGING_FAILED) {
		fail_queued(t, t->staging_err);
	} else if (journal_err) {
		/* A range may be taken out in memory alone: nothing may be written over it. */
		fail_queued(t, journal_err);
	} else {
		/* Starting one may change the list: look from the beginning each time. */
		bool again = true;
		while (again && t->segs_queued && !t->gone) {
			uint32_t locked = 0;
			again = false;
			for (struct seg *s = t->segs; s; s = s->next) {
				if (s->state != SEG_QUEUED)
					continue;
				/* Behind so many that wait none is looked for, or a flood of
				 * overlapping ones would cost the square of their number. */
				if (is_locked(t, s)) {
					if (++locked == LOCKED_MAX)
						break;
					continue;
				}
				again = (!t->seeding || t->staging_state == STAGING_NONE) && seg_start(t, s);
				break;
			}
		}
	}
	if (t->gone) /* one of them has just begun the next generation */
		move_on(t);
	t->stepping = false;
	transfer_unpin(t);
}

/* --- from the connection ---------------------------------------------------------------------- */

static struct transfer *find_or_open(struct uploads *u, const struct upload_id *id, const struct filecmd *cmd,
	uint32_t payload_bytes, struct reply *rp)
{
	struct outcome o;
	struct transfer *t = transfer_find(u, id);
	if (!t && !upload_segment_admit(u, id, cmd, payload_bytes, &o)) {
		reply_finish(rp, &o);
		return NULL;
	}
	return t ? t : transfer_find(u, id);
}

/* An empty segment changes nothing; some clients end a file with one. */
static void ingest_empty(const struct filecmd *cmd, struct reply *rp)
{
	struct sha256 s;
	struct outcome o;
	uint8_t digest[32];
	sha256_init(&s);
	sha256_digest(&s, digest);
	if (!cmd->has_checksum || memcmp(digest, cmd->checksum, 32) == 0) {
		reply_finish(rp, NULL);
		return;
	}
	outcome_mismatch(&o, cmd->checksum, digest);
	reply_finish(rp, &o);
}

void ingest_small(struct uploads *u, const struct upload_id *id, const struct filecmd *cmd, struct buf *b,
	const uint8_t *payload, uint32_t payload_bytes, struct reply *rp)
{
	if (payload_bytes == 0) {
		ingest_empty(cmd, rp);
		return;
	}
	struct transfer *t = find_or_open(u, id, cmd, payload_bytes, rp);
	struct seg *s = t ? seg_new(u, t, id->user, cmd, payload_bytes, rp) : NULL;
	if (!s)
		return;
	s->buf = b;
	buf_ref(b);
	s->payload = payload;
	list_push(t, s);
	if (!t->in_pass) {
		t->in_pass = true;
		t->pass_next = u->pass;
		u->pass = t;
		transfer_pin(t);
	}
}

void ingest_flush(struct uploads *u)
{
	while (u->pass) {
		struct transfer *t = u->pass;
		u->pass = t->pass_next;
		t->in_pass = false;
		if (!t->gone)
			transfer_step(t);
		transfer_unpin(t);
	}
	spools_flush(u);
}

struct seg *ingest_open(struct uploads *u, const struct upload_id *id, const struct filecmd *cmd,
	uint32_t payload_bytes, struct reply *rp)
{
	struct transfer *t = find_or_open(u, id, cmd, payload_bytes, rp);
	struct seg *s = t ? seg_new(u, t, id->user, cmd, payload_bytes, rp) : NULL;
	if (s)
		list_push(t, s);
	return s;
}
