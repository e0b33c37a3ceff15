/*
 * The part of ring.h that does not queue: calls on sockets and pipes that never wait, and blocking
 * calls for start-up, recovery and worker threads.
 */
#include "ring.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/btrfs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int64_t result(ssize_t n)
{
	return n < 0 ? -errno : n;
}

/* --- sockets and pipes ------------------------------------------------------------------------ */

int sock_accept(int fd)
{
	return (int)result(accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

int sock_recv(int fd, void *buf, uint32_t len)
{
	return (int)result(recv(fd, buf, len, MSG_DONTWAIT));
}

int sock_peek(int fd, void *buf, uint32_t len)
{
	return (int)result(recv(fd, buf, len, MSG_DONTWAIT | MSG_PEEK));
}

int sock_discard(int fd, uint32_t len)
{
	/* MSG_TRUNC on TCP drops the bytes in the kernel; the buffer is never touched. tcp(7) Not
	 * by recv(), which sanitizers replace with one that takes len bytes at NULL for written. */
	return (int)result(syscall(SYS_recvfrom, fd, NULL, (size_t)len, MSG_DONTWAIT | MSG_TRUNC, NULL, NULL));
}

int sock_splice(int fd, int pipe_fd, uint32_t len)
{
	return (int)result(splice(fd, NULL, pipe_fd, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK));
}

void sock_shutdown_send(int fd)
{
	(void)shutdown(fd, SHUT_WR);
}

static void name_of(const struct sockaddr_storage *ss, char *ret, size_t ret_max)
{
	char host[INET6_ADDRSTRLEN] = "?";
	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)ss;
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(ret, ret_max, "%s:%u", host, ntohs(in->sin_port));
	} else if (ss->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)ss;
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(ret, ret_max, "[%s]:%u", host, ntohs(in6->sin6_port));
	} else {
		snprintf(ret, ret_max, "?");
	}
}

void sock_peer_name(int fd, char *ret, size_t ret_max)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	if (getpeername(fd, (struct sockaddr *)&ss, &len) < 0)
		ss.ss_family = AF_UNSPEC;
	name_of(&ss, ret, ret_max);
}

void sock_peer_address(int fd, uint8_t ret[16])
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	memset(ret, 0, 16);
	if (getpeername(fd, (struct sockaddr *)&ss, &len) < 0)
		return;
	if (ss.ss_family == AF_INET) {
		memcpy(ret + 12, &((const struct sockaddr_in *)&ss)->sin_addr, 4);
		return;
	}
	const struct in6_addr *in6 = &((const struct sockaddr_in6 *)&ss)->sin6_addr;
	if (ss.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(in6))
		memcpy(ret + 12, in6->s6_addr + 12, 4);
	else if (ss.ss_family == AF_INET6)
		memcpy(ret, in6, 8);
}

void sock_setup(int fd)
{
	int one = 1;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

int pipe_open(uint32_t bytes, int ret_fds[2], uint32_t *ret_bytes)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	(void)fcntl(fds[1], F_SETPIPE_SZ, (int)bytes); /* refused without privilege: what it is counts */
	int size = fcntl(fds[1], F_GETPIPE_SZ);
	ret_fds[0] = fds[0];
	ret_fds[1] = fds[1];
	*ret_bytes = size > 0 ? (uint32_t)size : 4096;
	return 0;
}

/* --- listening -------------------------------------------------------------------------------- */

/* "1.2.3.4:80", "[::1]:80", "host:80" → host and port. */
static int split_address(const char *addr_port, char *ret_host, size_t host_max, const char **ret_port)
{
	const char *colon = strrchr(addr_port, ':'), *from = addr_port, *to = colon;
	if (!colon)
		return -EINVAL;
	if (*from == '[') {
		if (to <= from + 2 || to[-1] != ']')
			return -EINVAL;
		from++;
		to--;
	}
	if ((size_t)(to - from) >= host_max)
		return -EINVAL;
	memcpy(ret_host, from, (size_t)(to - from));
	ret_host[to - from] = 0;
	*ret_port = colon + 1;
	return 0;
}

int sys_listen(const char *addr_port, bool reuse_port, int *ret_fd, char *ret_name, size_t name_max)
{
	char host[256];
	const char *port;
	if (split_address(addr_port, host, sizeof(host), &port) < 0)
		return -EINVAL;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *info;
	if (getaddrinfo(*host ? host : NULL, port, &hints, &info) != 0)
		return -EADDRNOTAVAIL;
	int one = 1, err = 0;
	int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		err = -errno;
	else if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
		(reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) < 0) ||
		bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, 4096) < 0)
		err = -errno;
	freeaddrinfo(info);
	if (err) {
		if (fd >= 0)
			close(fd);
		return err;
	}
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	(void)getsockname(fd, (struct sockaddr *)&ss, &len);
	name_of(&ss, ret_name, name_max);
	*ret_fd = fd;
	return 0;
}

/* --- files ------------------------------------------------------------------------------------ */

int sys_openat(int dir_fd, const char *path, int flags, uint32_t mode)
{
	return (int)result(openat(dir_fd, path, flags | O_CLOEXEC, mode));
}

int sys_mkdirs(const char *path, uint32_t mode)
{
	char copy[PATH_MAX];
	size_t bytes = strlen(path);
	if (bytes == 0 || bytes >= sizeof(copy))
		return -ENAMETOOLONG;
	memcpy(copy, path, bytes + 1);
	for (char *p = copy + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		if (mkdir(copy, mode) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	if (mkdir(copy, mode) < 0 && errno != EEXIST)
		return -errno;
	struct stat st;
	if (stat(copy, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int sys_close(int fd)
{
	return (int)result(close(fd));
}

int64_t sys_pread(int fd, void *buf, size_t len, uint64_t off)
{
	size_t got = 0;
	while (got < len) {
		ssize_t n = pread(fd, (char *)buf + got, len - got, (off_t)(off + got));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (int64_t)got;
}

int sys_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
	size_t put = 0;
	while (put < len) {
		ssize_t n = pwrite(fd, (const char *)buf + put, len - put, (off_t)(off + put));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		put += (size_t)n;
	}
	return 0;
}

static int copy_by_hand(int from_fd, uint64_t from_off, int to_fd, uint64_t to_off, uint64_t len)
{
	enum { STEP = 256 * 1024 };
	uint8_t *step = malloc(STEP);
	int err = step ? 0 : -ENOMEM;
	while (!err && len > 0) {
		size_t bytes = len < STEP ? (size_t)len : STEP;
		int64_t n = sys_pread(from_fd, step, bytes, from_off);
		if (n < 0)
			err = (int)n;
		else if ((size_t)n < bytes)
			err = -EIO;
		else
			err = sys_pwrite(to_fd, step, bytes, to_off);
		from_off += bytes;
		to_off += bytes;
		len -= bytes;
	}
	free(step);
	return err;
}

int sys_copy_range(int from_fd, uint64_t from_off, int to_fd, uint64_t to_off, uint64_t len)
{
	while (len > 0) {
		loff_t from = (loff_t)from_off, to = (loff_t)to_off;
		ssize_t n = copy_file_range(from_fd, &from, to_fd, &to, len < 1u << 30 ? len : 1u << 30, 0);
		if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS))
			return copy_by_hand(from_fd, from_off, to_fd, to_off, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		from_off += (uint64_t)n;
		to_off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int sys_pwritev(int fd, const struct iovec *iov, uint32_t iov_count, uint64_t off)
{
	return (int)result(pwritev(fd, iov, (int)iov_count, (off_t)off));
}

int sys_fsync(int fd)
{
	return (int)result(fsync(fd));
}

int sys_syncfs(int fd)
{
	return syncfs(fd) < 0 ? -errno : 0;
}

void sys_write_behind(int fd)
{
	(void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static uint64_t meminfo_bytes(const char *text, const char *key)
{
	unsigned long long kib;
	const char *at = strstr(text, key);
	return at && sscanf(at + strlen(key), "%llu", &kib) == 1 ? kib * 1024 : UINT64_MAX;
}

uint64_t sys_dirty_bytes(void)
{
	char text[4096];
	int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return UINT64_MAX;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	uint64_t dirty = meminfo_bytes(text, "\nDirty:"), writeback = meminfo_bytes(text, "\nWriteback:");
	return dirty == UINT64_MAX || writeback == UINT64_MAX ? UINT64_MAX : dirty + writeback;
}

int sys_ftruncate(int fd, uint64_t len)
{
	return (int)result(ftruncate(fd, (off_t)len));
}

int sys_fallocate(int fd, uint64_t off, uint64_t len)
{
	return (int)result(fallocate(fd, 0, (off_t)off, (off_t)len));
}

int sys_fchown_group(int fd, uint32_t gid)
{
	return (int)result(fchown(fd, (uid_t)-1, gid));
}

int sys_fchmod(int fd, uint32_t mode)
{
	return (int)result(fchmod(fd, mode));
}

int sys_mkdirat(int dir_fd, const char *path, uint32_t mode)
{
	return mkdirat(dir_fd, path, mode) < 0 ? -errno : 0;
}

int sys_renameat2(int from_dir, const char *from, int to_dir, const char *to, uint32_t flags)
{
	return (int)result(renameat2(from_dir, from, to_dir, to, flags));
}

int sys_unlinkat(int dir_fd, const char *path, int flags)
{
	return (int)result(unlinkat(dir_fd, path, flags));
}

int sys_lock_dir(int fd)
{
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	return errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

static void stat_fill(const struct stat *st, struct sys_stat *ret)
{
	*ret = (struct sys_stat){.size = (uint64_t)st->st_size, .ino = st->st_ino, .dev = st->st_dev,
		.blocks_bytes = (uint64_t)st->st_blocks * 512, .mode = st->st_mode & 07777,
		.is_dir = S_ISDIR(st->st_mode), .is_regular = S_ISREG(st->st_mode),
		.mtime_ns = st->st_mtim.tv_sec * 1000000000LL + st->st_mtim.tv_nsec};
}

int sys_fstat(int fd, struct sys_stat *ret)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	stat_fill(&st, ret);
	return 0;
}

int sys_stat_at(int dir_fd, const char *path, struct sys_stat *ret)
{
	struct stat st;
	if (fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	stat_fill(&st, ret);
	return 0;
}

int sys_space(int fd, struct sys_space *ret)
{
	struct statfs fs;
	if (fstatfs(fd, &fs) < 0)
		return -errno;
	*ret = (struct sys_space){.free_bytes = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize,
		.free_inodes = fs.f_ffree, .has_inodes = fs.f_files > 0};
	return 0;
}

int sys_dir_open(int dir_fd, const char *path, struct sys_dir **ret)
{
	int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), err;
	if (fd < 0)
		return -errno;
	DIR *dir = fdopendir(fd);
	if (!dir) {
		err = -errno;
		close(fd);
		return err;
	}
	*ret = (struct sys_dir *)dir;
	return 0;
}

int sys_dir_fd(const struct sys_dir *d)
{
	return dirfd((DIR *)d);
}

const char *sys_dir_next(struct sys_dir *d)
{
	const struct dirent *entry;
	do {
		entry = readdir((DIR *)d);
	} while (entry && (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")));
	return entry ? entry->d_name : NULL;
}

void sys_dir_close(struct sys_dir *d)
{
	closedir((DIR *)d);
}

int sys_list_dir(int dir_fd, int (*fn)(void *arg, const char *name), void *arg)
{
	struct sys_dir *dir;
	const char *name;
	int err = sys_dir_open(dir_fd, ".", &dir);
	if (err)
		return err;
	while (!err && (name = sys_dir_next(dir)))
		err = fn(arg, name);
	sys_dir_close(dir);
	return err;
}

/* The kernel's object of a mounted file system in sysfs: made when the first mount of it is, gone
 * with the last one. False: this kind of file system has none, or there is no sysfs. */
static bool sysfs_path(int dir_fd, dev_t dev, long type, char *ret, size_t ret_max)
{
	enum { EXT4 = 0xef53, XFS = 0x58465342, F2FS = 0xf2f52010, BTRFS = 0x9123683e };
	const char *kind = (unsigned)type == EXT4 ? "ext4" : (unsigned)type == XFS ? "xfs" :
		(unsigned)type == F2FS ? "f2fs" : NULL;
	if ((unsigned)type == BTRFS) { /* over any number of devices: it goes by its UUID */
		struct btrfs_ioctl_fs_info_args info = {0};
		const uint8_t *id = info.fsid;
		if (ioctl(dir_fd, BTRFS_IOC_FS_INFO, &info) < 0)
			return false;
		snprintf(ret, ret_max, "/sys/fs/btrfs/%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
			"%02x%02x%02x%02x%02x%02x", id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7],
			id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]);
		return true;
	}
	char block[64], device[256];
	snprintf(block, sizeof(block), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	ssize_t n = kind ? readlink(block, device, sizeof(device) - 1) : -1;
	if (n <= 0)
		return false;
	device[n] = 0;
	const char *name = strrchr(device, '/');
	snprintf(ret, ret_max, "/sys/fs/%s/%s", kind, name ? name + 1 : device);
	return true;
}

/* The number of that object, which is given once in a boot; else of the mount, which also changes
 * when only the mount point does. A file system in memory ends with its mount, and so do its
 * files. */
static void mounted_as(int dir_fd, dev_t dev, long type, char *ret, size_t ret_max)
{
	enum { TMPFS = 0x01021994 };
	char path[320];
	struct stat st;
	struct statx stx;
	if (sysfs_path(dir_fd, dev, type, path, sizeof(path)) && stat(path, &st) == 0)
		snprintf(ret, ret_max, "super %llu", (unsigned long long)st.st_ino);
	else if ((unsigned)type != TMPFS && statx(dir_fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &stx) == 0 &&
		stx.stx_mask & STATX_MNT_ID)
		snprintf(ret, ret_max, "mount %llu", (unsigned long long)stx.stx_mnt_id);
	else
		snprintf(ret, ret_max, "memory");
}

int sys_cache_identity(int dir_fd, char *ret, size_t ret_max)
{
	char boot[64], mounted[48];
	struct stat st;
	struct statfs fs;
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = read(fd, boot, sizeof(boot) - 1);
	close(fd);
	if (n < 36)
		return -EIO;
	boot[36] = 0;
	if (fstat(dir_fd, &st) < 0 || fstatfs(dir_fd, &fs) < 0)
		return -errno;
	mounted_as(dir_fd, st.st_dev, (long)fs.f_type, mounted, sizeof(mounted));
	snprintf(ret, ret_max, "boot %s dev %llx fs %x%x %s inode %llu\n", boot, (unsigned long long)st.st_dev,
		(unsigned)fs.f_fsid.__val[0], (unsigned)fs.f_fsid.__val[1], mounted, (unsigned long long)st.st_ino);
	return 0;
}

void sys_umask_clear(void)
{
	umask(0);
}

/* --- time, chance, the log -------------------------------------------------------------------- */

int sys_random(void *buf, size_t len)
{
	return getrandom(buf, len, 0) == (ssize_t)len ? 0 : -EIO;
}

int64_t sys_wall_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

uint64_t sys_mono_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void sys_sleep_ms(uint32_t ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
	nanosleep(&ts, NULL);
}

uint64_t sys_mono_ms(void)
{
	return sys_mono_ns() / 1000000;
}

void sys_log_put(const char *line, size_t bytes)
{
	ssize_t n = write(STDERR_FILENO, line, bytes);
	(void)n; /* a log that can't be written has nowhere to say so */
}

uint64_t sys_rss_bytes(void)
{
	char text[128];
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	unsigned long long pages = 0;
	text[n > 0 ? n : 0] = 0;
	if (sscanf(text, "%*u %llu", &pages) != 1)
		return 0;
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}
