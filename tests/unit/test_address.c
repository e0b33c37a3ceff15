/*
 * address.h: against a plain array of counts, and from several threads at once; and the rates.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "address.h"

enum { ADDRESSES = 200, MAX = 5, STEPS = 100000, THREADS = 4 };

static void spell(uint32_t n, uint8_t ret[ADDRESS_BYTES])
{
	memset(ret, 0, ADDRESS_BYTES);
	memcpy(ret + 12, &n, sizeof(n));
}

Test(address, counts_as_an_array_does)
{
	static struct address *held[ADDRESSES][MAX];
	uint32_t counts[ADDRESSES] = {0}, present = 0;
	uint8_t bytes[ADDRESS_BYTES];
	srandom(1);
	for (uint32_t i = 0; i < STEPS; i++) {
		uint32_t n = (uint32_t)random() % ADDRESSES;
		spell(n, bytes);
		if (random() % 2) {
			struct address *a = address_enter(bytes, MAX);
			cr_assert_eq(a != NULL, counts[n] < MAX);
			if (a) {
				present += counts[n] == 0;
				held[n][counts[n]++] = a;
			}
		} else if (counts[n] > 0) {
			address_leave(held[n][--counts[n]]);
			present -= counts[n] == 0;
		}
		cr_assert_eq(addresses_count(), present);
	}
	for (uint32_t n = 0; n < ADDRESSES; n++) {
		while (counts[n] > 0)
			address_leave(held[n][--counts[n]]);
	}
	cr_expect_eq(addresses_count(), 0);
	address_leave(NULL);
}

Test(address, a_lower_limit_lets_nobody_in_until_enough_have_left)
{
	uint8_t bytes[ADDRESS_BYTES];
	spell(7, bytes);
	struct address *a = address_enter(bytes, 3), *b = address_enter(bytes, 3);
	cr_assert(a && b);
	cr_expect_null(address_enter(bytes, 2));
	cr_expect_null(address_enter(bytes, 1));
	address_leave(a);
	cr_expect_null(address_enter(bytes, 1));
	address_leave(b);
	cr_expect_eq(addresses_count(), 0);
}

static void *come_and_go(void *arg)
{
	uint64_t *refused = arg;
	uint8_t bytes[ADDRESS_BYTES];
	for (uint32_t i = 0; i < STEPS; i++) {
		spell(i % 3, bytes);
		struct address *a = address_enter(bytes, THREADS - 1);
		*refused += a == NULL;
		address_leave(a);
	}
	return NULL;
}

Test(address, threads_leave_nothing_behind)
{
	pthread_t threads[THREADS];
	uint64_t refused[THREADS] = {0};
	for (int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, come_and_go, &refused[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	cr_expect_eq(addresses_count(), 0);
	for (int i = 0; i < THREADS; i++)
		cr_expect_lt(refused[i], STEPS);
}

/* ---- rates ---- */

static uint32_t take_all(uint32_t n, uint32_t per_s, uint64_t now_ms, uint32_t tries)
{
	uint32_t taken = 0;
	uint8_t bytes[ADDRESS_BYTES];
	spell(n, bytes);
	while (tries-- > 0)
		taken += address_take_rate(bytes, per_s, now_ms);
	return taken;
}

/* A second's worth after a pause, and one that brings it up to now; then so many per second, however
 * often it tries. */
Test(address, connects_at_its_rate)
{
	uint32_t taken = 0;
	cr_expect_eq(take_all(1, 10, 100000, 100), 11);
	cr_expect_eq(take_all(1, 10, 100099, 100), 0);
	for (uint64_t ms = 1; ms <= 10000; ms++)
		taken += take_all(1, 10, 100000 + ms, 3);
	cr_expect_eq(taken, 100);
	cr_expect_eq(take_all(1, 10, 200000, 100), 11);
	cr_expect_eq(take_all(2, 1, 100000, 100), 2);
}

/* Far more addresses than there are places: none is refused for what others do, and one that goes on
 * trying among some thousands is still known. */
Test(address, of_others_rates_nobody_hears)
{
	for (uint32_t n = 100; n < 300000; n++)
		cr_assert_eq(take_all(n, 5, 100000, 1), 1);
	uint32_t taken = take_all(1, 10, 200000, 11);
	for (uint32_t n = 100; n < 5100; n++) {
		cr_assert_eq(take_all(n, 5, 200000, 1), 1);
		taken += take_all(1, 10, 200000, 1);
	}
	cr_expect_eq(taken, 11);
}

static void *take_rates(void *arg)
{
	for (uint32_t i = 0; i < STEPS; i++)
		*(uint64_t *)arg += take_all(3 + i % 3, 1000, 100000 + i / 100, 1);
	return NULL;
}

Test(address, rates_hold_over_threads)
{
	pthread_t threads[THREADS];
	uint64_t taken[THREADS] = {0}, all = 0;
	for (int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, take_rates, &taken[i]), 0);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		all += taken[i];
	}
	cr_expect(all >= 3 * 1001 && all <= 3 * 2001, "%lu in a second", all);
}
