/*
 * A data directory as a daemon may have left it, made by hand: a journal record by record, and the files beside it.
 */
#ifndef SLUICE_TEST_RECOVER_CRAFT_H
#define SLUICE_TEST_RECOVER_CRAFT_H

#include "upload_commands.h"

#include <dirent.h>
#include <fnmatch.h>
#include <sys/stat.h>

enum { SALT = 99 };

/* --- a data directory that is made by hand ---------------------------------------------------- */

static uint8_t small_journal[64 * 1024], *journal = small_journal;
static struct record_writer writer;

static inline void in_data(const struct bench *b, const char *path, char ret[512])
{
	cr_assert_lt(snprintf(ret, 512, "%s/%s", b->dir, path), 512);
}

static inline void make_dir(const struct bench *b, const char *path)
{
	char full[512];
	in_data(b, path, full);
	cr_assert_eq(sys_mkdirs(full, 0700), 0);
}

static inline void make_file(const struct bench *b, const char *path, const void *data, size_t bytes)
{
	char full[512];
	in_data(b, path, full);
	int fd = open(full, O_RDWR | O_CREAT | O_TRUNC, 0600);
	cr_assert_geq(fd, 0, "%s", full);
	cr_assert_eq(write(fd, data, bytes), (ssize_t)bytes);
	close(fd);
}

static inline bool is_there(const struct bench *b, const char *path)
{
	struct stat st;
	char full[512];
	in_data(b, path, full);
	return lstat(full, &st) == 0;
}

/* How many names of a directory match. */
static inline int count_names(const struct bench *b, const char *path, const char *pattern)
{
	char full[512];
	int count = 0;
	in_data(b, path, full);
	DIR *dir = opendir(full);
	if (!dir)
		return 0;
	for (const struct dirent *e; (e = readdir(dir));)
		count += e->d_name[0] != '.' && fnmatch(pattern, e->d_name, 0) == 0;
	closedir(dir);
	return count;
}

static inline void craft_in(struct bench *b, const char *parent)
{
	bench_prepare(b, parent);
	make_dir(b, "staging");
	make_dir(b, "export");
	writer = (struct record_writer){.buf = journal, .buf_max = sizeof(small_journal), .bytes = RECORD_HEADER_BYTES,
		.salt = SALT};
}

static inline void craft(struct bench *b)
{
	craft_in(b, "/tmp");
}

static inline void put(struct record r)
{
	cr_assert_eq(record_append(&writer, &r), 0);
}

static inline void put_open(uint64_t tid, uint32_t generation, const char *staging)
{
	put((struct record){.type = RECORD_OPEN, .tid = tid, .generation = generation, .epoch = 1,
		.at_ms = sys_wall_ms(), .clientid = ID.clientid, .clientid_bytes = ID.clientid_bytes,
		.fileid = ID.fileid, .fileid_bytes = ID.fileid_bytes, .text = staging,
		.text_bytes = (uint32_t)strlen(staging)});
}

static inline void put_meta(uint64_t tid, const char *json)
{
	put((struct record){.type = RECORD_META, .tid = tid, .text = json, .text_bytes = (uint32_t)strlen(json)});
}

static inline void put_extent(uint64_t tid, uint64_t from, uint64_t to)
{
	put((struct record){.type = RECORD_EXTENT, .tid = tid, .from = from, .to = to});
}

static inline void put_publishing(uint64_t tid, uint64_t size, const uint8_t *digest, const char *path)
{
	struct record r = {.type = RECORD_PUBLISHING, .tid = tid, .size = size, .text = path,
		.text_bytes = (uint32_t)strlen(path)};
	memcpy(r.digest, digest, sizeof(r.digest));
	put(r);
}

static inline void put_synced(uint64_t tid, uint64_t from, uint64_t to)
{
	put((struct record){.type = RECORD_SYNCED, .tid = tid, .from = from, .to = to});
}

/* Writes the buffer as the only file of a set, under the present page cache or another one. */
static inline void make_set_as_is(const struct bench *b, const char *set, bool cache_alive)
{
	char path[512], identity[160];
	record_header_encode(journal, SALT, 7, 0);
	snprintf(path, sizeof(path), "journal/%s", set);
	make_dir(b, path);
	snprintf(path, sizeof(path), "journal/%s/r00-000000000007.log", set);
	make_file(b, path, journal, writer.bytes);
	in_data(b, "staging", path);
	int fd = open(path, O_RDONLY | O_DIRECTORY);
	cr_assert_eq(sys_cache_identity(fd, identity, sizeof(identity)), 0);
	close(fd);
	if (!cache_alive)
		identity[0] ^= 1;
	snprintf(path, sizeof(path), "journal/%s/page-cache", set);
	make_file(b, path, identity, strlen(identity));
}

/* The same with what was put for a checkpoint. */
static inline void make_set(const struct bench *b, const char *set, bool cache_alive)
{
	put((struct record){.type = RECORD_CHECKPOINT_END});
	make_set_as_is(b, set, cache_alive);
}

#endif
