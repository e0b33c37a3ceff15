#include "greet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mqtt.h"

int greet_resolve(const struct options *o, struct sockaddr_in *ret)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_INET}, *found;
	int error = getaddrinfo(o->host, o->port, &hints, &found);

	if (error != 0) {
		fprintf(stderr, "sluice-bench: %s port %s: %s\n", o->host, o->port,
			gai_strerror(error));
		return -EHOSTUNREACH;
	}
	memcpy(ret, found->ai_addr, sizeof(*ret));
	freeaddrinfo(found);
	return 0;
}

static int greet_connect(int fd, const struct sockaddr_in *addr, uint32_t idx)
{
	struct sockaddr_in from = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl((127u << 24 | 1u << 16) + 1 + idx)};
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (ntohl(addr->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET &&
		bind(fd, (struct sockaddr *)&from, sizeof(from)) != 0)
		return -errno;
	return connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 ? 0 : -errno;
}

int greet_start(const struct options *o, const struct sockaddr_in *addr, uint32_t idx,
	uint16_t keep_alive_s)
{
	char clientid[80];
	struct mqtt_connect greeting = {
		.version = MQTT_V5, .clean_start = true, .keep_alive_s = keep_alive_s};
	uint8_t buf[256];
	size_t bytes;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), error;

	if (fd < 0)
		return -errno;
	snprintf(clientid, sizeof(clientid), "%s-%" PRIu32, o->client_prefix, idx);
	greeting.clientid = (struct mqtt_str){clientid, (uint32_t)strlen(clientid)};
	bytes = mqtt_encode_connect(buf, sizeof(buf), &greeting);
	error = greet_connect(fd, addr, idx);
	if (error == 0 && send(fd, buf, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
		error = -EPIPE;
	if (error == 0)
		return fd;
	close(fd);
	return error;
}

/* One byte at a time, so that nothing behind CONNACK is taken: this is not what is measured. */
static int greet_read(int fd, uint8_t *buf, size_t bytes, int timeout_ms)
{
	for (size_t at = 0; at < bytes;) {
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		ssize_t got;

		if (poll(&wait, 1, timeout_ms) == 0)
			return -ETIMEDOUT;
		got = recv(fd, buf + at, bytes - at, 0);
		if (got <= 0)
			return got < 0 ? -errno : -ECONNRESET;
		at += (size_t)got;
	}
	return 0;
}

int greet_finish(const struct options *o, int fd)
{
	struct mqtt_connack connack;
	uint8_t head[2], body[127];
	int timeout_ms = (int)o->timeout_s * 1000;
	int error = greet_read(fd, head, sizeof(head), timeout_ms);

	if (error == 0 && (head[0] != MQTT_CONNACK << 4 || head[1] > sizeof(body)))
		error = -EPROTO;
	if (error == 0)
		error = greet_read(fd, body, head[1], timeout_ms);
	if (error == 0 && mqtt_decode_connack(body, head[1], MQTT_V5, &connack) != 0)
		error = -EPROTO;
	if (error == 0 && connack.code != 0)
		error = -ECONNREFUSED;
	return error;
}
