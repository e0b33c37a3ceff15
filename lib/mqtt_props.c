/*
 * Properties: one table says of each its identifier, its type on the wire, the packets that may
 * carry it, the field it lands in and the values it may have (MQTT 5.0, table 2-4 and the clauses
 * it points to). Reading, writing and skipping all go by that table; what is special to one
 * property is in one function each.
 *
 * User properties are not taken apart: their span in the packet is borrowed. So a packet with a
 * thousand of them costs no memory, and passing them on is a copy.
 */
#include "mqtt_props.h"
#include "topic.h"
#include "utf8.h"

enum prop_kind {
	KIND_BIT,    /* one byte, 0 or 1 */
	KIND_U16,
	KIND_U32,
	KIND_VARINT, /* the subscription identifiers, the only ones that are kept in an array */
	KIND_UTF8,
	KIND_BINARY,
	KIND_PAIR,   /* the user properties */
};

enum prop_rule {
	RULE_NONE,
	RULE_NOT_ZERO, /* else a protocol error */
	RULE_ALIAS,    /* not 0, else Topic Alias invalid (3.3.2.3.4) */
	RULE_TOPIC,    /* a topic name [MQTT-3.3.2-14] */
};

struct prop {
	uint8_t id, kind, rule;
	uint16_t where; /* bits of MQTT_IN() */
	uint16_t field; /* offset in struct mqtt_props */
};

#define IN_CONNECT MQTT_IN(MQTT_CONNECT)
#define IN_CONNACK MQTT_IN(MQTT_CONNACK)
#define IN_PUBLISH MQTT_IN(MQTT_PUBLISH)
#define IN_SUBSCRIBE MQTT_IN(MQTT_SUBSCRIBE)
#define IN_DISCONNECT MQTT_IN(MQTT_DISCONNECT)
#define IN_AUTH MQTT_IN(MQTT_AUTH)
#define IN_MESSAGE (IN_PUBLISH | MQTT_IN_WILL)
#define IN_REPLY                                                                                   \
	(IN_CONNACK | MQTT_IN(MQTT_PUBACK) | MQTT_IN(MQTT_PUBREC) | MQTT_IN(MQTT_PUBREL) |         \
		MQTT_IN(MQTT_PUBCOMP) | MQTT_IN(MQTT_SUBACK) | MQTT_IN(MQTT_UNSUBACK) |            \
		IN_DISCONNECT | IN_AUTH)
#define IN_ALL (IN_REPLY | IN_CONNECT | IN_MESSAGE | IN_SUBSCRIBE | MQTT_IN(MQTT_UNSUBSCRIBE))

#define FIELD(name) offsetof(struct mqtt_props, name)

/* In the order of enum mqtt_prop_bit, which is that of the identifiers. */
static const struct prop props[] = {
	[MQTT_P_PAYLOAD_FORMAT] = {0x01, KIND_BIT, RULE_NONE, IN_MESSAGE, FIELD(payload_format)},
	[MQTT_P_MESSAGE_EXPIRY] = {0x02, KIND_U32, RULE_NONE, IN_MESSAGE, FIELD(message_expiry)},
	[MQTT_P_CONTENT_TYPE] = {0x03, KIND_UTF8, RULE_NONE, IN_MESSAGE, FIELD(content_type)},
	[MQTT_P_RESPONSE_TOPIC] = {0x08, KIND_UTF8, RULE_TOPIC, IN_MESSAGE, FIELD(response_topic)},
	[MQTT_P_CORRELATION_DATA] = {0x09, KIND_BINARY, RULE_NONE, IN_MESSAGE,
		FIELD(correlation_data)},
	[MQTT_P_SUBSCRIPTION_ID] = {0x0b, KIND_VARINT, RULE_NOT_ZERO, IN_PUBLISH | IN_SUBSCRIBE,
		FIELD(subids)},
	[MQTT_P_SESSION_EXPIRY] = {0x11, KIND_U32, RULE_NONE,
		IN_CONNECT | IN_CONNACK | IN_DISCONNECT, FIELD(session_expiry)},
	[MQTT_P_ASSIGNED_CLIENTID] = {0x12, KIND_UTF8, RULE_NONE, IN_CONNACK,
		FIELD(assigned_clientid)},
	[MQTT_P_SERVER_KEEP_ALIVE] = {0x13, KIND_U16, RULE_NONE, IN_CONNACK,
		FIELD(server_keep_alive)},
	[MQTT_P_AUTH_METHOD] = {0x15, KIND_UTF8, RULE_NONE, IN_CONNECT | IN_CONNACK | IN_AUTH,
		FIELD(auth_method)},
	[MQTT_P_AUTH_DATA] = {0x16, KIND_BINARY, RULE_NONE, IN_CONNECT | IN_CONNACK | IN_AUTH,
		FIELD(auth_data)},
	[MQTT_P_REQUEST_PROBLEM_INFO] = {0x17, KIND_BIT, RULE_NONE, IN_CONNECT,
		FIELD(request_problem_info)},
	[MQTT_P_WILL_DELAY] = {0x18, KIND_U32, RULE_NONE, MQTT_IN_WILL, FIELD(will_delay)},
	[MQTT_P_REQUEST_RESPONSE_INFO] = {0x19, KIND_BIT, RULE_NONE, IN_CONNECT,
		FIELD(request_response_info)},
	[MQTT_P_RESPONSE_INFO] = {0x1a, KIND_UTF8, RULE_NONE, IN_CONNACK, FIELD(response_info)},
	[MQTT_P_SERVER_REFERENCE] = {0x1c, KIND_UTF8, RULE_NONE, IN_CONNACK | IN_DISCONNECT,
		FIELD(server_reference)},
	[MQTT_P_REASON_STRING] = {0x1f, KIND_UTF8, RULE_NONE, IN_REPLY, FIELD(reason_string)},
	[MQTT_P_RECEIVE_MAX] = {0x21, KIND_U16, RULE_NOT_ZERO, IN_CONNECT | IN_CONNACK,
		FIELD(receive_max)},
	[MQTT_P_TOPIC_ALIAS_MAX] = {0x22, KIND_U16, RULE_NONE, IN_CONNECT | IN_CONNACK,
		FIELD(topic_alias_max)},
	[MQTT_P_TOPIC_ALIAS] = {0x23, KIND_U16, RULE_ALIAS, IN_PUBLISH, FIELD(topic_alias)},
	[MQTT_P_MAXIMUM_QOS] = {0x24, KIND_BIT, RULE_NONE, IN_CONNACK, FIELD(maximum_qos)},
	[MQTT_P_RETAIN_AVAILABLE] = {0x25, KIND_BIT, RULE_NONE, IN_CONNACK,
		FIELD(retain_available)},
	[MQTT_P_USER_PROPERTY] = {0x26, KIND_PAIR, RULE_NONE, IN_ALL, FIELD(user_properties)},
	[MQTT_P_MAXIMUM_PACKET_SIZE] = {0x27, KIND_U32, RULE_NOT_ZERO, IN_CONNECT | IN_CONNACK,
		FIELD(maximum_packet_size)},
	[MQTT_P_WILDCARD_AVAILABLE] = {0x28, KIND_BIT, RULE_NONE, IN_CONNACK,
		FIELD(wildcard_available)},
	[MQTT_P_SUBID_AVAILABLE] = {0x29, KIND_BIT, RULE_NONE, IN_CONNACK, FIELD(subid_available)},
	[MQTT_P_SHARED_AVAILABLE] = {0x2a, KIND_BIT, RULE_NONE, IN_CONNACK,
		FIELD(shared_available)},
};

enum { PROPS_COUNT = sizeof(props) / sizeof(props[0]), PROP_ID_MAX = 0x2a };

/* The bit of an identifier, plus 1; 0 where there is none. */
static const uint8_t bit_by_id[PROP_ID_MAX + 1] = {
	[0x01] = 1 + MQTT_P_PAYLOAD_FORMAT,	  [0x02] = 1 + MQTT_P_MESSAGE_EXPIRY,
	[0x03] = 1 + MQTT_P_CONTENT_TYPE,	  [0x08] = 1 + MQTT_P_RESPONSE_TOPIC,
	[0x09] = 1 + MQTT_P_CORRELATION_DATA,	  [0x0b] = 1 + MQTT_P_SUBSCRIPTION_ID,
	[0x11] = 1 + MQTT_P_SESSION_EXPIRY,	  [0x12] = 1 + MQTT_P_ASSIGNED_CLIENTID,
	[0x13] = 1 + MQTT_P_SERVER_KEEP_ALIVE,	  [0x15] = 1 + MQTT_P_AUTH_METHOD,
	[0x16] = 1 + MQTT_P_AUTH_DATA,		  [0x17] = 1 + MQTT_P_REQUEST_PROBLEM_INFO,
	[0x18] = 1 + MQTT_P_WILL_DELAY,		  [0x19] = 1 + MQTT_P_REQUEST_RESPONSE_INFO,
	[0x1a] = 1 + MQTT_P_RESPONSE_INFO,	  [0x1c] = 1 + MQTT_P_SERVER_REFERENCE,
	[0x1f] = 1 + MQTT_P_REASON_STRING,	  [0x21] = 1 + MQTT_P_RECEIVE_MAX,
	[0x22] = 1 + MQTT_P_TOPIC_ALIAS_MAX,	  [0x23] = 1 + MQTT_P_TOPIC_ALIAS,
	[0x24] = 1 + MQTT_P_MAXIMUM_QOS,	  [0x25] = 1 + MQTT_P_RETAIN_AVAILABLE,
	[0x26] = 1 + MQTT_P_USER_PROPERTY,	  [0x27] = 1 + MQTT_P_MAXIMUM_PACKET_SIZE,
	[0x28] = 1 + MQTT_P_WILDCARD_AVAILABLE,	  [0x29] = 1 + MQTT_P_SUBID_AVAILABLE,
	[0x2a] = 1 + MQTT_P_SHARED_AVAILABLE,
};

/* The property that begins at the cursor, its identifier read; NULL when unknown or at the end.
 * All identifiers of 5.0 are one byte, so a longer variable integer is unknown or longer than
 * needed. */
static const struct prop *prop_next(struct wire_reader *r)
{
	uint8_t id = wire_read_u8(r);

	if (id > PROP_ID_MAX || bit_by_id[id] == 0)
		return NULL;
	return &props[bit_by_id[id] - 1];
}

void mqtt_props_clear(struct mqtt_props *p)
{
	static const struct mqtt_str none;

	/* Every PUBLISH comes through here, 20 ns each. One memset over it all becomes "rep stos",
	 * which alone takes 12 ns more; in pieces it is a dozen plain stores. The array behind its
	 * count, a quarter of the struct, stays as it is. */
	memset(p, 0, offsetof(struct mqtt_props, content_type));
	p->content_type = p->response_topic = p->correlation_data = none;
	p->assigned_clientid = p->auth_method = p->auth_data = none;
	p->response_info = p->server_reference = p->reason_string = none;
	p->user_properties = none;
	p->subids_count = 0;
}

static int check_number(const struct prop *d, uint32_t value)
{
	if (d->kind == KIND_BIT && value > 1)
		return -MQTT_RC_PROTOCOL_ERROR;
	if (value == 0 && d->rule == RULE_NOT_ZERO)
		return -MQTT_RC_PROTOCOL_ERROR;
	if (value == 0 && d->rule == RULE_ALIAS)
		return -MQTT_RC_TOPIC_ALIAS_INVALID;
	return 0;
}

static int read_number(struct wire_reader *r, const struct prop *d, struct mqtt_props *p)
{
	void *field = (char *)p + d->field;
	uint32_t value = 0;

	switch ((enum prop_kind)d->kind) {
	case KIND_BIT:
		value = *(uint8_t *)field = wire_read_u8(r);
		break;
	case KIND_U16:
		value = *(uint16_t *)field = wire_read_u16(r);
		break;
	case KIND_U32:
		value = *(uint32_t *)field = wire_read_u32(r);
		break;
	case KIND_VARINT:
		value = wire_read_varint(r);
		if (p->subids_count < MQTT_SUBIDS_MAX)
			p->subids[p->subids_count++] = value;
		break;
	case KIND_UTF8:
	case KIND_BINARY:
	case KIND_PAIR:
		break;
	}
	return wire_read_failed(r) ? -MQTT_RC_MALFORMED : check_number(d, value);
}

static int read_string(struct wire_reader *r, const struct prop *d, struct mqtt_props *p)
{
	struct mqtt_str *field = (struct mqtt_str *)((char *)p + d->field);

	field->s = (const char *)wire_read_span(r, &field->bytes);
	if (!field->s)
		return -MQTT_RC_MALFORMED;
	if (d->kind == KIND_UTF8 && !utf8_mqtt_ok(field->s, field->bytes))
		return -MQTT_RC_MALFORMED;
	if (d->rule == RULE_TOPIC &&
		(field->bytes == 0 || topic_has_wildcard(field->s, field->bytes)))
		return -MQTT_RC_PROTOCOL_ERROR;
	return 0;
}

/* Checks one pair and widens the span to its end. */
static int read_user_property(struct wire_reader *r, struct mqtt_props *p)
{
	const char *begin = (const char *)r->at - 1; /* at the identifier */
	uint32_t key_bytes, value_bytes;
	const char *key = (const char *)wire_read_span(r, &key_bytes);
	const char *value = (const char *)wire_read_span(r, &value_bytes);

	if (!key || !value || !utf8_mqtt_ok(key, key_bytes) || !utf8_mqtt_ok(value, value_bytes))
		return -MQTT_RC_MALFORMED;
	if (!p->user_properties.s)
		p->user_properties.s = begin;
	p->user_properties.bytes = (uint32_t)((const char *)r->at - p->user_properties.s);
	return 0;
}

static int prop_read(struct wire_reader *r, const struct prop *d, struct mqtt_props *p)
{
	switch ((enum prop_kind)d->kind) {
	case KIND_BIT:
	case KIND_U16:
	case KIND_U32:
	case KIND_VARINT:
		return read_number(r, d, p);
	case KIND_UTF8:
	case KIND_BINARY:
		return read_string(r, d, p);
	case KIND_PAIR:
		return read_user_property(r, p);
	}
	__builtin_unreachable();
}

int mqtt_props_parse(
	const uint8_t *span, uint32_t span_bytes, uint32_t where, struct mqtt_props *ret)
{
	struct wire_reader r = wire_reader_make(span, span_bytes);
	uint32_t repeatable = 1u << MQTT_P_USER_PROPERTY;

	if (where == IN_PUBLISH)
		repeatable |= 1u << MQTT_P_SUBSCRIPTION_ID;
	mqtt_props_clear(ret);
	while (wire_read_left(&r) > 0) {
		const struct prop *d = prop_next(&r);
		int rc;

		if (!d || !(d->where & where))
			return -MQTT_RC_MALFORMED;
		uint32_t bit = 1u << (d - props);

		if (ret->has & bit & ~repeatable)
			return -MQTT_RC_PROTOCOL_ERROR;
		rc = prop_read(&r, d, ret);
		if (rc < 0)
			return rc;
		ret->has |= bit;
	}
	if (MQTT_HAS(ret, MQTT_P_AUTH_DATA) && !MQTT_HAS(ret, MQTT_P_AUTH_METHOD)) /* 3.1.2.11.10 */
		return -MQTT_RC_PROTOCOL_ERROR;
	return 0;
}

int mqtt_props_read(struct wire_reader *r, uint32_t where, struct mqtt_props *ret)
{
	uint32_t bytes = wire_read_varint(r);
	const uint8_t *span = wire_read_bytes(r, bytes);

	if (!span)
		return -MQTT_RC_MALFORMED;
	return mqtt_props_parse(span, bytes, where, ret);
}

/* Moves past the value of a property that is not wanted. */
static void prop_skip(struct wire_reader *r, const struct prop *d)
{
	uint32_t bytes;

	switch ((enum prop_kind)d->kind) {
	case KIND_BIT:
		wire_read_u8(r);
		return;
	case KIND_U16:
		wire_read_u16(r);
		return;
	case KIND_U32:
		wire_read_u32(r);
		return;
	case KIND_VARINT:
		wire_read_varint(r);
		return;
	case KIND_UTF8:
	case KIND_BINARY:
		wire_read_span(r, &bytes);
		return;
	case KIND_PAIR:
		wire_read_span(r, &bytes);
		wire_read_span(r, &bytes);
		return;
	}
}

bool mqtt_user_property_next(const struct mqtt_str *span, uint32_t *cursor,
	struct mqtt_str *ret_key, struct mqtt_str *ret_value)
{
	struct wire_reader r = wire_reader_make((const uint8_t *)span->s, span->bytes);

	if (*cursor >= span->bytes) /* an absent span too */
		return false;
	wire_read_bytes(&r, *cursor);
	while (wire_read_left(&r) > 0) {
		const struct prop *d = prop_next(&r);
		struct mqtt_str key, value;

		if (!d)
			return false;
		if (d->kind != KIND_PAIR) {
			prop_skip(&r, d);
			continue;
		}
		key.s = (const char *)wire_read_span(&r, &key.bytes);
		value.s = (const char *)wire_read_span(&r, &value.bytes);
		if (!key.s || !value.s)
			return false;
		*cursor = (uint32_t)((const char *)r.at - span->s);
		*ret_key = key;
		*ret_value = value;
		return true;
	}
	return false;
}

static void prop_write(struct wire_writer *w, const struct prop *d, const struct mqtt_props *p,
	uint32_t where)
{
	const void *field = (const char *)p + d->field;
	const struct mqtt_str *str = field;
	struct mqtt_str key, value;
	uint32_t cursor = 0;

	switch ((enum prop_kind)d->kind) {
	case KIND_BIT:
		wire_write_u8(w, d->id);
		wire_write_u8(w, *(const uint8_t *)field);
		return;
	case KIND_U16:
		wire_write_u8(w, d->id);
		wire_write_u16(w, *(const uint16_t *)field);
		return;
	case KIND_U32:
		wire_write_u8(w, d->id);
		wire_write_u32(w, *(const uint32_t *)field);
		return;
	case KIND_VARINT:
		for (unsigned i = 0; i < p->subids_count && i < MQTT_SUBIDS_MAX; i++) {
			if (i > 0 && where != IN_PUBLISH)
				return;
			wire_write_u8(w, d->id);
			wire_write_varint(w, p->subids[i]);
		}
		return;
	case KIND_UTF8:
	case KIND_BINARY:
		wire_write_u8(w, d->id);
		wire_write_span(w, str->s, str->bytes);
		return;
	case KIND_PAIR:
		while (mqtt_user_property_next(str, &cursor, &key, &value)) {
			wire_write_u8(w, d->id);
			wire_write_span(w, key.s, key.bytes);
			wire_write_span(w, value.s, value.bytes);
		}
		return;
	}
}

static void props_write_all(struct wire_writer *w, const struct mqtt_props *p, uint32_t where)
{
	for (uint32_t has = p->has; has != 0; has &= has - 1) {
		unsigned bit = (unsigned)__builtin_ctz(has);

		if (bit < PROPS_COUNT && (props[bit].where & where))
			prop_write(w, &props[bit], p, where);
	}
}

void mqtt_props_write(struct wire_writer *w, const struct mqtt_props *p, uint32_t where)
{
	struct wire_writer count = wire_counter_make();

	if (p->has == 0) {
		wire_write_u8(w, 0);
		return;
	}
	props_write_all(&count, p, where);
	if (count.failed || count.bytes > WIRE_VARINT_MAX) {
		w->failed = true;
		return;
	}
	wire_write_varint(w, (uint32_t)count.bytes);
	props_write_all(w, p, where);
}
