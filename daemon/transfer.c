/*
 * The transfer as an object: the table, its life from opening to memory, and its records in a
 * checkpoint. What it holds is content.c, what the commands do with it upload.c.
 */
#include "transfer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "events.h"
#include "log.h"

enum { TABLE_SIZE_MIN = 256 };

/* --- the table -------------------------------------------------------------------------------- */

static uint64_t id_hash(const struct uploads *u, const char *clientid, uint32_t clientid_bytes,
	const char *fileid, uint32_t fileid_bytes)
{
	uint64_t h = XXH3_64bits_withSeed(clientid, clientid_bytes, u->hash_seed);
	return XXH3_64bits_withSeed(fileid, fileid_bytes, h);
}

static struct transfer **table_slot(struct uploads *u, const struct transfer *t)
{
	uint64_t h = id_hash(u, t->clientid, t->clientid_bytes, t->fileid, t->fileid_bytes);
	return &u->table[h & (u->table_size - 1)];
}

struct transfer *transfer_find(struct uploads *u, const struct upload_id *id)
{
	uint64_t h = id_hash(u, id->clientid, id->clientid_bytes, id->fileid, id->fileid_bytes);
	for (struct transfer *t = u->table[h & (u->table_size - 1)]; t; t = t->hash_next) {
		if (t->clientid_bytes == id->clientid_bytes && t->fileid_bytes == id->fileid_bytes &&
			memcmp(t->clientid, id->clientid, id->clientid_bytes) == 0 &&
			memcmp(t->fileid, id->fileid, id->fileid_bytes) == 0)
			return t;
	}
	return NULL;
}

static void table_grow(struct uploads *u)
{
	uint32_t old_size = u->table_size;
	struct transfer **old = u->table;
	struct transfer **table = calloc((size_t)old_size * 2, sizeof(struct transfer *));
	if (!table)
		return; /* longer chains, nothing worse */
	u->table = table;
	u->table_size = old_size * 2;
	for (uint32_t i = 0; i < old_size; i++) {
		while (old[i]) {
			struct transfer *t = old[i];
			old[i] = t->hash_next;
			struct transfer **slot = table_slot(u, t);
			t->hash_next = *slot;
			*slot = t;
		}
	}
	free(old);
}

static void table_insert(struct uploads *u, struct transfer *t)
{
	if (u->count >= u->table_size)
		table_grow(u);
	struct transfer **slot = table_slot(u, t);
	t->hash_next = *slot;
	*slot = t;
	u->count++;
	t->gone = false;
}

static void table_remove(struct uploads *u, struct transfer *t)
{
	for (struct transfer **p = table_slot(u, t); *p; p = &(*p)->hash_next) {
		if (*p != t)
			continue;
		*p = t->hash_next;
		t->hash_next = NULL;
		u->count--;
		return;
	}
	assert(!"a transfer that is not in the table");
}

struct uploads *uploads_new(struct reactor *rt, struct store *store)
{
	struct uploads *u = calloc(1, sizeof(*u));
	if (!u)
		return NULL;
	u->rt = rt;
	u->conf = rt->conf;
	u->store = store;
	u->table = calloc(TABLE_SIZE_MIN, sizeof(struct transfer *));
	u->exporter = export_new(u);
	if (!u->table || !u->exporter) {
		export_free(u->exporter);
		free(u->table);
		free(u);
		return NULL;
	}
	u->table_size = TABLE_SIZE_MIN;
	u->lru_tail = &u->lru;
	u->memory_tail = &u->memory;
	sync_init_all(u);
	(void)sys_random(&u->hash_seed, sizeof(u->hash_seed));
	return u;
}

/* --- life ------------------------------------------------------------------------------------- */

static void on_ttl(struct timer *timer);

static void transfer_free(struct transfer *t)
{
	assert(t->pins == 0 && !t->segs && !t->fins && !t->aborts && !t->late && !t->gates);
	timers_disarm(&t->u->rt->timers, &t->ttl);
	atomic_fetch_sub(&t->u->store->backlog_bytes, t->backlog);
	t->u->ended_count -= t->ended;
	content_fini(t);
	meta_fini(&t->meta);
	/* It was there to the end of the daemon. */
	if (t->is_counted)
		user_release(t->user, t->reserved);
	else
		user_forget(t->user, &t->user_file);
	user_leave(t->user);
	free(t->staging);
	free(t->exported.path);
	free(t->clientid);
	free(t->fileid);
	free(t);
}

static char *copy_id(const char *s, uint32_t bytes)
{
	char *copy = malloc((size_t)bytes + 1);
	if (copy) {
		memcpy(copy, s, bytes);
		copy[bytes] = 0;
	}
	return copy;
}

/* names_staging tells transfers of one name apart by their generation only; the tid tells an
 * aborted one, whose file may still be there, from the next try. */
static char *staging_name(const struct transfer *t)
{
	char name[NAMES_STAGING_MAX + 1], *full = NULL;
	names_staging(t->epoch, t->clientid, t->clientid_bytes, t->fileid, t->fileid_bytes, t->generation, name);
	if (asprintf(&full, "%.200s-%llx", name, (unsigned long long)t->tid) < 0)
		return NULL;
	return full;
}

static void memory_push(struct transfer *t)
{
	struct uploads *u = t->u;
	t->lru_next = NULL;
	t->lru_pprev = u->memory_tail;
	*u->memory_tail = t;
	u->memory_tail = &t->lru_next;
}

static void memory_remove(struct transfer *t)
{
	if (!t->lru_pprev)
		return;
	*t->lru_pprev = t->lru_next;
	if (t->lru_next)
		t->lru_next->lru_pprev = t->lru_pprev;
	else
		t->u->memory_tail = t->lru_pprev;
	t->lru_next = NULL;
	t->lru_pprev = NULL;
}

struct transfer *transfer_new(struct uploads *u, const struct upload_id *id, uint64_t tid, uint32_t generation,
	struct transfer *previous)
{
	struct transfer *t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->u = u;
	t->tid = tid;
	t->generation = generation;
	t->epoch = u->store->epoch;
	t->fd = -1;
	staging_init(t);
	t->segs_tail = &t->segs;
	t->opened_at_ms = sys_wall_ms();
	t->clientid_bytes = id->clientid_bytes;
	t->fileid_bytes = id->fileid_bytes;
	t->clientid = copy_id(id->clientid, id->clientid_bytes);
	t->fileid = copy_id(id->fileid, id->fileid_bytes);
	sync_init(t);
	t->ttl.fire = on_ttl;
	if (content_init(t) == 0 && t->clientid && t->fileid)
		t->staging = staging_name(t);
	if (!t->staging) {
		transfer_free(t);
		return NULL;
	}
	if (previous) {
		table_remove(u, previous);
		previous->gone = true; /* out of the table, held by t */
		t->previous = previous;
		timers_disarm(&u->rt->timers, &previous->ttl);
		memory_remove(previous);
	}
	table_insert(u, t);
	return t;
}

void transfer_pin(struct transfer *t)
{
	t->pins++;
}

void transfer_unpin(struct transfer *t)
{
	assert(t->pins > 0);
	if (--t->pins == 0 && t->gone && t->state != TRANSFER_EXPORTED)
		transfer_free(t);
}

/* Frees a transfer that has left the table, now or with its last pin. */
static void transfer_end(struct transfer *t)
{
	t->gone = true;
	t->u->ended_count += !t->ended;
	t->ended = true;
	t->state = TRANSFER_OPEN;
	transfer_pin(t);
	transfer_unpin(t);
}

/* What is to be known of a transfer. The user comes first: however the journal ends, a transfer
 * without one counts for none. */
static void put_open(const struct transfer *t, void (*put)(void *, const struct record *), void *arg)
{
	struct record r = {.type = RECORD_USER, .tid = t->tid};
	if (t->user) {
		r.text = user_name(t->user).s;
		r.text_bytes = user_name(t->user).bytes;
		put(arg, &r);
	}
	r = (struct record){.type = RECORD_OPEN, .tid = t->tid, .generation = t->generation, .epoch = t->epoch,
		.at_ms = t->opened_at_ms, .clientid = t->clientid, .clientid_bytes = t->clientid_bytes,
		.fileid = t->fileid, .fileid_bytes = t->fileid_bytes, .text = t->staging,
		.text_bytes = (uint32_t)strlen(t->staging)};
	put(arg, &r);
}

static void put_journal(void *arg, const struct record *r)
{
	journal_append(arg, r);
}

void transfer_record_open(struct transfer *t)
{
	put_open(t, put_journal, t->u->rt->journal);
}

static uint64_t ttl_ms(const struct transfer *t)
{
	const struct conf *conf = t->u->conf;
	if (t->state == TRANSFER_EXPORTED)
		return (uint64_t)conf->transfer.replay_window_s * 1000;
	uint64_t s = conf->transfer.ttl_max_s;
	if (t->has_meta && t->meta.has_segments_ttl && t->meta.segments_ttl < s)
		s = t->meta.segments_ttl;
	if (s < conf->transfer.ttl_min_s)
		s = conf->transfer.ttl_min_s;
	return s * 1000;
}

void transfer_touch(struct transfer *t)
{
	t->active_ms = ring_now_ms(t->u->rt->ring);
	if (!timer_is_armed(&t->ttl))
		transfer_arm(t);
}

void transfer_arm(struct transfer *t)
{
	timers_arm(&t->u->rt->timers, &t->ttl, t->active_ms + ttl_ms(t));
}

/* The replay window of an exported transfer is over, or another one takes its place. */
static void exported_forget(struct transfer *t)
{
	struct record r = {.type = RECORD_FORGET, .tid = t->tid};
	journal_append(t->u->rt->journal, &r);
	memory_remove(t);
	transfer_uncount_exported(t);
	t->u->exported_count--;
	transfer_end(t);
}

void transfer_forget_restored(struct transfer *t)
{
	transfer_uncount_exported(t);
	t->u->exported_count--;
	transfer_end(t);
}

void transfer_remember(struct transfer *t)
{
	struct uploads *u = t->u;
	uint32_t max = u->conf->transfer.replay_max / u->rt->count;
	memory_push(t);
	while (u->exported_count > max && u->memory && u->memory != t) {
		struct transfer *oldest = u->memory;
		if (oldest->pins || oldest->segs || oldest->fins || oldest->aborts)
			break; /* in use: it goes next time */
		table_remove(u, oldest);
		exported_forget(oldest);
	}
}

static void on_ttl(struct timer *timer)
{
	struct transfer *t = container_of(timer, struct transfer, ttl);
	uint64_t now = ring_now_ms(t->u->rt->ring), due = t->active_ms + ttl_ms(t);
	bool is_busy = t->pins || t->segs || t->fins || t->aborts || t->inits ||
		transfer_is_held_up(t);
	if (now < due || is_busy) {
		timers_arm(&t->u->rt->timers, &t->ttl, is_busy && due <= now ? now + 1000 : due);
		return;
	}
	if (t->state == TRANSFER_EXPORTED) {
		table_remove(t->u, t);
		exported_forget(t);
		return;
	}
	log_info("transfer expired", LS("clientid", t->clientid, t->clientid_bytes),
		LS("fileid", t->fileid, t->fileid_bytes), LU("received", t->cover.bytes), NULL);
	transfer_drop(t, RECORD_EXPIRED);
}

static void event(const struct transfer *t, const char *kind)
{
	struct answer_event e = {.clientid = t->clientid, .clientid_bytes = t->clientid_bytes,
		.fileid = t->fileid, .fileid_bytes = t->fileid_bytes,
		.name = t->has_meta ? t->meta.name : NULL, .has_size = t->has_meta && t->meta.has_size,
		.size = t->meta.size, .user_data = t->has_meta ? t->meta.user_data : NULL,
		.seconds = (double)(sys_wall_ms() - t->opened_at_ms) / 1000};
	events_publish(t->u->rt, kind, &e);
}

void transfer_drop(struct transfer *t, enum record_type type)
{
	struct uploads *u = t->u;
	struct record r = {.type = type, .tid = t->tid};
	assert(!t->segs && !t->fins);
	journal_append(u->rt->journal, &r);
	if (type == RECORD_ABORTED) {
		STAT_ADD(u->rt, aborted, 1);
		event(t, "aborted");
	} else if (type == RECORD_EXPIRED) {
		STAT_ADD(u->rt, expired, 1);
		event(t, "expired");
	}
	transfer_uncount(t);
	staging_delete(t);
	table_remove(u, t);
	if (t->previous) {
		struct transfer *previous = t->previous;
		t->previous = NULL;
		table_insert(u, previous);
		memory_push(previous);
		transfer_arm(previous);
	}
	transfer_wake_gates(t);
	transfer_end(t);
}

void transfer_to_exported(struct transfer *t)
{
	struct uploads *u = t->u;
	transfer_count_exported(t);
	staging_let_go(t);
	cover_fini(&t->cover);
	cover_init(&t->cover, u->conf->transfer.extents_max);
	cover_fini(&t->synced);
	t->state = TRANSFER_EXPORTED;
	content_release(t);
	u->exported_count++;
	if (t->previous) {
		exported_forget(t->previous);
		t->previous = NULL;
	}
	timers_disarm(&u->rt->timers, &t->ttl);
	transfer_touch(t);
	transfer_remember(t);
}

struct transfer *transfer_next_generation(struct transfer *t, struct user *user, uint64_t end, int *ret_err)
{
	struct uploads *u = t->u;
	assert(t->state == TRANSFER_EXPORTED);
	struct upload_id id = {t->clientid, t->clientid_bytes, t->fileid, t->fileid_bytes, user};
	uint64_t bytes = t->cover.bytes ? t->exported.size : 0; /* replays to be seeded */
	if (bytes < end)
		bytes = end;
	struct meta meta = {0};
	int err = t->has_meta ? meta_copy(&meta, &t->meta) : 0;
	if (!err)
		err = transfer_admit(u, &id, bytes);
	if (err) {
		meta_fini(&meta);
		*ret_err = err;
		return NULL;
	}
	struct transfer *next = transfer_new(u, &id, atomic_fetch_add(&u->store->next_tid, 1),
		t->generation + 1, t);
	if (!next) {
		meta_fini(&meta);
		transfer_admit_undo(u, user, bytes);
		*ret_err = -ENOMEM;
		return NULL;
	}
	transfer_count(next, user, bytes);
	transfer_record_open(next);
	next->meta = meta;
	next->has_meta = t->has_meta;
	if (next->has_meta) /* without a record of it, recovery takes it from t as well */
		(void)transfer_record_meta(next, &meta);
	transfer_touch(next);
	next->fins = t->fins; /* they came before the change: the new content decides */
	t->fins = NULL;
	next->aborts = t->aborts; /* likewise: what the change has begun, they end */
	t->aborts = NULL;
	next->late = t->late;
	t->late = NULL;
	transfer_wake_gates(t);
	if (t->cover.bytes)
		staging_seed(next);
	return next;
}

int transfer_record_meta(struct transfer *t, const struct meta *m)
{
	size_t bytes;
	char *json = meta_to_json(m, &bytes);
	if (!json)
		return -ENOMEM;
	struct record r = {.type = RECORD_META, .tid = t->tid, .text = json, .text_bytes = (uint32_t)bytes};
	journal_append(t->u->rt->journal, &r);
	free(json);
	return 0;
}

/* --- checkpoint ------------------------------------------------------------------------------- */

static void checkpoint_extents(const struct transfer *t, void (*put)(void *, const struct record *), void *arg)
{
	struct extent e;
	for (uint64_t at = 0; cover_next(&t->cover, at, &e); at = e.to) {
		struct record r = {.type = RECORD_EXTENT, .tid = t->tid, .from = e.from, .to = e.to};
		if (!cover_has(&t->synced, e.from, e.to))
			put(arg, &r);
	}
	for (uint64_t at = 0; cover_next(&t->synced, at, &e); at = e.to) {
		struct record r = {.type = RECORD_SYNCED, .tid = t->tid, .from = e.from, .to = e.to};
		put(arg, &r);
	}
}

static void checkpoint_one(const struct transfer *t, void (*put)(void *, const struct record *), void *arg)
{
	struct record r;
	size_t bytes;
	put_open(t, put, arg);
	char *json = t->has_meta ? meta_to_json(&t->meta, &bytes) : NULL;
	if (json) {
		r = (struct record){.type = RECORD_META, .tid = t->tid, .text = json, .text_bytes = (uint32_t)bytes};
		put(arg, &r);
		free(json);
	} else if (t->has_meta) {
		put(arg, NULL);
	}
	if (t->reserved) {
		r = (struct record){.type = RECORD_RESERVE, .tid = t->tid, .size = t->reserved};
		put(arg, &r);
	}
	if (t->state != TRANSFER_EXPORTED)
		checkpoint_extents(t, put, arg);
	for (uint32_t i = 0; i < t->mids_count; i++) {
		r = (struct record){.type = RECORD_MIDSTATE, .tid = t->tid,
			.frontier = (uint64_t)(i + 1) * MIDSTATE_BYTES};
		memcpy(r.h, t->mids[i], sizeof(r.h));
		put(arg, &r);
	}
	if (t->broken) {
		r = (struct record){.type = RECORD_LOST, .tid = t->tid};
		put(arg, &r);
	}
	if (t->fin_recorded && t->fins) {
		r = (struct record){.type = RECORD_FIN, .tid = t->tid, .size = t->fins->size,
			.has_digest = t->fins->has_checksum};
		memcpy(r.digest, t->fins->checksum, sizeof(r.digest));
		put(arg, &r);
	}
	if (t->exported.path) {
		r = (struct record){.type = RECORD_PUBLISHING, .tid = t->tid, .size = t->exported.size,
			.text = t->exported.path, .text_bytes = (uint32_t)strlen(t->exported.path)};
		memcpy(r.digest, t->exported.digest, sizeof(r.digest));
		put(arg, &r);
	}
	if (t->state == TRANSFER_EXPORTED || t->is_published) {
		r = (struct record){.type = RECORD_PUBLISHED, .tid = t->tid, .at_ms = t->exported.at_ms};
		put(arg, &r);
	}
	if (t->state == TRANSFER_EXPORTED) /* behind PUBLISHED they are acknowledged replays */
		checkpoint_extents(t, put, arg);
}

void uploads_checkpoint(void *arg, void (*put)(void *put_arg, const struct record *r), void *put_arg)
{
	const struct uploads *u = arg;
	for (uint32_t i = 0; i < u->table_size; i++) {
		for (const struct transfer *t = u->table[i]; t; t = t->hash_next) {
			if (t->previous)
				checkpoint_one(t->previous, put, put_arg);
			checkpoint_one(t, put, put_arg);
		}
	}
}

void uploads_free(struct uploads *u)
{
	if (!u)
		return;
	if (!uploads_is_idle(u))
		return; /* ended in the middle of things: the kernel or a thread may still hold on to them */
	for (uint32_t i = 0; i < u->table_size; i++) {
		while (u->table[i]) {
			struct transfer *t = u->table[i];
			u->table[i] = t->hash_next;
			staging_close(t);
			if (t->previous) {
				t->previous->pins = 0;
				transfer_free(t->previous);
			}
			t->pins = 0;
			t->state = TRANSFER_OPEN;
			uploads_discard_waiting(t);
			transfer_free(t);
		}
	}
	staging_fini_all(u);
	free(u->table);
	accounts_free(&u->accounts);
	export_free(u->exporter);
	free(u);
}
