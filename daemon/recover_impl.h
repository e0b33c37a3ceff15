/*
 * What the files of recovery share; recover.c has the order of things.
 */
#ifndef SLUICE_RECOVER_IMPL_H
#define SLUICE_RECOVER_IMPL_H

#include "journal_set.h"
#include "transfer.h"

enum { RECOVER_FILES_MAX = 4096 };

/* What the journals say of one transfer. */
struct past {
	uint64_t tid;
	bool opened, dropped, published, has_fin, fin_has_digest;
	struct record open;         /* strings owned */
	char *meta;
	size_t meta_bytes;
	uint64_t reserved, fin_size;
	uint8_t fin_digest[32];
	struct cover cover, synced; /* synced: the part of cover that is on the disk */
	bool broken;                /* the staging file failed to sync */
	char *former;               /* the name of the staging file before it was replaced */
	char *user;                 /* owned: whom it counts against; NULL: nobody */
	uint32_t user_bytes;
	uint32_t (*mids)[8];
	uint32_t mids_count;
	struct exported exported;
};

/* A journal file of the set. */
struct recover_file {
	uint32_t reactor_idx;
	uint64_t seq;
	char name[JOURNAL_NAME_MAX];
	bool used, damaged;
	int err;                    /* of damaged */
};

struct recovery {
	struct store *store;
	const struct conf *conf;
	struct journal_set set;
	struct recover_file files[RECOVER_FILES_MAX];
	uint32_t files_count;
	bool damaged;               /* records may be missing */
	uint64_t seq_max, tid_max;
	struct past **slots;        /* open addressing by tid */
	uint32_t slots_count, pasts_count;
	uint64_t records;
	uint32_t lost;              /* transfers that lost content */
	uint64_t lost_bytes;
	uint32_t restored;          /* transfers */
	uint64_t read_bytes, files_bytes; /* of the journals */
	uint64_t began_ms, told_ms; /* when it began; when progress was last logged */
};

/* --- recover.c --- */
/* Says in the log, once a second, how far it is. */
void recover_tell(struct recovery *rc);

/* --- recover_past.c --- */
/* Takes the record into the past of its transfer. 0 or −ENOMEM. */
int recover_apply(struct recovery *rc, const struct record *r);
/* What is not marked synced is missing. 0 or −ENOMEM. */
int recover_keep_synced(struct past *p);
void recover_pasts_free(struct recovery *rc);

/* --- recover_restore.c --- */
/* Makes transfers of the pasts that are not over. 0 or −errno. */
int recover_restore(struct recovery *rc, struct reactor **reactors, uint32_t count);

/* --- recover_sweep.c --- */
/* Clears the staging directory of files that no open transfer has. 0 or −errno. */
int recover_sweep(struct recovery *rc, struct reactor **reactors, uint32_t count);
/* <data>/orphans, made if it is missing: a descriptor or −errno. */
int recover_open_orphans(const struct recovery *rc);
/* Writes into <data>/orphans/records what the journal has of a transfer whose file is gone. */
void recover_note_record(const struct recovery *rc, const struct transfer *t, uint64_t bytes);

#endif
