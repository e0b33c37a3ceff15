#include "put.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "pour.h"

static void put_report(const struct pour *p)
{
	const struct procstat *s = p->server;
	bool has_server = s != NULL && !s->lost;
	double seconds = (double)(p->ended_ns - p->began_ns) / 1e9, gb = (double)p->bytes / 1e9;
	double cpu = (double)p->cpu_ns / 1e9;
	double answer_ms[] = {(double)hist_quantile(&p->answer_ns, 0.5) / 1e6,
		(double)hist_quantile(&p->answer_ns, 0.99) / 1e6, (double)p->answer_ns.max / 1e6};

	if (p->options->json) {
		printf("{\"bytes\":%" PRIu64
		       ",\"seconds\":%.6f,\"mb_per_s\":%.3f,\"files\":%" PRIu32
		       ",\"files_failed\":%" PRIu32
		       ",\"answer_ms\":{\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f},",
			p->bytes, seconds, gb * 1e3 / seconds, p->source->files_count,
			p->files_failed, answer_ms[0], answer_ms[1], answer_ms[2]);
		if (has_server)
			printf("\"server_cpu_seconds\":%.6f,\"server_cpu_seconds_per_gb\":%.6f,"
			       "\"server_rss_peak_bytes\":%" PRIu64 ",",
				s->cpu_seconds, gb > 0 ? s->cpu_seconds / gb : 0,
				s->rss_peak_bytes);
		printf("\"sender_cpu_seconds\":%.6f,\"connections\":%" PRIu32 ",\"seed\":%" PRIu64
		       "}\n",
			cpu, p->peers_count, p->options->seed);
		return;
	}
	printf("%-12s %" PRIu32 " of %" PRIu32 ", %" PRIu32 " failed\n", "files", p->files_done,
		p->source->files_count, p->files_failed);
	printf("%-12s %.3f GB in %.3f s   %.1f MB/s\n", "payload", gb, seconds, gb * 1e3 / seconds);
	printf("%-12s p50 %.3f ms   p99 %.3f ms   max %.3f ms\n", "answer", answer_ms[0],
		answer_ms[1], answer_ms[2]);
	if (has_server)
		printf("%-12s %.3f CPU s   %.4f CPU s/GB   %.1f MB resident at most\n", "server",
			s->cpu_seconds, gb > 0 ? s->cpu_seconds / gb : 0,
			(double)s->rss_peak_bytes / 1e6);
	printf("%-12s %.3f CPU s\n", "senders", cpu);
}

int put_main(int argc, char **argv)
{
	enum { EXIT_ARRIVED = 0, EXIT_SOME_FAILED = 1, EXIT_NOT_BEGUN = 2 };
	struct options o;
	struct source source;
	struct procstat server;
	struct pour pour = {.options = &o, .source = &source};
	int status = EXIT_NOT_BEGUN, error = options_parse(&o, OPTIONS_PUT, argc, argv);

	if (error != 0)
		return error > 0 ? EXIT_ARRIVED : EXIT_NOT_BEGUN;
	pour.kind = o.raw ? POUR_RAW : POUR_HTTP;
	if (o.daemon_pid != 0) {
		error = procstat_start(&server, o.daemon_pid);
		if (error != 0) {
			fprintf(stderr, "sluice-bench: --pid %d: %s\n", (int)o.daemon_pid,
				strerror(-error));
			return EXIT_NOT_BEGUN;
		}
		pour.server = &server;
	}
	if (source_init(&source, &o) != 0)
		return EXIT_NOT_BEGUN;
	if (pour_init(&pour, NULL) == 0) {
		pour_run(&pour);
		put_report(&pour);
		status = pour.files_failed > 0 ? EXIT_SOME_FAILED : EXIT_ARRIVED;
	}
	pour_fini(&pour);
	source_fini(&source);
	return status;
}
