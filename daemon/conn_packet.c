/*
 * The packets of an open connection but PUBLISH: one function each, and the table that knows who
 * may send what.
 *
 * Acknowledgements for identifiers that are not in use are ignored or answered with 0x92, never an
 * error: they are what is left of an earlier connection [MQTT-4.3.2-5, 4.3.3].
 */
#include "conn.h"

#include <stdlib.h>
#include <string.h>
#include "auth.h"

static void on_publish_ack(struct conn *c, uint8_t type, const uint8_t *body, uint32_t body_bytes)
{
	struct mqtt_ack ack;
	int rc = mqtt_decode_ack(body, body_bytes, c->version, type, &ack);
	if (rc < 0) {
		conn_fail(c, (uint8_t)-rc);
	} else if (type == MQTT_PUBACK) {
		session_puback(c->session, ack.packet_id);
	} else if (type == MQTT_PUBREL) {
		bool was_there = idset_remove(&c->session->received, ack.packet_id);
		conn_send_ack(c, MQTT_PUBCOMP, ack.packet_id,
			was_there ? 0 : MQTT_RC_PACKET_ID_NOT_FOUND, NULL);
	}
	/* PUBREC and PUBCOMP answer QoS 2, which is never sent from here. */
}

/* SUBSCRIBE and UNSUBSCRIBE, one entry. */
static uint8_t handle_filter(struct conn *c, const struct mqtt_subscribe *s,
	const struct mqtt_sub *sub)
{
	struct session *session = c->session;
	if (s->is_unsubscribe)
		return session_unsubscribe(session, sub->filter);
	struct mqtt_str clientid = {session->clientid, session->clientid_bytes};
	uint8_t code = auth_subscribe(c->rt->conf, clientid, sub->filter);
	if (code == 0)
		code = session_subscribe(session, sub->filter, sub->options,
			s->props.subids_count > 0 ? s->props.subids[0] : 0);
	/* v3 knows one failure [MQTT-3.9.3-2 of 3.1.1]. */
	return code >= 0x80 && c->version < MQTT_V5 ? 0x80 : code;
}

static void on_subscribe(struct conn *c, uint8_t type, const uint8_t *body, uint32_t body_bytes)
{
	enum { SUBACK_HEAD_MAX = 16 };
	struct mqtt_subscribe s;
	struct mqtt_sub sub;
	uint32_t cursor = 0;
	int rc = mqtt_decode_subscribe(body, body_bytes, c->version, type, &s);
	if (rc < 0) {
		conn_fail(c, (uint8_t)-rc);
		return;
	}
	uint8_t *codes = malloc(2 * (size_t)s.count + SUBACK_HEAD_MAX);
	if (!codes) {
		c->failed = true;
		return;
	}
	uint8_t *packet = codes + s.count;
	for (uint32_t i = 0; i < s.count && mqtt_subscribe_next(&s, &cursor, &sub); i++)
		codes[i] = handle_filter(c, &s, &sub);
	struct mqtt_suback ack = {.packet_id = s.packet_id, .codes = codes, .codes_count = s.count};
	size_t bytes = mqtt_encode_suback(packet, s.count + SUBACK_HEAD_MAX, c->version,
		s.is_unsubscribe ? MQTT_UNSUBACK : MQTT_SUBACK, &ack);
	conn_send(c, packet, (uint32_t)bytes, NULL, 0);
	free(codes);
}

static void on_pingreq(struct conn *c, uint32_t body_bytes)
{
	uint8_t packet[2];
	if (body_bytes > 0) {
		conn_fail(c, MQTT_RC_MALFORMED);
		return;
	}
	mqtt_encode_ping(packet, sizeof(packet), MQTT_PINGRESP);
	conn_send(c, packet, sizeof(packet), NULL, 0);
}

static void on_disconnect(struct conn *c, const uint8_t *body, uint32_t body_bytes)
{
	struct mqtt_disconnect d;
	int rc = mqtt_decode_disconnect(body, body_bytes, c->version, MQTT_DISCONNECT, &d);
	if (rc < 0) {
		conn_fail(c, (uint8_t)-rc);
		return;
	}
	if (MQTT_HAS(&d.props, MQTT_P_SESSION_EXPIRY)) {
		uint32_t expiry_max_s = c->rt->conf->mqtt.session_expiry_max_s;
		if (c->expiry_was_0 && d.props.session_expiry > 0) {
			conn_fail(c, MQTT_RC_PROTOCOL_ERROR); /* [MQTT-3.14.2-2] */
			return;
		}
		c->session->expiry_s = d.props.session_expiry < expiry_max_s ?
			d.props.session_expiry : expiry_max_s;
	}
	conn_end(c, 0, d.reason != 0); /* [MQTT-3.14.4-3] */
}

void conn_packet(struct conn *c, uint8_t type, const uint8_t *body, uint32_t body_bytes)
{
	switch ((enum mqtt_type)type) {
	case MQTT_PUBACK:
	case MQTT_PUBREC:
	case MQTT_PUBREL:
	case MQTT_PUBCOMP:
		on_publish_ack(c, type, body, body_bytes);
		return;
	case MQTT_SUBSCRIBE:
	case MQTT_UNSUBSCRIBE:
		on_subscribe(c, type, body, body_bytes);
		return;
	case MQTT_PINGREQ:
		on_pingreq(c, body_bytes);
		return;
	case MQTT_DISCONNECT:
		on_disconnect(c, body, body_bytes);
		return;
	case MQTT_CONNECT: /* a second one [MQTT-3.1.0-2] */
	case MQTT_AUTH:    /* no method was agreed on [MQTT-4.12.0-6] */
	case MQTT_CONNACK:
	case MQTT_SUBACK:
	case MQTT_UNSUBACK:
	case MQTT_PINGRESP: /* a server's */
	case MQTT_PUBLISH:  /* has its own way */
		break;
	}
	conn_fail(c, MQTT_RC_PROTOCOL_ERROR);
}
