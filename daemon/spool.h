/*
 * From sockets into one file through pipes: payload that never comes to user space.
 *
 * A spool belongs to a file: the staging file of a transfer, shared by its segments, or a scratch
 * file. It has two pipes at most. One drains into the file (an operation of the ring, in a kernel
 * worker) while the other fills from a socket (at once; that only moves references to pages).
 *
 *     FREE ──spool_pull──► FILLING ──nothing drains: full, flushed, or not to be continued──► DRAINING ──empty──► FREE
 *
 * Segments that follow each other in the file go into the same pipe, one behind the other. So a
 * burst of them becomes one operation, as large as a pipe: what the kernel takes to wake a worker
 * and to report its end is the same for 64 KiB and 1 MiB.
 *
 * Nothing waits for more to come: what has been gathered when the connection's turn ends drains,
 * unless the other pipe still does; then it drains after that.
 */
#ifndef SLUICE_SPOOL_H
#define SLUICE_SPOOL_H

#include <stdint.h>

struct spool;
struct transfer;
struct uploads;

/* One segment, embedded in its owner. Its bytes come in order. */
struct spool_user {
	struct spool *spool;               /* NULL: not joined */
	struct spool_user *next, **pprev;  /* the spool's */
	uint32_t bytes;                    /* of it in pipes: pulled, and not yet in the file */
	/* Some of these have reached the file; or −errno, and they are lost. The user may leave
	 * within. */
	void (*moved)(struct spool_user *x, int err);
	/* After SPOOL_WAIT (or at any other time): pull again, but not within this call. */
	void (*wake)(struct spool_user *x);
};

enum { SPOOL_WAIT = -100000 }; /* no errno */

/* Joins the spool of t's staging file, which is open, and counted by the user until it has left; or
 * makes one for fd. 0 or −ENOMEM. */
int spool_join_staging(struct spool_user *x, struct transfer *t);
int spool_join_file(struct spool_user *x, struct uploads *u, int fd);
/* Its bytes are all in the file, or lost. */
void spool_leave(struct spool_user *x);

/* Takes up to bytes_max bytes from the socket, to be written at file_off. Bytes taken; 0: the peer
 * has ended; −EAGAIN: the socket is empty; SPOOL_WAIT: wake will be called; or −errno. */
int spool_pull(struct spool_user *x, int sock_fd, uint64_t file_off, uint32_t bytes_max);

/* Drains what the user has pulled, at once. */
void spool_flush(struct spool_user *x);
/* After a connection's turn: the same for all that were pulled into. */
void spools_flush(struct uploads *u);

#endif
