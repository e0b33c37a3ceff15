/*
 * All connections are opened first, a few at a time; then the daemon's memory is compared with what
 * it was before. The pings are spread over the keep-alive interval, as those of real devices are;
 * each answer is awaited before the connection's next ping.
 */
#include "idle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clocks.h"
#include "greet.h"
#include "hist.h"
#include "limits.h"
#include "procstat.h"

enum { OPENING_MAX = 64, SETTLE_MS = 1000 };

struct idle {
	struct options options;
	struct sockaddr_in addr;
	int *fds;          /* −1: closed */
	uint64_t *sent_ns; /* of the ping under way; 0: none */
	uint32_t open;
	int epoll_fd;
	struct hist pong_ns;
	uint64_t pings, pongs, failed;
	uint64_t rss_before, rss_after;
	double seconds, cpu_seconds, connect_seconds;
};

static void idle_lose(struct idle *d, uint32_t idx, const char *why)
{
	if (d->failed++ == 0)
		fprintf(stderr, "sluice-bench: connection %" PRIu32 ": %s\n", idx, why);
	if (d->fds[idx] >= 0)
		close(d->fds[idx]);
	d->fds[idx] = -1;
}

/* Connections from..to. */
static void idle_open_some(struct idle *d, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++) {
		/* Twice the interval, and what passes before the first ping. */
		uint16_t keep_alive_s = (uint16_t)(d->options.keep_alive_s * 2 + 10);
		int fd = greet_start(&d->options, &d->addr, i, keep_alive_s);

		d->fds[i] = fd;
		if (fd < 0)
			idle_lose(d, i, strerror(-fd));
	}
	for (uint32_t i = from; i < to; i++) {
		struct epoll_event want = {.events = EPOLLIN, .data.u32 = i};
		int error = d->fds[i] < 0 ? 0 : greet_finish(&d->options, d->fds[i]);

		if (error == 0 && d->fds[i] >= 0 &&
			epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, d->fds[i], &want) != 0)
			error = -errno;
		if (error != 0)
			idle_lose(d, i, strerror(-error));
		else if (d->fds[i] >= 0)
			d->open++;
	}
}

static void idle_ping(struct idle *d, uint32_t idx)
{
	static const uint8_t pingreq[] = {0xc0, 0};

	if (d->fds[idx] < 0 || d->sent_ns[idx] != 0)
		return;
	d->sent_ns[idx] = clocks_now_ns();
	d->pings++;
	if (send(d->fds[idx], pingreq, sizeof(pingreq), MSG_NOSIGNAL | MSG_DONTWAIT) !=
		(ssize_t)sizeof(pingreq))
		idle_lose(d, idx, "PINGREQ could not be sent");
}

static void idle_on_answer(struct idle *d, uint32_t idx)
{
	uint8_t buf[64];
	ssize_t got = d->fds[idx] < 0 ? 0 : recv(d->fds[idx], buf, sizeof(buf), MSG_DONTWAIT);

	if (d->fds[idx] < 0 || (got < 0 && errno == EAGAIN))
		return;
	if (got != 2 || buf[0] != 0xd0 || d->sent_ns[idx] == 0) {
		idle_lose(d, idx, got == 0 ? "the daemon closed it" : "no PINGRESP");
		return;
	}
	hist_add(&d->pong_ns, clocks_now_ns() - d->sent_ns[idx]);
	d->sent_ns[idx] = 0;
	d->pongs++;
}

/* Pings evenly for as long as the options say, then waits for what is still under way. */
static void idle_keep_alive(struct idle *d)
{
	struct epoll_event events[256];
	uint64_t began_ns = clocks_now_ns(), done = 0;
	uint64_t length_ns = (uint64_t)d->options.seconds * 1000000000u;
	double per_ns = (double)d->options.connections / ((double)d->options.keep_alive_s * 1e9);

	for (;;) {
		uint64_t passed_ns = clocks_now_ns() - began_ns;
		uint64_t due = (uint64_t)((double)passed_ns * per_ns);
		int count;

		if (passed_ns > length_ns + 1000000000u ||
			(passed_ns > length_ns && d->pongs + d->failed >= d->pings))
			return;
		for (; passed_ns <= length_ns && done < due; done++)
			idle_ping(d, (uint32_t)(done % d->options.connections));
		count = epoll_wait(d->epoll_fd, events, 256, 1);
		for (int i = 0; i < count; i++)
			idle_on_answer(d, events[i].data.u32);
	}
}

static void idle_report(const struct idle *d)
{
	double per_connection = d->open > 0 ? ((double)d->rss_after - (double)d->rss_before) /
						      1024.0 / (double)d->open
					    : 0;
	double share = d->seconds > 0 ? d->cpu_seconds / d->seconds * 100 : 0;
	double p50_ms = (double)hist_quantile(&d->pong_ns, 0.5) / 1e6;
	double p99_ms = (double)hist_quantile(&d->pong_ns, 0.99) / 1e6;
	double max_ms = (double)d->pong_ns.max / 1e6;
	bool has_daemon = d->options.daemon_pid != 0;

	if (d->options.json) {
		printf("{\"connections\":%" PRIu32 ",\"connections_failed\":%" PRIu64
		       ",\"connect_seconds\":%.3f,\"seconds\":%.3f,\"pings\":%" PRIu64
		       ",\"pongs\":%" PRIu64
		       ",\"ping_ms\":{\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f}",
			d->open, d->failed, d->connect_seconds, d->seconds, d->pings, d->pongs,
			p50_ms, p99_ms, max_ms);
		if (has_daemon)
			printf(",\"rss_bytes_before\":%" PRIu64 ",\"rss_bytes\":%" PRIu64
			       ",\"rss_kib_per_connection\":%.4f,\"daemon_cpu_seconds\":%.6f,"
			       "\"daemon_cpu_percent\":%.3f",
				d->rss_before, d->rss_after, per_connection, d->cpu_seconds, share);
		puts("}");
		return;
	}
	printf("%-12s %" PRIu32 " in %.1f s, %" PRIu64 " failed\n", "connections", d->open,
		d->connect_seconds, d->failed);
	printf("%-12s %" PRIu64 ", %" PRIu64 " answered: p50 %.3f ms   p99 %.3f ms   max %.3f ms\n",
		"pings", d->pings, d->pongs, p50_ms, p99_ms, max_ms);
	if (has_daemon)
		printf("%-12s %.3f KiB per connection   %.2f %% of a processor\n", "daemon",
			per_connection, share);
}

static int idle_init(struct idle *d)
{
	const struct options *o = &d->options;
	struct procstat probe;

	hist_init(&d->pong_ns);
	if (greet_resolve(o, &d->addr) != 0 || limits_raise_files(o->connections) != 0)
		return -EINVAL;
	if (o->daemon_pid != 0 && procstat_start(&probe, o->daemon_pid) != 0) {
		fprintf(stderr, "sluice-bench: --pid %d: no such process\n", (int)o->daemon_pid);
		return -ESRCH;
	}
	d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	d->fds = calloc(o->connections, sizeof(*d->fds));
	d->sent_ns = calloc(o->connections, sizeof(*d->sent_ns));
	if (d->epoll_fd < 0 || d->fds == NULL || d->sent_ns == NULL) {
		fputs("sluice-bench: no memory\n", stderr);
		return -ENOMEM;
	}
	return 0;
}

static void idle_run(struct idle *d)
{
	const struct options *o = &d->options;
	struct timespec settle = {.tv_sec = SETTLE_MS / 1000};
	struct procstat daemon = {.pid = o->daemon_pid};
	uint64_t began_ns = clocks_now_ns();

	if (o->daemon_pid != 0)
		d->rss_before = procstat_rss_bytes(o->daemon_pid);
	for (uint32_t at = 0; at < o->connections; at += OPENING_MAX)
		idle_open_some(d, at,
			at + OPENING_MAX < o->connections ? at + OPENING_MAX : o->connections);
	d->connect_seconds = (double)(clocks_now_ns() - began_ns) / 1e9;
	nanosleep(&settle, NULL);
	if (o->daemon_pid != 0) {
		d->rss_after = procstat_rss_bytes(o->daemon_pid);
		procstat_start(&daemon, o->daemon_pid);
	}
	began_ns = clocks_now_ns();
	idle_keep_alive(d);
	d->seconds = (double)(clocks_now_ns() - began_ns) / 1e9;
	if (o->daemon_pid != 0) {
		procstat_stop(&daemon);
		d->cpu_seconds = daemon.cpu_seconds;
	}
}

int idle_main(int argc, char **argv)
{
	enum { EXIT_GOOD = 0, EXIT_LOST = 1, EXIT_NOT_BEGUN = 2 };
	static struct idle d;
	int error = options_parse(&d.options, OPTIONS_IDLE, argc, argv);

	if (error != 0)
		return error > 0 ? EXIT_GOOD : EXIT_NOT_BEGUN;
	if (idle_init(&d) != 0)
		return EXIT_NOT_BEGUN;
	idle_run(&d);
	idle_report(&d);
	free(d.fds);
	free(d.sent_ns);
	return d.failed > 0 || d.pongs < d.pings ? EXIT_LOST : EXIT_GOOD;
}
