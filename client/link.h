/*
 * One TCP connection that carries MQTT packets, without ever blocking.
 *
 * What goes out is: packets in `out`, then at most one large payload (`body`: a range of a file,
 * sent by sendfile, or borrowed memory), then packets in `after`. Packets may be queued at any
 * time; another large payload only when link_is_free. What comes in is collected in `in` until it
 * is a whole packet.
 */
#ifndef CLIENT_LINK_H
#define CLIENT_LINK_H

#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	LINK_COPY_MAX = 64 << 10,      /* payloads up to this are copied behind their header */
	LINK_OUT_FULL = 256 << 10,     /* with so much queued the link takes no more PUBLISHes */
	LINK_IN_MAX = 1 << 20,         /* largest packet we take: our Maximum Packet Size */
};

struct link_buf {
	uint8_t *data;
	size_t begin, end, cap; /* the bytes in use are [begin, end) */
};

struct link_body {
	uint64_t left;        /* bytes still to send; 0 = no body */
	int fd;               /* −1: from mem */
	uint64_t off;         /* of the next byte in fd */
	const uint8_t *mem;   /* the next byte; borrowed until sent or link_reset */
	int *error_at;        /* an errno is put here when the file can't be read or is too short */
};

struct link {
	int fd;               /* −1: closed */
	bool is_connecting;
	struct link_buf in, out, after;
	struct link_body body;
	uint64_t bytes_sent;  /* in the life of the link object */
};

void link_init(struct link *l);
void link_fini(struct link *l); /* idempotent */
/* Closes the socket and forgets everything queued and received; the object may be opened again. */
void link_reset(struct link *l);

/* Starts connecting to one address. 0 (see is_connecting) or −errno. */
int link_open(struct link *l, const struct addrinfo *ai);
/* Call when the connecting socket is writable. 0 or −errno. */
int link_finish_connect(struct link *l);

/* Can another PUBLISH be queued? */
bool link_is_free(const struct link *l);
/* Has everything queued been handed to the kernel? */
bool link_is_drained(const struct link *l);
/* Room for bytes_max more bytes of packets; give the length with link_commit. NULL: out of
 * memory. */
uint8_t *link_reserve(struct link *l, size_t bytes_max);
void link_commit(struct link *l, size_t bytes);
/* Attaches the large payload of the PUBLISH head that was just committed. */
void link_attach_file(struct link *l, int fd, uint64_t off, uint64_t bytes, int *error_at);
void link_attach_mem(struct link *l, const void *mem, uint64_t bytes);

/* Sends what the socket takes. 0 when drained, 1 when the socket is full, or −errno. */
int link_flush(struct link *l);
/* Reads what is there. Bytes read, 0 when nothing is there, −ECONNRESET at the end, −errno. */
int link_read(struct link *l);
/* Takes bytes off the front of `in`. */
void link_consume(struct link *l, size_t bytes);

#endif
