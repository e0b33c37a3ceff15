/*
 * A peer is SENDING a file, then (HTTP, RAW) WAITING for its answer, and CLOSED after its last file
 * or after a failure, which fails the files that it has left.
 *
 * The sockets are edge-triggered: a peer that may write is flagged, and each turn lets every flagged
 * one write a bounded amount, as fleet.c does.
 */
#include "pour.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "batch.h"
#include "clocks.h"
#include "limits.h"

enum { HEAD_BYTES_MAX = 2048, BATCHES_PER_TURN = 4, TICK_MS = 100 };

enum pour_state { POUR_SENDING, POUR_WAITING, POUR_CLOSED };

struct pour_peer {
	uint32_t idx;
	int fd; /* −1: none */
	enum pour_state state;
	bool is_writable;
	uint32_t file_idx;
	uint64_t done; /* bytes of head and file that are written */
	uint64_t written_ns, active_ns;
	size_t head_bytes;
	char head[HEAD_BYTES_MAX]; /* the request, then the beginning of its answer */
	size_t body_left;          /* of an answer whose head has been read; see has_status */
	bool has_status;
};

static void pour_close(struct pour *p, struct pour_peer *q)
{
	if (q->state == POUR_CLOSED)
		return;
	q->state = POUR_CLOSED;
	p->peers_open--;
	if (q->fd >= 0)
		close(q->fd);
	q->fd = -1;
}

static void pour_fail(struct pour *p, struct pour_peer *q, const char *what, const char *why)
{
	if (q->state == POUR_CLOSED)
		return;
	if (!p->told)
		fprintf(stderr, "sluice-bench: connection %" PRIu32 ": %s%s%s\n", q->idx, what,
			why != NULL ? ": " : "", why != NULL ? why : "");
	p->told = true;
	for (uint64_t i = q->file_idx; i < p->source->files_count; i += p->peers_count)
		p->files_failed++;
	pour_close(p, q);
}

/* --- one file --------------------------------------------------------------------------------- */

void pour_tune(int fd)
{
	int send_buffer_bytes = 512 << 10, one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes, sizeof(send_buffer_bytes));
}

/* Connects to loopback, which takes no time worth waiting for asynchronously. */
static int pour_connect(struct pour *p, struct pour_peer *q)
{
	struct epoll_event want = {
		.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = q};

	if (q->fd < 0) {
		q->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (q->fd < 0)
			return -errno;
		pour_tune(q->fd);
		if (connect(q->fd, (struct sockaddr *)&p->addr, sizeof(p->addr)) != 0)
			return -errno;
	}
	q->is_writable = true;
	return epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, q->fd, &want) == 0 ? 0 : -errno;
}

static void pour_make_request(struct pour *p, struct pour_peer *q)
{
	char fileid[SOURCE_FILEID_MAX + 1];

	source_fileid(p->source, q->file_idx, fileid);
	q->head_bytes = (size_t)snprintf(q->head, sizeof(q->head),
		"PUT %s%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %" PRIu64 "\r\n\r\n",
		p->options->path, fileid, p->options->host, p->source->files[q->file_idx].bytes);
}

/* The peer's file_idx is the file to send now. */
static void pour_begin_file(struct pour *p, struct pour_peer *q)
{
	if (q->file_idx >= p->source->files_count) {
		pour_close(p, q);
		return;
	}
	q->state = POUR_SENDING;
	q->done = q->head_bytes = 0;
	q->has_status = false;
	if (p->kind == POUR_HTTP)
		pour_make_request(p, q);
	if (p->kind == POUR_RAW) {
		int error = pour_connect(p, q);

		if (error != 0)
			pour_fail(p, q, "connect", strerror(-error));
	}
}

static void pour_end_file(struct pour *p, struct pour_peer *q)
{
	p->files_done++;
	p->bytes += p->source->files[q->file_idx].bytes;
	if (p->kind != POUR_BYTES)
		hist_add(&p->answer_ns, q->active_ns - q->written_ns);
	if (p->kind == POUR_RAW) {
		close(q->fd);
		q->fd = -1;
	}
	q->file_idx += p->peers_count;
	pour_begin_file(p, q);
}

/* --- writing ---------------------------------------------------------------------------------- */

struct spans {
	struct iovec iov[BATCH_SPANS];
	uint8_t stamps[BATCH_SPANS][SOURCE_STAMP_BYTES];
	size_t count, bytes;
};

static void pour_gather(const struct pour *p, const struct pour_peer *q, struct spans *s)
{
	uint64_t file_bytes = p->source->files[q->file_idx].bytes;
	uint64_t off = 0;

	s->count = s->bytes = 0;
	if (q->done < q->head_bytes) {
		s->iov[0] = (struct iovec){(void *)(q->head + q->done), q->head_bytes - q->done};
		s->bytes = s->iov[0].iov_len;
		s->count = 1;
	} else {
		off = q->done - q->head_bytes;
	}
	while (off < file_bytes && s->count < BATCH_SPANS && s->bytes < p->write_bytes_max) {
		uint64_t wanted = file_bytes - off;
		const uint8_t *data;
		size_t got;

		if (wanted > p->write_bytes_max - s->bytes)
			wanted = p->write_bytes_max - s->bytes;
		got = source_span(p->source, q->file_idx, off, wanted, s->stamps[s->count], &data);
		s->iov[s->count++] = (struct iovec){(void *)data, got};
		s->bytes += got;
		off += got;
	}
}

/* All of the file is with the kernel. */
static void pour_on_written(struct pour *p, struct pour_peer *q)
{
	q->written_ns = q->active_ns;
	switch (p->kind) {
	case POUR_BYTES:
		pour_end_file(p, q);
		break;
	case POUR_RAW:
		shutdown(q->fd, SHUT_WR);
		q->state = POUR_WAITING;
		break;
	case POUR_HTTP:
		q->head_bytes = 0; /* from here on the answer's */
		q->state = POUR_WAITING;
		break;
	}
}

static void pour_flush(struct pour *p, struct pour_peer *q)
{
	for (unsigned i = 0; i < BATCHES_PER_TURN && q->state == POUR_SENDING; i++) {
		struct spans s;
		struct msghdr msg = {.msg_iov = s.iov};
		ssize_t written = 0;

		if (q->done == q->head_bytes + p->source->files[q->file_idx].bytes) {
			pour_on_written(p, q);
			continue;
		}
		if (!q->is_writable)
			return;
		pour_gather(p, q, &s);
		msg.msg_iovlen = s.count;
		written = sendmsg(q->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (written < 0 && errno != EAGAIN && errno != EINTR) {
			pour_fail(p, q, "the server closed the connection", strerror(errno));
			return;
		}
		if (written < 0 || (size_t)written < s.bytes)
			q->is_writable = false;
		if (written > 0) {
			q->done += (uint64_t)written;
			q->active_ns = clocks_now_ns();
		}
	}
}

/* --- answers ---------------------------------------------------------------------------------- */

/* Has the whole head of the answer come? Then its status decides, and its body is skipped. */
static void pour_on_answer(struct pour *p, struct pour_peer *q)
{
	char *end, *line;
	unsigned status = 0;
	size_t rest;

	q->head[q->head_bytes] = '\0';
	end = strstr(q->head, "\r\n\r\n");
	if (end == NULL) {
		if (q->head_bytes == HEAD_BYTES_MAX - 1)
			pour_fail(p, q, "the server's answer is too long", NULL);
		return;
	}
	*end = '\0';
	line = strchr(q->head, '\r');
	if (sscanf(q->head, "HTTP/1.%*u %u", &status) != 1 || status < 200 || status > 299) {
		*(line != NULL ? line : end) = '\0';
		pour_fail(p, q, "the server answered", q->head);
		return;
	}
	rest = q->head_bytes - (size_t)(end + 4 - q->head);
	q->has_status = true;
	q->body_left = 0;
	for (; line != NULL; line = strchr(line + 1, '\n')) {
		line += strspn(line, "\r\n");
		if (strncasecmp(line, "Content-Length:", 15) == 0)
			q->body_left = strtoul(line + 15, NULL, 10);
	}
	q->body_left -= rest < q->body_left ? rest : q->body_left;
}

/* Takes what the server sent. */
static void pour_read(struct pour *p, struct pour_peer *q)
{
	while (q->state != POUR_CLOSED) {
		char skipped[4096];
		bool is_head = p->kind == POUR_HTTP && q->state == POUR_WAITING && !q->has_status;
		char *to = is_head ? q->head + q->head_bytes : skipped;
		size_t room = is_head ? HEAD_BYTES_MAX - 1 - q->head_bytes : sizeof(skipped);
		ssize_t got = recv(q->fd, to, room, MSG_DONTWAIT);

		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		q->active_ns = clocks_now_ns();
		if (p->kind == POUR_RAW && q->state == POUR_WAITING && got == 0) {
			pour_end_file(p, q);
			return;
		}
		if (got <= 0 || (p->kind == POUR_HTTP && q->state == POUR_SENDING)) {
			pour_fail(p, q, got > 0 ? "the server answered before the end"
						: "the server closed the connection",
				got < 0 ? strerror(errno) : NULL);
			return;
		}
		if (is_head) {
			q->head_bytes += (size_t)got;
			pour_on_answer(p, q);
		} else if (q->has_status) {
			q->body_left -= (size_t)got < q->body_left ? (size_t)got : q->body_left;
		}
		if (q->state == POUR_WAITING && q->has_status && q->body_left == 0)
			pour_end_file(p, q);
	}
}

/* --- the run ---------------------------------------------------------------------------------- */

static int pour_resolve(struct pour *p)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_INET}, *found;
	int error = getaddrinfo(p->options->host, p->options->port, &hints, &found);

	if (error != 0) {
		fprintf(stderr, "sluice-bench: %s port %s: %s\n", p->options->host,
			p->options->port, gai_strerror(error));
		return -EHOSTUNREACH;
	}
	memcpy(&p->addr, found->ai_addr, sizeof(p->addr));
	freeaddrinfo(found);
	return 0;
}

int pour_init(struct pour *p, const int *fds)
{
	const struct options *o = p->options;
	uint64_t entries = o->window < BATCH_ENTRIES ? o->window : BATCH_ENTRIES;
	int error = p->kind == POUR_BYTES ? 0 : pour_resolve(p);

	hist_init(&p->answer_ns);
	p->peers_count = o->connections;
	/* ingest writes what its window lets it, up to a batch. */
	p->write_bytes_max = o->segment.min * entries;
	if (p->kind != POUR_BYTES || p->write_bytes_max > BATCH_BYTES)
		p->write_bytes_max = BATCH_BYTES;
	if (error == 0)
		error = limits_raise_files(p->peers_count);
	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	p->peers = calloc(p->peers_count, sizeof(*p->peers));
	if (error == 0 && (p->epoll_fd < 0 || p->peers == NULL)) {
		error = -ENOMEM;
		fprintf(stderr, "sluice-bench: %s\n", strerror(-error));
	}
	for (uint32_t i = 0; i < p->peers_count && error == 0; i++) {
		struct pour_peer *q = &p->peers[i];

		*q = (struct pour_peer){.idx = i, .file_idx = i, .fd = fds != NULL ? fds[i] : -1};
		p->peers_open++;
		if (p->kind != POUR_RAW)
			error = pour_connect(p, q);
		if (error != 0)
			fprintf(stderr, "sluice-bench: connect: %s\n", strerror(-error));
	}
	return error;
}

static void pour_tick(struct pour *p, uint64_t now_ns)
{
	uint64_t limit_ns = (uint64_t)p->options->timeout_s * 1000000000u;

	if (p->server != NULL)
		procstat_sample(p->server);
	for (uint32_t i = 0; i < p->peers_count; i++) {
		if (now_ns > p->peers[i].active_ns + limit_ns)
			pour_fail(p, &p->peers[i], "the server is silent", NULL);
	}
}

static bool pour_serve(struct pour *p)
{
	bool has_work = false;

	for (uint32_t i = 0; i < p->peers_count; i++) {
		struct pour_peer *q = &p->peers[i];

		if (q->state == POUR_SENDING)
			pour_flush(p, q);
		has_work |= q->state == POUR_SENDING && q->is_writable;
	}
	return has_work;
}

void pour_run(struct pour *p)
{
	struct epoll_event events[256];
	uint64_t tick_ns;

	if (p->server != NULL && procstat_start(p->server, p->server->pid) != 0)
		p->server->lost = true;
	p->cpu_ns = clocks_cpu_ns();
	p->began_ns = tick_ns = clocks_now_ns();
	for (uint32_t i = 0; i < p->peers_count; i++) {
		p->peers[i].active_ns = p->began_ns;
		pour_begin_file(p, &p->peers[i]);
	}
	while (p->peers_open > 0) {
		bool has_work = pour_serve(p);
		int count = epoll_wait(p->epoll_fd, events, 256, has_work ? 0 : TICK_MS);

		for (int i = 0; i < count; i++) {
			struct pour_peer *q = events[i].data.ptr;

			if (events[i].events & EPOLLOUT)
				q->is_writable = true;
			if (events[i].events & ~(uint32_t)EPOLLOUT)
				pour_read(p, q);
		}
		if (clocks_now_ns() - tick_ns > TICK_MS * 1000000u)
			pour_tick(p, tick_ns = clocks_now_ns());
	}
	p->ended_ns = clocks_now_ns();
	p->cpu_ns = clocks_cpu_ns() - p->cpu_ns;
	if (p->server != NULL && !p->server->lost)
		procstat_stop(p->server);
}

void pour_fini(struct pour *p)
{
	for (uint32_t i = 0; i < p->peers_count && p->peers != NULL; i++)
		pour_close(p, &p->peers[i]);
	free(p->peers);
	p->peers = NULL;
	if (p->epoll_fd > 0)
		close(p->epoll_fd);
	p->epoll_fd = -1;
}
