/*
 * One function per packet, in both directions.
 *
 * The server's word on *why* is taken seriously: its reason codes are divided into those that time
 * may heal (we come again) and those that it will not (we say so and end).
 */
#include "session_packets.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "options.h"

enum {
	KEEP_ALIVE_S = 30,
	SUBSCRIBE_ID = 65535, /* beyond every identifier that a publish can have */
	TOPIC_ROOM = 64,      /* fixed header, lengths and properties of the packets we build */
};

static struct mqtt_str str_of(const char *s)
{
	return (struct mqtt_str){.s = s, .bytes = (uint32_t)strlen(s)};
}

/* Room for a packet; out of memory ends the session, as nothing can be said any more. */
static uint8_t *reserve(struct session *s, size_t bytes_max)
{
	uint8_t *at = link_reserve(&s->link, bytes_max);

	if (!at) {
		session_fail(s, EXIT_REFUSED, "out of memory");
	}
	return at;
}

void session_packet_connect(struct session *s)
{
	const struct session_conf *conf = s->conf;
	struct mqtt_connect c = {
		.version = conf->version,
		.clean_start = true,
		.keep_alive_s = KEEP_ALIVE_S,
		.clientid = str_of(conf->clientid),
	};
	size_t bytes_max = TOPIC_ROOM + c.clientid.bytes;

	c.props.has = 1u << MQTT_P_MAXIMUM_PACKET_SIZE;
	c.props.maximum_packet_size = LINK_IN_MAX;
	if (conf->username) {
		c.has_username = true;
		c.username = str_of(conf->username);
		bytes_max += c.username.bytes;
	}
	if (conf->password) {
		c.has_password = true;
		c.password = str_of(conf->password);
		bytes_max += c.password.bytes;
	}
	uint8_t *at = reserve(s, bytes_max);
	if (at) {
		link_commit(&s->link, mqtt_encode_connect(at, bytes_max, &c));
	}
}

void session_packet_ping(struct session *s)
{
	uint8_t *at = reserve(s, 2);

	if (at) {
		link_commit(&s->link, mqtt_encode_ping(at, 2, MQTT_PINGREQ));
	}
}

void session_packet_disconnect(struct session *s)
{
	struct mqtt_disconnect d = {.reason = MQTT_RC_SUCCESS};

	if (s->link.body.left > 0) {
		return;
	}
	uint8_t *at = reserve(s, 8);
	if (at) {
		link_commit(&s->link, mqtt_encode_disconnect(at, 8, s->conf->version,
			MQTT_DISCONNECT, &d));
		link_flush(&s->link);
	}
}

static void send_puback(struct session *s, uint16_t packet_id)
{
	struct mqtt_ack a = {.packet_id = packet_id};
	uint8_t *at = reserve(s, 8);

	if (at) {
		link_commit(&s->link, mqtt_encode_ack(at, 8, s->conf->version, MQTT_PUBACK, &a));
	}
}

static void send_subscribe(struct session *s)
{
	char filter[65536];
	struct mqtt_props props = {0};
	int bytes = snprintf(filter, sizeof(filter), "$file-response/%s", s->conf->clientid);
	struct mqtt_sub sub = {.filter = {filter, (uint32_t)bytes}, .options = 1};
	size_t bytes_max = TOPIC_ROOM + (size_t)bytes;
	uint8_t *at = reserve(s, bytes_max);

	if (at) {
		link_commit(&s->link, mqtt_encode_subscribe(at, bytes_max, s->conf->version,
			SUBSCRIBE_ID, &props, &sub, 1));
		s->replies = SESSION_SUBSCRIBING;
	}
}

bool session_replies_ready(struct session *s)
{
	s->wants_replies = true;
	if (s->state == SESSION_UP && s->replies == SESSION_NO_REPLIES) {
		send_subscribe(s);
	}
	return s->replies == SESSION_SUBSCRIBED;
}

/* The next free identifier after the last one, so that none is reused sooner than it must. */
static uint16_t take_id(struct session *s)
{
	for (uint32_t i = 0; i < s->pending_max; i++) {
		s->last_id = (uint16_t)(s->last_id % s->pending_max + 1);
		if (!s->pending[s->last_id - 1].owner) {
			return s->last_id;
		}
	}
	return 0;
}

int session_publish(struct session *s, const struct session_tag *tag, const char *topic,
	const struct session_payload *payload)
{
	struct mqtt_publish p = {.qos = 1, .topic = str_of(topic), .payload_bytes = payload->bytes};
	bool is_copied = payload->mem && payload->bytes <= LINK_COPY_MAX;
	size_t head_max = TOPIC_ROOM + p.topic.bytes;

	if (session_room(s) == 0) {
		return -EAGAIN;
	}
	if (head_max + payload->bytes > s->packet_bytes_max) {
		return -E2BIG;
	}
	uint8_t *at = reserve(s, head_max + (is_copied ? payload->bytes : 0));
	if (!at) {
		return -ENOMEM;
	}
	p.packet_id = take_id(s);
	size_t head_bytes = mqtt_encode_publish_head(at, head_max, s->conf->version, &p);
	if (head_bytes == 0) {
		return -E2BIG;
	}
	if (is_copied) {
		memcpy(at + head_bytes, payload->mem, payload->bytes);
		head_bytes += payload->bytes;
	}
	link_commit(&s->link, head_bytes);
	if (payload->bytes > 0 && !is_copied) {
		if (payload->mem) {
			link_attach_mem(&s->link, payload->mem, payload->bytes);
		} else {
			link_attach_file(&s->link, payload->fd, payload->off, payload->bytes,
				payload->error_at);
		}
	}
	s->pending[p.packet_id - 1] = *tag;
	s->pending_count++;
	return 0;
}

/* Will the same attempt have a chance later? */
static bool is_passing(uint8_t reason)
{
	switch (reason) {
	case MQTT_RC_SUCCESS:
	case MQTT_RC_UNSPECIFIED:
	case MQTT_RC_SERVER_UNAVAILABLE:
	case MQTT_RC_SERVER_BUSY:
	case MQTT_RC_SERVER_SHUTDOWN:
	case MQTT_RC_KEEP_ALIVE_TIMEOUT:
	case MQTT_RC_RATE_TOO_HIGH:
	case MQTT_RC_QUOTA_EXCEEDED:
	case MQTT_RC_ADMINISTRATIVE:
	case MQTT_RC_CONNECTION_RATE:
	case MQTT_RC_MAX_CONNECT_TIME:
		return true;
	default:
		return false;
	}
}

/* ": text" or nothing, for the end of a sentence; what a server sends must not steer a terminal. */
static const char *detail_of(const struct mqtt_str *text, char buf[256])
{
	size_t n = 0;

	buf[0] = 0;
	if (!text->s || text->bytes == 0) {
		return buf;
	}
	buf[n++] = ':';
	buf[n++] = ' ';
	for (uint32_t i = 0; i < text->bytes && n < 255; i++) {
		unsigned char c = (unsigned char)text->s[i];
		buf[n++] = c < 32 || c == 127 ? '?' : (char)c;
	}
	buf[n] = 0;
	return buf;
}

static const char *const v3_refusals[] = {
	[1] = "it does not speak this version of MQTT (try the other --mqtt)",
	[2] = "it does not accept the client id",
	[3] = "it is unavailable",
	[4] = "the user name or password is wrong",
	[5] = "not authorized",
};

static void connack_refused(struct session *s, const struct mqtt_connack *c, bool is_v3)
{
	const char *cause = is_v3 ? "unknown return code" : mqtt_rc_name(c->code);
	bool passes = is_v3 ? c->code == 3 : is_passing(c->code);
	char detail[256];

	if (is_v3 && c->code < sizeof(v3_refusals) / sizeof(v3_refusals[0]) &&
		v3_refusals[c->code]) {
		cause = v3_refusals[c->code];
	}
	if (!is_v3 && c->code == MQTT_RC_UNSUPPORTED_VERSION) {
		cause = v3_refusals[1];
	}
	detail_of(&c->props.reason_string, detail);
	if (!passes) {
		session_fail(s, EXIT_REFUSED, "the server refused the connection: %s%s", cause,
			detail);
	}
	session_lost(s, "the server refused the connection: %s%s", cause, detail);
}

static int handle_connack(struct session *s, const uint8_t *body, uint32_t body_bytes)
{
	/* A server that knows MQTT 3 only says so in its own two bytes. */
	bool is_v3 = s->conf->version < MQTT_V5 || body_bytes == 2;
	struct mqtt_connack c;
	int r = mqtt_decode_connack(body, body_bytes, is_v3 ? MQTT_V311 : MQTT_V5, &c);

	if (r < 0 || s->state != SESSION_GREETING) {
		return r < 0 ? r : -MQTT_RC_PROTOCOL_ERROR;
	}
	if (c.code != 0) {
		connack_refused(s, &c, is_v3);
		return 0;
	}
	if (MQTT_HAS(&c.props, MQTT_P_MAXIMUM_QOS) && c.props.maximum_qos == 0) {
		session_fail(s, EXIT_REFUSED,
			"the server takes QoS 0 only, which can't confirm a file");
		return 0;
	}
	s->pending_max = SESSION_PENDING_MAX;
	if (MQTT_HAS(&c.props, MQTT_P_RECEIVE_MAX) && c.props.receive_max < s->pending_max) {
		s->pending_max = c.props.receive_max;
	}
	s->packet_bytes_max = MQTT_REMAINING_MAX;
	if (MQTT_HAS(&c.props, MQTT_P_MAXIMUM_PACKET_SIZE) &&
		c.props.maximum_packet_size < s->packet_bytes_max) {
		s->packet_bytes_max = c.props.maximum_packet_size;
	}
	s->keep_alive_ms = KEEP_ALIVE_S * 1000;
	if (MQTT_HAS(&c.props, MQTT_P_SERVER_KEEP_ALIVE)) {
		s->keep_alive_ms = (uint64_t)c.props.server_keep_alive * 1000;
	}
	s->last_id = 0;
	s->state = SESSION_UP;
	s->up_ms = session_now_ms();
	s->has_noticed = false;
	if (s->wants_replies) {
		send_subscribe(s);
	}
	s->handler->on_up(s->handler->arg);
	return 0;
}

static int handle_puback(struct session *s, const uint8_t *body, uint32_t body_bytes)
{
	struct mqtt_ack a;
	int r = mqtt_decode_ack(body, body_bytes, s->conf->version, MQTT_PUBACK, &a);

	if (r < 0) {
		return r;
	}
	if (a.packet_id == 0 || a.packet_id > SESSION_PENDING_MAX ||
		!s->pending[a.packet_id - 1].owner) {
		return 0; /* an answer to nothing: harmless */
	}
	struct session_tag tag = s->pending[a.packet_id - 1];
	s->pending[a.packet_id - 1].owner = NULL;
	s->pending_count--;
	s->handler->on_ack(s->handler->arg, &tag, a.reason, a.props.reason_string);
	return 0;
}

static int handle_suback(struct session *s, const uint8_t *body, uint32_t body_bytes)
{
	struct mqtt_suback a;
	int r = mqtt_decode_suback(body, body_bytes, s->conf->version, MQTT_SUBACK, &a);

	if (r < 0) {
		return r;
	}
	if (a.packet_id != SUBSCRIBE_ID || a.codes_count != 1) {
		return -MQTT_RC_PROTOCOL_ERROR;
	}
	if (a.codes[0] >= 0x80) {
		session_fail(s, EXIT_REFUSED,
			"the server refused the subscription to $file-response/%.200s: %s",
			s->conf->clientid,
			s->conf->version == MQTT_V5 ? mqtt_rc_name(a.codes[0]) : "no reason given");
		return 0;
	}
	s->replies = SESSION_SUBSCRIBED;
	return 0;
}

static int handle_publish(struct session *s, const uint8_t *packet, uint32_t packet_bytes)
{
	struct mqtt_publish p;
	uint32_t head_bytes;
	int r = mqtt_decode_publish_head(packet, packet_bytes, s->conf->version, &p, &head_bytes);

	if (r != 0) {
		return r < 0 ? r : -MQTT_RC_MALFORMED;
	}
	if (p.qos == 2) {
		return -MQTT_RC_PROTOCOL_ERROR; /* the subscription is for QoS 1 */
	}
	s->handler->on_message(s->handler->arg, &p, (const char *)packet + head_bytes);
	if (p.qos == 1) {
		send_puback(s, p.packet_id);
	}
	return 0;
}

static int handle_disconnect(struct session *s, const uint8_t *body, uint32_t body_bytes)
{
	struct mqtt_disconnect d;
	char detail[256];
	int r = mqtt_decode_disconnect(body, body_bytes, s->conf->version, MQTT_DISCONNECT, &d);

	if (r < 0) {
		return r;
	}
	if (d.reason == MQTT_RC_TAKEN_OVER) {
		session_fail(s, EXIT_REFUSED,
			"another client with the id %.200s has connected; "
			"give one of them another --client-id",
			s->conf->clientid);
	} else if (!is_passing(d.reason)) {
		session_fail(s, EXIT_REFUSED, "the server ended the connection: %s%s",
			mqtt_rc_name(d.reason), detail_of(&d.props.reason_string, detail));
	}
	session_lost(s, "the server ended the connection: %s%s", mqtt_rc_name(d.reason),
		detail_of(&d.props.reason_string, detail));
	return 0;
}

static int handle_packet(struct session *s, uint8_t type, const uint8_t *packet,
	uint32_t header_bytes, uint32_t body_bytes)
{
	const uint8_t *body = packet + header_bytes;

	if (type != MQTT_CONNACK && s->state != SESSION_UP) {
		return -MQTT_RC_PROTOCOL_ERROR;
	}
	switch (type) {
	case MQTT_CONNACK:
		return handle_connack(s, body, body_bytes);
	case MQTT_PUBACK:
		return handle_puback(s, body, body_bytes);
	case MQTT_SUBACK:
		return handle_suback(s, body, body_bytes);
	case MQTT_PUBLISH:
		return handle_publish(s, packet, header_bytes + body_bytes);
	case MQTT_DISCONNECT:
		return handle_disconnect(s, body, body_bytes);
	case MQTT_PINGRESP:
		return 0; /* that bytes came at all has been noted */
	default:
		return -MQTT_RC_PROTOCOL_ERROR;
	}
}

void session_packets_handle(struct session *s)
{
	uint8_t type, flags;
	uint32_t body_bytes, header_bytes;
	struct link_buf *in = &s->link.in;

	while (s->link.fd >= 0 && !s->has_failed && in->end > in->begin) {
		size_t have = in->end - in->begin;
		int r = mqtt_decode_fixed(in->data + in->begin, have, &type, &flags, &body_bytes,
			&header_bytes);
		if (r == MQTT_MORE) {
			return;
		}
		if (r == 0 && body_bytes > LINK_IN_MAX) {
			r = -MQTT_RC_PACKET_TOO_LARGE;
		}
		if (r == 0) {
			if (have < (size_t)header_bytes + body_bytes) {
				return;
			}
			r = handle_packet(s, type, in->data + in->begin, header_bytes, body_bytes);
		}
		if (r < 0) {
			session_lost(s, "the server sent what is not MQTT: %s",
				mqtt_rc_name((uint8_t)-r));
			return;
		}
		/* A handler that lost the connection has emptied the buffer. */
		if (s->link.fd >= 0) {
			link_consume(&s->link, (size_t)header_bytes + body_bytes);
		}
	}
}
