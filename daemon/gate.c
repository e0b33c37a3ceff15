/*
 * The gate before a transfer's segments: shut while a fin or an abort is at work, while too much of
 * it, or of all transfers, waits to be hashed, and while too many of its segments are unfinished. A
 * connection that finds it shut stops reading, and is told when to ask again.
 */
#include "transfer.h"

static bool gate_is_shut(const struct transfer *t)
{
	const struct conf *conf = t->u->conf;
	if (t->state == TRANSFER_VERIFYING || t->state == TRANSFER_PUBLISHING || t->fins || t->aborts)
		return true;
	if (transfer_is_held_up(t) || t->segs_count >= conf->transfer.unfinished_max)
		return true;
	if (t->state == TRANSFER_EXPORTED || t->hash_stalled || t->backlog < conf->verify.step_bytes)
		return false;
	return t->backlog > conf->transfer.backlog_bytes_max ||
		atomic_load(&t->u->store->backlog_bytes) > conf->transfer.backlog_total_max;
}

bool upload_gate_pass(struct uploads *u, const struct upload_id *id, struct upload_gate *g)
{
	struct transfer *t = transfer_find(u, id);
	if (!t || !gate_is_shut(t))
		return true;
	if (!g->pprev) {
		g->next = t->gates;
		g->pprev = &t->gates;
		if (t->gates)
			t->gates->pprev = &g->next;
		t->gates = g;
	}
	return false;
}

void upload_gate_cancel(struct upload_gate *g)
{
	if (!g->pprev)
		return;
	*g->pprev = g->next;
	if (g->next)
		g->next->pprev = g->pprev;
	g->next = NULL;
	g->pprev = NULL;
}

void transfer_wake_gates(struct transfer *t)
{
	while (t->gates) {
		struct upload_gate *g = t->gates;
		upload_gate_cancel(g);
		g->resume(g);
	}
}

void transfer_gate_step(struct transfer *t)
{
	if (t->gates && !gate_is_shut(t))
		transfer_wake_gates(t);
}
