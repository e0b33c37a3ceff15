/*
 * Users: what all connections and all open transfers of one user name have together, in the whole
 * daemon, and the limits on it: transfer.open_user_max and staged_user_max, limits.user_*_rate.
 *
 * A user is the user name of CONNECT, taken as the client says it. A connection without one, or with
 * an empty one, belongs to no user: NULL, which all functions take, and which nothing is held
 * against.
 *
 * The client ids of a user belong to several reactors, so its account is shared by them. The table
 * is behind a lock, held for a few loads and stores when a connection or a transfer begins or ends;
 * what is counted is atomic, and who counts keeps a pointer: no segment takes the lock. An account
 * is there while a connection or an open transfer refers to it, so mqtt.connections_max and
 * transfer.open_max bound their number.
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

/* Counts one more, with so many bytes. NULL, or the key of the limit that stands against it. */
const char *user_reserve(struct user *x, uint64_t bytes);
/* More bytes of one that is counted. The same; and the reverse. */
const char *user_reserve_more(struct user *x, uint64_t bytes);
void user_release_more(struct user *x, uint64_t bytes);
/* Counts one that is there already, whatever the limits. */
void user_count(struct user *x, uint64_t bytes);
void user_release(struct user *x, uint64_t bytes);

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
