/*
 * SHA-256 kernels: what sha256.c calls to compress whole blocks.
 *
 * A kernel advances `width` states that have nothing to do with each other by the same number of
 * blocks. The instructions of one stream wait for each other most of the time; those of
 * several fill the gaps. A new implementation is a row in sha256.c's table and a function here.
 */
#ifndef SLUICE_SHA256_IMPL_H
#define SLUICE_SHA256_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHA256_WIDTH_MAX = 16 };

/* h[i] are the eight words of state i, data[i] its blocks × 64 bytes; 0 ≤ i < width. */
typedef void sha256_kernel_fn(uint32_t *const h[], const uint8_t *const data[], size_t blocks);

/* The round constants [FIPS 180-4, 4.2.2]. */
extern const uint32_t sha256_k[64];

/* Does this CPU have the instructions? False in a program for another architecture, and the
 * kernels must not be called then. */
bool sha256_ni_available(void);
sha256_kernel_fn sha256_ni_1;
sha256_kernel_fn sha256_ni_2;

/* For tests: true leaves only the portable kernel, false chooses anew. Not while another thread
 * hashes. */
void sha256_force_portable(bool portable);

#endif
