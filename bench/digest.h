/*
 * The SHA-256 digests that a run will send, computed before its clock starts.
 */
#ifndef SLUICE_BENCH_DIGEST_H
#define SLUICE_BENCH_DIGEST_H

#include <stdint.h>

#include "plan.h"
#include "sha256.h"
#include "source.h"

typedef uint8_t digest_bytes[SHA256_DIGEST_BYTES];

struct digests {
	digest_bytes *of_files;     /* CHECKSUM_FIN: by file */
	digest_bytes **of_segments; /* CHECKSUM_SEGMENT: by file, then by ordinal in its plan */
	uint32_t files_count;
};

/* Computes what the options ask for. 0, or −errno after a message on stderr. */
int digests_init(struct digests *d, const struct options *o, const struct plan_rules *rules,
	struct source *source);
void digests_fini(struct digests *d); /* idempotent */

#endif
