/*
 * Opening and closing a connection.
 *
 * idle → connecting → greeting → (3.1.1: subscribing →) ready → closed; every state may end in
 * closed. CONNECT and SUBSCRIBE are written directly: the socket is new and empty, and a short
 * write there is a failure like any other.
 */
#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clocks.h"
#include "fleet.h"
#include "mqtt.h"
#include "text.h"

void peer_init(struct peer *p, struct fleet *f, uint32_t idx)
{
	uint32_t files_count = f->source->files_count;

	*p = (struct peer){
		.fleet = f,
		.idx = idx,
		.fd = -1,
		.window = f->options->window,
		.file_next = idx,
		.file_now = PEER_FILE_NONE,
		.fin_head = PEER_FILE_NONE,
	};
	if (idx < files_count)
		p->files_left = (files_count - idx - 1) / f->peers_count + 1;
}

static void peer_close(struct peer *p)
{
	struct fleet *f = p->fleet;

	if (p->state == PEER_CLOSED)
		return;
	if (p->state != PEER_IDLE && p->state != PEER_READY)
		f->peers_opening--;
	p->state = PEER_CLOSED;
	f->peers_closed++;
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	free(p->ids);
	free(p->commands);
	free(p->outbox);
	free(p->rest);
	p->ids = NULL;
	p->commands = NULL;
	p->outbox = NULL;
	p->rest = NULL;
}

void peer_fini(struct peer *p)
{
	peer_close(p);
}

void peer_clientid(const struct peer *p, char clientid[PEER_CLIENTID_MAX + 1])
{
	const char *prefix = p->fleet->options->client_prefix;
	char *at = text_put(clientid, prefix, strlen(prefix));

	*at++ = '-';
	at = text_put_number(at, p->idx, 10);
	*at = '\0';
}

void peer_fail(struct peer *p, const char *cause, ...)
{
	struct fleet *f = p->fleet;
	char clientid[PEER_CLIENTID_MAX + 1], text[256];
	va_list args;

	if (p->state == PEER_CLOSED)
		return;
	peer_clientid(p, clientid);
	va_start(args, cause);
	vsnprintf(text, sizeof(text), cause, args);
	va_end(args);
	tally_connection_failed(
		f->tally, "%s: %s (with %" PRIu32 " of its files)", clientid, text, p->files_left);
	for (uint32_t i = p->idx; i < f->source->files_count; i += f->peers_count)
		tally_file_lost(f->tally, i);
	p->files_left = 0;
	peer_close(p);
}

void peer_stop(struct peer *p)
{
	struct mqtt_disconnect bye = {.reason = MQTT_RC_SUCCESS};
	uint8_t buf[16];
	size_t bytes;

	if (p->state == PEER_READY && p->outbox_done == 0) {
		bytes = mqtt_encode_disconnect(
			buf, sizeof(buf), p->fleet->options->mqtt_version, MQTT_DISCONNECT, &bye);
		/* Whether it arrives changes nothing: every answer is in. */
		(void)!send(p->fd, buf, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	peer_close(p);
}

void peer_ping(struct peer *p, uint64_t now_ns)
{
	uint8_t buf[2];
	size_t bytes;

	/* Not inside a packet that is partly written: then the rest of it is sign of life enough.
	 */
	if (p->keep_alive_s == 0 || p->state != PEER_READY || now_ns < p->ping_ns ||
		p->outbox_done > 0 || !p->is_writable)
		return;
	bytes = mqtt_encode_ping(buf, sizeof(buf), MQTT_PINGREQ);
	if (send(p->fd, buf, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) == 1)
		peer_fail(p, "half a PINGREQ was sent");
	p->ping_ns = now_ns + p->keep_alive_s * UINT64_C(500000000);
}

/* One source address per connection: 127.1.0.1 and on. Each address has its own range of ports. */
static int peer_bind_spread(const struct peer *p)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl((127u << 24 | 1u << 16) + 1 + p->idx),
	};

	return bind(p->fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 ? 0 : -errno;
}

static void peer_tune(const struct peer *p)
{
	/* What fits into the processor's cache is sent at 0.12 CPU s/GB instead of 0.2, and waits
	 * less. Over a real network the kernel's own choice is right: there the buffer is what
	 * keeps the line full. */
	int send_buffer_bytes = 512 << 10, one = 1;

	/* The last bytes of a batch must not wait for an acknowledgement of TCP's. */
	setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (p->fleet->is_loopback)
		setsockopt(p->fd, SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes,
			sizeof(send_buffer_bytes));
}

void peer_start(struct peer *p)
{
	struct fleet *f = p->fleet;
	struct epoll_event want = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
	int error;

	f->peers_started++;
	f->peers_opening++;
	p->state = PEER_CONNECTING;
	p->active_ns = clocks_now_ns();
	p->fd = socket(f->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p->fd < 0) {
		peer_fail(p, "socket: %s", strerror(errno));
		return;
	}
	peer_tune(p);
	error = f->options->spread ? peer_bind_spread(p) : 0;
	if (error != 0) {
		peer_fail(p, "bind: %s", strerror(-error));
		return;
	}
	want.data.ptr = p;
	if (connect(p->fd, (struct sockaddr *)&f->addr, f->addr_bytes) != 0 && errno != EINPROGRESS)
		peer_fail(p, "connect: %s", strerror(errno));
	else if (epoll_ctl(f->epoll_fd, EPOLL_CTL_ADD, p->fd, &want) != 0)
		peer_fail(p, "epoll_ctl: %s", strerror(errno));
}

/* The TCP connection is there, or failed to be. */
static void peer_on_connected(struct peer *p)
{
	char clientid[PEER_CLIENTID_MAX + 1];
	struct mqtt_connect greeting = {
		.version = p->fleet->options->mqtt_version,
		.clean_start = true,
	};
	uint8_t buf[256];
	size_t bytes;
	int error = 0;
	socklen_t error_bytes = sizeof(error);

	getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &error_bytes);
	if (error != 0) {
		peer_fail(p, "connect: %s", strerror(error));
		return;
	}
	peer_clientid(p, clientid);
	greeting.clientid = (struct mqtt_str){clientid, (uint32_t)strlen(clientid)};
	bytes = mqtt_encode_connect(buf, sizeof(buf), &greeting);
	if (bytes == 0 || send(p->fd, buf, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
		peer_fail(p, "CONNECT could not be sent");
	else
		p->state = PEER_GREETING;
}

static void peer_on_ready(struct peer *p)
{
	enum { OUTBOX_CAPACITY_FIRST = 256 };
	struct fleet *f = p->fleet;

	f->peers_opening--;
	p->state = PEER_READY;
	if (p->window < f->options->window && (f->window_min == 0 || p->window < f->window_min))
		f->window_min = p->window;
	if (p->files_left == 0)
		return;
	p->ids = calloc(p->window, sizeof(*p->ids));
	p->commands = calloc(p->window, sizeof(*p->commands));
	p->outbox = calloc(OUTBOX_CAPACITY_FIRST, sizeof(*p->outbox));
	p->outbox_capacity = OUTBOX_CAPACITY_FIRST;
	if (p->ids == NULL || p->commands == NULL || p->outbox == NULL) {
		peer_fail(p, "no memory");
		return;
	}
	for (uint16_t id = p->window; id > 0; id--)
		p->ids[p->ids_free++] = id;
}

void peer_on_subscribed(struct peer *p)
{
	peer_on_ready(p);
}

void peer_on_accepted(struct peer *p)
{
	char clientid[PEER_CLIENTID_MAX + 1], filter[sizeof("$file-response/") + PEER_CLIENTID_MAX];
	struct mqtt_sub sub = {.options = 1};
	uint8_t buf[256];
	size_t bytes;

	if (p->fleet->options->mqtt_version == MQTT_V5) {
		peer_on_ready(p);
		return;
	}
	peer_clientid(p, clientid);
	sub.filter.bytes =
		(uint32_t)snprintf(filter, sizeof(filter), "$file-response/%s", clientid);
	sub.filter.s = filter;
	bytes = mqtt_encode_subscribe(
		buf, sizeof(buf), p->fleet->options->mqtt_version, 1, NULL, &sub, 1);
	if (bytes == 0 || send(p->fd, buf, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
		peer_fail(p, "SUBSCRIBE could not be sent");
	else
		p->state = PEER_SUBSCRIBING;
}

void peer_on_events(struct peer *p, uint32_t events)
{
	if (p->state == PEER_CONNECTING && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
		peer_on_connected(p);
	if (p->state == PEER_CLOSED || p->state == PEER_CONNECTING)
		return;
	if (events & EPOLLOUT)
		p->is_writable = true;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP))
		inbox_read(p);
	if (p->state == PEER_READY)
		fleet_ready(p->fleet, p);
}
