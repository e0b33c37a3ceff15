/*
 * Chains: the checksums of a transfer's segments and the digest of its file in one pass.
 *
 * A segment that was received into the staging file and has a checksum must be read and hashed before
 * it counts, and its file's digest needs the same bytes. So a job of the verify pool feeds both: the
 * segment's own state, fresh, and `through`, which goes on where the file's digest stood before it.
 * Segments that follow each other in the file follow each other in a chain of such jobs, in one lane
 * of the pool:
 *
 *     hash of [0, from) ─► gap ─► segment a ─► segment b ─► segment c      running: t->hashing jobs
 *                                                               ▲ chain_end
 *                                 segment d, segment e                     waiting: t->chain
 *
 * A transfer is hashed in one place at a time: while a chain runs, or a hash job of content.c,
 * segments that can follow it wait, in CHECKING; they are the next chain as soon as that has ended.
 * What lies between and is covered already (it came earlier, or had no checksum) is the *gap*,
 * hashed by the transfer's own job at the head of the chain. A segment that can't follow is checked at
 * once, for itself.
 *
 * Each segment keeps its `through`. When its checksum was right, the next chain may go on from there
 * (`ahead`: the segment may still have to be synced). When it counts, and the frontier stands where it
 * begins, the frontier moves to its end and `through` is the transfer's hash.
 *
 * A segment that fails, by its checksum or later, makes worthless what was hashed through it:
 * content_gen moves, as it does when content is taken out. Those behind it count by their own
 * checksums, the frontier stays before it, and once the segment has come again a gap or a hash job of
 * content.c goes over what is missing.
 *
 * Midstates are kept at their boundaries, so nothing in a chain goes across one.
 *
 * Deliberately not here: small segments. Their checksum is computed from memory, before they are
 * written; the file's digest is of what can be read from the file, unless the whole of it is one
 * small write (group.c).
 */
#include <assert.h>
#include "segment.h"

enum { GAP_BYTES_MAX = 8 << 20 };

/* Can s be hashed next after [0, end)? */
static bool can_follow(const struct transfer *t, uint64_t end, const struct seg *s)
{
	if (s->off < end || s->off - end > GAP_BYTES_MAX ||
		end / MIDSTATE_BYTES != (seg_end(s) - 1) / MIDSTATE_BYTES)
		return false;
	return s->off == end || cover_has(&t->cover, end, s->off);
}

/* Where the digest of the file stands, segments included that do not count yet. */
static uint64_t ahead_end(const struct transfer *t)
{
	bool is_valid = t->ahead_gen == t->content_gen && t->hasher->ahead.bytes > t->frontier;
	return is_valid ? t->hasher->ahead.bytes : t->frontier;
}

bool chain_offer(struct seg *s)
{
	struct transfer *t = s->t;
	bool in_staging = s->stream && stream_scratch_fd(s) < 0;
	if (t->gone || t->state != TRANSFER_OPEN || !transfer_is_hashed(t))
		return false;
	if (!in_staging || s->job.compares || !s->job.states[0])
		return false;
	if (!t->hashing && !t->chain)
		t->chain_end = ahead_end(t);
	if (!can_follow(t, t->chain_end, s))
		return false;
	t->chain_end = seg_end(s);
	s->chain_next = NULL;
	*t->chain_tail = s;
	t->chain_tail = &s->chain_next;
	chain_step(t);
	return true;
}

static struct seg *take_first(struct transfer *t)
{
	struct seg *s = t->chain;
	t->chain = s->chain_next;
	if (!t->chain)
		t->chain_tail = &t->chain;
	s->chain_next = NULL;
	return s;
}

/* Links those that follow each other without a gap behind *link. */
static void link_run(struct transfer *t, struct verify_job **link)
{
	uint64_t end = t->chain->off;
	while (t->chain && t->chain->off == end) {
		struct seg *s = take_first(t);
		end = seg_end(s);
		s->chain_gen = t->content_gen;
		s->is_chained = true;
		s->job.states[1] = &s->through;
		*link = &s->job;
		link = &s->job.then;
		t->hashing++;
	}
	*link = NULL;
}

void chain_step(struct transfer *t)
{
	struct verify_job *head;
	if (t->hashing)
		return;
	for (; t->chain; verify_submit(t->u->rt->verify, &take_first(t)->job)) {
		struct seg *first = t->chain;
		uint64_t end = ahead_end(t);
		if (t->gone || !can_follow(t, end, first))
			continue; /* one before it has failed: alone */
		if (first->off == end) {
			first->through = end > t->frontier ? t->hasher->ahead : t->hasher->hash;
			link_run(t, &head);
			verify_submit(t->u->rt->verify, head);
			return;
		}
		if (end == t->frontier && transfer_hash_prepare(t, first->off)) {
			link_run(t, &t->hasher->job.then);
			verify_submit(t->u->rt->verify, &t->hasher->job);
			return;
		}
	}
}

void chain_on_checked(struct seg *s, bool is_right)
{
	struct transfer *t = s->t;
	if (!s->is_chained)
		return;
	assert(t->hashing > 0);
	t->hashing--;
	if (is_right && s->chain_gen == t->content_gen) {
		t->hasher->ahead = s->through;
		t->ahead_gen = t->content_gen;
	}
}

void chain_on_counted(struct seg *s)
{
	struct transfer *t = s->t;
	if (s->is_chained && s->chain_gen == t->content_gen && t->frontier == s->off)
		transfer_hashed(t, &s->through);
	s->is_chained = false;
}

void chain_on_failed(struct seg *s)
{
	if (s->is_chained && s->chain_gen == s->t->content_gen)
		s->t->content_gen++;
	s->is_chained = false;
}
