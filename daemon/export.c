/*
 * Publishing: a verified staging file appears in the export directory, whole, once, under a name
 * nobody had, and durable before anyone is told.
 *
 *     SYNC (once the journal has let go of what lies beyond the size: truncate; fsync the file, and
 *     staging/ if its entry is new: sync.c) → RECORD (what was synced, and the path, are journaled) →
 *     PARENTS (mkdir) → DIR (mkdir, exclusive: a taken one moves to the next suffix, back to RECORD)
 *     → OPEN_DIR → MANIFEST (create, write, fsync) → SYNC_PARENTS (each directory above the new one)
 *     → RENAME (never replaces) → SYNC_DIR → PUBLISHED (journaled, synced) → done
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
 * The entries of the directories above must be durable too. One that was there already may have
 * been made a moment ago by a publish that has not synced yet, so all are synced up to the root,
 * but for those this reactor has synced before. That comes before the rename: a crash may then find
 * the file under its old name or its new one, but in no directory that is lost itself.
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
#include <linux/fs.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha.h>
#include <xxhash.h>
#include "log.h"
#include "transfer.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#endif

enum { DIRS_MAX = 5, SUFFIX_MAX = 1000000, SUFFIX_DIGITS_MAX = 7, SYNCED_SLOTS = 4096 };

#define MANIFEST ".manifest.json" /* no exported file has this name */

enum publish_state {
	PUBLISH_QUEUED, PUBLISH_UNCOVERED, PUBLISH_TRUNCATE, PUBLISH_SYNC, PUBLISH_RECORD, PUBLISH_PARENTS,
	PUBLISH_DIR, PUBLISH_OPEN_DIR, PUBLISH_OPEN_MANIFEST, PUBLISH_WRITE_MANIFEST, PUBLISH_SYNC_MANIFEST,
	PUBLISH_RENAME, PUBLISH_SYNC_DIR, PUBLISH_OPEN_PARENT, PUBLISH_SYNC_PARENT, PUBLISH_PUBLISHED,
};

struct publish {
	struct op op;
	struct transfer *t;
	struct publish *next;        /* in the queue */
	enum publish_state state;
	uint32_t suffix;             /* 1: none */
	uint32_t dirs_count;         /* directories on the path */
	uint32_t dir_idx;
	bool renamed, made_dir, fd_counted;
	bool lost;                   /* the staging file is gone */
	int dir_fd, parent_fd, manifest_fd;
	char *manifest;
	size_t manifest_bytes, manifest_put;
	uint32_t ends[DIRS_MAX];     /* length of each directory's path */
	char dir[PATH_MAX];          /* the generation's directory, relative to the export root */
	char path[PATH_MAX];         /* a prefix of dir, for the call in flight */
	char name[NAMES_FILE_MAX + 1];
};

static void step(struct publish *p);

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
	for (uint32_t i = 0; p->dir[i] && p->dirs_count < DIRS_MAX - 1; i++) {
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
	if (!buckets[0] || strcmp(p->name, MANIFEST) == 0)
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

/* The prefix of dir that is its idx-th directory, into path. */
static const char *dir_at(struct publish *p, uint32_t idx)
{
	memcpy(p->path, p->dir, p->ends[idx]);
	p->path[p->ends[idx]] = 0;
	return p->path;
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

/* --- directories known to be durable ---------------------------------------------------------- */

static uint64_t *synced_slot(struct publish *p, uint32_t idx, uint64_t *ret_hash)
{
	struct uploads *u = p->t->u;
	*ret_hash = XXH3_64bits(p->dir, p->ends[idx]) | 1;
	return u->synced_dirs ? &u->synced_dirs[*ret_hash % SYNCED_SLOTS] : NULL;
}

static bool is_synced(struct publish *p, uint32_t idx)
{
	uint64_t hash;
	const uint64_t *slot = synced_slot(p, idx, &hash);
	return slot && *slot == hash;
}

static void set_synced(struct publish *p, uint32_t idx, bool synced)
{
	uint64_t hash;
	struct uploads *u = p->t->u;
	if (!u->synced_dirs)
		u->synced_dirs = calloc(SYNCED_SLOTS, sizeof(*u->synced_dirs));
	uint64_t *slot = synced_slot(p, idx, &hash);
	if (slot && (synced || *slot == hash))
		*slot = synced ? hash : 0;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void start_next(struct uploads *u)
{
	if (u->starting)
		return; /* one that fails at once ends in here: the loop goes on with the next */
	u->starting = true;
	while (u->publish_queue && u->publishing < u->conf->export.parallel_max) {
		struct publish *p = u->publish_queue;
		u->publish_queue = p->next;
		if (!u->publish_queue)
			u->publish_queue_tail = &u->publish_queue;
		p->next = NULL;
		u->publishing++;
		step(p);
	}
	u->starting = false;
}

/* What a failed publish made goes again; blocking calls, on a path that is rare. */
static void undo(struct publish *p)
{
	struct transfer *t = p->t;
	struct store *store = t->u->store;
	char manifest[PATH_MAX + 32];
	if (p->renamed) {
		int err = sys_renameat2(p->dir_fd, p->name, store->staging_fd, t->staging, RENAME_NOREPLACE);
		if (err) {
			log_error("a file stays in the export directory that was not acknowledged",
				LZ("path", t->exported.path), LE("error", err), NULL);
			p->lost = true;
			return;
		}
		t->staging_exists = true;
	}
	snprintf(manifest, sizeof(manifest), "%s/%s", p->dir, MANIFEST);
	if (p->made_dir) {
		(void)sys_unlinkat(store->export_fd, manifest, 0);
		(void)sys_unlinkat(store->export_fd, p->dir, AT_REMOVEDIR);
	}
}

static void publish_end(struct publish *p, int err)
{
	struct transfer *t = p->t;
	struct uploads *u = t->u;
	if (err && t->is_published)
		p->lost = true; /* the record may stand: the file stays in the export directory */
	else if (err)
		undo(p);
	else
		t->staging_exists = false;
	if (p->dir_fd >= 0)
		sys_close(p->dir_fd);
	if (p->parent_fd >= 0)
		sys_close(p->parent_fd);
	if (p->manifest_fd >= 0)
		sys_close(p->manifest_fd);
	if (p->fd_counted)
		staging_put(t);
	if (p->lost) {
		transfer_uncover(t, 0, UINT64_MAX);
		staging_abandon(t);
	}
	free(p->manifest);
	free(p);
	t->publish = NULL;
	u->publishing--;
	transfer_on_published(t, err);
	transfer_unpin(t);
	start_next(u);
}

/* --- manifest --------------------------------------------------------------------------------- */

static int manifest_make(struct publish *p)
{
	const struct transfer *t = p->t;
	size_t meta_bytes;
	char *meta = meta_to_json(&t->meta, &meta_bytes);
	struct answer_manifest m = {.clientid = t->clientid, .clientid_bytes = t->clientid_bytes,
		.fileid = t->fileid, .fileid_bytes = t->fileid_bytes, .generation = t->generation,
		.name = t->meta.name, .path = t->exported.path, .size = t->exported.size,
		.sha256 = t->exported.digest, .meta_json = meta, .user_data = t->meta.user_data,
		.opened_at_ms = t->opened_at_ms, .exported_at_ms = sys_wall_ms()};
	if (meta)
		p->manifest = answer_manifest_to_json(&m, &p->manifest_bytes);
	free(meta);
	return p->manifest ? 0 : -ENOMEM;
}

/* Was this manifest written by this publish, before a restart? It is ours up to the time of export,
 * or up to where it was cut off; after a power cut, zeros are where its bytes had not reached the
 * disk. */
static bool manifest_is_ours(struct publish *p, int fd)
{
	char *last = NULL, *there = manifest_make(p) == 0 ? malloc(p->manifest_bytes) : NULL;
	bool is_ours = false;
	if (there) {
		int64_t got = sys_pread(fd, there, p->manifest_bytes, 0);
		for (char *at = p->manifest; (at = strstr(at, "\"exported_at\"")); at++)
			last = at;
		size_t same = last ? (size_t)(last - p->manifest) : 0;
		if (got >= 0 && (size_t)got < same)
			same = (size_t)got;
		is_ours = got >= 0;
		for (size_t i = 0; is_ours && i < same; i++)
			is_ours = there[i] == p->manifest[i] || there[i] == 0;
	}
	free(there);
	free(p->manifest);
	p->manifest = NULL;
	return is_ours;
}

/* After a restart: takes away what this publish had made before its file was renamed. A directory
 * that is another export's stays: making ours meets it, and takes the next suffix. */
static void undo_before_restart(struct publish *p)
{
	struct store *store = p->t->u->store;
	char manifest[PATH_MAX + 32];
	snprintf(manifest, sizeof(manifest), "%s/%s", p->dir, MANIFEST);
	int fd = sys_openat(store->export_fd, manifest, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	if (fd >= 0) {
		if (manifest_is_ours(p, fd))
			(void)sys_unlinkat(store->export_fd, manifest, 0);
		sys_close(fd);
	}
	(void)sys_unlinkat(store->export_fd, p->dir, AT_REMOVEDIR);
}

/* --- the switch ------------------------------------------------------------------------------- */

static void on_recorded(struct journal_waiter *w, int err)
{
	struct publish *p = container_of(w, struct transfer, waiter)->publish;
	if (err)
		publish_end(p, err);
	else
		step(p);
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

static int apply_owner(const struct publish *p)
{
	const struct transfer *t = p->t;
	const struct store *store = t->u->store;
	int err = store->group == UINT32_MAX ? 0 : sys_fchown_group(t->fd, store->group);
	return err ? err : sys_fchmod(t->fd, t->u->conf->export.file_mode);
}

static void open_dir(struct publish *p)
{
	p->state = PUBLISH_OPEN_DIR;
	ring_openat(p->t->u->rt->ring, &p->op, p->t->u->store->export_fd, p->dir, O_RDONLY | O_DIRECTORY, 0);
}

static void make_dir(struct publish *p)
{
	struct transfer *t = p->t;
	struct ring *ring = t->u->rt->ring;
	if (p->dir_idx + 1 < p->dirs_count) {
		p->state = PUBLISH_PARENTS;
		ring_mkdirat(ring, &p->op, t->u->store->export_fd, dir_at(p, p->dir_idx),
			t->u->conf->export.dir_mode);
	} else {
		p->state = PUBLISH_DIR;
		ring_mkdirat(ring, &p->op, t->u->store->export_fd, p->dir, t->u->conf->export.dir_mode);
	}
}

static void rename_file(struct publish *p)
{
	struct transfer *t = p->t;
	p->state = PUBLISH_RENAME;
	ring_renameat2(t->u->rt->ring, &p->op, t->u->store->staging_fd, t->staging, p->dir_fd, p->name,
		RENAME_NOREPLACE);
}

static void sync_dir(struct publish *p)
{
	p->state = PUBLISH_SYNC_DIR;
	ring_fsync(p->t->u->rt->ring, &p->op, p->dir_fd);
}

/* All directories above are durable. After a restart the file may be in its place already. */
static void on_parents_synced(struct publish *p)
{
	if (p->renamed)
		sync_dir(p);
	else
		rename_file(p);
}

/* Syncs the next directory above that is not known to be durable, from the new one's parent up to
 * the root. */
static void sync_parent(struct publish *p)
{
	struct transfer *t = p->t;
	while (p->dir_idx > 0 && p->dir_idx + 1 < p->dirs_count && is_synced(p, p->dir_idx))
		p->dir_idx--;
	if (p->dir_idx == 0) {
		/* The first directory's own entry lies in the root. */
		if (is_synced(p, 0) && p->dirs_count > 1) {
			on_parents_synced(p);
			return;
		}
		p->state = PUBLISH_SYNC_PARENT;
		ring_fsync(t->u->rt->ring, &p->op, t->u->store->export_fd);
		return;
	}
	p->state = PUBLISH_OPEN_PARENT;
	ring_openat(t->u->rt->ring, &p->op, t->u->store->export_fd, dir_at(p, p->dir_idx - 1),
		O_RDONLY | O_DIRECTORY, 0);
}

static void write_manifest(struct publish *p)
{
	p->state = PUBLISH_WRITE_MANIFEST;
	ring_write(p->t->u->rt->ring, &p->op, p->manifest_fd, p->manifest + p->manifest_put,
		(uint32_t)(p->manifest_bytes - p->manifest_put), p->manifest_put);
}

static void on_file_synced(struct journal_waiter *w, int err)
{
	struct transfer *t = container_of(w, struct transfer, waiter);
	struct record r = {.type = RECORD_SYNCED, .tid = t->tid, .to = t->exported.size};
	if (err) {
		publish_end(t->publish, err);
		return;
	}
	/* If the publish fails further on, all of it is there still, also after a power cut. */
	if (transfer_add_synced(t, 0, t->exported.size) == 0)
		journal_append(t->u->rt->journal, &r);
	record_path(t->publish);
}

static void sync_content(struct publish *p)
{
	struct transfer *t = p->t;
	p->state = PUBLISH_SYNC;
	t->waiter.done = on_file_synced;
	sync_file(t, &t->waiter, true);
}

static void begin(struct publish *p)
{
	struct transfer *t = p->t;
	struct sys_stat st;
	int err = sys_fstat(t->fd, &st);
	if (!err)
		err = apply_owner(p);
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

static void on_dir_made(struct publish *p, int res)
{
	if (res == -EEXIST) {
		p->suffix = p->suffix < p->t->generation ? p->t->generation : p->suffix + 1;
		if (p->suffix > SUFFIX_MAX)
			publish_end(p, -EEXIST);
		else
			record_path(p);
		return;
	}
	p->made_dir = true;
	open_dir(p);
}

static void on_renamed(struct publish *p, int res)
{
	if (res == -EEXIST) {
		/* Somebody put a file of that name into our directory: it is theirs now. */
		p->made_dir = false;
		sys_close(p->dir_fd);
		p->dir_fd = -1;
		p->suffix++;
		free(p->manifest);
		p->manifest = NULL;
		record_path(p);
		return;
	}
	p->renamed = true;
	sync_dir(p);
}

static void on_manifest_written(struct publish *p, int res)
{
	if (res == 0) {
		publish_end(p, -EIO);
		return;
	}
	p->manifest_put += (size_t)res;
	if (p->manifest_put < p->manifest_bytes) {
		write_manifest(p);
		return;
	}
	p->state = PUBLISH_SYNC_MANIFEST;
	ring_fsync(p->t->u->rt->ring, &p->op, p->manifest_fd);
}

static void on_parent_synced(struct publish *p)
{
	if (p->parent_fd >= 0)
		sys_close(p->parent_fd);
	p->parent_fd = -1;
	if (p->dir_idx + 1 < p->dirs_count)
		set_synced(p, p->dir_idx, true);
	if (p->dir_idx == 0) {
		on_parents_synced(p);
		return;
	}
	p->dir_idx--;
	sync_parent(p);
}

static void sync_parents(struct publish *p)
{
	p->dir_idx = p->dirs_count - 1;
	sync_parent(p);
}

static void on_dir_opened(struct publish *p, int fd)
{
	const struct conf *conf = p->t->u->conf;
	p->dir_fd = fd;
	int err = conf->export.manifest ? manifest_make(p) : 0;
	if (err) {
		publish_end(p, err);
		return;
	}
	if (!conf->export.manifest) {
		sync_parents(p);
		return;
	}
	p->manifest_put = 0;
	p->state = PUBLISH_OPEN_MANIFEST;
	ring_openat(p->t->u->rt->ring, &p->op, p->dir_fd, MANIFEST, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW,
		conf->export.file_mode);
}

static void on_manifest_opened(struct publish *p, int fd)
{
	const struct store *store = p->t->u->store;
	p->manifest_fd = fd;
	if (store->group != UINT32_MAX)
		(void)sys_fchown_group(fd, store->group);
	write_manifest(p);
}

/* Is an error all there is to know? A name that is taken wants more than the end. */
static bool is_final(const struct publish *p, int res)
{
	bool makes_name = p->state == PUBLISH_PARENTS || p->state == PUBLISH_DIR || p->state == PUBLISH_RENAME;
	return res < 0 && !(makes_name && res == -EEXIST);
}

static void step(struct publish *p)
{
	struct transfer *t = p->t;
	struct ring *ring = t->u->rt->ring;
	int res = p->op.res;
	p->op.res = 0;
	if (is_final(p, res)) {
		publish_end(p, res);
		return;
	}
	switch (p->state) {
	case PUBLISH_QUEUED:
		begin(p);
		break;
	case PUBLISH_UNCOVERED:
		p->state = PUBLISH_TRUNCATE;
		ring_ftruncate(ring, &p->op, t->fd, t->exported.size);
		break;
	case PUBLISH_TRUNCATE:
		sync_content(p);
		break;
	case PUBLISH_SYNC: /* on_file_synced goes on */
		break;
	case PUBLISH_RECORD:
		p->dir_idx = 0;
		make_dir(p);
		break;
	case PUBLISH_PARENTS:
		if (res == 0)
			set_synced(p, p->dir_idx, false);
		p->dir_idx++;
		make_dir(p);
		break;
	case PUBLISH_DIR:
		on_dir_made(p, res);
		break;
	case PUBLISH_OPEN_DIR:
		on_dir_opened(p, res);
		break;
	case PUBLISH_OPEN_MANIFEST:
		on_manifest_opened(p, res);
		break;
	case PUBLISH_WRITE_MANIFEST:
		on_manifest_written(p, res);
		break;
	case PUBLISH_SYNC_MANIFEST:
		sys_close(p->manifest_fd);
		p->manifest_fd = -1;
		sync_parents(p);
		break;
	case PUBLISH_RENAME:
		on_renamed(p, res);
		break;
	case PUBLISH_SYNC_DIR:
		record_published(p);
		break;
	case PUBLISH_OPEN_PARENT:
		p->parent_fd = res;
		p->state = PUBLISH_SYNC_PARENT;
		ring_fsync(ring, &p->op, p->parent_fd);
		break;
	case PUBLISH_SYNC_PARENT:
		on_parent_synced(p);
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

static struct publish *publish_new(struct transfer *t)
{
	struct publish *p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->t = t;
	p->op.done = on_done;
	p->dir_fd = p->parent_fd = p->manifest_fd = -1;
	p->suffix = t->generation;
	t->publish = p;
	transfer_pin(t);
	return p;
}

static void enqueue(struct publish *p)
{
	struct uploads *u = p->t->u;
	p->state = PUBLISH_QUEUED;
	*u->publish_queue_tail = p;
	u->publish_queue_tail = &p->next;
	start_next(u);
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
	t->u->publishing++;
	if (has_final && (p->dir_fd = sys_openat(store->export_fd, p->dir, O_RDONLY | O_DIRECTORY, 0)) >= 0) {
		p->renamed = true;
		sync_parents(p);
	} else {
		record_published(p);
	}
}
