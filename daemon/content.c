/*
 * What a transfer holds, and how far it is hashed.
 *
 * Invariants: cover is what the journal says (an extent enters cover in the same call that appends
 * its record), synced that part of it which the journal says is on the disk; contiguous is the end of
 * cover's run from 0; frontier ≤ contiguous unless a fin for a smaller size rewound it; hash has been
 * fed exactly [0, frontier). A hash job that ran while content below its end was taken out
 * (content_gen moved) is dropped. Segments with checksums take the hash along: chain.c.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "log.h"
#include "transfer.h"

enum { HASH_JOB_BYTES_MAX = 8 << 20, BEHIND_BYTES = 8 << 20 };

static void on_hashed(struct op *op);
static void on_behind(struct op *op);

int content_init(struct transfer *t)
{
	struct hasher *h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	cover_init(&t->cover, t->u->conf->transfer.extents_max);
	cover_init(&t->synced, t->u->conf->transfer.extents_max);
	h->t = t;
	sha256_init(&h->hash);
	h->job.op.done = on_hashed;
	h->job.states[1] = &h->run;
	h->behind_op.done = on_behind;
	t->chain_tail = &t->chain;
	t->hasher = h;
	return 0;
}

void content_release(struct transfer *t)
{
	assert(t->state == TRANSFER_EXPORTED && t->hashing == 0);
	t->frontier = 0;
	free(t->mids);
	t->mids = NULL;
	t->mids_count = 0;
	if (!t->hasher || !op_is_idle(&t->hasher->behind_op))
		return; /* on_behind comes back here */
	free(t->hasher);
	t->hasher = NULL;
}

void content_fini(struct transfer *t)
{
	cover_fini(&t->cover);
	cover_fini(&t->synced);
	free(t->mids);
	free(t->hasher);
}

bool transfer_is_hashed(const struct transfer *t)
{
	if (t->u->conf->verify.digest == CONF_DIGEST_ALWAYS || t->previous ||
		(t->has_meta && t->meta.has_checksum))
		return true;
	for (const struct fin *f = t->fins; f; f = f->next) {
		if (f->has_checksum)
			return true;
	}
	return false;
}

static void account_backlog(struct transfer *t)
{
	uint64_t backlog = t->contiguous > t->frontier ? t->contiguous - t->frontier : 0;
	if (!t->is_counted || !transfer_is_hashed(t))
		backlog = 0;
	if (backlog > t->backlog)
		atomic_fetch_add(&t->u->store->backlog_bytes, backlog - t->backlog);
	else
		atomic_fetch_sub(&t->u->store->backlog_bytes, t->backlog - backlog);
	t->backlog = backlog;
}

static void refresh_contiguous(struct transfer *t)
{
	bool present;
	uint64_t end = cover_run_end(&t->cover, 0, &present);
	t->contiguous = present ? end : 0;
	account_backlog(t);
}

int transfer_add_extent(struct transfer *t, uint64_t from, uint64_t to)
{
	int err = cover_add(&t->cover, from, to);
	if (err)
		return err;
	if (t->cover.bytes > t->allocated && t->is_counted) {
		uint64_t allocated = t->cover.bytes < t->reserved ? t->cover.bytes : t->reserved;
		store_allocated(t->u->store, allocated - t->allocated);
		t->allocated = allocated;
	}
	if (from <= t->contiguous && t->state != TRANSFER_EXPORTED)
		refresh_contiguous(t);
	return 0;
}

int transfer_add_synced(struct transfer *t, uint64_t from, uint64_t to)
{
	int err = cover_add(&t->synced, from, to);
	if (err)
		return err;
	err = transfer_add_extent(t, from, to);
	if (err) /* it touches nothing of cover, so nothing of synced: there it is an extent of its own */
		(void)cover_remove(&t->synced, from, to);
	return err;
}

/* Lowers the frontier to the last midstate at or below `to`. */
static void frontier_rewind(struct transfer *t, uint64_t to)
{
	uint32_t mids = (uint32_t)(to / MIDSTATE_BYTES);
	if (t->frontier <= to)
		return;
	if (mids > t->mids_count)
		mids = t->mids_count;
	if (mids) {
		t->frontier = (uint64_t)mids * MIDSTATE_BYTES;
		sha256_resume(&t->hasher->hash, t->mids[mids - 1], t->frontier);
	} else {
		t->frontier = 0;
		sha256_init(&t->hasher->hash);
	}
	account_backlog(t);
}

void transfer_rewind(struct transfer *t, uint64_t to)
{
	assert(!t->hashing);
	frontier_rewind(t, to);
}

/* Content from `from` on is not what was hashed. */
static void content_rewind(struct transfer *t, uint64_t from)
{
	t->content_gen++;
	t->hash_stalled = false;
	frontier_rewind(t, from);
	if (t->mids_count > from / MIDSTATE_BYTES)
		t->mids_count = (uint32_t)(from / MIDSTATE_BYTES);
	refresh_contiguous(t);
}

/* Taking out may need one extent more than the limit. It is had: what lies behind was acknowledged,
 * and the segment that comes to the gap closes it again. */
static int remove_over_limit(struct cover *c, uint64_t from, uint64_t to)
{
	uint32_t max = c->extents_max;
	c->extents_max = UINT32_MAX;
	int err = cover_remove(c, from, to);
	c->extents_max = max;
	return err;
}

void transfer_uncover(struct transfer *t, uint64_t from, uint64_t to)
{
	struct record r = {.type = RECORD_UNCOVER, .tid = t->tid, .from = from, .to = to};
	/* Without memory for it the whole rest of the run goes, which only costs its
	 * retransmission. */
	if (remove_over_limit(&t->cover, from, to) < 0) {
		r.to = cover_run_end(&t->cover, from, NULL);
		(void)cover_remove(&t->cover, from, r.to);
	}
	if (remove_over_limit(&t->synced, from, r.to) < 0)
		(void)cover_remove(&t->synced, from, cover_run_end(&t->synced, from, NULL));
	journal_append(t->u->rt->journal, &r);
	content_rewind(t, from);
}

void transfer_lose(struct transfer *t, int err)
{
	struct record r = {.type = RECORD_LOST, .tid = t->tid};
	struct extent e;
	log_error("the disk lost bytes of a staging file: they are received again",
		LS("clientid", t->clientid, t->clientid_bytes), LS("fileid", t->fileid, t->fileid_bytes),
		LU("bytes", t->cover.bytes - t->synced.bytes), LU("kept", t->synced.bytes),
		LE("error", err), NULL);
	journal_append(t->u->rt->journal, &r);
	cover_fini(&t->cover);
	cover_init(&t->cover, t->u->conf->transfer.extents_max);
	for (uint64_t at = 0; cover_next(&t->synced, at, &e); at = e.to) {
		if (cover_add(&t->cover, e.from, e.to) < 0)
			transfer_uncover(t, e.from, UINT64_MAX); /* no memory: they are received again, too */
	}
	t->broken = true;
	t->staging_gen++;
	refresh_contiguous(t);
	content_rewind(t, t->contiguous);
}

void transfer_restart_hash(struct transfer *t)
{
	refresh_contiguous(t);
	while ((uint64_t)t->mids_count * MIDSTATE_BYTES > t->contiguous)
		t->mids_count--;
	t->frontier = UINT64_MAX;
	frontier_rewind(t, t->contiguous);
}

int transfer_add_midstate(struct transfer *t, const uint32_t h[8])
{
	uint32_t (*mids)[8] = realloc(t->mids, (t->mids_count + 1) * sizeof(*mids));
	if (!mids)
		return -ENOMEM;
	t->mids = mids;
	memcpy(mids[t->mids_count++], h, sizeof(*mids));
	return 0;
}

bool transfer_hash_prepare(struct transfer *t, uint64_t to)
{
	if (!staging_get(t))
		return false;
	t->hashing++;
	t->hasher->run = t->hasher->hash;
	t->hash_gen = t->content_gen;
	t->hasher->job.ring = t->u->rt->ring;
	t->hasher->job.bytes = to - t->frontier;
	t->hasher->job.data = (struct verify_range){.fd = t->fd, .off = t->frontier};
	t->hasher->job.then = NULL;
	transfer_pin(t);
	return true;
}

static void on_behind(struct op *op)
{
	struct transfer *t = container_of(op, struct hasher, behind_op)->t;
	staging_put(t);
	if (t->state == TRANSFER_EXPORTED)
		content_release(t);
	transfer_unpin(t);
}

/* Starts write-back of what was hashed, or of what is there when nothing is hashed, so that the fsync
 * at fin finds little to do. */
static void write_behind(struct transfer *t, uint64_t end)
{
	if (end < t->behind) /* it was rewound, or content was taken out */
		t->behind = end;
	if (t->gone || t->state > TRANSFER_VERIFYING || end - t->behind < BEHIND_BYTES ||
		!op_is_idle(&t->hasher->behind_op) || !staging_get(t))
		return;
	uint64_t bytes = end - t->behind;
	if (bytes > 1u << 30)
		bytes = 1u << 30;
	transfer_pin(t);
	ring_write_behind(t->u->rt->ring, &t->hasher->behind_op, t->fd, t->behind, (uint32_t)bytes);
	t->behind += bytes;
}

/* Hashes on when there is enough, or a fin waits for it. */
void transfer_hash_step(struct transfer *t)
{
	chain_step(t);
	if (!transfer_is_hashed(t)) {
		account_backlog(t); /* a fin that asked may just have failed */
		write_behind(t, t->contiguous);
		return;
	}
	uint64_t end = t->contiguous, step = t->u->conf->verify.step_bytes;
	if (t->state == TRANSFER_VERIFYING) {
		end = t->fins->size;
		step = 1;
	}
	if (t->hashing || t->gone || (t->hash_stalled && t->state != TRANSFER_VERIFYING) ||
		end < t->frontier + step || t->state > TRANSFER_VERIFYING)
		return;
	uint64_t boundary = (t->frontier / MIDSTATE_BYTES + 1) * MIDSTATE_BYTES;
	if (end > t->frontier + HASH_JOB_BYTES_MAX)
		end = t->frontier + HASH_JOB_BYTES_MAX;
	if (end > boundary)
		end = boundary;
	if (!transfer_hash_prepare(t, end))
		return;
	t->chain_end = end;
	verify_submit(t->u->rt->verify, &t->hasher->job);
}

void transfer_hashed(struct transfer *t, const struct sha256 *hash)
{
	STAT_ADD(t->u->rt, hashed_bytes, hash->bytes - t->frontier);
	t->hasher->hash = *hash;
	t->frontier = hash->bytes;
	if (t->frontier % MIDSTATE_BYTES == 0 && t->frontier / MIDSTATE_BYTES == t->mids_count + 1 &&
		transfer_add_midstate(t, t->hasher->hash.h) == 0) {
		struct record r = {.type = RECORD_MIDSTATE, .tid = t->tid, .frontier = t->frontier};
		memcpy(r.h, t->hasher->hash.h, sizeof(r.h));
		journal_append(t->u->rt->journal, &r);
	}
	account_backlog(t);
	write_behind(t, t->frontier);
}

static void on_hashed(struct op *op)
{
	struct transfer *t = container_of(op, struct hasher, job.op)->t;
	t->hashing--;
	staging_put(t);
	if (op->res < 0 && !t->gone) {
		log_error("reading back failed", LS("clientid", t->clientid, t->clientid_bytes),
			LS("fileid", t->fileid, t->fileid_bytes), LE("error", op->res), NULL);
		t->hash_stalled = true;
		t->content_gen++; /* segments chained to it are not to be believed */
		transfer_on_hash_failed(t, op->res);
	} else if (!t->gone && t->hash_gen == t->content_gen) {
		transfer_hashed(t, &t->hasher->run);
	}
	if (!t->gone)
		transfer_step(t);
	transfer_unpin(t);
}
