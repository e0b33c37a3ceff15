/*
 * One MQTT connection of a run: it opens, sends its files, and takes the answers.
 *
 * Files are dealt out like cards: connection c sends the files c, c + N, c + 2N, … of N
 * connections, one after the other. The `fin` of a file is sent when all its segments are
 * acknowledged; meanwhile the next files go on, as far as the window allows.
 *
 * peer.c opens and closes, outbox.c writes, inbox.c reads.
 */
#ifndef SLUICE_BENCH_PEER_H
#define SLUICE_BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plan.h"

struct fleet;

enum peer_state {
	PEER_IDLE,        /* not yet connected */
	PEER_CONNECTING,  /* connect() is under way */
	PEER_GREETING,    /* CONNECT was sent, CONNACK is awaited */
	PEER_SUBSCRIBING, /* 3.1.1: SUBSCRIBE was sent, SUBACK is awaited */
	PEER_READY,       /* files may be sent */
	PEER_CLOSED,      /* the end, in good or bad */
};

enum command_kind { COMMAND_NONE, COMMAND_INIT, COMMAND_SEGMENT, COMMAND_FIN };

/* A command without its acknowledgement, at the place of its packet id. This is all that is kept of
 * it: its bytes can be made again. */
struct command {
	uint64_t from;       /* SEGMENT */
	uint64_t written_ns; /* its last byte went to the kernel; 0: not yet */
	uint32_t bytes;      /* SEGMENT: of payload */
	uint32_t file_idx;
	uint32_t ordinal; /* SEGMENT: in its file's plan */
	uint8_t kind;     /* enum command_kind; NONE: the packet id is free */
	bool is_refused;  /* the daemon said no before it had all of it; the rest must still go */
};

/* One file on its way, whatever connection it goes over. */
struct upload {
	uint32_t unacked;   /* commands generated, not acknowledged */
	uint32_t fin_next;  /* the next file that waits for its fin */
	bool all_generated; /* the last segment is among the commands */
	bool is_settled;    /* its verdict is in, and this connection has counted it */
	bool fin_acked;
	bool fin_answered; /* 3.1.1: the response message came */
};

enum { PEER_FILE_NONE = UINT32_MAX, PEER_ENTRY_PUBACK = 1 << 16 };

struct peer {
	struct fleet *fleet;
	struct peer *ready_next;
	uint32_t idx;
	int fd; /* −1: none */
	enum peer_state state;
	bool is_writable; /* no write has met a full socket since epoll said so */
	bool is_listed;   /* on the fleet's ready list */
	uint16_t window;
	uint16_t ids_free; /* how many packet ids are free: ids[0 … ids_free − 1] */
	uint16_t *ids;
	struct command *commands; /* by packet id − 1 */

	uint32_t *outbox;         /* ring: packet ids of commands, or PEER_ENTRY_PUBACK | id */
	uint32_t outbox_capacity; /* a power of two */
	uint32_t outbox_head, outbox_count;
	uint64_t outbox_done; /* bytes of the first entry that are already written */

	uint16_t keep_alive_s;       /* that the daemon asked for; 0: none */
	uint32_t files_left;         /* not settled */
	uint32_t file_next;          /* to begin */
	uint32_t file_now;           /* being generated; PEER_FILE_NONE */
	uint32_t fin_head, fin_tail; /* files that wait for their fin */
	struct plan plan;            /* of file_now */
	struct plan_cursor cursor;

	uint64_t ping_ns;   /* when the next PINGREQ is due; 0: none is wanted */
	uint64_t active_ns; /* when the daemon last took or sent something but PINGRESP */
	uint8_t *rest;      /* the received beginning of a packet; NULL: none */
	size_t rest_bytes;
};

/* The longest client id: prefix, "-", index. */
enum { PEER_CLIENTID_MAX = 64 + 1 + 10 };

void peer_init(struct peer *p, struct fleet *f, uint32_t idx);
void peer_fini(struct peer *p); /* idempotent */
void peer_clientid(const struct peer *p, char clientid[PEER_CLIENTID_MAX + 1]);
/* Begins to connect. Failures end the peer. */
void peer_start(struct peer *p);
/* epoll reported something. */
void peer_on_events(struct peer *p, uint32_t events);
/* Ends the peer, and fails the files that it has not settled, for this cause. */
void peer_fail(struct peer *p, const char *cause, ...) __attribute__((format(printf, 2, 3)));
/* The daemon has accepted the connection; p->window holds what it allows. */
void peer_on_accepted(struct peer *p);
/* 3.1.1: the response messages will come. */
void peer_on_subscribed(struct peer *p);
/* Keeps an idle connection alive, when the daemon has asked for that. Called now and then. */
void peer_ping(struct peer *p, uint64_t now_ns);
/* Says goodbye and closes. */
void peer_stop(struct peer *p);

/* The socket may be written to: sends a bounded amount, so that every peer has its turn. */
void outbox_flush(struct peer *p);
/* Will outbox_flush have something to do? */
bool outbox_has_work(const struct peer *p);
/* Queues the acknowledgement of a response message. False when out of memory. */
bool outbox_add_puback(struct peer *p, uint16_t packet_id);
/* A command is written and acknowledged: frees its packet id; makes its file's fin due after the
 * last. */
void outbox_release(struct peer *p, uint16_t packet_id);
/* The file's verdict may have come: does the bookkeeping once it has. */
void outbox_settle(struct peer *p, uint32_t file_idx);

/* The socket may be read. */
void inbox_read(struct peer *p);

#endif
