/*
 * The verify pool: threads that hash, so that no reactor ever does.
 *
 * A job is a range (of a file or of memory) and up to two SHA-256 states that are fed the same
 * bytes: a segment's own digest and its file's are one pass. A job may also compare its range with
 * another one. A thread takes several jobs at once and feeds them as lanes of one call
 * (sha256_update_lanes), reading files through the page cache in steps.
 *
 * Jobs may form a chain: each begins when the one before has ended, and its second state then takes
 * up where the other's ended. So several segments that follow each other in a file are checked one by
 * one while the digest of the file runs through, and after each of them it is known how that digest
 * stood there: if one segment turns out to be wrong, what came before it is not lost.
 *
 * The jobs, their states and their fds belong to the owner and stay put until done, which runs on
 * the owner's ring, in a chain in its order.
 */
#ifndef SLUICE_VERIFY_H
#define SLUICE_VERIFY_H

#include <stdint.h>
#include "ring.h"
#include "sha256.h"

struct verify;

struct verify_range {
	int fd;             /* −1: memory */
	const uint8_t *mem; /* when fd is −1 */
	uint64_t off;       /* in the file */
};

struct verify_job {
	struct op op;       /* posted back; op.res: 0, or −errno (−EIO: a file is shorter than said) */
	struct verify_job *next; /* in the queue */
	struct verify_job *then; /* the next of the chain; NULL: the last */
	struct ring *ring;  /* where done runs */
	uint64_t bytes;
	struct verify_range data;
	/* Fed data; each may be NULL. In a chain the second one is set when its job begins: to the
	 * second one of the job before, which must have one. After a job that failed it is worth
	 * nothing. */
	struct sha256 *states[2];
	bool compares;
	struct verify_range with; /* compares: the other range; one that is shorter differs */
	bool differs;       /* result of the comparison */
	uint64_t done_bytes; /* the pool's own, while the job runs */
};

int verify_new(uint32_t threads, struct verify **ret); /* 0 threads: one per core */
void verify_free(struct verify *v);                    /* waits for jobs that run; NULL is fine */
/* Any thread. job->op.done is called on job->ring. The job, and those of its chain, must be idle. */
void verify_submit(struct verify *v, struct verify_job *job);

#endif
