/*
 * One connection of a client: its socket, what of a packet has arrived so far, what waits to be
 * sent.
 *
 *     accept ──► CONNECT ──CONNACK──► OPEN ──────────────► CLOSING ──► (freed)
 *                   │  ▲                                      ▲
 *                   │  └─MOVING: to the reactor that owns it  │
 *                   └──── refused, timeout, not MQTT ─────────┘
 *
 * A connection belongs to one reactor's thread. Everything that happens to it (readable, sent,
 * resumed, timer) only notes that and puts it on the reactor's run list; conn_step, once per turn,
 * reads, decodes and sends. So no call from another module ever finds it in the middle of
 * something, and all acknowledgements of a turn leave in one send.
 *
 * Closing is a join: what was prepared to be sent is sent, the peer's last bytes are thrown away
 * (closing a socket with unread bytes would reset it, and the peer lose our last words), the
 * operations are cancelled, and when none is left the descriptor is closed.
 *
 * An idle connection holds no buffer, no output and no stash: only this struct and its session.
 *
 * Files: conn.c life, run list, timer; conn_rate.c how fast it is read; conn_read.c socket → packets;
 * conn_payload.c the payload of a PUBLISH that is not whole; conn_send.c output; conn_connect.c CONNECT;
 * conn_publish.c PUBLISH; conn_packet.c the other packets.
 */
#ifndef SLUICE_CONN_H
#define SLUICE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker.h"
#include "bufs.h"
#include "mqtt.h"
#include "rate.h"
#include "reactor.h"
#include "ring.h"
#include "timers.h"
#include "upload.h"
#include "user.h"

struct reply;
struct hold;
struct address;

enum conn_state {
	/* Accepted, or arrived from another reactor: only CONNECT is understood. Next: MOVING,
	 * OPEN, CLOSING. */
	CONN_CONNECT,
	/* About to be posted to its owner, or posted. Next: CONNECT, there. */
	CONN_MOVING,
	/* Has a session; CONNACK is on its way. Next: CLOSING. */
	CONN_OPEN,
	/* Has neither session nor replies; conn.c ends it. */
	CONN_CLOSING,
};

/* Why nothing is read at present; reading goes on when all are gone. */
enum conn_stop {
	STOP_GATE = 1 << 0,    /* the transfer of the next segment wants no more now */
	STOP_REPLIES = 1 << 1, /* too many commands without an answer */
	STOP_OUTPUT = 1 << 2,  /* the client does not read what we send */
	STOP_HOLD = 1 << 3,    /* a v3 client's transient failure: closed when the timer fires */
	STOP_SEGMENT = 1 << 4, /* the segment that streams waits for the disk or a pipe */
	STOP_BUFFER = 1 << 5,  /* no receive buffer is free */
	STOP_DRAIN = 1 << 6,   /* the daemon ends: only outstanding answers are waited for */
	STOP_RATE = 1 << 7,    /* client or user sends faster than it may (conn_rate.c); the timer ends it */
	STOP_HEIR = 1 << 8,    /* CONNECT: what the client id's connection before has sent is handled first */
};

/* These may last, and through the peer's own fault. */
enum { STOPS_LONG = STOP_OUTPUT | STOP_HOLD | STOP_DRAIN | STOP_RATE };

struct chunk;
struct payload;
struct alias;

struct conn {
	struct conn *next, **pprev;         /* all of the reactor */
	struct conn *run_next, **run_pprev; /* run list; run_pprev NULL: not on it */
	struct reactor *rt;
	struct session *session;            /* in OPEN */
	struct op op;                       /* poll, and the move */
	struct timer timer;                 /* the earliest of all time limits, or earlier */
	struct bufs_waiter buf_waiter;
	struct upload_gate gate;
	int fd;
	uint16_t stops;                     /* enum conn_stop */
	uint8_t state;                      /* enum conn_state */
	uint8_t version;                    /* 0 before CONNECT */
	bool failed;                        /* the socket, or memory: to be ended without a word */
	bool yields;                        /* whole packets may be left of what was read: not to be waited for */
	bool last_large;                    /* the last PUBLISH was a large segment: peek first */
	bool no_problem_info;               /* Request Problem Information is 0 */
	bool expiry_was_0;                  /* DISCONNECT may not raise it [MQTT-3.14.2-2] */
	bool is_power;                      /* its commands are acknowledged when they survive the machine */
	bool fin_sent;                      /* CLOSING: our side of the stream is ended */
	bool has_waited;                    /* CONNECT: as an heir, as long as is allowed */
	uint16_t move_to;                   /* MOVING: index of the reactor */
	uint16_t keep_alive_s;              /* as it applies; 0: none */
	/* Received bytes that are not handled yet: part of a packet, or whole ones while reading
	 * is stopped. NULL: none. */
	uint8_t *stash;
	uint32_t stash_bytes;
	struct payload *payload;            /* of a PUBLISH that is still arriving, or NULL */
	struct alias *aliases;              /* topic_alias_max of them, or NULL */
	struct chunk *out, **out_tail;      /* output; the first one may be in flight */
	uint32_t unsent;
	uint32_t unacked;                   /* QoS 2 exchanges not over, for Receive Maximum */
	struct conn *starved_next, **starved_pprev; /* a message waits for memory */
	uint64_t taken_ms;                  /* when a chunk was last taken, or unsent began */
	struct reply *replies, **replies_tail, *detached;
	uint32_t replies_count, replies_bytes;
	uint32_t statuses;                  /* of them */
	uint32_t window_bytes;              /* see window_ms */
	struct idset pending;               /* packet identifiers of the replies of QoS 2 */
	uint64_t active_ms;                 /* last byte received; in STOP_OUTPUT, last sent */
	/* Since when, and with how many bytes since, the present packet is incomplete; window_ms
	 * 0: it isn't. */
	uint64_t window_ms;
	struct rate rate;
	struct user *user;                  /* in OPEN; referred to; NULL: none */
	struct rate user_rate;              /* until when it waits for what its user has taken */
	struct address *address;            /* NULL: mqtt.connections_address_max is not set */
	uint64_t until_ms;                  /* CONNECT is there, HEIR or HOLD over, CLOSING given up */
	struct conn *heir, *before;         /* waits for this one's end (STOP_HEIR); the reverse */
};

struct conns {
	struct reactor *rt;
	struct conn *all;
	uint32_t count;
	/* To be stepped in this turn; in the next one. */
	struct conn *now, **now_tail, *later, **later_tail;
	struct hold *hold;
	struct rates *rates;
	uint64_t shed_ms;    /* when slow ones were last looked for */
	uint64_t refused_ms; /* when a connection over a limit was last logged */
	uint64_t used_up_ms; /* the same of one closed for mqtt.received_total */
	uint64_t unsent_ms;  /* the same of one that waits for mqtt.unsent_total */
	uint64_t turn_ns;      /* when the present one's turn began */
	uint32_t turn_packets;
	uint32_t statuses;     /* status commands that are not answered yet, of all that are open */
	uint64_t unsent_bytes; /* memory of the output of all */
	struct conn *starved, **starved_tail; /* the first who asked comes first */
	struct timer starved_timer; /* to ask them again */
};

int conns_new(struct reactor *rt, struct conns **ret);
void conns_free(struct conns *cs); /* empty; NULL is fine */
/* Steps all that were noted. */
void conns_run(struct conns *cs);
/* Is one of them noted: is more to be done at once? */
bool conns_are_noted(const struct conns *cs);
/* May one more descriptor be taken, by a connection or a segment that streams? Where they are used
 * up, those of clients that have long sent less than mqtt.min_rate are had back first, whose time
 * is not over yet. */
bool conns_may_take_descriptor(struct reactor *rt, bool for_segment);
/* The daemon ends: connections without outstanding answers are closed now, the others when they
 * have got them. */
void conns_drain(struct conns *cs);
/* The time for that is over. */
void conns_end_all(struct conns *cs);

/* --- conn.c --- */
/* Takes over fd; it is closed where a limit stands against it, or there is no memory. False: a limit of
 * its own address, so it does not count for mqtt.connect_rate. */
bool conn_accept(struct reactor *rt, int fd, bool is_power);
/* Ends it: takes it out of everything, sends DISCONNECT with `reason` to a v5 client (0: no word),
 * and closes it. with_will: the session's will is published. Idempotent. */
void conn_end(struct conn *c, uint8_t reason, bool with_will);
/* Another connection has the session now. */
void conn_taken_over(struct conn *c);
/* May c's CONNECT be carried out, whose session `holder` has (NULL: nobody)? */
enum turn {
	TURN_NOW,
	TURN_LATER, /* holder has sent more than is handled; c is stepped again when that may be over */
	TURN_PAST,  /* holder came after c */
};
enum turn conn_take_turn(struct conn *c, struct conn *holder);
/* c is not behind any more (conn_is_behind): its heir need not wait. */
void conn_let_heir(struct conn *c);
/* The peer broke the protocol. */
void conn_fail(struct conn *c, uint8_t reason);
/* To be stepped in this turn; in the next one. Callable from anywhere on the reactor's thread. */
void conn_run(struct conn *c);
void conn_run_later(struct conn *c);
void conn_stop(struct conn *c, enum conn_stop why);
void conn_go_on(struct conn *c, enum conn_stop why);
/* A time limit may be nearer than before. */
void conn_watch(struct conn *c);
/* Waits so long without a word and closes then (PROTOCOL 2, MQTT 3.1.1). */
void conn_hold(struct conn *c, uint64_t delay_ms);

static inline bool conn_is_reading(const struct conn *c)
{
	return c->stops == 0 && !c->failed && (c->state == CONN_OPEN || c->state == CONN_CONNECT);
}

/* --- conn_rate.c --- */
/* Who its user is. 0 or −ENOMEM. */
int conn_user_begin(struct conn *c, const struct mqtt_connect *cn);
/* What the client owes, once its connection before this one has ended, and what has come so far. */
void conn_rate_begin(struct conn *c, const struct mqtt_connect *cn, uint32_t received);
/* The reverse of both, before the session is let go: what is owed is remembered. Idempotent. */
void conn_rate_end(struct conn *c);
void conn_take_bytes(struct conn *c, uint32_t bytes);
/* What may be taken in one go, so that it is not waited for much longer than a second. */
uint32_t conn_bytes_max(const struct conn *c, uint32_t bytes);
/* Messages per second that it may send at most; 0: as many as it likes. */
uint32_t conn_messages_rate(const struct conn *c);
/* Stops it if what was taken in is over a rate. */
void conn_check_rate(struct conn *c);
/* When reading goes on. */
uint64_t conn_rate_due_ms(const struct conn *c);

/* These two for each packet. */
static inline void conn_take_packet(struct conn *c, uint8_t type)
{
	rate_take_packet(&c->rate, c->rt->conf, type, c->active_ms);
	if (c->user)
		user_take_packet(c->user, &c->user_rate, type, c->active_ms);
}

static inline bool conn_is_over_messages(const struct conn *c)
{
	uint64_t client_ns = c->rate.messages.until_ns, user_ns = c->user_rate.messages.until_ns;
	return (client_ns || user_ns) &&
		(client_ns > user_ns ? client_ns : user_ns) > ring_now_ms(c->rt->ring) * 1000000;
}

/* --- conn_read.c --- */
/* What a handler says of the packet in front of it. */
enum take {
	TAKE_MORE, /* it is not whole, or reading is stopped: nothing was consumed */
	TAKE_DONE, /* consumed *ret_used bytes */
	TAKE_LEFT, /* the connection ends or moves: hands off */
};
/* The bytes a handler looks at: bytes [0, bytes) at data, in buf (NULL: nobody may keep a
 * reference). */
struct input {
	struct buf *buf;
	const uint8_t *data;
	uint32_t bytes;
};
/* Reads and handles what is there, up to a budget. */
void conn_read(struct conn *c);
/* Keeps bytes that are not handled yet in front of everything received later; the stash is empty.
 * 0 or −ENOMEM: then the connection is failed. */
int conn_stash(struct conn *c, const uint8_t *data, uint32_t bytes);
/* Memory for received bytes, as by realloc. That of all connections together is bounded by
 * mqtt.received_total. NULL: there is none; *data is as it was. */
uint8_t *received_resize(const struct conn *c, uint8_t *data, uint32_t bytes, uint32_t new_bytes);
void received_free(uint8_t *data, uint32_t bytes); /* NULL is fine */
/* Has it sent more than is handled, or the beginning of a packet a moment ago, and will that be handled
 * soon? */
bool conn_is_behind(const struct conn *c);
/* Bytes have come in. */
void conn_count_received(struct conn *c, uint32_t bytes);

/* --- conn_payload.c --- */
enum payload_kind {
	PAYLOAD_DRAIN,   /* thrown away */
	PAYLOAD_COLLECT, /* gathered in memory behind a copy of the head */
	PAYLOAD_STREAM,  /* a segment on its way into its file */
};
/* What happens when the last byte has passed (of DRAIN). */
enum payload_end {
	PAYLOAD_NOTHING,
	PAYLOAD_ACK,     /* an ordinary PUBLISH is acknowledged with `reason` */
	PAYLOAD_PUBREC,  /* one that is in the received set is acknowledged again */
	PAYLOAD_FAIL,    /* `reply` ends with `reason` and `text` */
	PAYLOAD_COMMAND, /* `reply`'s command, which has no use for a payload, is carried out */
};
struct payload {
	uint8_t kind;          /* enum payload_kind */
	uint8_t end;           /* enum payload_end */
	uint8_t qos, reason;
	bool is_transient;
	uint16_t packet_id;
	uint32_t left;         /* bytes to come */
	const char *text;      /* static */
	struct reply *reply;   /* of a command; NULL: none, or handed over */
	struct seg *seg;       /* STREAM */
	uint8_t *data;         /* COLLECT: owned; the head, then what has come of the payload */
	uint32_t head_bytes, bytes, bytes_max;
};
/* Takes over pl (its reply, its data) and ends it at once when nothing is left to come. 0 or
 * −ENOMEM: then the connection is failed. */
int payload_begin(struct conn *c, const struct payload *pl);
/* Copies what has arrived of a PUBLISH into pl->data and sets what COLLECT needs. 0 or −ENOMEM. */
int payload_keep(const struct conn *c, struct payload *pl, const struct input *in,
	uint32_t head_bytes, uint32_t payload_bytes);
/* What the socket says after a step of reading. */
enum step {
	STEP_AGAIN, /* there may be more */
	STEP_POLL,  /* nothing more now */
	STEP_STOP,  /* something else must happen first, or the connection has ended */
};
/* Moves the payload on; *ret_bytes were taken from the socket. */
enum step payload_step(struct conn *c, uint32_t *ret_bytes);
/* The connection ends inside it. Idempotent. */
void payload_cut(struct conn *c);
/* Payloads that stream, in the daemon. */
uint32_t payload_streams(void);

/* --- conn_publish.c --- */
enum take conn_publish(struct conn *c, const struct input *in, uint32_t *ret_used);
/* A collected PUBLISH is complete, its payload behind its head. rp: of a command, handed over;
 * else NULL. */
void conn_publish_whole(struct conn *c, const uint8_t *data, uint32_t bytes, struct reply *rp);
/* A drained command's payload has passed. */
void conn_command_whole(struct conn *c, struct reply *rp);
void conn_free_aliases(struct conn *c); /* idempotent */
/* Is what begins here, in the first bytes of the socket, a segment that is to be spliced? Then
 * *ret_head_bytes. */
bool conn_peek_is_large(const struct conn *c, const uint8_t *data, uint32_t bytes,
	uint32_t *ret_head_bytes);

/* --- conn_connect.c --- */
enum take conn_connect(struct conn *c, const struct input *in, uint32_t *ret_used);

/* --- conn_packet.c --- */
/* Any packet but CONNECT and PUBLISH, whole. */
void conn_packet(struct conn *c, uint8_t type, const uint8_t *body, uint32_t body_bytes);

/* --- conn_send.c --- */
/* Appends to the output. False: closing, or out of memory (the connection then ends soon); nothing
 * was appended. */
bool conn_send(struct conn *c, const void *head, uint32_t head_bytes, const void *body,
	uint32_t body_bytes);
/* PUBACK, PUBREC, PUBREL, PUBCOMP; with the reason string where it may be and fits. text NULL:
 * none. */
void conn_send_ack(struct conn *c, uint8_t type, uint16_t packet_id, uint8_t reason,
	const char *text);
/* Starts sending what has been appended, unless something is in flight. */
void conn_flush(struct conn *c);
/* Bytes of output that the client has not taken. UINT32_MAX, as more than any limit, for one that has
 * some when mqtt.unsent_total is used up. */
uint32_t conn_unsent(const struct conn *c);
/* The same before a message is sent. UINT32_MAX also when nobody gets one: then session_pump is called
 * when it may be had. */
uint32_t conn_unsent_for_message(struct conn *c);
void conn_send_cancel(struct conn *c);
bool conn_send_is_idle(const struct conn *c); /* nothing in flight */
void conn_send_free(struct conn *c);          /* idle */

#endif
