/*
 * journal.h.
 *
 *     IDLE ──batch──► WRITING ──► IDLE          (batch written; waiters for WRITTEN are called)
 *       │                └─ file full ─► ROTATING ──► IDLE
 *     sync runs beside it: it covers what was written when it was submitted.
 *
 * One sync at a time: who wants one while it runs waits for the next, and with all others who do:
 * group commit. When nothing was written since the last one, nothing is done. The first batch
 * after a sync says in a SYNC_MARK how far that reached, so that a reader can tell bytes that the
 * disk lost from those that never got there.
 *
 * A rotation that finds no room for the next file (the spare's is there, but the live state has
 * outgrown it) fails those who wait, and is tried again at the first flush a second later: it goes on
 * without a restart. Until it has succeeded nothing new is begun, for what is in memory differs from
 * what a restart would read.
 *
 * Rotation runs on the ring's helper thread with blocking calls: it is rare and must be durable
 * before the old file goes. The old file is not deleted: renamed to spare-<reactor> it waits, with
 * its blocks, to become the next one, so that a disk that has become full stops no reactor.
 *
 * Where somebody is to wait for syncs (durability: power), the first files are written full of
 * zeros: blocks that are only reserved would make each sync wait for the file system's journal too.
 */
#include "journal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "journal_set.h"
#include "log.h"
#include "reactor.h"
#include "ring.h"
#include "store.h"

enum { BATCH_BYTES_MIN = 64 * 1024, SMALL_FILE_STEP = 64 * 1024, FILL_STEP = 256 * 1024, RETRY_MS = 1000 };

enum journal_state { J_IDLE, J_WRITING, J_ROTATING };

struct batch {
	struct record_writer w;
	size_t last_off;                /* of its last record; SIZE_MAX: none */
	uint32_t records;
	bool failed;                    /* there was no memory for one: nothing in it counts */
	bool has_lost;                  /* a RECORD_LOST */
	struct journal_waiter *written; /* registered while it filled, newest first */
	struct journal_waiter *synced;
};

struct journal {
	struct reactor *rt;
	struct store *store;
	journal_checkpoint_fn *checkpoint;
	void *checkpoint_arg;
	enum journal_state state;
	int error;
	int no_room;                    /* the last rotation failed for want of space; the next is tried later */
	uint64_t retry_ms;
	uint64_t lost_end;              /* in the file, of the last RECORD_LOST; 0: there is none */
	bool is_distrusted, distrust_failed;
	int fd;
	uint64_t salt, file_seq, file_bytes, write_off;
	struct batch filling, writing;
	struct op write_op;
	/* syncs */
	struct op sync_op;
	uint64_t synced_off, syncing_off, marked_off; /* on the disk up to; being synced; said so up to */
	struct journal_waiter *sync_wanted, *sync_running;
	/* rotation */
	struct op rotate_op;
	struct batch snapshot;
	int new_fd;
	uint64_t new_salt, new_bytes;
};

void journal_file_name(uint32_t reactor_idx, uint64_t file_seq, char ret[JOURNAL_NAME_MAX])
{
	snprintf(ret, JOURNAL_NAME_MAX, "r%02u-%012llu.log", reactor_idx, (unsigned long long)file_seq);
}

/* --- batches ---------------------------------------------------------------------------------- */

static bool batch_grow(struct batch *b, size_t bytes)
{
	if (b->w.buf_max - b->w.bytes >= bytes)
		return true;
	size_t max = b->w.buf_max ? b->w.buf_max * 2 : BATCH_BYTES_MIN;
	while (max - b->w.bytes < bytes)
		max *= 2;
	uint8_t *buf = realloc(b->w.buf, max);
	if (!buf)
		return false;
	b->w.buf = buf;
	b->w.buf_max = max;
	return true;
}

static void batch_put(void *arg, const struct record *r)
{
	struct batch *b = arg;
	if (!r || !batch_grow(b, record_size(r))) {
		b->failed = true;
		return;
	}
	b->last_off = b->w.bytes;
	int err = record_append(&b->w, r);
	assert(err == 0);
	b->records++;
}

static void batch_reset(struct batch *b)
{
	b->w.bytes = 0;
	b->last_off = SIZE_MAX;
	b->records = 0;
	b->failed = false;
	b->has_lost = false;
}

static struct journal_waiter *waiters_reverse(struct journal_waiter *w)
{
	struct journal_waiter *fifo = NULL;
	while (w) {
		struct journal_waiter *next = w->next;
		w->next = fifo;
		fifo = w;
		w = next;
	}
	return fifo;
}

static void waiters_call(struct journal_waiter *w, int err)
{
	for (w = waiters_reverse(w); w;) {
		struct journal_waiter *next = w->next;
		w->waiting = false;
		w->next = NULL;
		w->done(w, err);
		w = next;
	}
}

/* Puts all of `from` in front of *to. */
static void waiters_move(struct journal_waiter **to, struct journal_waiter **from)
{
	struct journal_waiter *last = *from;
	if (!last)
		return;
	while (last->next)
		last = last->next;
	last->next = *to;
	*to = *from;
	*from = NULL;
}

/* --- files ------------------------------------------------------------------------------------ */

static void spare_name(const struct journal *j, char ret[JOURNAL_NAME_MAX])
{
	snprintf(ret, JOURNAL_NAME_MAX, "spare-%02u", j->rt->idx);
}

/* Gives a file exactly so many bytes, with their blocks where the file system can; without,
 * appending may meet a full disk. */
static int blocks_take(int fd, uint64_t bytes)
{
	int err = sys_ftruncate(fd, bytes);
	if (!err)
		err = sys_fallocate(fd, 0, bytes);
	return err == -EOPNOTSUPP ? 0 : err;
}

static bool is_full_disk(int err)
{
	return err == -ENOSPC || err == -EDQUOT;
}

/* *bytes of blocks. Without room for these, as much as the spare has already; else as little as
 * will do: a small file is only full sooner, and by then there may be room again. */
static int blocks_take_some(int fd, uint64_t *bytes, uint64_t spare_bytes, uint64_t needed)
{
	uint64_t sizes[] = {*bytes, spare_bytes,
		(needed + SMALL_FILE_STEP - 1) / SMALL_FILE_STEP * SMALL_FILE_STEP};
	int err = -ENOSPC;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && is_full_disk(err); i++) {
		if (i > 0 && sizes[i] < needed)
			continue;
		*bytes = sizes[i];
		err = blocks_take(fd, sizes[i]);
	}
	return err;
}

static int blocks_fill(int fd, uint64_t bytes)
{
	static const uint8_t zeros[FILL_STEP];
	int err = 0;
	for (uint64_t at = 0; !err && at < bytes; at += FILL_STEP)
		err = sys_pwrite(fd, zeros, bytes - at < FILL_STEP ? (size_t)(bytes - at) : FILL_STEP, at);
	return err;
}

/* Makes the spare into the next file: a header and a snapshot, durable with its directory entry.
 * What an older file left in its blocks never parses under the new salt. Blocking. */
static int file_make(struct journal *j, uint64_t file_seq, uint64_t salt, const struct batch *snapshot,
	bool fills, int *ret_fd, uint64_t *ret_bytes)
{
	char name[JOURNAL_NAME_MAX], spare[JOURNAL_NAME_MAX];
	uint8_t header[RECORD_HEADER_BYTES];
	uint64_t needed = 2 * (snapshot->w.bytes + sizeof(header)), bytes = j->rt->conf->io.journal_bytes;
	while (bytes < needed)
		bytes *= 2;
	journal_file_name(j->rt->idx, file_seq, name);
	spare_name(j, spare);
	int fd = sys_openat(j->store->set_fd, spare, O_RDWR | O_CREAT, 0600);
	if (fd < 0)
		return fd;
	record_header_encode(header, salt, file_seq, j->rt->idx);
	int err = blocks_take_some(fd, &bytes, j->rt->conf->io.journal_bytes,
		snapshot->w.bytes + sizeof(header) + SMALL_FILE_STEP);
	if (!err && fills)
		err = blocks_fill(fd, bytes);
	if (!err)
		err = sys_pwrite(fd, header, sizeof(header), 0);
	if (!err)
		err = sys_pwrite(fd, snapshot->w.buf, snapshot->w.bytes, sizeof(header));
	if (!err)
		err = sys_fsync(fd);
	if (!err)
		err = sys_renameat2(j->store->set_fd, spare, j->store->set_fd, name, 0);
	if (!err)
		err = sys_fsync(j->store->set_fd);
	if (err) {
		if (is_full_disk(err)) /* it keeps what it had, for the next try */
			(void)sys_ftruncate(fd, j->rt->conf->io.journal_bytes);
		else
			(void)sys_unlinkat(j->store->set_fd, spare, 0);
		sys_close(fd);
		(void)sys_unlinkat(j->store->set_fd, name, 0);
		return err;
	}
	*ret_fd = fd;
	*ret_bytes = bytes;
	return 0;
}

void journal_reserve_next(struct journal *j)
{
	char spare[JOURNAL_NAME_MAX];
	spare_name(j, spare);
	int fd = sys_openat(j->store->set_fd, spare, O_RDWR | O_CREAT, 0600);
	int err = fd < 0 ? fd : blocks_take(fd, j->rt->conf->io.journal_bytes);
	if (!err && conf_has_power(j->rt->conf))
		err = blocks_fill(fd, j->rt->conf->io.journal_bytes);
	if (fd >= 0)
		sys_close(fd);
	if (err) {
		(void)sys_unlinkat(j->store->set_fd, spare, 0);
		log_warn("no room for the next journal file: free space before this one is full",
			LU("reactor", j->rt->idx), LU("bytes", j->rt->conf->io.journal_bytes),
			LE("error", err), NULL);
	}
}

static void snapshot_take(struct journal *j)
{
	static const struct record end = {.type = RECORD_CHECKPOINT_END};
	(void)sys_random(&j->new_salt, sizeof(j->new_salt));
	batch_reset(&j->snapshot);
	j->snapshot.w.salt = j->new_salt;
	j->snapshot.w.seq = 0;
	j->checkpoint(j->checkpoint_arg, batch_put, &j->snapshot);
	batch_put(&j->snapshot, &end);
}

/* The new file becomes the one that is written to. */
static void snapshot_adopt(struct journal *j)
{
	j->fd = j->new_fd;
	j->lost_end = 0;
	j->salt = j->new_salt;
	j->file_bytes = j->new_bytes;
	j->write_off = RECORD_HEADER_BYTES + j->snapshot.w.bytes;
	j->synced_off = j->marked_off = j->write_off;
	j->filling.w.salt = j->salt;
	j->filling.w.seq = j->snapshot.w.seq;
	free(j->snapshot.w.buf);
	j->snapshot = (struct batch){0};
}

static void on_written(struct op *op);
static void on_synced(struct op *op);
static void on_rotated(struct op *op);

int journal_new(struct reactor *rt, struct store *store, uint64_t file_seq, journal_checkpoint_fn *checkpoint,
	void *arg, struct journal **ret)
{
	struct journal *j = calloc(1, sizeof(*j));
	if (!j)
		return -ENOMEM;
	j->rt = rt;
	j->store = store;
	j->file_seq = file_seq;
	j->checkpoint = checkpoint;
	j->checkpoint_arg = arg;
	j->fd = -1;
	j->write_op.done = on_written;
	j->sync_op.done = on_synced;
	j->rotate_op.done = on_rotated;
	batch_reset(&j->filling);
	batch_reset(&j->writing);
	snapshot_take(j);
	int err = j->snapshot.failed ? -ENOMEM : file_make(j, file_seq, j->new_salt, &j->snapshot,
		conf_has_power(rt->conf), &j->new_fd, &j->new_bytes);
	if (err) {
		free(j->snapshot.w.buf);
		free(j);
		return err;
	}
	snapshot_adopt(j);
	*ret = j;
	return 0;
}

/* A start believes that what was written without a sync is in the page cache, but for what the journal says was
 * lost. Where it may not be able to say so, nothing of that is believed, until a start: it is received again. */
static void distrust(struct journal *j)
{
	if (j->is_distrusted)
		return;
	int err = journal_set_distrust(j->store);
	j->is_distrusted = !err;
	if (!err)
		log_warn("the disk has lost received bytes, and the journal can't say which: the next start "
			"asks for all that was not synced; restart sluiced when the disk is in order", NULL);
	else if (!j->distrust_failed)
		log_error("the disk has lost received bytes, and the journal can't say so: after a restart, abort all "
			"transfers that are open", LE("error", err), NULL);
	j->distrust_failed = err != 0;
}

void journal_free(struct journal *j)
{
	if (!j)
		return;
	if (j->filling.has_lost || j->writing.has_lost)
		distrust(j); /* it ends without having been written */
	sys_close(j->fd);
	free(j->filling.w.buf);
	free(j->writing.w.buf);
	free(j->snapshot.w.buf);
	free(j);
}

/* --- appending -------------------------------------------------------------------------------- */

void journal_append(struct journal *j, const struct record *r)
{
	if (r->type == RECORD_LOST && (j->error || j->no_room))
		distrust(j);
	if (j->error)
		return;
	j->filling.has_lost = j->filling.has_lost || r->type == RECORD_LOST;
	struct batch *b = &j->filling;
	if ((r->type == RECORD_EXTENT || r->type == RECORD_SYNCED) && b->last_off != SIZE_MAX &&
		record_extend_extent(&b->w, b->last_off, r->type, r->tid, r->from, r->to))
		return;
	batch_put(b, r);
}

void journal_wait(struct journal *j, struct journal_waiter *w, enum journal_level level)
{
	assert(!w->waiting);
	w->waiting = true;
	struct journal_waiter **list = level == JOURNAL_SYNCED ? &j->filling.synced : &j->filling.written;
	w->next = *list;
	*list = w;
}

static void fail(struct journal *j, int err)
{
	if (!j->error)
		log_error("journal failed: nothing is acknowledged any more; free or repair the disk and "
			"restart sluiced", LU("reactor", j->rt->idx), LE("error", err), NULL);
	j->error = j->error ? j->error : err;
	/* A sync that failed may have lost what was written, too. */
	if (j->filling.has_lost || j->writing.has_lost || j->snapshot.has_lost || j->lost_end > j->synced_off)
		distrust(j);
}

static void fail_waiters(struct journal *j, int err)
{
	struct journal_waiter *all = NULL;
	waiters_move(&all, &j->sync_wanted);
	waiters_move(&all, &j->writing.synced);
	waiters_move(&all, &j->writing.written);
	waiters_move(&all, &j->filling.synced);
	waiters_move(&all, &j->filling.written);
	batch_reset(&j->filling); /* nobody will write it: a journal that is broken is at rest */
	waiters_call(all, err);
}

static bool batch_is_empty(const struct batch *b)
{
	return b->w.bytes == 0 && !b->written && !b->synced;
}

static void write_batch(struct journal *j)
{
	struct batch empty = j->writing;
	j->writing = j->filling;
	j->filling = empty;
	batch_reset(&j->filling);
	j->filling.w.salt = j->salt;
	j->filling.w.seq = j->writing.w.seq;
	j->state = J_WRITING;
	STAT_ADD(j->rt, journal_batches, 1);
	STAT_ADD(j->rt, journal_records, j->writing.records);
	STAT_ADD(j->rt, journal_bytes, j->writing.w.bytes);
	ring_write(j->rt->ring, &j->write_op, j->fd, j->writing.w.buf, (uint32_t)j->writing.w.bytes,
		j->write_off);
}

static int call_rotate(struct op *op)
{
	struct journal *j = (struct journal *)((char *)op - offsetof(struct journal, rotate_op));
	int err = j->snapshot.failed ? -ENOMEM : file_make(j, j->file_seq + 1, j->new_salt, &j->snapshot,
		false, &j->new_fd, &j->new_bytes);
	if (err)
		return err;
	char old[JOURNAL_NAME_MAX], spare[JOURNAL_NAME_MAX];
	journal_file_name(j->rt->idx, j->file_seq, old);
	spare_name(j, spare);
	if (sys_renameat2(j->store->set_fd, old, j->store->set_fd, spare, 0) < 0)
		(void)sys_unlinkat(j->store->set_fd, old, 0);
	return 0;
}

/* The batch that fills is part of the snapshot: it is dropped, its waiters wait for the new
 * file. */
static void rotate(struct journal *j)
{
	j->state = J_ROTATING;
	snapshot_take(j);
	j->snapshot.has_lost = j->filling.has_lost;
	waiters_move(&j->writing.written, &j->filling.written);
	waiters_move(&j->writing.written, &j->filling.synced);
	batch_reset(&j->filling);
	ring_call(j->rt->ring, &j->rotate_op, RING_JOURNAL, call_rotate);
}

static void start_sync(struct journal *j)
{
	if (!j->sync_wanted || !op_is_idle(&j->sync_op) || j->state == J_ROTATING)
		return;
	j->sync_running = j->sync_wanted;
	j->sync_wanted = NULL;
	j->syncing_off = j->write_off;
	STAT_ADD(j->rt, journal_syncs, 1);
	ring_fdatasync_now(j->rt->ring, &j->sync_op, j->fd);
}

/* After a rotation that found no room the next one is tried when somebody wants the journal, but
 * not at once. */
static bool may_rotate_again(const struct journal *j)
{
	return ring_now_ms(j->rt->ring) >= j->retry_ms;
}

static void mark_sync(struct journal *j)
{
	struct record r = {.type = RECORD_SYNC_MARK, .size = j->synced_off};
	if (j->synced_off > j->marked_off && j->filling.w.bytes > 0)
		batch_put(&j->filling, &r);
	if (j->filling.w.bytes > 0)
		j->marked_off = j->synced_off;
}

/* Nothing was written since the last sync. */
static bool wants_no_sync(const struct journal *j)
{
	return j->sync_wanted && !j->error && j->state == J_IDLE && op_is_idle(&j->sync_op) &&
		j->synced_off == j->write_off;
}

/* True: waiters were called, who may have appended and waited anew. */
static bool flush_once(struct journal *j)
{
	if (wants_no_sync(j)) {
		struct journal_waiter *synced = j->sync_wanted;
		j->sync_wanted = NULL;
		waiters_call(synced, 0);
		return true;
	}
	if (j->filling.failed)
		fail(j, -ENOMEM);
	bool rotates_again = j->no_room && may_rotate_again(j);
	if (j->state != J_IDLE || (batch_is_empty(&j->filling) && !rotates_again))
		return false;
	if (j->error) {
		if (!op_is_idle(&j->sync_op))
			return false; /* its completion first: waiters are called in their order */
		fail_waiters(j, j->error);
		return true;
	}
	if (j->no_room && !may_rotate_again(j)) {
		fail_waiters(j, j->no_room);
		return true;
	}
	mark_sync(j);
	if (j->no_room || j->filling.w.bytes > j->file_bytes - j->write_off) {
		if (op_is_idle(&j->sync_op))
			rotate(j);
		return false;
	}
	if (j->filling.w.bytes > 0) {
		write_batch(j);
		return false;
	}
	/* Waiters for what is written already. */
	struct journal_waiter *written = j->filling.written;
	j->filling.written = NULL;
	waiters_move(&j->sync_wanted, &j->filling.synced);
	waiters_call(written, 0);
	return true;
}

void journal_flush(struct journal *j)
{
	if (j->error && j->state == J_IDLE && op_is_idle(&j->sync_op))
		fail_waiters(j, j->error);
	while (flush_once(j))
		;
	if (!j->error)
		start_sync(j);
}

static void on_written(struct op *op)
{
	struct journal *j = (struct journal *)((char *)op - offsetof(struct journal, write_op));
	assert(j->state == J_WRITING);
	j->state = J_IDLE;
	if (op->res != (int32_t)j->writing.w.bytes)
		fail(j, op->res < 0 ? op->res : -ENOSPC); /* preallocated: a short write is a full or failing disk */
	if (j->error)
		return; /* journal_flush calls all waiters */
	j->write_off += j->writing.w.bytes;
	if (j->writing.has_lost)
		j->lost_end = j->write_off;
	batch_reset(&j->writing);
	struct journal_waiter *written = j->writing.written;
	j->writing.written = NULL;
	waiters_move(&j->sync_wanted, &j->writing.synced);
	waiters_call(written, 0);
}

static void on_synced(struct op *op)
{
	struct journal *j = (struct journal *)((char *)op - offsetof(struct journal, sync_op));
	struct journal_waiter *done = j->sync_running;
	j->sync_running = NULL;
	if (op->res < 0)
		fail(j, op->res);
	else
		j->synced_off = j->syncing_off;
	waiters_call(done, j->error);
}

/* Nothing is lost: the old file has all that was acknowledged, and what came since is in memory, for
 * the next snapshot. Nothing may follow in the old file, for the batch that was part of this one is
 * not there. */
static void rotate_later(struct journal *j, int err)
{
	if (!j->no_room)
		log_error("no room for the next journal file: nothing is acknowledged until there is; free space",
			LU("reactor", j->rt->idx), LE("error", err), NULL);
	j->no_room = err;
	if (j->snapshot.has_lost || j->filling.has_lost)
		distrust(j);
	j->retry_ms = ring_now_ms(j->rt->ring) + RETRY_MS;
	free(j->snapshot.w.buf);
	j->snapshot = (struct batch){0};
	fail_waiters(j, err);
}

static void on_rotated(struct op *op)
{
	struct journal *j = (struct journal *)((char *)op - offsetof(struct journal, rotate_op));
	j->state = J_IDLE;
	if (is_full_disk(op->res)) {
		rotate_later(j, op->res);
		return;
	}
	if (op->res < 0) {
		fail(j, op->res);
		return;
	}
	if (j->no_room)
		log_info("journal goes on", LU("reactor", j->rt->idx), NULL);
	j->no_room = 0;
	sys_close(j->fd);
	j->file_seq++;
	/* What was appended while the file was made was numbered for the old one: number it
	 * anew. */
	struct batch late = j->filling;
	j->filling.w = (struct record_writer){0};
	snapshot_adopt(j);
	batch_reset(&j->filling);
	j->filling.has_lost = late.has_lost;
	struct record_reader reader = {.buf = late.w.buf, .buf_bytes = late.w.bytes, .salt = late.w.salt,
		.seq = late.w.seq - late.records};
	struct record r;
	while (record_next(&reader, &r) == 1)
		batch_put(&j->filling, &r);
	free(late.w.buf);
	struct journal_waiter *written = j->writing.written;
	j->writing.written = NULL;
	waiters_move(&j->sync_wanted, &j->writing.synced);
	waiters_call(written, 0);
}

bool journal_is_idle(const struct journal *j)
{
	/* After an error also the batch that was being written has waiters, until journal_flush
	 * calls them. */
	return j->state == J_IDLE && op_is_idle(&j->sync_op) && !j->sync_wanted &&
		!j->writing.written && !j->writing.synced && batch_is_empty(&j->filling);
}

bool journal_waits_for_room(const struct journal *j)
{
	return !j->error && j->no_room;
}

int journal_error(const struct journal *j)
{
	return j->error ? j->error : j->no_room;
}
