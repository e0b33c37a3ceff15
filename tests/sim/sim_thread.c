/*
 * sim.h: the daemon's threads as coroutines, and the calls of pthread that it makes.
 *
 * One runs at a time and goes on until it waits: in ring_turn, in a condition, in a blocking call.
 * So a mutex is never contended, and every place where another thread may get in between is an
 * event of the world's.
 */
#include "sim.h"

#include <pthread.h>
#include <stdint.h>
#include "sim_switch.h"

enum { THREADS_MAX = 64 };

struct sim_thread {
	struct sim_stack stack;
	void *(*fn)(void *arg);
	void *arg;
	bool used, done, parked;
	uint64_t waits;         /* counts parkings: a timeout of an earlier one is stale */
	const void *condition;  /* parked in pthread_cond_wait; NULL: not */
};

static struct sim_thread threads[THREADS_MAX];
static struct sim_thread *current;

int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_join(pthread_t thread, void **ret);
pthread_t __wrap_pthread_self(void);
int __wrap_pthread_kill(pthread_t thread, int number);
int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *attr);
int __wrap_pthread_cond_destroy(pthread_cond_t *c);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_signal(pthread_cond_t *c);
int __wrap_pthread_cond_broadcast(pthread_cond_t *c);

static void enter(struct sim_thread *t)
{
	current = t;
	sim_switch_enter(&t->stack);
	current = NULL;
}

static void on_resume(void *arg, uint64_t num)
{
	struct sim_thread *t = arg;
	if (!t->used || t->done || t->waits != num)
		return;
	t->parked = false;
	t->condition = NULL;
	enter(t);
}

static void resume_later(struct sim_thread *t, uint64_t ns)
{
	sim_after(ns, true, on_resume, t, t->waits);
}

static void thread_main(void *arg)
{
	struct sim_thread *t = arg;
	t->fn(t->arg);
	t->done = true;
	for (struct sim_thread *other = threads; other < threads + THREADS_MAX; other++)
		sim_wake(other); /* one of them may join it */
	sim_switch_leave(true);
}

struct sim_thread *sim_thread_start(void *(*fn)(void *arg), void *arg)
{
	struct sim_thread *t = threads;
	while (t < threads + THREADS_MAX && t->used)
		t++;
	if (t == threads + THREADS_MAX)
		sim_fail("more than %d threads", THREADS_MAX);
	t->used = true;
	t->done = t->parked = false;
	t->fn = fn;
	t->arg = arg;
	t->condition = NULL;
	sim_switch_make(&t->stack, thread_main, t);
	resume_later(t, sim_skewed(100, 50000));
	return t;
}

bool sim_thread_is_done(const struct sim_thread *t)
{
	return t->done;
}

struct sim_thread *sim_thread_self(void)
{
	return current;
}

void sim_threads_drop(void)
{
	for (int i = 0; i < THREADS_MAX; i++) {
		threads[i].used = false;
		threads[i].waits++;
	}
	current = NULL;
}

void sim_sleep(uint64_t ns)
{
	struct sim_thread *t = current;
	t->waits++;
	resume_later(t, ns);
	sim_switch_leave(false);
}

void sim_park(uint64_t ns)
{
	struct sim_thread *t = current;
	t->waits++;
	t->parked = true;
	if (ns != UINT64_MAX)
		resume_later(t, ns);
	sim_switch_leave(false);
}

void sim_wake(struct sim_thread *t)
{
	if (!t->used || !t->parked)
		return;
	t->parked = false;
	resume_later(t, sim_skewed(100, 100000));
}

/* --- the ends of a process -------------------------------------------------------------------- */

void __wrap___assert_fail(const char *text, const char *file, unsigned line, const char *function);
void __wrap__exit(int status);

void __wrap___assert_fail(const char *text, const char *file, unsigned line, const char *function)
{
	sim_fail("%s:%u: %s: the assertion %s failed", file, line, function, text);
}

void __wrap__exit(int status)
{
	sim_fail("the daemon ends itself with status %d", status);
}

/* --- pthread ---------------------------------------------------------------------------------- */

int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	(void)attr;
	*ret = (pthread_t)(uintptr_t)sim_thread_start(fn, arg);
	return 0;
}

int __wrap_pthread_join(pthread_t thread, void **ret)
{
	struct sim_thread *t = (struct sim_thread *)(uintptr_t)thread;
	(void)ret;
	while (!t->done)
		sim_park(UINT64_MAX);
	t->used = false;
	return 0;
}

pthread_t __wrap_pthread_self(void)
{
	return (pthread_t)(uintptr_t)current;
}

int __wrap_pthread_kill(pthread_t thread, int number)
{
	(void)number;
	sim_wake((struct sim_thread *)(uintptr_t)thread);
	return 0;
}

int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
	(void)m;
	(void)attr;
	return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *m)
{
	(void)m;
	return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
	(void)m;
	return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
	(void)m;
	return 0;
}

int __wrap_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *attr)
{
	(void)c;
	(void)attr;
	return 0;
}

int __wrap_pthread_cond_destroy(pthread_cond_t *c)
{
	(void)c;
	return 0;
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
	(void)m;
	current->condition = c;
	sim_park(UINT64_MAX);
	return 0;
}

int __wrap_pthread_cond_signal(pthread_cond_t *c)
{
	return __wrap_pthread_cond_broadcast(c);
}

/* Whoever is woken looks again, as after the wakings for nothing that a condition may have. */
int __wrap_pthread_cond_broadcast(pthread_cond_t *c)
{
	for (struct sim_thread *t = threads; t < threads + THREADS_MAX; t++) {
		if (t->used && t->condition == c)
			sim_wake(t);
	}
	return 0;
}
