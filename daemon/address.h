/*
 * mqtt.connections_address_max and connect_rate_address: how many connections each address has, and
 * how fast it makes them, in the whole daemon.
 *
 * Shared by all reactors, behind a lock that is held for a few loads and stores when a connection
 * begins or ends, and only where one of the limits is set. An address is in the table of the first
 * while it has a connection, so mqtt.connections_max bounds it. An IPv6 network of 64 bits counts as
 * one address: whoever has one has all of it.
 *
 * The rate is a point in time per address (pace.h), which what was refused does not move: who tries
 * too often gets in at its rate. The points are in a table of fixed size, by a hash that nobody
 * outside can choose. Of more addresses than share a set the one whose point lies furthest back gives
 * way, and begins anew, so nobody is refused for another's sake.
 */
#ifndef SLUICE_ADDRESS_H
#define SLUICE_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

enum { ADDRESS_BYTES = 16 };

struct address; /* of one that has connections */

/* One more connection. NULL: it has `max` already, or there is no memory. */
struct address *address_enter(const uint8_t bytes[ADDRESS_BYTES], uint32_t max);
/* One less. NULL is fine. */
void address_leave(struct address *a);
/* Addresses that have connections. */
uint32_t addresses_count(void);
/* May it make another connection now, at per_s > 0? True: that was taken. */
bool address_take_rate(const uint8_t bytes[ADDRESS_BYTES], uint32_t per_s, uint64_t now_ms);

#endif
