/*
 * From pasts to transfers, and what of their content is believed. recover.c has the order of things.
 */
#include "recover_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "log.h"

static int by_tid(const void *a, const void *b)
{
	const struct past *x = *(struct past *const *)a, *y = *(struct past *const *)b;
	return x->tid < y->tid ? -1 : x->tid > y->tid;
}

/* Content from `from` on is not there. */
static void lose_from(struct past *p, uint64_t from)
{
	/* Reaches the end of the last extent: can't fail. */
	(void)cover_remove(&p->cover, from, UINT64_MAX);
	(void)cover_remove(&p->synced, from, UINT64_MAX);
	if (p->mids_count > from / MIDSTATE_BYTES)
		p->mids_count = (uint32_t)(from / MIDSTATE_BYTES);
}

/* Says what is missing of the content that there was. */
static void tell_lost(struct recovery *rc, const struct past *p, uint64_t before, const char *why)
{
	if (p->cover.bytes == before)
		return;
	log_warn("received segments did not survive and are missing again",
		LS("clientid", p->open.clientid, p->open.clientid_bytes),
		LS("fileid", p->open.fileid, p->open.fileid_bytes), LU("bytes", before - p->cover.bytes),
		LU("kept", p->cover.bytes), LZ("why", why), NULL);
	rc->lost++;
	rc->lost_bytes += before - p->cover.bytes;
}

/* Keeps of the content only what is surely there. st: of the staging file, if it exists. 0 or −ENOMEM. */
static int believe(struct recovery *rc, struct past *p, const struct transfer *t, const struct sys_stat *st)
{
	uint64_t before = p->cover.bytes;
	if (p->exported.path && t->staging_exists && st->size < p->exported.size) {
		/* Not what was fsynced and then left alone: nothing that may be published. */
		free(p->exported.path);
		p->exported.path = NULL;
		lose_from(p, 0);
		tell_lost(rc, p, before, "the staging file was changed");
		return 0;
	}
	/* Publishing begins with an fsync, and may have ended with the file in the export directory. */
	if (p->exported.path)
		return cover_add(&p->synced, 0, p->exported.size);
	if (!t->staging_exists) {
		lose_from(p, 0);
		tell_lost(rc, p, before, "the staging file is gone");
		if (before > 0)
			recover_note_record(rc, t, before);
		return 0;
	}
	if (!rc->set.cache_alive && recover_keep_synced(p) < 0)
		return -ENOMEM;
	tell_lost(rc, p, before, "the machine was restarted, the file system mounted anew, or the disk had lost bytes");
	before = p->cover.bytes;
	lose_from(p, st->size);
	tell_lost(rc, p, before, "the staging file is too short");
	return 0;
}

/* Counts it as open, or as an export that is still there, whatever the limits are by now. 0 or
 * −ENOMEM. */
static int count(const struct recovery *rc, const struct past *p, struct transfer *t, uint64_t reserved)
{
	bool is_exported = t->state == TRANSFER_EXPORTED;
	struct user *user = NULL;
	if (p->user && (!is_exported || rc->conf->transfer.files_user_max)) {
		user = user_enter(rc->store->users, (struct mqtt_str){p->user, p->user_bytes});
		if (!user)
			return -ENOMEM;
	}
	if (is_exported) {
		transfer_count_restored(t, user);
	} else {
		user_count(user, reserved);
		transfer_count(t, user, reserved);
	}
	user_leave(user);
	return 0;
}

/* Gives the transfer the content that is believed. 0 or −errno: whether the file is there is not known. */
static int trust_content(struct recovery *rc, struct past *p, struct transfer *t)
{
	struct sys_stat st = {0};
	struct extent e;
	uint64_t end = 0;
	int err = sys_stat_at(rc->store->staging_fd, t->staging, &st);
	if (err && err != -ENOENT)
		return err;
	t->staging_exists = err == 0;
	t->broken = p->broken;
	if (believe(rc, p, t, &st) < 0)
		return -ENOMEM;
	for (uint64_t at = 0; cover_next(&p->cover, at, &e); at = e.to)
		end = e.to;
	t->cover = p->cover;
	t->synced = p->synced;
	t->cover.extents_max = t->synced.extents_max = rc->conf->transfer.extents_max;
	cover_init(&p->cover, UINT32_MAX);
	cover_init(&p->synced, UINT32_MAX);
	uint64_t reserved = p->reserved > end ? p->reserved : end;
	uint64_t allocated = st.blocks_bytes < reserved ? st.blocks_bytes : reserved;
	if (count(rc, p, t, reserved) < 0)
		return -ENOMEM;
	t->allocated = allocated;
	t->fallocated = t->staging_exists && t->has_meta && t->meta.has_size && st.size >= t->meta.size &&
		st.blocks_bytes >= t->meta.size ? t->meta.size : 0;
	atomic_fetch_add(&rc->store->staged_bytes, reserved);
	atomic_fetch_add(&rc->store->unallocated_bytes, reserved - allocated);
	atomic_fetch_add(&rc->store->open_count, 1);
	return 0;
}

static int restore_open(struct recovery *rc, struct past *p, struct transfer *t)
{
	int err = trust_content(rc, p, t);
	if (err)
		return err;
	for (uint32_t i = 0; i < p->mids_count; i++) {
		if (transfer_add_midstate(t, p->mids[i]) < 0)
			return -ENOMEM;
	}
	transfer_restart_hash(t);
	/* Acknowledged replays that are not in this generation's file yet; those that are, the one
	 * before has forgotten. */
	t->seeding = !p->exported.path && t->previous && t->previous->cover.bytes > 0;
	if (p->exported.path) {
		t->exported = p->exported;
		p->exported.path = NULL;
		t->state = TRANSFER_PUBLISHING;
		t->resume_path = true;
	}
	if (p->has_fin) {
		struct fin *f = calloc(1, sizeof(*f));
		if (!f)
			return -ENOMEM;
		f->size = p->fin_size;
		f->has_checksum = p->fin_has_digest;
		memcpy(f->checksum, p->fin_digest, 32);
		t->fins = f;
		t->fin_recorded = true;
	}
	return 0;
}

static int restore_exported(struct recovery *rc, struct past *p, struct transfer *t)
{
	t->state = TRANSFER_EXPORTED;
	content_release(t);
	t->exported = p->exported;
	p->exported.path = NULL;
	t->cover = p->cover;
	t->cover.extents_max = rc->conf->transfer.extents_max;
	cover_init(&p->cover, UINT32_MAX);
	t->u->exported_count++;
	int64_t age_ms = sys_wall_ms() - t->exported.at_ms;
	uint64_t now = sys_mono_ms();
	/* The window runs from the last activity, which no record tells: where replays were acknowledged
	 * it begins anew. */
	bool is_unused = t->cover.bytes == 0 && age_ms > 0 && (uint64_t)age_ms < now;
	t->active_ms = is_unused ? now - (uint64_t)age_ms : now;
	return count(rc, p, t, 0);
}

/* Acknowledged replays are not forgotten by a restart: they may have come a moment ago. */
static bool replay_window_over(const struct recovery *rc, const struct past *p)
{
	return p->published && p->cover.bytes == 0 &&
		sys_wall_ms() - p->exported.at_ms > (int64_t)rc->conf->transfer.replay_window_s * 1000;
}

static int restore(struct recovery *rc, struct past *p, struct reactor **reactors, uint32_t count)
{
	struct upload_id id = {p->open.clientid, p->open.clientid_bytes, p->open.fileid, p->open.fileid_bytes, NULL};
	struct uploads *u = reactors[reactor_owner(id.clientid, id.clientid_bytes, count)]->uploads;
	struct transfer *before = transfer_find(u, &id);
	if (before && before->state != TRANSFER_EXPORTED) {
		rc->damaged = true;
		log_error("journal holds one transfer twice: the later is dropped",
			LS("clientid", id.clientid, id.clientid_bytes), LS("fileid", id.fileid, id.fileid_bytes), NULL);
		return 0;
	}
	struct transfer *t = transfer_new(u, &id, p->tid, p->open.generation, before);
	if (!t)
		return -ENOMEM;
	t->opened_at_ms = p->open.at_ms;
	t->epoch = p->open.epoch;
	free(t->staging);
	t->staging = (char *)p->open.text;
	p->open.text = NULL;
	const char *error = p->meta ? meta_parse(p->meta, p->meta_bytes, &t->meta) : "";
	if (error == META_NO_MEMORY)
		return -ENOMEM;
	t->has_meta = !error;
	/* A generation begins with the metadata of the one before. After a power cut the journal may
	 * end between its beginning and the record of that. */
	if (!t->has_meta && before && before->has_meta) {
		if (meta_copy(&t->meta, &before->meta) < 0)
			return -ENOMEM;
		t->has_meta = true;
	}
	/* Metadata that was taken over from the generation before is the only one that another init
	 * may replace. */
	t->own_meta = t->has_meta && (!before || !before->has_meta || !meta_equal(&t->meta, &before->meta));
	if (p->published && p->exported.path) {
		if (before) { /* the later export takes the place of the earlier one */
			t->previous = NULL;
			transfer_forget_restored(before);
		}
		return restore_exported(rc, p, t);
	}
	return restore_open(rc, p, t);
}

int recover_restore(struct recovery *rc, struct reactor **reactors, uint32_t count)
{
	struct past **all = calloc(rc->pasts_count + 1, sizeof(*all));
	uint32_t n = 0;
	int err = 0;
	if (!all)
		return -ENOMEM;
	for (uint32_t i = 0; i < rc->slots_count; i++) {
		if (rc->slots[i] && rc->slots[i]->opened && !rc->slots[i]->dropped)
			all[n++] = rc->slots[i];
	}
	qsort(all, n, sizeof(*all), by_tid);
	for (uint32_t i = 0; !err && i < n; i++) {
		if (!replay_window_over(rc, all[i]))
			err = restore(rc, all[i], reactors, count);
		rc->restored++;
		recover_tell(rc);
	}
	free(all);
	return err;
}
