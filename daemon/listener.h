/*
 * A listening socket of one reactor. Several reactors have one each for the same address; the
 * kernel spreads connections over them.
 */
#ifndef SLUICE_LISTENER_H
#define SLUICE_LISTENER_H

#include "reactor.h"
#include "ring.h"
#include "timers.h"

struct listener {
	struct reactor *rt;
	struct op op;
	struct timer retry;    /* armed after an error that may pass */
	int fd;                /* −1: closed */
	bool is_power;         /* what its connections acknowledge survives the machine */
	uint64_t rate_logged_ms, failed_logged_ms; /* when each of the two messages was last logged */
};

/* Takes over fd, which listens. */
void listener_start(struct listener *l, struct reactor *rt, int fd, bool is_power);
/* Accepts no more; the descriptor is closed when nothing is in flight. */
void listener_stop(struct listener *l);
bool listener_is_closed(const struct listener *l);

#endif
