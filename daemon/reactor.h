/*
 * A reactor: one thread with its ring, its listeners, connections, sessions and transfers, which
 * no other thread touches.
 *
 * main.c fills the struct, recovery gives it transfers and journal, then its thread makes the rest:
 *
 *     ring, buffers, broker ── (all ready) ── transfers resume ── turns … ── at rest
 *     ── (all at rest) ── freed, but for the ring
 *
 * A turn: completions and posts, timers, connections, journal. What the connections of a turn have
 * asked to be recorded is one batch of the journal, and what is acknowledged together leaves
 * together.
 */
#ifndef SLUICE_REACTOR_H
#define SLUICE_REACTOR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "conf.h"
#include "timers.h"

struct ring;
struct bufs;
struct broker;
struct uploads;
struct journal;
struct verify;
struct store;
struct conns;
struct retention;
struct listener;
struct reactors;

/* Counters; written by the reactor's thread only, read by any (relaxed). */
struct stats {
	_Atomic uint64_t bytes_received;  /* payload and headers, all */
	_Atomic uint64_t bytes_spliced;   /* segment payload that never was in user space */
	_Atomic uint64_t bytes_copied;    /* segment payload that went through a buffer */
	_Atomic uint64_t connections, connections_total;
	_Atomic uint64_t publishes;
	_Atomic uint64_t segments, segments_replayed, segments_refused;
	_Atomic uint64_t transfers_open, exported, aborted, expired, failed;
	_Atomic uint64_t journal_batches, journal_records, journal_bytes;
	_Atomic uint64_t journal_syncs, file_syncs, dir_syncs; /* waited for: group commits */
	_Atomic uint64_t hashed_bytes;
	_Atomic uint64_t buffers, pipes;  /* in use, as of the last turn */
	_Atomic uint64_t sessions, subscriptions, delivered, dropped; /* the broker's, likewise */
};

#define STAT_ADD(rt, field, n) \
	atomic_fetch_add_explicit(&(rt)->stats.field, (n), memory_order_relaxed)
#define STAT_SUB(rt, field, n) \
	atomic_fetch_sub_explicit(&(rt)->stats.field, (n), memory_order_relaxed)

struct reactor {
	uint32_t idx, count;
	const struct conf *conf;
	struct ring *ring;
	struct timers timers;
	struct bufs *bufs;
	struct broker *broker;
	struct uploads *uploads;
	struct journal *journal;
	struct conns *conns;
	struct retention *retention; /* NULL: another reactor's, or off */
	struct store *store;      /* shared: directories and space; atomics, after the start */
	struct verify *verify;    /* shared: the pool of hashing threads */
	struct reactor **peers;   /* all reactors, by index */
	struct stats stats;
	/* Of connections and of segments that stream (0: not known), and what the latter may take
	 * beyond it. */
	uint32_t descriptors_max, descriptors_spare;
	bool keeps_pipes;         /* there are descriptors enough to open all of io.pipes at once */
	bool stopping;
	/* reactor.c's */
	_Atomic uint64_t inbox_bytes; /* of messages posted by others and not yet seen */
	struct reactors *all;
	struct listener *listeners; /* as many as conf->listen_count, once they were handed over */
	uint64_t stop_at_ms;        /* stopping: not later than this */
};

/* What the threads have in common. */
struct reactors;

/* Starts a thread for each; returns when all are ready to be given listeners, or none runs any
 * more: −errno and one sentence with the cure. */
int reactors_start(struct reactor **peers, uint32_t count, struct reactors **ret, char *ret_error,
	size_t error_max);
/* Hands listening sockets over: fds[reactor × listen_count + address]. Connections are accepted
 * from now on. */
void reactors_listen(struct reactors *rs, const int *fds);
/* Asks them to stop: connections get their outstanding answers, running exports end, both within
 * mqtt.shutdown_timeout. */
void reactors_stop(struct reactors *rs);
/* Have all stopped? When the last one has, SIGUSR2 is sent to the thread that called
 * reactors_start. */
bool reactors_are_done(const struct reactors *rs);
/* Done: joins the threads. What they had is freed, but their rings: ring_free is for when no other
 * thread can post any more. */
void reactors_free(struct reactors *rs);

/* The reactor that owns a client id: XXH3(clientid) mod count. */
uint32_t reactor_owner(const char *clientid, uint32_t clientid_bytes, uint32_t count);
/* Publishes a message made by the daemon (response, event) to ordinary subscribers. QoS 1, not
 * retained. */
void reactor_publish(struct reactor *rt, const char *topic, uint32_t topic_bytes,
	const void *payload, uint32_t payload_bytes, const void *correlation,
	uint32_t correlation_bytes);

#endif
