/*
 * The run: connect everybody, start the clock, send everything, wait for every verdict.
 *
 * epoll is edge-triggered. A peer that may have something to write is on the ready list, and each
 * turn of the loop lets every one on it write a bounded amount; so one wait serves many writes, and
 * no peer starves another. Connecting goes on a limited number at a time, below what a listener's
 * backlog holds, and is not part of the measured time.
 */
#include "fleet.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "clocks.h"
#include "limits.h"

enum {
	EVENTS_PER_WAIT = 256,
	OPENING_MAX = 128,
	TICK_MS = 100,
	TICKS_PER_PROGRESS = 5,
};

static volatile sig_atomic_t interrupted;

static void fleet_on_signal(int signo)
{
	(void)signo;
	interrupted = 1;
}

void fleet_ready(struct fleet *f, struct peer *p)
{
	if (p->is_listed || !f->running)
		return;
	p->is_listed = true;
	p->ready_next = NULL;
	*f->ready_tail = p;
	f->ready_tail = &p->ready_next;
}

/* Everyone who is on the list now has one turn. */
static void fleet_serve_ready(struct fleet *f)
{
	struct peer *p = f->ready_head, *next;

	f->ready_head = NULL;
	f->ready_tail = &f->ready_head;
	for (; p != NULL; p = next) {
		next = p->ready_next;
		p->is_listed = false;
		outbox_flush(p);
		if (outbox_has_work(p))
			fleet_ready(f, p);
	}
}

static void fleet_connect_some(struct fleet *f)
{
	while (f->peers_started < f->peers_count && f->peers_opening < OPENING_MAX && !interrupted)
		peer_start(&f->peers[f->peers_started]);
}

static void fleet_begin(struct fleet *f)
{
	f->running = true;
	if (f->daemon != NULL && procstat_start(f->daemon, f->daemon->pid) != 0)
		f->daemon->lost = true;
	f->cpu_ns = clocks_cpu_ns();
	f->began_ns = clocks_now_ns();
	for (uint32_t i = 0; i < f->peers_count; i++) {
		f->peers[i].active_ns = f->began_ns;
		if (f->peers[i].state == PEER_READY)
			fleet_ready(f, &f->peers[i]);
	}
}

/* Everything about peers that depends on time alone. */
static void fleet_check_times(struct fleet *f, uint64_t now_ns)
{
	uint64_t limit_ns = (uint64_t)f->options->timeout_s * 1000000000u;

	for (uint32_t i = 0; i < f->peers_started; i++) {
		struct peer *p = &f->peers[i];
		bool waits = p->state == PEER_READY ? f->running && p->files_left > 0
						    : p->state != PEER_CLOSED;

		if (waits && now_ns > p->active_ns + limit_ns)
			peer_fail(p, "the daemon has been silent for %u seconds",
				f->options->timeout_s);
		peer_ping(p, now_ns);
	}
}

/* One line on a terminal, written over and over. */
static void fleet_show_progress(struct fleet *f, uint64_t now_ns)
{
	const struct tally *t = f->tally;
	double seconds = (double)(now_ns - (f->running ? f->began_ns : f->opened_ns)) / 1e9;

	if (!isatty(STDERR_FILENO))
		return;
	if (f->running)
		fprintf(stderr,
			"\r%.1f s  %.3f GB  %.0f MB/s  %" PRIu32 " of %" PRIu32 " files, %" PRIu32
			" failed \033[K",
			seconds, (double)t->bytes / 1e9, (double)t->bytes / 1e6 / seconds,
			t->files_count - t->files_open, t->files_count, t->files_failed);
	else
		fprintf(stderr, "\r%.1f s  connecting: %" PRIu32 " of %" PRIu32 " \033[K", seconds,
			f->peers_started - f->peers_opening, f->peers_count);
	f->tally->line_open = true;
}

static void fleet_tick(struct fleet *f, uint64_t now_ns, unsigned tick)
{
	if (f->running && f->daemon != NULL)
		procstat_sample(f->daemon);
	if (tick % TICKS_PER_PROGRESS == 0) {
		fleet_check_times(f, now_ns);
		fleet_show_progress(f, now_ns);
	}
}

static bool fleet_is_done(const struct fleet *f)
{
	return interrupted || f->peers_closed == f->peers_count ||
	       (f->running && f->tally->files_open == 0);
}

static void fleet_loop(struct fleet *f)
{
	struct epoll_event events[EVENTS_PER_WAIT];
	uint64_t tick_ns = clocks_now_ns();
	unsigned tick = 0;

	while (!fleet_is_done(f)) {
		int count = epoll_wait(
			f->epoll_fd, events, EVENTS_PER_WAIT, f->ready_head != NULL ? 0 : TICK_MS);
		uint64_t now_ns = clocks_now_ns();

		for (int i = 0; i < count; i++)
			peer_on_events(events[i].data.ptr, events[i].events);
		if (!f->running) {
			fleet_connect_some(f);
			if (f->peers_started == f->peers_count && f->peers_opening == 0)
				fleet_begin(f);
		} else {
			fleet_serve_ready(f);
		}
		if (now_ns - tick_ns >= TICK_MS * 1000000u) {
			tick_ns = now_ns;
			fleet_tick(f, now_ns, ++tick);
		}
	}
}

static bool fleet_is_loopback(const struct sockaddr_storage *addr)
{
	if (addr->ss_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)addr)->sin6_addr);
	return ntohl(((const struct sockaddr_in *)addr)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

static int fleet_resolve(struct fleet *f)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *found;
	const struct options *o = f->options;
	int error = getaddrinfo(o->host, o->port, &hints, &found);

	if (error != 0) {
		fprintf(stderr, "sluice-bench: %s port %s: %s\n", o->host, o->port,
			gai_strerror(error));
		return -EHOSTUNREACH;
	}
	memcpy(&f->addr, found->ai_addr, found->ai_addrlen);
	f->addr_bytes = found->ai_addrlen;
	freeaddrinfo(found);
	f->is_loopback = fleet_is_loopback(&f->addr);
	if (o->spread && (!f->is_loopback || f->addr.ss_family != AF_INET)) {
		fprintf(stderr, "sluice-bench: --spread needs a daemon in 127.0.0.0/8, not %s\n",
			o->host);
		return -EINVAL;
	}
	return 0;
}

static int fleet_init(struct fleet *f)
{
	struct sigaction on_signal = {.sa_handler = fleet_on_signal, .sa_flags = (int)SA_RESETHAND};
	int error = fleet_resolve(f);

	f->ready_tail = &f->ready_head;
	f->peers_count = f->options->connections;
	if (error == 0)
		error = limits_raise_files(f->peers_count);
	if (error != 0)
		return error;
	f->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	f->peers = calloc(f->peers_count, sizeof(*f->peers));
	f->uploads = calloc(f->source->files_count, sizeof(*f->uploads));
	f->inbuf = malloc(FLEET_INBUF_BYTES);
	if (f->epoll_fd < 0 || f->peers == NULL || f->uploads == NULL || f->inbuf == NULL) {
		error = errno != 0 ? -errno : -ENOMEM;
		fprintf(stderr, "sluice-bench: %s\n", strerror(-error));
		return error;
	}
	for (uint32_t i = 0; i < f->peers_count; i++)
		peer_init(&f->peers[i], f, i);
	sigaction(SIGINT, &on_signal, NULL);
	sigaction(SIGTERM, &on_signal, NULL);
	return 0;
}

int fleet_run(struct fleet *f)
{
	int error = fleet_init(f);

	if (error != 0)
		return error;
	f->opened_ns = clocks_now_ns();
	fleet_connect_some(f);
	fleet_loop(f);
	f->ended_ns = clocks_now_ns();
	if (f->running) {
		f->cpu_ns = clocks_cpu_ns() - f->cpu_ns;
		if (f->daemon != NULL && !f->daemon->lost)
			procstat_stop(f->daemon);
	} else {
		f->began_ns = f->ended_ns;
	}
	for (uint32_t i = 0; i < f->peers_count; i++) {
		if (interrupted && f->peers[i].files_left > 0)
			peer_fail(&f->peers[i], "interrupted");
		peer_stop(&f->peers[i]);
	}
	if (f->tally->line_open)
		fputs("\r\033[K", stderr);
	f->tally->line_open = false;
	return 0;
}

void fleet_fini(struct fleet *f)
{
	for (uint32_t i = 0; i < f->peers_count && f->peers != NULL; i++)
		peer_fini(&f->peers[i]);
	if (f->epoll_fd > 0)
		close(f->epoll_fd);
	free(f->peers);
	free(f->uploads);
	free(f->inbuf);
	*f = (struct fleet){0};
}
