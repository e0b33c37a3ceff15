/*
 * What sim_disk.c and sim_file.c share.
 */
#ifndef SLUICE_SIM_INODE_H
#define SLUICE_SIM_INODE_H

#include "sim_disk.h"

struct page {
	uint8_t *cached, *durable;     /* NULL: zeros */
	bool dirty;
	bool allocated;                /* has a block */
};

struct entry {
	const char *name;
	struct inode *inode;
};

struct entries {
	struct entry *all;
	uint32_t count, max;
};

struct inode {
	struct inode *next;
	uint64_t number;
	bool is_dir, is_journal, locked, sealed;
	bool lost;                     /* pages, of which its next sync tells */
	uint32_t links, opens, mode;
	int64_t mtime_ms;
	/* a directory */
	struct entries cached, durable;
	/* a file */
	struct page *pages;
	uint32_t pages_count;
	uint64_t size, durable_size;
};

void inode_reap(struct inode *i);      /* gives its blocks back, if nobody has it any more */
void inode_crash(struct inode *i);
void inode_free(struct inode *i);
uint64_t inode_pages_allocated(const struct inode *i);
/* Changes that an fsync of this directory, or of a file where that is the file system's way, makes
 * durable. */
void disk_commit_of(const struct inode *dir);

#endif
