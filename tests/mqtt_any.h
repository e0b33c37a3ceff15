/*
 * Any MQTT packet as one value: decode it, encode it again, compare two. For the codec's unit tests
 * and its fuzz entry, which both say: what decodes, encodes; and what was encoded decodes to the
 * same.
 */
#ifndef SLUICE_MQTT_ANY_H
#define SLUICE_MQTT_ANY_H

#include "mqtt.h"

#include <stdlib.h>
#include <string.h>

struct any {
	uint8_t version, type;
	union {
		struct mqtt_connect connect;
		struct mqtt_connack connack;
		struct mqtt_publish publish; /* without its payload */
		struct mqtt_ack ack;
		struct mqtt_subscribe subscribe;
		struct mqtt_suback suback;
		struct mqtt_disconnect disconnect;
	};
};

/* The body of any packet but PUBLISH. CONNECT says its version itself. */
static inline int any_decode_body(const uint8_t *body, uint32_t bytes, struct any *ret)
{
	switch ((enum mqtt_type)ret->type) {
	case MQTT_CONNECT: {
		int rc = mqtt_decode_connect(body, bytes, &ret->connect);

		ret->version = ret->connect.version;
		return rc;
	}
	case MQTT_CONNACK:
		return mqtt_decode_connack(body, bytes, ret->version, &ret->connack);
	case MQTT_PUBACK:
	case MQTT_PUBREC:
	case MQTT_PUBREL:
	case MQTT_PUBCOMP:
		return mqtt_decode_ack(body, bytes, ret->version, ret->type, &ret->ack);
	case MQTT_SUBSCRIBE:
	case MQTT_UNSUBSCRIBE:
		return mqtt_decode_subscribe(body, bytes, ret->version, ret->type, &ret->subscribe);
	case MQTT_SUBACK:
	case MQTT_UNSUBACK:
		return mqtt_decode_suback(body, bytes, ret->version, ret->type, &ret->suback);
	case MQTT_DISCONNECT:
	case MQTT_AUTH:
		return mqtt_decode_disconnect(
			body, bytes, ret->version, ret->type, &ret->disconnect);
	case MQTT_PINGREQ:
	case MQTT_PINGRESP:
		return bytes == 0 ? 0 : -MQTT_RC_MALFORMED;
	case MQTT_PUBLISH:
		break;
	}
	abort();
}

/* 0 and the bytes of the packet (of a PUBLISH: up to its payload), MQTT_MORE, or a negated reason
 * code. */
static inline int any_decode(const uint8_t *buf, size_t bytes, uint8_t version, struct any *ret,
	uint32_t *ret_used)
{
	uint8_t flags;
	uint32_t remaining, header_bytes;
	int rc = mqtt_decode_fixed(buf, bytes, &ret->type, &flags, &remaining, &header_bytes);

	ret->version = version;
	if (rc != 0)
		return rc;
	if (ret->type == MQTT_PUBLISH)
		return mqtt_decode_publish_head(buf, bytes, version, &ret->publish, ret_used);
	if (bytes - header_bytes < remaining)
		return MQTT_MORE;
	*ret_used = header_bytes + remaining;
	return any_decode_body(buf + header_bytes, remaining, ret);
}

static inline size_t any_encode_subscribe(uint8_t *buf, size_t max, const struct any *a)
{
	const struct mqtt_subscribe *s = &a->subscribe;
	struct mqtt_sub *subs = malloc(s->count * sizeof(*subs));
	uint32_t cursor = 0;
	size_t count = 0, bytes;

	while (mqtt_subscribe_next(s, &cursor, &subs[count]))
		if (++count == s->count)
			break;
	bytes = s->is_unsubscribe ? mqtt_encode_unsubscribe(buf, max, a->version, s->packet_id,
					    &s->props, subs, count)
				  : mqtt_encode_subscribe(buf, max, a->version, s->packet_id,
					    &s->props, subs, count);
	free(subs);
	return bytes;
}

static inline size_t any_encode(uint8_t *buf, size_t max, const struct any *a)
{
	switch ((enum mqtt_type)a->type) {
	case MQTT_CONNECT:
		return mqtt_encode_connect(buf, max, &a->connect);
	case MQTT_CONNACK:
		return mqtt_encode_connack(buf, max, a->version, &a->connack);
	case MQTT_PUBLISH:
		return mqtt_encode_publish_head(buf, max, a->version, &a->publish);
	case MQTT_PUBACK:
	case MQTT_PUBREC:
	case MQTT_PUBREL:
	case MQTT_PUBCOMP:
		return mqtt_encode_ack(buf, max, a->version, a->type, &a->ack);
	case MQTT_SUBSCRIBE:
	case MQTT_UNSUBSCRIBE:
		return any_encode_subscribe(buf, max, a);
	case MQTT_SUBACK:
	case MQTT_UNSUBACK:
		return mqtt_encode_suback(buf, max, a->version, a->type, &a->suback);
	case MQTT_PINGREQ:
	case MQTT_PINGRESP:
		return mqtt_encode_ping(buf, max, a->type);
	case MQTT_DISCONNECT:
	case MQTT_AUTH:
		return mqtt_encode_disconnect(buf, max, a->version, a->type, &a->disconnect);
	}
	abort();
}

/* An absent string equals only an absent one, so that it can be told from an empty one. */
static inline bool str_equal(const struct mqtt_str *a, const struct mqtt_str *b)
{
	if (!a->s || !b->s)
		return a->s == b->s && a->bytes == b->bytes;
	return a->bytes == b->bytes && memcmp(a->s, b->s, a->bytes) == 0;
}

static inline bool user_properties_equal(const struct mqtt_str *a, const struct mqtt_str *b)
{
	struct mqtt_str a_key, a_value, b_key, b_value;
	uint32_t a_cursor = 0, b_cursor = 0;

	for (;;) {
		bool more = mqtt_user_property_next(a, &a_cursor, &a_key, &a_value);

		if (mqtt_user_property_next(b, &b_cursor, &b_key, &b_value) != more)
			return false;
		if (!more)
			return true;
		if (!str_equal(&a_key, &b_key) || !str_equal(&a_value, &b_value))
			return false;
	}
}

static inline bool props_equal(const struct mqtt_props *a, const struct mqtt_props *b)
{
	/* The numbers and flags lie before the strings, and have no holes between them. */
	return memcmp(a, b, offsetof(struct mqtt_props, content_type)) == 0 &&
	       str_equal(&a->content_type, &b->content_type) &&
	       str_equal(&a->response_topic, &b->response_topic) &&
	       str_equal(&a->correlation_data, &b->correlation_data) &&
	       str_equal(&a->assigned_clientid, &b->assigned_clientid) &&
	       str_equal(&a->auth_method, &b->auth_method) &&
	       str_equal(&a->auth_data, &b->auth_data) &&
	       str_equal(&a->response_info, &b->response_info) &&
	       str_equal(&a->server_reference, &b->server_reference) &&
	       str_equal(&a->reason_string, &b->reason_string) &&
	       user_properties_equal(&a->user_properties, &b->user_properties) &&
	       a->subids_count == b->subids_count &&
	       memcmp(a->subids, b->subids, a->subids_count * sizeof(a->subids[0])) == 0;
}

static inline bool connect_equal(const struct mqtt_connect *a, const struct mqtt_connect *b)
{
	return a->version == b->version && a->clean_start == b->clean_start &&
	       a->keep_alive_s == b->keep_alive_s && props_equal(&a->props, &b->props) &&
	       str_equal(&a->clientid, &b->clientid) && a->has_will == b->has_will &&
	       a->will_retain == b->will_retain && a->will_qos == b->will_qos &&
	       props_equal(&a->will_props, &b->will_props) &&
	       str_equal(&a->will_topic, &b->will_topic) &&
	       str_equal(&a->will_payload, &b->will_payload) &&
	       a->has_username == b->has_username && a->has_password == b->has_password &&
	       str_equal(&a->username, &b->username) && str_equal(&a->password, &b->password);
}

static inline bool publish_equal(const struct mqtt_publish *a, const struct mqtt_publish *b)
{
	return a->dup == b->dup && a->retain == b->retain && a->qos == b->qos &&
	       a->packet_id == b->packet_id && str_equal(&a->topic, &b->topic) &&
	       props_equal(&a->props, &b->props) && a->payload_bytes == b->payload_bytes;
}

static inline bool subscribe_equal(const struct mqtt_subscribe *a, const struct mqtt_subscribe *b)
{
	return a->packet_id == b->packet_id && props_equal(&a->props, &b->props) &&
	       a->count == b->count && a->is_unsubscribe == b->is_unsubscribe &&
	       a->entries_bytes == b->entries_bytes &&
	       memcmp(a->entries, b->entries, a->entries_bytes) == 0;
}

static inline bool suback_equal(const struct mqtt_suback *a, const struct mqtt_suback *b)
{
	return a->packet_id == b->packet_id && props_equal(&a->props, &b->props) &&
	       a->codes_count == b->codes_count &&
	       (a->codes_count == 0 || memcmp(a->codes, b->codes, a->codes_count) == 0);
}

static inline bool any_equal(const struct any *a, const struct any *b)
{
	if (a->version != b->version || a->type != b->type)
		return false;
	switch ((enum mqtt_type)a->type) {
	case MQTT_CONNECT:
		return connect_equal(&a->connect, &b->connect);
	case MQTT_CONNACK:
		return a->connack.session_present == b->connack.session_present &&
		       a->connack.code == b->connack.code &&
		       props_equal(&a->connack.props, &b->connack.props);
	case MQTT_PUBLISH:
		return publish_equal(&a->publish, &b->publish);
	case MQTT_PUBACK:
	case MQTT_PUBREC:
	case MQTT_PUBREL:
	case MQTT_PUBCOMP:
		return a->ack.packet_id == b->ack.packet_id && a->ack.reason == b->ack.reason &&
		       props_equal(&a->ack.props, &b->ack.props);
	case MQTT_SUBSCRIBE:
	case MQTT_UNSUBSCRIBE:
		return subscribe_equal(&a->subscribe, &b->subscribe);
	case MQTT_SUBACK:
	case MQTT_UNSUBACK:
		return suback_equal(&a->suback, &b->suback);
	case MQTT_PINGREQ:
	case MQTT_PINGRESP:
		return true;
	case MQTT_DISCONNECT:
	case MQTT_AUTH:
		return a->disconnect.reason == b->disconnect.reason &&
		       props_equal(&a->disconnect.props, &b->disconnect.props);
	}
	abort();
}

#endif
