/*
 * The $file commands but segments and fin, and the one switch that moves a transfer from state to
 * state: transfer_step.
 *
 *     OPEN ── fin, whole, no segment in flight ──► VERIFYING ── hashed, equal ──► PUBLISHING ──► EXPORTED
 *
 * Everything that may let a transfer go on (a segment ended, a hash came back, the file was opened,
 * a publish ended) calls transfer_step; it looks at the state alone, so the order in which things
 * happen does not matter.
 *
 * Replies wait for what makes them true: init for the staging file and the journal, status for the
 * journal, abort for a synced journal, fin for the export.
 */
#include "upload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "log.h"
#include "mqtt.h"
#include "transfer.h"

/* --- replies that wait ------------------------------------------------------------------------ */

static struct pending *pending_new(struct reply *rp, const struct outcome *o)
{
	struct pending *p = calloc(1, sizeof(*p));
	if (p && o && !(p->outcome = malloc(sizeof(*o)))) {
		free(p);
		p = NULL;
	}
	if (!p) {
		reply_fail(rp, MQTT_RC_UNSPECIFIED, "no_memory", true);
		return NULL;
	}
	if (o)
		*p->outcome = *o;
	p->reply = rp;
	return p;
}

static void pending_finish(struct pending *p)
{
	reply_finish(p->reply, p->outcome);
	free(p->outcome);
	free(p);
}

static void pending_fail(struct pending *p, const struct outcome *o)
{
	reply_finish(p->reply, o);
	free(p->outcome);
	free(p);
}

static void on_pending_journaled(struct journal_waiter *w, int err)
{
	struct pending *p = container_of(w, struct pending, waiter);
	struct outcome o;
	if (!err) {
		pending_finish(p);
		return;
	}
	outcome_storage(&o, err);
	pending_fail(p, &o);
}

/* Finishes rp once everything recorded so far is written (or synced). o NULL: success. */
static void reply_after_journal(struct uploads *u, struct reply *rp, const struct outcome *o,
	enum journal_level level)
{
	struct pending *p = pending_new(rp, o);
	if (!p)
		return;
	p->waiter.done = on_pending_journaled;
	journal_wait(u->rt->journal, &p->waiter, rp->is_power ? JOURNAL_SYNCED : level);
}

/* --- admission -------------------------------------------------------------------------------- */

static struct transfer *open_transfer(struct uploads *u, const struct upload_id *id, uint64_t bytes,
	int *ret_err)
{
	int err = transfer_admit(u, id, bytes);
	if (err) {
		*ret_err = err;
		return NULL;
	}
	struct transfer *t = transfer_new(u, id, atomic_fetch_add(&u->store->next_tid, 1), 1, NULL);
	if (!t) {
		transfer_admit_undo(u, id->user, bytes);
		*ret_err = -ENOMEM;
		return NULL;
	}
	transfer_count(t, id->user, bytes);
	transfer_record_open(t);
	transfer_touch(t);
	return t;
}

/* Would bytes there take blocks that the file does not have? */
static bool needs_space(const struct transfer *t, uint64_t from, uint64_t to)
{
	return to > t->fallocated && !cover_has(&t->cover, from, to);
}

bool upload_segment_admit(struct uploads *u, const struct upload_id *id, const struct filecmd *cmd,
	uint32_t payload_bytes, struct outcome *ret_outcome)
{
	uint64_t end = cmd->offset + payload_bytes; /* offset ≤ INT64_MAX: no overflow */
	struct transfer *t = transfer_find(u, id);
	int err = journal_error(u->rt->journal);
	if (!err && end > u->conf->transfer.file_bytes_max)
		err = -EFBIG;
	if (!err && payload_bytes > 0 && !t)
		t = open_transfer(u, id, end, &err);
	else if (!err && payload_bytes > 0 && t->state == TRANSFER_OPEN)
		err = transfer_reserve_to(t, end);
	if (!err && payload_bytes > 0 && t->state == TRANSFER_OPEN &&
		!cover_may_add(&t->cover, cmd->offset, end))
		err = -E2BIG;
	if (!err && payload_bytes > 0 && t->state == TRANSFER_OPEN && needs_space(t, cmd->offset, end) &&
		store_is_low(u->store, ring_now_ms(u->rt->ring)))
		err = -ENOSPC;
	if (!err)
		return true;
	outcome_storage(ret_outcome, err);
	STAT_ADD(u->rt, segments_refused, 1);
	return false;
}

/* --- init ------------------------------------------------------------------------------------- */

static void init_wait_staging(struct transfer *t, struct reply *rp)
{
	struct pending *p = pending_new(rp, NULL);
	if (!p)
		return;
	p->next = t->inits;
	t->inits = p;
	transfer_step(t);
}

/* False: refused, there is no room for it, or no memory. m is taken over. */
static bool init_accept(struct transfer *t, struct meta *m, struct reply *rp)
{
	struct uploads *u = t->u;
	int err = m->has_size ? transfer_reserve_to(t, m->size) : 0;
	if (!err)
		err = transfer_record_meta(t, m);
	if (err) {
		struct outcome o;
		outcome_storage(&o, err);
		meta_fini(m);
		reply_finish(rp, &o);
		return false;
	}
	meta_fini(&t->meta);
	t->meta = *m;
	t->has_meta = true;
	if (t->reserved) {
		struct record r = {.type = RECORD_RESERVE, .tid = t->tid, .size = t->reserved};
		journal_append(u->rt->journal, &r);
	}
	transfer_touch(t);
	transfer_arm(t); /* segments_ttl may be shorter than what the timer was armed for */
	if (staging_preallocates(t))
		init_wait_staging(t, rp);
	else
		reply_after_journal(u, rp, NULL, JOURNAL_WRITTEN);
	return true;
}

static bool has_meta(const struct transfer *t, const struct meta *m)
{
	return t->has_meta && meta_equal(&t->meta, m);
}

/* An init of this user that names a transfer that is there already. */
static void init_again(struct transfer *t, struct user *user, struct meta *m, struct reply *rp)
{
	struct uploads *u = t->u;
	if (has_meta(t, m)) {
		meta_fini(m);
		transfer_touch(t);
		if (t->inits)
			init_wait_staging(t, rp);
		else
			reply_after_journal(u, rp, NULL, JOURNAL_WRITTEN);
	} else if (t->state == TRANSFER_EXPORTED) {
		int err = 0;
		struct transfer *next = transfer_next_generation(t, user, 0, &err);
		if (next) {
			next->own_meta = true;
			if (!init_accept(next, m, rp) && !next->fins && !next->aborts)
				transfer_drop(next, RECORD_FORGET);
			transfer_step(t); /* segments that waited there move on */
			return;
		}
		struct outcome o;
		outcome_storage(&o, err);
		meta_fini(m);
		reply_finish(rp, &o);
	} else if (!t->has_meta || (t->previous && !t->own_meta && t->state == TRANSFER_OPEN)) {
		bool own_meta = t->own_meta;
		t->own_meta = true;
		if (!init_accept(t, m, rp))
			t->own_meta = own_meta;
	} else {
		meta_fini(m);
		reply_fail(rp, MQTT_RC_UNSPECIFIED, "filemeta_conflict", false);
	}
}

/* An abort would take along what the init changes, and a fin that came before it is about what there
 * was then. One that changes nothing need not wait, unless the fin may end the generation, or another
 * one waits. */
static bool waits_for_end(const struct transfer *t, const struct meta *m)
{
	return t->late || t->aborts || (t->fins && (t->previous || !has_meta(t, m)));
}

static void late_push(struct transfer *t, struct user *user, struct pending *p)
{
	p->user = user_ref(user);
	p->next = t->late;
	t->late = p;
}

static void late_free(struct pending *p)
{
	user_leave(p->user);
	free(p->meta);
	free(p->fin);
	free(p);
}

/* Waits for the end of a fin or an abort. False: refused, for want of memory. */
static bool init_late(struct transfer *t, struct user *user, struct meta *m, struct reply *rp)
{
	struct pending *p = pending_new(rp, NULL);
	if (!p || !(p->meta = malloc(sizeof(*m)))) {
		meta_fini(m);
		if (p)
			reply_fail(rp, MQTT_RC_UNSPECIFIED, "no_memory", true);
		free(p);
		return false;
	}
	*p->meta = *m;
	late_push(t, user, p);
	return true;
}

void upload_fin_late(struct transfer *t, struct user *user, const struct filecmd *cmd, struct reply *rp)
{
	struct pending *p = pending_new(rp, NULL);
	if (!p)
		return;
	p->fin = malloc(sizeof(*cmd));
	if (!p->fin) {
		reply_fail(rp, MQTT_RC_UNSPECIFIED, "no_memory", true);
		free(p);
		return;
	}
	*p->fin = *cmd;
	late_push(t, user, p);
}

/* m is taken over. False: it waits. */
static bool init_begin(struct uploads *u, const struct upload_id *id, struct meta *m, struct reply *rp)
{
	struct outcome o;
	int err = journal_error(u->rt->journal);
	if (!err && m->has_size && m->size > u->conf->transfer.file_bytes_max)
		err = -EFBIG;
	struct transfer *t = err ? NULL : transfer_find(u, id);
	if (t && waits_for_end(t, m))
		return !init_late(t, id->user, m, rp);
	if (t) {
		init_again(t, id->user, m, rp);
		return true;
	}
	if (!err)
		t = open_transfer(u, id, m->has_size ? m->size : 0, &err);
	if (!t) {
		outcome_storage(&o, err);
		meta_fini(m);
		reply_finish(rp, &o);
		return true;
	}
	t->own_meta = true;
	log_debug("transfer opened", LS("clientid", t->clientid, t->clientid_bytes),
		LS("fileid", t->fileid, t->fileid_bytes), LZ("name", m->name), NULL);
	init_accept(t, m, rp);
	return true;
}

bool upload_init(struct uploads *u, const struct upload_id *id, const char *json, uint32_t json_bytes,
	struct reply *rp)
{
	struct meta m = {0};
	const char *error = meta_parse(json, json_bytes, &m);
	if (!error)
		return init_begin(u, id, &m, rp);
	reply_fail(rp, MQTT_RC_UNSPECIFIED, error, error == META_NO_MEMORY);
	return true;
}

/* What they waited for is done; t may be gone, but is pinned. One that has to wait again does so behind
 * the head's, and those after it behind that. */
static void late_begin(struct transfer *t)
{
	struct upload_id id = {t->clientid, t->clientid_bytes, t->fileid, t->fileid_bytes, NULL};
	struct pending *all = NULL;
	while (t->late) { /* reverses into the order of arrival */
		struct pending *p = t->late;
		t->late = p->next;
		p->next = all;
		all = p;
	}
	while (all) {
		struct pending *p = all;
		all = p->next;
		id.user = p->user;
		if (p->fin)
			upload_fin(t->u, &id, p->fin, p->reply);
		else
			(void)init_begin(t->u, &id, p->meta, p->reply);
		late_free(p);
	}
}

/* They are not carried out. o NULL: what they would begin is aborted at once, so an init succeeds. */
static void late_skip(struct transfer *t, const struct outcome *o)
{
	struct outcome aborted;
	outcome_fail(&aborted, MQTT_RC_UNSPECIFIED, "aborted", false);
	while (t->late) {
		struct pending *p = t->late;
		t->late = p->next;
		if (p->fin)
			fin_finish_reply(t->u, p->reply, o ? o : &aborted);
		else if (o)
			reply_finish(p->reply, o);
		else
			reply_after_journal(t->u, p->reply, NULL, JOURNAL_WRITTEN);
		if (p->meta)
			meta_fini(p->meta);
		late_free(p);
	}
}

/* The staging file is there, or can't be. */
static void inits_step(struct transfer *t)
{
	if (!t->inits)
		return;
	struct pending *all = NULL;
	if (t->staging_state != STAGING_FAILED) {
		if (!staging_get(t))
			return;
		staging_put(t);
	}
	while (t->inits) { /* reverses into the order of arrival */
		struct pending *p = t->inits;
		t->inits = p->next;
		p->next = all;
		all = p;
	}
	struct outcome o;
	int err = t->staging_state == STAGING_FAILED ? t->staging_err : 0;
	while (all) {
		struct pending *p = all;
		all = p->next;
		if (err) {
			outcome_storage(&o, err);
			pending_fail(p, &o);
		} else {
			reply_after_journal(t->u, p->reply, NULL, JOURNAL_WRITTEN);
			free(p);
		}
	}
	/* Refused at init: as if it had never been, unless segments came before it. */
	if (err && !transfer_is_held_up(t) && t->cover.bytes == 0 && !t->segs && !t->fins && !t->aborts)
		transfer_drop(t, RECORD_FORGET);
}

/* --- abort ------------------------------------------------------------------------------------ */

void upload_abort(struct uploads *u, const struct upload_id *id, struct reply *rp)
{
	struct transfer *t = transfer_find(u, id);
	if (!t || (t->state == TRANSFER_EXPORTED && !t->segs)) {
		reply_after_journal(u, rp, NULL, JOURNAL_SYNCED);
		return;
	}
	struct pending *p = pending_new(rp, NULL);
	if (!p)
		return;
	late_skip(t, NULL);
	p->next = t->aborts;
	t->aborts = p;
	transfer_step(t);
}

static void aborts_answer(struct uploads *u, struct pending *list)
{
	while (list) {
		struct pending *p = list;
		list = p->next;
		reply_after_journal(u, p->reply, NULL, JOURNAL_SYNCED);
		free(p);
	}
}

static void abort_now(struct transfer *t)
{
	struct pending *aborts = t->aborts;
	struct outcome o;
	t->aborts = NULL;
	outcome_fail(&o, MQTT_RC_UNSPECIFIED, "aborted", false);
	while (t->fins)
		fin_fail(t, &o);
	log_info("transfer aborted", LS("clientid", t->clientid, t->clientid_bytes),
		LS("fileid", t->fileid, t->fileid_bytes), NULL);
	struct uploads *u = t->u;
	transfer_drop(t, RECORD_ABORTED);
	aborts_answer(u, aborts);
}

/* --- status ----------------------------------------------------------------------------------- */

/* What the generation before has acknowledged as replays belongs to this one, also while it is being
 * copied. 0, or −ENOMEM and nothing to free. */
static int cover_with_replays(const struct transfer *t, struct cover *ret)
{
	const struct cover *from[2] = {&t->cover, &t->previous->cover};
	struct extent e;
	int err = 0;
	cover_init(ret, UINT32_MAX);
	for (int i = 0; i < 2; i++) {
		for (uint64_t at = 0; !err && cover_next(from[i], at, &e); at = e.to)
			err = cover_add(ret, e.from, e.to);
	}
	if (err)
		cover_fini(ret);
	return err;
}

void upload_status(struct uploads *u, const struct upload_id *id, struct reply *rp)
{
	struct outcome o = {.text = "success", .has_status = true, .state = "none"};
	const struct transfer *t = transfer_find(u, id);
	if (!t) {
		reply_after_journal(u, rp, &o, JOURNAL_WRITTEN);
		return;
	}
	if (t->state == TRANSFER_EXPORTED) {
		o.state = "exported";
		o.status_has_size = true;
		o.status_size = o.received = o.frontier = t->exported.size;
		o.has_missing = true;
		reply_after_journal(u, rp, &o, JOURNAL_WRITTEN);
		return;
	}
	uint64_t size;
	struct cover all;
	const struct cover *cover = &t->cover;
	if (t->seeding && cover_with_replays(t, &all) == 0)
		cover = &all;
	size = cover_end(cover);
	if (t->has_meta && t->meta.has_size) {
		o.status_has_size = true;
		o.status_size = size = t->meta.size;
	}
	o.state = t->state == TRANSFER_OPEN ? "open" : "verifying";
	o.received = cover->bytes;
	o.frontier = transfer_is_hashed(t) ? t->frontier : t->contiguous;
	outcome_fill_missing(&o, cover, size);
	if (cover == &all)
		cover_fini(&all);
	reply_after_journal(u, rp, &o, JOURNAL_WRITTEN);
}

/* A fin came before anything opened the file, so what the previous generation acknowledged is not
 * taken over yet. */
static void seed_for_fin(struct transfer *t)
{
	struct outcome o;
	if (t->staging_state != STAGING_FAILED) {
		if (staging_get(t))
			staging_put(t);
		return; /* opens and seeds; transfer_step follows */
	}
	outcome_storage(&o, t->staging_err);
	while (t->fins)
		fin_fail(t, &o);
}

/* Nothing is being hashed at present. */
static void verifying_step(struct transfer *t)
{
	if (t->aborts) {
		struct outcome o;
		outcome_fail(&o, MQTT_RC_UNSPECIFIED, "aborted", false);
		fin_fail(t, &o);
		return;
	}
	if (!cover_has(&t->cover, 0, t->fins->size)) {
		struct outcome o; /* a sync that was under way has failed: bytes are lost */
		outcome_incomplete(&o, t, t->fins->size);
		fin_fail(t, &o);
		return;
	}
	if (transfer_is_hashed(t) && t->frontier > t->fins->size)
		transfer_rewind(t, t->fins->size);
	if (!transfer_is_hashed(t) || t->frontier == t->fins->size)
		fin_compare(t);
	else if (t->staging_state == STAGING_FAILED)
		transfer_on_hash_failed(t, t->staging_err);
	else
		transfer_hash_step(t);
}

/* --- the switch ------------------------------------------------------------------------------- */

void transfer_step(struct transfer *t)
{
	transfer_pin(t);
	inits_step(t);
	sync_step(t);
	ingest_step(t);
	transfer_hash_step(t);
	enum transfer_state before;
	do {
		before = t->state;
		struct fin *fin = t->fins;
		switch (t->state) {
		case TRANSFER_OPEN:
			if (t->gone || t->segs || t->inits || transfer_is_held_up(t) ||
				(t->seeding && t->staging_state == STAGING_OPENING))
				break;
			if (t->aborts) {
				abort_now(t);
			} else if (t->fins && t->seeding) {
				seed_for_fin(t);
			} else if (t->fins) {
				fin_begin(t);
				if (!t->gone && t->state == TRANSFER_OPEN && t->fins != fin)
					before = TRANSFER_VERIFYING; /* the next fin has its turn */
			}
			break;
		case TRANSFER_VERIFYING:
			if (!t->hashing)
				verifying_step(t);
			break;
		case TRANSFER_PUBLISHING:
			if (!t->publish)
				export_start(t);
			break;
		case TRANSFER_EXPORTED:
			/* A segment that is still being compared may yet begin the next
			 * generation. */
			while (t->fins && !t->segs && !t->gone) {
				struct fin *f = t->fins;
				t->fins = f->next;
				fin_on_exported(t, f);
			}
			if (t->aborts && !t->segs) {
				struct pending *aborts = t->aborts;
				t->aborts = NULL;
				aborts_answer(t->u, aborts);
			}
			break;
		}
	} while (!t->gone && t->state != before);
	if (t->late && !t->fins && !t->aborts)
		late_begin(t);
	if (!t->gone) {
		/* A fin for less than there is that failed leaves hashing to do, which a gate may
		 * wait for. */
		if (t->state == TRANSFER_OPEN)
			transfer_hash_step(t);
		transfer_gate_step(t);
	}
	transfer_unpin(t);
}

void uploads_discard_waiting(struct transfer *t)
{
	struct outcome o;
	outcome_fail(&o, MQTT_RC_SERVER_SHUTDOWN, "shutdown", true);
	while (t->fins) {
		struct fin *f = t->fins;
		t->fins = f->next;
		fin_answer(t->u, f, &o);
	}
	while (t->aborts) {
		struct pending *p = t->aborts;
		t->aborts = p->next;
		pending_fail(p, &o);
	}
	while (t->inits) {
		struct pending *p = t->inits;
		t->inits = p->next;
		pending_fail(p, &o);
	}
	late_skip(t, &o);
	while (t->gates)
		upload_gate_cancel(t->gates);
}

bool uploads_is_idle(const struct uploads *u)
{
	for (uint32_t i = 0; i < u->table_size; i++) {
		for (const struct transfer *t = u->table[i]; t; t = t->hash_next) {
			if (t->pins || t->segs || t->fins || t->aborts || t->inits ||
				(t->previous && t->previous->segs))
				return false;
		}
	}
	return u->ended_count == 0;
}

static int by_tid(const void *a, const void *b)
{
	const struct transfer *x = *(struct transfer *const *)a, *y = *(struct transfer *const *)b;
	return x->tid < y->tid ? -1 : x->tid > y->tid;
}

void uploads_resume(struct uploads *u)
{
	/* Steps may change the table (a publish that ends): collect first. */
	uint32_t count = 0;
	struct transfer **all = calloc(u->count + 1, sizeof(*all));
	if (!all)
		return;
	for (uint32_t i = 0; i < u->table_size; i++) {
		for (struct transfer *t = u->table[i]; t; t = t->hash_next)
			all[count++] = t;
	}
	qsort(all, count, sizeof(*all), by_tid); /* the memory of replays is in order of age */
	for (uint32_t i = 0; i < count; i++) {
		if (all[i]->state == TRANSFER_EXPORTED) {
			transfer_arm(all[i]);
			transfer_remember(all[i]);
			continue;
		}
		all[i]->is_restored = true;
		transfer_touch(all[i]);
		if (all[i]->seeding)
			staging_seed(all[i]);
		if (all[i]->state == TRANSFER_PUBLISHING)
			export_resume(all[i]);
		else
			transfer_step(all[i]);
	}
	free(all);
}
