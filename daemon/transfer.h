/*
 * What upload.c, ingest.c, staging.c, export.c and recover.c share: the transfer, the segment, the
 * table. No one else looks in here; the connection side has upload.h.
 *
 * Who may change what: `state`, the fin fields and the hash frontier are upload.c's; the segment
 * list and the content (cover, synced) ingest.c's; the fd staging.c's; the syncs sync.c's; the publish
 * fields export.c's. All on the owner's thread.
 *
 * A transfer is pinned while pins > 0 (operations, segments, hashing, publishing in flight); one
 * that has left the table (`gone`) is freed when the last pin is dropped.
 */
#ifndef SLUICE_TRANSFER_H
#define SLUICE_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "cover.h"
#include "journal.h"
#include "meta.h"
#include "names.h"
#include "reactor.h"
#include "ring.h"
#include "store.h"
#include "timers.h"
#include "upload.h"
#include "user.h"
#include "verify.h"

enum transfer_state {
	/* Takes segments. Set at creation, and by a fin that failed. Next: VERIFYING, or gone
	 * (abort, ttl). */
	TRANSFER_OPEN,
	/* A fin sealed it: no segment is begun; those in flight are joined, then the last bytes
	 * hashed and the digest compared. Next: PUBLISHING, or OPEN when the fin failed, or gone
	 * when an abort came meanwhile. */
	TRANSFER_VERIFYING,
	/* The digest is right, export.c works. Next: EXPORTED, or OPEN when publishing failed. */
	TRANSFER_PUBLISHING,
	/* Done and remembered for replays. Next: gone (replay window over, superseded by the next
	 * generation). */
	TRANSFER_EXPORTED,
};

enum staging_state {
	STAGING_NONE,    /* never opened, or after a failure was told */
	STAGING_OPENING, /* open, fallocate or seeding in flight */
	STAGING_OPEN,    /* usable; the fd may be closed (fd −1) and is opened again when wanted */
	STAGING_FAILED,  /* staging_err says why; whoever waits for the file fails, then NONE */
};

struct fin {
	struct fin *next;
	struct reply *reply;  /* NULL: recovered from the journal, nobody waits */
	uint64_t size;
	bool has_checksum;    /* from the topic, else from init's metadata */
	bool has_topic_checksum;
	bool is_answered;     /* freed when the journal has called the waiter */
	uint8_t checksum[32];
	struct journal_waiter waiter; /* async: until it is recorded, then it is acknowledged */
};

/* A reply that waits: for the journal, or on one of a transfer's lists. */
struct pending {
	struct pending *next;
	struct reply *reply;
	struct outcome *outcome; /* owned; NULL: success */
	struct meta *meta;       /* owned; of a late init */
	struct filecmd *fin;     /* owned; of a late fin */
	struct user *user;       /* of a late command: referred to; NULL: none */
	struct journal_waiter waiter;
};

/* What hashing the content takes; gone with the export, so that what is remembered of it stays
 * small. */
struct hasher {
	struct transfer *t;
	struct sha256 hash;   /* has been fed [0, frontier) */
	struct sha256 run;    /* job works on a copy */
	struct verify_job job;
	struct sha256 ahead;  /* beyond hash, over segments that are right but do not count yet */
	struct op behind_op;  /* write-behind */
};

/* Where an export is, and what it was: valid from PUBLISHING on. */
struct exported {
	uint64_t size;
	uint8_t digest[32];   /* zeros: not known, since nobody asked for it (verify.digest) */
	char *path;           /* owned: relative to the export root */
	int64_t at_ms;        /* wall clock; 0 while publishing */
};

/* NULL when it is not known. */
static inline const uint8_t *exported_digest(const struct exported *e)
{
	static const uint8_t none[32];
	return memcmp(e->digest, none, sizeof(none)) == 0 ? NULL : e->digest;
}

struct transfer {
	struct transfer *hash_next;
	struct uploads *u;
	uint64_t tid, epoch;
	char *clientid, *fileid; /* owned */
	uint32_t clientid_bytes, fileid_bytes;
	uint32_t generation;     /* 1 for the first */
	enum transfer_state state;
	uint32_t pins;
	bool gone;               /* has left the table */
	bool ended;              /* and is freed with its last pin */
	bool is_counted;         /* counts as open in the store */
	int64_t opened_at_ms;    /* wall clock */
	uint64_t active_ms;      /* monotonic, last activity */
	struct timer ttl;
	bool has_meta;
	bool own_meta;           /* from an init of its own, not taken over from the previous generation */
	struct meta meta;
	/* The exported transfer that this one is the next generation of; back in the table if this
	 * one is aborted. */
	struct transfer *previous;

	/* staging file */
	enum staging_state staging_state;
	int staging_err;         /* of STAGING_FAILED */
	char *staging;           /* owned: its name */
	int fd;                  /* −1: closed */
	uint32_t fd_users;
	bool staging_exists;     /* a file may be there */
	bool entry_synced;       /* its directory entry is on the disk */
	bool broken;             /* it failed to sync: replaced before it is used again */
	bool is_restored;        /* of before a restart: what syncing its file system says is not all */
	uint32_t staging_gen;    /* counts files: what was written to an earlier one does not count */
	struct transfer *lru_next, **lru_pprev; /* idle fds; of an exported one: the memory list */
	struct op file_op;       /* open, fallocate */
	uint64_t reserved;       /* in the store */
	/* Of who opened it, while it counts as open, or exported as a file. */
	struct account *account; /* its client's; NULL: without memory for one */
	struct user *user;       /* referred to; NULL: none */
	struct transfer *file_next, **file_pprev; /* exported: in the account's list */
	struct user_file user_file;
	uint64_t allocated;      /* of it, blocks on the disk (written or preallocated) */
	uint64_t fallocated;     /* preallocated: the size of the file is at least this */
	bool no_fallocate;       /* the file system has none */
	bool seed_unsynced;      /* the copy was made, but is not to be trusted */
	bool seeding;            /* copies what was acknowledged as a replay from the previous export */

	/* syncs of the staging file */
	struct op sync_op;
	bool syncing;            /* one is under way, the directory's included */
	bool sync_whole;         /* the next one is an fsync */
	uint32_t mark_gen;       /* content_gen when the one that marks began */
	struct journal_waiter *sync_wanted, **sync_wanted_tail; /* for the next one */
	struct journal_waiter *sync_running;
	struct transfer *entry_next; /* waits for the directory */
	struct journal_waiter mark_waiter; /* of a sync that nobody waits for */
	uint64_t mark_to;        /* the content below is to be marked synced when it ends */
	uint64_t mark_after;     /* the next one is due when so much is there in sequence */

	/* content */
	struct cover cover;      /* open: staged and journaled bytes. Exported: bytes acknowledged as replays */
	struct cover synced;     /* the part of it that survives the machine as soon as the journal is synced */
	struct seg *segs, **segs_tail; /* in order of arrival */
	uint32_t segs_count;     /* of them */
	uint32_t segs_queued;    /* of them, not yet started */
	uint64_t segs_end;       /* no segment of the list ends above this */
	bool segs_ordered;       /* each began at or above the end of all before it: none overlap */
	bool stepping;           /* ingest_step is at work */
	bool in_pass;
	struct transfer *pass_next;
	struct upload_gate *gates;
	struct spool *spool;     /* of the large segments that come in now (spool.c) */

	struct hasher *hasher;   /* NULL once exported */
	uint64_t frontier;
	uint64_t contiguous;     /* end of the covered run from 0 */
	uint64_t backlog;        /* of the daemon's total: contiguous − frontier as last accounted */
	uint32_t hashing;        /* in flight that feed the hash: the hasher's job, segments of a chain, a group */
	bool hash_stalled;       /* reading back failed: tried again at the next fin, not before */
	uint32_t content_gen;    /* counts uncovers and failures: a hash over an older one is dropped */
	uint32_t hash_gen;
	uint32_t (*mids)[8];     /* midstates at 64 MiB, 128 MiB, … */
	uint32_t mids_count;
	uint32_t ahead_gen;      /* content_gen when the hasher's ahead was set */
	struct seg *chain, **chain_tail; /* segments that wait for the running chain to end (chain.c) */
	uint64_t chain_end;      /* of what runs and what waits */
	uint64_t behind;         /* up to here write-behind was started */

	/* fin */
	struct fin *fins;        /* the one being worked on, and those that joined or wait */
	bool fin_recorded;
	struct pending *aborts;  /* replies that wait for the transfer to be dropped */
	/* Inits that came behind a fin or an abort, and what came behind them: carried out when that is
	 * done. */
	struct pending *late;
	struct pending *inits;   /* replies that wait for the staging file */
	uint64_t fin_ms;         /* when the running fin began */

	/* publish */
	struct exported exported;
	struct publish *publish;
	bool resume_path;        /* exported.path comes from the journal: export_resume goes on with it */
	bool is_published;       /* PUBLISHED is recorded, its sync is awaited */
	struct journal_waiter waiter;
};

enum { MIDSTATE_BYTES = 64 << 20 };

struct publish;
struct exporter;
struct unlink;
struct account;

/* What each client has open (admit.c). */
struct accounts {
	struct account **table; /* NULL: none yet */
	uint32_t size, count;
	uint64_t logged_ms; /* when a refusal was logged; 0: never */
};

struct uploads {
	struct reactor *rt;
	const struct conf *conf;
	struct store *store;
	struct transfer **table;
	uint32_t table_size, count;
	struct accounts accounts;
	uint64_t hash_seed;
	struct transfer *lru, **lru_tail; /* idle open staging files, least recently used first */
	uint32_t lru_count;
	struct unlink *unlinks;  /* of staging files, until the journal has room to say that they are over */
	struct timer unlinks_timer;
	uint32_t exported_count;
	struct transfer *memory, **memory_tail; /* exported ones in the table, oldest first; linked as lru */
	uint32_t ended_count;    /* transfers that have ended but are still pinned */
	struct exporter *exporter;
	struct op entry_op;      /* fsync of staging/ (sync.c) */
	struct transfer *entry_wanted, *entry_running;
	int entry_err;           /* it failed once: final */
	struct spool *spools_due; /* pulled into in the present turn of a connection (spool.c) */
	struct transfer *pass;   /* those that got small segments in the present pass (ingest.c) */
};

/* --- transfer.c, content.c, gate.c --- */
int content_init(struct transfer *t); /* 0 or −ENOMEM */
void content_release(struct transfer *t); /* exported: keeps nothing that hashing took */
void content_fini(struct transfer *t);
struct uploads *uploads_new(struct reactor *rt, struct store *store);
void uploads_free(struct uploads *u);
bool uploads_is_idle(const struct uploads *u); /* nothing verifies, publishes, writes */
struct transfer *transfer_find(struct uploads *u, const struct upload_id *id);
/* Makes an open transfer and puts it into the table; previous is moved behind it. NULL: out of
 * memory. Writes no record. */
struct transfer *transfer_new(struct uploads *u, const struct upload_id *id, uint64_t tid, uint32_t generation,
	struct transfer *previous);
void transfer_record_open(struct transfer *t);
void transfer_pin(struct transfer *t);
void transfer_unpin(struct transfer *t);
void transfer_arm(struct transfer *t);   /* the timer, from the last activity on */
void transfer_touch(struct transfer *t); /* activity: the ttl starts anew */
/* Content [from, to) is journaled or about to be (record appended by the caller): coverage,
 * frontier, hashing. 0 or −E2BIG, −ENOMEM. */
int transfer_add_extent(struct transfer *t, uint64_t from, uint64_t to);
/* The same for content that is on the disk, of which the record says so. */
int transfer_add_synced(struct transfer *t, uint64_t from, uint64_t to);
/* Takes [from, to) out of coverage and lowers the frontier; appends the record. Before bytes that
 * were synced are overwritten, that record must be synced too. */
void transfer_uncover(struct transfer *t, uint64_t from, uint64_t to);
/* The staging file failed to sync: only what is marked synced counts any more, by a record, and the
 * file is replaced before it is used again. */
void transfer_lose(struct transfer *t, int err);
/* The transfer leaves the table; its staging file is deleted, its previous generation comes back.
 * type: ABORTED, EXPIRED, or FORGET for one that never was (no event). */
void transfer_drop(struct transfer *t, enum record_type type);
/* The next generation of an exported transfer, opened by user, with room for [0, end), seeded with the
 * replays acknowledged so far. NULL: *ret_err, and nothing is opened. */
struct transfer *transfer_next_generation(struct transfer *t, struct user *user, uint64_t end, int *ret_err);
/* Journals m as its metadata. 0 or −ENOMEM. */
int transfer_record_meta(struct transfer *t, const struct meta *m);
/* Published: becomes a memory of itself. */
void transfer_to_exported(struct transfer *t);
/* An exported one enters the memory of replays; the oldest are forgotten over
 * transfer.replay_max. */
void transfer_remember(struct transfer *t);
/* Lowers the frontier to the last midstate at or below `to`. Not while hashing. */
void transfer_rewind(struct transfer *t, uint64_t to);
int transfer_add_midstate(struct transfer *t, const uint32_t h[8]);
/* From recovery: takes the hash up at the last midstate below the contiguous content. */
void transfer_restart_hash(struct transfer *t);
/* From recovery: frees an exported transfer that a later one of the same name replaces. */
void transfer_forget_restored(struct transfer *t);
void transfer_hash_step(struct transfer *t);
/* Is the file's digest wanted? With verify.digest: asked only when there is something to compare it
 * with. */
bool transfer_is_hashed(const struct transfer *t);
/* Makes the hasher's job go from the frontier to `to`; the caller submits it. False: the file is not open. */
bool transfer_hash_prepare(struct transfer *t, uint64_t to);
/* The frontier moves to where this hash has got. */
void transfer_hashed(struct transfer *t, const struct sha256 *hash);
void transfer_gate_step(struct transfer *t);
void transfer_wake_gates(struct transfer *t);
/* Snapshot of all transfers of u as records, for the journal. */
void uploads_checkpoint(void *arg, void (*put)(void *put_arg, const struct record *r), void *put_arg);

/* --- admit.c --- */
/* Room for a transfer: store_reserve and the limits per client and user. 0 or −ENOSPC, −EDQUOT,
 * −EFBIG. */
int transfer_admit(struct uploads *u, const struct upload_id *id, uint64_t bytes);
/* It does not come to be. */
void transfer_admit_undo(struct uploads *u, struct user *user, uint64_t bytes);
/* Room for [0, end) in one that is counted. Errors as above. */
int transfer_reserve_to(struct transfer *t, uint64_t end);
/* Counts as open, with so many bytes reserved in the store and counted for the user, who is referred to
 * from now on; and the reverse, which releases all of that. */
void transfer_count(struct transfer *t, struct user *user, uint64_t reserved);
void transfer_uncount(struct transfer *t);
/* One that counts as open was exported: what it had as that is released, and it counts on as a file for
 * its client and its user, where transfer.files_client_max and files_user_max are set. */
void transfer_count_exported(struct transfer *t);
/* The same for one of before a restart, if its file is still there; and the reverse of both. */
void transfer_count_restored(struct transfer *t, struct user *user);
void transfer_uncount_exported(struct transfer *t);
void accounts_free(struct accounts *as);
/* Of all accounts, open transfers and exports. */
uint64_t accounts_files_count(const struct accounts *as);

/* --- upload.c, for fin.c --- */
/* A fin that came behind an init that waits: it does, too. */
void upload_fin_late(struct transfer *t, struct user *user, const struct filecmd *cmd, struct reply *rp);

/* --- fin.c --- */
/* The first fin of an OPEN transfer with no segment in flight: VERIFYING, or it fails. */
void fin_begin(struct transfer *t);
/* All of [0, size) is hashed: PUBLISHING, or it fails. */
void fin_compare(struct transfer *t);
/* Ends the first fin without an export; the transfer is open again. */
void fin_fail(struct transfer *t, const struct outcome *o);
/* Answers a fin that has not begun. */
void fin_finish_reply(struct uploads *u, struct reply *rp, const struct outcome *o);
/* Answers its reply, if any (o NULL: success), and frees it. */
void fin_answer(struct uploads *u, struct fin *f, const struct outcome *o);
/* Answers a fin on an exported transfer, and frees it: equal is success, else it is refused. */
void fin_on_exported(const struct transfer *t, struct fin *f);

/* --- outcome.c --- */
void outcome_fail(struct outcome *o, uint8_t reason, const char *text, bool is_transient);
/* The outcome for an errno of the storage: enospc, quota_exceeded, too_large, io_error. */
void outcome_storage(struct outcome *o, int err);
/* What [0, size) lacks; NULL: all of it. */
void outcome_fill_missing(struct outcome *o, const struct cover *cover, uint64_t size);
void outcome_incomplete(struct outcome *o, const struct transfer *t, uint64_t size);
void outcome_mismatch(struct outcome *o, const uint8_t expected[32], const uint8_t actual[32]);

/* --- upload.c --- */
/* Something changed that a fin, an abort, the hash or a gate may wait for. */
void transfer_step(struct transfer *t);
/* The staging file could not be read back: a running fin fails. */
void transfer_on_hash_failed(struct transfer *t, int err);
/* Frees the replies that still wait on t, at the end of the daemon. */
void uploads_discard_waiting(struct transfer *t);
/* From export.c: published (err 0), or −errno: the transfer opens again. */
void transfer_on_published(struct transfer *t, int err);
/* After recovery: resumes fins that were accepted and publishes that were begun; arms the ttls. On
 * the reactor's thread. */
void uploads_resume(struct uploads *u);

/* --- staging.c --- */
void staging_init(struct transfer *t);
/* Wants t->fd. True: it is open, and counted (staging_put). False: being opened (transfer_step
 * follows), or failed. */
bool staging_get(struct transfer *t);
void staging_put(struct transfer *t);
/* Does the file take its declared size of the disk before any data? */
bool staging_preallocates(const struct transfer *t);
/* Copies into the file, once it is open, what the previous generation has acknowledged as
 * replays. */
void staging_seed(struct transfer *t);
/* Deletes the file, if any, once it is closed. */
void staging_delete(struct transfer *t);
void staging_fini_all(struct uploads *u);
/* The file has become the exported one: the fd is closed as soon as nobody uses it. */
void staging_let_go(struct transfer *t);
/* The file is lost, or lies elsewhere: whoever wants it next gets a new one. The caller has taken
 * its content out of coverage. */
void staging_abandon(struct transfer *t);
/* Closes the fd; nobody may use it. */
void staging_close(struct transfer *t);

/* --- sync.c --- */
void sync_init(struct transfer *t);
void sync_init_all(struct uploads *u);
/* Calls w->done when all that was written to the staging file before is on the disk, and its
 * directory entry; with is_whole also mode, owner and times. After an error transfer_lose was
 * called, or the file could not be opened. */
void sync_file(struct transfer *t, struct journal_waiter *w, bool is_whole);
/* Starts what waits for the file. */
void sync_step(struct transfer *t);

/* --- ingest.c --- */
/* Tries again what waits: for the file, for a range. */
void ingest_step(struct transfer *t);
/* Segments that came before this generation was begun are still being compared with the previous
 * one's export; some may yet come over. Until then nothing new is taken, and no fin is looked
 * at. */
static inline bool transfer_is_held_up(const struct transfer *t)
{
	return t->previous && t->previous->segs;
}

/* --- chain.c --- */
/* Submits what waits for the running chain, if that has ended. */
void chain_step(struct transfer *t);

/* --- export.c --- */
struct exporter *export_new(struct uploads *u); /* NULL: out of memory */
void export_free(struct exporter *x);           /* NULL is fine; idle */
/* t is PUBLISHING with exported.size and digest set. Ends in transfer_on_published. */
void export_start(struct transfer *t);
/* After a restart in the middle of publishing: exported.path is what the journal says was
 * chosen. */
void export_resume(struct transfer *t);

#endif
