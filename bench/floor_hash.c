/*
 * A step of STEP_BYTES per lane and call: the buffers of eight lanes fit into a second-level cache,
 * so what is read back is hashed where it lies.
 */
#include "floor_hash.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { STEP_BYTES = 64 << 10 };

struct floor_pool {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct floor_job *given, **given_tail, *back;
	int event_fd;
	bool stops;
	unsigned lanes, threads_count;
	pthread_t threads[];
};

struct hasher {
	struct floor_pool *pool;
	struct floor_job **jobs;
	struct sha256_lane *lanes;
	uint8_t *steps;
	unsigned count;
};

/* Fills the lanes; waits only when all are empty. False: the pool ends. */
static bool hasher_fill(struct hasher *h)
{
	struct floor_pool *p = h->pool;
	bool more;

	pthread_mutex_lock(&p->lock);
	while (h->count == 0 && p->given == NULL && !p->stops)
		pthread_cond_wait(&p->wake, &p->lock);
	while (h->count < p->lanes && p->given != NULL) {
		h->jobs[h->count++] = p->given;
		p->given = p->given->next;
		if (p->given == NULL)
			p->given_tail = &p->given;
	}
	more = h->count > 0 || !p->stops;
	pthread_mutex_unlock(&p->lock);
	return more;
}

static void hasher_give_back(struct hasher *h, struct floor_job *job)
{
	struct floor_pool *p = h->pool;
	bool was_empty;

	pthread_mutex_lock(&p->lock);
	was_empty = p->back == NULL;
	job->next = p->back;
	p->back = job;
	pthread_mutex_unlock(&p->lock);
	if (was_empty && p->event_fd >= 0)
		eventfd_write(p->event_fd, 1);
}

/* One step of every job in hand. */
static void hasher_round(struct hasher *h)
{
	unsigned used = 0;

	for (unsigned i = 0; i < h->count;) {
		struct floor_job *job = h->jobs[i];
		uint64_t bytes = job->to - job->from;
		uint8_t *step = h->steps + (size_t)i * STEP_BYTES;

		if (bytes > STEP_BYTES)
			bytes = STEP_BYTES;
		if (bytes > 0 && job->fd >= 0 &&
			pread(job->fd, step, bytes, (off_t)job->from) != (ssize_t)bytes)
			job->error = errno != 0 ? -errno : -EIO;
		if (bytes == 0 || job->error != 0) {
			h->jobs[i] = h->jobs[--h->count];
			hasher_give_back(h, job);
			continue;
		}
		h->lanes[used++] = (struct sha256_lane){.state = job->state,
			.data = job->fd >= 0 ? step : job->mem + job->from,
			.data_bytes = bytes};
		job->from += bytes;
		i++;
	}
	sha256_update_lanes(h->lanes, used);
}

static void *hasher_main(void *arg)
{
	struct floor_pool *p = arg;
	struct hasher h = {.pool = p};

	h.jobs = calloc(p->lanes, sizeof(struct floor_job *));
	h.lanes = calloc(p->lanes, sizeof(*h.lanes));
	h.steps = aligned_alloc(4096, (size_t)p->lanes * STEP_BYTES);
	if (h.jobs == NULL || h.lanes == NULL || h.steps == NULL)
		abort();
	while (hasher_fill(&h))
		hasher_round(&h);
	free(h.jobs);
	free(h.lanes);
	free(h.steps);
	return NULL;
}

int floor_pool_new(unsigned threads, unsigned lanes, int event_fd, struct floor_pool **ret)
{
	struct floor_pool *p = calloc(1, sizeof(*p) + threads * sizeof(p->threads[0]));

	if (p == NULL)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	p->given_tail = &p->given;
	p->event_fd = event_fd;
	p->lanes = lanes;
	for (; p->threads_count < threads; p->threads_count++) {
		int error = pthread_create(&p->threads[p->threads_count], NULL, hasher_main, p);

		if (error != 0) {
			floor_pool_free(p);
			return -error;
		}
	}
	*ret = p;
	return 0;
}

void floor_pool_free(struct floor_pool *p)
{
	if (p == NULL)
		return;
	pthread_mutex_lock(&p->lock);
	p->stops = true;
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->threads_count; i++)
		pthread_join(p->threads[i], NULL);
	pthread_cond_destroy(&p->wake);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void floor_pool_give(struct floor_pool *p, struct floor_job *job)
{
	job->next = NULL;
	job->error = 0;
	pthread_mutex_lock(&p->lock);
	*p->given_tail = job;
	p->given_tail = &job->next;
	pthread_cond_signal(&p->wake);
	pthread_mutex_unlock(&p->lock);
}

struct floor_job *floor_pool_take(struct floor_pool *p)
{
	struct floor_job *list;

	pthread_mutex_lock(&p->lock);
	list = p->back;
	p->back = NULL;
	pthread_mutex_unlock(&p->lock);
	return list;
}
