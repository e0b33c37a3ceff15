/*
 * Messages: one allocation with everything in it, shared by count between the queues of any
 * reactor.
 *
 * User properties are packed anew: the span that the decoder gives may have other properties
 * between them, and those are not the publisher's to forward.
 */
#include "broker_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Forwarded unaltered [MQTT-3.3.2-4, -15 to -18, -20], and the expiry, which is counted down. */
static const uint32_t forwarded = 1u << MQTT_P_PAYLOAD_FORMAT | 1u << MQTT_P_MESSAGE_EXPIRY |
	1u << MQTT_P_CONTENT_TYPE | 1u << MQTT_P_RESPONSE_TOPIC | 1u << MQTT_P_CORRELATION_DATA |
	1u << MQTT_P_USER_PROPERTY;

enum { USER_PROPERTY_OVERHEAD = 5 }; /* its identifier and two lengths */

static uint64_t user_properties_bytes(const struct mqtt_str *span)
{
	struct mqtt_str key, value;
	uint64_t bytes = 0;
	uint32_t cursor = 0;
	while (mqtt_user_property_next(span, &cursor, &key, &value))
		bytes += USER_PROPERTY_OVERHEAD + (uint64_t)key.bytes + value.bytes;
	return bytes;
}

static char *put_bytes(char *at, const void *from, size_t bytes)
{
	if (bytes > 0)
		memcpy(at, from, bytes);
	return at + bytes;
}

static char *put_length_and_bytes(char *at, struct mqtt_str s)
{
	*at++ = (char)(s.bytes >> 8);
	*at++ = (char)s.bytes;
	return put_bytes(at, s.s, s.bytes);
}

/* Copies *s to `at` and lets it point there; an absent one stays absent. */
static char *move_str(char *at, struct mqtt_str *s)
{
	if (s->s == NULL)
		return at;
	char *end = put_bytes(at, s->s, s->bytes);
	s->s = at;
	return end;
}

static char *move_user_properties(char *at, struct mqtt_str *span)
{
	struct mqtt_str key, value, from = *span;
	uint32_t cursor = 0;
	span->s = at;
	while (mqtt_user_property_next(&from, &cursor, &key, &value)) {
		*at++ = 0x26;
		at = put_length_and_bytes(at, key);
		at = put_length_and_bytes(at, value);
	}
	span->bytes = (uint32_t)(at - span->s);
	return at;
}

/* What of the publisher's properties is forwarded; strings are still borrowed. */
static struct mqtt_props props_forwarded(const struct mqtt_props *from)
{
	struct mqtt_props p = { .has = from->has & forwarded };
	if (MQTT_HAS(&p, MQTT_P_PAYLOAD_FORMAT))
		p.payload_format = from->payload_format;
	if (MQTT_HAS(&p, MQTT_P_MESSAGE_EXPIRY))
		p.message_expiry = from->message_expiry;
	if (MQTT_HAS(&p, MQTT_P_CONTENT_TYPE))
		p.content_type = from->content_type;
	if (MQTT_HAS(&p, MQTT_P_RESPONSE_TOPIC))
		p.response_topic = from->response_topic;
	if (MQTT_HAS(&p, MQTT_P_CORRELATION_DATA))
		p.correlation_data = from->correlation_data;
	if (MQTT_HAS(&p, MQTT_P_USER_PROPERTY))
		p.user_properties = from->user_properties;
	return p;
}

struct message *message_new(const struct mqtt_publish *publish, const void *payload,
	uint64_t publisher, uint64_t now_ms)
{
	struct mqtt_props props = props_forwarded(&publish->props);
	bool has_user = MQTT_HAS(&props, MQTT_P_USER_PROPERTY);
	uint64_t bytes = sizeof(struct message) + publish->topic.bytes + publish->payload_bytes +
		props.content_type.bytes + props.response_topic.bytes +
		props.correlation_data.bytes +
		(has_user ? user_properties_bytes(&props.user_properties) : 0);
	struct message *m = malloc(bytes);
	if (m == NULL)
		return NULL;
	atomic_fetch_add_explicit(&broker_sums.held_bytes, bytes, memory_order_relaxed);
	*m = (struct message){
		.refs = 1,
		.qos = publish->qos,
		.retain = publish->retain,
		.publisher = publisher,
		.expires_ms = UINT64_MAX,
		.topic = publish->topic,
		.payload = { payload, publish->payload_bytes },
		.props = props,
		.bytes = bytes,
	};
	if (MQTT_HAS(&props, MQTT_P_MESSAGE_EXPIRY))
		m->expires_ms = now_ms + (uint64_t)props.message_expiry * 1000;
	char *at = move_str(m->data, &m->topic);
	at = move_str(at, &m->props.content_type);
	at = move_str(at, &m->props.response_topic);
	at = move_str(at, &m->props.correlation_data);
	if (has_user)
		at = move_user_properties(at, &m->props.user_properties);
	at = move_str(at, &m->payload);
	assert(at <= (char *)m + bytes);
	return m;
}

void message_ref(struct message *m)
{
	uint32_t before = atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
	assert(before > 0);
}

void message_unref(struct message *m)
{
	if (m == NULL)
		return;
	/* The one that frees must see every other's last read as done, so release and acquire. */
	uint32_t before = atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel);
	assert(before > 0);
	if (before > 1)
		return;
	atomic_fetch_sub_explicit(&broker_sums.held_bytes, m->bytes, memory_order_relaxed);
	free(m);
}
