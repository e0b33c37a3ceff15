/*
 * What a run has achieved so far.
 */
#ifndef SLUICE_BENCH_TALLY_H
#define SLUICE_BENCH_TALLY_H

#include <stdbool.h>
#include <stdint.h>

#include "hist.h"

enum tally_verdict { TALLY_OPEN, TALLY_OK, TALLY_FAILED };

enum { TALLY_CAUSES_MAX = 5 }; /* failures that are explained on stderr */

struct tally {
	uint8_t *verdicts; /* enum tally_verdict, by file */
	uint32_t files_count;
	uint32_t files_open; /* without a verdict */
	uint32_t files_failed;
	uint32_t connections_failed;
	uint32_t causes_told;
	bool line_open;     /* a progress line is on the terminal and must be ended first */
	uint64_t bytes;     /* payload of acknowledged segments */
	uint64_t segments;  /* acknowledged */
	struct hist ack_ns; /* every command but fin: written → acknowledged */
	struct hist fin_ns; /* fin: written → acknowledged */
};

int tally_init(struct tally *t, uint32_t files_count); /* 0 or −ENOMEM */
void tally_fini(struct tally *t);                      /* idempotent */
/* Gives an open file its verdict; one that already has one keeps it. */
void tally_file_ok(struct tally *t, uint32_t file_idx);
/* The first failures are told on stderr, with the cause given here. A file that was exported may
 * still fail (when its content is compared). */
void tally_file_failed(struct tally *t, uint32_t file_idx, const char *cause, ...)
	__attribute__((format(printf, 3, 4)));
/* Fails an open file without a word of its own: its connection's failure has been told. */
void tally_file_lost(struct tally *t, uint32_t file_idx);
/* A connection's failure, told like the others. */
void tally_connection_failed(struct tally *t, const char *cause, ...)
	__attribute__((format(printf, 2, 3)));

#endif
