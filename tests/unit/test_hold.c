/*
 * hold.h: how long a v3 client is held, when it is told the truth after all, and that the table
 * forgets.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "hold.h"

static struct hold *table;

static void set_up(void)
{
	table = hold_new();
	cr_assert_not_null(table);
}

static void tear_down(void)
{
	hold_free(table);
}

TestSuite(hold, .init = set_up, .fini = tear_down);

static struct hold_key key(const char *clientid, const char *topic)
{
	return (struct hold_key){clientid, topic, (uint32_t)strlen(clientid),
		(uint32_t)strlen(topic)};
}

/* The delay, or 0 when it is to be acknowledged. hold_would must have said the same before. */
static uint64_t fail(const char *clientid, const char *topic, const char *text, uint64_t now_ms)
{
	struct hold_key k = key(clientid, topic);
	uint64_t delay_ms = 0;
	bool would = hold_would(table, &k, text, now_ms);
	bool held = hold_fail(table, &k, text, now_ms, &delay_ms);
	cr_assert_eq(would, held);
	cr_assert_eq(held, delay_ms > 0);
	return delay_ms;
}

static void succeed(const char *clientid, const char *topic)
{
	struct hold_key k = key(clientid, topic);
	hold_succeed(table, &k);
}

Test(hold, third_of_the_same_error_is_told)
{
	cr_assert_eq(fail("a", "t", "enospc", 1000), 5000);
	cr_assert_eq(fail("a", "t", "enospc", 7000), 10000);
	cr_assert_eq(fail("a", "t", "enospc", 18000), 0);
	/* And stays so, whichever command it hits. */
	cr_assert_eq(fail("a", "u", "enospc", 18001), 0);
}

Test(hold, another_error_begins_a_row_but_not_the_delay)
{
	uint64_t now_ms = 0, delay_ms = 5000;
	/* Two errors in turns are never three in a row; the delay doubles up to five minutes. */
	for (int i = 0; i < 12; i++) {
		cr_assert_eq(fail("a", "t", i % 2 ? "enospc" : "io_error", now_ms), delay_ms);
		delay_ms = delay_ms * 2 > 300000 ? 300000 : delay_ms * 2;
		now_ms += 400000;
	}
}

Test(hold, clients_are_apart)
{
	cr_assert_eq(fail("a", "t", "enospc", 0), 5000);
	cr_assert_eq(fail("b", "t", "enospc", 0), 5000);
	cr_assert_eq(fail("a", "t", "enospc", 1), 10000);
	cr_assert_eq(fail("b", "t", "enospc", 1), 10000);
}

Test(hold, success_of_the_failed_command_ends_the_row)
{
	fail("a", "t", "enospc", 0);
	fail("a", "t", "enospc", 1);
	succeed("a", "t");
	cr_assert_eq(fail("a", "t", "enospc", 2), 5000);
	/* What goes well beside it, like the segments sent again before it, does not. */
	succeed("a", "other");
	succeed("b", "t");
	cr_assert_eq(fail("a", "t", "enospc", 3), 10000);
	cr_assert_eq(fail("a", "t", "enospc", 4), 0);
}

Test(hold, it_is_forgotten_in_time)
{
	fail("a", "t", "enospc", 0);
	cr_assert_eq(fail("a", "t", "enospc", 899999), 10000);
	cr_assert_eq(fail("a", "t", "enospc", 899999 + 900001), 5000);
}

Test(hold, success_without_failure_costs_nothing_and_does_nothing)
{
	for (int i = 0; i < 1000; i++)
		succeed("a", "t");
	cr_assert_eq(fail("a", "t", "enospc", 0), 5000);
}

/* Far more clients than the table has places: every answer is still one that a new or an old entry
 * may give, and the latest client is never the one that gave way. */
Test(hold, a_full_table_gives_way)
{
	char clientid[32];
	for (int i = 0; i < 20000; i++) {
		snprintf(clientid, sizeof(clientid), "client-%d", i);
		cr_assert_eq(fail(clientid, "t", "enospc", (uint64_t)i), 5000);
		cr_assert_eq(fail(clientid, "t", "enospc", (uint64_t)i), 10000);
	}
	cr_assert_eq(fail("client-0", "t", "enospc", 20000), 5000);
}
