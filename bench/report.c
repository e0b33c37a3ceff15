/*
 * Units: seconds; milliseconds with three digits; MB and GB are powers of ten. The rates are over
 * the time from the first command to the last verdict.
 */
#include "report.h"

#include <inttypes.h>
#include <stdio.h>

struct figures {
	double seconds, connect_seconds;
	double mb_per_s, segments_per_s;
	double generator_cpu_seconds;
	double gb;
};

static struct figures report_compute(const struct fleet *f)
{
	struct figures r = {
		.seconds = (double)(f->ended_ns - f->began_ns) / 1e9,
		.connect_seconds = (double)(f->began_ns - f->opened_ns) / 1e9,
		.generator_cpu_seconds = f->running ? (double)f->cpu_ns / 1e9 : 0,
		.gb = (double)f->tally->bytes / 1e9,
	};

	if (r.seconds > 0) {
		r.mb_per_s = r.gb * 1e3 / r.seconds;
		r.segments_per_s = (double)f->tally->segments / r.seconds;
	}
	return r;
}

static double report_per_gb(double cpu_seconds, double gb)
{
	return gb > 0 ? cpu_seconds / gb : 0;
}

static bool report_has_daemon(const struct fleet *f)
{
	return f->daemon != NULL && f->running && !f->daemon->lost;
}

static double report_ms(const struct hist *h, double quantile)
{
	return (double)hist_quantile(h, quantile) / 1e6;
}

static void report_table_latency(const char *name, const struct hist *h)
{
	printf("%-12s p50 %.3f ms   p99 %.3f ms   max %.3f ms\n", name, report_ms(h, 0.5),
		report_ms(h, 0.99), (double)h->max / 1e6);
}

void report_table(const struct fleet *f, uint32_t files_verified)
{
	const struct tally *t = f->tally;
	struct figures r = report_compute(f);

	printf("%-12s %" PRIu32 " of %" PRIu32 ", %" PRIu32 " failed", "files",
		t->files_count - t->files_failed, t->files_count, t->files_failed);
	if (f->options->verify_dir != NULL)
		printf(", %" PRIu32 " compared equal", files_verified);
	if (t->connections_failed > 0)
		printf("\n%-12s %" PRIu32 " of %" PRIu32 " failed", "connections",
			t->connections_failed, f->peers_count);
	printf("\n%-12s %.3f GB in %" PRIu64 " segments\n", "payload", r.gb, t->segments);
	printf("%-12s %.3f s (connecting before: %.3f s)\n", "time", r.seconds, r.connect_seconds);
	printf("%-12s %.1f MB/s   %.0f segments/s\n", "rate", r.mb_per_s, r.segments_per_s);
	report_table_latency("ack", &t->ack_ns);
	report_table_latency("fin", &t->fin_ns);
	if (report_has_daemon(f))
		printf("%-12s %.2f CPU s   %.3f CPU s/GB   %.1f MB resident at most\n", "daemon",
			f->daemon->cpu_seconds, report_per_gb(f->daemon->cpu_seconds, r.gb),
			(double)f->daemon->rss_peak_bytes / 1e6);
	printf("%-12s %.2f CPU s   %.3f CPU s/GB\n", "generator", r.generator_cpu_seconds,
		report_per_gb(r.generator_cpu_seconds, r.gb));
	printf("%-12s %" PRIu64 "\n", "seed", f->options->seed);
}

static void report_json_latency(const char *name, const struct hist *h)
{
	printf("\"%s\":{\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f},", name, report_ms(h, 0.5),
		report_ms(h, 0.99), (double)h->max / 1e6);
}

void report_json(const struct fleet *f, uint32_t files_verified)
{
	const struct tally *t = f->tally;
	struct figures r = report_compute(f);

	printf("{\"bytes\":%" PRIu64 ",\"seconds\":%.6f,\"mb_per_s\":%.3f,\"segments\":%" PRIu64
	       ",\"segments_per_s\":%.3f,\"files\":%" PRIu32 ",\"files_failed\":%" PRIu32 ",",
		t->bytes, r.seconds, r.mb_per_s, t->segments, r.segments_per_s, t->files_count,
		t->files_failed);
	if (f->options->verify_dir != NULL)
		printf("\"files_verified\":%" PRIu32 ",", files_verified);
	report_json_latency("ack_ms", &t->ack_ns);
	report_json_latency("fin_ms", &t->fin_ns);
	if (report_has_daemon(f))
		printf("\"daemon_cpu_seconds\":%.6f,\"daemon_cpu_seconds_per_gb\":%.6f,"
		       "\"daemon_rss_peak_bytes\":%" PRIu64 ",",
			f->daemon->cpu_seconds, report_per_gb(f->daemon->cpu_seconds, r.gb),
			f->daemon->rss_peak_bytes);
	printf("\"generator_cpu_seconds\":%.3f,\"generator_cpu_seconds_per_gb\":%.4f,"
	       "\"connections\":%" PRIu32 ",\"connections_failed\":%" PRIu32
	       ",\"connect_seconds\":%.6f,\"seed\":%" PRIu64 "}\n",
		r.generator_cpu_seconds, report_per_gb(r.generator_cpu_seconds, r.gb),
		f->peers_count, t->connections_failed, r.connect_seconds, f->options->seed);
}
