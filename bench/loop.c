/*
 * Each file is created in one directory, written, fsynced, renamed into another, which is fsynced
 * too: then it is there, whole, also after a power cut. No network: what is left of a server that
 * does this is its least.
 */
#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clocks.h"
#include "options.h"
#include "source.h"

struct loop {
	const struct options *options;
	struct source source;
	int staging_fd, export_fd;
};

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

static void loop_remove(struct loop *l)
{
	char name[32];

	for (uint32_t i = 0; i < l->source.files_count; i++) {
		snprintf(name, sizeof(name), "%" PRIu32 ".bin", i);
		unlinkat(l->export_fd, name, 0);
		unlinkat(l->staging_fd, name, 0);
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
	for (uint32_t i = 0; i < l.source.files_count && error == 0; i++)
		error = loop_store(&l, i);
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
