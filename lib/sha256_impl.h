/*
 * SHA-256 kernels: what sha256.c calls to compress whole blocks.
 *
 * A kernel advances `width` states that have nothing to do with each other by the same number of
 * blocks. The instructions of one stream wait for each other most of the time; those of
 * several fill the gaps, or stand side by side in a vector. A new implementation is a row in
 * sha256_choose.c's table and a function here.
 */
#ifndef SLUICE_SHA256_IMPL_H
#define SLUICE_SHA256_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "sha256.h"

enum { SHA256_WIDTH_MAX = 16 };

/* h[i] are the eight words of state i, data[i] its blocks × 64 bytes; 0 ≤ i < width. States that
 * nobody wants may be given more than once, with the same data. */
typedef void sha256_kernel_fn(uint32_t *const h[], const uint8_t *const data[], size_t blocks);

struct sha256_kernel {
	const char *name;
	unsigned width;
	/* Bytes per second of a full kernel, relative to each other: what is believed until
	 * sha256_calibrate() has looked. */
	unsigned rate;
	sha256_kernel_fn *run;
	bool (*available)(void); /* NULL: everywhere */
};

/* All that this program has. Those of another architecture are not available. */
const struct sha256_kernel *sha256_kernels(size_t *ret_count);
bool sha256_kernel_is_available(const struct sha256_kernel *k);
/* What is run when n streams are at hand, 1 ≤ n ≤ SHA256_WIDTH_MAX. Its width may be less: some
 * wait; or more: the rest of it is wasted. */
const struct sha256_kernel *sha256_kernel_for(unsigned n);
/* For tests and measurements: only the kernel of this name is used from now on, NULL: chooses anew.
 * Not while another thread hashes. 0, or −ENOENT: there is none, or this CPU can't run it. */
int sha256_force_impl(const char *name);

/* The round constants [FIPS 180-4, 4.2.2]. */
extern const uint32_t sha256_k[64];

/* Rounds i to i + 7 by the file's own ROUND, on variables a to h: the letters change their places
 * instead of their values, and after eight they are back. */
#define SHA256_EIGHT_ROUNDS(i) do { \
	ROUND(a, b, c, d, e, f, g, h, i); \
	ROUND(h, a, b, c, d, e, f, g, i + 1); \
	ROUND(g, h, a, b, c, d, e, f, i + 2); \
	ROUND(f, g, h, a, b, c, d, e, i + 3); \
	ROUND(e, f, g, h, a, b, c, d, i + 4); \
	ROUND(d, e, f, g, h, a, b, c, i + 5); \
	ROUND(c, d, e, f, g, h, a, b, i + 6); \
	ROUND(b, c, d, e, f, g, h, a, i + 7); \
} while (0)

/* Does this CPU have the instructions? False in a program for another architecture, and the
 * kernels must not be called then. */
bool sha256_ni_available(void);
bool sha256_ni_avx512_available(void);
bool sha256_avx2_available(void);
bool sha256_avx512vl_available(void);
bool sha256_avx512_available(void);

sha256_kernel_fn sha256_portable_1;
sha256_kernel_fn sha256_wolfssl_1;
sha256_kernel_fn sha256_ni_1;
sha256_kernel_fn sha256_ni_2;
sha256_kernel_fn sha256_ni_avx512_4;
sha256_kernel_fn sha256_avx2_8;
sha256_kernel_fn sha256_avx512vl_8;
sha256_kernel_fn sha256_avx512_16;

#endif
