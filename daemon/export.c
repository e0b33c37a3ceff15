/*
 * Publishing: a verified staging file appears in the export directory, whole, once, under a name
 * nobody had, and durable before anyone is told.
 *
 *     QUEUED ─► (UNCOVERED ─► TRUNCATE, if bytes lie beyond the size, and once the journal has let go of them)
 *       ─► SYNC       the staging file is durable, and its entry in staging/
 *       ─► RECORD     what was synced, and the path, are journaled and synced
 *       ─► MAKE       the directory (exclusive: a taken one moves to the next suffix, back to RECORD) and
 *                     the manifest are there, and durable with each directory above
 *       ─► SHOW       renamed (never replaces), and the new directory is durable
 *       ─► PUBLISHED  journaled and synced ─► done
 *
 * SYNC, MAKE and SHOW are stages in a round (export_round.c): all publishes that wait while one
 * round is under way are in the next, whatever their stage, and become durable together. So are the
 * records between: the journal gathers what a round has brought forth. A large file, and one of
 * before a restart, is synced alone first (SYNC_FILE, by sync.c), as it may take long; so are the
 * few files of a reactor that has little to do.
 *
 * Every generation has a directory of its own, {clientid}/{fileid}[~n]/, so no export can meet
 * another one's name. The path is journaled, and that synced, before anything of it exists, so a
 * restart finds what was begun:
 *
 *     staging file there, final name not   → what had been made is taken away, then as at first
 *     staging file and final name there    → the name is somebody else's: the next suffix
 *     final name there, staging file not   → the rename happened: sync, record
 *     neither                              → renamed and already taken away by the consumer: record
 *
 * A failure before the rename removes what was made. A failed sync after it takes the rename back:
 * nobody was told, and the client's next fin tries again. When the PUBLISHED record may or may not
 * be durable, the file stays: after a restart both readings of the journal find it there.
 *
 * A failed fsync of the staging file is final for that file, since the next one was seen to succeed
 * over lost writes: what was not synced before is received again, into another file (sync.c).
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha.h>
#include "export_impl.h"
#include "log.h"

enum { RETRY_MS = 1000 };
enum {
	SUFFIX_MAX = 1000000, SUFFIX_DIGITS_MAX = 7,
	TOGETHER_BYTES_MAX = 1 << 20, /* a file up to this size is synced in a round */
};

static void step(struct publish *p);
static void round_next(struct exporter *x);

/* --- the path --------------------------------------------------------------------------------- */

/* Erlang's external term format of a binary: tag, length, bytes. */
static void hash_term(wc_Sha *sha, const char *s, uint32_t bytes)
{
	const uint8_t head[5] = {109, (uint8_t)(bytes >> 24), (uint8_t)(bytes >> 16), (uint8_t)(bytes >> 8),
		(uint8_t)bytes};
	wc_ShaUpdate(sha, head, sizeof(head));
	wc_ShaUpdate(sha, (const uint8_t *)s, bytes);
}

/* EMQX's buckets: SHA-1 of term_to_binary({ClientId, FileId}), in upper-case hex, as 2/2/36 digits.
 * Like the escaping (names.h), checked against EMQX's emqx_ft_storage_exporter_fs.erl
 * (mk_result_reldir, mk_transfer_hash) and emqx_ft_fs_util.erl (escape_filename) of 5.x. Each pair of
 * ids has a bucket of its own, so the suffix of a generation can't make it another id's. */
static void emqx_buckets(const struct transfer *t, char ret[48])
{
	static const uint8_t pair[3] = {131, 104, 2}; /* version of the format, tuple, its arity */
	wc_Sha sha;
	uint8_t d[WC_SHA_DIGEST_SIZE];
	char hex[2 * WC_SHA_DIGEST_SIZE + 1];
	wc_InitSha(&sha);
	wc_ShaUpdate(&sha, pair, sizeof(pair));
	hash_term(&sha, t->clientid, t->clientid_bytes);
	hash_term(&sha, t->fileid, t->fileid_bytes);
	wc_ShaFinal(&sha, d);
	for (unsigned i = 0; i < sizeof(d); i++)
		snprintf(hex + 2 * i, 3, "%02X", d[i]);
	snprintf(ret, 48, "%.2s/%.2s/%s/", hex, hex + 2, hex + 4);
}

static void find_ends(struct publish *p)
{
	p->dirs_count = 0;
	for (uint32_t i = 0; p->dir[i] && p->dirs_count < EXPORT_DIRS_MAX - 1; i++) {
		if (p->dir[i] == '/')
			p->ends[p->dirs_count++] = i;
	}
	p->ends[p->dirs_count++] = (uint32_t)strlen(p->dir);
}

/* Fills dir, ends and name from the ids, the suffix and the layout. */
static void make_path(struct publish *p)
{
	struct transfer *t = p->t;
	char client[NAMES_ID_MAX + 1], file[NAMES_ID_MAX + 1], buckets[48] = "", suffix[16] = "";
	if (t->u->conf->export.layout == CONF_LAYOUT_EMQX) {
		emqx_buckets(t, buckets);
		names_escape_id_emqx(t->clientid, t->clientid_bytes, client);
		names_escape_id_emqx(t->fileid, t->fileid_bytes, file);
		names_escape_file_emqx(t->meta.name, strlen(t->meta.name), p->name);
	} else {
		names_escape_id(t->clientid, t->clientid_bytes, client);
		names_escape_id(t->fileid, t->fileid_bytes, file);
	}
	/* In EMQX's layout a name may begin with a dot, but not be the manifest's. */
	if (!buckets[0] || strcmp(p->name, EXPORT_MANIFEST) == 0)
		names_escape_file(t->meta.name, strlen(t->meta.name), p->name);
	if (p->suffix > 1)
		snprintf(suffix, sizeof(suffix), "~%u", p->suffix);
	snprintf(p->dir, sizeof(p->dir), "%s%s/%s%s", buckets, client, file, suffix);
	find_ends(p);
}

/* The n of a last component "…~n"; 1: none. An id that was cut off ends in "~" and more digits than
 * a number has. */
static uint32_t suffix_of(const char *dir)
{
	const char *mark = strrchr(dir, '~');
	size_t digits = mark ? strspn(mark + 1, "0123456789") : 0;
	if (digits == 0 || digits > SUFFIX_DIGITS_MAX || mark[1 + digits])
		return 1;
	return (uint32_t)strtoul(mark + 1, NULL, 10);
}

/* The same from the path that the journal has, whatever the layout is now. */
static void adopt_path(struct publish *p)
{
	const char *path = p->t->exported.path, *slash = strrchr(path, '/');
	size_t dir_bytes = slash ? (size_t)(slash - path) : 0;
	if (dir_bytes == 0 || dir_bytes >= sizeof(p->dir)) {
		make_path(p);
		return;
	}
	memcpy(p->dir, path, dir_bytes);
	p->dir[dir_bytes] = 0;
	snprintf(p->name, sizeof(p->name), "%s", slash + 1);
	p->suffix = suffix_of(p->dir);
	find_ends(p);
}

static int set_exported_path(struct publish *p)
{
	char *path = NULL;
	if (asprintf(&path, "%s/%s", p->dir, p->name) < 0)
		return -ENOMEM;
	free(p->t->exported.path);
	p->t->exported.path = path;
	return 0;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void start_next(struct exporter *x)
{
	if (x->starting)
		return; /* one that fails at once ends in here: the loop goes on with the next */
	x->starting = true;
	while (x->queue && x->count < x->u->conf->export.parallel_max) {
		struct publish *p = x->queue;
		x->queue = p->next;
		if (!x->queue)
			x->queue_tail = &x->queue;
		p->next = NULL;
		x->count++;
		step(p);
	}
	x->starting = false;
}

/* What a failed publish made goes again; blocking calls, on a path that is rare. */
static void undo(struct publish *p)
{
	struct transfer *t = p->t;
	struct store *store = t->u->store;
	char manifest[EXPORT_DIR_MAX + sizeof("/" EXPORT_MANIFEST)];
	if (p->renamed) {
		int err = sys_renameat2(store->export_fd, t->exported.path, store->staging_fd, t->staging,
			RENAME_NOREPLACE);
		if (err) {
			log_error("a file stays in the export directory that was not acknowledged",
				LZ("path", t->exported.path), LE("error", err), NULL);
			p->lost = true;
			return;
		}
		t->staging_exists = true;
		t->entry_synced = false;
	}
	snprintf(manifest, sizeof(manifest), "%s/%s", p->dir, EXPORT_MANIFEST);
	if (p->made_dir) {
		(void)sys_unlinkat(store->export_fd, manifest, 0);
		(void)sys_unlinkat(store->export_fd, p->dir, AT_REMOVEDIR);
	}
}

static void publish_end(struct publish *p, int err)
{
	struct transfer *t = p->t;
	struct exporter *x = t->u->exporter;
	if (err && t->is_published)
		p->lost = true; /* the record may stand: the file stays in the export directory */
	else if (err)
		undo(p);
	else
		t->staging_exists = false;
	if (p->fd_counted)
		staging_put(t);
	if (p->lost) {
		transfer_uncover(t, 0, UINT64_MAX);
		staging_abandon(t);
	}
	t->is_published = false; /* what is remembered says so by its state; one that failed is not */
	timers_disarm(&t->u->rt->timers, &p->retry);
	free(p);
	t->publish = NULL;
	x->count--;
	transfer_on_published(t, err);
	transfer_unpin(t);
	start_next(x);
}

/* --- manifest --------------------------------------------------------------------------------- */

int export_manifest(const struct transfer *t, char **ret, size_t *ret_bytes)
{
	size_t meta_bytes;
	char *meta = meta_to_json(&t->meta, &meta_bytes), *text = NULL;
	struct answer_manifest m = {.clientid = t->clientid, .clientid_bytes = t->clientid_bytes,
		.fileid = t->fileid, .fileid_bytes = t->fileid_bytes, .generation = t->generation,
		.name = t->meta.name, .path = t->exported.path, .size = t->exported.size,
		.sha256 = exported_digest(&t->exported), .meta_json = meta, .user_data = t->meta.user_data,
		.opened_at_ms = t->opened_at_ms, .exported_at_ms = sys_wall_ms()};
	if (meta)
		text = answer_manifest_to_json(&m, ret_bytes);
	free(meta);
	if (!text)
		return -ENOMEM;
	*ret = text;
	return 0;
}

/* Was this manifest written by this publish, before a restart? It is ours up to the time of export,
 * or up to where it was cut off; after a power cut, zeros are where its bytes had not reached the
 * disk. */
static bool manifest_is_ours(const struct publish *p, int fd)
{
	char *ours, *last = NULL;
	size_t bytes;
	bool is_ours = false;
	if (export_manifest(p->t, &ours, &bytes) < 0)
		return false;
	char *there = malloc(bytes);
	if (there) {
		int64_t got = sys_pread(fd, there, bytes, 0);
		for (char *at = ours; (at = strstr(at, "\"exported_at\"")); at++)
			last = at;
		size_t same = last ? (size_t)(last - ours) : 0;
		if (got >= 0 && (size_t)got < same)
			same = (size_t)got;
		is_ours = got >= 0;
		for (size_t i = 0; is_ours && i < same; i++)
			is_ours = there[i] == ours[i] || there[i] == 0;
	}
	free(there);
	free(ours);
	return is_ours;
}

/* After a restart: takes away what this publish had made before its file was renamed. A directory
 * that is another export's stays: making ours meets it, and takes the next suffix. */
static void undo_before_restart(const struct publish *p)
{
	const struct store *store = p->t->u->store;
	char manifest[EXPORT_DIR_MAX + sizeof("/" EXPORT_MANIFEST)];
	snprintf(manifest, sizeof(manifest), "%s/%s", p->dir, EXPORT_MANIFEST);
	int fd = sys_openat(store->export_fd, manifest, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	if (fd >= 0) {
		if (manifest_is_ours(p, fd))
			(void)sys_unlinkat(store->export_fd, manifest, 0);
		sys_close(fd);
	}
	(void)sys_unlinkat(store->export_fd, p->dir, AT_REMOVEDIR);
}

/* --- rounds ----------------------------------------------------------------------------------- */

/* Puts a publish into the next round. */
static void round_join(struct publish *p, enum publish_state stage)
{
	struct exporter *x = p->t->u->exporter;
	p->state = stage;
	p->next = NULL;
	*x->waiting_tail = p;
	x->waiting_tail = &p->next;
	round_next(x);
}

/* The next round begins at the end of the turn, with all that came in it. */
static void round_next(struct exporter *x)
{
	if (x->waiting && !x->round && op_is_idle(&x->kick_op))
		ring_post(x->u->rt->ring, &x->kick_op);
}

static void sync_alone(struct publish *p);

static void on_kick(struct op *op)
{
	struct exporter *x = container_of(op, struct exporter, kick_op);
	struct publish *all = x->waiting, **tail = &x->round;
	if (x->round)
		return; /* when that ends */
	/* Of many that are under way, more will be there for the next rounds. */
	x->is_together = x->count >= EXPORT_TOGETHER_MIN && !x->has_fs_failed;
	x->waiting = NULL;
	x->waiting_tail = &x->waiting;
	while (all) {
		struct publish *p = all;
		all = p->next;
		p->next = NULL;
		if (p->state == PUBLISH_SYNC && !x->is_together) {
			sync_alone(p);
		} else {
			*tail = p;
			tail = &p->next;
		}
	}
	if (x->round)
		ring_call(x->u->rt->ring, &x->round_op, RING_PUBLISH, export_round);
}

static void on_round(struct op *op)
{
	struct exporter *x = container_of(op, struct exporter, round_op);
	struct publish *all = x->round;
	while (all) {
		struct publish *p = all;
		all = p->next;
		p->next = NULL;
		step(p);
	}
	x->round = NULL; /* until here it kept another one from beginning */
	round_next(x);
}

/* --- the switch ------------------------------------------------------------------------------- */

/* The journal has no room. The file is in its place, and the record is part of what the next journal
 * file begins with, so there is only to wait. */
static bool may_wait(const struct publish *p)
{
	const struct reactor *rt = p->t->u->rt;
	return p->state == PUBLISH_PUBLISHED && journal_waits_for_room(rt->journal) && !rt->stopping;
}

static void on_recorded(struct journal_waiter *w, int err)
{
	struct publish *p = container_of(w, struct transfer, waiter)->publish;
	struct reactor *rt = p->t->u->rt;
	if (err && may_wait(p))
		timers_arm(&rt->timers, &p->retry, ring_now_ms(rt->ring) + RETRY_MS);
	else if (err)
		publish_end(p, err);
	else
		step(p);
}

static void on_retry(struct timer *timer)
{
	struct transfer *t = container_of(timer, struct publish, retry)->t;
	journal_wait(t->u->rt->journal, &t->waiter, JOURNAL_SYNCED);
}

static void record_path(struct publish *p)
{
	struct transfer *t = p->t;
	make_path(p);
	int err = set_exported_path(p);
	if (err) {
		publish_end(p, err);
		return;
	}
	struct record r = {.type = RECORD_PUBLISHING, .tid = t->tid, .size = t->exported.size,
		.text = t->exported.path, .text_bytes = (uint32_t)strlen(t->exported.path)};
	memcpy(r.digest, t->exported.digest, sizeof(r.digest));
	journal_append(t->u->rt->journal, &r);
	p->state = PUBLISH_RECORD;
	t->waiter.done = on_recorded;
	/* Synced: after a power cut, too, whatever is found of it must be known to be ours. */
	journal_wait(t->u->rt->journal, &t->waiter, JOURNAL_SYNCED);
}

static void record_published(struct publish *p)
{
	struct transfer *t = p->t;
	t->exported.at_ms = sys_wall_ms();
	t->is_published = true;
	struct record r = {.type = RECORD_PUBLISHED, .tid = t->tid, .at_ms = t->exported.at_ms};
	journal_append(t->u->rt->journal, &r);
	p->state = PUBLISH_PUBLISHED;
	t->waiter.done = on_recorded;
	journal_wait(t->u->rt->journal, &t->waiter, JOURNAL_SYNCED);
}

/* The file is durable. If the publish fails further on, all of it is there still, also after a
 * power cut. */
static void record_synced(struct publish *p)
{
	struct transfer *t = p->t;
	struct record r = {.type = RECORD_SYNCED, .tid = t->tid, .to = t->exported.size};
	if (transfer_add_synced(t, 0, t->exported.size) == 0)
		journal_append(t->u->rt->journal, &r);
	record_path(p);
}

static void on_file_synced(struct journal_waiter *w, int err)
{
	struct publish *p = container_of(w, struct transfer, waiter)->publish;
	if (err)
		publish_end(p, err);
	else
		record_synced(p);
}

static void sync_alone(struct publish *p)
{
	struct transfer *t = p->t;
	p->state = PUBLISH_SYNC_FILE;
	t->waiter.done = on_file_synced;
	sync_file(t, &t->waiter, true);
}

static void sync_content(struct publish *p)
{
	const struct transfer *t = p->t;
	if (t->exported.size > TOGETHER_BYTES_MAX || t->is_restored || t->syncing || t->sync_wanted ||
		t->u->entry_err)
		sync_alone(p);
	else
		round_join(p, PUBLISH_SYNC);
}

static int apply_owner(const struct publish *p, const struct sys_stat *st)
{
	const struct transfer *t = p->t;
	const struct store *store = t->u->store;
	uint32_t mode = t->u->conf->export.file_mode;
	int err = store->group == UINT32_MAX ? 0 : sys_fchown_group(t->fd, store->group);
	return err || st->mode == mode ? err : sys_fchmod(t->fd, mode);
}

static void begin(struct publish *p)
{
	struct transfer *t = p->t;
	struct sys_stat st;
	int err = sys_fstat(t->fd, &st);
	if (!err)
		err = apply_owner(p, &st);
	if (err) {
		publish_end(p, err);
	} else if (st.size != t->exported.size) {
		/* The journal must not promise bytes that are not in the file any more. */
		p->state = PUBLISH_UNCOVERED;
		t->waiter.done = on_recorded;
		journal_wait(t->u->rt->journal, &t->waiter, JOURNAL_WRITTEN);
	} else {
		sync_content(p);
	}
}

static void on_synced(struct publish *p)
{
	if (p->err == -EAGAIN) {
		sync_alone(p);
		return;
	}
	p->t->entry_synced = true;
	record_synced(p);
}

static void on_made(struct publish *p)
{
	if (p->err != -EEXIST || p->made_dir) {
		if (p->err)
			publish_end(p, p->err);
		else
			round_join(p, PUBLISH_SHOW);
		return;
	}
	p->suffix = p->suffix < p->t->generation ? p->t->generation : p->suffix + 1;
	if (p->suffix > SUFFIX_MAX)
		publish_end(p, -EEXIST);
	else
		record_path(p);
}

static void on_shown(struct publish *p)
{
	if (p->err == -EEXIST && !p->renamed) {
		/* Somebody put a file of that name into our directory: it is theirs now. */
		p->made_dir = false;
		p->suffix++;
		record_path(p);
	} else if (p->err) {
		publish_end(p, p->err);
	} else {
		record_published(p);
	}
}

static void step(struct publish *p)
{
	struct transfer *t = p->t;
	switch (p->state) {
	case PUBLISH_QUEUED:
		begin(p);
		break;
	case PUBLISH_UNCOVERED:
		p->state = PUBLISH_TRUNCATE;
		ring_ftruncate(t->u->rt->ring, &p->op, t->fd, t->exported.size);
		break;
	case PUBLISH_TRUNCATE:
		if (p->op.res < 0)
			publish_end(p, p->op.res);
		else
			sync_content(p);
		break;
	case PUBLISH_SYNC_FILE: /* on_file_synced goes on */
		break;
	case PUBLISH_SYNC:
		on_synced(p);
		break;
	case PUBLISH_RECORD:
		round_join(p, PUBLISH_MAKE);
		break;
	case PUBLISH_MAKE:
		on_made(p);
		break;
	case PUBLISH_SHOW:
		on_shown(p);
		break;
	case PUBLISH_PUBLISHED:
		publish_end(p, 0);
		break;
	}
}

static void on_done(struct op *op)
{
	step(container_of(op, struct publish, op));
}

/* --- start ------------------------------------------------------------------------------------ */

struct exporter *export_new(struct uploads *u)
{
	struct exporter *x = calloc(1, sizeof(*x));
	if (!x)
		return NULL;
	x->u = u;
	x->queue_tail = &x->queue;
	x->waiting_tail = &x->waiting;
	x->round_op.done = on_round;
	x->kick_op.done = on_kick;
	x->fs_fd = sys_openat(u->store->export_fd, ".", O_RDONLY | O_DIRECTORY, 0);
	return x;
}

void export_free(struct exporter *x)
{
	if (x && x->fs_fd >= 0)
		sys_close(x->fs_fd);
	free(x);
}

static struct publish *publish_new(struct transfer *t)
{
	struct publish *p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->t = t;
	p->op.done = on_done;
	p->retry.fire = on_retry;
	p->manifest_fd = -1;
	p->suffix = t->generation;
	t->publish = p;
	transfer_pin(t);
	return p;
}

static void enqueue(struct publish *p)
{
	struct exporter *x = p->t->u->exporter;
	p->state = PUBLISH_QUEUED;
	*x->queue_tail = p;
	x->queue_tail = &p->next;
	start_next(x);
}

void export_start(struct transfer *t)
{
	if (t->resume_path) {
		export_resume(t);
		return;
	}
	int err = journal_error(t->u->rt->journal);
	if (err) {
		/* Without a journal nothing can be published; and the file may lie in the export
		 * directory already. */
		transfer_on_published(t, err);
		return;
	}
	if (!staging_get(t)) {
		if (t->staging_state == STAGING_FAILED)
			transfer_on_published(t, t->staging_err);
		return; /* transfer_step comes back when the file is open */
	}
	struct publish *p = publish_new(t);
	if (!p) {
		staging_put(t);
		transfer_on_published(t, -ENOMEM);
		return;
	}
	p->fd_counted = true;
	enqueue(p);
}

void export_resume(struct transfer *t)
{
	struct store *store = t->u->store;
	struct sys_stat st;
	bool has_staging = sys_stat_at(store->staging_fd, t->staging, &st) == 0;
	bool has_final = sys_stat_at(store->export_fd, t->exported.path, &st) == 0;
	t->resume_path = true;
	if (has_staging && !staging_get(t)) {
		if (t->staging_state == STAGING_FAILED)
			transfer_on_published(t, t->staging_err);
		return;
	}
	t->resume_path = false;
	struct publish *p = publish_new(t);
	assert(p);
	adopt_path(p);
	p->fd_counted = has_staging;
	if (has_staging) {
		if (has_final)
			p->suffix++;
		else
			undo_before_restart(p);
		enqueue(p);
		return;
	}
	t->staging_exists = false;
	t->u->exporter->count++;
	if (has_final) {
		p->renamed = p->is_resumed = true;
		round_join(p, PUBLISH_SHOW);
	} else {
		record_published(p);
	}
}
