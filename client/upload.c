/*
 * What an upload sends, state by state; see upload.h. Each step returns MORE when another may
 * follow at once, else WAIT.
 */
#include "upload.h"

#include <cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "utf8.h"

enum step { STEP_MORE, STEP_WAIT };

enum {
	HASH_STEP_BYTES = 1 << 20,      /* hashed at once between two looks at the connection */
	OUTCOME_ASK_MS = 15 * 1000,     /* no outcome for so long after fin's PUBACK: ask */
	UNANSWERED_MAX = 2,
	TOPIC_MAX = 66000,
};

struct upload *upload_new(struct upload_env *env, const char *path)
{
	struct upload *u = calloc(1, sizeof(*u));

	if (!u) {
		return NULL;
	}
	u->env = env;
	u->path = path;
	u->is_pipe = strcmp(path, "-") == 0;
	source_init(&u->source);
	cover_init(&u->sent, UINT32_MAX);
	cover_init(&u->acked, UINT32_MAX);
	return u;
}

void upload_free(struct upload *u)
{
	if (!u) {
		return;
	}
	source_fini(&u->source);
	spool_fini(&u->spool);
	cover_fini(&u->sent);
	cover_fini(&u->acked);
	free(u->init_json);
	free(u);
}

bool upload_is_over(const struct upload *u)
{
	return (u->state == UPLOAD_DONE || u->state == UPLOAD_FAILED) && u->inflight == 0;
}

bool upload_is_sent(const struct upload *u)
{
	switch (u->state) {
	case UPLOAD_FINNED:
	case UPLOAD_PAUSED:
	case UPLOAD_DONE:
	case UPLOAD_FAILED:
		return true;
	case UPLOAD_NEW:
	case UPLOAD_ASK:
	case UPLOAD_ASKED:
	case UPLOAD_INIT:
	case UPLOAD_INITED:
	case UPLOAD_DATA:
	case UPLOAD_FIN:
	case UPLOAD_ABORT:
		break;
	}
	return false;
}

uint64_t upload_stored(const struct upload *u)
{
	return u->acked.bytes;
}

bool upload_wants_input(const struct upload *u)
{
	return u->is_pipe && u->state > UPLOAD_NEW && u->state < UPLOAD_FIN &&
	       spool_wants_input(&u->spool);
}

void upload_on_input(struct upload *u)
{
	u->is_input_dry = false;
	int r = spool_read(&u->spool);
	if (r < 0) {
		upload_fail_source(u, strerror(-r));
	}
}

/* {"name":…,"size":…,"segments_ttl":…,"user_data":…}: the same in every run, so that the server
 * does not take a resumed upload for a conflict. */
static bool build_init(struct upload *u)
{
	const struct options *o = u->env->options;
	cJSON *json = cJSON_CreateObject();
	char number[24];

	bool ok = json && cJSON_AddStringToObject(json, "name", u->name);
	if (!u->is_pipe) {
		/* Raw, as a double would lose digits. */
		snprintf(number, sizeof(number), "%llu", (unsigned long long)u->source.size);
		ok = ok && cJSON_AddRawToObject(json, "size", number);
	}
	if (o->ttl_s) {
		snprintf(number, sizeof(number), "%llu", (unsigned long long)o->ttl_s);
		ok = ok && cJSON_AddRawToObject(json, "segments_ttl", number);
	}
	if (o->user_data) {
		ok = ok && cJSON_AddRawToObject(json, "user_data", o->user_data);
	}
	u->init_json = ok ? cJSON_PrintUnformatted(json) : NULL;
	cJSON_Delete(json);
	if (u->init_json) {
		u->init_bytes = strlen(u->init_json);
	}
	return u->init_json != NULL;
}

static const char *name_of(const struct upload *u)
{
	const char *slash = strrchr(u->path, '/');

	if (u->env->options->name) {
		return u->env->options->name;
	}
	if (u->is_pipe) {
		return "stdin";
	}
	return slash ? slash + 1 : u->path;
}

static enum step step_new(struct upload *u)
{
	const struct options *o = u->env->options;

	u->name = name_of(u);
	u->file_id = o->file_id ? o->file_id : u->file_id_buf;
	if (u->is_pipe) {
		spool_init(&u->spool, STDIN_FILENO, o->segment_bytes, o->window);
		ident_random_id(u->file_id_buf);
	} else {
		int r = source_open(&u->source, u->path);
		if (r < 0) {
			upload_fail(u, "%s", r != -EINVAL ? strerror(-r)
				: "it is no regular file; send it with \"-\" from a pipe");
			return STEP_WAIT;
		}
		ident_file_id(u->path, u->name, u->source.size, &u->source.mtime, u->file_id_buf);
	}
	if (!utf8_mqtt_ok(u->name, strlen(u->name))) {
		upload_fail(u, "its name is not UTF-8; give it one with --name");
		return STEP_WAIT;
	}
	if (!build_init(u)) {
		upload_fail(u, "out of memory");
		return STEP_WAIT;
	}
	/* A file id that the user chose may belong to something else: then no step is taken in
	 * haste. */
	u->is_small = !u->is_pipe && !o->file_id && u->source.size <= o->segment_bytes;
	u->state = u->is_small || (u->is_pipe && !o->file_id) ? UPLOAD_INIT : UPLOAD_ASK;
	return STEP_MORE;
}

/* Queues one command. True when it went; else there is no room, or the upload has failed. */
static bool publish(struct upload *u, enum upload_kind kind, uint64_t from, uint64_t to,
	const char *topic, const struct session_payload *payload)
{
	struct session_tag tag = {.owner = u, .kind = kind, .from = from, .to = to};
	int r = session_publish(u->env->session, &tag, topic, payload);

	if (r == 0) {
		u->inflight++;
		return true;
	}
	if (r != -EAGAIN) {
		upload_fail(u, "%s", r != -E2BIG ? strerror(-r)
			: "the server's maximum packet size is too small for this");
	}
	return false;
}

static bool publish_command(struct upload *u, enum upload_kind kind, const char *topic)
{
	struct session_payload payload = {.fd = -1, .mem = ""};

	if (kind == UPLOAD_INIT_CMD) {
		payload.mem = u->init_json;
		payload.bytes = (uint32_t)u->init_bytes;
	}
	return publish(u, kind, 0, 0, topic, &payload);
}

static enum step step_ask(struct upload *u)
{
	char topic[TOPIC_MAX];

	if (u->inflight > 0 || !session_replies_ready(u->env->session)) {
		return STEP_WAIT;
	}
	snprintf(topic, sizeof(topic), "$file/%s/status", u->file_id);
	if (publish_command(u, UPLOAD_STATUS, topic)) {
		u->state = UPLOAD_ASKED;
		u->asked_ms = session_now_ms();
	}
	return STEP_WAIT;
}

/* Waits for a response message: that of status, or in MQTT 3 that of init. */
static enum step step_asked(struct upload *u)
{
	if (session_now_ms() - u->asked_ms < u->env->options->timeout_ms || u->inflight > 0) {
		return STEP_WAIT;
	}
	if (++u->unanswered < UNANSWERED_MAX) {
		u->state = UPLOAD_ASK;
		return STEP_MORE;
	}
	session_fail(u->env->session, EXIT_REFUSED,
		"the server takes $file messages but does not answer on $file-response/%.200s: "
		"it does not seem to know file transfer", u->env->session->conf->clientid);
	return STEP_WAIT;
}

static enum step step_init(struct upload *u)
{
	char topic[TOPIC_MAX];

	/* Outcomes come as messages then: the subscription must stand before the first command. */
	if ((u->env->options->is_async || u->env->options->mqtt_version < MQTT_V5) &&
		!session_replies_ready(u->env->session)) {
		return STEP_WAIT;
	}
	snprintf(topic, sizeof(topic), "$file/%s/init", u->file_id);
	if (!publish_command(u, UPLOAD_INIT_CMD, topic)) {
		return STEP_WAIT;
	}
	u->state = u->is_small ? UPLOAD_DATA : UPLOAD_INITED;
	u->asked_ms = session_now_ms();
	return STEP_MORE;
}

/* "$file/<id>/<offset>[/<sha256>]" */
static void segment_topic(const struct upload *u, uint64_t from, const struct sha256 *sha,
	char *topic)
{
	uint8_t digest[SHA256_DIGEST_BYTES];
	int n = snprintf(topic, TOPIC_MAX, "$file/%s/%llu", u->file_id, (unsigned long long)from);

	if (sha) {
		sha256_digest(sha, digest);
		topic[n] = '/';
		sha256_to_hex(digest, topic + n + 1);
	}
}

/* Queues the segment [from, to) of a file. Small ones are read once, hashed from that buffer and
 * copied behind their header, so that many fit one send; large ones go by sendfile, hashed just
 * before, while they are in the page cache. */
static bool send_segment(struct upload *u, uint64_t from, uint64_t to)
{
	static uint8_t small[LINK_COPY_MAX];
	const struct options *o = u->env->options;
	uint32_t bytes = (uint32_t)(to - from);
	struct session_payload payload = {.bytes = bytes, .fd = u->source.fd, .off = from,
		.error_at = &u->source.error};
	char topic[TOPIC_MAX];
	struct sha256 sha;
	bool ok = true;

	sha256_init(&sha);
	if (bytes <= LINK_COPY_MAX) {
		payload.mem = small;
		ok = source_read(&u->source, from, small, bytes);
		if (ok && !o->no_checksum) {
			source_feed(&u->source, from, small, bytes);
		}
		if (ok && o->segment_checksum) {
			sha256_update(&sha, small, bytes);
		}
	} else if (o->segment_checksum) {
		ok = source_hash_segment(&u->source, from, to, &sha);
	} else if (!o->no_checksum && u->source.hashed == from) {
		ok = source_hash(&u->source, to, bytes);
	}
	if (!ok) {
		return false; /* step_data sees source.error */
	}
	segment_topic(u, from, o->segment_checksum ? &sha : NULL, topic);
	return publish(u, UPLOAD_SEGMENT, from, to, topic, &payload);
}

/* The server may take less in one packet than we would like to send. */
static uint64_t segment_max(const struct upload *u)
{
	uint64_t head = strlen(u->file_id) + 200;
	uint64_t packet = u->env->session->packet_bytes_max;
	uint64_t want = u->env->options->segment_bytes;

	return packet < head + want ? (packet > head ? packet - head : 1) : want;
}

static bool has_window(const struct upload *u)
{
	return u->env->segments_inflight < u->env->options->window &&
	       session_room(u->env->session) > 0;
}

static void segment_sent(struct upload *u, uint64_t from, uint64_t to)
{
	u->env->segments_inflight++;
	u->fruitless = 0;
	if (cover_add(&u->sent, from, to) < 0) {
		upload_fail(u, "out of memory");
	}
}

static enum step step_data_pipe(struct upload *u)
{
	char topic[TOPIC_MAX];
	struct sha256 sha;

	if (!has_window(u)) {
		return STEP_WAIT;
	}
	/* A slow pipe: what is there goes out as soon as the server has everything before it. */
	struct spool_chunk *c = spool_next(&u->spool, u->inflight == 0 && u->is_input_dry);
	if (!c) {
		if (u->spool.is_eof && u->sent.bytes >= u->spool.end) {
			u->state = UPLOAD_FIN;
			return STEP_MORE;
		}
		return STEP_WAIT;
	}
	sha256_init(&sha);
	if (u->env->options->segment_checksum) {
		sha256_update(&sha, c->data, c->bytes);
	}
	segment_topic(u, c->from, u->env->options->segment_checksum ? &sha : NULL, topic);
	struct session_payload payload = {.bytes = c->bytes, .mem = c->data, .fd = -1};
	if (!publish(u, UPLOAD_SEGMENT, c->from, c->from + c->bytes, topic, &payload)) {
		return STEP_WAIT;
	}
	c->is_sent = true;
	segment_sent(u, c->from, c->from + c->bytes);
	return STEP_MORE;
}

static enum step step_data(struct upload *u)
{
	struct extent gap;

	if (u->is_pipe) {
		return step_data_pipe(u);
	}
	if (u->source.error) {
		upload_fail_source(u, strerror(u->source.error));
		return STEP_MORE;
	}
	if (cover_gaps(&u->sent, 0, u->source.size, &gap, 1) == 0) {
		u->state = u->is_partial ? UPLOAD_ASK : UPLOAD_FIN;
		return STEP_MORE;
	}
	if (!has_window(u)) {
		return STEP_WAIT;
	}
	uint64_t max = segment_max(u);
	uint64_t to = (gap.from / max + 1) * max;
	to = to < gap.to ? to : gap.to;
	if (!send_segment(u, gap.from, to)) {
		return u->source.error ? STEP_MORE : STEP_WAIT;
	}
	segment_sent(u, gap.from, to);
	return STEP_MORE;
}

static enum step step_fin(struct upload *u)
{
	const struct options *o = u->env->options;
	uint64_t size = u->is_pipe ? u->spool.end : u->source.size;
	struct sha256 *sha = u->is_pipe ? &u->spool.sha : &u->source.sha;
	char topic[TOPIC_MAX];

	if (!u->is_pipe && !o->no_checksum && !u->source.error) {
		source_hash(&u->source, size, HASH_STEP_BYTES);
		u->wants_cpu = u->source.hashed < size && !u->source.error;
		if (u->wants_cpu) {
			return STEP_WAIT;
		}
	}
	const char *changed = u->is_pipe ? NULL : source_changed(&u->source);
	if (changed || u->source.error) {
		upload_fail_source(u, changed ? changed : strerror(u->source.error));
		return STEP_MORE;
	}
	int n = snprintf(topic, sizeof(topic), "$file%s/%s/fin/%llu", o->is_async ? "-async" : "",
		u->file_id, (unsigned long long)size);
	if (!o->no_checksum) {
		sha256_digest(sha, u->fin_digest);
		topic[n] = '/';
		sha256_to_hex(u->fin_digest, topic + n + 1);
	}
	if (publish_command(u, UPLOAD_FIN_CMD, topic)) {
		u->state = UPLOAD_FINNED;
		u->fin_size = size;
		u->has_sent_fin = true;
		u->is_fin_acked = false;
	}
	return STEP_WAIT;
}

/* Only when the PUBACK proves nothing can the outcome get lost: then the server is asked. */
static enum step step_finned(struct upload *u)
{
	if (!u->is_fin_acked || session_now_ms() - u->outcome_ms < OUTCOME_ASK_MS) {
		return STEP_WAIT;
	}
	u->is_fin_acked = false;
	u->is_small = false;
	u->state = UPLOAD_ASK;
	return STEP_MORE;
}

static enum step step_paused(struct upload *u)
{
	if (session_now_ms() < u->resume_at_ms || u->inflight > 0) {
		return STEP_WAIT;
	}
	if (u->is_small) {
		cover_fini(&u->sent);
		cover_init(&u->sent, UINT32_MAX);
	}
	u->state = u->is_small ? UPLOAD_INIT : UPLOAD_ASK;
	return STEP_MORE;
}

static enum step step_abort(struct upload *u)
{
	char topic[TOPIC_MAX];

	snprintf(topic, sizeof(topic), "$file/%s/abort", u->file_id);
	if (publish_command(u, UPLOAD_ABORT_CMD, topic)) {
		u->state = UPLOAD_FAILED;
	}
	return STEP_WAIT;
}

static enum step step(struct upload *u)
{
	switch (u->state) {
	case UPLOAD_NEW:
		return step_new(u);
	case UPLOAD_ASK:
		return step_ask(u);
	case UPLOAD_ASKED:
	case UPLOAD_INITED:
		return step_asked(u);
	case UPLOAD_INIT:
		return step_init(u);
	case UPLOAD_DATA:
		return step_data(u);
	case UPLOAD_FIN:
		return step_fin(u);
	case UPLOAD_FINNED:
		return step_finned(u);
	case UPLOAD_PAUSED:
		return step_paused(u);
	case UPLOAD_ABORT:
		return step_abort(u);
	case UPLOAD_DONE:
	case UPLOAD_FAILED:
		break;
	}
	return STEP_WAIT;
}

void upload_pump(struct upload *u)
{
	u->wants_cpu = false;
	while (step(u) == STEP_MORE) {
	}
}

bool upload_idle(struct upload *u)
{
	struct extent gap;

	if (u->is_pipe || u->state != UPLOAD_DATA || u->env->options->no_checksum ||
		u->source.error) {
		return false;
	}
	/* Up to where the next segment begins, and not beyond: it will be hashed as it is sent. */
	if (cover_gaps(&u->sent, 0, u->source.size, &gap, 1) == 0) {
		gap.from = u->source.size;
	}
	if (u->source.hashed >= gap.from) {
		return false;
	}
	source_hash(&u->source, gap.from, HASH_STEP_BYTES);
	return u->source.hashed < gap.from && !u->source.error;
}
