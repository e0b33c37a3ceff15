/*
 * lib/mqtt_*.c: every packet in every version with every property, there and back; every way to cut
 * one short. What a receiver must refuse is in test_mqtt_rules.c.
 *
 * Packets are made at random from a fixed seed, as structs. Each is encoded and decoded, and the
 * two must be equal; its bytes lie in an allocation of exactly their size, so that the sanitizer
 * sees a read past them. Some packets stand at the end as bytes written out by hand, because a
 * mistake that encoder and decoder share is seen by nothing else.
 */
#include <criterion/criterion.h>

#include "../mqtt_any.h"

#include <stdlib.h>
#include <string.h>

enum { BUF_BYTES = 1 << 17, ROUNDS = 60 };

static const uint8_t versions[] = {MQTT_V31, MQTT_V311, MQTT_V5};

static uint64_t seed = 3;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % below;
}

/* --- packets at random ------------------------------------------------------------------------ */

static char text[70000]; /* what the strings of random packets point into */

static void fill_text(void)
{
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = "abcdefghijklmnopqrstuvwxyz0123456789/_- "[rnd(40)];
}

static struct mqtt_str random_str(uint32_t bytes_min)
{
	uint32_t bytes = bytes_min + rnd(rnd(8) == 0 ? 300 : 12);

	return (struct mqtt_str){text + rnd(sizeof(text) - 400), bytes};
}

/* Encoded user properties, valid until the next 64 of them were made. */
static struct mqtt_str random_user_properties(void)
{
	static char spans[64][256];
	static unsigned next;
	char *span = spans[next++ % 64];
	uint32_t bytes = 0;

	for (int count = 1 + (int)rnd(3); count > 0; count--) {
		uint32_t key = rnd(20), value = rnd(20);

		span[bytes++] = 0x26;
		span[bytes++] = 0;
		span[bytes++] = (char)key;
		memcpy(span + bytes, text, key);
		bytes += key;
		span[bytes++] = 0;
		span[bytes++] = (char)value;
		memcpy(span + bytes, text + 50, value);
		bytes += value;
	}
	return (struct mqtt_str){span, bytes};
}

static void set_number(struct mqtt_props *p, enum mqtt_prop_bit bit)
{
	switch (bit) {
	case MQTT_P_PAYLOAD_FORMAT: p->payload_format = (uint8_t)rnd(2); break;
	case MQTT_P_MESSAGE_EXPIRY: p->message_expiry = rnd(UINT32_MAX); break;
	case MQTT_P_SESSION_EXPIRY: p->session_expiry = UINT32_MAX - rnd(3); break;
	case MQTT_P_SERVER_KEEP_ALIVE: p->server_keep_alive = (uint16_t)rnd(65536); break;
	case MQTT_P_REQUEST_PROBLEM_INFO: p->request_problem_info = (uint8_t)rnd(2); break;
	case MQTT_P_WILL_DELAY: p->will_delay = rnd(UINT32_MAX); break;
	case MQTT_P_REQUEST_RESPONSE_INFO: p->request_response_info = (uint8_t)rnd(2); break;
	case MQTT_P_RECEIVE_MAX: p->receive_max = (uint16_t)(1 + rnd(65535)); break;
	case MQTT_P_TOPIC_ALIAS_MAX: p->topic_alias_max = (uint16_t)rnd(65536); break;
	case MQTT_P_TOPIC_ALIAS: p->topic_alias = (uint16_t)(1 + rnd(65535)); break;
	case MQTT_P_MAXIMUM_QOS: p->maximum_qos = (uint8_t)rnd(2); break;
	case MQTT_P_RETAIN_AVAILABLE: p->retain_available = (uint8_t)rnd(2); break;
	case MQTT_P_MAXIMUM_PACKET_SIZE: p->maximum_packet_size = 1 + rnd(UINT32_MAX - 1); break;
	case MQTT_P_WILDCARD_AVAILABLE: p->wildcard_available = (uint8_t)rnd(2); break;
	case MQTT_P_SUBID_AVAILABLE: p->subid_available = (uint8_t)rnd(2); break;
	case MQTT_P_SHARED_AVAILABLE: p->shared_available = (uint8_t)rnd(2); break;
	default: cr_assert_fail("property %d is no number", bit);
	}
}

static void set_prop(struct mqtt_props *p, enum mqtt_prop_bit bit, bool many_subids)
{
	p->has |= 1u << bit;
	switch (bit) {
	case MQTT_P_CONTENT_TYPE: p->content_type = random_str(0); break;
	case MQTT_P_RESPONSE_TOPIC: p->response_topic = random_str(1); break;
	case MQTT_P_CORRELATION_DATA: p->correlation_data = random_str(0); break;
	case MQTT_P_SUBSCRIPTION_ID:
		p->subids_count = many_subids ? (uint8_t)(1 + rnd(MQTT_SUBIDS_MAX)) : 1;
		for (int i = 0; i < p->subids_count; i++)
			p->subids[i] = 1 + rnd(rnd(2) ? 200 : 268435455);
		break;
	case MQTT_P_ASSIGNED_CLIENTID: p->assigned_clientid = random_str(0); break;
	case MQTT_P_AUTH_METHOD: p->auth_method = random_str(0); break;
	case MQTT_P_AUTH_DATA: p->auth_data = random_str(0); break;
	case MQTT_P_RESPONSE_INFO: p->response_info = random_str(0); break;
	case MQTT_P_SERVER_REFERENCE: p->server_reference = random_str(0); break;
	case MQTT_P_REASON_STRING: p->reason_string = random_str(0); break;
	case MQTT_P_USER_PROPERTY: p->user_properties = random_user_properties(); break;
	default: set_number(p, bit);
	}
}

/* The properties of a packet, by the table 2-4 of the specification; type 0 is the will. */
static uint32_t props_of(uint8_t type)
{
#define B(name) (1u << MQTT_P_##name)
	static const uint32_t message = B(PAYLOAD_FORMAT) | B(MESSAGE_EXPIRY) | B(CONTENT_TYPE) |
					B(RESPONSE_TOPIC) | B(CORRELATION_DATA) | B(USER_PROPERTY);
	static const uint32_t reply = B(REASON_STRING) | B(USER_PROPERTY);
	static const uint32_t table[16] = {
		[0] = message | B(WILL_DELAY),
		[MQTT_CONNECT] = B(SESSION_EXPIRY) | B(AUTH_METHOD) | B(AUTH_DATA) |
				 B(REQUEST_PROBLEM_INFO) | B(REQUEST_RESPONSE_INFO) |
				 B(RECEIVE_MAX) | B(TOPIC_ALIAS_MAX) | B(USER_PROPERTY) |
				 B(MAXIMUM_PACKET_SIZE),
		[MQTT_CONNACK] = reply | B(SESSION_EXPIRY) | B(ASSIGNED_CLIENTID) |
				 B(SERVER_KEEP_ALIVE) | B(AUTH_METHOD) | B(AUTH_DATA) |
				 B(RESPONSE_INFO) | B(SERVER_REFERENCE) | B(RECEIVE_MAX) |
				 B(TOPIC_ALIAS_MAX) | B(MAXIMUM_QOS) | B(RETAIN_AVAILABLE) |
				 B(MAXIMUM_PACKET_SIZE) | B(WILDCARD_AVAILABLE) |
				 B(SUBID_AVAILABLE) | B(SHARED_AVAILABLE),
		[MQTT_PUBLISH] = message | B(SUBSCRIPTION_ID) | B(TOPIC_ALIAS),
		[MQTT_PUBACK] = reply,
		[MQTT_PUBREC] = reply,
		[MQTT_PUBREL] = reply,
		[MQTT_PUBCOMP] = reply,
		[MQTT_SUBSCRIBE] = B(SUBSCRIPTION_ID) | B(USER_PROPERTY),
		[MQTT_SUBACK] = reply,
		[MQTT_UNSUBSCRIBE] = B(USER_PROPERTY),
		[MQTT_UNSUBACK] = reply,
		[MQTT_DISCONNECT] = reply | B(SESSION_EXPIRY) | B(SERVER_REFERENCE),
		[MQTT_AUTH] = reply | B(AUTH_METHOD) | B(AUTH_DATA),
	};

	return table[type];
#undef B
}

/* Adds those of `allowed` that chance and `density` (of 8) pick. */
static void random_props(struct mqtt_props *p, uint8_t type, unsigned density)
{
	uint32_t allowed = props_of(type);

	for (int bit = 0; bit <= MQTT_P_SHARED_AVAILABLE; bit++)
		if ((allowed >> bit & 1) && rnd(8) < density)
			set_prop(p, bit, type == MQTT_PUBLISH);
	if (MQTT_HAS(p, MQTT_P_AUTH_DATA) || type == MQTT_AUTH)
		set_prop(p, MQTT_P_AUTH_METHOD, false);
}

static uint8_t random_reason(uint8_t type)
{
	uint8_t rc;

	do
		rc = (uint8_t)rnd(0xa3);
	while (!mqtt_rc_allowed(rc, type));
	return rc;
}

static void random_connect(struct mqtt_connect *c, uint8_t version, unsigned density)
{
	c->version = version;
	c->clean_start = rnd(2);
	c->keep_alive_s = (uint16_t)rnd(65536);
	c->clientid = random_str(version == MQTT_V5 ? 0 : 1);
	c->has_username = rnd(2);
	c->has_password = (c->has_username || version == MQTT_V5) && rnd(2);
	if (c->has_username)
		c->username = random_str(0);
	if (c->has_password)
		c->password = random_str(0);
	if (version == MQTT_V5)
		random_props(&c->props, MQTT_CONNECT, density);
	c->has_will = rnd(2);
	if (!c->has_will)
		return;
	c->will_retain = rnd(2);
	c->will_qos = (uint8_t)rnd(3);
	c->will_topic = random_str(1);
	c->will_payload = random_str(0);
	if (version == MQTT_V5)
		random_props(&c->will_props, 0, density);
}

static void random_publish(struct mqtt_publish *p, uint8_t version, unsigned density)
{
	p->qos = (uint8_t)rnd(3);
	p->dup = p->qos > 0 && rnd(2);
	p->retain = rnd(2);
	p->packet_id = p->qos > 0 ? (uint16_t)(1 + rnd(65535)) : 0;
	if (version == MQTT_V5)
		random_props(&p->props, MQTT_PUBLISH, density);
	p->topic = random_str(!MQTT_HAS(&p->props, MQTT_P_TOPIC_ALIAS));
	p->payload_bytes = rnd(2) ? rnd(300) : rnd(200000000);
}

/* The entries are kept as they are on the wire, as the decoder hands them out. */
static void random_subscribe(
	struct mqtt_subscribe *s, uint8_t version, uint8_t type, unsigned density)
{
	static const char *const filters[] = {
		"a/+/#", "#", "+", "$share/g/x", "/", "a//b", "$file/+/fin"};
	static uint8_t entries[1024];

	s->packet_id = (uint16_t)(1 + rnd(65535));
	s->is_unsubscribe = type == MQTT_UNSUBSCRIBE;
	s->entries = entries;
	s->entries_bytes = 0;
	s->count = 1 + rnd(20);
	for (uint32_t i = 0; i < s->count; i++) {
		const char *filter = filters[rnd(7)];
		uint8_t options =
			(uint8_t)(rnd(3) | (version == MQTT_V5 ? rnd(2) << 3 | rnd(3) << 4 : 0));

		entries[s->entries_bytes++] = 0;
		entries[s->entries_bytes++] = (uint8_t)strlen(filter);
		memcpy(entries + s->entries_bytes, filter, strlen(filter));
		s->entries_bytes += (uint32_t)strlen(filter);
		if (!s->is_unsubscribe)
			entries[s->entries_bytes++] = options;
	}
	if (version == MQTT_V5)
		random_props(&s->props, type, density);
}

static void random_suback(struct mqtt_suback *s, uint8_t version, uint8_t type, unsigned density)
{
	static uint8_t codes[200];

	s->packet_id = (uint16_t)(1 + rnd(65535));
	s->codes = codes;
	s->codes_count = version < MQTT_V5 && type == MQTT_UNSUBACK ? 0 : 1 + rnd(sizeof(codes));
	for (uint32_t i = 0; i < s->codes_count; i++)
		codes[i] = version == MQTT_V5 ? random_reason(type)
					      : (uint8_t[]){0, 1, 2, 0x80}[rnd(4)];
	if (version == MQTT_V5)
		random_props(&s->props, type, density);
}

static void random_any(struct any *a, uint8_t version, uint8_t type, unsigned density)
{
	bool v5 = version == MQTT_V5;

	memset(a, 0, sizeof(*a));
	a->version = version;
	a->type = type;
	switch ((enum mqtt_type)type) {
	case MQTT_CONNECT:
		random_connect(&a->connect, version, density);
		return;
	case MQTT_CONNACK:
		a->connack.code = v5 ? random_reason(type) : (uint8_t)rnd(6);
		a->connack.session_present = a->connack.code == 0 && version != MQTT_V31 && rnd(2);
		if (v5)
			random_props(&a->connack.props, type, density);
		return;
	case MQTT_PUBLISH:
		random_publish(&a->publish, version, density);
		return;
	case MQTT_PUBACK:
	case MQTT_PUBREC:
	case MQTT_PUBREL:
	case MQTT_PUBCOMP:
		a->ack.packet_id = (uint16_t)(1 + rnd(65535));
		a->ack.reason = v5 ? random_reason(type) : 0;
		if (v5)
			random_props(&a->ack.props, type, density);
		return;
	case MQTT_SUBSCRIBE:
	case MQTT_UNSUBSCRIBE:
		random_subscribe(&a->subscribe, version, type, density);
		return;
	case MQTT_SUBACK:
	case MQTT_UNSUBACK:
		random_suback(&a->suback, version, type, density);
		return;
	case MQTT_DISCONNECT:
	case MQTT_AUTH:
		a->disconnect.reason = v5 ? random_reason(type) : 0;
		if (v5)
			random_props(&a->disconnect.props, type, density);
		return;
	case MQTT_PINGREQ:
	case MQTT_PINGRESP:
		return;
	}
	cr_assert_fail("no packet type %d", type);
}

/* What the round trips have covered, by type. */
static uint32_t seen_props[16];

static void note_props(const struct any *a)
{
	switch ((enum mqtt_type)a->type) {
	case MQTT_CONNECT:
		seen_props[MQTT_CONNECT] |= a->connect.props.has;
		seen_props[0] |= a->connect.will_props.has;
		return;
	case MQTT_CONNACK: seen_props[a->type] |= a->connack.props.has; return;
	case MQTT_PUBLISH: seen_props[a->type] |= a->publish.props.has; return;
	case MQTT_PUBACK:
	case MQTT_PUBREC:
	case MQTT_PUBREL:
	case MQTT_PUBCOMP: seen_props[a->type] |= a->ack.props.has; return;
	case MQTT_SUBSCRIBE:
	case MQTT_UNSUBSCRIBE: seen_props[a->type] |= a->subscribe.props.has; return;
	case MQTT_SUBACK:
	case MQTT_UNSUBACK: seen_props[a->type] |= a->suback.props.has; return;
	case MQTT_DISCONNECT:
	case MQTT_AUTH: seen_props[a->type] |= a->disconnect.props.has; return;
	case MQTT_PINGREQ:
	case MQTT_PINGRESP: return;
	}
}

static bool exists(uint8_t version, uint8_t type)
{
	return type != MQTT_AUTH || version == MQTT_V5;
}

typedef void (*visit_fn)(const struct any *a, const uint8_t *packet, size_t bytes);

/* Calls visit for many random packets of every version and type, each encoded. */
static void each_packet(int rounds, visit_fn visit)
{
	fill_text();
	for (size_t v = 0; v < sizeof(versions); v++) {
		for (uint8_t type = MQTT_CONNECT; type <= MQTT_AUTH; type++) {
			for (int round = 0; exists(versions[v], type) && round < rounds; round++) {
				static uint8_t buf[BUF_BYTES];
				struct any a;

				random_any(&a, versions[v], type, (unsigned)round % 9);
				size_t bytes = any_encode(buf, sizeof(buf), &a);
				uint8_t *packet = malloc(bytes);

				cr_assert_gt(bytes, 0);
				memcpy(packet, buf, bytes);
				visit(&a, packet, bytes);
				free(packet);
			}
		}
	}
}

/* --- there and back
 * ----------------------------------------------------------------------------- */

static void visit_round_trip(const struct any *a, const uint8_t *packet, size_t bytes)
{
	struct any decoded;
	uint32_t used;
	int rc = any_decode(packet, bytes, a->version, &decoded, &used);

	cr_assert_eq(rc, 0, "%s v%u: %d", mqtt_type_name(a->type), a->version, rc);
	cr_assert_eq(used, bytes);
	cr_assert(any_equal(a, &decoded), "%s v%u", mqtt_type_name(a->type), a->version);
	note_props(&decoded);
}

Test(mqtt, every_packet_there_and_back)
{
	each_packet(ROUNDS, visit_round_trip);
	for (uint8_t type = 0; type < 16; type++)
		cr_assert_eq(
			seen_props[type], props_of(type), "properties of %s", mqtt_type_name(type));
}

/* A buffer that is one byte too small gets nothing, and not a byte behind it. */
static void visit_small_buffer(const struct any *a, const uint8_t *packet, size_t bytes)
{
	for (size_t room = 0; room < bytes; room += room + 20 < bytes ? 7 : 1) {
		uint8_t *buf = malloc(room ? room : 1);

		cr_assert_eq(any_encode(buf, room, a), 0);
		free(buf);
	}
	uint8_t *buf = malloc(bytes);

	cr_assert_eq(any_encode(buf, bytes, a), bytes);
	cr_assert_arr_eq(buf, packet, bytes);
	free(buf);
}

Test(mqtt, encoding_needs_just_its_bytes)
{
	each_packet(ROUNDS / 3, visit_small_buffer);
}

/* --- cut short
 * ------------------------------------------------------------------------------------ */

/* A prefix of a stream: more is wanted, whatever the packet. */
static void visit_prefixes(const struct any *a, const uint8_t *packet, size_t bytes)
{
	uint32_t hint_before = 0;

	for (size_t cut = 0; cut < bytes; cut++) {
		uint8_t *copy = malloc(cut ? cut : 1);
		struct any decoded;
		uint32_t hint = 0;

		memcpy(copy, packet, cut);
		cr_assert_eq(any_decode(copy, cut, a->version, &decoded, &hint), MQTT_MORE,
			"%s v%u, %zu of %zu", mqtt_type_name(a->type), a->version, cut, bytes);
		if (a->type == MQTT_PUBLISH) {
			mqtt_decode_publish_head(copy, cut, a->version, &decoded.publish, &hint);
			cr_assert(hint > cut && hint <= bytes && hint >= hint_before);
			hint_before = hint;
		}
		free(copy);
	}
}

Test(mqtt, every_prefix_wants_more)
{
	each_packet(ROUNDS / 3, visit_prefixes);
}

/* A packet whose remaining length says less than its fields need. Some bodies may end early: then
 * what is left is a packet of its own, and is what an encoder makes of it. */
static void check_short_body(const struct any *a, const uint8_t *body, uint32_t bytes)
{
	bool may_end_early =
		a->type != MQTT_CONNECT && a->type != MQTT_CONNACK && a->type != MQTT_PINGREQ;
	static uint8_t buf[BUF_BYTES];
	struct any decoded = {.version = a->version, .type = a->type}, again;
	uint32_t used;
	int rc = any_decode_body(body, bytes, &decoded);

	if (rc < 0) {
		cr_assert(rc == -MQTT_RC_MALFORMED || rc == -MQTT_RC_PROTOCOL_ERROR, "%d", rc);
		return;
	}
	cr_assert(
		may_end_early, "%s v%u ends after %u", mqtt_type_name(a->type), a->version, bytes);
	size_t encoded = any_encode(buf, sizeof(buf), &decoded);

	cr_assert_eq(any_decode(buf, encoded, a->version, &again, &used), 0);
	cr_assert(any_equal(&decoded, &again));
}

/* The length bytes of a value below 2^28, as the test has them. */
static uint32_t put_length(uint8_t *buf, uint32_t value)
{
	uint32_t i = 0;

	for (; value >= 128; value /= 128)
		buf[i++] = (uint8_t)(128 | value % 128);
	buf[i++] = (uint8_t)value;
	return i;
}

/* Every remaining length below the head's own, with further bytes behind the packet: never
 * "more". */
static void check_short_publish(const struct any *a, const uint8_t *body, uint32_t head_bytes)
{
	for (uint32_t cut = 0; cut < head_bytes; cut++) {
		uint8_t *packet = malloc(5 + head_bytes);
		struct mqtt_publish decoded;
		uint32_t used, at = 1 + put_length(packet + 1, cut);

		packet[0] = (uint8_t)(MQTT_PUBLISH << 4 | a->publish.qos << 1);
		memcpy(packet + at, body, head_bytes);
		cr_assert_eq(
			mqtt_decode_publish_head(packet, at + cut, a->version, &decoded, &used),
			-MQTT_RC_MALFORMED, "cut at %u of %u", cut, head_bytes);
		cr_assert_eq(mqtt_decode_publish_head(
				     packet, at + head_bytes, a->version, &decoded, &used),
			-MQTT_RC_MALFORMED);
		free(packet);
	}
}

static void visit_short(const struct any *a, const uint8_t *packet, size_t bytes)
{
	uint8_t type, flags;
	uint32_t remaining, header_bytes;

	cr_assert_eq(mqtt_decode_fixed(packet, bytes, &type, &flags, &remaining, &header_bytes), 0);
	if (a->type == MQTT_PUBLISH) {
		check_short_publish(a, packet + header_bytes, (uint32_t)bytes - header_bytes);
		return;
	}
	for (uint32_t cut = 0; cut < remaining; cut++) {
		uint8_t *body = malloc(cut ? cut : 1);

		memcpy(body, packet + header_bytes, cut);
		check_short_body(a, body, cut);
		free(body);
	}
}

Test(mqtt, no_field_reaches_past_the_packet)
{
	each_packet(ROUNDS / 6, visit_short);
}

/* One byte too many is malformed wherever the packet's own fields end it. */
static void visit_long(const struct any *a, const uint8_t *packet, size_t bytes)
{
	bool ends = a->type != MQTT_PUBLISH && a->type != MQTT_SUBACK && a->type != MQTT_UNSUBACK;
	struct any decoded = {.version = a->version, .type = a->type};
	uint8_t type, flags, *body;
	uint32_t remaining, header_bytes;

	mqtt_decode_fixed(packet, bytes, &type, &flags, &remaining, &header_bytes);
	/* The forms of v5 that leave out reason or properties get one of these. */
	if (!ends || (a->version == MQTT_V5 && remaining <= 3))
		return;
	body = malloc(remaining + 1);
	memcpy(body, packet + header_bytes, remaining);
	body[remaining] = 0;
	cr_assert_eq(any_decode_body(body, remaining + 1, &decoded), -MQTT_RC_MALFORMED, "%s v%u",
		mqtt_type_name(a->type), a->version);
	free(body);
}

Test(mqtt, nothing_may_follow_the_last_field)
{
	each_packet(ROUNDS, visit_long);
}

/* Any byte changed: no crash, and what still decodes is sound enough to be encoded again. */
static void visit_damaged(const struct any *a, const uint8_t *packet, size_t bytes)
{
	static uint8_t buf[BUF_BYTES];
	uint8_t *copy = malloc(bytes);

	for (int i = 0; i < 60; i++) {
		struct any decoded, again;
		uint32_t used;

		memcpy(copy, packet, bytes);
		copy[rnd((uint32_t)bytes)] ^= (uint8_t)(1 << rnd(8));
		if (rnd(2))
			copy[rnd((uint32_t)bytes)] = (uint8_t)rnd(256);
		if (any_decode(copy, bytes, a->version, &decoded, &used) != 0)
			continue;
		size_t encoded = any_encode(buf, sizeof(buf), &decoded);

		cr_assert_gt(encoded, 0);
		cr_assert_eq(any_decode(buf, encoded, decoded.version, &again, &used), 0);
		cr_assert(any_equal(&decoded, &again));
	}
	free(copy);
}

Test(mqtt, damaged_packets)
{
	each_packet(ROUNDS, visit_damaged);
}

/* --- by hand
 * ------------------------------------------------------------------------------------------ */

static struct mqtt_str str(const char *s)
{
	return (struct mqtt_str){s, (uint32_t)strlen(s)};
}

Test(mqtt, connect_by_hand)
{
	static const char bytes[] = "\x10\x35\0\4MQTT\5\xee\0\x3c"
				    "\x08\x11\0\0\0\x0a\x21\0\x14"
				    "\0\2id"
				    "\x05\x18\0\0\0\1\0\4will\0\2by"
				    "\0\4user\0\6secret";
	struct mqtt_connect c = {
		.version = MQTT_V5,
		.clean_start = true,
		.keep_alive_s = 60,
		.clientid = str("id"),
		.props = {.has = 1u << MQTT_P_SESSION_EXPIRY | 1u << MQTT_P_RECEIVE_MAX,
			.session_expiry = 10,
			.receive_max = 20},
		.has_will = true,
		.will_retain = true,
		.will_qos = 1,
		.will_topic = str("will"),
		.will_payload = str("by"),
		.will_props = {.has = 1u << MQTT_P_WILL_DELAY, .will_delay = 1},
		.has_username = true,
		.username = str("user"),
		.has_password = true,
		.password = str("secret"),
	};
	uint8_t buf[128];

	cr_assert_eq(mqtt_encode_connect(buf, sizeof(buf), &c), sizeof(bytes) - 1);
	cr_assert_arr_eq(buf, bytes, sizeof(bytes) - 1);
	c = (struct mqtt_connect){.version = MQTT_V31, .clientid = str("id")};
	cr_assert_eq(mqtt_encode_connect(buf, sizeof(buf), &c), 18);
	cr_assert_arr_eq(buf, "\x10\x10\0\6MQIsdp\3\0\0\0\0\2id", 18);
	c.version = MQTT_V311;
	cr_assert_eq(mqtt_encode_connect(buf, sizeof(buf), &c), 16);
	cr_assert_arr_eq(buf, "\x10\x0e\0\4MQTT\4\0\0\0\0\2id", 16);
}

Test(mqtt, publish_by_hand)
{
	struct mqtt_publish p = {.qos = 1,
		.packet_id = 0x1234,
		.topic = str("a/b"),
		.payload_bytes = 300,
		.props = {.has = 1u << MQTT_P_RESPONSE_TOPIC, .response_topic = str("r")}};
	uint8_t buf[64];

	cr_assert_eq(mqtt_encode_publish_head(buf, sizeof(buf), MQTT_V5, &p), 15);
	cr_assert_arr_eq(buf, "\x32\xb8\2\0\3a/b\x12\x34\4\x08\0\1r", 15);
	cr_assert_eq(mqtt_encode_publish_head(buf, sizeof(buf), MQTT_V311, &p), 10);
	cr_assert_arr_eq(buf, "\x32\xb3\2\0\3a/b\x12\x34", 10);
	p.qos = 0;
	p.retain = true;
	p.payload_bytes = MQTT_REMAINING_MAX - 5;
	cr_assert_eq(mqtt_encode_publish_head(buf, sizeof(buf), MQTT_V311, &p), 10);
	cr_assert_arr_eq(buf, "\x31\xff\xff\xff\x7f\0\3a/b", 10);
	p.payload_bytes++;
	cr_assert_eq(mqtt_encode_publish_head(buf, sizeof(buf), MQTT_V311, &p), 0,
		"no packet is so long");
	p.payload_bytes = UINT32_MAX;
	cr_assert_eq(mqtt_encode_publish_head(buf, sizeof(buf), MQTT_V311, &p), 0);
}

Test(mqtt, acks_by_hand)
{
	struct mqtt_ack a = {.packet_id = 258};
	struct mqtt_disconnect d = {0};
	struct mqtt_connack c = {.session_present = true};
	uint8_t buf[32];

	cr_assert_eq(mqtt_encode_ack(buf, sizeof(buf), MQTT_V5, MQTT_PUBACK, &a), 4);
	cr_assert_arr_eq(buf, "\x40\2\1\2", 4);
	a.reason = MQTT_RC_NO_MATCHING_SUBSCRIBERS;
	cr_assert_eq(mqtt_encode_ack(buf, sizeof(buf), MQTT_V5, MQTT_PUBREC, &a), 5);
	cr_assert_arr_eq(buf, "\x50\3\1\2\x10", 5);
	a.props.has = 1u << MQTT_P_REASON_STRING;
	a.props.reason_string = str("no");
	cr_assert_eq(mqtt_encode_ack(buf, sizeof(buf), MQTT_V5, MQTT_PUBREL, &a), 11);
	cr_assert_arr_eq(buf, "\x62\x09\1\2\x10\5\x1f\0\2no", 11);
	cr_assert_eq(mqtt_encode_ack(buf, sizeof(buf), MQTT_V311, MQTT_PUBCOMP, &a), 4);
	cr_assert_arr_eq(buf, "\x70\2\1\2", 4);
	cr_assert_eq(mqtt_encode_disconnect(buf, sizeof(buf), MQTT_V5, MQTT_DISCONNECT, &d), 2);
	cr_assert_arr_eq(buf, "\xe0\0", 2);
	d.reason = MQTT_RC_TAKEN_OVER;
	cr_assert_eq(mqtt_encode_disconnect(buf, sizeof(buf), MQTT_V5, MQTT_DISCONNECT, &d), 3);
	cr_assert_arr_eq(buf, "\xe0\1\x8e", 3);
	cr_assert_eq(mqtt_encode_connack(buf, sizeof(buf), MQTT_V311, &c), 4);
	cr_assert_arr_eq(buf, "\x20\2\1\0", 4);
	cr_assert_eq(mqtt_encode_connack(buf, sizeof(buf), MQTT_V31, &c), 4);
	cr_assert_arr_eq(buf, "\x20\2\0\0", 4);
	cr_assert_eq(mqtt_encode_ping(buf, sizeof(buf), MQTT_PINGRESP), 2);
	cr_assert_arr_eq(buf, "\xd0\0", 2);
	cr_assert_eq(mqtt_encode_ping(buf, 1, MQTT_PINGREQ), 0);
}

Test(mqtt, subscribe_by_hand)
{
	struct mqtt_sub subs[] = {{str("a"), 0x2d}, {str("b/#"), 2}};
	struct mqtt_props two = {
		.has = 1u << MQTT_P_SUBSCRIPTION_ID, .subids_count = 2, .subids = {5, 6}};
	uint8_t buf[32];

	cr_assert_eq(mqtt_encode_subscribe(buf, sizeof(buf), MQTT_V5, 9, NULL, subs, 2), 15);
	cr_assert_arr_eq(buf, "\x82\x0d\0\x09\0\0\1a\x2d\0\3b/#\2", 15);
	cr_assert_eq(mqtt_encode_subscribe(buf, sizeof(buf), MQTT_V311, 9, NULL, subs, 2), 14);
	cr_assert_arr_eq(buf, "\x82\x0c\0\x09\0\1a\1\0\3b/#\2", 14);
	/* Only a PUBLISH may carry several identifiers. */
	cr_assert_eq(mqtt_encode_subscribe(buf, sizeof(buf), MQTT_V5, 9, &two, subs, 1), 11);
	cr_assert_arr_eq(buf, "\x82\x09\0\x09\2\x0b\5\0\1a\x2d", 11);
	cr_assert_eq(mqtt_encode_unsubscribe(buf, sizeof(buf), MQTT_V311, 9, NULL, subs, 2), 12);
	cr_assert_arr_eq(buf, "\xa2\x0a\0\x09\0\1a\0\3b/#", 12);
	/* After the last one there is none, and the cursor stays. */
	struct mqtt_subscribe decoded;
	struct mqtt_sub sub;
	uint32_t cursor = 0;
	cr_assert_eq(mqtt_decode_subscribe(buf + 2, 10, MQTT_V311, MQTT_UNSUBSCRIBE, &decoded), 0);
	cr_assert(mqtt_subscribe_next(&decoded, &cursor, &sub));
	cr_assert(mqtt_subscribe_next(&decoded, &cursor, &sub));
	cr_assert_eq(cursor, 8);
	cr_assert_not(mqtt_subscribe_next(&decoded, &cursor, &sub));
	cr_assert_eq(cursor, 8);
}

/* What its field can't say is not written. A will's properties may go into the PUBLISH that it
 * becomes. */
Test(mqtt, encoding_leaves_out_what_may_not_be)
{
	static char longest[65536];
	struct mqtt_publish p = {.topic = {longest, 65535}};
	static uint8_t buf[70000];

	memset(longest, 'x', sizeof(longest));
	cr_assert_eq(mqtt_encode_publish_head(buf, sizeof(buf), MQTT_V5, &p), 4 + 2 + 65535 + 1);
	p.topic.bytes = 65536;
	cr_assert_eq(mqtt_encode_publish_head(buf, sizeof(buf), MQTT_V5, &p), 0);
	p.topic = str("t");
	p.props.has = 1u << MQTT_P_WILL_DELAY | 1u << MQTT_P_MESSAGE_EXPIRY;
	p.props.message_expiry = 3;
	cr_assert_eq(mqtt_encode_publish_head(buf, sizeof(buf), MQTT_V5, &p), 11);
	cr_assert_arr_eq(buf, "\x30\x09\0\1t\5\2\0\0\0\3", 11);
	p.props = (struct mqtt_props){
		.has = 1u << MQTT_P_SUBSCRIPTION_ID, .subids_count = 1, .subids = {0x0fffffff}};
	cr_assert_eq(mqtt_encode_publish_head(buf, sizeof(buf), MQTT_V5, &p), 11);
	p.props.subids[0]++;
	cr_assert_eq(mqtt_encode_publish_head(buf, sizeof(buf), MQTT_V5, &p), 0);
}
