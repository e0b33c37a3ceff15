/*
 * sim.h: the generator, the heap of events, the trace.
 */
#include "sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "sim_switch.h"

struct event {
	uint64_t at_ns, order;
	sim_fire_fn *fire;
	void *arg;
	uint64_t num;
	uint32_t life;          /* of the daemon; 0: of the world */
};

struct sim sim;

static struct event *heap;
static size_t heap_count, heap_max;
static uint64_t heap_order;
static sigjmp_buf guard_env;
static void (*on_moment)(uint32_t weight);

/* --- chance ----------------------------------------------------------------------------------- */

static uint64_t splitmix(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint64_t rotate(uint64_t x, int by)
{
	return x << by | x >> (64 - by);
}

/* xoroshiro128+ */
uint64_t sim_random(void)
{
	uint64_t a = sim.random[0], b = sim.random[1], sum = a + b;
	b ^= a;
	sim.random[0] = rotate(a, 24) ^ b ^ b << 16;
	sim.random[1] = rotate(b, 37);
	return sum;
}

uint32_t sim_below(uint32_t n)
{
	return (uint32_t)((sim_random() >> 32) * n >> 32);
}

uint64_t sim_between(uint64_t least, uint64_t most)
{
	return least + sim_random() % (most - least + 1);
}

bool sim_chance(uint32_t in_10000)
{
	return in_10000 > 0 && sim_below(10000) < in_10000;
}

uint64_t sim_skewed(uint64_t least, uint64_t most)
{
	uint64_t span = most - least;
	for (uint32_t i = sim_below(4); i > 0; i--)
		span /= 8;
	return sim_between(least, least + span);
}

/* --- events ----------------------------------------------------------------------------------- */

static bool is_before(const struct event *a, const struct event *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void sim_after(uint64_t ns, bool of_daemon, sim_fire_fn *fire, void *arg, uint64_t num)
{
	if (heap_count == heap_max) {
		heap_max = heap_max ? heap_max * 2 : 1024;
		heap = sim_realloc(heap, heap_max * sizeof(*heap));
	}
	struct event e = {.at_ns = sim.now_ns + ns, .order = heap_order++, .fire = fire, .arg = arg,
		.num = num, .life = of_daemon ? sim.life : 0};
	size_t i = heap_count++;
	for (; i > 0 && is_before(&e, &heap[(i - 1) / 2]); i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = e;
}

static struct event heap_pop(void)
{
	struct event first = heap[0], last = heap[--heap_count];
	size_t i = 0;
	for (;;) {
		size_t child = 2 * i + 1;
		if (child >= heap_count)
			break;
		if (child + 1 < heap_count && is_before(&heap[child + 1], &heap[child]))
			child++;
		if (!is_before(&heap[child], &last))
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = last;
	return first;
}

bool sim_step(void)
{
	while (heap_count > 0) {
		struct event e = heap_pop();
		if (e.life && e.life != sim.life)
			continue;
		sim.now_ns = e.at_ns;
		sim.events_count++;
		e.fire(e.arg, e.num);
		return true;
	}
	return false;
}

void sim_reset(uint64_t seed)
{
	bool tracing = sim.tracing;
	uint64_t state = seed;
	heap_count = 0;
	heap_order = 0;
	/* A machine that has been up for a while. */
	sim = (struct sim){.seed = seed, .now_ns = 1000 * SIM_S, .tracing = tracing};
	sim.random[0] = splitmix(&state);
	sim.random[1] = splitmix(&state);
}

void sim_moment(uint32_t weight)
{
	if (on_moment && sim.life)
		on_moment(weight);
}

void sim_on_moments(void (*fn)(uint32_t weight))
{
	on_moment = fn;
}

void sim_fini(void)
{
	sim_free(heap);
	heap = NULL;
	heap_count = heap_max = 0;
}

/* --- the trace -------------------------------------------------------------------------------- */

void sim_note(const char *text, uint64_t a, uint64_t b)
{
	uint64_t h = sim.trace_hash ^ sim.now_ns;
	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 0x100000001b3u;
	h = (h ^ a) * 0x9e3779b97f4a7c15u;
	h = (h ^ h >> 29 ^ b) * 0xbf58476d1ce4e5b9u;
	sim.trace_hash = h ^ h >> 32;
}

void sim_trace(const char *format, ...)
{
	char line[8192];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	uint64_t us = (sim.now_ns - 1000 * SIM_S) / 1000;
	printf("%4llu.%06llu %s\n", (unsigned long long)(us / 1000000),
		(unsigned long long)(us % 1000000), line);
}

void sim_fail(const char *format, ...)
{
	va_list args;
	sim.failed = true;
	va_start(args, format);
	vsnprintf(sim.failure, sizeof(sim.failure), format, args);
	va_end(args);
	if (sim.tracing)
		sim_trace("VIOLATION: %s", sim.failure);
	sim_switch_abandon();
	siglongjmp(guard_env, 1);
}

void sim_guard(void (*body)(void *arg), void *arg)
{
	if (sigsetjmp(guard_env, 0) == 0)
		body(arg);
}
