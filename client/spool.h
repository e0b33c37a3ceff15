/*
 * What was read from a pipe and is not yet acknowledged: a pipe can't be read twice, so these
 * bytes are kept until the server has them. Bounded by chunks_max chunks of chunk_bytes.
 */
#ifndef CLIENT_SPOOL_H
#define CLIENT_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "cover.h"
#include "sha256.h"

struct spool_chunk {
	struct spool_chunk *next;
	uint64_t from;    /* offset of data[0] in the stream */
	uint32_t bytes;
	bool is_sealed;   /* nothing will be added */
	bool is_sent;     /* and not yet acknowledged */
	uint8_t data[];
};

struct spool {
	int fd;           /* borrowed */
	uint32_t chunk_bytes, chunks_max;
	struct spool_chunk *first, *last; /* by offset */
	uint32_t count;
	uint64_t end;     /* bytes read so far */
	bool is_eof;
	int error;        /* errno of a failed read */
	struct sha256 sha; /* of [0, end) */
};

void spool_init(struct spool *s, int fd, uint32_t chunk_bytes, uint32_t chunks_max);
void spool_fini(struct spool *s); /* idempotent */
/* Is there room to read more? */
bool spool_wants_input(const struct spool *s);
/* Reads once; call it when the descriptor is readable, so that it does not block. 0 or −errno. */
int spool_read(struct spool *s);
/* The first chunk that is to be sent: full, or the last one, or, with is_idle, whatever is there.
 * NULL: none. */
struct spool_chunk *spool_next(struct spool *s, bool is_idle);
/* Frees the sent chunk that begins at from. */
void spool_acked(struct spool *s, uint64_t from);
/* After a new connection: frees what is in covered, and the others are to be sent again. False when
 * covered lacks bytes that are no longer kept. */
bool spool_resume(struct spool *s, const struct cover *covered);

#endif
