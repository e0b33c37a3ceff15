/*
 * All connections of a run, in one thread around one epoll descriptor.
 */
#ifndef SLUICE_BENCH_FLEET_H
#define SLUICE_BENCH_FLEET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "digest.h"
#include "options.h"
#include "peer.h"
#include "procstat.h"
#include "source.h"
#include "tally.h"

enum { FLEET_INBUF_BYTES = 256 << 10 };

struct fleet {
	const struct options *options;
	struct source *source;
	const struct digests *digests;
	struct plan_rules rules;
	struct tally *tally;
	struct procstat *daemon; /* NULL: not measured */

	struct sockaddr_storage addr; /* of the daemon */
	socklen_t addr_bytes;
	bool is_loopback;
	int epoll_fd;
	struct peer *peers;
	uint32_t peers_count;
	struct upload *uploads; /* by file */
	uint8_t *inbuf;         /* what recv fills, used by one peer at a time */

	struct peer *ready_head; /* may have something to write, and may be able to */
	struct peer **ready_tail;
	uint32_t peers_started; /* connect was called */
	uint32_t peers_opening; /* of these: not yet PEER_READY, not closed */
	uint32_t peers_closed;
	bool running; /* the clock runs, files are sent */
	uint64_t opened_ns, began_ns, ended_ns;
	uint64_t cpu_ns;     /* that this program used from began to ended */
	uint16_t window_min; /* the narrowest that the daemon allowed; 0: none was narrowed */
};

/* Connects all peers, sends all files, waits for every verdict, disconnects. 0, or −errno after a
 * message on stderr when the run could not even begin; failures of files and connections are the
 * tally's. */
int fleet_run(struct fleet *f);
void fleet_fini(struct fleet *f); /* idempotent */

/* Puts a peer on the ready list, once; before the clock runs nobody is on it. */
void fleet_ready(struct fleet *f, struct peer *p);

#endif
