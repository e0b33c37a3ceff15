/*
 * Several ranges are hashed at once, as lanes of one call, since interleaved streams use a
 * processor better than one. A lane that has finished its range takes the next one.
 */
#include "digest.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LANES = 8, STEP_BYTES = 64 << 10 };

struct range {
	uint32_t file_idx;
	uint64_t from, to;
	uint8_t *digest;  /* goes here */
	bool closes_file; /* nothing else needs the file's content for now */
};

/* Hands out the ranges to hash. 1 and *ret; 0 at the end; −errno. */
typedef int range_next_fn(void *arg, struct range *ret);

struct lane {
	struct sha256 state;
	struct range range;
	uint64_t at;
	bool busy;
	uint8_t stamp[SOURCE_STAMP_BYTES];
};

static int digest_take_range(struct lane *l, range_next_fn *next, void *arg)
{
	int got = next(arg, &l->range);

	if (got != 1)
		return got;
	sha256_init(&l->state);
	l->at = l->range.from;
	l->busy = true;
	return 1;
}

/* Ends the range of a lane that has reached its end. */
static bool digest_end_range(struct source *s, struct lane *l)
{
	if (!l->busy || l->at < l->range.to)
		return false;
	sha256_digest(&l->state, l->range.digest);
	if (l->range.closes_file)
		source_close(s, l->range.file_idx);
	l->busy = false;
	return true;
}

static int digest_ranges(struct source *s, range_next_fn *next, void *arg)
{
	struct lane lanes[LANES] = {0};
	bool more = true;

	for (;;) {
		struct sha256_lane work[LANES];
		size_t work_count = 0;

		for (unsigned i = 0; i < LANES; i++) {
			struct lane *l = &lanes[i];
			uint64_t bytes;

			while (more && (digest_end_range(s, l) || !l->busy)) {
				int got = digest_take_range(l, next, arg);

				if (got < 0)
					return got;
				more = got == 1;
			}
			digest_end_range(s, l);
			if (!l->busy)
				continue;
			bytes = l->range.to - l->at;
			if (bytes > STEP_BYTES)
				bytes = STEP_BYTES;
			work[work_count].state = &l->state;
			work[work_count].data_bytes = source_span(s, l->range.file_idx, l->at,
				bytes, l->stamp, &work[work_count].data);
			l->at += work[work_count].data_bytes;
			work_count++;
		}
		if (work_count == 0)
			return 0;
		sha256_update_lanes(work, work_count);
	}
}

/* Whole files. */
struct files_walk {
	struct source *source;
	struct digests *digests;
	uint32_t next;
};

static int files_walk_next(void *arg, struct range *ret)
{
	struct files_walk *w = arg;
	int error;

	if (w->next == w->source->files_count)
		return 0;
	error = source_open(w->source, w->next);
	if (error != 0) {
		fprintf(stderr, "sluice-bench: %s: %s\n", w->source->files[w->next].path,
			strerror(-error));
		return error;
	}
	*ret = (struct range){
		.file_idx = w->next,
		.to = w->source->files[w->next].bytes,
		.digest = w->digests->of_files[w->next],
		.closes_file = true,
	};
	w->next++;
	return 1;
}

struct segments_walk {
	struct plan plan;
	struct plan_cursor cursor;
	uint32_t file_idx;
	digest_bytes *digests;
};

static int segments_walk_next(void *arg, struct range *ret)
{
	struct segments_walk *w = arg;
	struct plan_segment segment;
	uint64_t ordinal = w->cursor.ordinal;

	if (!plan_next(&w->plan, &w->cursor, &segment))
		return 0;
	*ret = (struct range){
		.file_idx = w->file_idx,
		.from = segment.from,
		.to = segment.from + segment.bytes,
		.digest = w->digests[ordinal],
	};
	return 1;
}

static int digests_of_files(struct digests *d, struct source *source)
{
	struct files_walk walk = {.source = source, .digests = d};

	d->of_files = calloc(source->files_count, sizeof(*d->of_files));
	if (d->of_files == NULL)
		return -ENOMEM;
	return digest_ranges(source, files_walk_next, &walk);
}

static int digests_of_segments(
	struct digests *d, const struct plan_rules *rules, struct source *source)
{
	d->of_segments = calloc(source->files_count, sizeof(*d->of_segments));
	if (d->of_segments == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < source->files_count; i++) {
		struct segments_walk walk = {.file_idx = i};
		int error;

		plan_init(&walk.plan, rules, i, source->files[i].bytes);
		if (walk.plan.segments_count == 0)
			continue;
		walk.digests = calloc(plan_count(&walk.plan), sizeof(*walk.digests));
		if (walk.digests == NULL)
			return -ENOMEM;
		d->of_segments[i] = walk.digests;
		error = source_open(source, i);
		if (error == 0)
			error = digest_ranges(source, segments_walk_next, &walk);
		source_close(source, i);
		if (error != 0)
			return error;
	}
	return 0;
}

int digests_init(struct digests *d, const struct options *o, const struct plan_rules *rules,
	struct source *source)
{
	bool shows = o->checksum != CHECKSUM_NONE && isatty(STDERR_FILENO);
	int error = 0;

	if (shows)
		fprintf(stderr, "computing the checksums of %.3f GB", (double)source->bytes / 1e9);
	*d = (struct digests){.files_count = source->files_count};
	switch (o->checksum) {
	case CHECKSUM_NONE:
		break;
	case CHECKSUM_FIN:
		error = digests_of_files(d, source);
		break;
	case CHECKSUM_SEGMENT:
		error = digests_of_segments(d, rules, source);
		break;
	}
	if (shows)
		fputs("\r\033[K", stderr);
	if (error != 0)
		fprintf(stderr, "sluice-bench: computing the checksums: %s\n", strerror(-error));
	return error;
}

void digests_fini(struct digests *d)
{
	for (uint32_t i = 0; i < d->files_count && d->of_segments != NULL; i++)
		free(d->of_segments[i]);
	free(d->of_segments);
	free(d->of_files);
	*d = (struct digests){0};
}
