/*
 * verify.h: a queue, and threads that take up to VERIFY_LANES jobs from it at a time.
 *
 * Each round reads the next step of every job in hand into that job's part of the thread's buffer,
 * then feeds all of them in one call. A job that ends is posted back at once and its lane is filled
 * from the queue, so short jobs do not wait for long ones. A single job uses one lane and larger
 * reads do not help it: 256 KiB steps stay in the L2 cache.
 */
#include "verify.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VERIFY_LANES = 4, STEP_BYTES = 256 * 1024 };

struct verify {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct verify_job *head, **tail;
	bool stop;
	uint32_t threads_count;
	pthread_t threads[];
};

struct worker {
	struct verify *pool;
	struct verify_job *jobs[VERIFY_LANES];
	uint8_t *steps[VERIFY_LANES];
	uint8_t *other; /* what a step is compared with */
	uint32_t count;
};

/* Takes jobs until all lanes are used. Waits for the first one only. False: the pool ends. */
static bool fill_lanes(struct worker *w)
{
	struct verify *v = w->pool;
	pthread_mutex_lock(&v->lock);
	while (w->count == 0 && !v->head && !v->stop)
		pthread_cond_wait(&v->wake, &v->lock);
	while (w->count < VERIFY_LANES && v->head) {
		struct verify_job *job = v->head;
		v->head = job->next;
		if (!v->head)
			v->tail = &v->head;
		job->next = NULL;
		w->jobs[w->count++] = job;
	}
	bool more = w->count > 0 || !v->stop;
	pthread_mutex_unlock(&v->lock);
	return more;
}

/* The bytes of a range at job->done_bytes: memory, or a file read into step. Their count, or
 * −errno. */
static int64_t read_range(const struct verify_job *job, const struct verify_range *range, size_t bytes,
	uint8_t *step, const uint8_t **ret_data)
{
	if (range->fd < 0) {
		*ret_data = range->mem + job->done_bytes;
		return (int64_t)bytes;
	}
	*ret_data = step;
	return sys_pread(range->fd, step, bytes, range->off + job->done_bytes);
}

/* Compares the next step. 0 or −errno. Stops looking once a difference was found. */
static int compare_step(struct verify_job *job, const uint8_t *data, size_t bytes, uint8_t *other_step)
{
	const uint8_t *other;
	int64_t n = read_range(job, &job->with, bytes, other_step, &other);
	if (n < 0)
		return (int)n;
	job->differs = (size_t)n < bytes || memcmp(data, other, bytes) != 0;
	return 0;
}

/* The next bytes of a job: 1 and the span, 0 at its end, −errno. */
static int next_span(struct worker *w, struct verify_job *job, uint8_t *step, const uint8_t **ret_data,
	size_t *ret_bytes)
{
	uint64_t left = job->bytes - job->done_bytes;
	if (left == 0)
		return 0;
	size_t bytes = left < STEP_BYTES ? (size_t)left : STEP_BYTES;
	int64_t n = read_range(job, &job->data, bytes, step, ret_data);
	if (n < 0)
		return (int)n;
	if ((size_t)n < bytes)
		return -EIO;
	if (job->compares && !job->differs) {
		int err = compare_step(job, *ret_data, bytes, w->other);
		if (err)
			return err;
	}
	*ret_bytes = bytes;
	job->done_bytes += bytes;
	return 1;
}

static void finish_job(struct worker *w, uint32_t lane, int res)
{
	struct verify_job *job = w->jobs[lane];
	w->jobs[lane] = w->jobs[--w->count];
	uint8_t *step = w->steps[lane];
	w->steps[lane] = w->steps[w->count];
	w->steps[w->count] = step;
	job->op.res = res;
	ring_post(job->ring, &job->op);
}

/* One step of every job in hand. */
static void run_round(struct worker *w)
{
	struct sha256_lane lanes[VERIFY_LANES * 2];
	size_t lanes_count = 0;
	for (uint32_t i = 0; i < w->count;) {
		const uint8_t *data = NULL;
		size_t bytes = 0;
		int res = next_span(w, w->jobs[i], w->steps[i], &data, &bytes);
		if (res <= 0) {
			finish_job(w, i, res);
			continue;
		}
		for (int s = 0; s < 2; s++) {
			if (w->jobs[i]->states[s])
				lanes[lanes_count++] = (struct sha256_lane){.state = w->jobs[i]->states[s],
					.data = data, .data_bytes = bytes};
		}
		i++;
	}
	sha256_update_lanes(lanes, lanes_count);
}

static void *worker_main(void *arg)
{
	struct worker w = {.pool = arg};
	for (int i = 0; i < VERIFY_LANES; i++) {
		w.steps[i] = malloc(STEP_BYTES);
		assert(w.steps[i]);
	}
	w.other = malloc(STEP_BYTES);
	assert(w.other);
	while (fill_lanes(&w))
		run_round(&w);
	free(w.other);
	for (int i = 0; i < VERIFY_LANES; i++)
		free(w.steps[i]);
	return NULL;
}

int verify_new(uint32_t threads, struct verify **ret)
{
	if (threads == 0) {
		long cpus = sysconf(_SC_NPROCESSORS_ONLN);
		threads = cpus > 0 ? (uint32_t)cpus : 1;
	}
	struct verify *v = calloc(1, sizeof(*v) + threads * sizeof(v->threads[0]));
	if (!v)
		return -ENOMEM;
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->wake, NULL);
	v->tail = &v->head;
	for (; v->threads_count < threads; v->threads_count++) {
		int err = pthread_create(&v->threads[v->threads_count], NULL, worker_main, v);
		if (err) {
			verify_free(v);
			return -err;
		}
	}
	*ret = v;
	return 0;
}

void verify_free(struct verify *v)
{
	if (!v)
		return;
	pthread_mutex_lock(&v->lock);
	v->stop = true;
	pthread_cond_broadcast(&v->wake);
	pthread_mutex_unlock(&v->lock);
	for (uint32_t i = 0; i < v->threads_count; i++)
		pthread_join(v->threads[i], NULL);
	pthread_mutex_destroy(&v->lock);
	pthread_cond_destroy(&v->wake);
	free(v);
}

void verify_submit(struct verify *v, struct verify_job *job)
{
	job->next = NULL;
	job->done_bytes = 0;
	job->differs = false;
	pthread_mutex_lock(&v->lock);
	*v->tail = job;
	v->tail = &job->next;
	pthread_cond_signal(&v->wake);
	pthread_mutex_unlock(&v->lock);
}
