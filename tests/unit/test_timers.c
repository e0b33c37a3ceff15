/*
 * The timer wheel against a list that is searched from end to end.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "timers.h"

enum { COUNT = 200 };

struct model {
	struct timer timer;
	bool armed;
	bool was_past; /* when it was armed */
	uint64_t deadline_ms;
	unsigned fired, changes;
};

static struct timers wheel;
static struct model all[COUNT];
static uint64_t now_ms, last_tick;
static unsigned random_state;

static uint64_t random_below(uint64_t n)
{
	uint64_t r = 0;

	for (int i = 0; i < 5; i++)
		r = r << 15 ^ (uint64_t)rand_r(&random_state);
	return n ? r % n : 0;
}

static void arm(struct model *m, uint64_t deadline_ms)
{
	timers_arm(&wheel, &m->timer, deadline_ms);
	m->armed = true;
	m->deadline_ms = deadline_ms;
	m->was_past = deadline_ms <= now_ms / TIMERS_TICK_MS * TIMERS_TICK_MS;
	m->changes++;
}

static void disarm(struct model *m)
{
	timers_disarm(&wheel, &m->timer);
	m->armed = false;
	m->changes++;
	cr_assert(!timer_is_armed(&m->timer));
}

static uint64_t random_deadline(void)
{
	/* Every level, and the past. */
	uint64_t span = UINT64_C(1) << random_below(40);

	if (random_below(8) == 0)
		return now_ms - random_below(now_ms < 1000 ? now_ms : 1000);
	return now_ms + random_below(span);
}

static void on_fire(struct timer *t)
{
	struct model *m = (struct model *)t;

	cr_assert(m->armed, "fired although not armed");
	cr_assert(!timer_is_armed(t), "not disarmed before its fire");
	cr_assert_leq(m->deadline_ms, now_ms, "early");
	m->armed = false;
	m->fired++;
	uint64_t tick = m->was_past ? 0 : (m->deadline_ms + TIMERS_TICK_MS - 1) / TIMERS_TICK_MS;
	cr_assert_geq(tick, last_tick, "out of order");
	last_tick = tick;
	/* Now and then do to the others, or to itself, what a connection's timers do. */
	switch (random_below(6)) {
	case 0:
		arm(m, random_deadline());
		break;
	case 1:
		disarm(&all[random_below(COUNT)]);
		break;
	case 2:
		arm(&all[random_below(COUNT)], random_deadline());
		break;
	}
}

static void check_against_model(void)
{
	uint64_t count = 0, next = UINT64_MAX;

	for (int i = 0; i < COUNT; i++) {
		cr_assert_eq(timer_is_armed(&all[i].timer), all[i].armed);
		if (!all[i].armed)
			continue;
		count++;
		if (all[i].deadline_ms < next)
			next = all[i].deadline_ms;
	}
	cr_assert_eq(wheel.count, count);
	uint64_t wait = timers_next_ms(&wheel, now_ms);
	if (count == 0) {
		cr_assert_eq(wait, UINT64_MAX);
		return;
	}
	/* A tick is the finest that the wheel can tell. */
	uint64_t latest = next + TIMERS_TICK_MS - 1;
	cr_assert(latest < now_ms ? wait == 0 : wait <= latest - now_ms, "wakes too late");
}

static void expire(uint64_t to_ms)
{
	struct model before[COUNT];

	memcpy(before, all, sizeof(all));
	now_ms = to_ms;
	last_tick = 0;
	unsigned fired = timers_expire(&wheel, now_ms);
	for (int i = 0; i < COUNT; i++) {
		unsigned times = all[i].fired - before[i].fired;
		cr_assert_leq(times, 1, "fired twice in one call");
		fired -= times;
		/* The last tick that has begun is what counts as now; only another timer's callback
		 * may have kept one that is due from firing. */
		bool was_due = before[i].armed &&
			       before[i].deadline_ms <= to_ms / TIMERS_TICK_MS * TIMERS_TICK_MS;
		if (was_due && times == 0)
			cr_assert_neq(all[i].changes, before[i].changes, "late");
	}
	cr_assert_eq(fired, 0, "the count of fired ones is wrong");
}

static void wheel_reset(uint64_t start_ms, unsigned seed)
{
	now_ms = start_ms;
	random_state = seed;
	timers_init(&wheel, now_ms);
	memset(all, 0, sizeof(all));
	for (int i = 0; i < COUNT; i++)
		all[i].timer.fire = on_fire;
}

Test(timers, random_against_the_model)
{
	static const uint64_t starts[] = {0, 1, 1023, UINT64_C(1) << 40, UINT64_MAX / 2};

	for (unsigned seed = 1; seed <= 20; seed++) {
		wheel_reset(starts[seed % 5], seed);
		for (int step = 0; step < 1000; step++) {
			struct model *m = &all[random_below(COUNT)];
			switch (random_below(4)) {
			case 0:
			case 1:
				arm(m, random_deadline());
				break;
			case 2:
				disarm(m);
				break;
			case 3:
				expire(now_ms + random_below(UINT64_C(1) << random_below(34)));
				break;
			}
			check_against_model();
		}
	}
}

static uint64_t clock_ms;

static void on_fire_simple(struct timer *t)
{
	struct model *m = (struct model *)t;

	cr_assert_geq(clock_ms, t->deadline_ms, "early");
	m->fired++;
}

/* Sleeping exactly as long as the wheel says, nothing is more than a tick late and few wakes are
 * vain. */
Test(timers, sleeping_by_next_ms)
{
	static struct timers w;
	static struct model timers[1000];
	unsigned seed = 5, fired = 0, wakes = 0;

	clock_ms = 123456789;
	timers_init(&w, clock_ms);
	for (int i = 0; i < 1000; i++) {
		timers[i].timer.fire = on_fire_simple;
		timers_arm(&w, &timers[i].timer, clock_ms + (uint64_t)rand_r(&seed) % 3600000);
	}
	for (uint64_t wait; (wait = timers_next_ms(&w, clock_ms)) != UINT64_MAX; wakes++) {
		clock_ms += wait;
		unsigned now_fired = timers_expire(&w, clock_ms);
		fired += now_fired;
		for (int i = 0; i < 1000; i++) {
			if (!timers[i].fired)
				cr_assert_gt(timers[i].timer.deadline_ms + TIMERS_TICK_MS, clock_ms,
					"late");
		}
	}
	cr_expect_eq(fired, 1000);
	cr_expect_lt(wakes, 4500, "%u wakes", wakes);
	for (int i = 0; i < 1000; i++)
		cr_expect_eq(timers[i].fired, 1);
}

Test(timers, exact_edges)
{
	struct timers w;
	struct model m = {.timer = {.fire = on_fire_simple}};

	for (uint64_t start = 0; start < 40; start++) {
		for (uint64_t delta = 0; delta < 40; delta++) {
			timers_init(&w, start);
			m.fired = 0;
			timers_arm(&w, &m.timer, start + delta);
			for (clock_ms = start; !m.fired; clock_ms++)
				timers_expire(&w, clock_ms);
			cr_expect_lt(clock_ms - 1, start + delta + TIMERS_TICK_MS);
		}
	}
}

Test(timers, the_end_of_time)
{
	struct timers w;
	struct model m = {.timer = {.fire = on_fire_simple}};

	clock_ms = 1000;
	timers_init(&w, clock_ms);
	timers_arm(&w, &m.timer, UINT64_MAX);
	cr_expect_gt(timers_next_ms(&w, clock_ms), UINT64_C(1) << 50);
	cr_expect_eq(timers_expire(&w, UINT64_C(1) << 62), 0);
	cr_expect(timer_is_armed(&m.timer));
	timers_disarm(&w, &m.timer);
	timers_disarm(&w, &m.timer);
	cr_expect_eq(timers_next_ms(&w, clock_ms), UINT64_MAX);
	/* The clock going back is no reason to fire early, or to forget. */
	timers_arm(&w, &m.timer, (UINT64_C(1) << 62) + 100);
	cr_expect_eq(timers_expire(&w, 0), 0);
	clock_ms = (UINT64_C(1) << 62) + 128;
	cr_expect_eq(timers_expire(&w, clock_ms), 1);
	cr_expect_eq(w.count, 0);
}

static struct timers *rearm_wheel;

static void on_fire_rearm(struct timer *t)
{
	((struct model *)t)->fired++;
	timers_arm(rearm_wheel, t, 0);
}

Test(timers, rearming_for_the_past_waits_for_the_next_call)
{
	static struct timers w;
	struct model m = {.timer = {.fire = on_fire_rearm}};

	rearm_wheel = &w;
	timers_init(&w, 5000);
	timers_arm(&w, &m.timer, 6000);
	cr_expect_eq(timers_expire(&w, 5999), 0);
	cr_expect_eq(timers_expire(&w, 9000), 1);
	cr_expect_eq(timers_next_ms(&w, 9000), 0);
	cr_expect_eq(timers_expire(&w, 9000), 1);
	cr_expect_eq(m.fired, 2);
}
