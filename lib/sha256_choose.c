/*
 * Which SHA-256 kernel for how many streams.
 *
 * For n streams at hand a kernel is worth its rate × the part of its places that they fill; the
 * best one is run. Rates are known from experience until sha256_calibrate() has measured them on
 * this very machine: whether SHA-NI in pairs or sixteen vector lanes win differs from one processor
 * to the next, and so does the number of streams from which on.
 *
 * The choice is made before main and again by sha256_calibrate(), both before any thread hashes;
 * afterwards it is only read.
 */
#include "sha256.h"
#include "sha256_impl.h"

#include <errno.h>
#include <string.h>

/* Rates: MB per second of CPU time on Zen 5, by GCC 12. The portable one is needed everywhere. */
static const struct sha256_kernel kernels[] = {
	{"sha-ni", 1, 1830, sha256_ni_1, sha256_ni_available},
	{"sha-ni-2", 2, 2800, sha256_ni_2, sha256_ni_available},
	{"sha-ni-4", 4, 3340, sha256_ni_avx512_4, sha256_ni_avx512_available},
	{"avx2", 8, 1600, sha256_avx2_8, sha256_avx2_available},
	{"avx512vl", 8, 2600, sha256_avx512vl_8, sha256_avx512vl_available},
	{"avx512", 16, 5270, sha256_avx512_16, sha256_avx512_available},
	{"portable", 1, 450, sha256_portable_1, NULL},
	{"wolfssl", 1, 320, sha256_wolfssl_1, NULL},
};

enum {
	KERNELS_COUNT = sizeof(kernels) / sizeof(kernels[0]),
	/* Of a measurement: short enough to be lost in the start of a program, long enough for a
	 * clock of 100 ns; the best of several, since other things run meanwhile. */
	SAMPLES_COUNT = 5, SAMPLE_BYTES = 128 * 1024, STREAM_BYTES = 4096,
};

static uint64_t rates[KERNELS_COUNT];
static const struct sha256_kernel *best_for[SHA256_WIDTH_MAX + 1]; /* by streams at hand */
static unsigned lanes_wanted;

const struct sha256_kernel *sha256_kernels(size_t *ret_count)
{
	*ret_count = KERNELS_COUNT;
	return kernels;
}

bool sha256_kernel_is_available(const struct sha256_kernel *k)
{
	return k->available == NULL || k->available();
}

/* What n streams get from a kernel. */
static uint64_t worth(unsigned kernel, unsigned n)
{
	unsigned width = kernels[kernel].width;
	return n < width ? rates[kernel] * n / width : rates[kernel];
}

/* A rate of 0 rules a kernel out. Of two that are worth the same the narrower one is taken. */
static void choose(void)
{
	uint64_t most = 0;
	for (unsigned n = 1; n <= SHA256_WIDTH_MAX; n++) {
		unsigned best = 0;
		for (unsigned i = 1; i < KERNELS_COUNT; i++)
			best = worth(i, n) > worth(best, n) ? i : best;
		best_for[n] = &kernels[best];
		if (worth(best, n) > most) {
			most = worth(best, n);
			lanes_wanted = n;
		}
	}
}

__attribute__((constructor)) static void choose_by_experience(void)
{
	for (unsigned i = 0; i < KERNELS_COUNT; i++)
		rates[i] = sha256_kernel_is_available(&kernels[i]) ? kernels[i].rate : 0;
	choose();
}

int sha256_force_impl(const char *name)
{
	if (!name) {
		choose_by_experience();
		return 0;
	}
	for (unsigned i = 0; i < KERNELS_COUNT; i++) {
		if (strcmp(kernels[i].name, name) != 0 || !sha256_kernel_is_available(&kernels[i]))
			continue;
		memset(rates, 0, sizeof(rates));
		rates[i] = SHA256_WIDTH_MAX; /* worth something also for one stream */
		choose();
		return 0;
	}
	return -ENOENT;
}

/* The nanoseconds that a kernel takes for SAMPLE_BYTES. Every stream reads from a place of its own,
 * all of which stay in the second-level cache. */
static uint64_t measure(const struct sha256_kernel *k, const uint8_t *bytes, uint64_t (*now_ns)(void))
{
	uint32_t states[SHA256_WIDTH_MAX][8] = {0};
	uint32_t *h[SHA256_WIDTH_MAX];
	const uint8_t *data[SHA256_WIDTH_MAX];
	for (unsigned i = 0; i < k->width; i++) {
		h[i] = states[i];
		data[i] = bytes + (size_t)i * STREAM_BYTES;
	}
	uint64_t began_ns = now_ns();
	for (unsigned done = 0; done < SAMPLE_BYTES; done += k->width * STREAM_BYTES)
		k->run(h, data, STREAM_BYTES / SHA256_BLOCK_BYTES);
	return now_ns() - began_ns;
}

void sha256_calibrate(uint64_t (*now_ns)(void))
{
	const uint8_t bytes[SHA256_WIDTH_MAX * STREAM_BYTES] = {0};
	uint64_t least_ns[KERNELS_COUNT];
	memset(least_ns, 0xff, sizeof(least_ns));
	/* In turns: what disturbs one of them for a while disturbs the others as much. */
	for (unsigned sample = 0; sample < SAMPLES_COUNT; sample++) {
		for (unsigned i = 0; i < KERNELS_COUNT; i++) {
			if (!sha256_kernel_is_available(&kernels[i]))
				continue;
			uint64_t ns = measure(&kernels[i], bytes, now_ns);
			least_ns[i] = ns < least_ns[i] ? ns : least_ns[i];
		}
	}
	for (unsigned i = 0; i < KERNELS_COUNT; i++) {
		if (!sha256_kernel_is_available(&kernels[i]))
			rates[i] = 0;
		else /* KB per second; a clock that stands still makes all of them equal */
			rates[i] = SAMPLE_BYTES * 1000000ull / (least_ns[i] + 1) + 1;
	}
	choose();
}

const struct sha256_kernel *sha256_kernel_for(unsigned n)
{
	return best_for[n];
}

unsigned sha256_lanes_wanted(void)
{
	return lanes_wanted;
}

const char *sha256_impl_name(size_t lanes_count)
{
	return best_for[lanes_count < SHA256_WIDTH_MAX ? lanes_count : SHA256_WIDTH_MAX]->name;
}
