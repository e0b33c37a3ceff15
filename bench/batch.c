/*
 * Packets as spans of memory: heads in the arena, payloads where the source has them. Making a
 * packet costs little, so that it is done again when the socket took only a part.
 */
#include "batch.h"

#include <stdlib.h>
#include <string.h>

#include "fleet.h"
#include "meta.h"
#include "mqtt.h"
#include "text.h"

/* What one entry may need of the arena: `init` with a name that is all escapes. */
enum { ENTRY_ARENA_BYTES = 4 << 10 };

static size_t batch_put_topic(const struct fleet *f, const struct command *c, char *topic)
{
	const uint8_t *digest = NULL;
	char *at, hex[65];

	if (f->options->topic != NULL) {
		at = text_put(topic, f->options->topic, strlen(f->options->topic));
		return (size_t)(at - topic);
	}
	at = text_put(topic, "$file/", 6);
	source_fileid(f->source, c->file_idx, at);
	at += strlen(at);
	if (c->kind == COMMAND_INIT) {
		at = text_put(at, "/init", 5);
	} else if (c->kind == COMMAND_SEGMENT) {
		*at++ = '/';
		at = text_put_number(at, c->from, 10);
		if (f->digests->of_segments != NULL)
			digest = f->digests->of_segments[c->file_idx][c->ordinal];
	} else {
		at = text_put(at, "/fin/", 5);
		at = text_put_number(at, f->source->files[c->file_idx].bytes, 10);
		if (f->digests->of_files != NULL)
			digest = f->digests->of_files[c->file_idx];
	}
	if (digest != NULL) {
		sha256_to_hex(digest, hex);
		*at++ = '/';
		at = text_put(at, hex, 64);
	}
	return (size_t)(at - topic);
}

/* The payload of `init`, malloc'ed; NULL when out of memory. */
static char *batch_make_meta(const struct fleet *f, const struct command *c, size_t *ret_bytes)
{
	char name[META_NAME_MAX + 1];
	struct meta meta = {.name = name, .has_size = true};

	source_name(f->source, c->file_idx, name);
	meta.size = f->source->files[c->file_idx].bytes;
	return meta_to_json(&meta, ret_bytes);
}

/* Everything of a command's packet that is not segment payload, into buf; 0 when it can't be
 * made. */
static size_t batch_put_head(
	const struct fleet *f, const struct command *c, uint16_t id, uint8_t *buf, size_t buf_max)
{
	char topic[160];
	struct mqtt_publish publish = {.qos = 1, .packet_id = id};
	char *payload = NULL;
	size_t payload_bytes = 0, bytes;

	publish.topic = (struct mqtt_str){topic, (uint32_t)batch_put_topic(f, c, topic)};
	publish.payload_bytes = c->bytes;
	if (c->kind == COMMAND_INIT) {
		payload = batch_make_meta(f, c, &payload_bytes);
		if (payload == NULL)
			return 0;
		publish.payload_bytes = (uint32_t)payload_bytes;
	}
	bytes = mqtt_encode_publish_head(buf, buf_max, f->options->mqtt_version, &publish);
	if (bytes == 0 || payload_bytes > buf_max - bytes)
		bytes = 0;
	else if (payload_bytes > 0)
		memcpy(buf + bytes, payload, payload_bytes);
	free(payload);
	return bytes > 0 ? bytes + payload_bytes : 0;
}

void batch_init(struct batch *b)
{
	b->spans_count = b->entries_count = 0;
	b->bytes = b->arena_used = 0;
}

static void batch_add_span(struct batch *b, const void *data, size_t bytes)
{
	b->spans[b->spans_count++] = (struct iovec){(void *)data, bytes};
	b->bytes += bytes;
}

/* Room for one head, or one stamp, and a span beside it. */
static bool batch_has_space(const struct batch *b)
{
	return b->spans_count + 2 <= BATCH_SPANS && b->bytes < BATCH_BYTES &&
	       b->arena_used + ENTRY_ARENA_BYTES <= BATCH_ARENA_BYTES;
}

bool batch_has_room(const struct batch *b)
{
	return b->entries_count < BATCH_ENTRIES && batch_has_space(b);
}

/* The payload of a segment from its byte `done` on, as far as the batch has room. */
static void batch_add_payload(
	struct batch *b, const struct fleet *f, const struct command *c, uint64_t done)
{
	while (done < c->bytes && batch_has_space(b)) {
		const uint8_t *data;
		uint64_t wanted = c->bytes - done;
		size_t got;

		if (wanted > BATCH_BYTES - b->bytes)
			wanted = BATCH_BYTES - b->bytes;
		got = source_span(f->source, c->file_idx, c->from + done, wanted,
			b->arena + b->arena_used, &data);
		if (data >= b->arena && data < b->arena + BATCH_ARENA_BYTES)
			b->arena_used += SOURCE_STAMP_BYTES;
		batch_add_span(b, data, got);
		done += got;
	}
}

bool batch_add_entry(struct batch *b, const struct peer *p, uint32_t entry, uint64_t done)
{
	const struct fleet *f = p->fleet;
	const struct command *c;
	uint8_t *head = b->arena + b->arena_used;
	size_t head_bytes;

	if (entry & PEER_ENTRY_PUBACK) {
		struct mqtt_ack ack = {.packet_id = (uint16_t)entry};

		c = NULL;
		head_bytes = mqtt_encode_ack(
			head, ENTRY_ARENA_BYTES, f->options->mqtt_version, MQTT_PUBACK, &ack);
	} else {
		c = &p->commands[entry - 1];
		head_bytes = batch_put_head(f, c, (uint16_t)entry, head, ENTRY_ARENA_BYTES);
	}
	if (head_bytes == 0)
		return false;
	b->arena_used += head_bytes;
	b->totals[b->entries_count++] = head_bytes + (c != NULL ? c->bytes : 0);
	if (done < head_bytes) {
		batch_add_span(b, head + done, head_bytes - done);
		done = 0;
	} else {
		done -= head_bytes;
	}
	if (c != NULL && c->kind == COMMAND_SEGMENT)
		batch_add_payload(b, f, c, done);
	return true;
}
