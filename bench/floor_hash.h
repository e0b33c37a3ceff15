/*
 * Threads that hash, for the floors: each takes several files at once and feeds them to the lanes
 * of one call.
 */
#ifndef SLUICE_BENCH_FLOOR_HASH_H
#define SLUICE_BENCH_FLOOR_HASH_H

#include <stdint.h>

#include "sha256.h"

struct floor_pool;

/* A range of one file to hash. The file's next job is given only when this one is back. */
struct floor_job {
	struct floor_job *next;
	struct sha256 *state;
	int fd;               /* read back from here; −1: from mem */
	const uint8_t *mem;
	uint64_t from, to;    /* from advances */
	int error;            /* −errno when reading back failed */
};

/* event_fd, −1 for none, is written to when jobs have come back. 0 or −errno. */
int floor_pool_new(unsigned threads, unsigned lanes, int event_fd, struct floor_pool **ret);
void floor_pool_free(struct floor_pool *p); /* waits for all jobs */
void floor_pool_give(struct floor_pool *p, struct floor_job *job);
/* The jobs that have come back, as a list; NULL when none. */
struct floor_job *floor_pool_take(struct floor_pool *p);

#endif
