/*
 * Files poured into connections without MQTT: for the floors, and for servers that take a file in
 * one piece.
 *
 * The bytes, the sizes of the writes and the order of the files are those that `ingest` would send:
 * connection c of N sends the files c, c + N, c + 2N, …, one after the other. One thread around one
 * epoll descriptor.
 */
#ifndef SLUICE_BENCH_POUR_H
#define SLUICE_BENCH_POUR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "hist.h"
#include "options.h"
#include "procstat.h"
#include "source.h"

enum pour_kind {
	POUR_BYTES, /* files follow each other without a word; nothing is answered */
	POUR_HTTP,  /* PUT, and the next file after the answer */
	POUR_RAW,   /* a connection per file, closed at its end; done when the server closes too */
};

struct pour_peer;

struct pour {
	const struct options *options;
	const struct source *source;
	enum pour_kind kind;
	struct procstat *server; /* NULL: not measured */

	struct sockaddr_in addr; /* HTTP, RAW */
	int epoll_fd;
	struct pour_peer *peers;
	uint32_t peers_count, peers_open;
	size_t write_bytes_max; /* of one system call */
	bool told;              /* the first failure is on stderr */

	/* The result. */
	uint32_t files_done, files_failed;
	uint64_t bytes; /* of files_done */
	uint64_t began_ns, ended_ns;
	uint64_t cpu_ns;       /* of this process */
	struct hist answer_ns; /* HTTP, RAW: last byte written → answered */
};

/* A socket as every sender of this program has it: see peer.c for the size of the buffer. */
void pour_tune(int fd);
/* Prepares; fds are the connections of POUR_BYTES, taken over, and NULL for the others, which
 * connect by themselves. 0, or −errno after a message on stderr. */
int pour_init(struct pour *p, const int *fds);
/* Sends everything and waits for every answer. */
void pour_run(struct pour *p);
void pour_fini(struct pour *p); /* idempotent */

#endif
