/*
 * The simulated disk: a tree of directories and files, each of which is there twice: as the page
 * cache has it, and as it lies on the medium. A crash of the machine keeps the second, and of what
 * differs whatever chance will have.
 *
 * Pages are of 4 KiB. One that is dirty is kept, dropped, or torn at a sector. Changes of
 * directories wait in a list, in their order. fsync of a directory makes those durable that touch
 * it, with whatever they are built on; on a disk like ext4's each sync makes all of them so. At a
 * crash a journaling file system keeps a beginning of the list; a strict one any part of it that
 * makes sense. A rename happens as a whole.
 *
 * A sync that fails does as Linux does: the pages are clean afterwards, and not on the medium.
 */
#ifndef SLUICE_SIM_DISK_H
#define SLUICE_SIM_DISK_H

#include "sim.h"

enum { DISK_PAGE = 4096 };

struct inode;

struct disk_conf {
	uint64_t bytes;          /* capacity */
	bool is_strict;          /* POSIX promises no more; else like ext4 */
	bool no_fallocate;
	bool spares_journal;     /* faults meet other files only */
	uint32_t dirty_chance;   /* in 10000: much is dirty when asked */
	/* Faults, in 10000: */
	uint32_t eio_write, eio_read, eio_sync, enospc;
	uint32_t short_write;    /* no fault: of any file but a journal, always */
};

struct disk {
	struct disk_conf conf;
	bool faults;             /* are at present allowed */
	bool dying;              /* a write may end anywhere */
	uint64_t taken_bytes;    /* by others */
	uint64_t used_pages;
	uint32_t boot;           /* counts crashes of the machine */
	uint32_t sync_failures;
	uint64_t sync_failed_ns; /* the last one */
	uint32_t syncfs_failures;  /* each loses bytes of which a file's own sync has not told yet */
	uint32_t faults_count;
	struct inode *root;
};
extern struct disk disk;

void disk_reset(const struct disk_conf *conf);
void disk_fini(void);
/* The machine loses power and comes back. */
void disk_crash(void);

/* Walking: path relative to dir. NULL: *ret_err. */
struct inode *disk_find(struct inode *dir, const char *path, int *ret_err);
/* The directory that path's last component lies in, and that. */
struct inode *disk_parent(struct inode *dir, const char *path, const char **ret_name, int *ret_err);
struct inode *disk_create(struct inode *dir, const char *name, bool is_dir);
struct inode *disk_create_unnamed(void);
int disk_unlink(struct inode *dir, const char *name, bool is_dir);
int disk_rename(struct inode *from, const char *from_name, struct inode *to, const char *to_name,
	bool may_replace);
/* syncfs: −EIO when any file failed, whose own next sync fails then, too. */
int disk_sync_everything(void);
void disk_make_durable(struct inode *dir);  /* somebody else's sync, which never fails */
/* Calls fn for each name; the directory may change meanwhile. */
int disk_list(struct inode *dir, int (*fn)(void *arg, const char *name), void *arg);

bool inode_is_dir(const struct inode *i);
uint64_t inode_size(const struct inode *i);
uint64_t inode_number(const struct inode *i);
uint64_t inode_blocks_bytes(const struct inode *i);
int64_t inode_mtime_ms(const struct inode *i);
uint32_t inode_mode(const struct inode *i);
void inode_set_mode(struct inode *i, uint32_t mode);
void inode_open(struct inode *i);
void inode_close(struct inode *i);
bool inode_lock(struct inode *i);       /* false: held */
void inode_unlock(struct inode *i);
/* Bytes or −errno, may be short. */
int64_t inode_read(struct inode *i, void *buf, uint64_t len, uint64_t off);
int64_t inode_write(struct inode *i, const void *buf, uint64_t len, uint64_t off);
int inode_truncate(struct inode *i, uint64_t size);
int inode_allocate(struct inode *i, uint64_t off, uint64_t len);
int inode_sync(struct inode *i);
/* Would writing this replace other bytes than zeros? Looks at a few. */
bool inode_replaces(const struct inode *i, const void *buf, uint64_t len, uint64_t off);
/* As it is in the page cache, without faults: for the checker. */
void inode_peek(const struct inode *i, void *buf, uint64_t len, uint64_t off);
/* The checker's mark: nobody may change it any more. */
void inode_seal(struct inode *i, bool sealed);
uint64_t disk_free_bytes(void);

#endif
