/*
 * PUBLISH: from the head of the packet to a message for subscribers or a command for transfers.
 *
 * A handler may be called again for the same packet, when more of it has come or reading goes on:
 * nothing is changed before it is clear that the packet is taken (setting the same topic alias
 * twice changes nothing).
 *
 * Order of checks: those of the packet (a violation ends the connection); the received set of QoS
 * 2; then for a command its Response Topic, its grammar, admission. What is refused is drained and
 * answered, never stored.
 */
#include "conn.h"

#include <stdlib.h>
#include <string.h>
#include "auth.h"
#include "filecmd.h"
#include "reply.h"
#include "topic.h"

enum { META_BYTES_MAX = 64 * 1024 };

struct alias {
	char *topic; /* owned; NULL: not set */
	uint32_t topic_bytes;
};

/* A PUBLISH that is being handled. */
struct arrival {
	struct mqtt_publish p;   /* its topic resolved */
	const struct input *in;
	uint32_t head_bytes;
	uint32_t have;           /* payload bytes in the input */
	struct filecmd cmd;
	struct upload_id id;
};

static enum take fail(struct conn *c, uint8_t reason)
{
	conn_fail(c, reason);
	return TAKE_LEFT;
}

static enum take fail_memory(struct conn *c)
{
	c->failed = true;
	return TAKE_LEFT;
}

static struct mqtt_str clientid_of(const struct conn *c)
{
	return (struct mqtt_str){c->session->clientid, c->session->clientid_bytes};
}

/* --- topic aliases ---------------------------------------------------------------------------- */

void conn_free_aliases(struct conn *c)
{
	for (uint32_t i = 0; c->aliases && i < c->rt->conf->mqtt.topic_alias_max; i++)
		free(c->aliases[i].topic);
	free(c->aliases);
	c->aliases = NULL;
}

static uint8_t alias_set(struct conn *c, uint16_t number, struct mqtt_str topic)
{
	if (!c->aliases)
		c->aliases = calloc(c->rt->conf->mqtt.topic_alias_max, sizeof(*c->aliases));
	if (!c->aliases)
		return MQTT_RC_SERVER_UNAVAILABLE;
	struct alias *a = &c->aliases[number - 1];
	if (a->topic && a->topic_bytes == topic.bytes &&
		memcmp(a->topic, topic.s, topic.bytes) == 0)
		return 0;
	char *copy = malloc(topic.bytes);
	if (!copy)
		return MQTT_RC_SERVER_UNAVAILABLE;
	memcpy(copy, topic.s, topic.bytes);
	free(a->topic);
	a->topic = copy;
	a->topic_bytes = topic.bytes;
	return 0;
}

/* Puts the real topic into p. 0 or the reason to end the connection. */
static uint8_t alias_resolve(struct conn *c, struct mqtt_publish *p)
{
	if (!MQTT_HAS(&p->props, MQTT_P_TOPIC_ALIAS))
		return 0;
	uint16_t number = p->props.topic_alias;
	if (number > c->rt->conf->mqtt.topic_alias_max)
		return MQTT_RC_TOPIC_ALIAS_INVALID; /* [MQTT-3.3.2-9] */
	if (p->topic.bytes > 0)
		return alias_set(c, number, p->topic);
	const struct alias *a = c->aliases ? &c->aliases[number - 1] : NULL;
	if (!a || !a->topic)
		return MQTT_RC_PROTOCOL_ERROR; /* 3.3.2.3.4 */
	p->topic = (struct mqtt_str){a->topic, a->topic_bytes};
	return 0;
}

/* --- ordinary messages ------------------------------------------------------------------------ */

/* Hands it to the subscribers. The reason for its acknowledgement. */
static uint8_t deliver(struct conn *c, struct mqtt_publish *p, const uint8_t *payload)
{
	/* There are no retained messages: a v3 client's goes to those who are subscribed now. */
	p->retain = false;
	struct message *m = message_new(p, payload, c->session->id, ring_now_ms(c->rt->ring));
	if (!m)
		return MQTT_RC_UNSPECIFIED;
	bool any = broker_publish(c->rt->broker, m);
	message_unref(m);
	return any ? MQTT_RC_SUCCESS : MQTT_RC_NO_MATCHING_SUBSCRIBERS;
}

static enum take take_ordinary(struct conn *c, struct arrival *a, uint32_t *ret_used)
{
	struct mqtt_publish *p = &a->p;
	struct payload pl = {.kind = PAYLOAD_DRAIN, .end = PAYLOAD_ACK, .qos = p->qos,
		.packet_id = p->packet_id, .left = p->payload_bytes - a->have};
	c->last_large = false;
	if (p->retain && c->version >= MQTT_V5)
		return fail(c, MQTT_RC_RETAIN_UNSUPPORTED); /* [MQTT-3.2.2-14] */
	pl.reason = auth_publish(c->rt->conf, clientid_of(c), p->topic);
	if (pl.reason == 0 && p->payload_bytes > c->rt->conf->mqtt.message_bytes_max)
		pl.reason = MQTT_RC_QUOTA_EXCEEDED;
	if (pl.reason == 0 && pl.left == 0)
		pl.reason = deliver(c, p, a->in->data + a->head_bytes);
	else if (pl.reason == 0 && payload_keep(c, &pl, a->in, a->head_bytes, p->payload_bytes) < 0)
		return fail_memory(c);
	*ret_used = a->head_bytes + a->have;
	return payload_begin(c, &pl) < 0 ? TAKE_LEFT : TAKE_DONE;
}

/* --- commands --------------------------------------------------------------------------------- */

/* Begins what is left of the payload, or ends it at once. */
static enum take begin(struct conn *c, const struct arrival *a, struct payload *pl,
	uint32_t *ret_used)
{
	*ret_used = a->head_bytes + a->have;
	pl->left = a->p.payload_bytes - a->have;
	return payload_begin(c, pl) < 0 ? TAKE_LEFT : TAKE_DONE;
}

static enum take refuse(struct conn *c, const struct arrival *a, struct reply *rp, uint8_t reason,
	const char *text, bool is_transient, uint32_t *ret_used)
{
	struct payload pl = {.kind = PAYLOAD_DRAIN, .end = PAYLOAD_FAIL, .reply = rp,
		.reason = reason, .text = text, .is_transient = is_transient};
	/* An answer that is to be withheld is so before the payload, which then is not even
	 * read. */
	if (is_transient && reply_would_hold(rp, text)) {
		reply_fail(rp, reason, text, is_transient);
		pl = (struct payload){.kind = PAYLOAD_DRAIN, .end = PAYLOAD_NOTHING};
	}
	return begin(c, a, &pl, ret_used);
}

/* What comes after an init that waits, waits, too. */
static void do_init(struct conn *c, const struct upload_id *id, const uint8_t *json,
	uint32_t json_bytes, struct reply *rp)
{
	struct uploads *u = c->rt->uploads;
	if (!upload_init(u, id, (const char *)json, json_bytes, rp) &&
		!upload_gate_pass(u, id, &c->gate))
		conn_stop(c, STOP_GATE);
}

static enum take take_init(struct conn *c, const struct arrival *a, struct reply *rp,
	uint32_t *ret_used)
{
	const struct mqtt_publish *p = &a->p;
	struct payload pl = {.reply = rp};
	if (p->payload_bytes > META_BYTES_MAX)
		return refuse(c, a, rp, MQTT_RC_UNSPECIFIED, "invalid_filemeta", false, ret_used);
	*ret_used = a->head_bytes + a->have;
	if (a->have == p->payload_bytes) {
		do_init(c, &a->id, a->in->data + a->head_bytes, p->payload_bytes, rp);
		return TAKE_DONE;
	}
	if (payload_keep(c, &pl, a->in, a->head_bytes, p->payload_bytes) < 0) {
		reply_discard(rp);
		return fail_memory(c);
	}
	return payload_begin(c, &pl) < 0 ? TAKE_LEFT : TAKE_DONE;
}

static void on_resume(void *arg)
{
	struct conn *c = arg;
	conn_go_on(c, STOP_SEGMENT);
}

static enum take take_segment(struct conn *c, const struct arrival *a, struct reply *rp,
	uint32_t *ret_used)
{
	struct uploads *u = c->rt->uploads;
	const uint8_t *payload = a->in->data + a->head_bytes;
	uint32_t payload_bytes = a->p.payload_bytes;
	struct outcome o;
	c->last_large = payload_bytes > c->rt->conf->io.splice_min;
	if (!upload_segment_admit(u, &a->id, &a->cmd, payload_bytes, &o))
		return refuse(c, a, rp, o.reason, o.text, o.is_transient, ret_used);
	if (a->in->buf && a->have == payload_bytes) {
		*ret_used = a->head_bytes + a->have;
		ingest_small(u, &a->id, &a->cmd, a->in->buf, payload, payload_bytes, rp);
		return TAKE_DONE;
	}
	if (!conns_may_take_descriptor(c->rt, true))
		return refuse(c, a, rp, MQTT_RC_QUOTA_EXCEEDED, "quota_exceeded", true, ret_used);
	struct payload pl = {.kind = PAYLOAD_STREAM};
	pl.seg = ingest_begin(u, &a->id, &a->cmd, payload_bytes, a->in->buf, payload, a->have, rp,
		on_resume, c);
	if (!pl.seg) /* answered already */
		pl.kind = PAYLOAD_DRAIN;
	return begin(c, a, &pl, ret_used);
}

static void execute(struct conn *c, const struct upload_id *id, const struct filecmd *cmd,
	struct reply *rp)
{
	switch (cmd->verb) {
	case FILECMD_FIN:
		upload_fin(c->rt->uploads, id, cmd, rp);
		break;
	case FILECMD_ABORT:
		upload_abort(c->rt->uploads, id, rp);
		break;
	case FILECMD_STATUS:
		upload_status(c->rt->uploads, id, rp);
		break;
	case FILECMD_NONE:
	case FILECMD_INIT:
	case FILECMD_SEGMENT:
	case FILECMD_BAD:
		reply_fail(rp, MQTT_RC_UNSPECIFIED, "invalid_file_command", false);
	}
}

/* Is the Response Topic, if there is one, a topic that this client may publish to? */
static bool response_topic_ok(const struct conn *c, const struct mqtt_publish *p)
{
	if (!MQTT_HAS(&p->props, MQTT_P_RESPONSE_TOPIC))
		return true;
	struct mqtt_str topic = p->props.response_topic;
	struct filecmd cmd;
	/* An answer is a message, so one sent to a command's topic would be lost. */
	filecmd_parse(topic.s, topic.bytes, &cmd);
	return cmd.verb == FILECMD_NONE && topic_name_ok(topic.s, topic.bytes) &&
		auth_publish(c->rt->conf, clientid_of(c), topic) == 0;
}

static enum take take_command(struct conn *c, struct arrival *a, uint32_t *ret_used)
{
	bool may_answer = response_topic_ok(c, &a->p);
	struct reply *rp = reply_new(c, &a->p, !may_answer);
	if (!rp)
		return fail_memory(c);
	rp->is_async = a->cmd.is_async;
	rp->is_status = a->cmd.verb == FILECMD_STATUS;
	c->statuses += rp->is_status;
	c->rt->conns->statuses += rp->is_status;
	if (!may_answer)
		return refuse(c, a, rp, MQTT_RC_NOT_AUTHORIZED, "not_authorized", false, ret_used);
	switch (a->cmd.verb) {
	case FILECMD_INIT:
		return take_init(c, a, rp, ret_used);
	case FILECMD_SEGMENT:
		return take_segment(c, a, rp, ret_used);
	case FILECMD_BAD:
		return refuse(c, a, rp, MQTT_RC_UNSPECIFIED, a->cmd.error, false, ret_used);
	case FILECMD_NONE:
	case FILECMD_FIN:
	case FILECMD_ABORT:
	case FILECMD_STATUS:
		break;
	}
	struct payload pl = {.kind = PAYLOAD_DRAIN, .end = PAYLOAD_COMMAND, .reply = rp};
	return begin(c, a, &pl, ret_used);
}

/* --- the packet ------------------------------------------------------------------------------- */

/* A segment waits until it is whole, if it is small, and until its transfer wants it. */
static bool segment_is_due(struct conn *c, struct arrival *a)
{
	if (a->have < a->p.payload_bytes && a->p.payload_bytes <= c->rt->conf->io.splice_min)
		return false;
	if (upload_gate_pass(c->rt->uploads, &a->id, &c->gate))
		return true;
	conn_stop(c, STOP_GATE);
	return false;
}

/* What is missing takes a while to write down, and answers that wait for the journal are all written when it
 * is: so a connection has few of them under way, and only one while all of them have many. */
static bool status_is_due(struct conn *c)
{
	const struct conf *conf = c->rt->conf;
	if (c->statuses == 0 || (c->statuses < conf->mqtt.statuses_max &&
		c->rt->conns->statuses < conf->mqtt.statuses_reactor_max))
		return true;
	conn_stop(c, STOP_REPLIES);
	return false;
}

/* QoS 2: was this packet identifier executed already, or is it being executed? Then its payload is
 * only drained. */
static bool is_repeated(struct conn *c, const struct mqtt_publish *p, uint8_t *ret_end)
{
	if (p->qos != 2)
		return false;
	*ret_end = PAYLOAD_PUBREC;
	if (idset_has(&c->session->received, p->packet_id))
		return true;
	/* Only a copy has DUP set [MQTT-4.3.3-2]; the answer to the original is on its way. */
	*ret_end = PAYLOAD_NOTHING;
	return p->dup && reply_is_pending(c, p->packet_id);
}

static uint8_t check_packet(struct conn *c, struct arrival *a)
{
	if (a->head_bytes > c->rt->conf->mqtt.head_bytes_max)
		return MQTT_RC_PACKET_TOO_LARGE;
	if (a->p.props.subids_count > 0)
		return MQTT_RC_PROTOCOL_ERROR; /* [MQTT-3.3.4-6] */
	return alias_resolve(c, &a->p);
}

static enum take take_arrival(struct conn *c, struct arrival *a, uint32_t *ret_used)
{
	struct payload pl = {.kind = PAYLOAD_DRAIN, .qos = a->p.qos, .packet_id = a->p.packet_id};
	filecmd_parse(a->p.topic.s, a->p.topic.bytes, &a->cmd);
	a->id = (struct upload_id){c->session->clientid, c->session->clientid_bytes, a->cmd.fileid,
		(uint32_t)a->cmd.fileid_bytes, c->user};
	if (is_repeated(c, &a->p, &pl.end))
		return begin(c, a, &pl, ret_used);
	/* Only QoS 2 is held to Receive Maximum [MQTT-3.3.4-7]: clients in use queue all their QoS
	 * 1 segments at once, whatever they were told, and these we bound ourselves, by not
	 * reading on. */
	if (c->version >= MQTT_V5 && a->p.qos == 2 && c->unacked >= c->rt->conf->mqtt.receive_max)
		return fail(c, MQTT_RC_RECEIVE_MAX_EXCEEDED);
	if (a->cmd.verb == FILECMD_STATUS && !status_is_due(c))
		return TAKE_MORE;
	if (a->cmd.verb == FILECMD_SEGMENT && !segment_is_due(c, a))
		return TAKE_MORE;
	c->unacked += a->p.qos == 2;
	STAT_ADD(c->rt, publishes, 1);
	if (a->cmd.verb == FILECMD_NONE)
		return take_ordinary(c, a, ret_used);
	return take_command(c, a, ret_used);
}

enum take conn_publish(struct conn *c, const struct input *in, uint32_t *ret_used)
{
	struct arrival a = {.in = in};
	int rc = mqtt_decode_publish_head(in->data, in->bytes, c->version, &a.p, &a.head_bytes);
	if (rc == MQTT_MORE && in->bytes < c->rt->conf->mqtt.head_bytes_max)
		return TAKE_MORE;
	if (rc == MQTT_MORE)
		return fail(c, MQTT_RC_PACKET_TOO_LARGE);
	if (rc < 0)
		return fail(c, (uint8_t)-rc);
	a.have = in->bytes - a.head_bytes;
	if (a.have > a.p.payload_bytes)
		a.have = a.p.payload_bytes;
	uint8_t reason = check_packet(c, &a);
	if (reason)
		return fail(c, reason);
	enum take taken = take_arrival(c, &a, ret_used);
	return c->state == CONN_OPEN ? taken : TAKE_LEFT;
}

void conn_publish_whole(struct conn *c, const uint8_t *data, uint32_t bytes, struct reply *rp)
{
	struct mqtt_publish p;
	uint32_t head_bytes;
	/* It was decoded and checked when it began, and nothing has changed since. */
	int rc = mqtt_decode_publish_head(data, bytes, c->version, &p, &head_bytes);
	if (rc == 0 && alias_resolve(c, &p) == 0 && !rp) {
		reply_plain(c, p.qos, p.packet_id, deliver(c, &p, data + head_bytes));
	} else if (rc == 0 && rp) {
		struct filecmd cmd;
		filecmd_parse(rp->topic, rp->topic_bytes, &cmd);
		struct upload_id id = {rp->clientid, rp->clientid_bytes, cmd.fileid,
			(uint32_t)cmd.fileid_bytes, c->user};
		do_init(c, &id, data + head_bytes, p.payload_bytes, rp);
	}
}

void conn_command_whole(struct conn *c, struct reply *rp)
{
	struct filecmd cmd;
	filecmd_parse(rp->topic, rp->topic_bytes, &cmd);
	struct upload_id id = {rp->clientid, rp->clientid_bytes, cmd.fileid,
		(uint32_t)cmd.fileid_bytes, c->user};
	execute(c, &id, &cmd, rp);
}

bool conn_peek_is_large(const struct conn *c, const uint8_t *data, uint32_t bytes,
	uint32_t *ret_head_bytes)
{
	struct mqtt_publish p;
	struct filecmd cmd;
	if (mqtt_decode_publish_head(data, bytes, c->version, &p, ret_head_bytes) ||
		p.payload_bytes <= c->rt->conf->io.splice_min)
		return false;
	/* One with an alias is looked up when it is handled; a wrong guess costs a copy. */
	if (p.topic.bytes == 0)
		return true;
	filecmd_parse(p.topic.s, p.topic.bytes, &cmd);
	return cmd.verb == FILECMD_SEGMENT;
}
