/*
 * The histogram's quantiles against the sorted values themselves.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "hist.h"

enum { COUNT = 5000 };

static struct hist h, other;

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void expect_near(uint64_t got, uint64_t exact)
{
	cr_assert(got >= exact && got - exact <= exact / HIST_SUB, "%lu for %lu",
		(unsigned long)got, (unsigned long)exact);
}

Test(hist, empty)
{
	hist_init(&h);
	cr_expect_eq(hist_quantile(&h, 0), 0);
	cr_expect_eq(hist_quantile(&h, 0.5), 0);
	cr_expect_eq(hist_quantile(&h, 1), 0);
}

Test(hist, one_value_of_every_size)
{
	for (unsigned bit = 0; bit < 64; bit++) {
		uint64_t power = UINT64_C(1) << bit;
		uint64_t values[] = {power - 1, power, power + 1, power | power / 2,
			power | power / 3, power + (power - 1)};
		for (int i = 0; i < 6; i++) {
			hist_init(&h);
			hist_add(&h, values[i]);
			/* The maximum is kept exactly, so a single value is. */
			cr_assert_eq(hist_quantile(&h, 0.5), values[i]);
			cr_assert_eq(h.max, values[i]);
			cr_assert_eq(h.sum, values[i]);
			hist_add(&h, UINT64_MAX);
			expect_near(hist_quantile(&h, 0.5), values[i]);
			cr_assert_eq(hist_quantile(&h, 1), UINT64_MAX);
		}
	}
}

Test(hist, small_values_are_exact)
{
	hist_init(&h);
	for (uint64_t v = 0; v < 32; v++)
		hist_add(&h, v);
	for (int i = 0; i < 32; i++)
		cr_expect_eq(hist_quantile(&h, (i + 1) / 32.0), (uint64_t)i);
	cr_expect_eq(hist_quantile(&h, 0), 0);
	cr_expect_eq(hist_quantile(&h, -1), 0);
	cr_expect_eq(hist_quantile(&h, NAN), 0);
	cr_expect_eq(hist_quantile(&h, 2), 31);
	cr_expect_eq(hist_quantile(&h, 1e-9), 0);
}

Test(hist, random_against_sorted)
{
	static const double quantiles[] = {
		0, 0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 1};
	static uint64_t values[COUNT];
	unsigned seed = 3;

	for (int round = 0; round < 10; round++) {
		uint64_t sum = 0;
		hist_init(&h);
		hist_init(&other);
		for (int i = 0; i < COUNT; i++) {
			/* Log-uniform up to 2^50 or so: every group of buckets gets some. */
			uint64_t v = (uint64_t)rand_r(&seed) << 20 ^ (uint64_t)rand_r(&seed);
			values[i] = v >> rand_r(&seed) % 51;
			sum += values[i];
			hist_add(i % 3 ? &h : &other, values[i]);
		}
		qsort(values, COUNT, sizeof(*values), compare);
		hist_merge(&h, &other);
		cr_assert_eq(h.count, COUNT);
		cr_assert_eq(h.sum, sum);
		cr_assert_eq(h.max, values[COUNT - 1]);
		for (size_t i = 0; i < sizeof(quantiles) / sizeof(*quantiles); i++) {
			int rank = (int)(quantiles[i] * COUNT);
			rank += rank < quantiles[i] * COUNT;
			expect_near(hist_quantile(&h, quantiles[i]), values[rank ? rank - 1 : 0]);
		}
	}
}

Test(hist, the_sum_saturates)
{
	hist_init(&h);
	hist_add(&h, UINT64_MAX - 1);
	hist_add(&h, 5);
	cr_expect_eq(h.sum, UINT64_MAX);
	hist_init(&other);
	hist_add(&other, 5);
	hist_merge(&other, &h);
	cr_expect_eq(other.sum, UINT64_MAX);
	cr_expect_eq(other.count, 3);
}
