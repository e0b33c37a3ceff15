/*
 * What sim_sys.c and sim_ring.c share: descriptors, and the calls without the waiting.
 */
#ifndef SLUICE_SIM_SYS_H
#define SLUICE_SIM_SYS_H

#include "ring.h"
#include "sim_disk.h"
#include "sim_net.h"

enum sim_fd_kind { FD_NONE, FD_FILE, FD_SOCK, FD_LISTEN, FD_PIPE_OUT, FD_PIPE_IN };

struct sim_pipe {
	uint8_t *data;
	uint32_t begin, bytes, max, refs;
};

struct sim_fd {
	enum sim_fd_kind kind;
	bool holds_lock;
	struct inode *inode;
	struct sock *sock;
	struct sim_pipe *pipe;
};

/* Not open, or of another kind: ends the run. */
struct sim_fd *sim_fd_get(int fd, enum sim_fd_kind kind);
int sim_fd_of_sock(struct sock *s);
int sim_openat(int dir_fd, const char *path, int flags);
int sim_writev(int fd, const struct iovec *iov, uint32_t iov_count, uint64_t off);
void sim_write_begins(int fd, const struct iovec *iov, uint32_t iov_count, uint64_t off);
int sim_unlinkat(int dir_fd, const char *path, int flags);
/* The checker's: a name has changed. */
void sim_on_renamed(struct inode *from, const char *from_name, struct inode *to, const char *to_name);

#endif
