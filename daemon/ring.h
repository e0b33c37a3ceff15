/*
 * The one seam to the kernel: sockets, files and time go through here, and nothing else does.
 *
 * A ring belongs to one thread. Work is an operation, `struct op`, embedded in its owner; it is
 * queued by one of the ring_* calls below, which cannot fail and never call back inside, and ends
 * in op->done, called from ring_turn with op->res ≥ 0 or −errno. An owner stays in memory while one
 * of its operations is not idle.
 *
 *     OP_IDLE ──ring_*()──► OP_QUEUED ──ring_turn──► OP_INFLIGHT ──completion──► OP_IDLE, then done(op)
 *                               │                        │
 *                               └──────ring_cancel───────┴─► the same completion, with −ECANCELED (or its real result)
 *
 * A multishot operation stays OP_INFLIGHT while op->more is true in done. Operations that the
 * kernel runs in its worker pool are capped by kind (splices into files, syncs), so that stuck ones
 * leave workers for the journal, whose own sync has no cap. No order between operations is promised.
 *
 * The kernel's pool of workers belongs to the thread, not to the ring, so a second ring on the same
 * thread would share it: the caps and a larger pool (io.workers) take the place of a ring per
 * purpose.
 */
#ifndef SLUICE_RING_H
#define SLUICE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct ring;
struct op;
struct iovec;
struct sockaddr;

typedef void op_done_fn(struct op *op);
typedef int op_call_fn(struct op *op);
typedef void op_after_fn(struct op *const ops[], size_t ops_count);

enum { RING_TOGETHER_MAX = 32 }; /* calls that one op_after_fn is for, at most */

enum op_state { OP_IDLE, OP_QUEUED, OP_INFLIGHT };

/* The threads that make blocking calls for a ring. Each makes its calls one after another, so what
 * may take long does not stand before what must not wait. */
enum ring_lane {
	RING_RARE,    /* calls without an opcode in Linux 6.1, and copies, which may take long */
	RING_JOURNAL, /* a new journal file: nothing is acknowledged until it is there */
	RING_FILES,   /* short ones on small files: many are told of in one go */
	RING_PUBLISH, /* rounds of publishing (export.c) */
	RING_LANES,
};

struct op {
	op_done_fn *done;  /* set by the owner before queueing */
	struct op *next;   /* on the ring's lists */
	int32_t res;       /* valid in done */
	uint8_t kind;
	uint8_t state;     /* enum op_state; read by owners, written by ring.c alone */
	bool more;         /* valid in done: a multishot goes on */
	bool cancelled;    /* ring_cancel was called */
	bool dropped;      /* cancelled before the kernel saw it */
	/* what to do; written by the ring_* calls */
	int fd, fd2;
	uint32_t len, flags;
	uint64_t off;
	const void *ptr, *ptr2;
};

struct ring_conf {
	uint32_t entries;        /* submission queue, a power of two */
	uint32_t workers_max;    /* kernel workers for files */
	uint32_t splices_max;    /* of these, at most for splices into files */
	uint32_t syncs_max;      /* of these, at most for fsync and sync_file_range */
};

/* The owner of what is embedded in it: an operation, a timer, a waiter. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline bool op_is_idle(const struct op *op)
{
	return op->state == OP_IDLE;
}

/* Can this kernel and this process use io_uring as we need it? 0, or −errno and one sentence with
 * its cure. */
int ring_check_kernel(char *ret_error, size_t error_max);

/* To be called on the thread that will use it. 0 and *ret, or −errno. */
int ring_new(const struct ring_conf *conf, struct ring **ret);
void ring_free(struct ring *r); /* NULL is fine; nothing may be in flight */

/* One turn: submits what is queued, waits at most timeout_ms for the first completion (0: does not
 * wait), then runs done of a bounded batch of completions and posts. */
void ring_turn(struct ring *r, uint32_t timeout_ms);
/* Operations queued or in flight, without those of the ring itself. */
uint32_t ring_busy_count(const struct ring *r);
/* Milliseconds of the monotonic clock, as of this turn. */
uint64_t ring_now_ms(const struct ring *r);

/* Runs op->done on the thread of `to`, some turn soon. From any thread; the op must be idle. In
 * order of posting for one poster. The op counts as idle when done runs. */
void ring_post(struct ring *to, struct op *op);

/* Asks that op end soon: its done is still called, with −ECANCELED or its real result. Idle ops:
 * nothing. */
void ring_cancel(struct ring *r, struct op *op);

/* --- sockets. fds are non-blocking. --- */
void ring_accept_multi(struct ring *r, struct op *op, int fd);        /* res: a new fd each time */
void ring_accept_one(struct ring *r, struct op *op, int fd);
void ring_poll_in(struct ring *r, struct op *op, int fd);             /* one shot; res: poll events */
void ring_send(struct ring *r, struct op *op, int fd, const void *buf, uint32_t len); /* may be short */

/* --- files. Paths must stay valid until done. --- */
void ring_splice(struct ring *r, struct op *op, int pipe_fd, int file_fd, uint64_t file_off, uint32_t len);
void ring_write(struct ring *r, struct op *op, int fd, const void *buf, uint32_t len, uint64_t off);
void ring_writev(struct ring *r, struct op *op, int fd, const struct iovec *iov, uint32_t iov_count,
	uint64_t off);
void ring_openat(struct ring *r, struct op *op, int dir_fd, const char *path, int flags, uint32_t mode);
void ring_fallocate(struct ring *r, struct op *op, int fd, int mode, uint64_t off, uint64_t len);
void ring_ftruncate(struct ring *r, struct op *op, int fd, uint64_t len); /* a call, RING_RARE */
void ring_fsync(struct ring *r, struct op *op, int fd);
void ring_fdatasync(struct ring *r, struct op *op, int fd);
/* Of what all others wait for, the journal: not behind other syncs. One at a time. */
void ring_fdatasync_now(struct ring *r, struct op *op, int fd);
/* Starts write-back of a range; does not wait for it, makes nothing durable. */
void ring_write_behind(struct ring *r, struct op *op, int fd, uint64_t off, uint32_t len);
void ring_unlinkat(struct ring *r, struct op *op, int dir_fd, const char *path, int flags);
/* Runs fn on one of the ring's threads; its result becomes op->res. */
void ring_call(struct ring *r, struct op *op, enum ring_lane lane, op_call_fn *fn);
/* The same; then, before any of them is told of, `after` runs there once for those that were called one
 * after another, ops_count ≥ 1: on RING_FILES up to RING_TOGETHER_MAX of those that waited, else each
 * alone. */
void ring_call_then(struct ring *r, struct op *op, enum ring_lane lane, op_call_fn *fn,
	op_after_fn *after);

/* --- at once, on a non-blocking socket or pipe, never waiting: bytes or −errno (−EAGAIN) --- */
int sock_accept(int fd);                               /* a connection, non-blocking */
int sock_recv(int fd, void *buf, uint32_t len);
int sock_peek(int fd, void *buf, uint32_t len);
int sock_discard(int fd, uint32_t len);                /* drops up to len bytes without copying them */
int sock_splice(int fd, int pipe_fd, uint32_t len);    /* socket → pipe */
void sock_shutdown_send(int fd);                       /* our side only: the peer sees the end after our last byte */
/* Address of the peer as text ("1.2.3.4:5678"). */
void sock_peer_name(int fd, char *ret, size_t ret_max);
/* Its address without the port: of IPv6 the network, 64 bits. Zeros: not known. */
void sock_peer_address(int fd, uint8_t ret[16]);
/* Options of an accepted connection: TCP_NODELAY. */
void sock_setup(int fd);
/* A pipe of at least `bytes` if allowed; *ret_bytes what it became. 0 or −errno. */
int pipe_open(uint32_t bytes, int ret_fds[2], uint32_t *ret_bytes);

/* --- blocking, for start-up, recovery and worker threads: result or −errno --- */
int sys_listen(const char *addr_port, bool reuse_port, int *ret_fd, char *ret_name, size_t name_max);
int sys_openat(int dir_fd, const char *path, int flags, uint32_t mode);
int sys_mkdirs(const char *path, uint32_t mode);       /* like mkdir -p */
int sys_close(int fd);
/* All of it, or as much as there is before the end of the file; bytes or −errno. */
int64_t sys_pread(int fd, void *buf, size_t len, uint64_t off);
int sys_pwrite(int fd, const void *buf, size_t len, uint64_t off); /* all of it: 0 or −errno */
int sys_pwritev(int fd, const struct iovec *iov, uint32_t iov_count, uint64_t off); /* bytes, may be short */
/* Copies a range between files, in the kernel where it can: 0 or −errno (−EIO: the source is
 * shorter). */
int sys_copy_range(int from_fd, uint64_t from_off, int to_fd, uint64_t to_off, uint64_t len);
int sys_fsync(int fd);
/* The whole file system that fd is on. Fails if anything failed to be written to it since the last
 * call on this open file, or since it was opened. */
int sys_syncfs(int fd);
/* Starts write-back of all of a file; does not wait for it, makes nothing durable. */
void sys_write_behind(int fd);
/* What the machine has to write back to all its disks; UINT64_MAX: not known. */
uint64_t sys_dirty_bytes(void);
int sys_ftruncate(int fd, uint64_t len);
int sys_fallocate(int fd, uint64_t off, uint64_t len);
int sys_fchown_group(int fd, uint32_t gid);
int sys_fchmod(int fd, uint32_t mode);
int sys_mkdirat(int dir_fd, const char *path, uint32_t mode);
int sys_renameat2(int from_dir, const char *from, int to_dir, const char *to, uint32_t flags);
int sys_unlinkat(int dir_fd, const char *path, int flags);
int sys_lock_dir(int fd);                              /* flock: leaves no file behind; −EAGAIN when held */
struct sys_stat {
	uint64_t size, ino, dev, blocks_bytes;
	uint32_t mode;        /* the permissions */
	bool is_dir, is_regular;
	int64_t mtime_ns;
};
int sys_fstat(int fd, struct sys_stat *ret);
int sys_stat_at(int dir_fd, const char *path, struct sys_stat *ret); /* does not follow links */
struct sys_space {
	uint64_t free_bytes, free_inodes;
	bool has_inodes; /* false: this file system does not count them */
};
int sys_space(int fd, struct sys_space *ret);
/* Calls fn for each name in a directory but . and ..; stops when it returns non-zero, and returns
 * that. */
int sys_list_dir(int dir_fd, int (*fn)(void *arg, const char *name), void *arg);
/* A directory that is read a name at a time. Open: does not follow a link at the end. */
struct sys_dir;
int sys_dir_open(int dir_fd, const char *path, struct sys_dir **ret);
int sys_dir_fd(const struct sys_dir *d);
const char *sys_dir_next(struct sys_dir *d);           /* valid until the next call; NULL: the end, or an error */
void sys_dir_close(struct sys_dir *d);
/* What must be the same for the page cache of a directory to have survived: the boot, the device,
 * the file system, and that it stayed mounted (a remount was seen to show zeros in the place of what
 * could not be written back). Not the mount point: a service manager gives each start one of its
 * own, over the same cache. */
int sys_cache_identity(int dir_fd, char *ret, size_t ret_max);
void sys_umask_clear(void); /* modes are then just what is asked for */
int sys_random(void *buf, size_t len);
int64_t sys_wall_ms(void);                             /* since the epoch */
uint64_t sys_mono_ms(void);
uint64_t sys_mono_ns(void);
void sys_sleep_ms(uint32_t ms);
void sys_log_put(const char *line, size_t bytes);      /* one write to stderr */
uint64_t sys_rss_bytes(void);

#endif
