/*
 * daemon/ring_sys.c: the calls on sockets and pipes that never wait, and the blocking ones of
 * start-up and recovery, on a real directory and over loopback.
 */
#include "ring_world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>

static struct ring_world w;

static void set_up(void)
{
	ring_world_init(&w);
	umask(0);
}

static void tear_down(void)
{
	ring_world_fini(&w);
}

TestSuite(ring_sys, .init = set_up, .fini = tear_down);

static const char *in_dir(const char *name)
{
	static char path[128];
	snprintf(path, sizeof(path), "%s/%s", w.dir, name);
	return path;
}

/* --- sockets and pipes ------------------------------------------------------------------------ */

/* Two ends of a TCP connection, non-blocking. */
static void tcp_pair(const char *address, int ret[2])
{
	char name[64];
	int listener;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	cr_assert_eq(sys_listen(address, false, &listener, name, sizeof(name)), 0);
	getsockname(listener, (struct sockaddr *)&ss, &len);
	ret[0] = socket(ss.ss_family, SOCK_STREAM, 0);
	cr_assert_eq(connect(ret[0], (struct sockaddr *)&ss, len), 0);
	fcntl(ret[0], F_SETFL, O_NONBLOCK);
	while ((ret[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) < 0)
		cr_assert_eq(errno, EAGAIN);
	close(listener);
}

/* Loopback delivers soon, but not at once. */
static int recv_soon(int fd, void *buf, uint32_t len)
{
	int n;
	uint64_t end_ms = sys_mono_ms() + 5000;
	while ((n = sock_recv(fd, buf, len)) == -EAGAIN && sys_mono_ms() < end_ms)
		usleep(200);
	return n;
}

static void wait_for(int fd, int bytes)
{
	char got[64];
	uint64_t end_ms = sys_mono_ms() + 5000;
	while (sock_peek(fd, got, sizeof(got)) < bytes && sys_mono_ms() < end_ms)
		usleep(200);
}

Test(ring_sys, sockets_never_wait)
{
	char got[32];
	int s[2];
	tcp_pair("127.0.0.1:0", s);
	cr_expect_eq(sock_recv(s[1], got, sizeof(got)), -EAGAIN);
	cr_expect_eq(sock_peek(s[1], got, sizeof(got)), -EAGAIN);
	cr_expect_eq(sock_discard(s[1], 10), -EAGAIN);
	cr_expect_eq(write(s[0], "0123456789abcdef", 16), 16);
	wait_for(s[1], 16);
	cr_expect_eq(sock_peek(s[1], got, 3), 3);
	cr_expect_arr_eq(got, "012", 3);
	cr_expect_eq(sock_recv(s[1], got, 2), 2);
	cr_expect_arr_eq(got, "01", 2, "what was peeked at is still there");
	cr_expect_eq(sock_discard(s[1], 5), 5);
	cr_expect_eq(sock_recv(s[1], got, sizeof(got)), 9);
	cr_expect_arr_eq(got, "789abcdef", 9);
	cr_expect_eq(write(s[0], "xyz", 3), 3);
	wait_for(s[1], 3);
	cr_expect_eq(sock_discard(s[1], 1 << 20), 3, "drops what there is");
	sock_shutdown_send(s[0]);
	cr_expect_eq(recv_soon(s[1], got, sizeof(got)), 0);
	cr_expect_eq(sock_peek(s[1], got, sizeof(got)), 0);
	cr_expect_eq(sock_discard(s[1], 5), 0);
	close(s[0]);
	close(s[1]);
	cr_expect_eq(sock_recv(s[1], got, 1), -EBADF);
	sock_shutdown_send(s[1]);
}

Test(ring_sys, splice_moves_what_there_is)
{
	static char data[1 << 16], got[1 << 16];
	uint32_t pipe_bytes = 0;
	int s[2], p[2], n;
	tcp_pair("127.0.0.1:0", s);
	cr_assert_eq(pipe_open(8192, p, &pipe_bytes), 0);
	cr_expect_geq(pipe_bytes, 8192);
	cr_expect_eq(fcntl(p[1], F_GETPIPE_SZ), (int)pipe_bytes);
	cr_expect_eq(sock_splice(s[1], p[1], 100), -EAGAIN);
	cr_expect_eq(read(p[0], got, sizeof(got)), -1);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 7 + i / 251);
	cr_assert_eq(write(s[0], data, sizeof(data)), (ssize_t)sizeof(data));
	wait_for(s[1], 64);
	cr_expect_eq(sock_splice(s[1], p[1], 10), 10, "not a byte more than asked for");
	uint32_t in_pipe = 10;
	while ((n = sock_splice(s[1], p[1], sizeof(data))) > 0)
		in_pipe += (uint32_t)n;
	cr_expect_eq(n, -EAGAIN, "the pipe is full: %d", n);
	cr_expect_lt(in_pipe, sizeof(data));
	cr_expect_eq(read(p[0], got, sizeof(got)), (ssize_t)in_pipe);
	cr_expect_arr_eq(got, data, in_pipe);
	while (in_pipe < sizeof(data) && (n = recv_soon(s[1], got, sizeof(got))) > 0) {
		cr_expect_arr_eq(got, data + in_pipe, (size_t)n, "and nothing is lost between them");
		in_pipe += (uint32_t)n;
	}
	cr_expect_eq(in_pipe, sizeof(data));
	sock_shutdown_send(s[0]);
	cr_expect_eq(recv_soon(s[1], got, 1), 0);
	cr_expect_eq(sock_splice(s[1], p[1], 10), 0, "the end");
	close(p[1]);
	cr_expect_eq(read(p[0], got, sizeof(got)), 0);
	close(p[0]);
	close(s[0]);
	close(s[1]);
}

Test(ring_sys, names_and_options_of_a_peer)
{
	char name[64], wanted[64], small[8];
	int s[2], one = 0;
	socklen_t len = sizeof(one);
	struct sockaddr_in in;
	socklen_t in_len = sizeof(in);
	tcp_pair("127.0.0.1:0", s);
	getsockname(s[0], (struct sockaddr *)&in, &in_len);
	snprintf(wanted, sizeof(wanted), "127.0.0.1:%u", ntohs(in.sin_port));
	sock_peer_name(s[1], name, sizeof(name));
	cr_expect_str_eq(name, wanted);
	sock_peer_name(s[1], small, sizeof(small));
	cr_expect_str_eq(small, "127.0.0");
	sock_setup(s[1]);
	cr_expect_eq(getsockopt(s[1], IPPROTO_TCP, TCP_NODELAY, &one, &len), 0);
	cr_expect(one);
	close(s[0]);
	close(s[1]);
	sock_peer_name(s[1], name, sizeof(name));
	cr_expect_str_eq(name, "?");
}

Test(ring_sys, address_of_a_peer)
{
	static const uint8_t v4[16] = {[12] = 127, [15] = 1}, none[16];
	uint8_t bytes[16];
	char name[64];
	int s[2], probe;
	tcp_pair("127.0.0.1:0", s);
	sock_peer_address(s[1], bytes);
	cr_expect_arr_eq(bytes, v4, 16);
	close(s[0]);
	close(s[1]);
	sock_peer_address(s[1], bytes);
	cr_expect_arr_eq(bytes, none, 16);
	if (sys_listen("[::]:0", false, &probe, name, sizeof(name)) < 0)
		return; /* no IPv6 on this machine */
	/* Of version 4, at a socket for both. */
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(strrchr(name, ':') + 1)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	s[0] = socket(AF_INET, SOCK_STREAM, 0);
	cr_assert_eq(connect(s[0], (struct sockaddr *)&in, sizeof(in)), 0);
	while ((s[1] = sock_accept(probe)) == -EAGAIN)
		;
	cr_assert_geq(s[1], 0);
	sock_peer_address(s[1], bytes);
	cr_expect_arr_eq(bytes, v4, 16);
	cr_expect_eq(sock_accept(probe), -EAGAIN);
	close(s[0]);
	close(s[1]);
	close(probe);
	/* Of version 6, the network alone. */
	tcp_pair("[::1]:0", s);
	sock_peer_address(s[1], bytes);
	cr_expect_arr_eq(bytes, none, 16);
	close(s[0]);
	close(s[1]);
}

Test(ring_sys, a_peer_of_version_6)
{
	char name[64];
	int s[2], probe;
	if (sys_listen("[::1]:0", false, &probe, name, sizeof(name)) == -EADDRNOTAVAIL)
		return; /* no IPv6 on this machine */
	cr_expect_eq(strncmp(name, "[::1]:", 6), 0);
	close(probe);
	tcp_pair("[::1]:0", s);
	sock_peer_name(s[1], name, sizeof(name));
	cr_expect_eq(strncmp(name, "[::1]:", 6), 0);
	close(s[0]);
	close(s[1]);
}

Test(ring_sys, listen)
{
	char name[64] = "untouched", again[64], port[80];
	int fd = -7, other = -7;
	cr_expect_eq(sys_listen("127.0.0.1", false, &fd, name, sizeof(name)), -EINVAL);
	cr_expect_eq(sys_listen("[::1:80", false, &fd, name, sizeof(name)), -EINVAL);
	cr_expect_eq(sys_listen("[]:80", false, &fd, name, sizeof(name)), -EINVAL);
	cr_expect_eq(sys_listen("127.0.0.1:http", false, &fd, name, sizeof(name)), -EADDRNOTAVAIL);
	cr_expect_eq(sys_listen("192.0.2.1:0", false, &fd, name, sizeof(name)), -EADDRNOTAVAIL);
	cr_expect_eq(fd, -7);
	cr_expect_str_eq(name, "untouched");
	cr_assert_eq(sys_listen("127.0.0.1:0", false, &fd, name, sizeof(name)), 0);
	cr_expect_eq(strncmp(name, "127.0.0.1:", 10), 0);
	cr_expect_neq(atoi(name + 10), 0, "the port that it became");
	cr_expect(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_expect(fcntl(fd, F_GETFL) & O_NONBLOCK);
	cr_expect_eq(sys_listen(name, false, &other, again, sizeof(again)), -EADDRINUSE);
	sys_close(fd);
	/* All that share a port must ask for it. */
	cr_assert_eq(sys_listen("127.0.0.1:0", true, &fd, name, sizeof(name)), 0);
	cr_assert_eq(sys_listen(name, true, &other, again, sizeof(again)), 0);
	cr_expect_str_eq(again, name);
	sys_close(fd);
	sys_close(other);
	cr_assert_eq(sys_listen(":0", false, &fd, name, sizeof(name)), 0, "all addresses");
	snprintf(port, sizeof(port), "%s", strrchr(name, ':'));
	cr_expect_neq(atoi(port + 1), 0);
	sys_close(fd);
	char longest[400];
	memset(longest, 'a', sizeof(longest));
	strcpy(longest + sizeof(longest) - 4, ":80");
	cr_expect_eq(sys_listen(longest, false, &fd, name, sizeof(name)), -EINVAL);
}

/* --- files ------------------------------------------------------------------------------------ */

Test(ring_sys, open_read_write)
{
	char got[16] = "";
	struct sys_stat st;
	int fd = sys_openat(w.dir_fd, "f", O_RDWR | O_CREAT | O_EXCL, 0640);
	cr_assert_geq(fd, 0);
	cr_expect(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_expect_eq(sys_openat(w.dir_fd, "f", O_RDWR | O_CREAT | O_EXCL, 0640), -EEXIST);
	cr_expect_eq(sys_openat(w.dir_fd, "none", O_RDONLY, 0), -ENOENT);
	cr_expect_eq(sys_pwrite(fd, "abcdef", 6, 10), 0);
	cr_expect_eq(sys_pwrite(fd, NULL, 0, 10), 0);
	cr_expect_eq(sys_pread(fd, got, 3, 11), 3);
	cr_expect_str_eq(got, "bcd");
	cr_expect_eq(sys_pread(fd, got, 16, 12), 4, "up to the end");
	cr_expect_eq(sys_pread(fd, got, 16, 99), 0);
	cr_expect_eq(sys_fsync(fd), 0);
	struct iovec iov[2] = {{"gh", 2}, {"ijk", 3}};
	cr_expect_eq(sys_pwritev(fd, iov, 2, 15), 5);
	cr_expect_eq(sys_pread(fd, got, 16, 14), 6);
	cr_expect_eq(memcmp(got, "eghijk", 6), 0);
	cr_expect_eq(sys_pwritev(-1, iov, 2, 15), -EBADF);
	cr_expect_eq(sys_ftruncate(fd, 3), 0);
	cr_expect_eq(sys_fallocate(fd, 0, 1 << 20), 0);
	cr_expect_eq(sys_fchmod(fd, 0604), 0);
	cr_expect_eq(sys_fchown_group(fd, getgid()), 0);
	int64_t before_ns = sys_wall_ms() * 1000000;
	cr_expect_eq(sys_fstat(fd, &st), 0);
	cr_expect_eq(st.size, 1 << 20);
	cr_expect_geq(st.blocks_bytes, 1 << 20);
	cr_expect(st.is_regular && !st.is_dir);
	cr_expect_lt(llabs(st.mtime_ns - before_ns), 60000000000);
	struct stat plain;
	fstat(fd, &plain);
	cr_expect_eq(plain.st_mode & 07777, 0604);
	cr_expect_eq(st.mode, 0604);
	cr_expect_eq(st.ino, plain.st_ino);
	cr_expect_eq(st.dev, plain.st_dev);
	cr_expect_eq(sys_close(fd), 0);
	cr_expect_eq(sys_close(fd), -EBADF);
	cr_expect_eq(sys_pread(fd, got, 1, 0), -EBADF);
	cr_expect_eq(sys_pwrite(fd, got, 1, 0), -EBADF);
	cr_expect_eq(sys_fsync(fd), -EBADF);
	cr_expect_eq(sys_ftruncate(fd, 1), -EBADF);
	cr_expect_eq(sys_fallocate(fd, 0, 1), -EBADF);
	cr_expect_eq(sys_fchmod(fd, 0600), -EBADF);
	cr_expect_eq(sys_fchown_group(fd, 0), -EBADF);
	cr_expect_eq(sys_fstat(fd, &st), -EBADF);
}

/* A file written to shows up in what is dirty, and a sync of its file system writes it back. */
Test(ring_sys, dirty_and_synced)
{
	static char zeros[1 << 20];
	struct statfs fs;
	cr_assert_eq(fstatfs(w.dir_fd, &fs), 0);
	cr_expect_neq(sys_dirty_bytes(), UINT64_MAX);
	int fd = sys_openat(w.dir_fd, "dirty", O_RDWR | O_CREAT, 0600);
	for (uint64_t i = 0; i < 16; i++)
		cr_assert_eq(sys_pwrite(fd, zeros, sizeof(zeros), i * sizeof(zeros)), 0);
	/* The kernel may have begun to write it; in a file system in memory nothing is ever dirty. */
	if (fs.f_type != TMPFS_MAGIC)
		cr_expect_gt(sys_dirty_bytes(), 1 << 20);
	sys_write_behind(fd);
	cr_expect_eq(sys_syncfs(w.dir_fd), 0);
	cr_expect_eq(sys_syncfs(-1), -EBADF);
	cr_expect_eq(sys_mkdirat(w.dir_fd, "new", 0710), 0);
	cr_expect_eq(sys_mkdirat(w.dir_fd, "new", 0710), -EEXIST);
	cr_expect_eq(sys_mkdirat(w.dir_fd, "none/new", 0710), -ENOENT);
	sys_close(fd);
}

Test(ring_sys, mkdirs)
{
	char path[PATH_MAX + 8], got[32];
	struct stat st;
	snprintf(path, sizeof(path), "%s/a/b//c/", w.dir);
	cr_expect_eq(sys_mkdirs(path, 0750), 0);
	cr_expect_eq(sys_mkdirs(path, 0700), 0, "what is there stays as it is");
	cr_expect_eq(fstatat(w.dir_fd, "a/b/c", &st, 0), 0);
	cr_expect_eq(st.st_mode & 07777, 0750);
	cr_expect_eq(fstatat(w.dir_fd, "a", &st, 0), 0);
	cr_expect_eq(st.st_mode & 07777, 0750);
	close(ring_world_file(&w, "file", "", 0));
	cr_expect_eq(sys_mkdirs(in_dir("file"), 0700), -ENOTDIR);
	cr_expect_eq(sys_mkdirs(in_dir("file/sub"), 0700), -ENOTDIR);
	cr_expect_eq(symlinkat("a", w.dir_fd, "link"), 0);
	cr_expect_eq(sys_mkdirs(in_dir("link/d"), 0700), 0, "through a link");
	cr_expect_eq(faccessat(w.dir_fd, "a/d", F_OK, 0), 0);
	cr_expect_eq(sys_mkdirs("", 0700), -ENAMETOOLONG);
	memset(path, 'a', sizeof(path));
	path[PATH_MAX] = 0;
	cr_expect_eq(sys_mkdirs(path, 0700), -ENAMETOOLONG);
	cr_expect_eq(sys_mkdirs("/", 0700), 0);
	cr_expect_not_null(getcwd(path, sizeof(path)));
	cr_expect_eq(chdir(w.dir), 0);
	strcpy(got, "r/s");
	cr_expect_eq(sys_mkdirs(got, 0700), 0, "relative");
	cr_expect_eq(faccessat(w.dir_fd, "r/s", F_OK, 0), 0);
	cr_expect_eq(chdir(path), 0);
}

/* Within one file system the kernel copies; to memory, another one, it is done by hand. */
Test(ring_sys, copy_range)
{
	enum { BYTES = 700000 };
	static uint8_t data[BYTES], got[BYTES];
	for (uint32_t i = 0; i < BYTES; i++)
		data[i] = (uint8_t)(i * 31 + i / 977);
	int from = ring_world_file(&w, "from", data, BYTES), to[2];
	to[0] = ring_world_file(&w, "to", "", 0);
	to[1] = memfd_create("to", MFD_CLOEXEC);
	for (int i = 0; i < 2; i++) {
		cr_expect_eq(sys_copy_range(from, 1000, to[i], 77, BYTES - 1000), 0);
		cr_expect_eq(sys_pread(to[i], got, BYTES, 77), BYTES - 1000);
		cr_expect_arr_eq(got, data + 1000, BYTES - 1000);
		cr_expect_eq(sys_copy_range(from, 5, to[i], 0, 0), 0);
		cr_expect_eq(sys_copy_range(from, 5, to[i], 0, BYTES), -EIO, "5 bytes too few");
		cr_expect_eq(sys_copy_range(from, BYTES, to[i], 0, 1), -EIO);
		close(to[i]);
		cr_expect_eq(sys_copy_range(from, 0, to[i], 0, 1), -EBADF);
	}
	int ro = sys_openat(w.dir_fd, "to", O_RDONLY, 0);
	cr_expect_eq(sys_copy_range(from, 0, ro, 0, 1), -EBADF);
	close(ro);
	close(from);
}

Test(ring_sys, names)
{
	struct sys_stat st;
	close(ring_world_file(&w, "a", "abc", 3));
	close(ring_world_file(&w, "b", "b", 1));
	cr_expect_eq(symlinkat("a", w.dir_fd, "link"), 0);
	cr_expect_eq(sys_stat_at(w.dir_fd, "a", &st), 0);
	cr_expect_eq(st.size, 3);
	cr_expect_eq(sys_stat_at(w.dir_fd, "link", &st), 0);
	cr_expect(!st.is_regular && !st.is_dir, "a link is not followed");
	cr_expect_eq(sys_stat_at(w.dir_fd, ".", &st), 0);
	cr_expect(st.is_dir && !st.is_regular);
	cr_expect_eq(sys_stat_at(w.dir_fd, "none", &st), -ENOENT);
	cr_expect_eq(sys_renameat2(w.dir_fd, "a", w.dir_fd, "b", RENAME_NOREPLACE), -EEXIST);
	cr_expect_eq(sys_renameat2(w.dir_fd, "a", w.dir_fd, "b", 0), 0);
	cr_expect_eq(sys_renameat2(w.dir_fd, "a", w.dir_fd, "b", 0), -ENOENT);
	cr_expect_eq(sys_unlinkat(w.dir_fd, "b", 0), 0);
	cr_expect_eq(sys_unlinkat(w.dir_fd, "b", 0), -ENOENT);
	cr_expect_eq(sys_unlinkat(w.dir_fd, "link", 0), 0);
}

/* A lock belongs to an open file: another opening of it, here or in another process, meets it. */
Test(ring_sys, lock_dir)
{
	int second = sys_openat(w.dir_fd, ".", O_RDONLY | O_DIRECTORY, 0);
	cr_expect_eq(sys_lock_dir(w.dir_fd), 0);
	cr_expect_eq(sys_lock_dir(w.dir_fd), 0);
	cr_expect_eq(sys_lock_dir(second), -EAGAIN);
	cr_expect_eq(flock(w.dir_fd, LOCK_UN), 0);
	cr_expect_eq(sys_lock_dir(second), 0);
	sys_close(second);
	cr_expect_eq(sys_lock_dir(second), -EBADF);
	uint64_t from_ns = sys_mono_ns();
	sys_sleep_ms(12);
	cr_expect_geq(sys_mono_ns() - from_ns, 12000000);
}

struct listing {
	uint32_t count, stop_at;
	bool seen[3];
};

static int on_name(void *arg, const char *name)
{
	static const char *const names[] = {"one", "two", ".three"};
	struct listing *l = arg;
	for (int i = 0; i < 3; i++)
		l->seen[i] |= !strcmp(name, names[i]);
	l->count++;
	return l->count == l->stop_at ? -ECANCELED : 0;
}

Test(ring_sys, list_dir)
{
	struct listing all = {0}, some = {.stop_at = 2}, again = {0};
	close(ring_world_file(&w, "one", "", 0));
	close(ring_world_file(&w, "two", "", 0));
	close(ring_world_file(&w, ".three", "", 0));
	cr_expect_eq(sys_list_dir(w.dir_fd, on_name, &all), 0);
	cr_expect_eq(all.count, 3);
	cr_expect(all.seen[0] && all.seen[1] && all.seen[2]);
	cr_expect_eq(sys_list_dir(w.dir_fd, on_name, &some), -ECANCELED);
	cr_expect_eq(some.count, 2);
	cr_expect_eq(sys_list_dir(w.dir_fd, on_name, &again), 0, "from the start each time");
	cr_expect_eq(again.count, 3);
	int file = sys_openat(w.dir_fd, "one", O_RDONLY, 0);
	cr_expect_eq(sys_list_dir(file, on_name, &all), -ENOTDIR);
	close(file);
	cr_expect_eq(sys_list_dir(file, on_name, &all), -EBADF);
}

Test(ring_sys, space_and_identity)
{
	struct sys_space space = {0};
	char a[256] = "", b[256] = "", shm[256] = "";
	cr_expect_eq(sys_space(w.dir_fd, &space), 0);
	cr_expect_gt(space.free_bytes, 0);
	cr_expect(!space.has_inodes || space.free_inodes > 0);
	cr_expect_eq(sys_space(-1, &space), -EBADF);
	cr_expect_eq(sys_cache_identity(w.dir_fd, a, sizeof(a)), 0);
	cr_expect_eq(sys_cache_identity(w.dir_fd, b, sizeof(b)), 0);
	cr_expect_str_eq(a, b);
	cr_expect_eq(strncmp(a, "boot ", 5), 0);
	cr_expect_eq(a[strlen(a) - 1], '\n', "whole");
	int other = open("/proc", O_RDONLY | O_DIRECTORY);
	cr_expect_eq(sys_cache_identity(other, shm, sizeof(shm)), 0);
	cr_expect_str_neq(a, shm, "another mount, another cache");
	close(other);
	cr_expect_eq(sys_cache_identity(other, a, sizeof(a)), -EBADF);
}

Test(ring_sys, time_chance_memory)
{
	uint64_t ns = sys_mono_ns(), ms = sys_mono_ms();
	cr_expect_geq(ms, ns / 1000000);
	cr_expect_lt(ms, ns / 1000000 + 5000);
	usleep(2000);
	cr_expect_geq(sys_mono_ns(), ns + 2000000);
	cr_expect_gt(sys_wall_ms(), 1700000000000);
	uint64_t a[4] = {0}, b[4] = {0};
	cr_expect_eq(sys_random(a, sizeof(a)), 0);
	cr_expect_eq(sys_random(b, sizeof(b)), 0);
	cr_expect(memcmp(a, b, sizeof(a)) != 0);
	cr_expect(a[3] != 0);
	uint64_t before = sys_rss_bytes();
	char *much = malloc(64 << 20);
	memset(much, 1, 64 << 20);
	cr_expect_geq(sys_rss_bytes(), before + (60 << 20));
	cr_expect_eq(much[12345], 1);
	free(much);
}

Test(ring_sys, log_and_umask)
{
	char got[32] = "";
	int p[2], err = dup(STDERR_FILENO);
	cr_assert_eq(pipe(p), 0);
	dup2(p[1], STDERR_FILENO);
	sys_log_put("one line\n", 9);
	dup2(err, STDERR_FILENO);
	cr_expect_eq(read(p[0], got, sizeof(got)), 9);
	cr_expect_str_eq(got, "one line\n");
	close(err);
	close(p[0]);
	close(p[1]);
	umask(077);
	sys_umask_clear();
	cr_expect_eq(umask(0), 0);
}
