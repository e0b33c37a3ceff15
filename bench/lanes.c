/*
 * What SHA-256 costs here: each kernel of lib/ full, so many streams as the daemon would hash them,
 * and OpenSSL's EVP on one stream beside them. Bytes per second of this thread's CPU time.
 *
 * All take turns in every run, so that what slows the machine for a while slows all of them, and
 * each is compared with OpenSSL's in the same run; what is printed are the medians. The bytes are 256
 * KiB in all, in the second-level cache, divided among the streams.
 *
 * OpenSSL's library is looked for when this runs: neither building nor the other commands need it.
 */
#include "lanes.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clocks.h"
#include "sha256.h"
#include "sha256_impl.h"

enum {
	RUNS_MIN = 7, RUNS_MAX = 99,
	DATA_BYTES = 256 << 10,
	TURN_NS = 20000000, /* of one subject in one run */
	STREAMS_MAX = 24, SUBJECTS_MAX = 40,
};

/* What OpenSSL's headers say of these. */
struct openssl {
	void *library; /* NULL: not installed */
	void *(*ctx_new)(void);
	void (*ctx_free)(void *ctx);
	const void *(*sha256)(void);
	int (*init)(void *ctx, const void *type, void *engine);
	int (*update)(void *ctx, const void *data, size_t bytes);
	void *ctx;
};

struct subject {
	char name[32];
	unsigned streams;
	const struct sha256_kernel *kernel; /* else the lanes of sha256.h, or OpenSSL's */
	bool is_openssl;
	double gb_per_s[RUNS_MAX], ratios[RUNS_MAX];
};

struct lanes_bench {
	struct openssl openssl;
	struct subject subjects[SUBJECTS_MAX];
	unsigned count, runs;
	bool json;
	uint8_t *data;
};

static void openssl_open(struct openssl *o)
{
	void *library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);

	if (library == NULL)
		return;
	o->ctx_new = (void *(*)(void))dlsym(library, "EVP_MD_CTX_new");
	o->ctx_free = (void (*)(void *))dlsym(library, "EVP_MD_CTX_free");
	o->sha256 = (const void *(*)(void))dlsym(library, "EVP_sha256");
	o->init = (int (*)(void *, const void *, void *))dlsym(library, "EVP_DigestInit_ex");
	o->update = (int (*)(void *, const void *, size_t))dlsym(library, "EVP_DigestUpdate");
	if (o->ctx_new && o->ctx_free && o->sha256 && o->init && o->update)
		o->ctx = o->ctx_new();
	if (o->ctx == NULL || o->init(o->ctx, o->sha256(), NULL) != 1)
		dlclose(library);
	else
		o->library = library;
}

static struct subject *subject_add(struct lanes_bench *b, unsigned streams)
{
	struct subject *s = &b->subjects[b->count++];

	s->streams = streams;
	return s;
}

static void subjects_init(struct lanes_bench *b)
{
	static const unsigned lanes[] = {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24};
	size_t kernels_count;
	const struct sha256_kernel *kernels = sha256_kernels(&kernels_count);

	if (b->openssl.library != NULL) {
		struct subject *s = subject_add(b, 1);

		strcpy(s->name, "openssl");
		s->is_openssl = true;
	}
	for (size_t i = 0; i < kernels_count; i++) {
		if (sha256_kernel_is_available(&kernels[i])) {
			struct subject *s = subject_add(b, kernels[i].width);

			snprintf(s->name, sizeof(s->name), "%s", kernels[i].name);
			s->kernel = &kernels[i];
		}
	}
	for (size_t i = 0; i < sizeof(lanes) / sizeof(lanes[0]); i++)
		strcpy(subject_add(b, lanes[i])->name, "lanes");
}

/* All of the data once. */
static void subject_pass(const struct lanes_bench *b, const struct subject *s)
{
	static struct sha256 states[STREAMS_MAX];
	struct sha256_lane lanes[STREAMS_MAX];
	uint32_t *h[STREAMS_MAX];
	const uint8_t *from[STREAMS_MAX];
	size_t each = DATA_BYTES / s->streams / SHA256_BLOCK_BYTES * SHA256_BLOCK_BYTES;

	for (unsigned i = 0; i < s->streams; i++) {
		from[i] = b->data + i * each;
		h[i] = states[i].h;
		lanes[i] = (struct sha256_lane){&states[i], from[i], each};
	}
	if (s->is_openssl)
		b->openssl.update(b->openssl.ctx, b->data, each);
	else if (s->kernel != NULL)
		s->kernel->run(h, from, each / SHA256_BLOCK_BYTES);
	else
		sha256_update_lanes(lanes, s->streams);
}

static double subject_measure(const struct lanes_bench *b, const struct subject *s)
{
	uint64_t pass_bytes = (uint64_t)(DATA_BYTES / s->streams / SHA256_BLOCK_BYTES) *
		SHA256_BLOCK_BYTES * s->streams;
	uint64_t began_ns, now_ns, bytes = 0;

	subject_pass(b, s); /* the data into the cache */
	began_ns = clocks_read_ns(CLOCK_THREAD_CPUTIME_ID);
	do {
		subject_pass(b, s);
		bytes += pass_bytes;
		now_ns = clocks_read_ns(CLOCK_THREAD_CPUTIME_ID);
	} while (now_ns - began_ns < TURN_NS);
	return (double)bytes / (double)(now_ns - began_ns);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void measure_all(struct lanes_bench *b)
{
	for (unsigned run = 0; run < b->runs; run++) {
		for (unsigned i = 0; i < b->count; i++) {
			struct subject *s = &b->subjects[i];

			s->gb_per_s[run] = subject_measure(b, s);
			s->ratios[run] = s->gb_per_s[run] / b->subjects[0].gb_per_s[run];
		}
	}
	for (unsigned i = 0; i < b->count; i++) {
		qsort(b->subjects[i].gb_per_s, b->runs, sizeof(double), compare);
		qsort(b->subjects[i].ratios, b->runs, sizeof(double), compare);
	}
}

static void report_json(const struct lanes_bench *b)
{
	printf("{\"runs\":%u,\"openssl\":%s,\"subjects\":[", b->runs,
		b->openssl.library != NULL ? "true" : "false");
	for (unsigned i = 0; i < b->count; i++) {
		const struct subject *s = &b->subjects[i];

		printf("%s{\"name\":\"%s\",\"streams\":%u,\"gb_per_cpu_second\":%.4f", i ? "," : "",
			s->name, s->streams, s->gb_per_s[b->runs / 2]);
		if (b->openssl.library != NULL)
			printf(",\"to_openssl\":%.4f", s->ratios[b->runs / 2]);
		putchar('}');
	}
	puts("]}");
}

static void report(const struct lanes_bench *b)
{
	printf("%-10s %7s %10s   %s\n", "", "streams", "GB/CPU s",
		b->openssl.library != NULL ? "to OpenSSL, median (least-most)" : "");
	if (b->openssl.library == NULL)
		printf("%-10s %7d %10s\n", "openssl", 1, "not installed");
	for (unsigned i = 0; i < b->count; i++) {
		const struct subject *s = &b->subjects[i];

		printf("%-10s %7u %10.3f", s->name, s->streams, s->gb_per_s[b->runs / 2]);
		if (b->openssl.library != NULL)
			printf("   %.2f (%.2f-%.2f)", s->ratios[b->runs / 2], s->ratios[0],
				s->ratios[b->runs - 1]);
		if (s->kernel == NULL && !s->is_openssl)
			printf("   %s", sha256_impl_name(s->streams));
		putchar('\n');
	}
}

/* −1: go on; else the exit status. */
static int parse(struct lanes_bench *b, int argc, char **argv)
{
	b->runs = RUNS_MIN;
	for (int i = 1; i < argc; i++) {
		char *end = NULL;

		if (strcmp(argv[i], "--help") == 0) {
			puts("usage: sluice-bench sha256 [options]\n"
			     "  --runs N   of which the medians are shown (7)\n"
			     "  --json     the result as JSON");
			return 0;
		}
		if (strcmp(argv[i], "--json") == 0) {
			b->json = true;
			continue;
		}
		if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc) {
			unsigned long runs = strtoul(argv[++i], &end, 10);

			if (*end == '\0' && runs >= RUNS_MIN && runs <= RUNS_MAX) {
				b->runs = (unsigned)runs;
				continue;
			}
			fprintf(stderr, "sluice-bench: --runs takes a number from %d to %d\n", RUNS_MIN,
				RUNS_MAX);
			return 2;
		}
		fprintf(stderr, "sluice-bench: no option \"%s\"; see sluice-bench sha256 --help\n", argv[i]);
		return 2;
	}
	return -1;
}

int lanes_main(int argc, char **argv)
{
	static struct lanes_bench b;
	int status = parse(&b, argc, argv);

	if (status >= 0)
		return status;
	b.data = aligned_alloc(64, DATA_BYTES);
	if (b.data == NULL) {
		fprintf(stderr, "sluice-bench: %s\n", strerror(ENOMEM));
		return 1;
	}
	memset(b.data, 0x5a, DATA_BYTES);
	sha256_calibrate(clocks_now_ns);
	openssl_open(&b.openssl);
	subjects_init(&b);
	measure_all(&b);
	if (b.json)
		report_json(&b);
	else
		report(&b);
	free(b.data);
	if (b.openssl.library != NULL) {
		b.openssl.ctx_free(b.openssl.ctx);
		dlclose(b.openssl.library);
	}
	return 0;
}
