/*
 * CONNECT, decoded: the one packet that says which protocol it is in.
 *
 * Nothing behind the protocol level is looked at before the level is known to be ours, because an
 * unknown version may have any form there. 3.1 differs from 3.1.1 in the protocol's name, in that
 * bit 0 of the flags is merely unused, and in that a client identifier is never empty.
 */
#include "mqtt_props.h"
#include "topic.h"
#include "utf8.h"

enum connect_flag {
	FLAG_RESERVED = 0x01, FLAG_CLEAN = 0x02, FLAG_WILL = 0x04, FLAG_WILL_QOS = 0x18,
	FLAG_WILL_RETAIN = 0x20, FLAG_PASSWORD = 0x40, FLAG_USERNAME = 0x80,
};

/* Name and level. [MQTT-3.1.2-1, -2] */
static int read_version(struct wire_reader *r, uint8_t *ret_version)
{
	uint32_t name_bytes;
	const uint8_t *name = wire_read_span(r, &name_bytes);
	uint8_t level = wire_read_u8(r);

	if (wire_read_failed(r))
		return -MQTT_RC_MALFORMED;
	*ret_version = level;
	if (name_bytes == 4 && memcmp(name, "MQTT", 4) == 0 &&
		(level == MQTT_V311 || level == MQTT_V5))
		return 0;
	if (name_bytes == 6 && memcmp(name, "MQIsdp", 6) == 0 && level == MQTT_V31)
		return 0;
	return -MQTT_RC_UNSUPPORTED_VERSION;
}

static int read_flags(struct wire_reader *r, struct mqtt_connect *c)
{
	uint8_t flags = wire_read_u8(r);

	c->clean_start = flags & FLAG_CLEAN;
	c->has_will = flags & FLAG_WILL;
	c->will_qos = (flags & FLAG_WILL_QOS) >> 3;
	c->will_retain = flags & FLAG_WILL_RETAIN;
	c->has_password = flags & FLAG_PASSWORD;
	c->has_username = flags & FLAG_USERNAME;
	if ((flags & FLAG_RESERVED) && c->version != MQTT_V31) /* [MQTT-3.1.2-3] */
		return -MQTT_RC_MALFORMED;
	if (c->will_qos == 3) /* [MQTT-3.1.2-12] */
		return -MQTT_RC_MALFORMED;
	if (!c->has_will && (c->will_qos > 0 || c->will_retain)) /* [MQTT-3.1.2-11, -13] */
		return -MQTT_RC_MALFORMED;
	if (c->has_password && !c->has_username &&
		c->version < MQTT_V5) /* 3.1.1: [MQTT-3.1.2-22] */
		return -MQTT_RC_MALFORMED;
	return 0;
}

static int read_will(struct wire_reader *r, struct mqtt_connect *c)
{
	if (c->version >= MQTT_V5) {
		int rc = mqtt_props_read(r, MQTT_IN_WILL, &c->will_props);

		if (rc < 0)
			return rc;
	}
	c->will_topic.s = (const char *)wire_read_span(r, &c->will_topic.bytes);
	c->will_payload.s = (const char *)wire_read_span(r, &c->will_payload.bytes);
	if (wire_read_failed(r) || !utf8_mqtt_ok(c->will_topic.s, c->will_topic.bytes))
		return -MQTT_RC_MALFORMED;
	return topic_name_ok(c->will_topic.s, c->will_topic.bytes) ? 0
								   : -MQTT_RC_TOPIC_NAME_INVALID;
}

static int check_clientid(const struct mqtt_connect *c)
{
	if (!utf8_mqtt_ok(c->clientid.s, c->clientid.bytes))
		return -MQTT_RC_MALFORMED;
	if (c->clientid.bytes > 0 || c->version >= MQTT_V5)
		return 0;
	return c->version == MQTT_V311 && c->clean_start ? 0 : -MQTT_RC_BAD_CLIENTID;
}

int mqtt_decode_connect(const uint8_t *body, uint32_t body_bytes, struct mqtt_connect *ret)
{
	struct wire_reader r = wire_reader_make(body, body_bytes);
	int rc;

	memset(ret, 0, sizeof(*ret));
	rc = read_version(&r, &ret->version);
	if (rc == 0)
		rc = read_flags(&r, ret);
	if (rc < 0)
		return rc;
	ret->keep_alive_s = wire_read_u16(&r);
	if (ret->version >= MQTT_V5)
		rc = mqtt_props_read(&r, MQTT_IN(MQTT_CONNECT), &ret->props);
	if (rc < 0)
		return rc;
	ret->clientid.s = (const char *)wire_read_span(&r, &ret->clientid.bytes);
	if (wire_read_failed(&r))
		return -MQTT_RC_MALFORMED;
	if (ret->has_will)
		rc = read_will(&r, ret);
	if (rc < 0)
		return rc;
	if (ret->has_username)
		ret->username.s = (const char *)wire_read_span(&r, &ret->username.bytes);
	if (ret->has_password)
		ret->password.s = (const char *)wire_read_span(&r, &ret->password.bytes);
	if (wire_read_failed(&r) || wire_read_left(&r) > 0)
		return -MQTT_RC_MALFORMED;
	if (!utf8_mqtt_ok(ret->username.s, ret->username.bytes))
		return -MQTT_RC_MALFORMED;
	return check_clientid(ret);
}
