/*
 * store.h. Free space is read at most every SPACE_MS, and anew when reservations have become blocks
 * and before anything is refused; those not yet allocated are subtracted, so a burst of inits can't
 * promise the same bytes twice.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ring.h"
#include "user.h"

enum { SPACE_MS = 50, LOCK_MS = 2000, INODES_MIN = 16, LOOKS_MAX = 64, LOOKS_PER_S = 1024,
	LOOKS_NS = 2000000 };

/* A directory's entry lies in the one above it, and that one's likewise: without a sync of them
 * the machine's next crash may take it away with everything that was made durable in it. One that
 * is there already may have been made by a start that did not get this far. */
static int sync_above(const char *path)
{
	char above[PATH_MAX];
	int err = 0;
	for (size_t i = 0; !err && path[i]; i++) {
		if (path[i] != '/' && i > 0)
			continue;
		snprintf(above, sizeof(above), "%.*s", i > 0 ? (int)i : 1, path[0] == '/' || i > 0 ? path : ".");
		int fd = sys_openat(AT_FDCWD, above, O_RDONLY | O_DIRECTORY, 0);
		if (fd < 0)
			continue; /* not ours to read, so not made by us */
		err = sys_fsync(fd);
		sys_close(fd);
		if (err == -EINVAL || err == -EROFS)
			err = 0; /* a file system that knows no such thing */
	}
	return err;
}

static int open_dir(const char *path, uint32_t mode, int *ret_fd, char *ret_error, size_t error_max)
{
	int err = sys_mkdirs(path, mode);
	if (!err)
		err = sync_above(path);
	if (!err)
		err = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
	if (err < 0) {
		snprintf(ret_error, error_max, "the directory %s can't be used: %s: make it, or give this user "
			"the right to write there", path, strerror(-err));
		return err;
	}
	*ret_fd = err;
	return 0;
}

static int lock_dir(int fd, const char *dir, char *ret_error, size_t error_max)
{
	/* The kernel lets go of a killed daemon's descriptors only after its operations in flight
	 * have ended. */
	int err = sys_lock_dir(fd);
	for (uint64_t began_ms = sys_mono_ms(); err == -EAGAIN && sys_mono_ms() - began_ms < LOCK_MS;
		err = sys_lock_dir(fd))
		sys_sleep_ms(10);
	if (err)
		snprintf(ret_error, error_max, err == -EAGAIN ?
			"another sluiced uses the directory %s: stop it, or give this one another directory" :
			"the directory %s can't be locked: its file system has no locks", dir);
	return err;
}

static int find_group(const char *name, uint32_t *ret, char *ret_error, size_t error_max)
{
	const struct group *g = getgrnam(name);
	if (!g) {
		snprintf(ret_error, error_max, "export.group: there is no group %s on this machine", name);
		return -ENOENT;
	}
	*ret = g->gr_gid;
	return 0;
}

static int same_file_system(const struct store *s, char *ret_error, size_t error_max)
{
	struct sys_stat a, b;
	int err = sys_fstat(s->staging_fd, &a);
	if (!err)
		err = sys_fstat(s->export_fd, &b);
	if (!err && a.dev != b.dev) {
		snprintf(ret_error, error_max, "export.dir %s lies on another file system than %s: put both on one, "
			"so that a file can appear in one step", s->export_path, s->conf->data);
		err = -EXDEV;
	}
	return err;
}

static int open_all(struct store *s, char *ret_error, size_t error_max)
{
	const struct conf *conf = s->conf;
	char path[PATH_MAX];
	int err = open_dir(conf->data, 0750, &s->data_fd, ret_error, error_max);
	if (!err)
		err = lock_dir(s->data_fd, conf->data, ret_error, error_max);
	snprintf(path, sizeof(path), "%s/staging", conf->data);
	if (!err)
		err = open_dir(path, 0700, &s->staging_fd, ret_error, error_max);
	snprintf(path, sizeof(path), "%s/journal", conf->data);
	if (!err)
		err = open_dir(path, 0700, &s->journal_fd, ret_error, error_max);
	if (!err)
		err = open_dir(s->export_path, conf->export.dir_mode, &s->export_fd, ret_error, error_max);
	if (!err)
		err = lock_dir(s->export_fd, s->export_path, ret_error, error_max);
	if (!err)
		err = same_file_system(s, ret_error, error_max);
	if (!err && conf->export.group)
		err = find_group(conf->export.group, &s->group, ret_error, error_max);
	return err;
}

int store_open(const struct conf *conf, struct store **ret, char *ret_error, size_t error_max)
{
	char path[PATH_MAX];
	struct store *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->conf = conf;
	s->data_fd = s->staging_fd = s->journal_fd = s->export_fd = s->set_fd = -1;
	s->epoch = 1;
	s->group = UINT32_MAX;
	atomic_store(&s->next_tid, 1);
	snprintf(path, sizeof(path), "%s/export", conf->data);
	sys_umask_clear();
	s->export_path = strdup(conf->export.dir ? conf->export.dir : path);
	snprintf(ret_error, error_max, "out of memory at start");
	int err = s->export_path ? users_new(conf, &s->users) : -ENOMEM;
	if (!err)
		err = open_all(s, ret_error, error_max);
	if (err) {
		store_close(s);
		return err;
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	const int fds[] = {s->data_fd, s->staging_fd, s->journal_fd, s->export_fd, s->set_fd};
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			sys_close(fds[i]);
	}
	users_free(s->users);
	free(s->export_path);
	free(s);
}

static void read_space(struct store *s, uint64_t now_ms)
{
	struct sys_space space;
	if (sys_space(s->staging_fd, &space) < 0)
		return;
	atomic_store(&s->free_bytes, space.free_bytes);
	atomic_store(&s->free_inodes, space.has_inodes ? space.free_inodes : UINT64_MAX);
	atomic_store(&s->space_at_ms, now_ms);
}

/* Returns whether the reading may be older than now. */
static bool read_space_if_old(struct store *s, uint64_t now_ms)
{
	uint64_t at_ms = atomic_load(&s->space_at_ms);
	if (at_ms && now_ms < at_ms + SPACE_MS)
		return true;
	read_space(s, now_ms);
	return false;
}

bool store_add_within(_Atomic uint64_t *total, uint64_t n, uint64_t max)
{
	uint64_t was = atomic_load(total);
	do {
		if (was > max || n > max - was)
			return false;
	} while (!atomic_compare_exchange_weak(total, &was, was + n));
	return true;
}

static bool add_unallocated(struct store *s, uint64_t bytes, uint64_t kept)
{
	uint64_t free_bytes = atomic_load(&s->free_bytes);
	return free_bytes >= kept && store_add_within(&s->unallocated_bytes, bytes, free_bytes - kept);
}

/* Leaves `kept` bytes free. */
static int reserve(struct store *s, uint64_t bytes, uint64_t kept, uint64_t now_ms)
{
	bool may_be_old = read_space_if_old(s, now_ms), fits = add_unallocated(s, bytes, kept);
	if (!fits && may_be_old) {
		read_space(s, now_ms);
		fits = add_unallocated(s, bytes, kept);
	}
	if (!fits)
		return -ENOSPC;
	uint64_t staged_max = s->conf->transfer.staged_bytes_max;
	if (!store_add_within(&s->staged_bytes, bytes, staged_max ? staged_max : UINT64_MAX)) {
		atomic_fetch_sub(&s->unallocated_bytes, bytes);
		return -EDQUOT;
	}
	return 0;
}

static uint64_t stop_bytes(const struct store *s)
{
	uint64_t stop = s->conf->transfer.disk_free_stop, min = s->conf->transfer.disk_free_min;
	return stop < min ? stop : min;
}

int store_reserve_more(struct store *s, uint64_t bytes, uint64_t now_ms)
{
	return bytes ? reserve(s, bytes, stop_bytes(s), now_ms) : 0;
}

bool store_is_low(struct store *s, uint64_t now_ms)
{
	uint64_t at_ms = atomic_load(&s->low_at_ms);
	/* Not by space_at_ms: every segment of a growing file makes that reading old. */
	if (at_ms == 0 || now_ms >= at_ms + SPACE_MS) {
		read_space(s, now_ms);
		atomic_store(&s->is_low, atomic_load(&s->free_bytes) < stop_bytes(s));
		atomic_store(&s->low_at_ms, now_ms);
	}
	return atomic_load(&s->is_low);
}

int store_reserve(struct store *s, uint64_t bytes, uint64_t now_ms)
{
	if (!store_add_within(&s->open_count, 1, s->conf->transfer.open_max))
		return -EDQUOT;
	if (read_space_if_old(s, now_ms) && atomic_load(&s->free_inodes) < INODES_MIN)
		read_space(s, now_ms);
	int err = atomic_load(&s->free_inodes) < INODES_MIN ? -ENOSPC :
		reserve(s, bytes, s->conf->transfer.disk_free_min, now_ms);
	if (err)
		atomic_fetch_sub(&s->open_count, 1);
	return err;
}

void store_allocated(struct store *s, uint64_t bytes)
{
	atomic_fetch_sub(&s->unallocated_bytes, bytes);
	/* The last reading still counts these blocks as free. */
	atomic_store(&s->space_at_ms, 0);
}

void store_release(struct store *s, uint64_t bytes)
{
	atomic_fetch_sub(&s->staged_bytes, bytes);
	atomic_fetch_sub(&s->open_count, 1);
}

void looks_begin(struct looks *l, uint32_t exports)
{
	if (l->until_ns == 0)
		l->until_ns = sys_mono_ns() + LOOKS_NS;
	l->left = exports < LOOKS_MAX ? exports : LOOKS_MAX;
	l->is_oldest_there = false;
}

bool looks_may_go_on(const struct looks *l, const struct pace *p)
{
	return l->left > 0 && pace_wait_ns(p, l->now_ms * 1000000) == 0 && sys_mono_ns() < l->until_ns;
}

void looks_charge(struct looks *l, struct pace *p)
{
	l->left--;
	l->is_oldest_there = true;
	pace_take(p, LOOKS_PER_S, 1, l->now_ms * 1000000);
}

bool store_export_is_gone(const struct store *s, const char *path)
{
	struct sys_stat st;
	int err = sys_stat_at(s->export_fd, path, &st);
	return err == -ENOENT || err == -ENOTDIR;
}
