/*
 * Transfers: what the $file commands do. upload.c is the state machine, ingest.c brings segments
 * into staging files.
 *
 *     open ──fin──► verifying ──digest right──► publishing ──► exported (remembered for transfer.replay_window)
 *      ▲  │              │ wrong
 *      │  └─abort, ttl──►│──► gone (aborted, expired)
 *      └─────────────────┘
 *
 * A transfer is named by (client id, file id) and touched only by the reactor that owns the client
 * id.
 */
#ifndef SLUICE_UPLOAD_H
#define SLUICE_UPLOAD_H

#include <stdbool.h>
#include <stdint.h>
#include "bufs.h"
#include "filecmd.h"
#include "reply.h"

struct uploads;   /* all transfers of one reactor */
struct seg;       /* one segment on its way from the connection to the journal */
struct user;      /* whom a transfer that is opened counts against (user.h) */

/* Commands. client and fileid are copied; the reply is handed over. */
struct upload_id {
	const char *clientid;
	uint32_t clientid_bytes;
	const char *fileid;
	uint32_t fileid_bytes;
	struct user *user; /* of the connection, for as long as the call takes; NULL: none */
};

/* True: it is being carried out. False: it waits behind a fin or an abort; nothing that came after
 * it may be begun before the gate lets it pass (upload_gate_pass). */
bool upload_init(struct uploads *u, const struct upload_id *id, const char *json, uint32_t json_bytes,
	struct reply *rp);
/* An asynchronous one is acknowledged when it is in the journal. */
void upload_fin(struct uploads *u, const struct upload_id *id, const struct filecmd *cmd, struct reply *rp);
void upload_abort(struct uploads *u, const struct upload_id *id, struct reply *rp);
void upload_status(struct uploads *u, const struct upload_id *id, struct reply *rp);

/* What the header of a segment already shows to be refused (too large, no space, quota, extents):
 * false with *ret_outcome, so that the payload is drained instead of stored. */
bool upload_segment_admit(struct uploads *u, const struct upload_id *id, const struct filecmd *cmd,
	uint32_t payload_bytes, struct outcome *ret_outcome);

/* May the next segment of this transfer be taken? Asked before each segment is begun. False: the
 * transfer is sealed by a running fin, or too much of it waits to be hashed; the connection then
 * stops reading, and resume(g) is called once it may ask again. resume must only note that. */
struct upload_gate {
	struct upload_gate *next, **pprev; /* pprev == NULL: not waiting */
	void (*resume)(struct upload_gate *g);
};
bool upload_gate_pass(struct uploads *u, const struct upload_id *id, struct upload_gate *g);
void upload_gate_cancel(struct upload_gate *g); /* idempotent */

/* A segment whose payload lies whole in b (which gets a reference for as long as it is needed).
 * Neighbouring ones given between two calls of ingest_flush become one write. */
void ingest_small(struct uploads *u, const struct upload_id *id, const struct filecmd *cmd, struct buf *b,
	const uint8_t *payload, uint32_t payload_bytes, struct reply *rp);
/* The end of a pass over a receive buffer, or of a connection's turn: what has come goes to the files. */
void ingest_flush(struct uploads *u);

enum ingest_pull {
	INGEST_POLL, /* the socket has nothing more: call again when it is readable */
	INGEST_WAIT, /* waits for the disk, a pipe, a lock: resume is called when it can go on */
	INGEST_DONE, /* the whole payload has been taken from the socket; the segment goes on alone, forget it */
	INGEST_EOF,  /* the peer ended or the socket failed in the middle: call ingest_cut and close */
};

/* A segment that streams. prefix: the payload bytes that were received together with the header (in
 * b; NULL, 0: none). resume(arg) is called when ingest_pull returned INGEST_WAIT and can go on; it
 * must only note that. Returns the segment, which the connection holds until INGEST_DONE or
 * ingest_cut. NULL: out of memory (the reply is finished already; drain the payload). */
struct seg *ingest_begin(struct uploads *u, const struct upload_id *id, const struct filecmd *cmd,
	uint32_t payload_bytes, struct buf *b, const uint8_t *prefix, uint32_t prefix_bytes,
	struct reply *rp, void (*resume)(void *arg), void *arg);
/* Takes what the socket has, bytes_max > 0 at most (then INGEST_WAIT, resumed on the next turn). */
enum ingest_pull ingest_pull(struct seg *s, int sock_fd, uint32_t bytes_max);
/* Payload bytes not yet taken from the socket. */
uint32_t ingest_left(const struct seg *s);
/* Payload bytes taken from the socket so far (for the minimum rate). */
uint32_t ingest_taken(const struct seg *s);
/* The connection ended inside the payload: nothing of the segment counts. Its reply is finished
 * without effect (conn is NULL by then). resume is not called any more. */
void ingest_cut(struct seg *s);

#endif
