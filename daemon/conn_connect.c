/*
 * CONNECT: on the reactor that received it, then on the one that owns the client id.
 *
 *     receiving reactor: decode ── refused ──► CONNACK, close
 *                           │ empty client id: one is assigned that is owned here
 *                           ▼
 *               owned here? ── no ──► its bytes are kept, it moves, and begins again there
 *                           │ yes
 *                           ▼
 *     owner: old connection has sent what is not handled yet? ── yes ──► its heir waits a little
 *                           │ no
 *                           ▼
 *            session attached (an old connection is told 0x8E) ──► CONNACK ──► what waits is sent
 *
 * So CONNACKs and takeovers of one client id happen on one thread, in order of arrival; of several that wait
 * only the last one gets a CONNACK. The waiting is for programs that send with QoS 0, leave, and are followed
 * by the next one at once, as in a script: what they sent is in our socket, and would be lost.
 *
 * A user name is taken as the client says it, and a password unseen: there is no authentication yet.
 */
#include "conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "auth.h"
#include "filecmd.h"
#include "log.h"

enum { ASSIGNED_RANDOM_BYTES = 10, CONNACK_BYTES_MAX = 1024 };

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* What v3 clients are told instead; 0: nothing, the connection is closed. */
static uint8_t v3_code(uint8_t reason)
{
	switch (reason) {
	case MQTT_RC_UNSUPPORTED_VERSION:
		return 1;
	case MQTT_RC_BAD_CLIENTID:
		return 2;
	case MQTT_RC_SERVER_UNAVAILABLE:
	case MQTT_RC_QUOTA_EXCEEDED:
	case MQTT_RC_SERVER_SHUTDOWN:
		return 3;
	case MQTT_RC_NOT_AUTHORIZED:
		return 5;
	default:
		return 0;
	}
}

static enum take refuse(struct conn *c, uint8_t version, uint8_t reason)
{
	uint8_t packet[16];
	/* A later version that nobody knows is told so in the form of 5.0 [MQTT-3.1.2-2], an
	 * earlier one in that of 3.1.1. */
	uint8_t form = version >= MQTT_V5 ? MQTT_V5 : MQTT_V311;
	struct mqtt_connack ack = {.code = form == MQTT_V5 ? reason : v3_code(reason)};
	if (ack.code != 0) {
		size_t bytes = mqtt_encode_connack(packet, sizeof(packet), form, &ack);
		conn_send(c, packet, (uint32_t)bytes, NULL, 0);
	}
	log_debug("connection refused", LU("reason", reason), NULL);
	conn_end(c, 0, false);
	return TAKE_LEFT;
}

/* "sluice-<random>", owned by this reactor, into a buffer that the caller frees. NULL: out of
 * memory or randomness. */
static char *assign_clientid(const struct conn *c, uint32_t *ret_bytes)
{
	static const char prefix[] = "sluice-", digits[] = "0123456789abcdef";
	enum {
		PREFIX_BYTES = sizeof(prefix) - 1,
		BYTES = PREFIX_BYTES + 2 * ASSIGNED_RANDOM_BYTES,
	};
	uint8_t raw[ASSIGNED_RANDOM_BYTES];
	char *id = malloc(BYTES);
	if (!id)
		return NULL;
	memcpy(id, prefix, PREFIX_BYTES);
	do {
		if (sys_random(raw, sizeof(raw)) < 0) {
			free(id);
			return NULL;
		}
		for (int i = 0; i < ASSIGNED_RANDOM_BYTES; i++) {
			id[PREFIX_BYTES + 2 * i] = digits[raw[i] >> 4];
			id[PREFIX_BYTES + 2 * i + 1] = digits[raw[i] & 15];
		}
	} while (reactor_owner(id, BYTES, c->rt->count) != c->rt->idx);
	*ret_bytes = BYTES;
	return id;
}

/* 0, or why it is refused. */
static uint8_t check(const struct conn *c, const struct mqtt_connect *cn)
{
	if (MQTT_HAS(&cn->props, MQTT_P_AUTH_METHOD))
		return MQTT_RC_BAD_AUTH_METHOD;
	if (cn->has_will && cn->will_retain && cn->version >= MQTT_V5)
		return MQTT_RC_RETAIN_UNSUPPORTED; /* [MQTT-3.2.2-13] */
	if (cn->has_will)
		return auth_publish(c->rt->conf, cn->clientid, cn->will_topic);
	return 0;
}

/* The will as a message of the session. One that spells a command is never executed, so it is not
 * even kept. */
static int set_will(struct session *s, const struct mqtt_connect *cn, uint64_t now_ms)
{
	struct filecmd cmd;
	if (!cn->has_will)
		return 0;
	filecmd_parse(cn->will_topic.s, cn->will_topic.bytes, &cmd);
	if (cmd.verb != FILECMD_NONE)
		return 0;
	struct mqtt_publish p = {.qos = cn->will_qos, .topic = cn->will_topic,
		.props = cn->will_props, .payload_bytes = cn->will_payload.bytes};
	s->will = message_new(&p, cn->will_payload.s, s->id, now_ms);
	if (MQTT_HAS(&cn->will_props, MQTT_P_WILL_DELAY))
		s->will_delay_s = cn->will_props.will_delay;
	return s->will ? 0 : -ENOMEM;
}

/* Puts the limits of both sides into connection and session; *ret_expiry_told: v5, it is less than
 * was asked for. */
static void set_limits(struct conn *c, struct session *s, const struct mqtt_connect *cn,
	bool *ret_expiry_told)
{
	const struct conf *conf = c->rt->conf;
	uint32_t asked_s = cn->clean_start ? 0 : UINT32_MAX; /* what v3 means */
	if (cn->version >= MQTT_V5)
		asked_s = cn->props.session_expiry;
	s->version = cn->version;
	s->expiry_s = smaller(asked_s, conf->mqtt.session_expiry_max_s);
	*ret_expiry_told = cn->version >= MQTT_V5 && s->expiry_s != asked_s;
	if (MQTT_HAS(&cn->props, MQTT_P_RECEIVE_MAX))
		s->client_receive_max = cn->props.receive_max;
	if (MQTT_HAS(&cn->props, MQTT_P_MAXIMUM_PACKET_SIZE))
		s->client_packet_max = cn->props.maximum_packet_size;
	c->no_problem_info = MQTT_HAS(&cn->props, MQTT_P_REQUEST_PROBLEM_INFO) &&
		!cn->props.request_problem_info;
	c->expiry_was_0 = asked_s == 0;
	c->keep_alive_s = cn->keep_alive_s;
	uint32_t max_s = conf->mqtt.keep_alive_max_s;
	if (max_s > 0 && (cn->keep_alive_s == 0 || cn->keep_alive_s > max_s))
		c->keep_alive_s = (uint16_t)smaller(max_s, UINT16_MAX);
}

/* Only what differs from the default of the specification is sent. */
static void fill_props(const struct conn *c, const struct mqtt_connect *cn, bool is_assigned,
	bool expiry_told, struct mqtt_props *p)
{
	const struct conf *conf = c->rt->conf;
	const struct session *s = c->session;
	p->has = 1u << MQTT_P_RECEIVE_MAX | 1u << MQTT_P_RETAIN_AVAILABLE |
		1u << MQTT_P_SHARED_AVAILABLE;
	p->receive_max = (uint16_t)smaller(conf->mqtt.receive_max, UINT16_MAX);
	/* The protocol's own limit goes without saying; Paho refuses to read it. */
	if (conf->mqtt.packet_bytes_max < MQTT_REMAINING_MAX)
		p->has |= 1u << MQTT_P_MAXIMUM_PACKET_SIZE;
	p->maximum_packet_size = conf->mqtt.packet_bytes_max;
	if (expiry_told)
		p->has |= 1u << MQTT_P_SESSION_EXPIRY;
	p->session_expiry = s->expiry_s;
	if (conf->mqtt.topic_alias_max > 0)
		p->has |= 1u << MQTT_P_TOPIC_ALIAS_MAX;
	p->topic_alias_max = (uint16_t)conf->mqtt.topic_alias_max;
	if (c->keep_alive_s != cn->keep_alive_s)
		p->has |= 1u << MQTT_P_SERVER_KEEP_ALIVE;
	p->server_keep_alive = c->keep_alive_s;
	if (is_assigned)
		p->has |= 1u << MQTT_P_ASSIGNED_CLIENTID;
	p->assigned_clientid = (struct mqtt_str){s->clientid, s->clientid_bytes};
}

static void send_connack(struct conn *c, const struct mqtt_connect *cn, bool is_present,
	bool is_assigned, bool expiry_told)
{
	static const char prefix[] = "$file-response/";
	uint32_t clientid_bytes = c->session->clientid_bytes;
	struct mqtt_connack ack = {.session_present = is_present};
	fill_props(c, cn, is_assigned, expiry_told, &ack.props);
	size_t info_bytes = sizeof(prefix) - 1 + clientid_bytes,
		bytes_max = CONNACK_BYTES_MAX + info_bytes;
	char *memory = malloc(bytes_max + info_bytes);
	if (!memory) {
		c->failed = true;
		return;
	}
	uint8_t *packet = (uint8_t *)memory + info_bytes;
	memcpy(memory, prefix, sizeof(prefix) - 1);
	memcpy(memory + sizeof(prefix) - 1, c->session->clientid, clientid_bytes);
	if (cn->props.request_response_info && info_bytes <= UINT16_MAX)
		ack.props.has |= 1u << MQTT_P_RESPONSE_INFO;
	ack.props.response_info = (struct mqtt_str){memory, (uint32_t)info_bytes};
	size_t bytes = mqtt_encode_connack(packet, bytes_max, c->version, &ack);
	if (bytes > c->session->client_packet_max) {
		ack.props.has &= ~(1u << MQTT_P_RESPONSE_INFO);
		bytes = mqtt_encode_connack(packet, bytes_max, c->version, &ack);
	}
	conn_send(c, packet, (uint32_t)bytes, NULL, 0);
	free(memory);
}

static void log_connected(const struct conn *c)
{
	char peer[64];
	if (!log_enabled(CONF_LOG_DEBUG))
		return;
	sock_peer_name(c->fd, peer, sizeof(peer));
	log_debug("client connected",
		LS("clientid", c->session->clientid, c->session->clientid_bytes),
		LZ("peer", peer), LU("version", c->version), NULL);
}

/* On the owner: the session, CONNACK. received: what has come so far, of which it is only now known
 * whose it is. */
static enum take open_session(struct conn *c, const struct mqtt_connect *cn, bool is_assigned,
	uint32_t received)
{
	struct session *s = session_find(c->rt->broker, cn->clientid.s, cn->clientid.bytes);
	struct conn *old;
	bool is_present, expiry_told;
	enum turn turn = conn_take_turn(c, s ? s->conn : NULL);
	if (turn == TURN_LATER)
		return TAKE_MORE;
	if (turn == TURN_PAST) {
		conn_end(c, 0, false);
		return TAKE_LEFT;
	}
	int err = conn_user_begin(c, cn);
	if (!err)
		err = session_attach(c->rt->broker, c, cn->clientid.s, cn->clientid.bytes, cn->clean_start,
			&s, &is_present, &old);
	if (err)
		return refuse(c, cn->version,
			err == -ENOSPC ? MQTT_RC_QUOTA_EXCEEDED : MQTT_RC_SERVER_UNAVAILABLE);
	if (old)
		conn_taken_over(old);
	c->session = s;
	c->version = cn->version;
	conn_rate_begin(c, cn, received);
	set_limits(c, s, cn, &expiry_told);
	err = set_will(s, cn, ring_now_ms(c->rt->ring));
	c->state = CONN_OPEN;
	if (err) {
		c->failed = true;
		return TAKE_LEFT;
	}
	send_connack(c, cn, is_present, is_assigned, expiry_told);
	session_resume(s);
	conn_check_rate(c); /* what stands behind CONNECT waits, too */
	conn_watch(c);
	log_connected(c);
	return TAKE_DONE;
}

enum take conn_connect(struct conn *c, const struct input *in, uint32_t *ret_used)
{
	struct mqtt_connect cn;
	uint8_t type, flags;
	uint32_t remaining, header_bytes;
	mqtt_decode_fixed(in->data, in->bytes, &type, &flags, &remaining, &header_bytes);
	int rc = mqtt_decode_connect(in->data + header_bytes, remaining, &cn);
	if (rc < 0)
		return refuse(c, cn.version, (uint8_t)-rc);
	char *assigned = NULL;
	if (cn.clientid.bytes == 0) {
		assigned = assign_clientid(c, &cn.clientid.bytes);
		if (!assigned)
			return refuse(c, cn.version, MQTT_RC_SERVER_UNAVAILABLE);
		cn.clientid.s = assigned;
	}
	uint8_t reason = check(c, &cn);
	uint32_t owner = reactor_owner(cn.clientid.s, cn.clientid.bytes, c->rt->count);
	enum take taken = TAKE_LEFT;
	if (reason) {
		refuse(c, cn.version, reason);
	} else if (owner != c->rt->idx) {
		if (conn_stash(c, in->data, in->bytes) == 0) {
			c->move_to = (uint16_t)owner;
			c->state = CONN_MOVING;
		}
	} else {
		taken = open_session(c, &cn, assigned != NULL, in->bytes);
	}
	free(assigned);
	*ret_used = header_bytes + remaining;
	return taken;
}
