/*
 * The upload of one file.
 *
 *   NEW ─▶ ASK ─▶ ASKED ─▶ INIT ─▶ INITED ─▶ DATA ─▶ FIN ─▶ FINNED ─▶ DONE
 *    └──────(small file)─────▲                 ▲               │
 *                                              └──incomplete───┘ by way of ASK
 *
 * From every state but the last two: connection lost → ASK (a small file: INIT); refused for a
 * while → PAUSED → ASK; refused for good → FAILED, by way of ABORT where no later run could
 * go on: the file changed, or it is a pipe.
 *
 * A small file (one segment) is not worth a question: init, the segment and fin go out in one
 * breath, and are simply repeated when in doubt, since a replay is harmless (PROTOCOL 2.1).
 * Refused, it is aborted, as its segment went out before the refusal was known.
 */
#ifndef CLIENT_UPLOAD_H
#define CLIENT_UPLOAD_H

#include <stdbool.h>
#include <stdint.h>
#include "cover.h"
#include "ident.h"
#include "options.h"
#include "progress.h"
#include "reply.h"
#include "session.h"
#include "source.h"
#include "spool.h"

enum upload_state {
	UPLOAD_NEW,    /* set by upload_new */
	UPLOAD_ASK,    /* `status` is to be sent, when nothing is in flight any more */
	UPLOAD_ASKED,  /* its reply is awaited */
	UPLOAD_INIT,   /* `init` is to be sent */
	UPLOAD_INITED, /* its acknowledgement (MQTT 3: its reply) is awaited */
	UPLOAD_DATA,   /* segments are being sent */
	UPLOAD_FIN,    /* all is sent; the digest may have to be completed, then `fin` is sent */
	UPLOAD_FINNED, /* the outcome is awaited */
	UPLOAD_PAUSED, /* until resume_at_ms */
	UPLOAD_ABORT,  /* `abort` is to be sent: what the server has is of no use any more */
	UPLOAD_DONE,   /* exported and confirmed */
	UPLOAD_FAILED, /* said why */
};

enum upload_kind {
	UPLOAD_STATUS = 1,
	UPLOAD_INIT_CMD,
	UPLOAD_SEGMENT,
	UPLOAD_FIN_CMD,
	UPLOAD_ABORT_CMD,
};

/* What all uploads of a run share. */
struct upload_env {
	const struct options *options;
	struct session *session;
	struct progress *progress;
	uint32_t segments_inflight; /* of all uploads */
};

struct upload {
	struct upload_env *env;
	enum upload_state state;
	const char *path;        /* as on the command line: also how messages call it */
	const char *name;        /* for init; borrows from path or the options */
	const char *file_id;     /* file_id_buf, or the options' */
	char file_id_buf[IDENT_FILE_BYTES];
	char *init_json;         /* owned */
	size_t init_bytes;
	bool is_pipe, is_small;
	struct source source;    /* a file */
	struct spool spool;      /* a pipe */
	bool is_input_dry;       /* the pipe had nothing to read when it was last asked */
	struct cover sent;       /* acknowledged or in flight, or known to be there */
	struct cover acked;      /* acknowledged, or known to be there */
	uint32_t inflight;       /* publishes unacknowledged */
	bool is_partial;         /* the status told of the beginning only: ask again before fin */
	bool is_resend;          /* second pass over a file whose digest did not match */
	bool has_sent_fin;       /* ever, in this pass */
	uint64_t fin_size;       /* what the last fin said; with has_sent_fin */
	uint8_t fin_digest[SHA256_DIGEST_BYTES]; /* likewise, unless --no-checksum */
	bool is_fin_acked;       /* FINNED, and a PUBACK that proves nothing has come */
	bool wants_cpu;          /* there is hashing to do now */
	unsigned fruitless;      /* rounds of `incomplete` without a segment in between */
	unsigned bad_segments;   /* refused by their checksum */
	unsigned unanswered;     /* status questions */
	unsigned blind_rounds;   /* begun because the server has no status */
	uint64_t asked_ms;       /* ASKED, INITED: since when */
	uint64_t outcome_ms;     /* FINNED and is_fin_acked: since when */
	uint64_t paused_ms;      /* the first pause since the last progress; 0 = none */
	uint64_t resume_at_ms;   /* PAUSED */
	unsigned pauses;
};

/* path is borrowed; "-" is standard input. NULL: out of memory. */
struct upload *upload_new(struct upload_env *env, const char *path);
void upload_free(struct upload *u); /* NULL is fine */

/* Sends what can be sent now. */
void upload_pump(struct upload *u);
/* The pipe has something to read. */
void upload_on_input(struct upload *u);
bool upload_wants_input(const struct upload *u);
/* Uses a moment in which nothing can be sent for hashing; true when there is more to hash. */
bool upload_idle(struct upload *u);

/* Ended, and nothing of it is in flight. */
bool upload_is_over(const struct upload *u);
/* Everything has been sent: the next file may begin. */
bool upload_is_sent(const struct upload *u);
/* Bytes that the server is known to have. */
uint64_t upload_stored(const struct upload *u);

/* --- upload_answer.c: what comes back --- */

void upload_on_ack(struct upload *u, const struct session_tag *tag, uint8_t reason,
	struct mqtt_str text);
void upload_on_reply(struct upload *u, const struct reply *r);
void upload_on_down(struct upload *u);
/* Ends in FAILED, by way of ABORT when no later run could go on with what the server has: a file
 * that changed or can't be read, or a pipe. */
void upload_fail(struct upload *u, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void upload_fail_source(struct upload *u, const char *how);

#endif
