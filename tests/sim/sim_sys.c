/*
 * The part of ring.h that does not queue, over the simulated disk and network: the table of
 * descriptors, and the calls on them.
 *
 * A descriptor that is not open, or not of the kind that a call is for, is the daemon's mistake:
 * numbers are given out lowest first, as Linux does, so on a real system it would soon be somebody
 * else's. A call that changes the disk takes time, in which other threads get in between, and the
 * process or the machine may die.
 */
#include "sim_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include "sim_daemon.h"
#include "sim_model.h"

enum { FDS_MAX = 1024 };

static struct sim_fd table[FDS_MAX];

/* --- descriptors ------------------------------------------------------------------------------ */

static int fd_new(enum sim_fd_kind kind)
{
	for (int i = 3; i < FDS_MAX; i++) {
		if (table[i].kind == FD_NONE) {
			table[i] = (struct sim_fd){.kind = kind};
			return i;
		}
	}
	sim_fail("more than %d descriptors are open", FDS_MAX);
}

struct sim_fd *sim_fd_get(int fd, enum sim_fd_kind kind)
{
	if (fd == AT_FDCWD) {
		static struct sim_fd cwd;
		cwd = (struct sim_fd){.kind = FD_FILE, .inode = disk.root};
		return &cwd;
	}
	if (fd < 0 || fd >= FDS_MAX || table[fd].kind == FD_NONE)
		sim_fail("descriptor %d is not open", fd);
	if (table[fd].kind != kind)
		sim_fail("descriptor %d is of another kind (%d, not %d)", fd, table[fd].kind, kind);
	return &table[fd];
}

static struct inode *dir_of(int fd)
{
	return sim_fd_get(fd, FD_FILE)->inode;
}

static void pipe_unref(struct sim_pipe *p)
{
	if (--p->refs == 0) {
		sim_free(p->data);
		sim_free(p);
	}
}

static void fd_release(int fd)
{
	struct sim_fd *f = &table[fd];
	switch (f->kind) {
	case FD_NONE:
		sim_fail("descriptor %d is closed twice", fd);
	case FD_FILE:
		if (f->holds_lock)
			inode_unlock(f->inode);
		inode_close(f->inode);
		break;
	case FD_SOCK:
		sock_close(f->sock);
		break;
	case FD_LISTEN:
		break;
	case FD_PIPE_OUT:
	case FD_PIPE_IN:
		pipe_unref(f->pipe);
		break;
	}
	f->kind = FD_NONE;
}

/* A write that a thread waits for. */
struct writing {
	struct writing *next;
	int fd;
	const struct iovec *iov;
	uint32_t iov_count;
	uint64_t off;
};

static struct writing *writings;

/* What the kernel had begun it may have finished, or part of it. */
static void writings_crash(void)
{
	disk.dying = true;
	for (struct writing *w = writings; w; w = w->next) {
		if (sim_chance(5000))
			(void)sim_writev(w->fd, w->iov, w->iov_count, w->off);
	}
	disk.dying = false;
	writings = NULL;
}

void sim_sys_crash(void)
{
	writings_crash();
	net_unlisten();
	for (int i = 0; i < FDS_MAX; i++) {
		if (table[i].kind != FD_NONE)
			fd_release(i);
	}
}

void sim_sys_reset(void)
{
	writings = NULL;
	for (int i = 0; i < FDS_MAX; i++) {
		if (table[i].kind == FD_PIPE_IN || table[i].kind == FD_PIPE_OUT)
			pipe_unref(table[i].pipe);
		table[i].kind = FD_NONE;
	}
}

uint32_t sim_sys_open_count(char *ret_first, size_t ret_max)
{
	static const char *const names[] = {"", "file", "socket", "listener", "pipe", "pipe"};
	uint32_t count = 0;
	for (int i = 0; i < FDS_MAX; i++) {
		if (table[i].kind == FD_NONE)
			continue;
		if (count++ == 0)
			snprintf(ret_first, ret_max, "descriptor %d (%s)", i, names[table[i].kind]);
	}
	return count;
}

int sim_fd_of_sock(struct sock *s)
{
	int fd = fd_new(FD_SOCK);
	table[fd].sock = s;
	return fd;
}

/* A blocking call: time passes. */
static void pause_here(void)
{
	if (sim_thread_self())
		sim_sleep(sim_skewed(500, 200000));
}

/* --- sockets and pipes ------------------------------------------------------------------------ */

int sock_accept(int fd)
{
	(void)sim_fd_get(fd, FD_LISTEN);
	struct sock *s = net_accept();
	return s ? sim_fd_of_sock(s) : -EAGAIN;
}

int sock_recv(int fd, void *buf, uint32_t len)
{
	return sock_take(sim_fd_get(fd, FD_SOCK)->sock, buf, len, false);
}

int sock_peek(int fd, void *buf, uint32_t len)
{
	return sock_take(sim_fd_get(fd, FD_SOCK)->sock, buf, len, true);
}

int sock_discard(int fd, uint32_t len)
{
	return sock_take(sim_fd_get(fd, FD_SOCK)->sock, NULL, len, false);
}

int sock_splice(int fd, int pipe_fd, uint32_t len)
{
	struct sim_pipe *p = sim_fd_get(pipe_fd, FD_PIPE_IN)->pipe;
	struct sock *s = sim_fd_get(fd, FD_SOCK)->sock;
	uint32_t room = p->max - p->bytes;
	if (room == 0 || (p->bytes > 0 && sim_chance(500)))
		return -EAGAIN; /* its slots may be used up before its bytes */
	if (p->begin > 0) {
		memmove(p->data, p->data + p->begin, p->bytes);
		p->begin = 0;
	}
	int n = sock_take(s, p->data + p->bytes, len < room ? len : room, false);
	if (n > 0)
		p->bytes += (uint32_t)n;
	return n;
}

void sock_shutdown_send(int fd)
{
	sock_end(sim_fd_get(fd, FD_SOCK)->sock);
}

void sock_peer_name(int fd, char *ret, size_t ret_max)
{
	snprintf(ret, ret_max, "sim:%u", sock_id(sim_fd_get(fd, FD_SOCK)->sock));
}

void sock_peer_address(int fd, uint8_t ret[16])
{
	(void)sim_fd_get(fd, FD_SOCK);
	memset(ret, 0, 16); /* all clients are on one machine */
}

void sock_setup(int fd)
{
	(void)sim_fd_get(fd, FD_SOCK);
}

int pipe_open(uint32_t bytes, int ret_fds[2], uint32_t *ret_bytes)
{
	struct sim_pipe *p = sim_alloc(sizeof(*p));
	p->max = bytes;
	p->refs = 2;
	p->data = sim_alloc(bytes);
	ret_fds[0] = fd_new(FD_PIPE_OUT);
	table[ret_fds[0]].pipe = p;
	ret_fds[1] = fd_new(FD_PIPE_IN);
	table[ret_fds[1]].pipe = p;
	*ret_bytes = bytes;
	return 0;
}

/* --- listening -------------------------------------------------------------------------------- */

int sys_listen(const char *addr_port, bool reuse_port, int *ret_fd, char *ret_name, size_t name_max)
{
	(void)reuse_port;
	net_listen();
	*ret_fd = fd_new(FD_LISTEN);
	snprintf(ret_name, name_max, "%s", addr_port);
	return 0;
}

/* --- files ------------------------------------------------------------------------------------ */

int sim_openat(int dir_fd, const char *path, int flags)
{
	int err = 0, fd;
	struct inode *found, *dir = dir_of(dir_fd);
	if ((flags & O_TMPFILE) == O_TMPFILE) {
		found = disk_create_unnamed();
	} else {
		const char *name;
		found = disk_find(dir, path, &err);
		if (found && flags & O_CREAT && flags & O_EXCL)
			return -EEXIST;
		if (!found && (err != -ENOENT || !(flags & O_CREAT)))
			return err;
		if (!found && !(dir = disk_parent(dir, path, &name, &err)))
			return err;
		if (!found && disk_free_bytes() == 0)
			return -ENOSPC;
		if (!found)
			found = disk_create(dir, name, false);
	}
	if (flags & O_DIRECTORY && (flags & O_TMPFILE) != O_TMPFILE && !inode_is_dir(found))
		return -ENOTDIR;
	if (flags & O_TRUNC && (err = inode_truncate(found, 0)) < 0)
		return err;
	fd = fd_new(FD_FILE);
	table[fd].inode = found;
	inode_open(found);
	return fd;
}

int sys_openat(int dir_fd, const char *path, int flags, uint32_t mode)
{
	(void)mode;
	if (flags & O_CREAT)
		pause_here();
	return sim_openat(dir_fd, path, flags);
}

static int sim_mkdirat(int dir_fd, const char *path)
{
	const char *name;
	int err = 0;
	struct inode *dir = disk_parent(dir_of(dir_fd), path, &name, &err);
	if (!dir)
		return err;
	if (disk_find(dir, name, &err))
		return -EEXIST;
	if (err != -ENOENT)
		return err;
	if (disk_free_bytes() == 0)
		return -ENOSPC;
	disk_create(dir, name, true);
	return 0;
}

int sys_mkdirat(int dir_fd, const char *path, uint32_t mode)
{
	(void)mode;
	pause_here();
	return sim_mkdirat(dir_fd, path);
}

int sys_mkdirs(const char *path, uint32_t mode)
{
	char copy[4096];
	(void)mode;
	for (size_t i = 1;; i++) {
		if (path[i] != '/' && path[i])
			continue;
		snprintf(copy, sizeof(copy), "%.*s", (int)i, path);
		pause_here();
		int err = sim_mkdirat(AT_FDCWD, copy);
		if (err && err != -EEXIST)
			return err;
		if (!path[i])
			return 0;
	}
}

int sys_close(int fd)
{
	if (fd < 0 || fd >= FDS_MAX)
		sim_fail("descriptor %d is closed", fd);
	fd_release(fd);
	return 0;
}

int64_t sys_pread(int fd, void *buf, size_t len, uint64_t off)
{
	size_t got = 0;
	while (got < len) {
		size_t step = len - got;
		if (step > 4096 && sim_chance(3000))
			step = (size_t)sim_between(1, step);
		pause_here();
		int64_t n = inode_read(sim_fd_get(fd, FD_FILE)->inode, (char *)buf + got, step, off + got);
		if (n < 0)
			return n;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (int64_t)got;
}

int sim_writev(int fd, const struct iovec *iov, uint32_t iov_count, uint64_t off)
{
	struct inode *file = sim_fd_get(fd, FD_FILE)->inode;
	int64_t total = 0;
	for (uint32_t i = 0; i < iov_count; i++) {
		int64_t n = inode_write(file, iov[i].iov_base, iov[i].iov_len, off);
		if (n < 0)
			return (int)(total ? total : n);
		total += n;
		off += (uint64_t)n;
		if ((size_t)n < iov[i].iov_len)
			break;
	}
	return (int)total;
}

/* What replaces bytes in their place is at its most delicate before it is done. */
void sim_write_begins(int fd, const struct iovec *iov, uint32_t iov_count, uint64_t off)
{
	const struct inode *i = sim_fd_get(fd, FD_FILE)->inode;
	if (iov_count > 0 && inode_replaces(i, iov[0].iov_base, iov[0].iov_len, off))
		sim_moment(3000);
}

int sys_pwritev(int fd, const struct iovec *iov, uint32_t iov_count, uint64_t off)
{
	struct writing w = {.next = writings, .fd = fd, .iov = iov, .iov_count = iov_count, .off = off};
	struct writing **at = &writings;
	writings = &w;
	sim_write_begins(fd, iov, iov_count, off);
	pause_here();
	while (*at != &w)
		at = &(*at)->next;
	*at = w.next;
	return sim_writev(fd, iov, iov_count, off);
}

int sys_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
	struct iovec rest = {(void *)(uintptr_t)buf, len};
	while (rest.iov_len > 0) {
		int n = sys_pwritev(fd, &rest, 1, off);
		if (n < 0)
			return n;
		rest.iov_base = (char *)rest.iov_base + n;
		rest.iov_len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

int sys_copy_range(int from_fd, uint64_t from_off, int to_fd, uint64_t to_off, uint64_t len)
{
	uint8_t step[4096];
	while (len > 0) {
		size_t bytes = len < sizeof(step) ? (size_t)len : sizeof(step);
		int64_t n = sys_pread(from_fd, step, bytes, from_off);
		if (n >= 0 && (size_t)n < bytes)
			n = -EIO;
		if (n >= 0)
			n = sys_pwrite(to_fd, step, bytes, to_off);
		if (n < 0)
			return (int)n;
		from_off += bytes;
		to_off += bytes;
		len -= bytes;
	}
	return 0;
}

int sys_fsync(int fd)
{
	pause_here();
	return inode_sync(sim_fd_get(fd, FD_FILE)->inode);
}

int sys_syncfs(int fd)
{
	(void)sim_fd_get(fd, FD_FILE);
	pause_here();
	return disk_sync_everything();
}

void sys_write_behind(int fd)
{
	(void)sim_fd_get(fd, FD_FILE);
}

uint64_t sys_dirty_bytes(void)
{
	return sim_chance(disk.conf.dirty_chance) ? UINT64_MAX : 0;
}

int sys_ftruncate(int fd, uint64_t len)
{
	pause_here();
	return inode_truncate(sim_fd_get(fd, FD_FILE)->inode, len);
}

int sys_fallocate(int fd, uint64_t off, uint64_t len)
{
	pause_here();
	return inode_allocate(sim_fd_get(fd, FD_FILE)->inode, off, len);
}

int sys_fchown_group(int fd, uint32_t gid)
{
	(void)gid;
	(void)sim_fd_get(fd, FD_FILE);
	return 0;
}

int sys_fchmod(int fd, uint32_t mode)
{
	inode_set_mode(sim_fd_get(fd, FD_FILE)->inode, mode);
	return 0;
}

static int sim_renameat(int from_dir, const char *from, int to_dir, const char *to, uint32_t flags)
{
	const char *from_name, *to_name;
	int err = 0;
	struct inode *a = disk_parent(dir_of(from_dir), from, &from_name, &err);
	struct inode *b = a ? disk_parent(dir_of(to_dir), to, &to_name, &err) : NULL;
	if (!b)
		return err;
	err = disk_rename(a, from_name, b, to_name, !(flags & RENAME_NOREPLACE));
	if (!err)
		sim_on_renamed(a, from_name, b, to_name);
	return err;
}

int sys_renameat2(int from_dir, const char *from, int to_dir, const char *to, uint32_t flags)
{
	pause_here();
	return sim_renameat(from_dir, from, to_dir, to, flags);
}

int sim_unlinkat(int dir_fd, const char *path, int flags)
{
	const char *name;
	int err = 0;
	struct inode *dir = disk_parent(dir_of(dir_fd), path, &name, &err);
	return dir ? disk_unlink(dir, name, flags & AT_REMOVEDIR) : err;
}

int sys_unlinkat(int dir_fd, const char *path, int flags)
{
	pause_here();
	/* From now on the page cache is not believed at the next start. */
	if (daemon_state() != DAEMON_STARTING && strcmp(path, "page-cache") == 0)
		model_machine_crashed();
	return sim_unlinkat(dir_fd, path, flags);
}

int sys_lock_dir(int fd)
{
	struct sim_fd *f = sim_fd_get(fd, FD_FILE);
	if (!inode_lock(f->inode))
		return -EAGAIN;
	f->holds_lock = true;
	return 0;
}

static void stat_fill(const struct inode *i, struct sys_stat *ret)
{
	*ret = (struct sys_stat){.size = inode_size(i), .ino = inode_number(i), .dev = 1,
		.blocks_bytes = inode_blocks_bytes(i), .mode = inode_mode(i), .is_dir = inode_is_dir(i),
		.is_regular = !inode_is_dir(i), .mtime_ns = inode_mtime_ms(i) * 1000000};
}

int sys_fstat(int fd, struct sys_stat *ret)
{
	stat_fill(sim_fd_get(fd, FD_FILE)->inode, ret);
	return 0;
}

int sys_stat_at(int dir_fd, const char *path, struct sys_stat *ret)
{
	int err = 0;
	const struct inode *i = disk_find(dir_of(dir_fd), path, &err);
	if (!i)
		return err;
	stat_fill(i, ret);
	return 0;
}

int sys_space(int fd, struct sys_space *ret)
{
	(void)sim_fd_get(fd, FD_FILE);
	*ret = (struct sys_space){.free_bytes = disk_free_bytes(), .free_inodes = 1000000,
		.has_inodes = true};
	return 0;
}

/* The names as they are when it is opened. */
struct sys_dir {
	int fd;
	size_t at, bytes;
	char *names; /* each with its NUL */
};

static int dir_keep(void *arg, const char *name)
{
	struct sys_dir *d = arg;
	size_t bytes = strlen(name) + 1;
	char *names = sim_alloc(d->bytes + bytes);
	if (d->names)
		memcpy(names, d->names, d->bytes);
	memcpy(names + d->bytes, name, bytes);
	sim_free(d->names);
	d->names = names;
	d->bytes += bytes;
	return 0;
}

int sys_dir_open(int dir_fd, const char *path, struct sys_dir **ret)
{
	int fd = sim_openat(dir_fd, path, O_DIRECTORY);
	if (fd < 0)
		return fd;
	struct sys_dir *d = sim_alloc(sizeof(*d));
	*d = (struct sys_dir){.fd = fd};
	(void)disk_list(dir_of(fd), dir_keep, d);
	*ret = d;
	return 0;
}

int sys_dir_fd(const struct sys_dir *d)
{
	return d->fd;
}

const char *sys_dir_next(struct sys_dir *d)
{
	const char *name = d->names + d->at;
	if (d->at == d->bytes)
		return NULL;
	d->at += strlen(name) + 1;
	return name;
}

void sys_dir_close(struct sys_dir *d)
{
	fd_release(d->fd);
	sim_free(d->names);
	sim_free(d);
}

int sys_list_dir(int dir_fd, int (*fn)(void *arg, const char *name), void *arg)
{
	return disk_list(dir_of(dir_fd), fn, arg);
}

int sys_cache_identity(int dir_fd, char *ret, size_t ret_max)
{
	snprintf(ret, ret_max, "boot %u inode %llu\n", disk.boot,
		(unsigned long long)inode_number(dir_of(dir_fd)));
	return 0;
}

void sys_umask_clear(void)
{
}

/* --- time, chance, the log -------------------------------------------------------------------- */

int sys_random(void *buf, size_t len)
{
	uint8_t *to = buf;
	for (size_t i = 0; i < len; i++)
		to[i] = (uint8_t)(sim_random() >> 33);
	return 0;
}

int64_t sys_wall_ms(void)
{
	return INT64_C(1790000000000) + (int64_t)(sim.now_ns / SIM_MS);
}

uint64_t sys_mono_ns(void)
{
	return sim.now_ns;
}

uint64_t sys_mono_ms(void)
{
	return sim.now_ns / SIM_MS;
}

void sys_sleep_ms(uint32_t ms)
{
	sim_sleep(ms * SIM_MS);
}

void sys_log_put(const char *line, size_t bytes)
{
	size_t skip = bytes > 25 ? 25 : 0; /* the time, which the trace has anyway */
	char copy[4200];
	snprintf(copy, sizeof(copy), "%.*s", (int)(bytes - skip - 1), line + skip);
	SIM_TRACE(copy, 0, 0, "log   %s", copy);
}

uint64_t sys_rss_bytes(void)
{
	return 0;
}
