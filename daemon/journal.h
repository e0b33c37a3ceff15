/*
 * The journal of one reactor: what was acknowledged survives the process.
 *
 * Records are appended to memory during a turn; journal_flush, once per turn, hands the batch to
 * the kernel. While one batch is being written the next one fills: group commit. Waiters are called
 * when everything appended before they were registered is written (JOURNAL_WRITTEN) or also synced
 * to the device (JOURNAL_SYNCED).
 *
 * A file that is full is rotated: the owner writes the state of all live transfers (a checkpoint)
 * into a new file, which is made durable before the old one goes. The batch in memory at that
 * moment is part of that state, so it is dropped and its waiters wait for the new file instead.
 *
 * A journal that can't be written or synced is broken for good: every waiter, also later ones, gets
 * the error, so nothing is acknowledged any more, and journal_error says why. One that only has no
 * room for its next file goes on when there is; until then it is the same.
 */
#ifndef SLUICE_JOURNAL_H
#define SLUICE_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>
#include "record.h"

struct journal;
struct reactor;
struct store;

enum journal_level { JOURNAL_WRITTEN, JOURNAL_SYNCED };

struct journal_waiter {
	struct journal_waiter *next;
	void (*done)(struct journal_waiter *w, int err); /* 0 or −errno; the waiter is free again */
	bool waiting;
};

/* Appends the state of all live transfers by calling put for each record. put(put_arg, NULL): there was no memory
 * to make one of them; then the checkpoint is none. */
typedef void journal_checkpoint_fn(void *arg, void (*put)(void *put_arg, const struct record *r), void *put_arg);

/* Starts the journal of reactor rt with a new file that holds the checkpoint, synced: blocking, at
 * start-up. file_seq: greater than that of any file there. 0 or −errno. */
int journal_new(struct reactor *rt, struct store *store, uint64_t file_seq, journal_checkpoint_fn *checkpoint,
	void *arg, struct journal **ret);
void journal_free(struct journal *j); /* NULL is fine; idle */
/* Preallocates the next file, so that a rotation needs no free space; without room for it, says so
 * in the log. Blocking, at start-up. */
void journal_reserve_next(struct journal *j);

void journal_append(struct journal *j, const struct record *r);
void journal_wait(struct journal *j, struct journal_waiter *w, enum journal_level level);
/* Once per turn: hands over what has been appended, also by the waiters that it calls. */
void journal_flush(struct journal *j);
/* Is anything appended, being written or waited for? */
bool journal_is_idle(const struct journal *j);
int journal_error(const struct journal *j);
/* Is its error only that there is no room for the next file? Then it goes on once there is. */
bool journal_waits_for_room(const struct journal *j);

/* The name of a journal file in store->set_fd: r<reactor>-<seq>.log. */
enum { JOURNAL_NAME_MAX = 48 };
void journal_file_name(uint32_t reactor_idx, uint64_t file_seq, char ret[JOURNAL_NAME_MAX]);

#endif
