/*
 * Admission: what is open, staged and exported, per client id, and room for more of it.
 *
 *     transfer_admit ──► transfer_new ──► transfer_count … transfer_reserve_to … ─┬─► transfer_uncount
 *           └─► transfer_admit_undo                                                └─► transfer_count_exported
 *                                                      transfer_count_restored ────────► transfer_uncount_exported
 *
 * The daemon's totals and the disk are store.c's, the users' accounts user.c's. A client id belongs
 * to one reactor, so its own account is kept here without locks; it exists while the client has an
 * open transfer, or an export that counts. One that memory fails for is not kept: its transfers are
 * then held to the daemon's and the user's limits alone.
 *
 * An export counts as a file while it is remembered and lies in the export directory. Nobody says
 * when its consumer takes it away, so the exports of who has reached the limit are looked for until
 * there is room, some at a time (store.h); what is not there counts no more. A consumer mostly takes
 * the oldest first, and then each look finds one that is gone. After a restart those alone count that
 * are there: else whoever's consumer keeps up would be refused until all that was ever taken were found
 * to be gone. Where the limit is not set exports do not count, and nothing of this is kept.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "log.h"
#include "transfer.h"

enum { ACCOUNTS_SIZE_MIN = 64 };

/* Of one client id. */
struct account {
	struct account *next;   /* of the same slot */
	uint64_t hash;
	uint64_t staged_bytes;  /* reserved by its open transfers */
	uint32_t open_count;
	uint32_t files_count;   /* of open_count, and the exports that count: never 0 */
	struct transfer *files, **files_tail; /* those exports, the oldest first */
	struct transfer *files_at; /* the next to look for, if the oldest is there; NULL: the second */
	struct pace looks;
	uint32_t clientid_bytes;
	char clientid[];
};

/* --- the table -------------------------------------------------------------------------------- */

static struct account **slot_of(const struct accounts *as, uint64_t hash)
{
	return &as->table[hash & (as->size - 1)];
}

static struct account *account_find(const struct uploads *u, const char *clientid, uint32_t clientid_bytes)
{
	uint64_t hash = XXH3_64bits_withSeed(clientid, clientid_bytes, u->hash_seed);
	if (u->accounts.size == 0)
		return NULL;
	for (struct account *a = *slot_of(&u->accounts, hash); a; a = a->next) {
		if (a->hash == hash && a->clientid_bytes == clientid_bytes &&
			memcmp(a->clientid, clientid, clientid_bytes) == 0)
			return a;
	}
	return NULL;
}

/* Without memory the chains get longer. */
static void table_grow(struct accounts *as)
{
	uint32_t size = as->size ? as->size * 2 : ACCOUNTS_SIZE_MIN;
	struct accounts old = *as;
	struct account **table = calloc(size, sizeof(struct account *));
	if (!table)
		return;
	as->table = table;
	as->size = size;
	for (uint32_t i = 0; i < old.size; i++) {
		while (old.table[i]) {
			struct account *a = old.table[i], **slot = slot_of(as, a->hash);
			old.table[i] = a->next;
			a->next = *slot;
			*slot = a;
		}
	}
	free(old.table);
}

/* NULL: out of memory. */
static struct account *account_open(struct uploads *u, const char *clientid, uint32_t clientid_bytes)
{
	struct accounts *as = &u->accounts;
	struct account *a = account_find(u, clientid, clientid_bytes);
	if (a)
		return a;
	if (as->count >= as->size)
		table_grow(as);
	if (as->size)
		a = malloc(sizeof(*a) + clientid_bytes);
	if (!a)
		return NULL;
	*a = (struct account){.hash = XXH3_64bits_withSeed(clientid, clientid_bytes, u->hash_seed),
		.clientid_bytes = clientid_bytes};
	a->files_tail = &a->files;
	memcpy(a->clientid, clientid, clientid_bytes);
	struct account **slot = slot_of(as, a->hash);
	a->next = *slot;
	*slot = a;
	as->count++;
	return a;
}

static void account_close(struct uploads *u, struct account *a)
{
	struct account **at = slot_of(&u->accounts, a->hash);
	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
	u->accounts.count--;
	free(a);
}

void accounts_free(struct accounts *as)
{
	for (uint32_t i = 0; i < as->size; i++) {
		while (as->table[i]) {
			struct account *a = as->table[i];
			as->table[i] = a->next;
			free(a);
		}
	}
	free(as->table);
	*as = (struct accounts){0};
}

uint64_t accounts_files_count(const struct accounts *as)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < as->size; i++) {
		for (const struct account *a = as->table[i]; a; a = a->next)
			n += a->files_count;
	}
	return n;
}

/* --- exports ---------------------------------------------------------------------------------- */

static void files_push(struct account *a, struct transfer *t)
{
	t->file_next = NULL;
	t->file_pprev = a->files_tail;
	*a->files_tail = t;
	a->files_tail = &t->file_next;
}

static void files_remove(struct account *a, struct transfer *t)
{
	if (a->files_at == t)
		a->files_at = t->file_next;
	*t->file_pprev = t->file_next;
	if (t->file_next)
		t->file_next->file_pprev = t->file_pprev;
	else
		a->files_tail = t->file_pprev;
	t->file_next = NULL;
	t->file_pprev = NULL;
}

/* Neither open nor an export: it counts no more. */
static void account_leave(struct transfer *t)
{
	struct account *a = t->account;
	t->account = NULL;
	if (!a)
		return;
	assert(a->files_count > a->open_count);
	if (--a->files_count == 0)
		account_close(t->u, a);
}

/* There is one. */
static struct transfer *look_next(struct account *a, const struct looks *l)
{
	struct transfer *t = a->files;
	if (l->is_oldest_there && a->files_at)
		t = a->files_at;
	else if (l->is_oldest_there && t->file_next)
		t = t->file_next;
	if (l->is_oldest_there)
		a->files_at = t->file_next;
	return t;
}

/* With transfer.files_client_max reached: looks for the client's exports until there is room. Its
 * account may be gone afterwards. */
static void look_for_files(struct uploads *u, const struct upload_id *id, struct looks *l)
{
	uint32_t max = u->conf->transfer.files_client_max;
	struct account *a = max ? account_find(u, id->clientid, id->clientid_bytes) : NULL;
	if (!a || a->files_count < max)
		return;
	looks_begin(l, a->files_count - a->open_count);
	for (bool is_full = true; is_full && a->files && looks_may_go_on(l, &a->looks); ) {
		struct transfer *t = look_next(a, l);
		if (store_export_is_gone(u->store, t->exported.path)) {
			is_full = a->files_count > max;
			transfer_uncount_exported(t);
		} else {
			looks_charge(l, &a->looks);
		}
	}
}

/* --- admission -------------------------------------------------------------------------------- */

/* Says why, at most once a second: a client may ask without end. user: the limit is its, or NULL. */
static int refuse(struct uploads *u, const char *clientid, uint32_t clientid_bytes, const struct user *user,
	const char *key)
{
	if (!log_is_due(&u->accounts.logged_ms, ring_now_ms(u->rt->ring)))
		return -EDQUOT;
	if (user)
		log_info("transfer refused: the user's limit is reached", LZ("limit", key),
			LS("user", user_name(user).s, user_name(user).bytes),
			LS("clientid", clientid, clientid_bytes), NULL);
	else
		log_info("transfer refused: the client's limit is reached", LZ("limit", key),
			LS("clientid", clientid, clientid_bytes), NULL);
	return -EDQUOT;
}

static bool may_stage(const struct conf *conf, const struct account *a, uint64_t more)
{
	uint64_t max = conf->transfer.staged_client_max, staged = a ? a->staged_bytes : 0;
	/* After a restart with a lower limit there may be more than it already. */
	return max == 0 || more == 0 || (staged <= max && more <= max - staged);
}

int transfer_admit(struct uploads *u, const struct upload_id *id, uint64_t bytes)
{
	const struct conf *conf = u->conf;
	if (bytes > conf->transfer.file_bytes_max)
		return -EFBIG;
	struct looks l = {.store = u->store, .now_ms = ring_now_ms(u->rt->ring)};
	look_for_files(u, id, &l);
	const struct account *a = account_find(u, id->clientid, id->clientid_bytes);
	if (a && a->open_count >= conf->transfer.open_client_max)
		return refuse(u, id->clientid, id->clientid_bytes, NULL, "transfer.open_client_max");
	if (!may_stage(conf, a, bytes))
		return refuse(u, id->clientid, id->clientid_bytes, NULL, "transfer.staged_client_max");
	if (a && conf->transfer.files_client_max && a->files_count >= conf->transfer.files_client_max)
		return refuse(u, id->clientid, id->clientid_bytes, NULL, "transfer.files_client_max");
	const char *limit = user_reserve(id->user, bytes, &l);
	if (limit)
		return refuse(u, id->clientid, id->clientid_bytes, id->user, limit);
	int err = store_reserve(u->store, bytes, ring_now_ms(u->rt->ring));
	if (err)
		user_release(id->user, bytes);
	return err;
}

void transfer_admit_undo(struct uploads *u, struct user *user, uint64_t bytes)
{
	user_release(user, bytes);
	store_allocated(u->store, bytes);
	store_release(u->store, bytes);
}

int transfer_reserve_to(struct transfer *t, uint64_t end)
{
	const struct conf *conf = t->u->conf;
	if (end > conf->transfer.file_bytes_max)
		return -EFBIG;
	if (end <= t->reserved)
		return 0;
	uint64_t more = end - t->reserved;
	if (t->account && !may_stage(conf, t->account, more))
		return refuse(t->u, t->clientid, t->clientid_bytes, NULL, "transfer.staged_client_max");
	const char *limit = user_reserve_more(t->user, more);
	if (limit)
		return refuse(t->u, t->clientid, t->clientid_bytes, t->user, limit);
	int err = store_reserve_more(t->u->store, more, ring_now_ms(t->u->rt->ring));
	if (err) {
		user_release_more(t->user, more);
		return err;
	}
	if (t->account)
		t->account->staged_bytes += more;
	t->reserved = end;
	return 0;
}

void transfer_count(struct transfer *t, struct user *user, uint64_t reserved)
{
	t->user = user_ref(user);
	t->is_counted = true;
	t->reserved = reserved;
	t->account = account_open(t->u, t->clientid, t->clientid_bytes);
	if (t->account) {
		t->account->open_count++;
		t->account->files_count++;
		t->account->staged_bytes += reserved;
	}
	STAT_ADD(t->u->rt, transfers_open, 1);
}

/* Releases what it has as an open one; whether it is a file is not looked at. */
static void uncount_open(struct transfer *t)
{
	struct uploads *u = t->u;
	struct account *a = t->account;
	t->is_counted = false;
	if (a) {
		assert(a->open_count > 0 && a->staged_bytes >= t->reserved);
		a->staged_bytes -= t->reserved;
		a->open_count--;
	}
	if (t->reserved > t->allocated)
		store_allocated(u->store, t->reserved - t->allocated);
	store_release(u->store, t->reserved);
	t->reserved = t->allocated = 0;
	STAT_SUB(u->rt, transfers_open, 1);
	atomic_fetch_sub(&u->store->backlog_bytes, t->backlog);
	t->backlog = 0;
}

static void user_end(struct transfer *t)
{
	user_leave(t->user);
	t->user = NULL;
}

void transfer_uncount(struct transfer *t)
{
	if (!t->is_counted)
		return;
	user_release(t->user, t->reserved);
	user_end(t);
	uncount_open(t);
	account_leave(t);
}

void transfer_count_exported(struct transfer *t)
{
	const struct conf *conf = t->u->conf;
	assert(t->is_counted);
	if (t->user && conf->transfer.files_user_max) {
		user_export(t->user, t->reserved, &t->user_file, t->exported.path);
	} else {
		user_release(t->user, t->reserved);
		user_end(t);
	}
	uncount_open(t);
	if (t->account && conf->transfer.files_client_max)
		files_push(t->account, t);
	else
		account_leave(t);
}

void transfer_count_restored(struct transfer *t, struct user *user)
{
	const struct conf *conf = t->u->conf;
	bool of_client = conf->transfer.files_client_max, of_user = user && conf->transfer.files_user_max;
	if ((!of_client && !of_user) || store_export_is_gone(t->u->store, t->exported.path))
		return;
	if (of_client)
		t->account = account_open(t->u, t->clientid, t->clientid_bytes);
	if (t->account) {
		t->account->files_count++;
		files_push(t->account, t);
	}
	if (of_user) {
		t->user = user_ref(user);
		user_keep(user, &t->user_file, t->exported.path);
	}
}

void transfer_uncount_exported(struct transfer *t)
{
	if (t->account)
		files_remove(t->account, t);
	account_leave(t);
	user_forget(t->user, &t->user_file);
	user_end(t);
}
