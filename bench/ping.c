/*
 * One connection that pings at fixed moments, whether or not the last answer has come: so a daemon
 * that stands still for a second is seen by all the pings of that second, not by one.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clocks.h"
#include "greet.h"
#include "hist.h"
#include "idle.h"

enum { UNDER_WAY_MAX = 1 << 16, SLOW_MS = 20 };

struct ping {
	struct options options;
	int fd;
	uint64_t sent_ns[UNDER_WAY_MAX]; /* ring, by number */
	uint64_t sent, answered, slow;
	bool has_half; /* the first byte of an answer */
	struct hist answer_ns;
};

static int ping_send(struct ping *p, uint64_t due_ns)
{
	static const uint8_t pingreq[] = {0xc0, 0};

	p->sent_ns[p->sent % UNDER_WAY_MAX] = due_ns;
	p->sent++;
	return send(p->fd, pingreq, sizeof(pingreq), MSG_NOSIGNAL) == (ssize_t)sizeof(pingreq)
		       ? 0
		       : -EPIPE;
}

static int ping_receive(struct ping *p)
{
	uint8_t buf[512];
	ssize_t got = recv(p->fd, buf, sizeof(buf), MSG_DONTWAIT);
	uint64_t now_ns = clocks_now_ns();

	if (got < 0 && errno == EAGAIN)
		return 0;
	if (got <= 0)
		return got < 0 ? -errno : -ECONNRESET;
	for (ssize_t i = 0; i < got; i++) {
		uint64_t took_ns;

		if (buf[i] != (p->has_half ? 0 : 0xd0) || p->answered == p->sent)
			return -EPROTO;
		p->has_half = !p->has_half;
		if (p->has_half)
			continue;
		took_ns = now_ns - p->sent_ns[p->answered % UNDER_WAY_MAX];
		p->answered++;
		p->slow += took_ns > SLOW_MS * 1000000u;
		hist_add(&p->answer_ns, took_ns);
	}
	return 0;
}

static int ping_run(struct ping *p)
{
	uint64_t step_ns = (uint64_t)p->options.interval_ms * 1000000u;
	uint64_t due_ns = clocks_now_ns(), now_ns;
	uint64_t end_ns = due_ns + (uint64_t)p->options.seconds * 1000000000u;
	uint64_t last_ns = end_ns + (uint64_t)p->options.timeout_s * 1000000000u;
	int error = 0;

	while (error == 0 && ((now_ns = clocks_now_ns()) < end_ns || p->answered < p->sent)) {
		struct pollfd wait = {.fd = p->fd, .events = POLLIN};
		struct timespec left = {0};

		if (now_ns > last_ns || p->sent - p->answered == UNDER_WAY_MAX)
			return -ETIMEDOUT;
		for (; due_ns <= now_ns && due_ns < end_ns && error == 0; due_ns += step_ns)
			error = ping_send(p, due_ns);
		if (due_ns < end_ns && due_ns > now_ns)
			left.tv_nsec = (long)((due_ns - now_ns) % 1000000000u);
		else if (due_ns >= end_ns)
			left.tv_nsec = 10000000;
		if (error == 0 && ppoll(&wait, 1, &left, NULL) > 0)
			error = ping_receive(p);
	}
	return error;
}

static void ping_report(const struct ping *p)
{
	double p50_ms = (double)hist_quantile(&p->answer_ns, 0.5) / 1e6;
	double p99_ms = (double)hist_quantile(&p->answer_ns, 0.99) / 1e6;
	double max_ms = (double)p->answer_ns.max / 1e6;

	if (p->options.json)
		printf("{\"pings\":%" PRIu64 ",\"slow\":%" PRIu64
		       ",\"ping_ms\":{\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f}}\n",
			p->answered, p->slow, p50_ms, p99_ms, max_ms);
	else
		printf("%-12s %" PRIu64 ": p50 %.3f ms   p99 %.3f ms   max %.3f ms; %" PRIu64
		       " over %d ms\n",
			"pings", p->answered, p50_ms, p99_ms, max_ms, p->slow, SLOW_MS);
}

int ping_main(int argc, char **argv)
{
	enum { EXIT_GOOD = 0, EXIT_LOST = 1, EXIT_NOT_BEGUN = 2 };
	static struct ping p;
	struct sockaddr_in addr;
	int error = options_parse(&p.options, OPTIONS_PING, argc, argv);

	if (error != 0)
		return error > 0 ? EXIT_GOOD : EXIT_NOT_BEGUN;
	if (greet_resolve(&p.options, &addr) != 0)
		return EXIT_NOT_BEGUN;
	hist_init(&p.answer_ns);
	p.fd = greet_start(&p.options, &addr, 0, 0);
	error = p.fd < 0 ? p.fd : greet_finish(&p.options, p.fd);
	if (error != 0) {
		fprintf(stderr, "sluice-bench: connect: %s\n", strerror(-error));
		return EXIT_NOT_BEGUN;
	}
	error = ping_run(&p);
	close(p.fd);
	if (error != 0)
		fprintf(stderr, "sluice-bench: after %" PRIu64 " answers: %s\n", p.answered,
			strerror(-error));
	ping_report(&p);
	return error != 0 ? EXIT_LOST : EXIT_GOOD;
}
