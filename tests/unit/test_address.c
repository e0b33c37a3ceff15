/*
 * address.h: against a plain array of counts, and from several threads at once.
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
