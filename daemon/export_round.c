/*
 * A round of publishing: what many files need of the disk, in one go.
 *
 * A thread of its own makes the calls, one after another, for all publishes of the round, each in
 * one of three stages: SYNC makes the staging file durable, MAKE makes the directory and the
 * manifest, SHOW renames. Then all of it is made durable together, and that is where the time goes:
 * a journaling file system commits once for everything that was done before, so files that share
 * a round share its commits, and the stages of different files share them too.
 *
 * With more than a few files that is one syncfs. It writes back everything on the file system, also
 * what no publish waits for. So where much is dirty on the machine, and it was seen to take long (a
 * large upload is under way), each file is synced by itself for some rounds: write-back is started
 * for all before the first fsync waits, so that again most find their commit done.
 *
 * syncfs tells of a lost write once, of whichever file. So after an error it is not believed any
 * more: from then on, and for the round at hand, each file is synced by itself and tells of its own
 * errors, for which its descriptor was open long enough. -EAGAIN says that a staging file was not
 * synced here: sync.c does it alone.
 *
 * The entries of the directories above must be durable too. One that was there already may have
 * been made a moment ago by a publish that has not synced yet, so all are synced up to the root,
 * but for those this reactor has synced before. That belongs to MAKE, before the rename: a crash may
 * then find the file under its old name or its new one, but in no directory that is lost itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "export_impl.h"
#include "log.h"

/* What else is written back by a syncfs may cost no more than the fsyncs that it saves: one is about
 * a millisecond, even where the commit is done. What else is dirty is known for the machine only. */
enum {
	DIRTY_BYTES_MIN = 16 << 20, DIRTY_BYTES_PER_FSYNC = 2 << 20,
	SYNCFS_MS_MAX = 100, /* what is dirty may lie elsewhere, or the disk be fast */
	ROUNDS_EACH = 32,
	MAKE_TRIES = 3,
};

/* --- directories known to be durable ---------------------------------------------------------- */

static uint64_t *synced_slot(struct exporter *x, const struct publish *p, uint32_t idx, uint64_t *ret_hash)
{
	*ret_hash = XXH3_64bits(p->dir, p->ends[idx]) | 1;
	return &x->synced_dirs[*ret_hash % SYNCED_SLOTS];
}

static bool is_synced(struct exporter *x, const struct publish *p, uint32_t idx)
{
	uint64_t hash;
	return *synced_slot(x, p, idx, &hash) == hash;
}

static void set_synced(struct exporter *x, const struct publish *p, uint32_t idx, bool synced)
{
	uint64_t hash, *slot = synced_slot(x, p, idx, &hash);
	if (synced)
		*slot = hash;
	else if (*slot == hash)
		*slot = 0;
}

/* The path of the idx-th directory. */
static void dir_at(const struct publish *p, uint32_t idx, char ret[EXPORT_DIR_MAX])
{
	memcpy(ret, p->dir, p->ends[idx]);
	ret[p->ends[idx]] = 0;
}

/* --- the stages ------------------------------------------------------------------------------- */

static int make_parents(struct exporter *x, const struct publish *p)
{
	const struct uploads *u = x->u;
	char path[EXPORT_DIR_MAX];
	for (uint32_t i = 0; i + 1 < p->dirs_count; i++) {
		dir_at(p, i, path);
		int err = sys_mkdirat(u->store->export_fd, path, u->conf->export.dir_mode);
		if (err && err != -EEXIST)
			return err;
		if (!err)
			set_synced(x, p, i, false);
	}
	return 0;
}

/* Exclusive: −EEXIST says that the name is taken. */
static int make_dir(struct exporter *x, struct publish *p)
{
	const struct uploads *u = x->u;
	int err = sys_mkdirat(u->store->export_fd, p->dir, u->conf->export.dir_mode);
	/* Whoever removes what is empty, as retention does, may be faster than we. */
	for (int tries = 0; err == -ENOENT && tries < MAKE_TRIES; tries++) {
		err = make_parents(x, p);
		if (!err)
			err = sys_mkdirat(u->store->export_fd, p->dir, u->conf->export.dir_mode);
	}
	p->made_dir = !err;
	return err;
}

static int make_manifest(struct exporter *x, struct publish *p)
{
	const struct uploads *u = x->u;
	char path[EXPORT_DIR_MAX + sizeof("/" EXPORT_MANIFEST)], *text;
	size_t bytes;
	int err = export_manifest(p->t, &text, &bytes);
	if (err)
		return err;
	snprintf(path, sizeof(path), "%s/%s", p->dir, EXPORT_MANIFEST);
	int fd = sys_openat(u->store->export_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW,
		u->conf->export.file_mode);
	if (fd < 0) {
		err = fd;
	} else {
		p->manifest_fd = fd;
		if (u->store->group != UINT32_MAX)
			(void)sys_fchown_group(fd, u->store->group);
		err = sys_pwrite(fd, text, bytes, 0);
	}
	free(text);
	return err;
}

static int make(struct exporter *x, struct publish *p)
{
	int err = make_dir(x, p);
	if (!err && x->u->conf->export.manifest)
		err = make_manifest(x, p);
	return err;
}

static int show(struct exporter *x, struct publish *p)
{
	const struct store *store = x->u->store;
	char path[EXPORT_PATH_MAX + 1];
	if (p->is_resumed)
		return 0;
	snprintf(path, sizeof(path), "%s/%s", p->dir, p->name);
	int err = sys_renameat2(store->staging_fd, p->t->staging, store->export_fd, path, RENAME_NOREPLACE);
	p->renamed = !err;
	return err;
}

/* --- making it durable ------------------------------------------------------------------------ */

/* A directory that is gone was taken away by the consumer of what is in it. */
static int sync_dir(struct exporter *x, const char *path)
{
	int fd = sys_openat(x->u->store->export_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	int err = sys_fsync(fd);
	sys_close(fd);
	return err;
}

/* Each directory above the new one of which an entry may be new. */
static int sync_parents(struct exporter *x, const struct publish *p)
{
	char path[EXPORT_DIR_MAX];
	int err = 0;
	for (uint32_t i = p->dirs_count; !err && i-- > 0;) {
		bool is_own = i + 1 == p->dirs_count;
		if (!is_own && is_synced(x, p, i))
			continue;
		/* The entry of a directory lies in the one above, that of the first in the root. */
		if (i > 0)
			dir_at(p, i - 1, path);
		err = i > 0 ? sync_dir(x, path) : sys_fsync(x->u->store->export_fd);
		if (!err && !is_own)
			set_synced(x, p, i, true);
	}
	return err;
}

static int sync_made(struct exporter *x, const struct publish *p)
{
	int err = p->manifest_fd >= 0 ? sys_fsync(p->manifest_fd) : 0;
	return err ? err : sync_parents(x, p);
}

static int sync_shown(struct exporter *x, const struct publish *p)
{
	int err = p->is_resumed ? sync_parents(x, p) : 0;
	return err ? err : sync_dir(x, p->dir);
}

static void sync_each(struct exporter *x)
{
	for (struct publish *p = x->round; p; p = p->next) {
		if (p->state == PUBLISH_MAKE && !p->err && p->manifest_fd >= 0)
			sys_write_behind(p->manifest_fd);
	}
	for (struct publish *p = x->round; p; p = p->next) {
		if (!p->err)
			p->err = p->state == PUBLISH_MAKE ? sync_made(x, p) :
				p->state == PUBLISH_SHOW ? sync_shown(x, p) : -EAGAIN;
	}
}

/* Is everything on the file system to be synced rather than each file? */
static bool is_together(struct exporter *x)
{
	uint64_t most = DIRTY_BYTES_MIN;
	for (const struct publish *p = x->round; p; p = p->next)
		most += p->err ? 0 : DIRTY_BYTES_PER_FSYNC;
	if (!x->is_together || x->fs_fd < 0)
		return false;
	if (x->rounds_each == 0 || sys_dirty_bytes() <= most)
		return true;
	x->rounds_each--;
	return false;
}

static void sync_together(struct exporter *x)
{
	uint64_t from_ms = sys_mono_ms();
	int err = sys_syncfs(x->fs_fd);
	x->rounds_each = sys_mono_ms() - from_ms > SYNCFS_MS_MAX ? ROUNDS_EACH : 0;
	if (err) {
		log_error("a file system failed to sync: from now on each file is synced by itself",
			LE("error", err), NULL);
		x->has_fs_failed = true;
		sync_each(x);
		return;
	}
	for (const struct publish *p = x->round; p; p = p->next) {
		for (uint32_t i = 0; p->state == PUBLISH_MAKE && !p->err && i + 1 < p->dirs_count; i++)
			set_synced(x, p, i, true);
	}
}

int export_round(struct op *op)
{
	struct exporter *x = container_of(op, struct exporter, round_op);
	for (struct publish *p = x->round; p; p = p->next) {
		p->err = 0;
		if (p->state == PUBLISH_MAKE)
			p->err = make(x, p);
		else if (p->state == PUBLISH_SHOW)
			p->err = show(x, p);
	}
	if (is_together(x))
		sync_together(x);
	else
		sync_each(x);
	for (struct publish *p = x->round; p; p = p->next) {
		if (p->manifest_fd >= 0)
			sys_close(p->manifest_fd);
		p->manifest_fd = -1;
	}
	return 0;
}
