/*
 * Each file is created in one directory, written, fsynced, renamed into another, which is fsynced
 * too: then it is there, whole, also after a power cut. No network: what is left of a server that
 * does this is its least.
 *
 * With --together it is what sluiced asks of the file system for many files, and nothing else: created
 * and written, all synced; a directory for each with a manifest in it, all synced; renamed, all synced.
 */
#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clocks.h"
#include "limits.h"
#include "options.h"
#include "source.h"

struct loop {
	const struct options *options;
	struct source source;
	int staging_fd, export_fd;
	int *fds; /* --together: of the files under way */
};

enum { TOGETHER_DIRS = 64, MANIFEST_BYTES = 400 };

static int loop_open_dir(const char *path, const char *name, int *ret_fd)
{
	char joined[4096];
	int fd;

	snprintf(joined, sizeof(joined), "%s/%s", path, name);
	if (mkdir(joined, 0700) != 0 && errno != EEXIST)
		return -errno;
	fd = open(joined, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*ret_fd = fd;
	return fd < 0 ? -errno : 0;
}

static int loop_write(struct loop *l, uint32_t idx, int fd)
{
	uint64_t off = 0, bytes = l->source.files[idx].bytes;

	while (off < bytes) {
		uint8_t stamp[SOURCE_STAMP_BYTES];
		const uint8_t *data;
		size_t span = source_span(&l->source, idx, off, bytes - off, stamp, &data);
		ssize_t written = write(fd, data, span);

		if (written <= 0)
			return written < 0 ? -errno : -EIO;
		off += (uint64_t)written;
	}
	return 0;
}

static int loop_store(struct loop *l, uint32_t idx)
{
	char name[32];
	int fd, error;

	snprintf(name, sizeof(name), "%" PRIu32 ".bin", idx);
	fd = openat(l->staging_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	error = loop_write(l, idx, fd);
	if (error == 0 && fsync(fd) != 0)
		error = -errno;
	close(fd);
	if (error == 0 && renameat(l->staging_fd, name, l->export_fd, name) != 0)
		error = -errno;
	if (error == 0 && !l->options->no_dir_sync && fsync(l->export_fd) != 0)
		error = -errno;
	return error;
}

/* --- together --------------------------------------------------------------------------------- */

static void loop_dir_name(uint32_t idx, char ret[32])
{
	snprintf(ret, 32, "%" PRIu32 "/%" PRIu32, idx % TOGETHER_DIRS, idx);
}

static int loop_stage(struct loop *l, uint32_t idx, int *ret_fd)
{
	char name[32];

	snprintf(name, sizeof(name), "%" PRIu32 ".bin", idx);
	*ret_fd = openat(l->staging_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	return *ret_fd < 0 ? -errno : loop_write(l, idx, *ret_fd);
}

static int loop_make_dir(struct loop *l, uint32_t idx)
{
	static const char manifest[MANIFEST_BYTES];
	char dir[32], path[64];
	int fd, error = 0;

	loop_dir_name(idx, dir);
	if (mkdirat(l->export_fd, dir, 0750) != 0)
		return -errno;
	snprintf(path, sizeof(path), "%s/.manifest.json", dir);
	fd = openat(l->export_fd, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
	if (fd < 0)
		return -errno;
	if (pwrite(fd, manifest, sizeof(manifest), 0) != (ssize_t)sizeof(manifest))
		error = -EIO;
	close(fd);
	return error;
}

static int loop_show(struct loop *l, uint32_t idx)
{
	char name[32], dir[32], path[64];

	snprintf(name, sizeof(name), "%" PRIu32 ".bin", idx);
	loop_dir_name(idx, dir);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return renameat(l->staging_fd, name, l->export_fd, path) != 0 ? -errno : 0;
}

static int loop_sync(struct loop *l, int error)
{
	if (error == 0 && syncfs(l->export_fd) != 0)
		error = -errno;
	return error;
}

/* Files from … to − 1. */
static int loop_store_together(struct loop *l, uint32_t from, uint32_t to)
{
	uint32_t opened = from;
	int error = 0;

	for (; opened < to && error == 0; opened++)
		error = loop_stage(l, opened, &l->fds[opened - from]);
	error = loop_sync(l, error);
	for (uint32_t i = from; i < to && error == 0; i++)
		error = loop_make_dir(l, i);
	error = loop_sync(l, error);
	for (uint32_t i = from; i < to && error == 0; i++)
		error = loop_show(l, i);
	error = loop_sync(l, error);
	for (uint32_t i = from; i < opened; i++)
		close(l->fds[i - from]);
	return error;
}

static int loop_store_all_together(struct loop *l)
{
	uint32_t count = l->source.files_count, step = l->options->together;
	char name[32];
	int error = 0;

	if (limits_raise_files(step) != 0)
		return -EMFILE;
	l->fds = malloc(step * sizeof(*l->fds));
	if (!l->fds)
		return -ENOMEM;
	for (uint32_t i = 0; i < TOGETHER_DIRS && error == 0; i++) {
		snprintf(name, sizeof(name), "%" PRIu32, i);
		if (mkdirat(l->export_fd, name, 0750) != 0 && errno != EEXIST)
			error = -errno;
	}
	for (uint32_t i = 0; i < count && error == 0; i += step)
		error = loop_store_together(l, i, count - i < step ? count : i + step);
	free(l->fds);
	return error;
}

/* --- all -------------------------------------------------------------------------------------- */

static int loop_store_all(struct loop *l)
{
	int error = 0;

	if (l->options->together)
		return loop_store_all_together(l);
	for (uint32_t i = 0; i < l->source.files_count && error == 0; i++)
		error = loop_store(l, i);
	return error;
}

static void loop_remove(struct loop *l)
{
	char name[32], dir[32], path[64];

	for (uint32_t i = 0; i < l->source.files_count; i++) {
		snprintf(name, sizeof(name), "%" PRIu32 ".bin", i);
		unlinkat(l->export_fd, name, 0);
		unlinkat(l->staging_fd, name, 0);
		loop_dir_name(i, dir);
		snprintf(path, sizeof(path), "%s/%s", dir, name);
		unlinkat(l->export_fd, path, 0);
		snprintf(path, sizeof(path), "%s/.manifest.json", dir);
		unlinkat(l->export_fd, path, 0);
		unlinkat(l->export_fd, dir, AT_REMOVEDIR);
	}
	for (uint32_t i = 0; i < TOGETHER_DIRS; i++) {
		snprintf(name, sizeof(name), "%" PRIu32, i);
		unlinkat(l->export_fd, name, AT_REMOVEDIR);
	}
}

static void loop_report(const struct loop *l, uint64_t ns, uint64_t cpu_ns)
{
	double seconds = (double)ns / 1e9, cpu = (double)cpu_ns / 1e9;
	double files = (double)l->source.files_count;

	if (l->options->json)
		printf("{\"files\":%" PRIu32 ",\"bytes\":%" PRIu64
		       ",\"seconds\":%.6f,\"files_per_s\":%.3f,\"cpu_seconds\":%.6f,"
		       "\"files_per_cpu_second\":%.3f,\"seed\":%" PRIu64 "}\n",
			l->source.files_count, l->source.bytes, seconds, files / seconds, cpu,
			files / cpu, l->options->seed);
	else
		printf("%-12s %" PRIu32 " in %.3f s   %.0f files/s   %.0f files/CPU s\n", "files",
			l->source.files_count, seconds, files / seconds, files / cpu);
}

int loop_main(int argc, char **argv)
{
	enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_NOT_BEGUN = 2 };
	struct options o;
	struct loop l = {.options = &o, .staging_fd = -1, .export_fd = -1};
	uint64_t began_ns, cpu_ns;
	int error = options_parse(&o, OPTIONS_LOOP, argc, argv);

	if (error != 0)
		return error > 0 ? EXIT_DONE : EXIT_NOT_BEGUN;
	error = loop_open_dir(o.dir, "staging", &l.staging_fd);
	if (error == 0)
		error = loop_open_dir(o.dir, "export", &l.export_fd);
	if (error != 0) {
		fprintf(stderr, "sluice-bench: --dir %s: %s\n", o.dir, strerror(-error));
		return EXIT_NOT_BEGUN;
	}
	if (source_init(&l.source, &o) != 0)
		return EXIT_NOT_BEGUN;
	cpu_ns = clocks_cpu_ns();
	began_ns = clocks_now_ns();
	error = loop_store_all(&l);
	if (error == 0)
		loop_report(&l, clocks_now_ns() - began_ns, clocks_cpu_ns() - cpu_ns);
	else
		fprintf(stderr, "sluice-bench: a file: %s\n", strerror(-error));
	loop_remove(&l);
	source_fini(&l.source);
	close(l.staging_fd);
	close(l.export_fd);
	return error != 0 ? EXIT_FAILED : EXIT_DONE;
}
