/*
 * sim_client.h.
 */
#include "sim_client.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mqtt.h"
#include "sha256.h"

static const char *const verb_names[] = {"init", "segment", "fin", "abort", "status"};

/* --- commands --------------------------------------------------------------------------------- */

static struct cmd *cmd_find(struct client *c, uint16_t pid)
{
	for (int i = 0; i < MODEL_COMMANDS_MAX; i++) {
		if (c->cmds[i].used && c->cmds[i].pid == pid)
			return &c->cmds[i];
	}
	return NULL;
}

uint32_t client_outstanding(const struct client *c)
{
	uint32_t n = 0;
	for (int i = 0; i < MODEL_COMMANDS_MAX; i++)
		n += c->cmds[i].used;
	return n;
}

static bool has_bit(const uint8_t *set, uint16_t pid)
{
	return set[pid / 8] & 1u << pid % 8;
}

static void set_bit(uint8_t *set, uint16_t pid)
{
	set[pid / 8] |= (uint8_t)(1u << pid % 8);
}

static void cmd_close_if_through(struct client *c, struct cmd *cmd)
{
	if ((cmd->qos > 0 && !cmd->acked) || (cmd->wants_response && !cmd->responded))
		return;
	model_lost(cmd); /* if its result is not known */
	set_bit(c->over, cmd->pid);
	cmd->used = false;
}

static void lose_all(struct client *c)
{
	for (int i = 0; i < MODEL_COMMANDS_MAX; i++) {
		if (c->cmds[i].used)
			model_lost(&c->cmds[i]);
		c->cmds[i].used = false;
	}
}

static void hex_of(const uint8_t *bytes, char *ret)
{
	for (int i = 0; i < 32; i++)
		snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
}

static void make_topic(const struct cmd *cmd, char *ret, size_t ret_max)
{
	const struct file *f = cmd->file;
	const char *root = cmd->is_async ? "$file-async" : "$file";
	char sum[72] = "";
	if (cmd->has_sum) {
		sum[0] = '/';
		hex_of(cmd->sum, sum + 1);
	}
	switch (cmd->verb) {
	case VERB_SEGMENT:
		snprintf(ret, ret_max, "%s/%s/%" PRIu64 "%s", root, f->id,
			(uint64_t)cmd->from * f->block_bytes, sum);
		break;
	case VERB_FIN:
		snprintf(ret, ret_max, "%s/%s/fin/%" PRIu64 "%s", root, f->id,
			(uint64_t)cmd->size * f->block_bytes, sum);
		break;
	case VERB_INIT:
	case VERB_ABORT:
	case VERB_STATUS:
		snprintf(ret, ret_max, "%s/%s/%s", root, f->id, verb_names[cmd->verb]);
	}
}

/* The payload, in the simulator's memory. */
static uint8_t *make_payload(struct cmd *cmd, uint32_t *ret_bytes)
{
	const struct file *f = cmd->file;
	uint8_t *payload;
	*ret_bytes = 0;
	if (cmd->verb == VERB_SEGMENT) {
		*ret_bytes = (cmd->to - cmd->from) * f->block_bytes;
		payload = sim_alloc(*ret_bytes + 1);
		model_fill(f, cmd->stamp, (uint64_t)cmd->from * f->block_bytes, *ret_bytes, payload);
		if (cmd->has_sum) {
			struct sha256 sha;
			sha256_init(&sha);
			sha256_update(&sha, payload, *ret_bytes);
			sha256_digest(&sha, cmd->sum);
		}
		if (cmd->wrong_sum)
			payload[sim_below(*ret_bytes)] ^= 0x20;
		return payload;
	}
	payload = sim_alloc(400);
	if (cmd->verb == VERB_INIT) {
		int n = snprintf((char *)payload, 400, "{\"name\":\"%s.bin\"", f->id);
		if (cmd->size != UINT32_MAX)
			n += snprintf((char *)payload + n, 400 - (size_t)n, ",\"size\":%" PRIu64,
				(uint64_t)cmd->size * f->block_bytes);
		n += snprintf((char *)payload + n, 400 - (size_t)n, "}");
		*ret_bytes = (uint32_t)n;
	}
	return payload;
}

static void send_publish(struct client *c, struct cmd *cmd, bool is_dup)
{
	char topic[200];
	uint8_t head[300];
	uint32_t payload_bytes;
	uint8_t *payload = make_payload(cmd, &payload_bytes);
	make_topic(cmd, topic, sizeof(topic));
	struct mqtt_publish p = {.qos = cmd->qos, .dup = is_dup && cmd->qos > 0, .packet_id = cmd->pid,
		.topic = {topic, (uint32_t)strlen(topic)}, .payload_bytes = payload_bytes};
	size_t head_bytes = mqtt_encode_publish_head(head, sizeof(head), c->version, &p);
	SIM_TRACE("send", cmd->seq, cmd->pid, "%-5s sends %u: %s pid %u qos %u%s%s, %u bytes, stamp %u%s",
		c->id, cmd->seq, topic, cmd->pid, cmd->qos, p.dup ? " dup" : "",
		cmd->is_async ? " async" : "", payload_bytes, cmd->stamp,
		cmd->wrong_sum ? ", corrupted" : "");
	net_send(c->sock, head, (uint32_t)head_bytes);
	net_send(c->sock, payload, payload_bytes);
	sim_free(payload);
}

bool client_command(struct client *c, const struct cmd *template, bool is_dup)
{
	struct cmd *cmd = NULL;
	for (int i = 0; i < MODEL_COMMANDS_MAX && !cmd; i++)
		cmd = c->cmds[i].used ? NULL : &c->cmds[i];
	if (!cmd || !c->online || c->pid == UINT16_MAX)
		return false;
	*cmd = *template;
	cmd->used = true;
	cmd->seq = ++c->seq;
	cmd->pid = cmd->qos ? ++c->pid : 0;
	/* Of QoS 0 the answer has no identifier to know it by. */
	cmd->wants_response = c->subscribed && cmd->qos > 0;
	cmd->sent_ns = sim.now_ns;
	/* One that says of itself that it is a repetition may be taken for one: then its
	 * acknowledgement promises nothing. */
	cmd->is_dup = is_dup && cmd->qos > 0;
	model_sent(cmd);
	send_publish(c, cmd, is_dup);
	cmd_close_if_through(c, cmd);
	return true;
}

void client_resend(struct client *c, const struct cmd *cmd)
{
	struct cmd *again = cmd_find(c, cmd->pid);
	/* One that fails is forgotten with its answer: sent again, it would be another command. */
	if (!again || again->qos != 2 || again->acked || again->received || again->wrong_sum ||
		model.faults || (again->verb != VERB_SEGMENT && again->verb != VERB_STATUS))
		return;
	again->resent = true;
	send_publish(c, again, true);
}

/* --- answers ---------------------------------------------------------------------------------- */

/* Of v5 the acknowledgement says it all, but what a fin or a status found; of v3 the message. */
static bool ack_decides(const struct client *c, const struct cmd *cmd)
{
	if (cmd->verb == VERB_STATUS)
		return false;
	if (cmd->verb == VERB_FIN)
		return c->version >= MQTT_V5 && !cmd->is_async && !cmd->wants_response;
	if (c->version >= MQTT_V5)
		return true;
	return !cmd->wants_response && !model.faults && !cmd->wrong_sum && cmd->verb == VERB_SEGMENT;
}

static void result(struct cmd *cmd, const struct answer_seen *a)
{
	SIM_TRACE("result", cmd->seq, a->reason, "%-5s %s %u: %s", cmd->file->client->id,
		verb_names[cmd->verb], cmd->seq, a->reason < 0x80 ? "done" : a->text);
	if (cmd->is_dup && cmd->verb == VERB_SEGMENT && a->reason < 0x80)
		model_lost(cmd);
	else
		model_result(cmd, a);
}

static void on_ack(struct client *c, uint8_t type, const uint8_t *body, uint32_t bytes)
{
	struct mqtt_ack ack;
	if (mqtt_decode_ack(body, bytes, c->version, type, &ack) < 0)
		sim_fail("%s: an acknowledgement that breaks the protocol", c->id);
	struct cmd *cmd = cmd_find(c, ack.packet_id);
	bool may_repeat = type != MQTT_PUBACK && (cmd ? cmd->resent : has_bit(c->over, ack.packet_id));
	if (!cmd && !may_repeat)
		sim_fail("%s: packet %u is acknowledged, but %s", c->id, ack.packet_id,
			has_bit(c->over, ack.packet_id) ? "it was before" : "was never sent");
	if (type == MQTT_PUBREC && (!cmd || ack.reason < 0x80)) {
		uint8_t packet[8];
		struct mqtt_ack rel = {.packet_id = ack.packet_id};
		size_t n = mqtt_encode_ack(packet, sizeof(packet), c->version, MQTT_PUBREL, &rel);
		net_send(c->sock, packet, (uint32_t)n);
	}
	if (!cmd || (cmd->received && type == MQTT_PUBREC) || (cmd->acked && may_repeat))
		return;
	if (cmd->acked || (type == MQTT_PUBACK ? cmd->qos != 1 : cmd->qos != 2))
		sim_fail("%s: packet %u is acknowledged twice, or wrongly", c->id, ack.packet_id);
	SIM_TRACE("ack", ack.packet_id, ack.reason, "%-5s gets %s of %u, reason %02x", c->id,
		mqtt_type_name(type), cmd->seq, ack.reason);
	if (type != MQTT_PUBCOMP) {
		struct answer_seen a = {.reason = ack.reason};
		snprintf(a.text, sizeof(a.text), "%.*s", (int)ack.props.reason_string.bytes,
			ack.props.reason_string.s ? ack.props.reason_string.s : "");
		a.text[strcspn(a.text, ":")] = 0;
		cmd->reason = ack.reason;
		cmd->received = type == MQTT_PUBREC;
		if (!cmd->known && ack_decides(c, cmd))
			result(cmd, &a);
	}
	cmd->acked = type != MQTT_PUBREC || ack.reason >= 0x80;
	cmd_close_if_through(c, cmd);
}

static uint64_t number_behind(const char *text, const char *key, uint64_t otherwise)
{
	const char *at = strstr(text, key);
	return at ? strtoull(at + strlen(key), NULL, 10) : otherwise;
}

static void word_behind(const char *text, const char *key, char *ret, size_t ret_max)
{
	const char *at = strstr(text, key);
	at = at ? at + strlen(key) : "";
	snprintf(ret, ret_max, "%.*s", (int)strcspn(at, "\""), at);
}

static void parse_answer(const char *json, struct answer_seen *a)
{
	char digest[72];
	*a = (struct answer_seen){.reason = (uint8_t)number_behind(json, "\"reason_code\":", 255)};
	word_behind(json, "\"reason_description\":\"", a->text, sizeof(a->text));
	word_behind(json, "\"state\":\"", a->state, sizeof(a->state));
	a->has_status = strstr(json, "\"status\":{") != NULL;
	a->size = number_behind(json, "\"size\":", UINT64_MAX);
	a->truncated = strstr(json, "\"truncated\":true") != NULL;
	word_behind(json, "\"actual\":\"", digest, sizeof(digest));
	a->has_actual = strlen(digest) == 64;
	for (int i = 0; i < 32 && a->has_actual; i++) {
		unsigned byte = 0;
		sscanf(digest + 2 * i, "%2x", &byte);
		a->actual[i] = (uint8_t)byte;
	}
	const char *at = strstr(json, "\"missing\":[");
	a->has_missing = at != NULL;
	for (at = at ? at + 11 : ""; *at == '[' || *at == ',';) {
		char *end;
		at += strspn(at, "[,");
		a->missing[a->missing_count][0] = strtoull(at, &end, 10);
		a->missing[a->missing_count++][1] = strtoull(end + 1, &end, 10);
		at = end + 1;
	}
}

static void on_response(struct client *c, const char *json, bool is_dup)
{
	struct answer_seen a;
	uint64_t pid = number_behind(json, "\"packet_id\":", 0);
	struct cmd *cmd = pid ? cmd_find(c, (uint16_t)pid) : NULL;
	parse_answer(json, &a);
	if (pid > c->pid)
		sim_fail("%s: an answer to what was never sent: %s", c->id, json);
	if (pid && !is_dup && has_bit(c->answered, (uint16_t)pid))
		sim_fail("%s: answered twice: %s", c->id, json);
	set_bit(c->answered, (uint16_t)pid);
	if (!cmd || !cmd->wants_response || cmd->responded)
		return;
	SIM_TRACE("response", pid, a.reason, "%-5s gets %s", c->id, json);
	cmd->responded = true;
	if ((cmd->acked || cmd->received) && !cmd->is_async && c->version >= MQTT_V5 &&
		cmd->reason != a.reason)
		sim_fail("%s: reason %02x in the acknowledgement, %02x in the answer", c->id,
			cmd->reason, a.reason);
	if (cmd->verb == VERB_STATUS) {
		cmd->file->status = a;
		cmd->file->has_status = true;
	}
	if (!cmd->known && !ack_decides(c, cmd))
		result(cmd, &a);
	cmd_close_if_through(c, cmd);
}

static void on_publish(struct client *c, const uint8_t *packet, uint32_t bytes)
{
	struct mqtt_publish p;
	uint32_t head_bytes;
	uint8_t ack[8];
	char json[4096];
	if (mqtt_decode_publish_head(packet, bytes, c->version, &p, &head_bytes) != 0)
		sim_fail("%s: a PUBLISH that breaks the protocol", c->id);
	struct mqtt_ack a = {.packet_id = p.packet_id};
	if (p.qos == 1) {
		size_t n = mqtt_encode_ack(ack, sizeof(ack), c->version, MQTT_PUBACK, &a);
		net_send(c->sock, ack, (uint32_t)n);
	}
	snprintf(json, sizeof(json), "%.*s", (int)p.payload_bytes, (const char *)packet + head_bytes);
	on_response(c, json, p.dup);
}

/* --- the connection --------------------------------------------------------------------------- */

static void offline(struct client *c)
{
	c->sock = NULL;
	c->online = c->subscribed = c->dead = c->paused = false;
	c->in_bytes = 0;
	c->offline_ns = sim.now_ns;
	lose_all(c);
}

void client_on_end(struct client *c)
{
	SIM_TRACE("over", c->idx, 0, "%-5s sees the end of its connection", c->id);
	struct sock *s = c->sock;
	offline(c);
	net_release(s);
}

void client_leave(struct client *c, enum client_end how)
{
	uint8_t packet[8];
	struct mqtt_disconnect d = {0};
	struct sock *s = c->sock;
	if (!s)
		return;
	SIM_TRACE("leave", c->idx, how, "%-5s leaves, in way %d", c->id, how);
	if (how == CLIENT_DISCONNECT) {
		size_t n = mqtt_encode_disconnect(packet, sizeof(packet), c->version, MQTT_DISCONNECT, &d);
		net_send(s, packet, (uint32_t)n);
	}
	if (how == CLIENT_DISCONNECT || how == CLIENT_FIN)
		net_end(s);
	if (how == CLIENT_RESET)
		net_abort(s);
	if (how == CLIENT_FORGET)
		net_go_dead(s);
	offline(c);
	net_release(s);
}

void client_connect(struct client *c)
{
	uint8_t packet[256];
	if (c->sock) /* the daemon will see to the old one */
		client_leave(c, sim_chance(5000) ? CLIENT_FORGET : CLIENT_RESET);
	c->sock = net_connect(c);
	if (!c->sock)
		return;
	SIM_TRACE("connect", c->idx, c->version, "%-5s connects, version %u", c->id, c->version);
	memset(c->over, 0, sizeof(c->over));
	memset(c->answered, 0, sizeof(c->answered));
	struct mqtt_connect cn = {.version = c->version, .clean_start = !c->is_persistent,
		.keep_alive_s = c->keep_alive_s, .clientid = {c->id, (uint32_t)strlen(c->id)}};
	if (c->user) {
		cn.has_username = true;
		cn.username = (struct mqtt_str){c->user, (uint32_t)strlen(c->user)};
	}
	if (c->is_persistent && c->version >= MQTT_V5) {
		cn.props.has = 1u << MQTT_P_SESSION_EXPIRY;
		cn.props.session_expiry = 3600;
	}
	size_t n = mqtt_encode_connect(packet, sizeof(packet), &cn);
	net_send(c->sock, packet, (uint32_t)n);
	if (c->wants_responses) {
		char filter[64];
		snprintf(filter, sizeof(filter), "$file-response/%s", c->id);
		struct mqtt_sub sub = {.filter = {filter, (uint32_t)strlen(filter)}, .options = 1};
		n = mqtt_encode_subscribe(packet, sizeof(packet), c->version, ++c->pid, NULL, &sub, 1);
		net_send(c->sock, packet, (uint32_t)n);
	}
}

void client_ping(struct client *c)
{
	uint8_t packet[2];
	if (c->online)
		net_send(c->sock, packet, (uint32_t)mqtt_encode_ping(packet, sizeof(packet), MQTT_PINGREQ));
}

/* --- what comes ------------------------------------------------------------------------------- */

static void on_packet(struct client *c, uint8_t type, const uint8_t *packet, uint32_t header_bytes,
	uint32_t bytes)
{
	struct mqtt_connack connack;
	struct mqtt_disconnect d;
	const uint8_t *body = packet + header_bytes;
	switch ((enum mqtt_type)type) {
	case MQTT_CONNACK:
		if (c->online || mqtt_decode_connack(body, bytes - header_bytes, c->version, &connack))
			sim_fail("%s: a CONNACK that breaks the protocol", c->id);
		if (connack.code)
			sim_fail("%s: refused with %02x", c->id, connack.code);
		c->online = true;
		SIM_TRACE("connack", c->idx, connack.session_present, "%-5s is online, session %s", c->id,
			connack.session_present ? "present" : "new");
		break;
	case MQTT_PUBACK:
	case MQTT_PUBREC:
	case MQTT_PUBCOMP:
		on_ack(c, type, body, bytes - header_bytes);
		break;
	case MQTT_SUBACK:
		c->subscribed = true;
		break;
	case MQTT_PUBLISH:
		on_publish(c, packet, bytes);
		break;
	case MQTT_DISCONNECT:
		if (mqtt_decode_disconnect(body, bytes - header_bytes, c->version, type, &d))
			sim_fail("%s: a DISCONNECT that breaks the protocol", c->id);
		SIM_TRACE("disconnect", c->idx, d.reason, "%-5s is disconnected, reason %02x", c->id, d.reason);
		break;
	case MQTT_PINGRESP:
		break;
	case MQTT_CONNECT:
	case MQTT_PUBREL:
	case MQTT_SUBSCRIBE:
	case MQTT_UNSUBSCRIBE:
	case MQTT_UNSUBACK:
	case MQTT_PINGREQ:
	case MQTT_AUTH:
		sim_fail("%s: got %s", c->id, mqtt_type_name(type));
	}
}

void client_on_bytes(struct client *c, const uint8_t *data, uint32_t len)
{
	uint32_t at = 0;
	if (c->in_bytes + len > c->in_max) {
		c->in_max = (c->in_bytes + len) * 2;
		c->in = sim_realloc(c->in, c->in_max);
	}
	memcpy(c->in + c->in_bytes, data, len);
	c->in_bytes += len;
	while (c->sock) {
		uint8_t type, flags;
		uint32_t remaining, header_bytes;
		int rc = mqtt_decode_fixed(c->in + at, c->in_bytes - at, &type, &flags, &remaining,
			&header_bytes);
		if (rc < 0)
			sim_fail("%s: got what is not MQTT", c->id);
		if (rc == MQTT_MORE || header_bytes + remaining > c->in_bytes - at)
			break;
		on_packet(c, type, c->in + at, header_bytes, header_bytes + remaining);
		at += header_bytes + remaining;
	}
	if (!c->sock)
		return;
	memmove(c->in, c->in + at, c->in_bytes - at);
	c->in_bytes -= at;
}

void client_fini(struct client *c)
{
	sim_free(c->in);
}
