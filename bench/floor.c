/*
 * Two processes: the parent sends (pour.h), the child receives. They are connected before the fork,
 * so that both know which connection is which.
 */
#include "floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clocks.h"
#include "floor_hash.h"
#include "limits.h"
#include "pour.h"
#include "rng.h"

enum { MEMORY_BYTES = 64 << 20, MEMORY_JOB_BYTES = 8 << 20 };

/* --- hashing memory --------------------------------------------------------------------------- */

/* A file of which only the hash is made: its bytes lie in the shared memory, which is larger than
 * any cache, one job behind the other. */
struct hashed {
	struct floor_job job;
	struct sha256 sha;
	uint64_t left;
};

static void hash_give(struct floor_pool *pool, struct hashed *h, const uint8_t *memory)
{
	uint64_t bytes = h->left < MEMORY_JOB_BYTES ? h->left : MEMORY_JOB_BYTES;
	uint64_t from = h->sha.bytes % MEMORY_BYTES;

	if (bytes > MEMORY_BYTES - from)
		bytes = MEMORY_BYTES - from;
	h->left -= bytes;
	h->job = (struct floor_job){
		.state = &h->sha, .fd = -1, .mem = memory, .from = from, .to = from + bytes};
	floor_pool_give(pool, &h->job);
}

static void hash_all(struct floor_pool *pool, struct hashed *files, uint32_t count,
	const uint8_t *memory, int event_fd)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (files[i].left > 0) {
			left++;
			hash_give(pool, &files[i], memory);
		}
	}
	while (left > 0) {
		eventfd_t ignored;
		struct floor_job *job, *next;

		eventfd_read(event_fd, &ignored);
		for (job = floor_pool_take(pool); job != NULL; job = next) {
			struct hashed *h = (struct hashed *)job;

			next = job->next;
			if (h->left > 0)
				hash_give(pool, h, memory);
			else
				left--;
		}
	}
}

void floor_hash_memory(
	const struct options *o, const struct source *source, struct floor_result *ret)
{
	struct hashed *files = calloc(source->files_count, sizeof(*files));
	uint8_t *memory = malloc(MEMORY_BYTES);
	int event_fd = eventfd(0, EFD_CLOEXEC);
	struct floor_pool *pool = NULL;
	uint64_t cpu_ns, began_ns;

	*ret = (struct floor_result){.error = -ENOMEM};
	if (files == NULL || memory == NULL || event_fd < 0 ||
		floor_pool_new(o->threads, o->lanes, event_fd, &pool) != 0)
		goto out;
	for (size_t at = 0; at < MEMORY_BYTES; at += sizeof(uint64_t)) {
		uint64_t word = rng_mix(o->seed + at);

		memcpy(memory + at, &word, sizeof(word));
	}
	for (uint32_t i = 0; i < source->files_count; i++) {
		sha256_init(&files[i].sha);
		files[i].left = source->files[i].bytes;
	}
	cpu_ns = clocks_cpu_ns();
	began_ns = clocks_now_ns();
	hash_all(pool, files, source->files_count, memory, event_fd);
	*ret = (struct floor_result){
		.files = source->files_count,
		.bytes = source->bytes,
		.ns = clocks_now_ns() - began_ns,
		.cpu_ns = clocks_cpu_ns() - cpu_ns,
	};
out:
	floor_pool_free(pool);
	if (event_fd >= 0)
		close(event_fd);
	free(memory);
	free(files);
}

/* --- receiving -------------------------------------------------------------------------------- */

/* Connection i: ours[i] to theirs[i], over loopback TCP. */
static int floor_connect(int *ours, int *theirs, uint32_t count)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t addr_bytes = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), error = 0;

	if (listener < 0 || bind(listener, (struct sockaddr *)&addr, addr_bytes) != 0 ||
		listen(listener, 16) != 0 ||
		getsockname(listener, (struct sockaddr *)&addr, &addr_bytes) != 0)
		error = -errno;
	for (uint32_t i = 0; i < count && error == 0; i++) {
		ours[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (ours[i] < 0) {
			error = -errno;
			break;
		}
		pour_tune(ours[i]);
		if (connect(ours[i], (struct sockaddr *)&addr, addr_bytes) != 0 ||
			(theirs[i] = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
			error = -errno;
	}
	if (listener >= 0)
		close(listener);
	if (error != 0)
		fprintf(stderr, "sluice-bench: connecting: %s\n", strerror(-error));
	return error;
}

static void floor_close(const int *fds, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		close(fds[i]);
}

/* The child: never returns. */
static void floor_child(const struct options *o, const struct source *source, const int *fds,
	int ready_fd, int result_fd)
{
	struct floor_result result = {0};

	floor_receive(o, source, fds, ready_fd, &result);
	_exit(write(result_fd, &result, sizeof(result)) == (ssize_t)sizeof(result) ? 0 : 2);
}

static int floor_run(struct pour *p, int *ours, int *theirs, struct floor_result *ret)
{
	const struct options *o = p->options;
	int ready[2], result[2];
	pid_t child;
	char byte;

	*ret = (struct floor_result){.error = -EPIPE};
	if (floor_connect(ours, theirs, o->connections) != 0 || pipe(ready) != 0 ||
		pipe(result) != 0)
		return -EIO;
	child = fork();
	if (child < 0)
		return -errno;
	if (child == 0) {
		floor_close(ours, o->connections);
		floor_child(o, p->source, theirs, ready[1], result[1]);
	}
	floor_close(theirs, o->connections);
	close(ready[1]);
	close(result[1]);
	if (read(ready[0], &byte, 1) == 1 && pour_init(p, ours) == 0)
		pour_run(p);
	pour_fini(p);
	if (read(result[0], ret, sizeof(*ret)) != (ssize_t)sizeof(*ret))
		fputs("sluice-bench: the receiver died\n", stderr);
	waitpid(child, NULL, 0);
	return ret->error;
}

/* --- the report ------------------------------------------------------------------------------- */

static const char *const mode_names[] = {"discard", "splice", "poll-splice", "splice+sha", "sha"};

static void floor_report(
	const struct options *o, const struct pour *p, const struct floor_result *r)
{
	double seconds = (double)r->ns / 1e9, cpu = (double)r->cpu_ns / 1e9;
	double gb = (double)r->bytes / 1e9, sender_cpu = (double)p->cpu_ns / 1e9;
	double mb_per_s = seconds > 0 ? gb * 1e3 / seconds : 0;

	if (o->json) {
		printf("{\"mode\":\"%s\",\"bytes\":%" PRIu64 ",\"seconds\":%.6f,\"mb_per_s\":%.3f,"
		       "\"files\":%" PRIu32 ",\"connections\":%" PRIu32
		       ",\"cpu_seconds\":%.6f,\"cpu_seconds_per_gb\":%.6f,"
		       "\"sender_cpu_seconds\":%.6f,\"pulls\":%" PRIu64 ",\"drains\":%" PRIu64
		       ",\"sha\":\"%s\",\"seed\":%" PRIu64 "}\n",
			mode_names[o->mode], r->bytes, seconds, mb_per_s, r->files, o->connections,
			cpu, gb > 0 ? cpu / gb : 0, sender_cpu, r->pulls, r->drains,
			sha256_impl_name(o->lanes), o->seed);
		return;
	}
	printf("%-12s %s\n", "mode", mode_names[o->mode]);
	printf("%-12s %.3f GB in %" PRIu32 " files\n", "payload", gb, r->files);
	printf("%-12s %.3f s   %.1f MB/s\n", "time", seconds, mb_per_s);
	printf("%-12s %.3f CPU s   %.4f CPU s/GB\n", "receiver", cpu, gb > 0 ? cpu / gb : 0);
	if (o->mode == MODE_SPLICE_SHA || o->mode == MODE_SHA)
		printf("%-12s %s, %u lanes, %u threads\n", "sha", sha256_impl_name(o->lanes), o->lanes,
			o->threads);
	if (o->mode == MODE_SHA)
		return;
	printf("%-12s %.3f CPU s\n", "senders", sender_cpu);
	printf("%-12s %" PRIu64 " pulls, %" PRIu64 " drains\n", "calls", r->pulls, r->drains);
}

int floor_main(int argc, char **argv)
{
	enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_NOT_BEGUN = 2 };
	struct options o;
	struct source source;
	struct floor_result result;
	struct pour pour = {.options = &o, .source = &source, .kind = POUR_BYTES};
	int *fds, error = options_parse(&o, OPTIONS_FLOOR, argc, argv);

	if (error != 0)
		return error > 0 ? EXIT_DONE : EXIT_NOT_BEGUN;
	sha256_calibrate(clocks_now_ns);
	if (o.lanes == 0)
		o.lanes = sha256_lanes_wanted();
	if (o.threads == 0)
		o.threads = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	/* Five descriptors for each connection, and every file may be open. */
	if (source_init(&source, &o) != 0)
		return EXIT_NOT_BEGUN;
	fds = calloc(2, o.connections * sizeof(*fds));
	if (fds == NULL || limits_raise_files(o.connections * 6 + source.files_count) != 0) {
		error = -ENOMEM;
	} else if (o.mode == MODE_SHA) {
		floor_hash_memory(&o, &source, &result);
		error = result.error;
	} else {
		error = floor_run(&pour, fds, fds + o.connections, &result);
		floor_remove_files(&o, &source);
	}
	if (error == 0)
		floor_report(&o, &pour, &result);
	source_fini(&source);
	free(fds);
	return error != 0 ? EXIT_FAILED : EXIT_DONE;
}
