/*
 * Session: one switch over enum session_state decides; see session.h.
 *
 *   IDLE ──retry_at_ms──▶ CONNECTING ──TCP──▶ GREETING ──CONNACK 0──▶ UP
 *    ▲                       │ next address      │                     │
 *    └───────back-off────────┴───────────────────┴──────lost───────────┘
 *
 * The back-off doubles from half a second to half a minute, each delay drawn between a half and all
 * of it, so that a fleet that lost its server does not come back in step.
 */
#include "session.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include "options.h"
#include "session_packets.h"

enum {
	BACKOFF_MIN_MS = 500,
	BACKOFF_MAX_MS = 30 * 1000,
	STEADY_MS = 60 * 1000, /* a connection that lasted so long was progress in itself */
};

static volatile sig_atomic_t caught_signal;

static void on_signal(int sig)
{
	caught_signal = sig;
}

/* The signals stay blocked except inside ppoll, so none can slip in between the test and the
 * wait. */
void session_catch_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int session_caught_signal(void)
{
	return caught_signal;
}

uint64_t session_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void session_init(struct session *s, const struct session_conf *conf,
	const struct session_handler *handler)
{
	*s = (struct session){.conf = conf, .handler = handler};
	link_init(&s->link);
	s->progress_ms = session_now_ms();
}

static void forget_addresses(struct session *s)
{
	if (s->addresses) {
		freeaddrinfo(s->addresses);
	}
	s->addresses = s->address = NULL;
}

void session_fini(struct session *s)
{
	if (s->state == SESSION_UP) {
		session_packet_disconnect(s);
	}
	link_fini(&s->link);
	forget_addresses(s);
	s->state = SESSION_IDLE;
}

void session_fail(struct session *s, int exit_code, const char *fmt, ...)
{
	va_list ap;

	if (s->has_failed) {
		return;
	}
	va_start(ap, fmt);
	vsnprintf(s->error, sizeof(s->error), fmt, ap);
	va_end(ap);
	s->has_failed = true;
	s->exit_code = exit_code;
}

void session_progress(struct session *s)
{
	s->progress_ms = session_now_ms();
	s->attempts = 0;
}

static uint64_t backoff_ms(unsigned attempts)
{
	uint64_t max = attempts > 6 ? BACKOFF_MAX_MS : (uint64_t)BACKOFF_MIN_MS << attempts;
	uint32_t dice = 0;

	if (max > BACKOFF_MAX_MS) {
		max = BACKOFF_MAX_MS;
	}
	/* Without randomness at boot the delay is merely not jittered. */
	if (getrandom(&dice, sizeof(dice), GRND_NONBLOCK) != sizeof(dice)) {
		dice = UINT32_MAX;
	}
	return max / 2 + max / 2 * (uint64_t)dice / UINT32_MAX;
}

static void back_off(struct session *s)
{
	uint64_t now = session_now_ms();

	forget_addresses(s);
	s->state = SESSION_IDLE;
	s->retry_at_ms = now + backoff_ms(s->attempts++);
	if (s->has_failed) {
		return;
	}
	if (s->conf->retry_max_ms && now - s->progress_ms >= s->conf->retry_max_ms) {
		char why[SESSION_ERROR_MAX];
		memcpy(why, s->error, sizeof(why));
		session_fail(s, EXIT_NO_CONNECTION, "%.400s (gave up after %llu s)", why,
			(unsigned long long)(now - s->progress_ms) / 1000);
		return;
	}
	if (!s->has_noticed) {
		s->has_noticed = true;
		s->handler->on_notice(s->handler->arg, s->error);
	}
}

void session_lost(struct session *s, const char *fmt, ...)
{
	bool was_up = s->state == SESSION_UP;
	va_list ap;

	if (!s->has_failed) {
		va_start(ap, fmt);
		vsnprintf(s->error, sizeof(s->error), fmt, ap);
		va_end(ap);
	}
	link_reset(&s->link);
	memset(s->pending, 0, sizeof(s->pending));
	s->pending_count = 0;
	s->replies = SESSION_NO_REPLIES;
	s->ping_ms = 0;
	if (was_up && session_now_ms() - s->up_ms >= STEADY_MS) {
		session_progress(s);
	}
	back_off(s);
	if (was_up) {
		s->handler->on_down(s->handler->arg);
	}
}

static void greet(struct session *s)
{
	s->state = SESSION_GREETING;
	s->deadline_ms = session_now_ms() + s->conf->timeout_ms;
	s->sent_ms = s->received_ms = session_now_ms();
	session_packet_connect(s);
}

/* Tries s->address and those after it; when none is left, backs off. */
static void try_addresses(struct session *s)
{
	for (; s->address; s->address = s->address->ai_next) {
		int r = link_open(&s->link, s->address);
		if (r == 0) {
			s->state = SESSION_CONNECTING;
			s->deadline_ms = session_now_ms() + s->conf->timeout_ms;
			if (!s->link.is_connecting) {
				greet(s);
			}
			return;
		}
		snprintf(s->error, sizeof(s->error), "can't connect to %s:%s: %s", s->conf->host,
			s->conf->port, strerror(-r));
	}
	back_off(s);
}

static void start_attempt(struct session *s)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	int r = getaddrinfo(s->conf->host, s->conf->port, &hints, &s->addresses);

	if (r != 0) {
		s->addresses = NULL;
		snprintf(s->error, sizeof(s->error), "can't find the host %s: %s", s->conf->host,
			r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
		back_off(s);
		return;
	}
	s->address = s->addresses;
	try_addresses(s);
}

static void connect_failed(struct session *s, int err)
{
	link_reset(&s->link);
	snprintf(s->error, sizeof(s->error), "can't connect to %s:%s: %s", s->conf->host,
		s->conf->port, strerror(err));
	s->address = s->address->ai_next;
	try_addresses(s);
}

/* Pings when the line is quiet, and gives the connection up when even that is not answered. Sending
 * counts as life: a PINGREQ may wait behind a large payload that still makes its way. */
static void watch_liveness(struct session *s, uint64_t now)
{
	uint64_t life = s->received_ms > s->sent_ms ? s->received_ms : s->sent_ms;

	if (s->ping_ms) {
		life = s->ping_ms > life ? s->ping_ms : life;
		if (now - life >= s->conf->timeout_ms) {
			session_lost(s, "the server gave no sign of life for %llu s",
				(unsigned long long)s->conf->timeout_ms / 1000);
		}
		return;
	}
	if (now - s->received_ms >= s->conf->timeout_ms / 2 ||
		(s->keep_alive_ms && now - s->sent_ms >= s->keep_alive_ms / 2)) {
		session_packet_ping(s);
		s->ping_ms = now;
	}
}

static void step_timers(struct session *s)
{
	uint64_t now = session_now_ms();

	switch (s->state) {
	case SESSION_IDLE:
		if (now >= s->retry_at_ms) {
			start_attempt(s);
		}
		break;
	case SESSION_CONNECTING:
		if (now >= s->deadline_ms) {
			connect_failed(s, ETIMEDOUT);
		}
		break;
	case SESSION_GREETING:
		if (now >= s->deadline_ms) {
			session_lost(s, "%s:%s accepted the connection but did not answer CONNECT",
				s->conf->host, s->conf->port);
		}
		break;
	case SESSION_UP:
		watch_liveness(s, now);
		break;
	}
}

/* Milliseconds until step_timers has something to do. */
static uint64_t timer_ms(const struct session *s)
{
	uint64_t now = session_now_ms(), at = now;

	switch (s->state) {
	case SESSION_IDLE:
		at = s->retry_at_ms;
		break;
	case SESSION_CONNECTING:
	case SESSION_GREETING:
		at = s->deadline_ms;
		break;
	case SESSION_UP:
		/* Liveness is a matter of seconds: looking once a second is exact enough. */
		at = now + (s->conf->timeout_ms < 4000 ? s->conf->timeout_ms / 4 : 1000);
		break;
	}
	return at > now ? at - now : 0;
}

static void flush(struct session *s)
{
	uint64_t before = s->link.bytes_sent;
	int r = link_flush(&s->link);

	if (s->link.bytes_sent != before) {
		s->sent_ms = session_now_ms();
	}
	if (r == 0 || r == 1) {
		return;
	}
	/* What came in before the connection broke is read first: a DISCONNECT there says why. */
	if (link_read(&s->link) > 0) {
		session_packets_handle(s);
	}
	if (s->link.fd >= 0) {
		session_lost(s, "the connection to %s:%s was lost: %s", s->conf->host,
			s->conf->port, strerror(-r));
	}
}

static void receive(struct session *s)
{
	int r = link_read(&s->link);

	if (r < 0) {
		if (r == -ECONNRESET) {
			session_lost(s, "%s:%s closed the connection", s->conf->host,
				s->conf->port);
		} else {
			session_lost(s, "the connection to %s:%s was lost: %s", s->conf->host,
				s->conf->port, strerror(-r));
		}
		return;
	}
	if (r > 0) {
		s->received_ms = session_now_ms();
		s->ping_ms = 0;
		session_packets_handle(s);
	}
}

static void on_events(struct session *s, short revents)
{
	if (s->state == SESSION_CONNECTING) {
		int r = link_finish_connect(&s->link);
		if (r < 0) {
			connect_failed(s, -r);
			return;
		}
		greet(s);
		return;
	}
	/* Reading first: behind a broken pipe there may lie the DISCONNECT that explains it. */
	if (revents & (POLLIN | POLLHUP | POLLERR)) {
		receive(s);
	}
	if (s->link.fd >= 0 && (revents & POLLOUT)) {
		flush(s);
	}
}

int session_wait(struct session *s, struct pollfd *extra, int timeout_ms)
{
	struct pollfd fds[2] = {{.fd = -1}, {.fd = -1}};
	struct timespec ts;
	sigset_t open_set;

	step_timers(s);
	bool was_free = link_is_free(&s->link);
	if (s->link.fd >= 0 && !s->link.is_connecting && s->state != SESSION_IDLE) {
		flush(s);
	}
	/* The owner has waited for this: it may publish at once. */
	if (!was_free && link_is_free(&s->link)) {
		timeout_ms = 0;
	}
	if (s->has_failed) {
		return -ECONNABORTED;
	}
	if (s->link.fd >= 0) {
		bool wants_out = s->link.is_connecting || !link_is_drained(&s->link);
		fds[0].fd = s->link.fd;
		fds[0].events = (short)(wants_out ? POLLIN | POLLOUT : POLLIN);
	}
	if (extra) {
		fds[1] = *extra;
	}
	uint64_t wait_ms = timer_ms(s);
	if (timeout_ms >= 0 && (uint64_t)timeout_ms < wait_ms) {
		wait_ms = (uint64_t)timeout_ms;
	}
	ts = (struct timespec){.tv_sec = (time_t)(wait_ms / 1000),
		.tv_nsec = (long)(wait_ms % 1000) * 1000000};
	sigemptyset(&open_set);
	int n = ppoll(fds, 2, &ts, &open_set);
	if (caught_signal) {
		return -EINTR;
	}
	if (extra) {
		extra->revents = n > 0 ? fds[1].revents : 0;
	}
	if (n > 0 && fds[0].revents) {
		on_events(s, fds[0].revents);
	}
	return s->has_failed ? -ECONNABORTED : 0;
}

uint32_t session_room(const struct session *s)
{
	if (s->state != SESSION_UP || !link_is_free(&s->link) || s->has_failed) {
		return 0;
	}
	return s->pending_max - s->pending_count;
}
