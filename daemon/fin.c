/*
 * `fin`: from the command to the verified digest, and what comes of it.
 *
 * Fins queue on their transfer; the first is worked on, the others join: they are answered by the
 * export that it makes, or have their turn when it fails. The transfer is sealed while there is one
 * (upload_gate_pass).
 *
 * The acknowledgement of an asynchronous one says that its outcome will come, so it leaves when a
 * restart would know of the fin, too: the one worked on when it is recorded, and with it those that
 * ask for the same.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "events.h"
#include "log.h"
#include "mqtt.h"
#include "transfer.h"

static void event_exported(const struct transfer *t)
{
	struct answer_event e = {.clientid = t->clientid, .clientid_bytes = t->clientid_bytes,
		.fileid = t->fileid, .fileid_bytes = t->fileid_bytes,
		.name = t->has_meta ? t->meta.name : NULL, .has_size = true, .size = t->exported.size,
		.sha256 = exported_digest(&t->exported), .path = t->exported.path,
		.user_data = t->has_meta ? t->meta.user_data : NULL,
		.seconds = (double)(t->exported.at_ms - t->opened_at_ms) / 1000};
	events_publish(t->u->rt, "exported", &e);
}

static void event_failed(const struct transfer *t, uint64_t size, const char *reason)
{
	struct answer_event e = {.clientid = t->clientid, .clientid_bytes = t->clientid_bytes,
		.fileid = t->fileid, .fileid_bytes = t->fileid_bytes,
		.name = t->has_meta ? t->meta.name : NULL, .has_size = true, .size = size, .reason = reason,
		.user_data = t->has_meta ? t->meta.user_data : NULL,
		.seconds = (double)(sys_wall_ms() - t->opened_at_ms) / 1000};
	events_publish(t->u->rt, "failed", &e);
}

/* The outcome of an asynchronous one is not in its acknowledgement; but when there is no journal it
 * was not accepted. */
void fin_finish_reply(struct uploads *u, struct reply *rp, const struct outcome *o)
{
	if (rp->is_async && journal_error(u->rt->journal) == 0)
		reply_ack_now(rp);
	reply_finish(rp, o);
}

void fin_answer(struct uploads *u, struct fin *f, const struct outcome *o)
{
	if (f->reply)
		fin_finish_reply(u, f->reply, o);
	f->reply = NULL;
	f->is_answered = true;
	if (!f->waiter.waiting)
		free(f);
}

static void on_fin_recorded(struct journal_waiter *w, int err)
{
	struct fin *f = container_of(w, struct fin, waiter);
	if (f->is_answered)
		free(f);
	else if (!err && f->reply)
		reply_ack_now(f->reply);
}

/* The first fin is recorded: it, and those that a restart would answer by what becomes of it, are
 * acknowledged when the record is written. */
static void acknowledge_recorded(struct transfer *t)
{
	const struct fin *first = t->fins;
	for (struct fin *f = t->fins; f; f = f->next) {
		bool is_same = f->size == first->size && f->has_checksum == first->has_checksum &&
			memcmp(f->checksum, first->checksum, sizeof(f->checksum)) == 0;
		if (!f->reply || !f->reply->is_async || f->waiter.waiting || !is_same)
			continue;
		f->waiter.done = on_fin_recorded;
		journal_wait(t->u->rt->journal, &f->waiter, JOURNAL_SYNCED);
	}
}

static void fill_checksum(const struct transfer *t, struct fin *f)
{
	if (f->has_checksum || !t->has_meta || !t->meta.has_checksum)
		return;
	f->has_checksum = true;
	memcpy(f->checksum, t->meta.checksum, sizeof(f->checksum));
}

/* Ends the running fin without an export; the transfer is open again. */
void fin_fail(struct transfer *t, const struct outcome *o)
{
	struct fin *f = t->fins;
	t->fins = f->next;
	if (t->fin_recorded) {
		struct record r = {.type = RECORD_FIN_FAILED, .tid = t->tid};
		journal_append(t->u->rt->journal, &r);
		t->fin_recorded = false;
	}
	t->state = TRANSFER_OPEN;
	STAT_ADD(t->u->rt, failed, 1);
	log_info("fin failed", LS("clientid", t->clientid, t->clientid_bytes),
		LS("fileid", t->fileid, t->fileid_bytes), LZ("reason", o->text), NULL);
	event_failed(t, f->size, o->text);
	fin_answer(t->u, f, o);
	transfer_touch(t);
}

/* A fin on a transfer that is exported: equal is success, else it is refused. */
void fin_on_exported(const struct transfer *t, struct fin *f)
{
	struct outcome o;
	if (f->size != t->exported.size) {
		outcome_fail(&o, MQTT_RC_UNSPECIFIED, "size_mismatch", false);
		fin_answer(t->u, f, &o);
	} else if (f->has_topic_checksum && !exported_digest(&t->exported)) {
		outcome_fail(&o, MQTT_RC_UNSPECIFIED, "not_verified", false);
		fin_answer(t->u, f, &o);
	} else if (f->has_topic_checksum && memcmp(f->checksum, t->exported.digest, 32) != 0) {
		outcome_mismatch(&o, f->checksum, t->exported.digest);
		fin_answer(t->u, f, &o);
	} else {
		fin_answer(t->u, f, NULL);
	}
}

/* The generation turns out to be the one before again: it goes, all its fins are answered by that
 * one. */
static void fins_fall_back(struct transfer *t)
{
	struct transfer *previous = t->previous;
	struct fin *fins = t->fins;
	t->fins = NULL;
	t->fin_recorded = false;
	t->state = TRANSFER_OPEN;
	transfer_pin(t);
	transfer_drop(t, RECORD_FORGET);
	while (fins) {
		struct fin *next = fins->next;
		fin_on_exported(previous, fins);
		fins = next;
	}
	transfer_unpin(t);
}

/* May this incomplete generation be a replay that was cut short? (PROTOCOL 2.1) */
static bool is_cut_replay(const struct transfer *t, const struct fin *f)
{
	const struct transfer *p = t->previous;
	return p && f->size == p->exported.size && f->has_checksum && exported_digest(&p->exported) &&
		memcmp(f->checksum, p->exported.digest, 32) == 0;
}

void fin_begin(struct transfer *t)
{
	struct fin *f = t->fins;
	struct outcome o;
	for (struct fin *each = f; each; each = each->next)
		fill_checksum(t, each);
	if (!t->has_meta || !cover_has(&t->cover, 0, f->size)) {
		if (is_cut_replay(t, f)) {
			fins_fall_back(t);
			return;
		}
		outcome_incomplete(&o, t, f->size);
		fin_fail(t, &o);
		return;
	}
	struct record r = {.type = RECORD_FIN, .tid = t->tid, .size = f->size, .has_digest = f->has_checksum};
	memcpy(r.digest, f->checksum, 32);
	journal_append(t->u->rt->journal, &r);
	t->fin_recorded = true;
	acknowledge_recorded(t);
	t->hash_stalled = false;
	t->state = TRANSFER_VERIFYING;
}

static bool export_is_there(const struct transfer *t)
{
	struct sys_stat st;
	return sys_stat_at(t->u->store->export_fd, t->exported.path, &st) == 0 && st.is_regular &&
		st.size == t->exported.size;
}

/* All of [0, size) is hashed, if its digest is wanted. */
void fin_compare(struct transfer *t)
{
	struct fin *f = t->fins;
	struct outcome o;
	uint8_t digest[32] = {0};
	if (transfer_is_hashed(t))
		sha256_digest(&t->hasher->hash, digest);
	if (f->has_checksum && memcmp(digest, f->checksum, 32) != 0) {
		outcome_mismatch(&o, f->checksum, digest);
		fin_fail(t, &o);
		return;
	}
	const struct transfer *p = t->previous;
	if (p && p->exported.size == f->size && memcmp(p->exported.digest, digest, 32) == 0 &&
		export_is_there(p)) {
		fins_fall_back(t);
		return;
	}
	/* What lies beyond the size will be cut off: if publishing fails after that, it is missing,
	 * not zeros. */
	if (cover_overlaps(&t->cover, f->size, UINT64_MAX))
		transfer_uncover(t, f->size, UINT64_MAX);
	t->exported.size = f->size;
	memcpy(t->exported.digest, digest, 32);
	t->state = TRANSFER_PUBLISHING; /* transfer_step starts the export */
}

void transfer_on_published(struct transfer *t, int err)
{
	struct outcome o;
	assert(t->state == TRANSFER_PUBLISHING);
	if (err) {
		log_error("export failed", LS("clientid", t->clientid, t->clientid_bytes),
			LS("fileid", t->fileid, t->fileid_bytes), LE("error", err), NULL);
		outcome_storage(&o, err);
		free(t->exported.path);
		t->exported.path = NULL;
		while (t->fins)
			fin_fail(t, &o);
		transfer_step(t);
		return;
	}
	struct fin *fins = t->fins;
	t->fins = NULL;
	t->fin_recorded = false;
	STAT_ADD(t->u->rt, exported, 1);
	log_info("transfer exported", LS("clientid", t->clientid, t->clientid_bytes),
		LS("fileid", t->fileid, t->fileid_bytes), LZ("path", t->exported.path),
		LU("size", t->exported.size), NULL);
	transfer_to_exported(t);
	while (fins) {
		struct fin *next = fins->next;
		fin_on_exported(t, fins);
		fins = next;
	}
	event_exported(t);
	transfer_step(t);
}

void transfer_on_hash_failed(struct transfer *t, int err)
{
	struct outcome o;
	if (t->state != TRANSFER_VERIFYING)
		return;
	outcome_storage(&o, err);
	fin_fail(t, &o);
}

void upload_fin(struct uploads *u, const struct upload_id *id, const struct filecmd *cmd, struct reply *rp)
{
	struct transfer *t = transfer_find(u, id);
	struct outcome o;
	/* One that has to wait for another's end must not hold up what comes after it. */
	if (!rp->is_async || (t && (t->fins || t->late)))
		reply_detach(rp);
	if (t && t->late) {
		upload_fin_late(t, id->user, cmd, rp);
		return;
	}
	if (!t) {
		outcome_incomplete(&o, NULL, cmd->size);
		fin_finish_reply(u, rp, &o);
		return;
	}
	struct fin *f = calloc(1, sizeof(*f));
	if (!f) {
		reply_fail(rp, MQTT_RC_UNSPECIFIED, "no_memory", true);
		return;
	}
	f->reply = rp;
	f->size = cmd->size;
	f->has_checksum = f->has_topic_checksum = cmd->has_checksum;
	if (cmd->has_checksum)
		memcpy(f->checksum, cmd->checksum, 32);
	if (cmd->size > u->conf->transfer.file_bytes_max) {
		outcome_storage(&o, -EFBIG);
		fin_answer(u, f, &o);
		return;
	}
	struct fin **tail = &t->fins;
	while (*tail)
		tail = &(*tail)->next;
	*tail = f;
	if (t->fin_recorded) {
		fill_checksum(t, f);
		acknowledge_recorded(t);
	}
	transfer_touch(t);
	transfer_step(t);
}
