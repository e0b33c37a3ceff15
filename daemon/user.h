/*
 * Users: what all connections, all open transfers and all exports of one user name have together, in
 * the whole daemon, and the limits on it: transfer.open_user_max, staged_user_max and
 * files_user_max, limits.user_*_rate.
 *
 * A user is the user name of CONNECT, taken as the client says it. A connection without one, or with
 * an empty one, belongs to no user: NULL, which all functions take, and which nothing is held
 * against.
 *
 * The client ids of a user belong to several reactors, so its account is shared by them. The table
 * is behind a lock, held for a few loads and stores when a connection or a transfer begins or ends;
 * what is counted is atomic, and who counts keeps a pointer: no segment takes the lock. An account
 * is there while a connection, an open transfer or a remembered export refers to it, be that found
 * to be gone or not; so mqtt.connections_max, transfer.open_max and transfer.replay_max bound their
 * number.
 *
 * Files: what is open, and the exports that are remembered and still there. Which are gone is found
 * out when the limit is reached, by whichever reactor has come to it, and for those of all reactors:
 * else the clients of one could be kept out by what the others had exported, though all of that was
 * taken away long ago. So the list of a user's exports is shared, too. Who looks marks one at a time,
 * and looks for that without the lock; others pass over it, and the next look begins where this one has
 * ended. Any number of reactors may look at once, each for others.
 *
 * Rates: whatever is taken moves the user's one point in time on (pace.h). A connection keeps where
 * that came to stand when it took something itself, and waits for this, not for all that is owed. So
 * the connections of a user wait in turn without there being a queue: each goes on when what was
 * taken up to its own last time is paid for, whatever others have taken since. One that begins waits
 * for all that is owed then. When the account goes, what is owed is remembered as in rate.h.
 */
#ifndef SLUICE_USER_H
#define SLUICE_USER_H

#include <stdint.h>
#include "conf.h"
#include "mqtt.h"
#include "rate.h"

struct looks;
struct user;
struct users; /* the daemon's */

/* 0 or −ENOMEM. */
int users_new(const struct conf *conf, struct users **ret);
/* Nobody looks at any of them any more. NULL is fine. */
void users_free(struct users *us);
/* How many there are. */
uint32_t users_count(struct users *us);

/* The account of a user name; one more refers to it. NULL: out of memory. */
struct user *user_enter(struct users *us, struct mqtt_str name);
struct user *user_ref(struct user *x);
void user_leave(struct user *x);
/* Valid as long as the caller refers to x, which is not NULL. */
struct mqtt_str user_name(const struct user *x);

/* --- open transfers --------------------------------------------------------------------------- */

/* Counts one more, with so many bytes. With transfer.files_user_max reached it looks for the user's
 * exports until there is room, and blocks for as long as that takes; looks NULL: without that. NULL,
 * or the key of the limit that stands against it. */
const char *user_reserve(struct user *x, uint64_t bytes, struct looks *looks);
/* More bytes of one that is counted. The same; and the reverse. */
const char *user_reserve_more(struct user *x, uint64_t bytes);
void user_release_more(struct user *x, uint64_t bytes);
/* Counts one that is there already, whatever the limits. */
void user_count(struct user *x, uint64_t bytes);
void user_release(struct user *x, uint64_t bytes);

/* --- exports ---------------------------------------------------------------------------------- */

/* An export that counts as a file; embedded in what refers to the user. Its members are user.c's. It
 * counts while it is in the list, or somebody looks for it. */
struct user_file {
	struct user_file *next, **pprev; /* pprev NULL: not in the list */
	struct user_file **looker;       /* where who looks for it has it; NULL: nobody does */
	const char *path;                /* relative to the export root */
};

/* A transfer that counts has been exported: from now on it is a file alone. The path stays valid until
 * user_forget. x is not NULL. */
void user_export(struct user *x, uint64_t bytes, struct user_file *f, const char *path);
/* Counts one that was exported before the start and is still there. x is not NULL. */
void user_keep(struct user *x, struct user_file *f, const char *path);
/* The export counts no more, if it still did. */
void user_forget(struct user *x, struct user_file *f);
/* Open ones and exports. */
uint64_t user_files_count(const struct user *x);

/* --- connections ------------------------------------------------------------------------------ */

/* One more of them, or one less. *ret: until when it waits. */
void user_connect(struct user *x, struct rate *ret);
void user_disconnect(struct user *x);
/* A connection takes something; `own` is what it keeps. */
void user_take_bytes(struct user *x, struct rate *own, uint32_t bytes, uint64_t now_ms);
void user_take_packet(struct user *x, struct rate *own, uint8_t type, uint64_t now_ms);
/* What a connection may take in one go, so that the turn comes to each of them about once in a
 * second. */
uint32_t user_bytes_max(const struct user *x, uint32_t bytes);

#endif
