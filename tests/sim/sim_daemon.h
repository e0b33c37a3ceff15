/*
 * The daemon's life in the simulator: what main.c does, without a process.
 */
#ifndef SLUICE_SIM_DAEMON_H
#define SLUICE_SIM_DAEMON_H

#include "conf.h"
#include "sim.h"

enum daemon_state {
	DAEMON_DEAD,      /* never started, or crashed */
	DAEMON_STARTING,
	DAEMON_RUNNING,
	DAEMON_STOPPING,
	DAEMON_REFUSED,   /* it could not start, and has said why */
	DAEMON_ENDED,     /* in peace */
};

/* Once per program; may be followed by any number of runs. */
int daemon_defaults(struct conf *ret);
/* The configuration of this run; conf stays put. */
void daemon_reset(const struct conf *conf, uint32_t reactors, uint32_t verify_threads);
void daemon_start(void);
void daemon_stop(void);
/* SIGKILL, or with the whole machine. */
void daemon_crash(bool machine);
/* The run is over: whatever is left of it. */
void daemon_drop(void);
enum daemon_state daemon_state(void);
const char *daemon_error(void);
/* With no connection, nothing under way and no transfer open: is everything given back? Ends the
 * run if not. */
void daemon_check_quiet(void);
/* Of every open transfer: does it count for the user of its client? It runs. */
void daemon_check_users(void);
uint64_t daemon_connections(void);
/* Of the store: open transfers. */
uint64_t daemon_open_count(void);

#endif
