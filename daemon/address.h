/*
 * mqtt.connections_address_max: how many connections each address has, in the whole daemon.
 *
 * Shared by all reactors, behind a lock that is held for a few loads and stores when a connection
 * begins or ends, and only where the limit is set. An address is in the table while it has a
 * connection, so mqtt.connections_max bounds it. An IPv6 network of 64 bits counts as one address:
 * whoever has one has all of it.
 */
#ifndef SLUICE_ADDRESS_H
#define SLUICE_ADDRESS_H

#include <stdint.h>

enum { ADDRESS_BYTES = 16 };

struct address; /* of one that has connections */

/* One more connection. NULL: it has `max` already, or there is no memory. */
struct address *address_enter(const uint8_t bytes[ADDRESS_BYTES], uint32_t max);
/* One less. NULL is fine. */
void address_leave(struct address *a);
/* Addresses that have connections. */
uint32_t addresses_count(void);

#endif
