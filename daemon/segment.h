/*
 * One segment on its way from the connection to the journal. ingest.c moves it; stream.c brings the
 * bytes of a large one.
 */
#ifndef SLUICE_SEGMENT_H
#define SLUICE_SEGMENT_H

#include "transfer.h"

enum seg_state {
	/* In its transfer's list; waits for the staging file, or for an earlier segment over the
	 * same bytes. Next: RECEIVING, CHECKING, WRITING. */
	SEG_QUEUED,
	/* Large: bytes go from the socket to the staging file or, over bytes that are covered, to a
	 * scratch file. Next: CHECKING, SETTLING, or WRITING's place is taken by SETTLING. */
	SEG_RECEIVING,
	/* All bytes are there: the verify pool computes the checksum and compares with what is
	 * covered, at once or in a chain. Next: WRITING (small, or a copy from scratch), UNCOVERING, SETTLING. */
	SEG_CHECKING,
	/* Differs from what is covered: the record that takes the range out is being written. Next:
	 * WRITING. */
	SEG_UNCOVERING,
	/* Small: payload → staging file. Large: scratch file → staging file. Next: SYNCING,
	 * SETTLING. */
	SEG_WRITING,
	/* Written, or known to be there; its connection wants it to survive the machine: its file is
	 * being synced. Next: SETTLING. */
	SEG_SYNCING,
	/* Counts: its extent is in the journal's batch; when that is written it is acknowledged and
	 * freed. It has left the transfer's list. */
	SEG_SETTLING,
};

struct stream;

struct seg {
	struct seg *next, **pprev; /* the transfer's list; pprev NULL: not in it */
	struct seg *group_next;    /* the write group */
	struct uploads *u;
	struct transfer *t;        /* pinned */
	struct reply *reply;       /* NULL once answered */
	struct user *user;         /* referred to; who begins the next generation with it; NULL: none, or it can't */
	uint64_t off;
	uint32_t bytes;
	enum seg_state state;
	bool has_checksum;
	bool is_power;             /* acknowledged when it survives the machine */
	bool is_replay;            /* answered as a replay of an exported file */
	bool checked;              /* the checksum was right: not computed again */
	bool received;             /* large: every byte is in its file; started again, it is checked */
	bool is_against_export;    /* CHECKING compares with the exported file */
	uint64_t compared;         /* what is covered of the range was equal, or is compared, up to here */
	bool fd_counted;           /* CHECKING counts the staging file's fd */
	bool is_chained;           /* the file's digest goes through it; until it counts or fails */
	uint32_t staging_gen;      /* of the staging file it was written to */
	int export_fd;             /* −1, or the exported file it is compared with */
	uint8_t checksum[32];
	struct sha256 sha;
	struct verify_job job;
	struct seg *chain_next;    /* waits in CHECKING for the chain before it (chain.c) */
	struct sha256 through;     /* is_chained: the file's digest, up to the segment's end */
	uint32_t chain_gen;        /* the transfer's content_gen then */
	struct journal_waiter waiter;
	/* small */
	struct buf *buf;
	const uint8_t *payload;
	/* large */
	struct stream *stream;
};

static inline uint64_t seg_end(const struct seg *s)
{
	return s->off + s->bytes;
}

enum { GROUP_MAX = 64 };

/* --- group.c, for ingest.c --- */
/* Writes small segments, GROUP_MAX at most, that follow each other in the file: linked by group_next.
 * The staging file is counted by the caller. Each ends in seg_settle, or fails. */
void group_write(struct transfer *t, struct seg *first);

/* --- ingest.c, for group.c --- */
void seg_set_state(struct seg *s, enum seg_state state);
/* The bytes are where they belong. */
void seg_settle(struct seg *s);

/* --- ingest.c, for stream.c --- */
/* A new segment of payload_bytes, queued in its transfer. NULL: the reply is finished already. */
struct seg *ingest_open(struct uploads *u, const struct upload_id *id, const struct filecmd *cmd,
	uint32_t payload_bytes, struct reply *rp);
/* Every byte has been received and written to where it goes first. */
void seg_on_received(struct seg *s);
/* The segment fails with this outcome; it is freed. */
void seg_fail(struct seg *s, const struct outcome *o);
void seg_fail_errno(struct seg *s, int err);
/* The connection went away: frees it without an answer. */
void seg_discard(struct seg *s);

/* --- chain.c, for ingest.c --- */
/* The segment's job is ready to be submitted. True: chain.c does so, now or later. */
bool chain_offer(struct seg *s);
/* Its job has ended; nothing was done with the result yet. */
void chain_on_checked(struct seg *s, bool is_right);
/* It counts from now on. */
void chain_on_counted(struct seg *s);
/* It fails. */
void chain_on_failed(struct seg *s);

/* --- stream.c, for ingest.c --- */
/* Where the bytes go is known: to_scratch, or straight into the staging file (whose fd the stream
 * then counts). */
void stream_start(struct seg *s, bool to_scratch);
/* The scratch file, −1 when the bytes are in the staging file. */
int stream_scratch_fd(const struct seg *s);
/* Copies the scratch file into the staging file (counted by the caller) and calls done. */
void stream_copy(struct seg *s, void (*done)(struct seg *s, int err));
/* Ends with an outcome while the connection may still have to drain the payload. True: the stream
 * is through, the segment may be freed now. False: stream.c calls seg_fail again when it is. */
bool stream_fail(struct seg *s, const struct outcome *o);
void stream_free(struct seg *s);

#endif
