/*
 * What is sent: a list of files and their bytes, made up or real.
 */
#ifndef SLUICE_BENCH_SOURCE_H
#define SLUICE_BENCH_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "options.h"

enum { SOURCE_STAMP_BYTES = 16, SOURCE_STAMP_EVERY = 1 << 20 };

struct source_file {
	uint64_t bytes;
	char *path;         /* real files: owned; made-up ones: NULL */
	const uint8_t *map; /* real files: while open and not empty */
};

struct source {
	uint64_t seed;
	uint8_t *content; /* made-up files: the shared random bytes */
	struct source_file *files;
	uint32_t files_count;
	uint64_t bytes; /* of all files */
};

/* The files as the options want them. 0, or −errno after a message on stderr. */
int source_init(struct source *s, const struct options *o);
void source_fini(struct source *s); /* idempotent */

/* Makes the content of a file available, from now on until source_close. 0; −errno; −ESTALE when a
 * real file has another size than it had when it was found. Made-up files are always available. */
int source_open(struct source *s, uint32_t file_idx);
void source_close(struct source *s, uint32_t file_idx); /* idempotent */

/* A span of the content at `off`: points *ret_data to it and returns how many bytes (1 … bytes) lie
 * there in one piece. bytes > 0, off + bytes ≤ size, the file open. The span borrows from the
 * source, or from `stamp`, which this may write to. */
size_t source_span(const struct source *s, uint32_t file_idx, uint64_t off, uint64_t bytes,
	uint8_t stamp[SOURCE_STAMP_BYTES], const uint8_t **ret_data);

/* The name that `init` gives the file: into name, which holds META_NAME_MAX + 1 bytes. */
void source_name(const struct source *s, uint32_t file_idx, char *name);
/* Its file id: "<seed>-<index>", the seed in hexadecimal; at most SOURCE_FILEID_MAX bytes and NUL.
 */
enum { SOURCE_FILEID_MAX = 16 + 1 + 10 };
void source_fileid(const struct source *s, uint32_t file_idx, char fileid[SOURCE_FILEID_MAX + 1]);

#endif
