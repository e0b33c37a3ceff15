/*
 * Encoding of all packets.
 *
 * A packet's body is written by one function that runs twice: first over a cursor that only counts,
 * for the remaining length that stands before the body, then over the buffer. A value that its
 * field can't hold makes the first run fail, so nothing is written then.
 */
#include "mqtt_props.h"

#include <assert.h>

typedef void (*body_fn)(struct wire_writer *w, const void *packet, uint8_t version, uint8_t type);

/* payload_bytes follow the encoded packet and count for its remaining length. */
static size_t packet_encode(uint8_t *buf, size_t buf_max, uint8_t first, body_fn body,
	const void *packet, uint8_t version, uint32_t payload_bytes)
{
	struct wire_writer count = wire_counter_make(), w = wire_writer_make(buf, buf_max);

	body(&count, packet, version, first >> 4);
	if (count.failed || count.bytes + payload_bytes > MQTT_REMAINING_MAX)
		return 0;
	wire_write_u8(&w, first);
	wire_write_varint(&w, (uint32_t)(count.bytes + payload_bytes));
	body(&w, packet, version, first >> 4);
	return w.failed ? 0 : w.bytes;
}

static uint8_t first_byte(uint8_t type)
{
	bool two = type == MQTT_PUBREL || type == MQTT_SUBSCRIBE || type == MQTT_UNSUBSCRIBE;

	return (uint8_t)(type << 4 | (two ? 2 : 0)); /* [MQTT-2.1.3-1] */
}

static void write_str(struct wire_writer *w, const struct mqtt_str *str)
{
	wire_write_span(w, str->s, str->bytes);
}

static uint8_t connect_flags(const struct mqtt_connect *c)
{
	uint8_t flags = c->clean_start ? 0x02 : 0;

	if (c->has_will)
		flags |= 0x04 | c->will_qos << 3 | (c->will_retain ? 0x20 : 0);
	return flags | (c->has_password ? 0x40 : 0) | (c->has_username ? 0x80 : 0);
}

static void body_connect(struct wire_writer *w, const void *packet, uint8_t version, uint8_t type)
{
	const struct mqtt_connect *c = packet;
	const char *name = version == MQTT_V31 ? "MQIsdp" : "MQTT";

	wire_write_span(w, name, strlen(name));
	wire_write_u8(w, version);
	wire_write_u8(w, connect_flags(c));
	wire_write_u16(w, c->keep_alive_s);
	if (version >= MQTT_V5)
		mqtt_props_write(w, &c->props, MQTT_IN(type));
	write_str(w, &c->clientid);
	if (c->has_will) {
		if (version >= MQTT_V5)
			mqtt_props_write(w, &c->will_props, MQTT_IN_WILL);
		write_str(w, &c->will_topic);
		write_str(w, &c->will_payload);
	}
	if (c->has_username)
		write_str(w, &c->username);
	if (c->has_password)
		write_str(w, &c->password);
}

size_t mqtt_encode_connect(uint8_t *buf, size_t buf_max, const struct mqtt_connect *c)
{
	assert(c->will_qos <= 2);
	return packet_encode(
		buf, buf_max, first_byte(MQTT_CONNECT), body_connect, c, c->version, 0);
}

static void body_connack(struct wire_writer *w, const void *packet, uint8_t version, uint8_t type)
{
	const struct mqtt_connack *c = packet;

	/* 3.1 has no session present flag, the whole byte is reserved there. */
	wire_write_u8(w, c->session_present && version != MQTT_V31);
	wire_write_u8(w, c->code);
	if (version >= MQTT_V5)
		mqtt_props_write(w, &c->props, MQTT_IN(type));
}

size_t mqtt_encode_connack(
	uint8_t *buf, size_t buf_max, uint8_t version, const struct mqtt_connack *c)
{
	return packet_encode(buf, buf_max, first_byte(MQTT_CONNACK), body_connack, c, version, 0);
}

static void body_publish(struct wire_writer *w, const void *packet, uint8_t version, uint8_t type)
{
	const struct mqtt_publish *p = packet;

	write_str(w, &p->topic);
	if (p->qos > 0)
		wire_write_u16(w, p->packet_id);
	if (version >= MQTT_V5)
		mqtt_props_write(w, &p->props, MQTT_IN(type));
}

size_t mqtt_encode_publish_head(uint8_t *buf, size_t buf_max, uint8_t version,
	const struct mqtt_publish *p)
{
	uint8_t first = MQTT_PUBLISH << 4 | (p->dup ? 8 : 0) | p->qos << 1 | (p->retain ? 1 : 0);

	assert(p->qos <= 2);
	return packet_encode(buf, buf_max, first, body_publish, p, version, p->payload_bytes);
}

static void body_ack(struct wire_writer *w, const void *packet, uint8_t version, uint8_t type)
{
	const struct mqtt_ack *a = packet;

	wire_write_u16(w, a->packet_id);
	if (version < MQTT_V5 || (a->reason == 0 && a->props.has == 0))
		return;
	wire_write_u8(w, a->reason);
	if (a->props.has != 0)
		mqtt_props_write(w, &a->props, MQTT_IN(type));
}

size_t mqtt_encode_ack(uint8_t *buf, size_t buf_max, uint8_t version, uint8_t type,
	const struct mqtt_ack *a)
{
	return packet_encode(buf, buf_max, first_byte(type), body_ack, a, version, 0);
}

/* What SUBSCRIBE and UNSUBSCRIBE are made of. */
struct subscription {
	uint16_t packet_id;
	const struct mqtt_props *props; /* NULL: none */
	const struct mqtt_sub *subs;
	size_t subs_count;
};

static void body_subscribe(struct wire_writer *w, const void *packet, uint8_t version, uint8_t type)
{
	const struct subscription *s = packet;

	wire_write_u16(w, s->packet_id);
	if (version >= MQTT_V5) {
		if (s->props)
			mqtt_props_write(w, s->props, MQTT_IN(type));
		else
			wire_write_varint(w, 0);
	}
	for (size_t i = 0; i < s->subs_count; i++) {
		write_str(w, &s->subs[i].filter);
		if (type == MQTT_SUBSCRIBE) /* v3 has only the QoS there [MQTT-3.8.3-4] */
			wire_write_u8(w,
				version >= MQTT_V5 ? s->subs[i].options : s->subs[i].options & 3);
	}
}

static size_t encode_subscription(uint8_t *buf, size_t buf_max, uint8_t version, uint8_t type,
	const struct subscription *s)
{
	assert(s->subs_count > 0);
	return packet_encode(buf, buf_max, first_byte(type), body_subscribe, s, version, 0);
}

size_t mqtt_encode_subscribe(uint8_t *buf, size_t buf_max, uint8_t version, uint16_t packet_id,
	const struct mqtt_props *props, const struct mqtt_sub *subs, size_t subs_count)
{
	return encode_subscription(buf, buf_max, version, MQTT_SUBSCRIBE,
		&(struct subscription){packet_id, props, subs, subs_count});
}

size_t mqtt_encode_unsubscribe(uint8_t *buf, size_t buf_max, uint8_t version, uint16_t packet_id,
	const struct mqtt_props *props, const struct mqtt_sub *subs, size_t subs_count)
{
	return encode_subscription(buf, buf_max, version, MQTT_UNSUBSCRIBE,
		&(struct subscription){packet_id, props, subs, subs_count});
}

static void body_suback(struct wire_writer *w, const void *packet, uint8_t version, uint8_t type)
{
	const struct mqtt_suback *s = packet;

	wire_write_u16(w, s->packet_id);
	if (version >= MQTT_V5)
		mqtt_props_write(w, &s->props, MQTT_IN(type));
	if (version >= MQTT_V5 || type == MQTT_SUBACK)
		wire_write_bytes(w, s->codes, s->codes_count);
}

size_t mqtt_encode_suback(uint8_t *buf, size_t buf_max, uint8_t version, uint8_t type,
	const struct mqtt_suback *s)
{
	return packet_encode(buf, buf_max, first_byte(type), body_suback, s, version, 0);
}

static void body_disconnect(
	struct wire_writer *w, const void *packet, uint8_t version, uint8_t type)
{
	const struct mqtt_disconnect *d = packet;

	if (version < MQTT_V5 || (d->reason == 0 && d->props.has == 0))
		return;
	wire_write_u8(w, d->reason);
	if (d->props.has != 0)
		mqtt_props_write(w, &d->props, MQTT_IN(type));
}

size_t mqtt_encode_disconnect(uint8_t *buf, size_t buf_max, uint8_t version, uint8_t type,
	const struct mqtt_disconnect *d)
{
	return packet_encode(buf, buf_max, first_byte(type), body_disconnect, d, version, 0);
}

size_t mqtt_encode_ping(uint8_t *buf, size_t buf_max, uint8_t type)
{
	if (buf_max < 2)
		return 0;
	buf[0] = first_byte(type);
	buf[1] = 0;
	return 2;
}
