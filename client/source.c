/*
 * Reading and hashing a file in chunks that stay in the processor's cache. One buffer serves all:
 * the client has one thread.
 */
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static uint8_t chunk[SOURCE_CHUNK_BYTES];

void source_init(struct source *s)
{
	*s = (struct source){.fd = -1};
	sha256_init(&s->sha);
}

void source_fini(struct source *s)
{
	if (s->fd >= 0) {
		close(s->fd);
	}
	s->fd = -1;
}

int source_open(struct source *s, const char *path)
{
	struct stat st;
	/* O_NONBLOCK: opening a FIFO by its name must not wait for a writer before it is
	 * refused. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		return -errno;
	}
	int r = fstat(fd, &st) < 0 ? -errno : 0;
	if (r == 0 && !S_ISREG(st.st_mode)) {
		r = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	}
	if (r < 0) {
		close(fd);
		return r;
	}
	s->fd = fd;
	s->size = (uint64_t)st.st_size;
	s->mtime = st.st_mtim;
	if (s->size > SOURCE_CHUNK_BYTES) {
		posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	}
	return 0;
}

bool source_read(struct source *s, uint64_t off, void *buf, size_t bytes)
{
	uint8_t *at = buf;

	while (bytes > 0) {
		ssize_t n = pread(s->fd, at, bytes, (off_t)off);
		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			s->error = n < 0 ? errno : ENODATA;
			return false;
		}
		at += n;
		off += (uint64_t)n;
		bytes -= (size_t)n;
	}
	return true;
}

void source_feed(struct source *s, uint64_t off, const void *data, size_t bytes)
{
	if (s->hashed == off) {
		sha256_update(&s->sha, data, bytes);
		s->hashed += bytes;
	}
}

bool source_hash(struct source *s, uint64_t to, uint64_t bytes_max)
{
	uint64_t end = to - s->hashed < bytes_max ? to : s->hashed + bytes_max;

	while (s->hashed < end) {
		uint64_t left = end - s->hashed;
		size_t n = left < sizeof(chunk) ? (size_t)left : sizeof(chunk);
		if (!source_read(s, s->hashed, chunk, n)) {
			return false;
		}
		source_feed(s, s->hashed, chunk, n);
	}
	return true;
}

bool source_hash_segment(struct source *s, uint64_t from, uint64_t to, struct sha256 *seg)
{
	while (from < to) {
		size_t n = to - from < sizeof(chunk) ? (size_t)(to - from) : sizeof(chunk);
		if (!source_read(s, from, chunk, n)) {
			return false;
		}
		if (s->hashed == from) {
			struct sha256_lane lanes[] = {{seg, chunk, n}, {&s->sha, chunk, n}};
			sha256_update_lanes(lanes, 2);
			s->hashed += n;
		} else {
			sha256_update(seg, chunk, n);
		}
		from += n;
	}
	return true;
}

void source_rehash(struct source *s)
{
	sha256_init(&s->sha);
	s->hashed = 0;
}

const char *source_changed(const struct source *s)
{
	struct stat st;

	if (s->error == ENODATA) {
		return "it became shorter";
	}
	if (fstat(s->fd, &st) < 0) {
		return "it can't be examined any more";
	}
	if ((uint64_t)st.st_size != s->size) {
		return (uint64_t)st.st_size > s->size ? "it grew" : "it became shorter";
	}
	if (st.st_mtim.tv_sec != s->mtime.tv_sec || st.st_mtim.tv_nsec != s->mtime.tv_nsec) {
		return "it was written to";
	}
	return NULL;
}
