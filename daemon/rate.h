/*
 * limits.client_*_rate: how fast a client is read.
 *
 * A client over its rate is not read until it has waited for what it sent; nothing is dropped, and
 * its keep alive does not run meanwhile (conn.h, STOP_RATE). Bytes count as they are taken from the
 * socket, spliced ones too; messages are the packets that ask for something: PUBLISH, SUBSCRIBE,
 * UNSUBSCRIBE, PINGREQ.
 *
 * The debt is the client id's, not the connection's: one that comes back owes what it owed. That is
 * remembered in a table of fixed size; of two that share a place the one that owes for longer has
 * it, and the other begins anew.
 */
#ifndef SLUICE_RATE_H
#define SLUICE_RATE_H

#include <stdbool.h>
#include <stdint.h>
#include "conf.h"
#include "mqtt.h"
#include "pace.h"

struct rates;

/* Of a connection; zeros to begin with. */
struct rate {
	struct pace bytes, messages;
};

/* Without limits nothing is to be remembered. 0 or −ENOMEM. */
int rates_new(bool is_limited, struct rates **ret);
void rates_free(struct rates *rs); /* NULL is fine */
/* What the client (or the user, in user.h's) owes from its last connection. False: that is not known,
 * *ret is as it was. */
bool rates_recall(const struct rates *rs, struct mqtt_str name, struct rate *ret);
void rates_keep(struct rates *rs, struct mqtt_str name, const struct rate *r);

static inline void rate_take_bytes(struct rate *r, const struct conf *conf, uint32_t bytes, uint64_t now_ms)
{
	if (conf->limits.client_bytes_rate)
		pace_take(&r->bytes, conf->limits.client_bytes_rate, bytes, now_ms * 1000000);
}

static inline bool rate_counts_packet(uint8_t type)
{
	return type == MQTT_PUBLISH || type == MQTT_SUBSCRIBE || type == MQTT_UNSUBSCRIBE ||
		type == MQTT_PINGREQ;
}

static inline void rate_take_packet(struct rate *r, const struct conf *conf, uint8_t type, uint64_t now_ms)
{
	if (conf->limits.client_messages_rate && rate_counts_packet(type))
		pace_take(&r->messages, conf->limits.client_messages_rate, 1, now_ms * 1000000);
}

/* What may be taken in one go, so that it is not waited for much longer than a second. */
static inline uint32_t rate_bytes_max(const struct conf *conf, uint32_t bytes)
{
	uint64_t rate = conf->limits.client_bytes_rate;
	return rate && rate < bytes ? (uint32_t)rate : bytes;
}

static inline bool rate_is_over(const struct pace *p, uint64_t now_ms)
{
	return pace_wait_ns(p, now_ms * 1000000) > 0;
}

/* When both are within their rates again, with a little credit: to go on for a single packet would
 * cost more than it is worth. */
uint64_t rate_due_ms(const struct rate *r);
/* Is it time to say in the log that clients are held back? At most once a second. */
bool rates_may_log(struct rates *rs, uint64_t now_ms);

#endif
