/*
 * Timers as a hierarchical wheel: arm, re-arm and disarm in constant time, no allocation.
 *
 * Time is whatever monotonic millisecond count the caller has; the wheel reads no clock.
 * A timer fires at or after its deadline, at most one tick (TIMERS_TICK_MS) late per expire call.
 */
#ifndef SLUICE_TIMERS_H
#define SLUICE_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 64^10 ticks are all of 2^64 ms. */
enum { TIMERS_TICK_MS = 16, TIMERS_SLOTS = 64, TIMERS_LEVELS = 10 };

struct timer {
	struct timer *next, **pprev; /* pprev == NULL: not armed */
	uint64_t deadline_ms;
	void (*fire)(struct timer *t);
};

struct timers {
	uint64_t now_tick; /* up to which everything has fired */
	uint64_t count;    /* armed */
	struct timer *due; /* armed when their time had already come */
	uint64_t busy[TIMERS_LEVELS]; /* one bit per slot: is anything in it? */
	struct timer *slots[TIMERS_LEVELS][TIMERS_SLOTS];
};

void timers_init(struct timers *w, uint64_t now_ms);
/* Arms (or re-arms) t. t->fire must be set. A deadline that has passed fires at the next expire. */
void timers_arm(struct timers *w, struct timer *t, uint64_t deadline_ms);
void timers_disarm(struct timers *w, struct timer *t); /* idempotent */
static inline bool timer_is_armed(const struct timer *t)
{
	return t->pprev != NULL;
}
/* Fires all that are due, those armed for the past first, then in the order of their ticks; each is
 * disarmed before its fire is called, and fire may arm and disarm any timer: one that is armed
 * again, even for a time that has passed, waits for the next call. A now_ms before that of an
 * earlier call counts as that one. Returns how many fired. */
unsigned timers_expire(struct timers *w, uint64_t now_ms);
/* Milliseconds until the next may be due (a lower bound, so waking then is never too late);
 * UINT64_MAX when none is armed. */
uint64_t timers_next_ms(const struct timers *w, uint64_t now_ms);

#endif
