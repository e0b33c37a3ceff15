/*
 * A list of chunks, oldest first. Chunks are acknowledged nearly in order, so a list is searched
 * only over its first few entries.
 */
#include "spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

void spool_init(struct spool *s, int fd, uint32_t chunk_bytes, uint32_t chunks_max)
{
	*s = (struct spool){.fd = fd, .chunk_bytes = chunk_bytes, .chunks_max = chunks_max};
	sha256_init(&s->sha);
	/* A pipe of the default 64 KiB means four reads per segment; failing to widen it is no
	 * error. */
	fcntl(fd, F_SETPIPE_SZ, 1 << 20);
}

void spool_fini(struct spool *s)
{
	while (s->first) {
		struct spool_chunk *c = s->first;
		s->first = c->next;
		free(c);
	}
	s->last = NULL;
	s->count = 0;
}

static bool has_open_chunk(const struct spool *s)
{
	return s->last && !s->last->is_sealed;
}

bool spool_wants_input(const struct spool *s)
{
	return !s->is_eof && !s->error && (has_open_chunk(s) || s->count < s->chunks_max);
}

static struct spool_chunk *open_chunk(struct spool *s)
{
	if (has_open_chunk(s)) {
		return s->last;
	}
	struct spool_chunk *c = malloc(sizeof(*c) + s->chunk_bytes);
	if (!c) {
		return NULL;
	}
	*c = (struct spool_chunk){.from = s->end};
	if (s->last) {
		s->last->next = c;
	} else {
		s->first = c;
	}
	s->last = c;
	s->count++;
	return c;
}

int spool_read(struct spool *s)
{
	struct spool_chunk *c = open_chunk(s);

	if (!c) {
		return -ENOMEM;
	}
	ssize_t n = read(s->fd, c->data + c->bytes, s->chunk_bytes - c->bytes);
	if (n < 0) {
		if (errno == EINTR || errno == EAGAIN) {
			return 0;
		}
		s->error = errno;
		return -errno;
	}
	if (n == 0) {
		s->is_eof = true;
		c->is_sealed = true;
		return 0;
	}
	sha256_update(&s->sha, c->data + c->bytes, (size_t)n);
	c->bytes += (uint32_t)n;
	s->end += (uint64_t)n;
	c->is_sealed = c->bytes == s->chunk_bytes;
	return 0;
}

struct spool_chunk *spool_next(struct spool *s, bool is_idle)
{
	for (struct spool_chunk *c = s->first; c; c = c->next) {
		if (c->is_sent || c->bytes == 0) {
			continue;
		}
		if (is_idle) {
			c->is_sealed = true;
		}
		return c->is_sealed ? c : NULL;
	}
	return NULL;
}

/* Unlinks and frees *at, whose predecessor is prev (NULL: it is the first). */
static void drop(struct spool *s, struct spool_chunk *prev, struct spool_chunk *c)
{
	if (prev) {
		prev->next = c->next;
	} else {
		s->first = c->next;
	}
	if (s->last == c) {
		s->last = prev;
	}
	s->count--;
	free(c);
}

void spool_acked(struct spool *s, uint64_t from)
{
	struct spool_chunk *prev = NULL;

	for (struct spool_chunk *c = s->first; c && c->from <= from; prev = c, c = c->next) {
		if (c->from == from && c->is_sent) {
			drop(s, prev, c);
			return;
		}
	}
}

bool spool_resume(struct spool *s, const struct cover *covered)
{
	struct spool_chunk *prev = NULL, *next;
	uint64_t at = 0;

	/* Everything that is not in a chunk was acknowledged once and must still be there. */
	for (struct spool_chunk *c = s->first; c; c = c->next) {
		if (!cover_has(covered, at, c->from)) {
			return false;
		}
		at = c->from + c->bytes;
	}
	if (!cover_has(covered, at, s->end)) {
		return false;
	}
	for (struct spool_chunk *c = s->first; c; c = next) {
		next = c->next;
		if (c->is_sent && cover_has(covered, c->from, c->from + c->bytes)) {
			drop(s, prev, c);
			continue;
		}
		c->is_sent = false;
		prev = c;
	}
	return true;
}
