/*
 * From written to synced: which bytes of a transfer survive the machine.
 *
 * A connection of `durability: crash` has its segments acknowledged when they are in the page cache
 * and their extents in the journal's batch is written. One of `durability: power` goes further:
 *
 *     segment written ─► sync_file ─► fdatasync of the staging file ─► fsync of staging/, once per file
 *                                       ─► SYNCED record, coverage ─► journal batch ─► its fdatasync ─► PUBACK
 *
 * Three times many become one. Segments of one transfer that are written while its file is being
 * synced are gathered for the next sync: one per file at a time. Files whose directory entry is new
 * share one fsync of the directory. And what all files of a reactor have got to the disk while the
 * journal is being synced goes into its next batch (journal.c). Files don't wait for each other, so
 * a slow one delays nobody else's acknowledgements; how many sync at once is the ring's cap.
 *
 *     wanted ──no sync runs──► running: data ──entry is synced──► done
 *                                       └─► entry ──────────────► done
 *
 * Bytes synced for any other reason are marked SYNCED too, for after a power cut: those of a fin, and
 * those of a long transfer, which is synced every transfer.sync_every bytes at any level.
 *
 * A sync that fails is final for the file: the kernel reports lost writes once, and the next fsync
 * succeeds over them. All that is not marked synced is missing from then on (transfer_lose), who
 * waited fails, and staging.c goes on in a new file. An fsync of the directory that fails is final
 * for the reactor: none of its new files can be made durable any more, until a restart looks at
 * what is there.
 */
#include "transfer.h"

#include <assert.h>
#include <errno.h>
#include "log.h"

static void on_data_synced(struct op *op);
static void on_entry_synced(struct op *op);

void sync_init(struct transfer *t)
{
	t->sync_op.done = on_data_synced;
	t->sync_wanted_tail = &t->sync_wanted;
}

void sync_init_all(struct uploads *u)
{
	u->entry_op.done = on_entry_synced;
}

static void want(struct transfer *t, struct journal_waiter *w)
{
	assert(!w->waiting);
	w->waiting = true;
	w->next = NULL;
	*t->sync_wanted_tail = w;
	t->sync_wanted_tail = &w->next;
}

static void wanted_to_running(struct transfer *t)
{
	t->sync_running = t->sync_wanted;
	t->sync_wanted = NULL;
	t->sync_wanted_tail = &t->sync_wanted;
}

static void running_end(struct transfer *t, int err)
{
	struct journal_waiter *w = t->sync_running;
	t->sync_running = NULL;
	while (w) {
		struct journal_waiter *next = w->next;
		w->next = NULL;
		w->waiting = false;
		w->done(w, err);
		w = next;
	}
}

static void finish(struct transfer *t, int err)
{
	running_end(t, err);
	if (t->broken) { /* those who came since wrote to the same file */
		wanted_to_running(t);
		running_end(t, err);
	}
	t->syncing = false;
	staging_put(t);
	if (!t->gone)
		transfer_step(t);
	transfer_unpin(t);
}

/* --- the directory ---------------------------------------------------------------------------- */

static void entry_step(struct uploads *u)
{
	if (!u->entry_wanted || !op_is_idle(&u->entry_op))
		return;
	u->entry_running = u->entry_wanted;
	u->entry_wanted = NULL;
	STAT_ADD(u->rt, dir_syncs, 1);
	ring_fsync(u->rt->ring, &u->entry_op, u->store->staging_fd);
}

static void on_entry_synced(struct op *op)
{
	struct uploads *u = container_of(op, struct uploads, entry_op);
	struct transfer *t = u->entry_running;
	u->entry_running = NULL;
	if (op->res < 0 && !u->entry_err) {
		log_error("the staging directory failed to sync: no new transfer can be made durable; repair the "
			"disk and restart sluiced", LU("reactor", u->rt->idx), LE("error", op->res), NULL);
		u->entry_err = op->res;
	}
	while (t) {
		struct transfer *next = t->entry_next;
		t->entry_next = NULL;
		t->entry_synced = !u->entry_err;
		finish(t, u->entry_err);
		t = next;
	}
	entry_step(u);
}

/* --- the file --------------------------------------------------------------------------------- */

static void on_data_synced(struct op *op)
{
	struct transfer *t = container_of(op, struct transfer, sync_op);
	struct uploads *u = t->u;
	if (op->res < 0) {
		transfer_lose(t, op->res);
		finish(t, op->res);
	} else if (t->entry_synced || u->entry_err) {
		finish(t, t->entry_synced ? 0 : u->entry_err);
	} else {
		t->entry_next = u->entry_wanted;
		u->entry_wanted = t;
		entry_step(u);
	}
}

/* --- of long transfers ------------------------------------------------------------------------ */

static void on_mark_synced(struct journal_waiter *w, int err)
{
	struct transfer *t = container_of(w, struct transfer, mark_waiter);
	struct record r = {.type = RECORD_SYNCED, .tid = t->tid, .to = t->mark_to};
	t->mark_after = err ? UINT64_MAX : t->mark_to + t->u->conf->transfer.sync_bytes;
	/* What was written over meanwhile may not be what was synced. */
	if (!err && !t->gone && t->mark_gen == t->content_gen && transfer_add_synced(t, 0, t->mark_to) == 0)
		journal_append(t->u->rt->journal, &r);
}

/* How far the content from 0 on is marked. */
static uint64_t marked_end(const struct transfer *t)
{
	bool present;
	uint64_t end = cover_run_end(&t->synced, 0, &present);
	return present ? end : 0;
}

static void mark_step(struct transfer *t)
{
	uint64_t every = t->u->conf->transfer.sync_bytes;
	if (every == 0 || t->contiguous < every || t->contiguous < t->mark_after ||
		t->mark_waiter.waiting || t->state != TRANSFER_OPEN || t->gone || t->broken ||
		t->contiguous - marked_end(t) < every)
		return;
	t->mark_to = t->contiguous;
	t->mark_gen = t->content_gen;
	t->mark_waiter.done = on_mark_synced;
	want(t, &t->mark_waiter);
}

void sync_step(struct transfer *t)
{
	mark_step(t);
	if (!t->sync_wanted || t->syncing)
		return;
	if (!staging_get(t)) {
		if (t->staging_state == STAGING_FAILED) {
			wanted_to_running(t);
			running_end(t, t->staging_err);
		}
		return; /* transfer_step comes back when the file is open */
	}
	t->syncing = true;
	wanted_to_running(t);
	transfer_pin(t);
	STAT_ADD(t->u->rt, file_syncs, 1);
	if (t->sync_whole)
		ring_fsync(t->u->rt->ring, &t->sync_op, t->fd);
	else
		ring_fdatasync(t->u->rt->ring, &t->sync_op, t->fd);
	t->sync_whole = false;
}

void sync_file(struct transfer *t, struct journal_waiter *w, bool is_whole)
{
	want(t, w);
	t->sync_whole |= is_whole;
	sync_step(t);
}
