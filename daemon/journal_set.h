/*
 * The journal files of one run of the daemon, one per reactor, in a directory of their own:
 * <data>/journal/set-<number>/.
 *
 * A start reads the newest set and writes the state into a new one, perhaps for another number of
 * reactors. That is made as <data>/journal/new/ and gets its number in one rename, when all its
 * files are durable: whenever the machine dies, the newest set holds everything. Whatever else lies
 * there is the rest of a start that was cut short, and is wiped.
 *
 * With the files lies the identity of the page cache under which they are written
 * (sys_cache_identity), so it changes together with them: what a set says was written without a
 * sync, is there while the identity is the same. It is deleted when the disk has lost bytes and the journal
 * may not be able to say which.
 */
#ifndef SLUICE_JOURNAL_SET_H
#define SLUICE_JOURNAL_SET_H

#include <stdbool.h>
#include <stdint.h>
#include "store.h"

struct journal_set {
	uint64_t number;    /* 0: there is none yet */
	int fd;             /* its directory; −1: there is none */
	bool cache_alive;   /* the page cache is still the one under which it was written */
};

/* The newest set. 0 or −errno. */
int journal_set_open(const struct store *s, struct journal_set *ret);
void journal_set_close(struct journal_set *set); /* idempotent */
/* Moves a file that can't be read out of the set, so that it stays when the set goes. Only when the
 * set is not the newest any more: what could be read of the file counts until then. */
void journal_set_aside(const struct store *s, const struct journal_set *set, const char *name, int err);

/* Makes the directory for the set that follows, s->set_fd, for journal_new to put its files there.
 * 0 or −errno. */
int journal_set_begin(struct store *s);
/* All files are there: it is the newest set from now on. 0 or −errno. */
int journal_set_commit(struct store *s, const struct journal_set *old);
/* From now on the set is taken for one of another page cache, whatever the next start finds. 0 or −errno. */
int journal_set_distrust(struct store *s);
/* After that: the old one goes, and what others there still are. */
void journal_set_wipe_older(const struct store *s, const struct journal_set *old);

#endif
