/*
 * Numbers as text, for what is written once per segment: snprintf costs more than the rest of a
 * header.
 */
#ifndef SLUICE_BENCH_TEXT_H
#define SLUICE_BENCH_TEXT_H

#include <stdint.h>
#include <string.h>

/* Each appends at `at`, without a NUL, and returns the place behind. */
static inline char *text_put(char *at, const char *s, size_t s_bytes)
{
	memcpy(at, s, s_bytes);
	return at + s_bytes;
}

static inline char *text_put_number(char *at, uint64_t n, unsigned base)
{
	char digits[20];
	unsigned used = 0;

	do {
		digits[used++] = "0123456789abcdef"[n % base];
		n /= base;
	} while (n > 0);
	while (used > 0)
		*at++ = digits[--used];
	return at;
}

#endif
