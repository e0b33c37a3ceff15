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
	struct cover cover;
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
	uint32_t lost;              /* transfers that lost extents */
};

/* --- recover_past.c --- */
/* Takes the record into the past of its transfer. 0 or −ENOMEM. */
int recover_apply(struct recovery *rc, const struct record *r);
void recover_pasts_free(struct recovery *rc);

/* --- recover_restore.c --- */
/* Makes transfers of the pasts that are not over. 0 or −errno. */
int recover_restore(struct recovery *rc, struct reactor **reactors, uint32_t count);

/* --- recover_sweep.c --- */
/* Clears the staging directory of files that no open transfer has. 0 or −errno. */
int recover_sweep(struct recovery *rc, struct reactor **reactors, uint32_t count);

#endif
