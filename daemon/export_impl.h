/*
 * What export.c and export_round.c share: one publish, and the publishes of a reactor.
 *
 * A publish is the reactor's, but for the time it stands in a round: then the thread of
 * RING_PUBLISH alone writes to it, and reads of its transfer what does not change while that is
 * PUBLISHING (ids, metadata, fd, the staging file's name, what is to be exported).
 */
#ifndef SLUICE_EXPORT_IMPL_H
#define SLUICE_EXPORT_IMPL_H

#include <linux/fs.h>
#include "transfer.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#endif

enum {
	EXPORT_DIRS_MAX = 5,
	/* Two short buckets and a long one, two ids, a suffix. */
	EXPORT_DIR_MAX = 48 + 2 * (NAMES_ID_MAX + 1) + 16,
	EXPORT_PATH_MAX = EXPORT_DIR_MAX + 1 + NAMES_FILE_MAX,
	SYNCED_SLOTS = 4096,
	EXPORT_TOGETHER_MIN = 4, /* publishes under way that may share one syncfs */
};

#define EXPORT_MANIFEST ".manifest.json" /* no exported file has this name */

enum publish_state {
	PUBLISH_QUEUED,    /* for a place among export.parallel */
	PUBLISH_UNCOVERED, /* the journal has let go of what lies beyond the size */
	PUBLISH_TRUNCATE,
	PUBLISH_SYNC_FILE, /* alone, by sync.c */
	PUBLISH_SYNC,      /* together with others: the first of three stages in a round */
	PUBLISH_RECORD,
	PUBLISH_MAKE,      /* in a round: the directory and the manifest are made, and made durable with all above */
	PUBLISH_SHOW,      /* in a round: renamed, and that made durable */
	PUBLISH_PUBLISHED,
};

struct publish {
	struct op op;
	struct transfer *t;
	struct publish *next;    /* in the queue, or in a round */
	enum publish_state state;
	int err;                 /* of its stage in the round */
	uint32_t suffix;         /* 1: none */
	uint32_t dirs_count;     /* directories on the path */
	bool renamed, made_dir, fd_counted;
	bool is_resumed;         /* renamed before a restart */
	bool lost;               /* the staging file is gone */
	int manifest_fd;         /* −1: not open */
	struct timer retry;      /* PUBLISHED: waits for the journal to have room again */
	uint32_t ends[EXPORT_DIRS_MAX]; /* length of each directory's path */
	char dir[EXPORT_DIR_MAX];       /* the generation's directory, relative to the export root */
	char name[NAMES_FILE_MAX + 1];
};

struct exporter {
	struct uploads *u;
	uint32_t count;           /* publishes under way, of export.parallel */
	bool starting;            /* the queue is being worked off */
	struct publish *queue, **queue_tail;
	struct publish *waiting, **waiting_tail; /* for the next round */
	/* A round: written by the reactor when it begins, then the thread's. */
	struct op round_op;
	struct publish *round;    /* NULL: none is under way */
	bool is_together;         /* there are enough of them for a syncfs */
	struct op kick_op;        /* begins one when the turn is over, with all that came in it */
	/* The thread's */
	int fs_fd;                /* for syncfs alone, so that no error is told to somebody else; −1 */
	bool has_fs_failed;       /* syncfs reported an error: never believed again */
	uint32_t rounds_each;     /* the last one took long: for so many rounds it needs little that is dirty */
	uint64_t synced_dirs[SYNCED_SLOTS]; /* hashes of directories whose entry is durable */
};

/* export_round.c: the op is an exporter's round_op. On the thread of RING_PUBLISH. */
int export_round(struct op *op);
/* export.c. 0 or −ENOMEM. *ret: owned by the caller */
int export_manifest(const struct transfer *t, char **ret, size_t *ret_bytes);

#endif
