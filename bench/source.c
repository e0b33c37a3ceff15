/*
 * Content.
 *
 * Made-up files share one buffer of random bytes and differ in where they begin in it; its length
 * is a prime, so that no shift by a power of two or by whole segments brings equal bytes together:
 * a segment stored at a wrong place is a wrong file. Every SOURCE_STAMP_EVERY bytes, from the first
 * byte on, a stamp computed from seed, file and place overwrites 16 of them, so that also two files
 * that begin at the same place of the buffer differ. The buffer fits into a second-level cache:
 * what the generator costs is the copy into the socket.
 *
 * Real files are mapped while they are sent. One that shrinks under the mapping ends the program
 * with a message (SIGBUS); that is not worth a copy of everything.
 */
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meta.h"
#include "rng.h"
#include "text.h"

enum { CONTENT_BYTES = 1048573 }; /* the largest prime below 2^20 */

/* What a hash is for: mixed into the seed. */
enum { FOR_CONTENT = 101, FOR_BASE, FOR_SIZE, FOR_STAMP };

static int source_make_up(struct source *s, const struct options *o)
{
	uint64_t choices = o->size.max - o->size.min + 1;

	s->files_count = o->files != 0 ? o->files : o->connections;
	s->files = calloc(s->files_count, sizeof(*s->files));
	s->content = malloc(CONTENT_BYTES + sizeof(uint64_t));
	if (s->files == NULL || s->content == NULL) {
		fputs("sluice-bench: no memory for that many files\n", stderr);
		return -ENOMEM;
	}
	for (size_t at = 0; at < CONTENT_BYTES; at += sizeof(uint64_t)) {
		uint64_t word = rng_hash(s->seed + FOR_CONTENT, at);

		memcpy(s->content + at, &word, sizeof(word));
	}
	for (uint32_t i = 0; i < s->files_count; i++) {
		s->files[i].bytes =
			o->size.min + rng_below(rng_hash(s->seed + FOR_SIZE, i), choices);
		s->bytes += s->files[i].bytes;
	}
	return 0;
}

static void source_on_sigbus(int signo)
{
	static const char text[] = "sluice-bench: a file below --dir shrank while it was read\n";
	ssize_t ignored = write(STDERR_FILENO, text, sizeof(text) - 1);

	(void)signo;
	(void)ignored;
	_exit(1);
}

static int source_add_found(struct source *s, uint32_t *capacity, const FTSENT *found)
{
	if (s->files_count == *capacity) {
		uint32_t wanted = *capacity == 0 ? 256 : *capacity * 2;
		struct source_file *files = reallocarray(s->files, wanted, sizeof(*files));

		if (files == NULL)
			return -ENOMEM;
		s->files = files;
		*capacity = wanted;
	}
	s->files[s->files_count] = (struct source_file){
		.bytes = (uint64_t)found->fts_statp->st_size,
		.path = strdup(found->fts_path),
	};
	if (s->files[s->files_count].path == NULL)
		return -ENOMEM;
	s->bytes += s->files[s->files_count].bytes;
	s->files_count++;
	return 0;
}

static int source_by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* Regular files below a directory, in the order of their names, without following links. */
static int source_find(struct source *s, const struct options *o)
{
	char *roots[] = {(char *)o->dir, NULL};
	struct sigaction on_bus = {.sa_handler = source_on_sigbus};
	uint32_t capacity = 0;
	FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, source_by_name);
	FTSENT *found;
	int error = tree == NULL ? -errno : 0;

	while (error == 0 && (o->files == 0 || s->files_count < o->files) &&
		(found = fts_read(tree)) != NULL) {
		if (found->fts_info == FTS_F)
			error = source_add_found(s, &capacity, found);
		else if (found->fts_info == FTS_DNR || found->fts_info == FTS_ERR ||
			 found->fts_info == FTS_NS)
			error = -found->fts_errno;
	}
	if (tree != NULL)
		fts_close(tree);
	if (error == 0 && s->files_count == 0)
		error = -ENODATA;
	if (error != 0) {
		fprintf(stderr, "sluice-bench: --dir %s: %s\n", o->dir,
			error == -ENODATA ? "no regular files there" : strerror(-error));
		return error;
	}
	sigaction(SIGBUS, &on_bus, NULL);
	return 0;
}

int source_init(struct source *s, const struct options *o)
{
	*s = (struct source){.seed = o->seed};
	return o->command == OPTIONS_INGEST && o->dir != NULL ? source_find(s, o) : source_make_up(s, o);
}

void source_fini(struct source *s)
{
	for (uint32_t i = 0; i < s->files_count && s->files != NULL; i++) {
		source_close(s, i);
		free(s->files[i].path);
	}
	free(s->files);
	free(s->content);
	*s = (struct source){0};
}

int source_open(struct source *s, uint32_t file_idx)
{
	struct source_file *f = &s->files[file_idx];
	struct stat st;
	void *map;
	int fd, error = 0;

	if (f->path == NULL || f->map != NULL)
		return 0;
	fd = open(f->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) != 0) {
		error = -errno;
	} else if ((uint64_t)st.st_size != f->bytes) {
		error = -ESTALE;
	} else if (f->bytes > 0) {
		map = mmap(NULL, f->bytes, PROT_READ, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED) {
			error = -errno;
		} else {
			madvise(map, f->bytes, MADV_SEQUENTIAL);
			f->map = map;
		}
	}
	close(fd);
	return error;
}

void source_close(struct source *s, uint32_t file_idx)
{
	struct source_file *f = &s->files[file_idx];

	if (f->map != NULL)
		munmap((void *)f->map, f->bytes);
	f->map = NULL;
}

static void source_stamp(const struct source *s, uint32_t file_idx, uint64_t block,
	uint8_t stamp[SOURCE_STAMP_BYTES])
{
	uint64_t words[2];

	words[0] = rng_hash(rng_hash(s->seed + FOR_STAMP, file_idx), block);
	words[1] = rng_mix(words[0]);
	memcpy(stamp, words, SOURCE_STAMP_BYTES);
}

size_t source_span(const struct source *s, uint32_t file_idx, uint64_t off, uint64_t bytes,
	uint8_t stamp[SOURCE_STAMP_BYTES], const uint8_t **ret_data)
{
	const struct source_file *f = &s->files[file_idx];
	uint64_t in_block = off % SOURCE_STAMP_EVERY;
	uint64_t base, at, span;

	if (f->map != NULL) {
		*ret_data = f->map + off;
		return bytes;
	}
	if (in_block < SOURCE_STAMP_BYTES) {
		source_stamp(s, file_idx, off / SOURCE_STAMP_EVERY, stamp);
		*ret_data = stamp + in_block;
		span = SOURCE_STAMP_BYTES - in_block;
		return span < bytes ? span : bytes;
	}
	base = rng_below(rng_hash(s->seed + FOR_BASE, file_idx), CONTENT_BYTES);
	at = (base + off % CONTENT_BYTES) % CONTENT_BYTES;
	*ret_data = s->content + at;
	span = CONTENT_BYTES - at;
	if (span > SOURCE_STAMP_EVERY - in_block)
		span = SOURCE_STAMP_EVERY - in_block;
	return span < bytes ? span : bytes;
}

void source_name(const struct source *s, uint32_t file_idx, char *name)
{
	const char *path = s->files[file_idx].path;
	const char *last;

	if (path == NULL) {
		snprintf(name, META_NAME_MAX + 1, "file-%" PRIu32 ".bin", file_idx);
		return;
	}
	last = strrchr(path, '/');
	last = last != NULL ? last + 1 : path;
	if (meta_name_ok(last, strlen(last))) {
		strcpy(name, last);
		return;
	}
	/* A name that `init` may not carry: the content still counts. */
	snprintf(name, META_NAME_MAX + 1, "renamed-%" PRIu32, file_idx);
}

void source_fileid(const struct source *s, uint32_t file_idx, char fileid[SOURCE_FILEID_MAX + 1])
{
	char *at = text_put_number(fileid, s->seed, 16);

	*at++ = '-';
	at = text_put_number(at, file_idx, 10);
	*at = '\0';
}
