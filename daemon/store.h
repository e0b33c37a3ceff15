/*
 * The data directory: <data>/staging, <data>/journal and the export root, opened and locked once;
 * and the space in it.
 *
 * One daemon per directory: both directories are locked themselves (flock), so no lock file lies
 * among the exports; held until the process ends.
 */
#ifndef SLUICE_STORE_H
#define SLUICE_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "conf.h"
#include "pace.h"

struct users;

struct store {
	const struct conf *conf;
	struct users *users;                /* user.h */
	int data_fd, staging_fd, journal_fd, export_fd;
	int set_fd;                         /* in journal/: the files written now (journal_set.h); −1 before recovery */
	char *export_path;
	uint64_t epoch;                     /* 1 on one machine: the lock is the fence */
	uint32_t group;                     /* of exported files; UINT32_MAX: unchanged */
	_Atomic uint64_t next_tid;
	_Atomic uint64_t staged_bytes;      /* reserved by open transfers */
	_Atomic uint64_t open_count;        /* open transfers */
	_Atomic uint64_t unallocated_bytes; /* of staged_bytes, what fallocate has not yet taken from the disk */
	_Atomic uint64_t backlog_bytes;     /* received, contiguous, not yet hashed: all transfers */
	_Atomic uint64_t scratch_bytes;     /* in scratch files */
	_Atomic uint64_t space_at_ms;       /* when free_bytes was read */
	_Atomic uint64_t free_bytes, free_inodes;
	_Atomic uint64_t low_at_ms;         /* when is_low was found out */
	_Atomic bool is_low;
};

/* Makes what is missing and locks. −errno and one sentence with the cure in ret_error. */
int store_open(const struct conf *conf, struct store **ret, char *ret_error, size_t error_max);
void store_close(struct store *s); /* NULL is fine */

/* Reserves room for a transfer of `bytes`, which may be 0: not known. 0; −ENOSPC (the disk), −EDQUOT
 * (transfer.staged_max or open_max). */
int store_reserve(struct store *s, uint64_t bytes, uint64_t now_ms);
/* More for a transfer that is open already, down to transfer.disk_free_stop. Errors as above. */
int store_reserve_more(struct store *s, uint64_t bytes, uint64_t now_ms);
/* Adds n unless the total would pass max. Reactors admit at the same time: the last bytes go to one of
 * them. */
bool store_add_within(_Atomic uint64_t *total, uint64_t n, uint64_t max);
/* Is less space free than transfer.disk_free_stop? */
bool store_is_low(struct store *s, uint64_t now_ms);
void store_release(struct store *s, uint64_t bytes);
/* `bytes` of the reservation are now blocks on the disk. */
void store_allocated(struct store *s, uint64_t bytes);

/* What a limit on files is reached with may have been taken away by its consumer, so its exports are
 * looked for. Whoever is over its limit can ask without end, and each look is a system call: of those
 * that find the file still there one account has 64 in one go, and 1024 a second. Those that find it
 * gone are free, since each export is found gone but once. First the oldest are looked for, which a
 * consumer takes first; when one of them is there, it goes on where the last time ended. All that is
 * done for one command ends after 2 ms, client's looks and user's together. */
struct looks {
	const struct store *store;
	uint64_t now_ms;
	/* Zeros to begin with. */
	uint64_t until_ns; /* of sys_mono_ns */
	uint32_t left;     /* that may find the file still there */
	bool is_oldest_there;
};
/* Those of an account with so many exports: more would look for some twice. */
void looks_begin(struct looks *l, uint32_t exports);
/* May the account, whose pace this is, have one more? */
bool looks_may_go_on(const struct looks *l, const struct pace *p);
/* One has found the file still there. */
void looks_charge(struct looks *l, struct pace *p);
/* Is there nothing any more under this path, relative to the export root? False, too: not known. A
 * blocking call. */
bool store_export_is_gone(const struct store *s, const char *path);

#endif
