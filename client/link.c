/*
 * The connection's bytes; see link.h for the order in which they leave.
 *
 * A PUBLISH whose head has been queued must be completed: MQTT has no way to take it back. When the
 * file turns out to be shorter than promised, or can't be read, the rest is padded with zeros and
 * the error is stored where the owner of the payload looks before it says `fin`: so one bad file
 * costs neither the connection nor the other files on it.
 */
#include "link.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_STEP = 64 << 10, SENDFILE_MAX = 4 << 20 };

static const uint8_t zeros[16 << 10];

static size_t buf_bytes(const struct link_buf *b)
{
	return b->end - b->begin;
}

static void buf_clear(struct link_buf *b)
{
	b->begin = b->end = 0;
}

static uint8_t *buf_reserve(struct link_buf *b, size_t bytes)
{
	if (b->begin == b->end) {
		buf_clear(b);
	}
	if (b->cap - b->end >= bytes) {
		return b->data + b->end;
	}
	if (b->begin > 0) {
		memmove(b->data, b->data + b->begin, buf_bytes(b));
		b->end -= b->begin;
		b->begin = 0;
	}
	if (b->cap - b->end < bytes) {
		size_t cap = b->cap ? b->cap : READ_STEP;
		while (cap - b->end < bytes) {
			cap *= 2;
		}
		uint8_t *data = realloc(b->data, cap);
		if (!data) {
			return NULL;
		}
		b->data = data;
		b->cap = cap;
	}
	return b->data + b->end;
}

void link_init(struct link *l)
{
	*l = (struct link){.fd = -1, .body.fd = -1};
}

void link_reset(struct link *l)
{
	if (l->fd >= 0) {
		close(l->fd);
	}
	l->fd = -1;
	l->is_connecting = false;
	buf_clear(&l->in);
	buf_clear(&l->out);
	buf_clear(&l->after);
	l->body = (struct link_body){.fd = -1};
}

void link_fini(struct link *l)
{
	link_reset(l);
	free(l->in.data);
	free(l->out.data);
	free(l->after.data);
	link_init(l);
}

int link_open(struct link *l, const struct addrinfo *ai)
{
	int on = 1;

	link_reset(l);
	int type = ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC;
	l->fd = socket(ai->ai_family, type, ai->ai_protocol);
	if (l->fd < 0) {
		return -errno;
	}
	/* The last, short packet of a burst must not wait for the acknowledgement of those
	 * before. */
	setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(l->fd, ai->ai_addr, ai->ai_addrlen) < 0) {
		if (errno != EINPROGRESS) {
			int err = errno;
			link_reset(l);
			return -err;
		}
		l->is_connecting = true;
	}
	return 0;
}

int link_finish_connect(struct link *l)
{
	int err = 0;
	socklen_t err_bytes = sizeof(err);

	l->is_connecting = false;
	if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &err, &err_bytes) < 0) {
		return -errno;
	}
	return -err;
}

bool link_is_free(const struct link *l)
{
	return l->fd >= 0 && !l->is_connecting && l->body.left == 0 &&
	       buf_bytes(&l->out) < LINK_OUT_FULL;
}

bool link_is_drained(const struct link *l)
{
	return buf_bytes(&l->out) == 0 && l->body.left == 0 && buf_bytes(&l->after) == 0;
}

uint8_t *link_reserve(struct link *l, size_t bytes_max)
{
	return buf_reserve(l->body.left ? &l->after : &l->out, bytes_max);
}

void link_commit(struct link *l, size_t bytes)
{
	struct link_buf *b = l->body.left ? &l->after : &l->out;

	b->end += bytes;
}

void link_attach_file(struct link *l, int fd, uint64_t off, uint64_t bytes, int *error_at)
{
	l->body = (struct link_body){.left = bytes, .fd = fd, .off = off, .error_at = error_at};
}

void link_attach_mem(struct link *l, const void *mem, uint64_t bytes)
{
	l->body = (struct link_body){.left = bytes, .fd = -1, .mem = mem};
}

static ssize_t send_some(struct link *l, const void *data, size_t bytes, bool is_more)
{
	ssize_t n = send(l->fd, data, bytes, MSG_NOSIGNAL | (is_more ? MSG_MORE : 0));

	if (n > 0) {
		l->bytes_sent += (uint64_t)n;
	}
	return n < 0 ? -errno : n;
}

/* From now on the body is zeros: the file has failed, its packet must be finished all the same. */
static void body_fail(struct link_body *b, int err)
{
	*b->error_at = err;
	b->fd = -1;
	b->mem = NULL;
}

/* A file system without sendfile: through a buffer; what the socket does not take is read again. */
static ssize_t body_copy(struct link *l)
{
	uint8_t chunk[32 << 10];
	size_t want = l->body.left < sizeof(chunk) ? (size_t)l->body.left : sizeof(chunk);
	ssize_t n = pread(l->body.fd, chunk, want, (off_t)l->body.off);

	if (n <= 0) {
		body_fail(&l->body, n < 0 ? errno : ENODATA);
		return -EINTR;
	}
	n = send_some(l, chunk, (size_t)n, false);
	if (n > 0) {
		l->body.off += (uint64_t)n;
	}
	return n;
}

static ssize_t body_sendfile(struct link *l)
{
	off_t off = (off_t)l->body.off;
	size_t want = l->body.left < SENDFILE_MAX ? (size_t)l->body.left : SENDFILE_MAX;
	ssize_t n = sendfile(l->fd, l->body.fd, &off, want);

	if (n > 0) {
		l->body.off += (uint64_t)n;
		l->bytes_sent += (uint64_t)n;
		return n;
	}
	int err = n < 0 ? errno : ENODATA;
	if (err == EINVAL || err == ENOSYS) {
		return body_copy(l);
	}
	if (err == EAGAIN || err == EINTR || err == EPIPE || err == ECONNRESET ||
		err == ETIMEDOUT || err == EHOSTUNREACH || err == ENETUNREACH || err == ENETDOWN) {
		return -err;
	}
	body_fail(&l->body, err);
	return -EINTR;
}

static ssize_t body_send(struct link *l)
{
	ssize_t n;

	if (l->body.fd >= 0) {
		n = body_sendfile(l);
	} else if (l->body.mem) {
		n = send_some(l, l->body.mem, (size_t)l->body.left, false);
		if (n > 0) {
			l->body.mem += n;
		}
	} else {
		size_t want = l->body.left < sizeof(zeros) ? (size_t)l->body.left : sizeof(zeros);
		n = send_some(l, zeros, want, false);
	}
	if (n > 0) {
		l->body.left -= (uint64_t)n;
	}
	return n;
}

/* When the body is gone, what was queued behind it is next. */
static void promote_after(struct link *l)
{
	if (l->body.left == 0 && buf_bytes(&l->out) == 0 && buf_bytes(&l->after) > 0) {
		struct link_buf swap = l->out;
		l->out = l->after;
		l->after = swap;
		buf_clear(&l->after);
	}
}

int link_flush(struct link *l)
{
	while (!link_is_drained(l)) {
		ssize_t n;
		promote_after(l);
		if (buf_bytes(&l->out) > 0) {
			n = send_some(l, l->out.data + l->out.begin, buf_bytes(&l->out),
				l->body.left > 0);
			if (n > 0) {
				l->out.begin += (size_t)n;
			}
		} else {
			n = body_send(l);
		}
		if (n == -EAGAIN || n == -EWOULDBLOCK) {
			return 1;
		}
		if (n < 0 && n != -EINTR) {
			return (int)n;
		}
	}
	return 0;
}

int link_read(struct link *l)
{
	int total = 0;

	/* A few rounds only, so that a chatty peer can't keep us from sending. */
	for (int round = 0; round < 4; round++) {
		uint8_t *at = buf_reserve(&l->in, READ_STEP);
		if (!at) {
			return -ENOMEM;
		}
		ssize_t n = recv(l->fd, at, READ_STEP, 0);
		if (n < 0) {
			if (errno == EINTR) {
				continue;
			}
			if (errno == EAGAIN || errno == EWOULDBLOCK) {
				return total;
			}
			return total > 0 ? total : -errno;
		}
		if (n == 0) {
			/* What came before the end is handled first: it may be a DISCONNECT that
			 * says why. */
			return total > 0 ? total : -ECONNRESET;
		}
		l->in.end += (size_t)n;
		total += (int)n;
		if (n < READ_STEP) {
			break;
		}
	}
	return total;
}

void link_consume(struct link *l, size_t bytes)
{
	l->in.begin += bytes;
	if (l->in.begin == l->in.end) {
		buf_clear(&l->in);
	}
}
