/*
 * The deterministic simulator: the daemon, all of it but ring.c and ring_sys.c, in a world that
 * one number decides.
 *
 *     sim_main ── a seed ──► sim_world: clients (sim_client, sim_load) ◄─ bytes ─► sim_net
 *                                │                                                  │
 *                                │ starts, kills                                    ▼
 *                                └──────────────► the daemon ── ring.h ──► sim_ring, sim_sys ──► sim_disk
 *
 * Nothing runs by itself: there is one heap of events, ordered by the time of a clock that only
 * they move, and every choice (how long something takes, how many bytes arrive, what a crash
 * leaves) is drawn from one generator. The daemon's threads are coroutines (sim_thread.c), whose
 * switches are such events, too. So a seed is a run, bit for bit, and its trace can be had again.
 *
 * The checker is sim_model.c: it knows what was promised, and sim_fail ends the run when it is
 * broken. An assert of the daemon ends it likewise.
 */
#ifndef SLUICE_SIM_H
#define SLUICE_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_MS UINT64_C(1000000)
#define SIM_S  UINT64_C(1000000000)

/* --- sim_core.c: chance, time, the trace ------------------------------------------------------ */

typedef void sim_fire_fn(void *arg, uint64_t num);

struct sim {
	uint64_t seed;
	uint64_t now_ns;
	uint64_t random[2];
	uint64_t trace_hash;
	uint64_t events_count;
	uint32_t life;          /* of the daemon; its events die with it. 0: none runs */
	bool tracing;           /* write the trace to stdout */
	bool failed;
	char failure[1024];
};
extern struct sim sim;

uint64_t sim_random(void);
uint32_t sim_below(uint32_t n);                        /* 0 … n−1; n > 0 */
uint64_t sim_between(uint64_t least, uint64_t most);
bool sim_chance(uint32_t in_10000);
/* Mostly near least, sometimes up to most: a duration. */
uint64_t sim_skewed(uint64_t least, uint64_t most);

/* fire(arg, num) in so many nanoseconds. of_daemon: unless the daemon has died by then. */
void sim_after(uint64_t ns, bool of_daemon, sim_fire_fn *fire, void *arg, uint64_t num);
/* Runs the next event. False: there is none. */
bool sim_step(void);
void sim_reset(uint64_t seed);
void sim_fini(void);

/* A line of the trace; its hash stands for the whole run, also when nothing is written. */
void sim_note(const char *text, uint64_t a, uint64_t b);
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define SIM_TRACE(text, a, b, ...) \
	do { \
		sim_note(text, (uint64_t)(a), (uint64_t)(b)); \
		if (sim.tracing) \
			sim_trace(__VA_ARGS__); \
	} while (0)
/* The run ends here: a promise is broken. */
void sim_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* Runs body(arg); returns when it does, or when sim_fail was called in it. */
void sim_guard(void (*body)(void *arg), void *arg);

/* Something happens just before or after which a crash would be interesting; a weight in 10000. */
void sim_moment(uint32_t weight);
void sim_on_moments(void (*fn)(uint32_t weight));  /* of sim_world.c */

/* --- sim_memory.c: what the daemon allocates -------------------------------------------------- */

void *sim_alloc(size_t bytes);       /* the simulator's own memory, zeroed */
void *sim_realloc(void *p, size_t bytes);
void sim_free(void *p);
uint64_t sim_memory_count(void);     /* blocks that the daemon has */
void sim_memory_drop(void);          /* all of them */
void sim_memory_keep(void);          /* those that there are now do not count */
/* Where the first of them was allocated, for a message. */
void sim_memory_describe(char *ret, size_t ret_max);

/* --- sim_thread.c: the daemon's threads ------------------------------------------------------- */

struct sim_thread;

struct sim_thread *sim_thread_start(void *(*fn)(void *arg), void *arg);
bool sim_thread_is_done(const struct sim_thread *t);
struct sim_thread *sim_thread_self(void);  /* NULL: not in one */
void sim_threads_drop(void);               /* they never run again */
/* In a thread: */
void sim_sleep(uint64_t ns);
void sim_park(uint64_t ns);                /* until sim_wake, or so long; UINT64_MAX: for ever */
void sim_wake(struct sim_thread *t);

/* --- sim_ring.c, sim_sys.c -------------------------------------------------------------------- */

/* The process dies: operations that were under way happen, in part, or not. */
void sim_rings_crash(void);
void sim_rings_drop(void);               /* the run is over */
/* All descriptors are closed, locks let go of. */
void sim_sys_crash(void);
void sim_sys_reset(void);
uint32_t sim_sys_open_count(char *ret_first, size_t ret_max);

#endif
