/*
 * Groups: small segments of a transfer that follow each other in the file are one gathered write.
 *
 * A short one is a call on the ring's thread for such (RING_FILES); a longer one may meet a slow disk,
 * and is an operation of the kernel's workers. A group that is a whole small file is hashed by the
 * thread that writes it, from memory: a job for the verify pool would cost several times what there is
 * to hash. The hash is the file's when the segments count.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include "segment.h"

enum { SHORT_WRITE_BYTES_MAX = 64 << 10 };

struct group {
	struct op op;
	struct transfer *t;
	struct seg *segs;    /* by group_next, in file order */
	uint64_t off, bytes;
	uint32_t count;
	bool is_whole;       /* a file that has not been hashed: t->hashing counts it */
	bool is_written;     /* and that in one go */
	uint32_t hash_gen;
	struct sha256 hash;  /* of no bytes, if it was not written in one go */
	struct iovec iov[];
};

/* On the thread for short calls. */
static int call_write(struct op *op)
{
	struct group *g = container_of(op, struct group, op);
	int res = sys_pwritev(g->t->fd, g->iov, g->count, g->off);
	g->is_written = g->is_whole && g->off == 0 && res == (int)g->bytes;
	return res;
}

/* On the same one: the files that were written, as lanes. */
static void hash_written(struct op *const ops[], size_t ops_count)
{
	struct sha256_lane lanes[RING_TOGETHER_MAX];
	size_t lanes_count;
	uint32_t at = 0;
	do {
		lanes_count = 0;
		for (size_t i = 0; i < ops_count; i++) {
			struct group *g = container_of(ops[i], struct group, op);
			if (g->is_written && at < g->count)
				lanes[lanes_count++] = (struct sha256_lane){.state = &g->hash,
					.data = g->iov[at].iov_base, .data_bytes = g->iov[at].iov_len};
		}
		sha256_update_lanes(lanes, lanes_count);
		at++;
	} while (lanes_count > 0);
}

static void write_start(struct group *g)
{
	struct transfer *t = g->t;
	if (g->bytes <= SHORT_WRITE_BYTES_MAX)
		ring_call_then(t->u->rt->ring, &g->op, RING_FILES, call_write, hash_written);
	else
		ring_writev(t->u->rt->ring, &g->op, t->fd, g->iov, g->count, g->off);
}

/* The segments of a group that is a whole small file have been settled. If they count, the file is
 * hashed. */
static void hash_end(const struct group *g)
{
	struct transfer *t = g->t;
	t->hashing--;
	if (g->hash.bytes > 0 && g->hash_gen == t->content_gen && t->frontier == 0 &&
		t->contiguous >= g->hash.bytes)
		transfer_hashed(t, &g->hash);
}

static void on_group_written(struct op *op)
{
	struct group *g = container_of(op, struct group, op);
	struct transfer *t = g->t;
	int err = op->res < 0 ? op->res : 0;
	if (!err && (uint64_t)op->res < g->bytes) {
		/* Short: go on behind what was written. */
		uint64_t put = (uint64_t)op->res;
		g->off += put;
		g->bytes -= put;
		uint32_t i = 0;
		for (; put >= g->iov[i].iov_len; i++)
			put -= g->iov[i].iov_len;
		memmove(g->iov, g->iov + i, (g->count - i) * sizeof(g->iov[0]));
		g->count -= i;
		g->iov[0].iov_base = (uint8_t *)g->iov[0].iov_base + put;
		g->iov[0].iov_len -= put;
		if (op->res > 0) {
			write_start(g);
			return;
		}
		err = -EIO;
	}
	struct seg *s = g->segs;
	while (s) {
		struct seg *next = s->group_next;
		s->group_next = NULL;
		if (err)
			seg_fail_errno(s, err);
		else
			seg_settle(s);
		s = next;
	}
	if (g->is_whole)
		hash_end(g);
	free(g);
	staging_put(t);
	if (!t->gone)
		transfer_step(t);
	transfer_unpin(t);
}

static bool is_whole_unhashed(const struct transfer *t, const struct group *g)
{
	return g->off == 0 && g->bytes <= SHORT_WRITE_BYTES_MAX && t->has_meta && t->meta.has_size &&
		t->meta.size == g->bytes && t->frontier == 0 && !t->hashing && !t->chain && transfer_is_hashed(t);
}

void group_write(struct transfer *t, struct seg *first)
{
	uint32_t count = 0;
	for (const struct seg *s = first; s; s = s->group_next)
		count++;
	struct group *g = calloc(1, sizeof(*g) + count * sizeof(g->iov[0]));
	if (!g) {
		staging_put(t);
		while (first) {
			struct seg *next = first->group_next;
			seg_fail_errno(first, -ENOMEM);
			first = next;
		}
		return;
	}
	g->op.done = on_group_written;
	g->t = t;
	g->segs = first;
	g->off = first->off;
	for (struct seg *s = first; s; s = s->group_next) {
		seg_set_state(s, SEG_WRITING);
		s->staging_gen = t->staging_gen;
		g->iov[g->count++] = (struct iovec){(void *)s->payload, s->bytes};
		g->bytes += s->bytes;
	}
	STAT_ADD(t->u->rt, bytes_copied, g->bytes);
	g->is_whole = is_whole_unhashed(t, g);
	if (g->is_whole) {
		t->hashing++;
		g->hash_gen = t->content_gen;
		sha256_init(&g->hash);
	}
	transfer_pin(t);
	write_start(g);
}
