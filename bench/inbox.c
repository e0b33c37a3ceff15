/*
 * What the daemon sends, and what it means for the files.
 *
 * With MQTT 5 the reason code of a PUBACK is the outcome of its command. A PUBACK of 3.1.1 has
 * none: there it says only that the command was taken, and the outcome is told by a message on
 * $file-response/<client id>, one for every command. So for 3.1.1 a file is done when both
 * have come for its fin, in whatever order.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "clocks.h"
#include "filecmd.h"
#include "fleet.h"
#include "mqtt.h"
#include "peer.h"

/* By enum command_kind. */
static const char *const command_names[] = {"?", "init", "segment", "fin"};

static void inbox_file_failed(struct peer *p, const struct command *c, const char *outcome)
{
	char clientid[PEER_CLIENTID_MAX + 1], where[48] = "";

	peer_clientid(p, clientid);
	if (c->kind == COMMAND_SEGMENT)
		snprintf(where, sizeof(where), " [%" PRIu64 ", %" PRIu64 ")", c->from,
			c->from + c->bytes);
	tally_file_failed(p->fleet->tally, c->file_idx, "%s: %s%s: %s", clientid,
		command_names[c->kind], where, outcome);
}

static void inbox_fin_progress(struct peer *p, uint32_t file_idx)
{
	const struct upload *u = &p->fleet->uploads[file_idx];

	if (u->fin_acked && (u->fin_answered || p->fleet->options->mqtt_version == MQTT_V5))
		tally_file_ok(p->fleet->tally, file_idx);
}

/* 0x10, no subscribers, is a success for MQTT; for a file command it means that nobody has taken
 * it. */
static bool inbox_is_success(const struct peer *p, const struct mqtt_ack *ack)
{
	return ack->reason == MQTT_RC_SUCCESS ||
	       (p->fleet->options->topic != NULL && ack->reason < 0x80);
}

/* The daemon refused a command: for what reason. */
static void inbox_on_refused(struct peer *p, const struct command *c, const struct mqtt_ack *ack)
{
	const struct mqtt_str *reason = &ack->props.reason_string;
	char outcome[256];

	snprintf(outcome, sizeof(outcome), "0x%02x %s%s%.*s", ack->reason,
		mqtt_rc_name(ack->reason), reason->s != NULL ? ": " : "",
		reason->s != NULL ? (int)reason->bytes : 0, reason->s != NULL ? reason->s : "");
	inbox_file_failed(p, c, outcome);
}

static void inbox_on_puback(struct peer *p, const struct mqtt_ack *ack, uint64_t now_ns)
{
	struct tally *t = p->fleet->tally;
	struct command *c = NULL;

	if (p->commands != NULL && ack->packet_id > 0 && ack->packet_id <= p->window)
		c = &p->commands[ack->packet_id - 1];
	if (c == NULL || c->kind == COMMAND_NONE || c->is_refused ||
		(c->written_ns == 0 && inbox_is_success(p, ack))) {
		peer_fail(p, "PUBACK for packet id %u, which is not in flight", ack->packet_id);
		return;
	}
	if (!inbox_is_success(p, ack)) {
		inbox_on_refused(p, c, ack);
	} else if (c->kind == COMMAND_SEGMENT) {
		t->bytes += c->bytes;
		t->segments++;
	} else if (c->kind == COMMAND_FIN) {
		p->fleet->uploads[c->file_idx].fin_acked = true;
		inbox_fin_progress(p, c->file_idx);
	}
	if (c->written_ns == 0) {
		/* What the header shows may be refused before the payload; the packet must still be
		 * whole. */
		c->is_refused = true;
		return;
	}
	hist_add(c->kind == COMMAND_FIN ? &t->fin_ns : &t->ack_ns, now_ns - c->written_ns);
	outbox_release(p, ack->packet_id);
}

/* Which of this peer's files does a command's topic name? PEER_FILE_NONE when none of them. */
static uint32_t inbox_find_file(const struct peer *p, const struct filecmd *cmd)
{
	char fileid[SOURCE_FILEID_MAX + 1];
	const char *dash = memrchr(cmd->fileid, '-', cmd->fileid_bytes);
	uint64_t idx = 0;

	if (dash == NULL)
		return PEER_FILE_NONE;
	for (const char *s = dash + 1; s < cmd->fileid + cmd->fileid_bytes; s++) {
		idx = idx * 10 + (uint64_t)(*s - '0');
		if (*s < '0' || *s > '9' || idx >= p->fleet->source->files_count)
			return PEER_FILE_NONE;
	}
	source_fileid(p->fleet->source, (uint32_t)idx, fileid);
	if (idx % p->fleet->peers_count != p->idx || strlen(fileid) != cmd->fileid_bytes ||
		memcmp(fileid, cmd->fileid, cmd->fileid_bytes) != 0)
		return PEER_FILE_NONE;
	return (uint32_t)idx;
}

/* The outcome of one command, as a response message tells it. */
static void inbox_on_outcome(struct peer *p, const char *topic, const cJSON *json)
{
	const cJSON *code = cJSON_GetObjectItemCaseSensitive(json, "reason_code");
	const cJSON *text = cJSON_GetObjectItemCaseSensitive(json, "reason_description");
	char clientid[PEER_CLIENTID_MAX + 1];
	struct filecmd cmd;
	uint32_t file_idx = PEER_FILE_NONE;

	filecmd_parse(topic, strlen(topic), &cmd);
	if (cmd.verb != FILECMD_NONE && cmd.verb != FILECMD_BAD)
		file_idx = inbox_find_file(p, &cmd);
	if (file_idx == PEER_FILE_NONE || !cJSON_IsNumber(code)) {
		peer_fail(p, "a response message that fits no command: topic %s", topic);
		return;
	}
	if (code->valueint != MQTT_RC_SUCCESS) {
		peer_clientid(p, clientid);
		tally_file_failed(p->fleet->tally, file_idx, "%s: %s: 0x%02x %s", clientid, topic,
			(unsigned)code->valueint, cJSON_IsString(text) ? text->valuestring : "");
	} else if (cmd.verb == FILECMD_FIN) {
		p->fleet->uploads[file_idx].fin_answered = true;
		inbox_fin_progress(p, file_idx);
	}
	outbox_settle(p, file_idx);
}

static void inbox_on_publish(struct peer *p, const uint8_t *packet, size_t packet_bytes)
{
	struct mqtt_publish publish;
	const cJSON *topic;
	cJSON *json;
	uint32_t head_bytes;
	int error = mqtt_decode_publish_head(
		packet, packet_bytes, p->fleet->options->mqtt_version, &publish, &head_bytes);

	if (error != 0) {
		peer_fail(p, "the daemon sent a malformed PUBLISH");
		return;
	}
	if (publish.qos == 1 && !outbox_add_puback(p, publish.packet_id)) {
		peer_fail(p, "no memory");
		return;
	}
	json = cJSON_ParseWithLength((const char *)packet + head_bytes, publish.payload_bytes);
	topic = cJSON_GetObjectItemCaseSensitive(json, "topic");
	if (cJSON_IsString(topic))
		inbox_on_outcome(p, topic->valuestring, json);
	else
		peer_fail(p, "a message that is no response: topic %.*s", (int)publish.topic.bytes,
			publish.topic.s);
	cJSON_Delete(json);
}

static void inbox_on_connack(struct peer *p, const uint8_t *body, uint32_t body_bytes)
{
	static const uint32_t publish_overhead_max = 512;
	const struct options *o = p->fleet->options;
	struct mqtt_connack connack;

	if (p->state != PEER_GREETING ||
		mqtt_decode_connack(body, body_bytes, o->mqtt_version, &connack) != 0) {
		peer_fail(p, "the daemon sent a CONNACK that is malformed or out of place");
	} else if (connack.code != 0 && o->mqtt_version == MQTT_V5) {
		peer_fail(p, "the daemon refused the connection: 0x%02x %s%s%.*s", connack.code,
			mqtt_rc_name(connack.code),
			connack.props.reason_string.s != NULL ? ": " : "",
			(int)connack.props.reason_string.bytes,
			connack.props.reason_string.s != NULL ? connack.props.reason_string.s : "");
	} else if (connack.code != 0) {
		peer_fail(p, "the daemon refused the connection: return code %u", connack.code);
	} else if (MQTT_HAS(&connack.props, MQTT_P_MAXIMUM_PACKET_SIZE) &&
		   connack.props.maximum_packet_size < o->segment.max + publish_overhead_max) {
		peer_fail(p,
			"the daemon takes packets of at most %" PRIu32
			" bytes: use a smaller --segment",
			connack.props.maximum_packet_size);
	} else {
		if (MQTT_HAS(&connack.props, MQTT_P_RECEIVE_MAX) &&
			connack.props.receive_max < p->window)
			p->window = connack.props.receive_max;
		/* [MQTT-3.2.2-21]: what the server says counts, though we asked for none. */
		p->keep_alive_s = connack.props.server_keep_alive;
		peer_on_accepted(p);
	}
}

static void inbox_on_disconnect(struct peer *p, const uint8_t *body, uint32_t body_bytes)
{
	struct mqtt_disconnect bye;

	if (mqtt_decode_disconnect(
		    body, body_bytes, p->fleet->options->mqtt_version, MQTT_DISCONNECT, &bye) != 0)
		peer_fail(p, "the daemon sent a malformed DISCONNECT");
	else
		peer_fail(p, "the daemon closed the connection: 0x%02x %s%s%.*s", bye.reason,
			mqtt_rc_name(bye.reason), bye.props.reason_string.s != NULL ? ": " : "",
			(int)bye.props.reason_string.bytes,
			bye.props.reason_string.s != NULL ? bye.props.reason_string.s : "");
}

static void inbox_on_suback(struct peer *p, const uint8_t *body, uint32_t body_bytes)
{
	struct mqtt_suback suback;

	if (p->state != PEER_SUBSCRIBING ||
		mqtt_decode_suback(body, body_bytes, p->fleet->options->mqtt_version, MQTT_SUBACK,
			&suback) != 0 ||
		suback.codes_count != 1)
		peer_fail(p, "the daemon sent a SUBACK that is malformed or out of place");
	else if (suback.codes[0] >= 0x80)
		peer_fail(p, "the daemon refused the subscription to its response messages");
	else
		peer_on_subscribed(p);
}

static void inbox_on_packet(struct peer *p, uint8_t type, const uint8_t *packet,
	size_t header_bytes, uint32_t body_bytes, uint64_t now_ns)
{
	const uint8_t *body = packet + header_bytes;
	struct mqtt_ack ack;

	if (type != MQTT_PINGRESP)
		p->active_ns = now_ns;
	switch (type) {
	case MQTT_PINGRESP:
		break;
	case MQTT_PUBACK:
		if (mqtt_decode_ack(
			    body, body_bytes, p->fleet->options->mqtt_version, type, &ack) != 0)
			peer_fail(p, "the daemon sent a malformed PUBACK");
		else
			inbox_on_puback(p, &ack, now_ns);
		break;
	case MQTT_PUBLISH:
		inbox_on_publish(p, packet, header_bytes + body_bytes);
		break;
	case MQTT_CONNACK:
		inbox_on_connack(p, body, body_bytes);
		break;
	case MQTT_SUBACK:
		inbox_on_suback(p, body, body_bytes);
		break;
	case MQTT_DISCONNECT:
		inbox_on_disconnect(p, body, body_bytes);
		break;
	default:
		peer_fail(p, "the daemon sent a %s", mqtt_type_name(type));
		break;
	}
}

/* Takes all whole packets; returns how many bytes they had. */
static size_t inbox_decode(struct peer *p, const uint8_t *buf, size_t buf_bytes, uint64_t now_ns)
{
	size_t used = 0;

	while (used < buf_bytes && p->state != PEER_CLOSED) {
		uint8_t type, flags;
		uint32_t remaining, header_bytes;
		int error = mqtt_decode_fixed(
			buf + used, buf_bytes - used, &type, &flags, &remaining, &header_bytes);

		if (error == MQTT_MORE)
			break;
		if (error != 0) {
			peer_fail(p, "the daemon sent what is not MQTT");
			break;
		}
		if (header_bytes + remaining > FLEET_INBUF_BYTES / 2) {
			peer_fail(p, "the daemon sent a packet of %" PRIu32 " bytes", remaining);
			break;
		}
		if (header_bytes + remaining > buf_bytes - used)
			break;
		inbox_on_packet(p, type, buf + used, header_bytes, remaining, now_ns);
		used += header_bytes + remaining;
	}
	return used;
}

/* Keeps the beginning of a packet until more of it comes. */
static void inbox_keep(struct peer *p, const uint8_t *buf, size_t buf_bytes)
{
	uint8_t *rest = NULL;

	if (p->state == PEER_CLOSED)
		return;
	if (buf_bytes > 0) {
		rest = realloc(p->rest, buf_bytes);
		if (rest == NULL) {
			peer_fail(p, "no memory");
			return;
		}
		memcpy(rest, buf, buf_bytes);
	} else {
		free(p->rest);
	}
	p->rest = rest;
	p->rest_bytes = buf_bytes;
}

void inbox_read(struct peer *p)
{
	uint8_t *buf = p->fleet->inbuf;
	bool is_drained = false;

	while (p->state != PEER_CLOSED && !is_drained) {
		size_t held = p->rest_bytes, used;
		ssize_t got = recv(p->fd, buf + held, FLEET_INBUF_BYTES - held, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (got <= 0) {
			peer_fail(p, "the daemon closed the connection%s%s", got < 0 ? ": " : "",
				got < 0 ? strerror(errno) : "");
			return;
		}
		/* A short read has emptied the socket: epoll will tell when there is more. */
		is_drained = (size_t)got < FLEET_INBUF_BYTES - held;
		if (held > 0)
			memcpy(buf, p->rest, held);
		used = inbox_decode(p, buf, held + (size_t)got, clocks_now_ns());
		inbox_keep(p, buf + used, held + (size_t)got - used);
	}
}
