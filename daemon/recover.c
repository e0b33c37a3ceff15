/*
 * recover.h.
 *
 *     newest set of journals ──► a past per transfer id ──► transfers ──► staging files swept ──► the next set
 *
 * Of each reactor's files the newest that holds a whole checkpoint counts; an older one is only
 * still there because the machine died in a rotation. Records are applied to the pasts in the order
 * of the files; then the pasts become transfers, older generations first.
 *
 * What is believed: with the page cache surely alive (same boot and file system as when the set was
 * written) every journaled extent that lies within the staging file. Otherwise only what was
 * synced: a transfer whose publish had begun (its file was fsynced first); of the others nothing,
 * they are received again. All of that is said in the log.
 *
 * A staging file that no open transfer has is deleted: its transfer is over, or its opening was
 * never journaled and so none of it acknowledged. But when a journal is damaged, it may be one that
 * only the lost records name. Then it is set aside in <data>/orphans/, like the journal; the rest
 * is served. Files are set aside before the journal that explains why, so a start that is cut short
 * here is repeated by the next.
 */
#include "recover.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "journal_set.h"
#include "log.h"
#include "transfer.h"

enum { FILES_MAX = 4096, PASTS_MIN = 1024 };

struct past {
	uint64_t tid;
	bool opened, dropped, published, has_fin, fin_has_digest;
	struct record open;         /* strings owned */
	char *meta;
	size_t meta_bytes;
	uint64_t reserved, fin_size;
	uint8_t fin_digest[32];
	struct cover cover;
	uint32_t (*mids)[8];
	uint32_t mids_count;
	struct exported exported;
};

struct file {
	uint32_t reactor_idx;
	uint64_t seq;
	char name[JOURNAL_NAME_MAX];
	bool used, damaged;
	int err;                    /* of damaged */
};

struct recovery {
	struct store *store;
	const struct conf *conf;
	struct journal_set set;
	struct file files[FILES_MAX];
	uint32_t files_count;
	bool damaged;               /* records may be missing */
	uint64_t seq_max, tid_max;
	struct past **slots;        /* open addressing by tid */
	uint32_t slots_count, pasts_count;
	uint64_t records;
	uint32_t lost;              /* transfers that lost extents */
};

/* --- pasts ------------------------------------------------------------------------------------ */

static void past_free(struct past *p)
{
	if (!p)
		return;
	cover_fini(&p->cover);
	free((char *)p->open.clientid);
	free((char *)p->open.fileid);
	free((char *)p->open.text);
	free(p->exported.path);
	free(p->meta);
	free(p->mids);
	free(p);
}

static struct past **slot_of(struct recovery *rc, uint64_t tid)
{
	uint64_t h = tid * 0x9e3779b97f4a7c15u;
	for (uint32_t i = (uint32_t)(h >> 32);; i++) {
		struct past **slot = &rc->slots[i & (rc->slots_count - 1)];
		if (!*slot || (*slot)->tid == tid)
			return slot;
	}
}

static int slots_grow(struct recovery *rc)
{
	uint32_t old_count = rc->slots_count;
	struct past **old = rc->slots;
	uint32_t count = old_count ? old_count * 2 : PASTS_MIN;
	struct past **slots = calloc(count, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	rc->slots = slots;
	rc->slots_count = count;
	for (uint32_t i = 0; i < old_count; i++) {
		if (old[i])
			*slot_of(rc, old[i]->tid) = old[i];
	}
	free(old);
	return 0;
}

static struct past *past_of(struct recovery *rc, uint64_t tid)
{
	if (rc->pasts_count * 2 >= rc->slots_count && slots_grow(rc) < 0)
		return NULL;
	struct past **slot = slot_of(rc, tid);
	if (!*slot) {
		*slot = calloc(1, sizeof(**slot));
		if (!*slot)
			return NULL;
		(*slot)->tid = tid;
		cover_init(&(*slot)->cover, UINT32_MAX);
		rc->pasts_count++;
		if (tid > rc->tid_max)
			rc->tid_max = tid;
	}
	return *slot;
}

static char *copy_span(const char *s, size_t bytes)
{
	char *copy = malloc(bytes + 1);
	if (copy) {
		memcpy(copy, s, bytes);
		copy[bytes] = 0;
	}
	return copy;
}

static int replace_span(char **to, const char *s, size_t bytes)
{
	char *copy = copy_span(s, bytes);
	if (!copy)
		return -ENOMEM;
	free(*to);
	*to = copy;
	return 0;
}

static int apply_open(struct past *p, const struct record *r)
{
	if (p->opened)
		return 0;
	p->open = *r;
	p->open.clientid = copy_span(r->clientid, r->clientid_bytes);
	p->open.fileid = copy_span(r->fileid, r->fileid_bytes);
	p->open.text = copy_span(r->text, r->text_bytes);
	p->opened = true;
	return p->open.clientid && p->open.fileid && p->open.text ? 0 : -ENOMEM;
}

static int apply_midstate(struct past *p, const struct record *r)
{
	uint64_t idx = r->frontier / MIDSTATE_BYTES;
	if (r->frontier % MIDSTATE_BYTES || idx == 0 || idx > (uint64_t)p->mids_count + 1)
		return 0; /* one below it is missing: it can't be used */
	if (idx == (uint64_t)p->mids_count + 1) {
		uint32_t (*mids)[8] = realloc(p->mids, idx * sizeof(*mids));
		if (!mids)
			return -ENOMEM;
		p->mids = mids;
		p->mids_count++;
	}
	memcpy(p->mids[idx - 1], r->h, sizeof(*p->mids));
	return 0;
}

static int apply(struct recovery *rc, const struct record *r)
{
	struct past *p;
	rc->records++;
	if (r->type == RECORD_CHECKPOINT_END)
		return 0;
	if (!(p = past_of(rc, r->tid)))
		return -ENOMEM;
	switch (r->type) {
	case RECORD_OPEN:
		return apply_open(p, r);
	case RECORD_META:
		p->meta_bytes = r->text_bytes;
		return replace_span(&p->meta, r->text, r->text_bytes);
	case RECORD_RESERVE:
		p->reserved = r->size;
		return 0;
	case RECORD_EXTENT:
		return cover_add(&p->cover, r->from, r->to);
	case RECORD_UNCOVER:
		if (p->mids_count > r->from / MIDSTATE_BYTES)
			p->mids_count = (uint32_t)(r->from / MIDSTATE_BYTES);
		return cover_remove(&p->cover, r->from, r->to);
	case RECORD_MIDSTATE:
		return apply_midstate(p, r);
	case RECORD_FIN:
		p->has_fin = true;
		p->fin_size = r->size;
		p->fin_has_digest = r->has_digest;
		memcpy(p->fin_digest, r->digest, 32);
		return 0;
	case RECORD_FIN_FAILED:
		p->has_fin = false;
		free(p->exported.path);
		p->exported.path = NULL;
		return 0;
	case RECORD_PUBLISHING:
		p->exported.size = r->size;
		memcpy(p->exported.digest, r->digest, 32);
		return replace_span(&p->exported.path, r->text, r->text_bytes);
	case RECORD_PUBLISHED:
		p->published = true;
		p->exported.at_ms = r->at_ms;
		cover_fini(&p->cover);
		cover_init(&p->cover, UINT32_MAX);
		p->mids_count = 0;
		return 0;
	case RECORD_ABORTED:
	case RECORD_EXPIRED:
	case RECORD_FORGET:
		p->dropped = true;
		return 0;
	case RECORD_CHECKPOINT_END:
		break;
	}
	return 0;
}

/* --- files ------------------------------------------------------------------------------------ */

static int on_name(void *arg, const char *name)
{
	struct recovery *rc = arg;
	unsigned idx;
	unsigned long long seq;
	char check[JOURNAL_NAME_MAX];
	if (sscanf(name, "r%u-%llu.log", &idx, &seq) != 2)
		return 0;
	journal_file_name(idx, seq, check);
	if (strcmp(check, name) != 0)
		return 0;
	if (rc->files_count == FILES_MAX)
		return -E2BIG;
	struct file *f = &rc->files[rc->files_count++];
	f->reactor_idx = idx;
	f->seq = seq;
	snprintf(f->name, sizeof(f->name), "%s", name);
	if (seq > rc->seq_max)
		rc->seq_max = seq;
	return 0;
}

/* Newest first. */
static int by_seq_down(const void *a, const void *b)
{
	const struct file *x = a, *y = b;
	return x->seq < y->seq ? 1 : x->seq > y->seq ? -1 : 0;
}

/* The whole file: malloc'ed, or NULL with *ret_err. */
static uint8_t *load(const struct recovery *rc, const struct file *f, size_t *ret_bytes, int *ret_err)
{
	struct sys_stat st;
	uint8_t *buf = NULL;
	int fd = sys_openat(rc->set.fd, f->name, O_RDONLY, 0);
	if (fd < 0) {
		*ret_err = fd;
		return NULL;
	}
	int err = sys_fstat(fd, &st);
	if (!err && !(buf = malloc(st.size + 1)))
		err = -ENOMEM;
	int64_t n = err ? err : sys_pread(fd, buf, st.size, 0);
	sys_close(fd);
	if (n < 0) {
		free(buf);
		*ret_err = (int)n;
		return NULL;
	}
	*ret_bytes = (size_t)n;
	return buf;
}

static bool has_whole_checkpoint(struct record_reader reader)
{
	struct record r;
	while (record_next(&reader, &r) == 1) {
		if (r.type == RECORD_CHECKPOINT_END)
			return true;
	}
	return false;
}

static void note_damage(struct recovery *rc, struct file *f, int err)
{
	f->damaged = rc->damaged = true;
	f->err = err;
}

/* 1: read; 0: no whole checkpoint in it; −errno: −EBADMSG, −EINVAL, −EPROTO or of reading. */
static int read_file(struct recovery *rc, struct file *f)
{
	size_t bytes = 0;
	int err = 0;
	uint32_t idx;
	uint64_t salt, seq;
	uint8_t *buf = load(rc, f, &bytes, &err);
	if (!buf)
		return err;
	err = record_header_decode(buf, bytes, &salt, &seq, &idx);
	struct record_reader reader = {.buf = buf + RECORD_HEADER_BYTES, .salt = salt};
	if (!err) {
		reader.buf_bytes = bytes - RECORD_HEADER_BYTES;
		err = has_whole_checkpoint(reader) ? 1 : 0;
	}
	if (err == 1) {
		struct record r;
		int got;
		while ((got = record_next(&reader, &r)) == 1) {
			int failed = apply(rc, &r);
			if (failed) {
				free(buf);
				return failed;
			}
		}
		if (got < 0) {
			log_error("journal damaged: what follows in this file is not read", LZ("file", f->name),
				LU("offset", reader.off + RECORD_HEADER_BYTES), NULL);
			note_damage(rc, f, got);
		}
	}
	free(buf);
	return err;
}

static int read_files(struct recovery *rc)
{
	int err = rc->set.fd < 0 ? 0 : sys_list_dir(rc->set.fd, on_name, rc);
	if (err)
		return err;
	qsort(rc->files, rc->files_count, sizeof(rc->files[0]), by_seq_down);
	for (uint32_t i = 0; i < rc->files_count; i++) {
		struct file *f = &rc->files[i];
		bool newer_used = false;
		for (uint32_t k = 0; k < i; k++)
			newer_used = newer_used || (rc->files[k].used && rc->files[k].reactor_idx == f->reactor_idx);
		if (newer_used)
			continue;
		err = read_file(rc, f);
		if (err == 1)
			f->used = true;
		else if (err == -ENOMEM || err == -EIO || err == -EACCES || err == -EMFILE || err == -EPROTO)
			return err;
		else
			note_damage(rc, f, err); /* a file gets its name when it is whole */
	}
	return 0;
}

/* --- from pasts to transfers ------------------------------------------------------------------ */

static int by_tid(const void *a, const void *b)
{
	const struct past *x = *(struct past *const *)a, *y = *(struct past *const *)b;
	return x->tid < y->tid ? -1 : x->tid > y->tid;
}

/* Content from `from` on is not there. */
static void lose(struct recovery *rc, struct past *p, const struct transfer *t, uint64_t from, const char *why)
{
	uint64_t before = p->cover.bytes;
	(void)cover_remove(&p->cover, from, UINT64_MAX); /* reaches the end of the last extent: can't fail */
	if (p->mids_count > from / MIDSTATE_BYTES)
		p->mids_count = (uint32_t)(from / MIDSTATE_BYTES);
	if (p->cover.bytes == before)
		return;
	log_warn("received segments did not survive and are missing again",
		LS("clientid", t->clientid, t->clientid_bytes), LS("fileid", t->fileid, t->fileid_bytes),
		LU("bytes", before - p->cover.bytes), LZ("why", why), NULL);
	rc->lost++;
}

/* Keeps of the content only what is surely on disk. */
static void trust_content(struct recovery *rc, struct past *p, struct transfer *t)
{
	struct sys_stat st = {0};
	struct extent e;
	uint64_t end = 0;
	int err = sys_stat_at(rc->store->staging_fd, t->staging, &st);
	t->staging_exists = err == 0;
	if (p->exported.path && !err && st.size < p->exported.size) {
		/* Not what was fsynced and then left alone: nothing that may be published. */
		free(p->exported.path);
		p->exported.path = NULL;
		lose(rc, p, t, 0, "the staging file was changed");
	}
	if (p->exported.path)
		; /* publishing begins with an fsync, and may have ended with the file in the export directory */
	else if (!rc->set.cache_alive)
		lose(rc, p, t, 0, "the machine was restarted");
	else if (err)
		lose(rc, p, t, 0, "the staging file is gone");
	else
		lose(rc, p, t, st.size, "the staging file is too short");
	for (uint64_t at = 0; cover_next(&p->cover, at, &e); at = e.to)
		end = e.to;
	t->cover = p->cover;
	t->cover.extents_max = rc->conf->transfer.extents_max;
	cover_init(&p->cover, UINT32_MAX);
	uint64_t reserved = p->reserved > end ? p->reserved : end;
	uint64_t allocated = st.blocks_bytes < reserved ? st.blocks_bytes : reserved;
	transfer_count(t, reserved);
	t->allocated = allocated;
	t->fallocated = t->staging_exists && t->has_meta && t->meta.has_size && st.size >= t->meta.size &&
		st.blocks_bytes >= t->meta.size ? t->meta.size : 0;
	atomic_fetch_add(&rc->store->staged_bytes, reserved);
	atomic_fetch_add(&rc->store->unallocated_bytes, reserved - allocated);
	atomic_fetch_add(&rc->store->open_count, 1);
}

static int restore_open(struct recovery *rc, struct past *p, struct transfer *t)
{
	trust_content(rc, p, t);
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

static void restore_exported(struct recovery *rc, struct past *p, struct transfer *t)
{
	t->state = TRANSFER_EXPORTED;
	t->exported = p->exported;
	p->exported.path = NULL;
	t->cover = p->cover;
	t->cover.extents_max = rc->conf->transfer.extents_max;
	cover_init(&p->cover, UINT32_MAX);
	t->u->exported_count++;
	int64_t age_ms = sys_wall_ms() - t->exported.at_ms;
	uint64_t now = sys_mono_ms();
	t->active_ms = age_ms > 0 && (uint64_t)age_ms < now ? now - (uint64_t)age_ms : now;
}

static bool replay_window_over(const struct recovery *rc, const struct past *p)
{
	return p->published &&
		sys_wall_ms() - p->exported.at_ms > (int64_t)rc->conf->transfer.replay_window_s * 1000;
}

static int restore(struct recovery *rc, struct past *p, struct reactor **reactors, uint32_t count)
{
	struct upload_id id = {p->open.clientid, p->open.clientid_bytes, p->open.fileid, p->open.fileid_bytes};
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
	if (p->meta && !meta_parse(p->meta, p->meta_bytes, &t->meta))
		t->has_meta = true;
	/* Metadata that was taken over from the generation before is the only one that another init
	 * may replace. */
	t->own_meta = t->has_meta && (!before || !before->has_meta || !meta_equal(&t->meta, &before->meta));
	if (p->published && p->exported.path) {
		if (before) { /* the later export takes the place of the earlier one */
			t->previous = NULL;
			transfer_forget_restored(before);
		}
		restore_exported(rc, p, t);
		return 0;
	}
	return restore_open(rc, p, t);
}

static int restore_all(struct recovery *rc, struct reactor **reactors, uint32_t count)
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
	}
	free(all);
	return err;
}

/* --- staging files that no transfer has ------------------------------------------------------- */

struct sweep {
	struct recovery *rc;
	const char **kept;          /* of open transfers, sorted */
	size_t kept_count;
	uint32_t orphans;
	int orphans_fd;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int sweep_one(void *arg, const char *name)
{
	struct sweep *w = arg;
	const struct store *store = w->rc->store;
	if (w->kept_count && bsearch(&name, w->kept, w->kept_count, sizeof(*w->kept), by_name))
		return 0;
	if (w->orphans_fd < 0) {
		(void)sys_unlinkat(store->staging_fd, name, 0);
	} else if (sys_renameat2(store->staging_fd, name, w->orphans_fd, name, 0) == 0) {
		w->orphans++;
	}
	return 0;
}

static int keep_names(struct sweep *w, struct reactor **reactors, uint32_t count)
{
	size_t max = 0;
	for (uint32_t i = 0; i < count; i++)
		max += reactors[i]->uploads->count;
	w->kept = calloc(max + 1, sizeof(*w->kept));
	if (!w->kept)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		const struct uploads *u = reactors[i]->uploads;
		for (uint32_t k = 0; k < u->table_size; k++) {
			for (const struct transfer *t = u->table[k]; t; t = t->hash_next) {
				if (t->state != TRANSFER_EXPORTED)
					w->kept[w->kept_count++] = t->staging;
			}
		}
	}
	qsort(w->kept, w->kept_count, sizeof(*w->kept), by_name);
	return 0;
}

static int open_orphans(const struct recovery *rc)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/orphans", rc->conf->data);
	int err = sys_mkdirs(path, 0700);
	return err ? err : sys_openat(rc->store->data_fd, "orphans", O_RDONLY | O_DIRECTORY, 0);
}

static int sweep(struct recovery *rc, struct reactor **reactors, uint32_t count)
{
	struct sweep w = {.rc = rc, .orphans_fd = -1};
	int err = keep_names(&w, reactors, count);
	if (!err && rc->damaged) {
		/* Of those that the journal knows to be over nothing is wanted. */
		for (uint32_t i = 0; i < rc->slots_count; i++) {
			const struct past *p = rc->slots[i];
			if (p && p->opened && p->dropped && p->open.text)
				(void)sys_unlinkat(rc->store->staging_fd, p->open.text, 0);
		}
		w.orphans_fd = open_orphans(rc);
		err = w.orphans_fd < 0 ? w.orphans_fd : 0;
	}
	if (!err)
		err = sys_list_dir(rc->store->staging_fd, sweep_one, &w);
	if (w.orphans)
		log_warn("staging files without a transfer are in <data>/orphans: delete them when nobody wants them",
			LU("files", w.orphans), NULL);
	if (w.orphans_fd >= 0)
		sys_close(w.orphans_fd);
	free(w.kept);
	return err;
}

/* --- the next set ----------------------------------------------------------------------------- */

static int start_journals(struct recovery *rc, struct reactor **reactors, uint32_t count)
{
	for (uint32_t i = 0; i < rc->files_count; i++) {
		if (rc->files[i].damaged)
			journal_set_aside(rc->store, &rc->set, rc->files[i].name, rc->files[i].err);
	}
	int err = journal_set_begin(rc->store);
	for (uint32_t i = 0; !err && i < count; i++)
		err = journal_new(reactors[i], rc->store, rc->seq_max + 1, uploads_checkpoint,
			reactors[i]->uploads, &reactors[i]->journal);
	if (!err)
		err = journal_set_commit(rc->store, &rc->set);
	for (uint32_t i = 0; !err && i < count; i++)
		journal_reserve_next(reactors[i]->journal); /* the old set has given its room back */
	return err;
}

static void recovery_free(struct recovery *rc)
{
	for (uint32_t i = 0; i < rc->slots_count; i++)
		past_free(rc->slots[i]);
	journal_set_close(&rc->set);
	free(rc->slots);
	free(rc);
}

int recover_run(struct reactor **reactors, uint32_t count, char *ret_error, size_t error_max)
{
	struct recovery *rc = calloc(1, sizeof(*rc));
	int err = rc ? 0 : -ENOMEM;
	if (rc)
		rc->set.fd = -1;
	for (uint32_t i = 0; !err && i < count; i++) {
		reactors[i]->uploads = uploads_new(reactors[i], reactors[i]->store);
		if (!reactors[i]->uploads)
			err = -ENOMEM;
	}
	uint64_t began = sys_mono_ms();
	if (!err) {
		rc->store = reactors[0]->store;
		rc->conf = reactors[0]->conf;
		err = journal_set_open(rc->store, &rc->set);
	}
	if (!err)
		err = read_files(rc);
	if (!err)
		err = restore_all(rc, reactors, count);
	if (!err)
		err = sweep(rc, reactors, count);
	if (!err) {
		atomic_store(&rc->store->next_tid, rc->tid_max + 1);
		err = start_journals(rc, reactors, count);
	}
	if (!err) {
		if (rc->records > count)
			log_info("recovered", LU("records", rc->records), LU("transfers", rc->pasts_count),
				LU("lost_extents", rc->lost), LU("ms", sys_mono_ms() - began), NULL);
	} else if (err == -EPROTO) {
		snprintf(ret_error, error_max, "the journal in %s was written by a newer sluiced: run that version, "
			"or empty the directory", rc->conf->data);
	} else {
		snprintf(ret_error, error_max, "the journal in %s/journal can't be used: %s: free space there, or "
			"give this user the right to write", reactors[0]->conf->data, strerror(-err));
	}
	if (rc)
		recovery_free(rc);
	return err;
}
