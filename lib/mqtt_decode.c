/*
 * Decoding of all packets but CONNECT, which mqtt_connect.c has.
 *
 * Each decoder walks the packet once with a cursor whose error is sticky: first all fields are
 * taken, then "was it all there?" is asked once, then their values are judged. What is cut short or
 * has bytes left over is a malformed packet; what is whole but says something that the protocol
 * forbids is mostly a protocol error. The header lists which is which.
 */
#include "mqtt_props.h"
#include "topic.h"
#include "utf8.h"

/* The flags that a type must have in its fixed header [MQTT-2.1.3-1]. */
static const uint8_t fixed_flags[16] = {
	[MQTT_PUBREL] = 2, [MQTT_SUBSCRIBE] = 2, [MQTT_UNSUBSCRIBE] = 2,
};

static bool first_byte_ok(uint8_t type, uint8_t flags)
{
	if (type == MQTT_PUBLISH) {
		uint8_t qos = flags >> 1 & 3;

		return qos != 3 && (qos != 0 || !(flags & 8)); /* [MQTT-3.3.1-4], [MQTT-3.3.1-2] */
	}
	return type != 0 && flags == fixed_flags[type];
}

int mqtt_decode_fixed(const uint8_t *buf, size_t buf_bytes, uint8_t *ret_type, uint8_t *ret_flags,
	uint32_t *ret_remaining, uint32_t *ret_header_bytes)
{
	uint32_t remaining = 0;

	if (buf_bytes == 0)
		return MQTT_MORE;
	if (!first_byte_ok(buf[0] >> 4, buf[0] & 0x0f))
		return -MQTT_RC_MALFORMED;
	for (uint32_t i = 1; i < MQTT_FIXED_HEADER_MAX; i++) {
		if (i == buf_bytes)
			return MQTT_MORE;
		remaining |= (uint32_t)(buf[i] & 0x7f) << 7 * (i - 1);
		if (!(buf[i] & 0x80)) {
			*ret_type = buf[0] >> 4;
			*ret_flags = buf[0] & 0x0f;
			*ret_remaining = remaining;
			*ret_header_bytes = i + 1;
			return 0;
		}
	}
	return -MQTT_RC_MALFORMED;
}

/* The topic of a PUBLISH, when the whole head is there. An empty one stands for its alias in v5. */
static int check_publish_topic(const struct mqtt_publish *p, uint8_t version)
{
	if (!utf8_mqtt_ok(p->topic.s, p->topic.bytes))
		return -MQTT_RC_MALFORMED;
	if (topic_has_wildcard(p->topic.s, p->topic.bytes))
		return -MQTT_RC_TOPIC_NAME_INVALID;
	if (p->topic.bytes > 0 || MQTT_HAS(&p->props, MQTT_P_TOPIC_ALIAS))
		return 0;
	return version >= MQTT_V5 ? -MQTT_RC_PROTOCOL_ERROR : -MQTT_RC_TOPIC_NAME_INVALID;
}

int mqtt_decode_publish_head(const uint8_t *buf, size_t buf_bytes, uint8_t version,
	struct mqtt_publish *ret, uint32_t *ret_head_bytes)
{
	uint8_t type, flags;
	uint32_t remaining, header_bytes, props_bytes = 0;
	const uint8_t *props = NULL;
	int rc = mqtt_decode_fixed(buf, buf_bytes, &type, &flags, &remaining, &header_bytes);

	if (rc != 0) {
		if (rc == MQTT_MORE)
			*ret_head_bytes = buf_bytes < 2 ? 2 : (uint32_t)buf_bytes + 1;
		return rc;
	}
	if (type != MQTT_PUBLISH)
		return -MQTT_RC_MALFORMED;

	/* The cursor ends where the packet does or where the buffer does: which of the two a failed
	 * read ran into tells a packet that contradicts itself from one that is still arriving. */
	size_t packet_bytes = header_bytes + (size_t)remaining;
	size_t seen_bytes = buf_bytes < packet_bytes ? buf_bytes : packet_bytes;
	struct wire_reader r = wire_reader_make(buf + header_bytes, seen_bytes - header_bytes);

	ret->dup = flags >> 3 & 1;
	ret->qos = flags >> 1 & 3;
	ret->retain = flags & 1;
	ret->topic.s = (const char *)wire_read_span(&r, &ret->topic.bytes);
	ret->packet_id = ret->qos > 0 ? wire_read_u16(&r) : 0;
	if (version >= MQTT_V5) {
		props_bytes = wire_read_varint(&r);
		props = wire_read_bytes(&r, props_bytes);
	}
	if (wire_read_failed(&r)) {
		if (r.missing_bytes > packet_bytes - seen_bytes) /* WIRE_BAD is more than any */
			return -MQTT_RC_MALFORMED;
		*ret_head_bytes = (uint32_t)(seen_bytes + r.missing_bytes);
		return MQTT_MORE;
	}
	if (ret->qos > 0 && ret->packet_id == 0) /* [MQTT-2.2.1-3] */
		return -MQTT_RC_PROTOCOL_ERROR;
	if (props_bytes > 0) {
		rc = mqtt_props_parse(props, props_bytes, MQTT_IN(MQTT_PUBLISH), &ret->props);
		if (rc < 0)
			return rc;
	} else {
		mqtt_props_clear(&ret->props);
	}
	rc = check_publish_topic(ret, version);
	if (rc < 0)
		return rc;
	ret->payload_bytes = (uint32_t)wire_read_left(&r) + (uint32_t)(packet_bytes - seen_bytes);
	*ret_head_bytes = (uint32_t)packet_bytes - ret->payload_bytes;
	return 0;
}

int mqtt_decode_connack(const uint8_t *body, uint32_t body_bytes, uint8_t version,
	struct mqtt_connack *ret)
{
	struct wire_reader r = wire_reader_make(body, body_bytes);
	uint8_t flags = wire_read_u8(&r);
	int rc = 0;

	if (version == MQTT_V31) /* which has nothing there yet, and does not say that it is zero */
		flags = 0;
	ret->session_present = flags & 1;
	ret->code = wire_read_u8(&r);
	if (version >= MQTT_V5)
		rc = mqtt_props_read(&r, MQTT_IN(MQTT_CONNACK), &ret->props);
	else
		mqtt_props_clear(&ret->props);
	if (wire_read_failed(&r) || wire_read_left(&r) > 0 || flags > 1) /* [MQTT-3.2.2-1] */
		return -MQTT_RC_MALFORMED;
	if (rc < 0)
		return rc;
	if (version >= MQTT_V5 ? !mqtt_rc_allowed(ret->code, MQTT_CONNACK) : ret->code > 5)
		return -MQTT_RC_PROTOCOL_ERROR;
	if (ret->session_present && ret->code != 0) /* [MQTT-3.2.2-6] */
		return -MQTT_RC_PROTOCOL_ERROR;
	return 0;
}

int mqtt_decode_ack(const uint8_t *body, uint32_t body_bytes, uint8_t version, uint8_t type,
	struct mqtt_ack *ret)
{
	struct wire_reader r = wire_reader_make(body, body_bytes);
	int rc = 0;

	ret->packet_id = wire_read_u16(&r);
	ret->reason = MQTT_RC_SUCCESS;
	/* The reason code may be left out, and behind it the properties with their length
	 * (3.4.2.1). */
	if (version >= MQTT_V5 && wire_read_left(&r) > 0)
		ret->reason = wire_read_u8(&r);
	if (version >= MQTT_V5 && wire_read_left(&r) > 0)
		rc = mqtt_props_read(&r, MQTT_IN(type), &ret->props);
	else
		mqtt_props_clear(&ret->props);
	if (wire_read_failed(&r) || wire_read_left(&r) > 0)
		return -MQTT_RC_MALFORMED;
	if (rc < 0)
		return rc;
	if (ret->packet_id == 0 || !mqtt_rc_allowed(ret->reason, type))
		return -MQTT_RC_PROTOCOL_ERROR;
	return 0;
}

static int check_filter(const struct mqtt_sub *sub, uint8_t version)
{
	const char *group, *filter;
	size_t group_bytes, filter_bytes;

	if (!utf8_mqtt_ok(sub->filter.s, sub->filter.bytes))
		return -MQTT_RC_MALFORMED;
	if (!topic_filter_ok(sub->filter.s, sub->filter.bytes))
		return -MQTT_RC_FILTER_INVALID;
	if (version >= MQTT_V5 && topic_is_shared(sub->filter.s, sub->filter.bytes) &&
		!topic_share_split(sub->filter.s, sub->filter.bytes, &group, &group_bytes, &filter,
			&filter_bytes))
		return -MQTT_RC_FILTER_INVALID;
	return 0;
}

static int check_options(const struct mqtt_sub *sub, uint8_t version)
{
	uint8_t qos = sub->options & 3, retain_handling = sub->options >> 4 & 3;
	bool no_local = sub->options >> 2 & 1;

	if (version < MQTT_V5)
		return sub->options > 2 ? -MQTT_RC_MALFORMED : 0;
	if (sub->options & 0xc0) /* [MQTT-3.8.3-5] */
		return -MQTT_RC_MALFORMED;
	if (qos == 3 || retain_handling == 3)
		return -MQTT_RC_PROTOCOL_ERROR;
	if (no_local && topic_is_shared(sub->filter.s, sub->filter.bytes)) /* [MQTT-3.8.3-4] */
		return -MQTT_RC_PROTOCOL_ERROR;
	return 0;
}

int mqtt_decode_subscribe(const uint8_t *body, uint32_t body_bytes, uint8_t version, uint8_t type,
	struct mqtt_subscribe *ret)
{
	struct wire_reader r = wire_reader_make(body, body_bytes);
	int rc = 0;

	ret->is_unsubscribe = type == MQTT_UNSUBSCRIBE;
	ret->packet_id = wire_read_u16(&r);
	if (version >= MQTT_V5)
		rc = mqtt_props_read(&r, MQTT_IN(type), &ret->props);
	else
		mqtt_props_clear(&ret->props);
	if (rc < 0)
		return rc;
	ret->entries = r.at;
	ret->entries_bytes = (uint32_t)wire_read_left(&r);
	ret->count = 0;
	while (wire_read_left(&r) > 0) {
		struct mqtt_sub sub = {0};

		sub.filter.s = (const char *)wire_read_span(&r, &sub.filter.bytes);
		if (!ret->is_unsubscribe)
			sub.options = wire_read_u8(&r);
		if (wire_read_failed(&r))
			break;
		rc = check_filter(&sub, version);
		if (rc == 0)
			rc = check_options(&sub, version);
		if (rc < 0)
			return rc;
		ret->count++;
	}
	if (wire_read_failed(&r))
		return -MQTT_RC_MALFORMED;
	if (ret->packet_id == 0 || ret->count == 0) /* [MQTT-2.2.1-3], [MQTT-3.8.3-2] */
		return -MQTT_RC_PROTOCOL_ERROR;
	return 0;
}

bool mqtt_subscribe_next(const struct mqtt_subscribe *s, uint32_t *cursor, struct mqtt_sub *ret)
{
	struct wire_reader r = wire_reader_make(s->entries, s->entries_bytes);
	struct mqtt_sub sub = {0};

	wire_read_bytes(&r, *cursor);
	sub.filter.s = (const char *)wire_read_span(&r, &sub.filter.bytes);
	if (!s->is_unsubscribe)
		sub.options = wire_read_u8(&r);
	if (wire_read_failed(&r))
		return false;
	*cursor = (uint32_t)(r.at - s->entries);
	*ret = sub;
	return true;
}

int mqtt_decode_suback(const uint8_t *body, uint32_t body_bytes, uint8_t version, uint8_t type,
	struct mqtt_suback *ret)
{
	struct wire_reader r = wire_reader_make(body, body_bytes);
	bool bare = type == MQTT_UNSUBACK && version < MQTT_V5;
	int rc = 0;

	ret->packet_id = wire_read_u16(&r);
	if (version >= MQTT_V5)
		rc = mqtt_props_read(&r, MQTT_IN(type), &ret->props);
	else
		mqtt_props_clear(&ret->props);
	if (rc < 0)
		return rc;
	if (wire_read_failed(&r) || (bare && wire_read_left(&r) > 0))
		return -MQTT_RC_MALFORMED;
	ret->codes = r.at;
	ret->codes_count = (uint32_t)wire_read_left(&r);
	for (uint32_t i = 0; i < ret->codes_count; i++) {
		uint8_t code = ret->codes[i];

		if (version >= MQTT_V5 ? !mqtt_rc_allowed(code, type) : code > 2 && code != 0x80)
			return -MQTT_RC_PROTOCOL_ERROR;
	}
	if (ret->packet_id == 0 || (ret->codes_count == 0 && !bare))
		return -MQTT_RC_PROTOCOL_ERROR;
	return 0;
}

int mqtt_decode_disconnect(const uint8_t *body, uint32_t body_bytes, uint8_t version, uint8_t type,
	struct mqtt_disconnect *ret)
{
	struct wire_reader r = wire_reader_make(body, body_bytes);
	int rc = 0;

	ret->reason = MQTT_RC_SUCCESS;
	mqtt_props_clear(&ret->props);
	if (version < MQTT_V5) /* DISCONNECT has no body there, and AUTH's type is reserved */
		return type == MQTT_AUTH || body_bytes > 0 ? -MQTT_RC_MALFORMED : 0;
	if (body_bytes == 0)
		return 0;
	ret->reason = wire_read_u8(&r);
	if (wire_read_left(&r) > 0)
		rc = mqtt_props_read(&r, MQTT_IN(type), &ret->props);
	if (wire_read_left(&r) > 0)
		return -MQTT_RC_MALFORMED;
	if (rc < 0)
		return rc;
	if (!mqtt_rc_allowed(ret->reason, type))
		return -MQTT_RC_PROTOCOL_ERROR;
	if (type == MQTT_AUTH && !MQTT_HAS(&ret->props, MQTT_P_AUTH_METHOD)) /* 3.15.2.2.2 */
		return -MQTT_RC_PROTOCOL_ERROR;
	return 0;
}
