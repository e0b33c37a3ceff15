/*
 * user.h: one table with chains, by a hash that nobody outside can choose.
 */
#include "user.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "ring.h"
#include "store.h"

enum { SLOTS = 16384, GO_BYTES_MIN = 4096 };

struct user {
	struct users *all;
	struct user *next;    /* of the same slot */
	uint64_t hash;
	uint32_t refs;        /* under the lock; never 0 in the table */
	uint32_t name_bytes;
	_Atomic uint32_t connections;
	_Atomic uint64_t open_count, staged_bytes;
	_Atomic uint64_t files_count; /* of open_count, and the exports that count */
	_Atomic uint64_t bytes_until_ns, messages_until_ns; /* as of struct pace */
	/* Under the lock. */
	struct user_file *exports, **exports_tail; /* the oldest first */
	struct user_file *exports_at; /* the next to look for, if the oldest is there; NULL: the second */
	uint32_t exports_count;       /* in the list */
	struct pace looks;
	char name[];
};

struct users {
	const struct conf *conf;
	pthread_mutex_t lock;
	/* Under the lock. */
	struct rates *rates;  /* what those owe that are not there; NULL: no rate is limited */
	uint64_t seed;        /* 0: not yet chosen */
	uint32_t count;
	struct user *slots[SLOTS];
};

/* --- the table -------------------------------------------------------------------------------- */

int users_new(const struct conf *conf, struct users **ret)
{
	struct users *us = calloc(1, sizeof(*us));
	if (!us)
		return -ENOMEM;
	us->conf = conf;
	bool is_limited = conf->limits.user_bytes_rate || conf->limits.user_messages_rate;
	if (is_limited && rates_new(true, &us->rates) < 0) {
		free(us);
		return -ENOMEM;
	}
	pthread_mutex_init(&us->lock, NULL);
	*ret = us;
	return 0;
}

void users_free(struct users *us)
{
	if (!us)
		return;
	/* Those are left that transfers refer to which an end in the middle of things has left. */
	for (uint32_t i = 0; i < SLOTS; i++) {
		while (us->slots[i]) {
			struct user *x = us->slots[i];
			us->slots[i] = x->next;
			free(x);
		}
	}
	rates_free(us->rates);
	pthread_mutex_destroy(&us->lock);
	free(us);
}

uint32_t users_count(struct users *us)
{
	pthread_mutex_lock(&us->lock);
	uint32_t n = us->count;
	pthread_mutex_unlock(&us->lock);
	return n;
}

static struct user *find(const struct users *us, struct mqtt_str name, uint64_t hash)
{
	struct user *x = us->slots[hash % SLOTS];
	while (x && (x->hash != hash || x->name_bytes != name.bytes ||
		memcmp(x->name, name.s, name.bytes) != 0))
		x = x->next;
	return x;
}

static struct user *add(struct users *us, struct mqtt_str name, uint64_t hash)
{
	struct user *x = malloc(sizeof(*x) + name.bytes), **slot = &us->slots[hash % SLOTS];
	struct rate owed = {0};
	if (!x)
		return NULL;
	if (us->rates)
		(void)rates_recall(us->rates, name, &owed);
	*x = (struct user){.all = us, .next = *slot, .hash = hash, .name_bytes = name.bytes,
		.bytes_until_ns = owed.bytes.until_ns, .messages_until_ns = owed.messages.until_ns};
	x->exports_tail = &x->exports;
	memcpy(x->name, name.s, name.bytes);
	*slot = x;
	us->count++;
	return x;
}

struct user *user_enter(struct users *us, struct mqtt_str name)
{
	pthread_mutex_lock(&us->lock);
	if (us->seed == 0)
		(void)sys_random(&us->seed, sizeof(us->seed));
	uint64_t hash = XXH3_64bits_withSeed(name.s, name.bytes, us->seed);
	struct user *x = find(us, name, hash);
	if (!x)
		x = add(us, name, hash);
	if (x)
		x->refs++;
	pthread_mutex_unlock(&us->lock);
	return x;
}

struct user *user_ref(struct user *x)
{
	if (!x)
		return NULL;
	pthread_mutex_lock(&x->all->lock);
	x->refs++;
	pthread_mutex_unlock(&x->all->lock);
	return x;
}

void user_leave(struct user *x)
{
	if (!x)
		return;
	struct users *us = x->all;
	pthread_mutex_lock(&us->lock);
	assert(x->refs > 0);
	if (--x->refs == 0) {
		struct user **at = &us->slots[x->hash % SLOTS];
		struct rate owed = {{x->bytes_until_ns}, {x->messages_until_ns}};
		while (*at != x)
			at = &(*at)->next;
		*at = x->next;
		us->count--;
		if (us->rates)
			rates_keep(us->rates, user_name(x), &owed);
		assert(x->open_count == 0 && x->staged_bytes == 0 && x->connections == 0 &&
			x->files_count == 0);
		free(x);
	}
	pthread_mutex_unlock(&us->lock);
}

struct mqtt_str user_name(const struct user *x)
{
	return (struct mqtt_str){x->name, x->name_bytes};
}

/* --- open transfers --------------------------------------------------------------------------- */

const char *user_reserve_more(struct user *x, uint64_t bytes)
{
	if (!x || bytes == 0)
		return NULL;
	uint64_t max = x->all->conf->transfer.staged_user_max;
	/* After a restart with a lower limit there may be more than it already. */
	return store_add_within(&x->staged_bytes, bytes, max ? max : UINT64_MAX) ? NULL :
		"transfer.staged_user_max";
}

void user_release_more(struct user *x, uint64_t bytes)
{
	if (!x)
		return;
	uint64_t was = atomic_fetch_sub(&x->staged_bytes, bytes);
	assert(was >= bytes);
}

void user_count(struct user *x, uint64_t bytes)
{
	if (!x)
		return;
	atomic_fetch_add(&x->open_count, 1);
	atomic_fetch_add(&x->files_count, 1);
	atomic_fetch_add(&x->staged_bytes, bytes);
}

static void release_file(struct user *x)
{
	uint64_t was = atomic_fetch_sub(&x->files_count, 1);
	assert(was > 0);
}

static void release_open(struct user *x, uint64_t bytes)
{
	user_release_more(x, bytes);
	uint64_t was = atomic_fetch_sub(&x->open_count, 1);
	assert(was > 0);
}

void user_release(struct user *x, uint64_t bytes)
{
	if (!x)
		return;
	release_open(x, bytes);
	release_file(x);
}

/* --- exports ---------------------------------------------------------------------------------- */

static void list_push(struct user *x, struct user_file *f)
{
	f->next = NULL;
	f->pprev = x->exports_tail;
	*x->exports_tail = f;
	x->exports_tail = &f->next;
	x->exports_count++;
}

static void list_remove(struct user *x, struct user_file *f)
{
	if (x->exports_at == f)
		x->exports_at = f->next;
	*f->pprev = f->next;
	if (f->next)
		f->next->pprev = f->pprev;
	else
		x->exports_tail = f->pprev;
	f->next = NULL;
	f->pprev = NULL;
	x->exports_count--;
}

static void list_add(struct user *x, struct user_file *f, const char *path)
{
	f->path = path;
	pthread_mutex_lock(&x->all->lock);
	list_push(x, f);
	pthread_mutex_unlock(&x->all->lock);
}

void user_export(struct user *x, uint64_t bytes, struct user_file *f, const char *path)
{
	list_add(x, f, path);
	release_open(x, bytes);
}

void user_keep(struct user *x, struct user_file *f, const char *path)
{
	atomic_fetch_add(&x->files_count, 1);
	list_add(x, f, path);
}

void user_forget(struct user *x, struct user_file *f)
{
	if (!x)
		return;
	pthread_mutex_lock(&x->all->lock);
	bool counts = f->pprev;
	if (counts)
		list_remove(x, f);
	if (f->looker)
		*f->looker = NULL;
	f->looker = NULL;
	pthread_mutex_unlock(&x->all->lock);
	if (counts)
		release_file(x);
}

uint64_t user_files_count(const struct user *x)
{
	return atomic_load(&x->files_count);
}

/* --- admission -------------------------------------------------------------------------------- */

static const char files_user_max[] = "transfer.files_user_max";

/* Somebody else may look for the one whose turn it is: then it is the next one's. NULL: there is none. */
static struct user_file *look_next(struct user *x, const struct looks *l)
{
	struct user_file *f = x->exports;
	if (l->is_oldest_there && x->exports_at)
		f = x->exports_at;
	else if (l->is_oldest_there && f && f->next)
		f = f->next;
	while (f && f->looker)
		f = f->next;
	if (l->is_oldest_there)
		x->exports_at = f ? f->next : NULL;
	return f;
}

/* Its path is copied: its reactor may forget the export meanwhile, which clears *ret. False: none may be
 * looked for. */
static bool look_take(struct user *x, const struct looks *l, struct user_file **ret, char ret_path[PATH_MAX])
{
	pthread_mutex_lock(&x->all->lock);
	struct user_file *f = looks_may_go_on(l, &x->looks) ? look_next(x, l) : NULL;
	if (f) {
		f->looker = ret;
		*ret = f;
		snprintf(ret_path, PATH_MAX, "%s", f->path);
	}
	pthread_mutex_unlock(&x->all->lock);
	return f;
}

static void look_give(struct user *x, struct looks *l, struct user_file **f, bool is_gone)
{
	pthread_mutex_lock(&x->all->lock);
	bool counts = *f;
	if (counts)
		(*f)->looker = NULL;
	if (counts && is_gone)
		list_remove(x, *f);
	if (!is_gone)
		looks_charge(l, &x->looks);
	pthread_mutex_unlock(&x->all->lock);
	if (counts && is_gone)
		release_file(x);
}

/* Until there is room for one more file, whoever has made it. False: there is none. */
static bool look(struct user *x, struct looks *l)
{
	char path[PATH_MAX];
	struct user_file *f;
	uint32_t max = x->all->conf->transfer.files_user_max;
	while (atomic_load(&x->files_count) >= max) {
		if (!look_take(x, l, &f, path))
			return atomic_load(&x->files_count) < max;
		look_give(x, l, &f, store_export_is_gone(l->store, path));
	}
	return true;
}

static void look_begin(const struct user *x, struct looks *l)
{
	pthread_mutex_lock(&x->all->lock);
	looks_begin(l, x->exports_count);
	pthread_mutex_unlock(&x->all->lock);
}

static const char *reserve(struct user *x, uint64_t bytes)
{
	const struct conf *conf = x->all->conf;
	uint64_t open_max = conf->transfer.open_user_max, files_max = conf->transfer.files_user_max;
	if (!store_add_within(&x->open_count, 1, open_max ? open_max : UINT64_MAX))
		return "transfer.open_user_max";
	const char *limit = files_user_max;
	if (store_add_within(&x->files_count, 1, files_max ? files_max : UINT64_MAX)) {
		limit = user_reserve_more(x, bytes);
		if (limit)
			atomic_fetch_sub(&x->files_count, 1);
	}
	if (limit)
		atomic_fetch_sub(&x->open_count, 1);
	return limit;
}

const char *user_reserve(struct user *x, uint64_t bytes, struct looks *looks)
{
	if (!x)
		return NULL;
	const char *limit = reserve(x, bytes);
	if (limit != files_user_max || !looks)
		return limit;
	look_begin(x, looks);
	/* Another reactor may take the room that was found here. */
	while (limit == files_user_max && look(x, looks))
		limit = reserve(x, bytes);
	return limit;
}

/* --- connections ------------------------------------------------------------------------------ */

void user_connect(struct user *x, struct rate *ret)
{
	if (!x)
		return;
	atomic_fetch_add(&x->connections, 1);
	*ret = (struct rate){{atomic_load(&x->bytes_until_ns)}, {atomic_load(&x->messages_until_ns)}};
}

void user_disconnect(struct user *x)
{
	if (!x)
		return;
	uint32_t was = atomic_fetch_sub(&x->connections, 1);
	assert(was > 0);
}

/* pace_take where others take at the same time. */
static void take(_Atomic uint64_t *until_ns, struct pace *own, uint64_t per_s, uint32_t n, uint64_t now_ms)
{
	uint64_t was = atomic_load(until_ns);
	do {
		own->until_ns = was;
		pace_take(own, per_s, n, now_ms * 1000000);
	} while (!atomic_compare_exchange_weak(until_ns, &was, own->until_ns));
}

void user_take_bytes(struct user *x, struct rate *own, uint32_t bytes, uint64_t now_ms)
{
	uint64_t per_s = x ? x->all->conf->limits.user_bytes_rate : 0;
	if (per_s && bytes)
		take(&x->bytes_until_ns, &own->bytes, per_s, bytes, now_ms);
}

void user_take_packet(struct user *x, struct rate *own, uint8_t type, uint64_t now_ms)
{
	uint64_t per_s = x ? x->all->conf->limits.user_messages_rate : 0;
	if (per_s && rate_counts_packet(type))
		take(&x->messages_until_ns, &own->messages, per_s, 1, now_ms);
}

uint32_t user_bytes_max(const struct user *x, uint32_t bytes)
{
	uint64_t per_s = x ? x->all->conf->limits.user_bytes_rate : 0;
	if (per_s == 0)
		return bytes;
	uint64_t share = per_s / atomic_load(&x->connections);
	if (share < GO_BYTES_MIN)
		share = GO_BYTES_MIN;
	return share < bytes ? (uint32_t)share : bytes;
}
