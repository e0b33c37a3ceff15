/*
 * pace.h: over time exactly the rate, a second's burst after a pause, no credit beyond it.
 */
#include <criterion/criterion.h>
#include "pace.h"

static const uint64_t second_ns = 1000000000, start_ns = 500 * (uint64_t)1000000000;

/* Takes n at a time, whenever it may, for so long. What was taken. */
static uint64_t run(struct pace *p, uint64_t per_s, uint32_t n, uint64_t from_ns, uint64_t ns)
{
	uint64_t taken = 0;
	for (uint64_t now_ns = from_ns; now_ns < from_ns + ns; now_ns += 1000000) {
		while (pace_wait_ns(p, now_ns) == 0) {
			pace_take(p, per_s, n, now_ns);
			taken += n;
		}
	}
	return taken;
}

Test(pace, holds_the_rate_over_time)
{
	static const struct { uint64_t per_s; uint32_t n; } cases[] = {
		{1, 1}, {10, 1}, {1000, 1}, {1000, 7}, {65536, 1}, {65536, 524288},
		{1 << 30, 1 << 20}, {1000000000, 1000},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pace p = {0};
		uint64_t per_s = cases[i].per_s, taken = run(&p, per_s, cases[i].n, start_ns, 20 * second_ns);
		/* 20 seconds, the burst, and the last one, which is paid for afterwards. */
		cr_expect_leq(taken, 21 * per_s + cases[i].n, "case %zu: %lu", i, taken);
		cr_expect_geq(taken, 21 * per_s * 99 / 100, "case %zu: %lu", i, taken);
	}
}

Test(pace, a_pause_earns_one_second)
{
	struct pace p = {0};
	cr_expect_eq(run(&p, 100, 1, start_ns, 1), 101);
	cr_expect_eq(run(&p, 100, 1, start_ns + 3600 * second_ns, 1), 101);
	cr_expect_eq(run(&p, 100, 1, start_ns + 3600 * second_ns + second_ns / 2, 1), 50);
}

Test(pace, debt_is_waited_for)
{
	struct pace p = {0};
	pace_take(&p, 100, 1100, start_ns);
	cr_expect_eq(pace_wait_ns(&p, start_ns), 10 * second_ns);
	cr_expect_eq(pace_wait_ns(&p, start_ns + 10 * second_ns), 0);
}

Test(pace, largest_amounts_do_not_wrap)
{
	struct pace p = {0};
	pace_take(&p, 1, UINT32_MAX, start_ns);
	cr_expect_eq(pace_wait_ns(&p, start_ns), (UINT32_MAX - (uint64_t)1) * second_ns);
}

Test(pace, clock_near_zero)
{
	struct pace p = {0};
	cr_expect_eq(pace_wait_ns(&p, 0), 0);
	pace_take(&p, 1, 1, 0);
	cr_expect_eq(pace_wait_ns(&p, 0), second_ns);
}
