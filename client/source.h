/*
 * A regular file that is being sent: its bytes, its digest, and whether it stays the same
 * meanwhile.
 */
#ifndef CLIENT_SOURCE_H
#define CLIENT_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include "sha256.h"

enum { SOURCE_CHUNK_BYTES = 256 << 10 };

struct source {
	int fd;              /* −1: not open */
	uint64_t size;       /* when it was opened */
	struct timespec mtime;
	int error;           /* errno of the first failed read; ENODATA: the file became shorter */
	uint64_t hashed;     /* [0, hashed) is in sha */
	struct sha256 sha;
};

void source_init(struct source *s);
void source_fini(struct source *s); /* idempotent */
/* 0 or −errno; −EISDIR, −EINVAL for what is not a regular file. */
int source_open(struct source *s, const char *path);
/* Reads exactly [off, off + bytes). False, and s->error, when that is not possible. */
bool source_read(struct source *s, uint64_t off, void *buf, size_t bytes);
/* Feeds data, the bytes at off, to the digest if they are the next. */
void source_feed(struct source *s, uint64_t off, const void *data, size_t bytes);
/* Reads on and hashes up to `to`, at most bytes_max bytes. False as source_read. */
bool source_hash(struct source *s, uint64_t to, uint64_t bytes_max);
/* The digest of [from, to) into seg; extends the file's digest in the same pass when it is its
 * turn. */
bool source_hash_segment(struct source *s, uint64_t from, uint64_t to, struct sha256 *seg);
void source_rehash(struct source *s); /* begins the digest anew */
/* NULL, or how the file differs from when it was opened: half a sentence. */
const char *source_changed(const struct source *s);

#endif
