/*
 * The simulated network: connections between the clients of sim_client.c and the daemon's sockets.
 *
 * What one side sends arrives at the other later, in pieces cut anywhere, in order; of different
 * connections in any order. A connection may be reset, or go dead without a word: then nothing
 * arrives any more on either side, and nobody is told.
 */
#ifndef SLUICE_SIM_NET_H
#define SLUICE_SIM_NET_H

#include "sim.h"

struct sock;      /* one connection, both ends */
struct client;

struct net_conf {
	uint64_t delay_ns_max;
	uint32_t piece_max;      /* bytes that arrive at once */
	uint32_t receive_max;    /* bytes that a socket takes before the daemon reads */
	uint32_t send_max;       /* likewise, before the client reads */
	uint32_t resets;         /* in 10000 pieces that arrive, while there is trouble */
	bool calm;
};
extern struct net_conf net;

void net_reset(const struct net_conf *conf);
void net_fini(void);

/* --- the client's end; valid until net_release --- */
/* NULL: nobody listens. */
struct sock *net_connect(struct client *c);
void net_send(struct sock *s, const void *data, uint32_t len);
void net_end(struct sock *s);            /* FIN behind what was sent */
void net_abort(struct sock *s);          /* RST */
void net_go_dead(struct sock *s);        /* half open from now on */
void net_pause(struct sock *s, bool paused); /* the client reads nothing */
void net_release(struct sock *s);        /* the client forgets it (aborts it, if it is not over) */
/* sim_client.c's, called by events: bytes came; the end (clean or not) came. */
void client_on_bytes(struct client *c, const uint8_t *data, uint32_t len);
void client_on_end(struct client *c);

/* --- the daemon's end --- */
typedef void net_ready_fn(void *arg);
int net_listen(void);                    /* 0, or −EADDRINUSE */
void net_unlisten(void);
struct sock *net_accept(void);           /* NULL: none waits */
/* listener: tells them apart. fn NULL: no more; asks once. */
void net_want_accept(int listener, net_ready_fn *fn, void *arg);
int sock_take(struct sock *s, void *buf, uint32_t len, bool peek); /* buf NULL: drops; −errno */
int sock_put(struct sock *s, const void *buf, uint32_t len);
bool sock_is_readable(const struct sock *s);
void sock_want_read(struct sock *s, net_ready_fn *fn, void *arg);  /* fn NULL: no more; asks once */
void sock_want_write(struct sock *s, net_ready_fn *fn, void *arg);
void sock_end(struct sock *s);
void sock_close(struct sock *s);
uint32_t sock_id(const struct sock *s);

#endif
