/*
 * lib/mqtt_*.c: what a receiver must refuse, and with which reason code. Every packet here is
 * written out as bytes.
 */
#include <criterion/criterion.h>

#include "../mqtt_any.h"

#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { V3 = MQTT_V311, V5 = MQTT_V5, MALFORMED = -0x81, PROTOCOL = -0x82 };

/* Bytes that may hold zeros. */
struct blob {
	const char *s;
	uint32_t bytes;
};
#define BLOB(literal) {literal, sizeof(literal) - 1}

/* The packet of a first byte and a body, in an allocation of its own size. */
static uint8_t *packet_of(uint8_t first, const char *body, uint32_t body_bytes, size_t *ret_bytes)
{
	uint8_t *packet = malloc(3 + body_bytes);

	cr_assert_lt(body_bytes, 128 * 128);
	packet[0] = first;
	packet[1] = (uint8_t)(0x80 | body_bytes % 128); /* both bytes, also for a short one */
	packet[2] = (uint8_t)(body_bytes / 128);
	memcpy(packet + 3, body, body_bytes);
	*ret_bytes = 3 + body_bytes;
	return packet;
}

static int decode(uint8_t version, uint8_t first, const char *body, uint32_t body_bytes)
{
	size_t bytes;
	uint8_t *packet = packet_of(first, body, body_bytes, &bytes);
	struct any a;
	uint32_t used;
	int rc = any_decode(packet, bytes, version, &a, &used);

	free(packet);
	return rc;
}

struct rule {
	const char *what;
	uint8_t version, first;
	struct blob body;
	int rc;
};

static void check_rules(const struct rule *rules, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct rule *r = &rules[i];
		int rc = decode(r->version, r->first, r->body.s, r->body.bytes);

		cr_expect_eq(rc, r->rc, "v%u %s: %d, not %d", r->version, r->what, rc, r->rc);
	}
}

/* --- the fixed header
 * --------------------------------------------------------------------------- */

Test(rules, first_byte)
{
	for (int first = 0; first < 256; first++) {
		uint8_t packet[2] = {(uint8_t)first, 0}, type = first >> 4, flags = first & 15, t,
			f;
		uint8_t qos = flags >> 1 & 3;
		bool ok =
			type == MQTT_PUBLISH ? qos != 3 && !(qos == 0 && (flags & 8))
			: type == MQTT_PUBREL || type == MQTT_SUBSCRIBE || type == MQTT_UNSUBSCRIBE
				? flags == 2
				: type != 0 && flags == 0;
		uint32_t remaining, header_bytes;
		int rc = mqtt_decode_fixed(packet, 2, &t, &f, &remaining, &header_bytes);

		cr_assert_eq(rc, ok ? 0 : MALFORMED, "%02x", first);
		cr_assert_eq(mqtt_decode_fixed(packet, 1, &t, &f, &remaining, &header_bytes),
			ok ? MQTT_MORE : MALFORMED, "%02x alone", first);
		if (ok)
			cr_assert(t == type && f == flags && remaining == 0 && header_bytes == 2);
	}
}

Test(rules, remaining_length)
{
	static const struct {
		struct blob bytes;
		int rc;
		uint32_t remaining, header_bytes;
	} cases[] = {
		{BLOB(""), MQTT_MORE, 0, 0},
		{BLOB("\x30"), MQTT_MORE, 0, 0},
		{BLOB("\x30\x7f"), 0, 127, 2},
		{BLOB("\x30\x80"), MQTT_MORE, 0, 0},
		{BLOB("\x30\x80\x01"), 0, 128, 3},
		{BLOB("\x30\xff\x7f"), 0, 16383, 3},
		{BLOB("\x30\x80\x80\x01"), 0, 16384, 4},
		{BLOB("\x30\xff\xff\x7f"), 0, 2097151, 4},
		{BLOB("\x30\x80\x80\x80"), MQTT_MORE, 0, 0},
		{BLOB("\x30\x80\x80\x80\x01"), 0, 2097152, 5},
		{BLOB("\x30\xff\xff\xff\x7f"), 0, 268435455, 5},
		{BLOB("\x30\xff\xff\xff\xff"), MALFORMED, 0, 0},
		{BLOB("\x30\x80\x80\x80\x80\x01"), MALFORMED, 0, 0},
		{BLOB("\x30\x85\x00"), 0, 5, 3},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		uint8_t type, flags;
		uint32_t remaining = 0, header_bytes = 0;

		cr_assert_eq(
			mqtt_decode_fixed((const uint8_t *)cases[i].bytes.s, cases[i].bytes.bytes,
				&type, &flags, &remaining, &header_bytes),
			cases[i].rc, "case %zu", i);
		cr_assert_eq(remaining, cases[i].remaining);
		cr_assert_eq(header_bytes, cases[i].header_bytes);
	}
}

/* --- CONNECT
 * -------------------------------------------------------------------------------------- */

#define C31 "\0\6MQIsdp\3"
#define C311 "\0\4MQTT\4"
#define C5 "\0\4MQTT\5"

Test(rules, connect)
{
	static const struct rule rules[] = {
		{"plain 3.1", 0, 0x10, BLOB(C31 "\2\0\0\0\1c"), 0},
		{"plain 3.1.1", 0, 0x10, BLOB(C311 "\2\0\0\0\1c"), 0},
		{"plain 5", 0, 0x10, BLOB(C5 "\2\0\0\0\0\1c"), 0},
		{"no name", 0, 0x10, BLOB(""), MALFORMED},
		{"no level", 0, 0x10, BLOB("\0\4MQTT"), MALFORMED},
		{"no flags", 0, 0x10, BLOB(C311), MALFORMED},
		{"level 6", 0, 0x10, BLOB("\0\4MQTT\6\2\0\0\0\1c"), -0x84},
		{"level 3 with the new name", 0, 0x10, BLOB("\0\4MQTT\3\2\0\0\0\1c"), -0x84},
		{"level 4 with the old name", 0, 0x10, BLOB("\0\6MQIsdp\4\2\0\0\0\1c"), -0x84},
		{"level 0", 0, 0x10, BLOB("\0\4MQTT\0"), -0x84},
		{"a bridge's level", 0, 0x10, BLOB("\0\4MQTT\x84\2\0\0\0\1c"), -0x84},
		{"another name", 0, 0x10, BLOB("\0\4mqtt\4\2\0\0\0\1c"), -0x84},
		{"an empty name", 0, 0x10, BLOB("\0\0\4\2\0\0\0\1c"), -0x84},
		{"reserved flag", 0, 0x10, BLOB(C311 "\3\0\0\0\1c"), MALFORMED},
		{"reserved flag", 0, 0x10, BLOB(C5 "\3\0\0\0\0\1c"), MALFORMED},
		{"bit 0 of 3.1", 0, 0x10, BLOB(C31 "\3\0\0\0\1c"), 0},
		{"will QoS 3", 0, 0x10, BLOB(C311 "\x1e\0\0\0\1c\0\1w\0\0"), MALFORMED},
		{"will QoS without will", 0, 0x10, BLOB(C311 "\x0a\0\0\0\1c"), MALFORMED},
		{"will retain without will", 0, 0x10, BLOB(C5 "\x22\0\0\0\0\1c"), MALFORMED},
		{"password alone", 0, 0x10, BLOB(C311 "\x42\0\0\0\1c\0\1p"), MALFORMED},
		{"password alone", 0, 0x10, BLOB(C31 "\x42\0\0\0\1c\0\1p"), MALFORMED},
		{"password alone", 0, 0x10, BLOB(C5 "\x42\0\0\0\0\1c\0\1p"), 0},
		{"no client id, clean", 0, 0x10, BLOB(C311 "\2\0\0\0\0"), 0},
		{"no client id, not clean", 0, 0x10, BLOB(C311 "\0\0\0\0\0"), -0x85},
		{"no client id, clean", 0, 0x10, BLOB(C31 "\2\0\0\0\0"), -0x85},
		{"a long client id", 0, 0x10, BLOB(C31 "\2\0\0\0\x18ghijklmnopqrstuvwxyzabcd"), 0},
		{"no client id, not clean", 0, 0x10, BLOB(C5 "\0\0\0\0\0\0"), 0},
		{"client id no UTF-8", 0, 0x10, BLOB(C311 "\2\0\0\0\1\xff"), MALFORMED},
		{"client id with NUL", 0, 0x10, BLOB(C5 "\2\0\0\0\0\3a\0b"), MALFORMED},
		{"will topic empty", 0, 0x10, BLOB(C311 "\6\0\0\0\1c\0\0\0\0"), -0x90},
		{"will topic with wildcard", 0, 0x10, BLOB(C5 "\6\0\0\0\0\1c\0\0\3w/#\0\0"), -0x90},
		{"will topic no UTF-8", 0, 0x10, BLOB(C311 "\6\0\0\0\1c\0\1\xc3\0\0"), MALFORMED},
		{"will payload any bytes", 0, 0x10, BLOB(C311 "\6\0\0\0\1c\0\1w\0\2\xff\0"), 0},
		{"will cut", 0, 0x10, BLOB(C311 "\6\0\0\0\1c\0\1w\0\2x"), MALFORMED},
		{"user name no UTF-8", 0, 0x10, BLOB(C311 "\x82\0\0\0\1c\0\1\x80"), MALFORMED},
		{"password any bytes", 0, 0x10, BLOB(C311 "\xc2\0\0\0\1c\0\1u\0\1\0"), 0},
		{"bytes left", 0, 0x10, BLOB(C311 "\2\0\0\0\1cx"), MALFORMED},
		{"properties over the end", 0, 0x10, BLOB(C5 "\2\0\0\5\0\1c"), MALFORMED},
		{"property length too long", 0, 0x10, BLOB(C5 "\2\0\0\x80\0\0\1c"), MALFORMED},
		{"property length of 5 bytes", 0, 0x10, BLOB(C5 "\2\0\0\x80\x80\x80\x80\1"),
			MALFORMED},
	};

	check_rules(rules, COUNT(rules));
}

/* The edge writes its refusal in the version that was asked for. */
Test(rules, connect_tells_the_version_also_of_what_it_refuses)
{
	static const struct {
		struct blob body;
		uint8_t version;
	} cases[] = {
		{BLOB("\0\4MQT"), 0},
		{BLOB("\0\4MQTT"), 0},
		{BLOB("\0\4MQTT\x09"), 9},
		{BLOB(C5 "\3"), 5},
		{BLOB(C311 "\0\0\0\0\0"), 4},
		{BLOB(C31 "\2\0\0\0\0"), 3},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct mqtt_connect c;

		memset(&c, 0xa5, sizeof(c));
		cr_assert_lt(mqtt_decode_connect(
				     (const uint8_t *)cases[i].body.s, cases[i].body.bytes, &c),
			0);
		cr_assert_eq(c.version, cases[i].version, "case %zu", i);
	}
}

/* --- the others
 * ------------------------------------------------------------------------------------- */

Test(rules, publish)
{
	static const struct rule rules[] = {
		{"plain", V3, 0x30, BLOB("\0\1t" "payload"), 0},
		{"QoS 1", V3, 0x32, BLOB("\0\1t\0\1"), 0},
		{"QoS 1 duplicate", V5, 0x3a, BLOB("\0\1t\0\1\0"), 0},
		{"id 0", V3, 0x32, BLOB("\0\1t\0\0"), PROTOCOL},
		{"id 0", V5, 0x34, BLOB("\0\1t\0\0\0"), PROTOCOL},
		{"no topic", V3, 0x30, BLOB(""), MALFORMED},
		{"topic over the end", V3, 0x30, BLOB("\0\4t"), MALFORMED},
		{"no id", V3, 0x32, BLOB("\0\1t\0"), MALFORMED},
		{"no property length", V5, 0x30, BLOB("\0\1t"), MALFORMED},
		{"properties over the end", V5, 0x30, BLOB("\0\1t\3\1\1"), MALFORMED},
		{"property length too long", V5, 0x30, BLOB("\0\1t\x80\0"), MALFORMED},
		{"topic empty", V3, 0x30, BLOB("\0\0"), -0x90},
		{"topic empty, no alias", V5, 0x30, BLOB("\0\0\0"), PROTOCOL},
		{"topic empty, alias", V5, 0x30, BLOB("\0\0\3\x23\0\1"), 0},
		{"topic and alias", V5, 0x30, BLOB("\0\1t\3\x23\0\1"), 0},
		{"alias 0", V5, 0x30, BLOB("\0\1t\3\x23\0\0"), -0x94},
		{"wildcard", V3, 0x30, BLOB("\0\3a/+"), -0x90},
		{"wildcard", V5, 0x30, BLOB("\0\3a/#\0"), -0x90},
		{"topic no UTF-8", V3, 0x30, BLOB("\0\1\xff"), MALFORMED},
		{"topic with NUL", V5, 0x30, BLOB("\0\1\0\0"), MALFORMED},
		{"topic with a surrogate", V5, 0x30, BLOB("\0\3\xed\xa0\x80\0"), MALFORMED},
		{"two subscription ids", V5, 0x30, BLOB("\0\1t\4\x0b\1\x0b\2"), 0},
	};

	check_rules(rules, COUNT(rules));
}

Test(rules, connack)
{
	static const struct rule rules[] = {
		{"plain", V3, 0x20, BLOB("\0\0"), 0},
		{"session present", V3, 0x20, BLOB("\1\0"), 0},
		{"refused", V3, 0x20, BLOB("\0\5"), 0},
		{"code 6", V3, 0x20, BLOB("\0\6"), PROTOCOL},
		{"session present and refused", V3, 0x20, BLOB("\1\5"), PROTOCOL},
		{"session present and refused", V5, 0x20, BLOB("\1\x87\0"), PROTOCOL},
		{"reserved flag", V3, 0x20, BLOB("\2\0"), MALFORMED},
		{"reserved byte of 3.1", MQTT_V31, 0x20, BLOB("\x81\0"), 0},
		{"code of a SUBACK", V5, 0x20, BLOB("\0\1\0"), PROTOCOL},
		{"no properties", V5, 0x20, BLOB("\0\0"), MALFORMED},
		{"bytes left", V5, 0x20, BLOB("\0\0\0\0"), MALFORMED},
		{"bytes left", V3, 0x20, BLOB("\0\0\0"), MALFORMED},
		{"cut", V3, 0x20, BLOB("\0"), MALFORMED},
	};

	check_rules(rules, COUNT(rules));
}

Test(rules, acks)
{
	static const struct rule rules[] = {
		{"PUBACK", V3, 0x40, BLOB("\0\1"), 0},
		{"PUBACK of 3 bytes", V3, 0x40, BLOB("\0\1\0"), MALFORMED},
		{"PUBACK of 1 byte", V5, 0x40, BLOB("\0"), MALFORMED},
		{"PUBACK empty", V5, 0x40, BLOB(""), MALFORMED},
		{"PUBACK id 0", V3, 0x40, BLOB("\0\0"), PROTOCOL},
		{"PUBACK short form", V5, 0x40, BLOB("\0\1"), 0},
		{"PUBACK with reason", V5, 0x40, BLOB("\0\1\x10"), 0},
		{"PUBACK with properties", V5, 0x40, BLOB("\0\1\x97\4\x1f\0\1x"), 0},
		{"PUBACK bytes left", V5, 0x40, BLOB("\0\1\0\0\0"), MALFORMED},
		{"PUBACK with a reason of PUBREL", V5, 0x40, BLOB("\0\1\x92"), PROTOCOL},
		{"PUBREC with no reason that there is", V5, 0x50, BLOB("\0\1\x7f"), PROTOCOL},
		{"PUBREL", V5, 0x62, BLOB("\0\1\x92"), 0},
		{"PUBREL with a reason of PUBACK", V5, 0x62, BLOB("\0\1\x10"), PROTOCOL},
		{"PUBCOMP id 0", V5, 0x70, BLOB("\0\0\0"), PROTOCOL},
		{"PUBCOMP", V3, 0x70, BLOB("\xff\xff"), 0},
		{"PINGREQ", V3, 0xc0, BLOB(""), 0},
		{"PINGREQ with a body", V3, 0xc0, BLOB("\0"), MALFORMED},
	};

	check_rules(rules, COUNT(rules));
}

Test(rules, subscribe)
{
	static const struct rule rules[] = {
		{"plain", V3, 0x82, BLOB("\0\1\0\1t\2"), 0},
		{"plain", V5, 0x82, BLOB("\0\1\0\0\1t\x2e"), 0},
		{"id 0", V3, 0x82, BLOB("\0\0\0\1t\0"), PROTOCOL},
		{"empty", V3, 0x82, BLOB("\0\1"), PROTOCOL},
		{"empty", V5, 0x82, BLOB("\0\1\0"), PROTOCOL},
		{"QoS 3", V3, 0x82, BLOB("\0\1\0\1t\3"), MALFORMED},
		{"reserved bits", V3, 0x82, BLOB("\0\1\0\1t\4"), MALFORMED},
		{"QoS 3", V5, 0x82, BLOB("\0\1\0\0\1t\3"), PROTOCOL},
		{"retain handling 3", V5, 0x82, BLOB("\0\1\0\0\1t\x30"), PROTOCOL},
		{"reserved bits", V5, 0x82, BLOB("\0\1\0\0\1t\x40"), MALFORMED},
		{"no options", V3, 0x82, BLOB("\0\1\0\1t"), MALFORMED},
		{"filter over the end", V3, 0x82, BLOB("\0\1\0\3t\0"), MALFORMED},
		{"the second cut", V3, 0x82, BLOB("\0\1\0\1t\0\0"), MALFORMED},
		{"filter empty", V3, 0x82, BLOB("\0\1\0\0\0"), -0x8f},
		{"filter wrong", V5, 0x82, BLOB("\0\1\0\0\2a#\0"), -0x8f},
		{"the second wrong", V3, 0x82, BLOB("\0\1\0\1a\0\0\2+b\0"), -0x8f},
		{"filter no UTF-8", V3, 0x82, BLOB("\0\1\0\1\xff\0"), MALFORMED},
		{"shared", V5, 0x82, BLOB("\0\1\0\0\x0a$share/g/t\1"), 0},
		{"shared with no local", V5, 0x82, BLOB("\0\1\0\0\x0a$share/g/t\5"), PROTOCOL},
		{"shared without filter", V5, 0x82, BLOB("\0\1\0\0\x08$share/g\1"), -0x8f},
		{"shared with wildcard group", V5, 0x82, BLOB("\0\1\0\0\x0a$share/+/t\1"), -0x8f},
		{"no such thing in v3", V3, 0x82, BLOB("\0\1\0\x08$share/g\1"), 0},
		{"two subscription ids", V5, 0x82, BLOB("\0\1\4\x0b\1\x0b\2\0\1t\0"), PROTOCOL},
		{"no properties", V5, 0x82, BLOB("\0\1"), MALFORMED},
		{"unsubscribe", V3, 0xa2, BLOB("\0\1\0\1t"), 0},
		{"unsubscribe", V5, 0xa2, BLOB("\0\1\0\0\1t\0\1u"), 0},
		{"unsubscribe id 0", V5, 0xa2, BLOB("\0\0\0\0\1t"), PROTOCOL},
		{"unsubscribe from nothing", V3, 0xa2, BLOB("\0\1"), PROTOCOL},
		{"unsubscribe with options", V3, 0xa2, BLOB("\0\1\0\1t\0"), MALFORMED},
		{"unsubscribe wrong", V3, 0xa2, BLOB("\0\1\0\2##"), -0x8f},
	};

	check_rules(rules, COUNT(rules));
}

Test(rules, suback)
{
	static const struct rule rules[] = {
		{"plain", V3, 0x90, BLOB("\0\1\0\1\2\x80"), 0},
		{"code 3", V3, 0x90, BLOB("\0\1\3"), PROTOCOL},
		{"code of v5", V3, 0x90, BLOB("\0\1\x87"), PROTOCOL},
		{"empty", V3, 0x90, BLOB("\0\1"), PROTOCOL},
		{"id 0", V3, 0x90, BLOB("\0\0\0"), PROTOCOL},
		{"plain", V5, 0x90, BLOB("\0\1\0\2\x9e"), 0},
		{"code of UNSUBACK", V5, 0x90, BLOB("\0\1\0\x11"), PROTOCOL},
		{"empty", V5, 0x90, BLOB("\0\1\0"), PROTOCOL},
		{"cut", V3, 0x90, BLOB("\0"), MALFORMED},
		{"UNSUBACK", V3, 0xb0, BLOB("\0\1"), 0},
		{"UNSUBACK with codes", V3, 0xb0, BLOB("\0\1\0"), MALFORMED},
		{"UNSUBACK id 0", V3, 0xb0, BLOB("\0\0"), PROTOCOL},
		{"UNSUBACK", V5, 0xb0, BLOB("\0\1\0\x11"), 0},
		{"UNSUBACK without codes", V5, 0xb0, BLOB("\0\1\0"), PROTOCOL},
		{"UNSUBACK with a QoS", V5, 0xb0, BLOB("\0\1\0\1"), PROTOCOL},
	};

	check_rules(rules, COUNT(rules));
}

Test(rules, disconnect_and_auth)
{
	static const struct rule rules[] = {
		{"plain", V3, 0xe0, BLOB(""), 0},
		{"with a body", V3, 0xe0, BLOB("\0"), MALFORMED},
		{"short form", V5, 0xe0, BLOB(""), 0},
		{"with reason", V5, 0xe0, BLOB("\4"), 0},
		{"with properties", V5, 0xe0, BLOB("\x8e\0"), 0},
		{"code of AUTH", V5, 0xe0, BLOB("\x18"), PROTOCOL},
		{"bytes left", V5, 0xe0, BLOB("\0\0\0"), MALFORMED},
		{"properties cut", V5, 0xe0, BLOB("\0\1"), MALFORMED},
		{"AUTH in v3", V3, 0xf0, BLOB(""), MALFORMED},
		{"AUTH short form", V5, 0xf0, BLOB(""), 0},
		{"AUTH", V5, 0xf0, BLOB("\x18\4\x15\0\1m"), 0},
		{"AUTH without method", V5, 0xf0, BLOB("\x18\0"), PROTOCOL},
		{"AUTH without properties", V5, 0xf0, BLOB("\x18"), PROTOCOL},
		{"AUTH with a code of DISCONNECT", V5, 0xf0, BLOB("\x81\4\x15\0\1m"), PROTOCOL},
	};

	check_rules(rules, COUNT(rules));
}

/* --- properties
 * ------------------------------------------------------------------------------------- */

/* A packet of v5 around its properties: what comes before their length and what behind them. */
struct frame {
	char name; /* as in `where` below */
	uint8_t first;
	struct blob before, after;
};

static const struct frame frames[] = {
	{'c', 0x10, BLOB("\0\4MQTT\5\2\0\0"), BLOB("\0\0")},
	{'w', 0x10, BLOB("\0\4MQTT\5\6\0\0\0\0\0"), BLOB("\0\1t\0\0")},
	{'C', 0x20, BLOB("\0\0"), BLOB("")},
	{'P', 0x32, BLOB("\0\1t\0\1"), BLOB("payload")},
	{'1', 0x40, BLOB("\0\1\0"), BLOB("")},
	{'2', 0x50, BLOB("\0\1\0"), BLOB("")},
	{'3', 0x62, BLOB("\0\1\0"), BLOB("")},
	{'4', 0x70, BLOB("\0\1\0"), BLOB("")},
	{'s', 0x82, BLOB("\0\1"), BLOB("\0\1t\0")},
	{'S', 0x90, BLOB("\0\1"), BLOB("\0")},
	{'u', 0xa2, BLOB("\0\1"), BLOB("\0\1t")},
	{'U', 0xb0, BLOB("\0\1"), BLOB("\0")},
	{'d', 0xe0, BLOB("\0"), BLOB("")},
	{'a', 0xf0, BLOB("\x18"), BLOB("")},
};

/* Table 2-4, written out once more: where each may stand, and a good value. */
static const struct {
	const char *where;
	struct blob bytes;
	const char *repeats; /* where it may come twice */
} table[] = {
	{"Pw", BLOB("\x01\1"), ""},
	{"Pw", BLOB("\x02\0\0\0\0"), ""},
	{"Pw", BLOB("\x03\0\1x"), ""},
	{"Pw", BLOB("\x08\0\1x"), ""},
	{"Pw", BLOB("\x09\0\2\0\xff"), ""},
	{"Ps", BLOB("\x0b\xff\xff\xff\x7f"), "P"},
	{"cCd", BLOB("\x11\0\0\0\1"), ""},
	{"C", BLOB("\x12\0\1x"), ""},
	{"C", BLOB("\x13\0\0"), ""},
	{"cCa", BLOB("\x15\0\1m"), ""},
	{"cCa", BLOB("\x16\0\2\0\xff"), ""},
	{"c", BLOB("\x17\0"), ""},
	{"w", BLOB("\x18\0\0\0\1"), ""},
	{"c", BLOB("\x19\1"), ""},
	{"C", BLOB("\x1a\0\0"), ""},
	{"Cd", BLOB("\x1c\0\1x"), ""},
	{"C1234SUda", BLOB("\x1f\0\1x"), ""},
	{"cC", BLOB("\x21\0\1"), ""},
	{"cC", BLOB("\x22\0\0"), ""},
	{"P", BLOB("\x23\xff\xff"), ""},
	{"C", BLOB("\x24\1"), ""},
	{"C", BLOB("\x25\0"), ""},
	{"cwCP1234sSuUda", BLOB("\x26\0\1k\0\0"), "cwCP1234sSuUda"},
	{"cC", BLOB("\x27\0\0\0\1"), ""},
	{"C", BLOB("\x28\1"), ""},
	{"C", BLOB("\x29\1"), ""},
	{"C", BLOB("\x2a\0"), ""},
};

/* Decodes the packet of a frame with these properties, `times` over, behind an authentication
 * method where one is needed and the property is not it. */
static int decode_props(const struct frame *f, const char *props, uint32_t bytes, int times)
{
	bool method = f->name == 'a' || (bytes > 0 && props[0] == 0x16 && strchr("cC", f->name));
	uint32_t props_bytes = bytes * (uint32_t)times, at = 0;
	char body[300];

	if (bytes > 0 && props[0] == 0x15)
		method = false;
	memcpy(body, f->before.s, f->before.bytes);
	at += f->before.bytes;
	props_bytes += method ? 4 : 0;
	cr_assert_lt(props_bytes, 128);
	body[at++] = (char)props_bytes;
	if (method) {
		memcpy(body + at, "\x15\0\1m", 4);
		at += 4;
	}
	for (int i = 0; i < times; i++, at += bytes)
		memcpy(body + at, props, bytes);
	memcpy(body + at, f->after.s, f->after.bytes);
	return decode(V5, f->first, body, at + f->after.bytes);
}

Test(rules, which_property_where_and_how_often)
{
	for (size_t f = 0; f < COUNT(frames); f++) {
		const struct frame *frame = &frames[f];

		for (size_t p = 0; p < COUNT(table); p++) {
			bool fits = strchr(table[p].where, frame->name);
			bool repeats = strchr(table[p].repeats, frame->name);
			const struct blob *b = &table[p].bytes;

			cr_expect_eq(decode_props(frame, b->s, b->bytes, 1), fits ? 0 : MALFORMED,
				"%02x in %c", b->s[0], frame->name);
			cr_expect_eq(decode_props(frame, b->s, b->bytes, 2),
				!fits	  ? MALFORMED
				: repeats ? 0
					  : PROTOCOL,
				"%02x twice in %c", b->s[0], frame->name);
			for (uint32_t cut = 1; cut < b->bytes; cut++)
				cr_expect_eq(decode_props(frame, b->s, cut, 1), MALFORMED,
					"%02x cut at %u in %c", b->s[0], cut, frame->name);
		}
	}
}

Test(rules, unknown_properties)
{
	for (int id = 0; id < 256; id++) {
		bool known = false;
		char bytes[8] = {(char)id, 0, 0, 0, 1};

		for (size_t p = 0; p < COUNT(table); p++)
			known |= (uint8_t)table[p].bytes.s[0] == id;
		for (size_t f = 0; f < COUNT(frames) && !known; f++)
			for (uint32_t count = 1; count <= 5; count++)
				cr_expect_eq(decode_props(&frames[f], bytes, count, 1), MALFORMED,
					"%02x in %c", id, frames[f].name);
	}
	/* The known identifier 1, written in two bytes. */
	cr_assert_eq(decode_props(&frames[3], "\x81\0\1", 3, 1), MALFORMED);
}

Test(rules, values_of_properties)
{
	static const struct {
		char where;
		struct blob bytes;
		int rc;
	} cases[] = {
		{'P', BLOB("\x01\0"), 0},
		{'P', BLOB("\x01\2"), PROTOCOL},
		{'w', BLOB("\x01\xff"), PROTOCOL},
		{'c', BLOB("\x17\2"), PROTOCOL},
		{'c', BLOB("\x19\2"), PROTOCOL},
		{'C', BLOB("\x24\2"), PROTOCOL},
		{'C', BLOB("\x25\2"), PROTOCOL},
		{'C', BLOB("\x28\2"), PROTOCOL},
		{'C', BLOB("\x29\2"), PROTOCOL},
		{'C', BLOB("\x2a\2"), PROTOCOL},
		{'c', BLOB("\x21\0\0"), PROTOCOL},
		{'C', BLOB("\x21\0\0"), PROTOCOL},
		{'c', BLOB("\x27\0\0\0\0"), PROTOCOL},
		{'C', BLOB("\x27\0\0\0\0"), PROTOCOL},
		{'P', BLOB("\x0b\0"), PROTOCOL},
		{'s', BLOB("\x0b\0"), PROTOCOL},
		{'P', BLOB("\x0b\x81\0"), MALFORMED},
		{'P', BLOB("\x0b\x80\x80\x80\x80\1"), MALFORMED},
		{'P', BLOB("\x23\0\0"), -0x94},
		{'P', BLOB("\x08\0\0"), PROTOCOL},
		{'P', BLOB("\x08\0\3a/+"), PROTOCOL},
		{'w', BLOB("\x08\0\1#"), PROTOCOL},
		{'P', BLOB("\x08\0\1\xff"), MALFORMED},
		{'P', BLOB("\x03\0\1\0"), MALFORMED},
		{'d', BLOB("\x1f\0\2\xc3\x28"), MALFORMED},
		{'u', BLOB("\x26\0\1\xff\0\0"), MALFORMED},
		{'u', BLOB("\x26\0\0\0\1\0"), MALFORMED},
		{'u', BLOB("\x26\0\0\0\0"), 0},
		{'c', BLOB("\x15\0\1\xff"), MALFORMED},
		{'C', BLOB("\x12\0\1\xff"), MALFORMED},
	};

	for (size_t i = 0; i < COUNT(cases); i++)
		for (size_t f = 0; f < COUNT(frames); f++)
			if (frames[f].name == cases[i].where)
				cr_expect_eq(decode_props(&frames[f], cases[i].bytes.s,
						     cases[i].bytes.bytes, 1),
					cases[i].rc, "case %zu", i);
}

Test(rules, authentication_data_needs_its_method)
{
	cr_assert_eq(decode(V5, 0x10, "\0\4MQTT\5\2\0\0\4\x16\0\1d\0\0", 16), PROTOCOL);
	cr_assert_eq(decode(V5, 0x20, "\0\0\4\x16\0\1d", 7), PROTOCOL);
	cr_assert_eq(decode(V5, 0xf0, "\x18\4\x16\0\1d", 6), PROTOCOL);
}

/* An interleaved span: the iterator and the encoder see the user properties alone. */
Test(rules, user_properties_between_others)
{
	static const char body[] = "\0\1t\x15"
				   "\x26\0\1a\0\1A"
				   "\x23\0\7"
				   "\x02\0\0\0\5"
				   "\x26\0\1b\0\0";
	struct mqtt_publish p;
	struct mqtt_str key, value;
	uint32_t head_bytes, cursor = 0;
	size_t bytes;
	uint8_t *packet = packet_of(0x30, body, sizeof(body) - 1, &bytes), copy[100];

	cr_assert_eq(mqtt_decode_publish_head(packet, bytes, V5, &p, &head_bytes), 0);
	cr_assert_eq(p.props.topic_alias, 7);
	cr_assert_eq(p.props.message_expiry, 5);
	cr_assert_eq(p.props.user_properties.bytes, 21);
	cr_assert(mqtt_user_property_next(&p.props.user_properties, &cursor, &key, &value));
	cr_assert(key.bytes == 1 && key.s[0] == 'a' && value.bytes == 1 && value.s[0] == 'A');
	cr_assert(mqtt_user_property_next(&p.props.user_properties, &cursor, &key, &value));
	cr_assert(key.bytes == 1 && key.s[0] == 'b' && value.bytes == 0);
	cr_assert_not(mqtt_user_property_next(&p.props.user_properties, &cursor, &key, &value));
	/* Passed on without the alias, as a broker does, the alias must not come along inside the
	 * span. */
	p.props.has &= ~(1u << MQTT_P_TOPIC_ALIAS | 1u << MQTT_P_MESSAGE_EXPIRY);
	bytes = mqtt_encode_publish_head(copy, sizeof(copy), V5, &p);
	cr_assert_eq(bytes, 19);
	cr_assert_arr_eq(copy, "\x30\x11\0\1t\x0d\x26\0\1a\0\1A\x26\0\1b\0\0", 19);
	free(packet);
}

/* Every kind of property between two user properties is stepped over; what is no property ends the
 * walk. */
Test(rules, user_property_spans_of_any_kind)
{
	static const struct blob between[] = {BLOB("\x01\1"), BLOB("\x23\0\1"),
		BLOB("\x02\0\0\0\1"), BLOB("\x0b\xff\x7f"), BLOB("\x03\0\1&"), BLOB("\x09\0\0"),
		BLOB("\x26\0\0\0\1&")};

	for (size_t i = 0; i < COUNT(between); i++) {
		char bytes[40] = "\x26\0\0\0\0";
		uint32_t n = 5 + between[i].bytes, cursor = 0;
		struct mqtt_str key, value, span = {bytes, n + 6};
		int count = 0;

		memcpy(bytes + 5, between[i].s, between[i].bytes);
		memcpy(bytes + n, "\x26\0\1z\0\0", 6);
		while (mqtt_user_property_next(&span, &cursor, &key, &value))
			count++;
		cr_assert_eq(count, i + 1 == COUNT(between) ? 3 : 2);
		cr_assert(key.bytes == 1 && key.s[0] == 'z' && cursor == span.bytes);
		span.bytes = n;
		for (cursor = 0, count = 0; mqtt_user_property_next(&span, &cursor, &key, &value);)
			count++;
		cr_assert_eq(count, i + 1 == COUNT(between) ? 2 : 1, "nothing behind the others");
		span.bytes = n + 6;
		bytes[5] = '\x7f';
		cursor = 0;
		cr_assert(mqtt_user_property_next(&span, &cursor, &key, &value));
		cr_assert_not(mqtt_user_property_next(&span, &cursor, &key, &value));
		span.bytes = 3;
		cursor = 0;
		cr_assert_not(mqtt_user_property_next(&span, &cursor, &key, &value), "cut short");
	}
}

Test(rules, a_publish_head_is_of_a_publish)
{
	struct mqtt_publish p;
	uint32_t head_bytes;

	cr_assert_eq(
		mqtt_decode_publish_head((const uint8_t *)"\x40\2\0\1", 4, V5, &p, &head_bytes),
		MALFORMED);
}

Test(rules, more_subscription_ids_than_fit)
{
	char body[4 + 2 * (MQTT_SUBIDS_MAX + 3)] = {0, 1, 't', 2 * (MQTT_SUBIDS_MAX + 3)};
	struct mqtt_publish p;
	uint32_t head_bytes;
	size_t bytes;
	uint8_t *packet;

	for (int i = 0; i < MQTT_SUBIDS_MAX + 3; i++) {
		body[4 + 2 * i] = 0x0b;
		body[5 + 2 * i] = (char)(i + 1);
	}
	packet = packet_of(0x30, body, sizeof(body), &bytes);
	cr_assert_eq(mqtt_decode_publish_head(packet, bytes, V5, &p, &head_bytes), 0);
	cr_assert_eq(p.props.subids_count, MQTT_SUBIDS_MAX);
	for (int i = 0; i < MQTT_SUBIDS_MAX; i++)
		cr_assert_eq(p.props.subids[i], (uint32_t)i + 1);
	cr_assert_eq(p.payload_bytes, 0);
	free(packet);
}

/* --- the rest
 * ---------------------------------------------------------------------------------- */

/* Absent means 0 and NULL, whatever was in the struct before. */
Test(rules, absent_is_zero)
{
	static const struct mqtt_props none;

	for (int version = MQTT_V31; version <= MQTT_V5; version++) {
		struct mqtt_publish p;
		uint32_t head_bytes;

		memset(&p, 0xa5, sizeof(p));
		cr_assert_eq(mqtt_decode_publish_head((const uint8_t *)"\x30\4\0\1t\0", 6,
				     (uint8_t)version, &p, &head_bytes),
			0);
		cr_assert(props_equal(&p.props, &none));
		cr_assert(!p.props.user_properties.s && p.props.user_properties.bytes == 0);
		cr_assert_eq(p.packet_id, 0);
		cr_assert_eq(p.payload_bytes, version == MQTT_V5 ? 0 : 1);
		cr_assert_eq(head_bytes, version == MQTT_V5 ? 6 : 5);
	}
}

Test(rules, names)
{
	cr_assert_str_eq(mqtt_type_name(MQTT_CONNECT), "CONNECT");
	cr_assert_str_eq(mqtt_type_name(MQTT_AUTH), "AUTH");
	cr_assert_str_eq(mqtt_type_name(0), "reserved");
	cr_assert_str_eq(mqtt_type_name(16), "reserved");
	cr_assert_str_eq(mqtt_type_name(255), "reserved");
	cr_assert_str_eq(mqtt_rc_name(MQTT_RC_NOT_AUTHORIZED), "Not authorized");
	cr_assert_str_eq(
		mqtt_rc_name(MQTT_RC_WILDCARD_UNSUPPORTED), "Wildcard Subscriptions not supported");
	cr_assert_str_eq(mqtt_rc_name(3), "unknown");
	cr_assert_str_eq(mqtt_rc_name(0xa3), "unknown");
	cr_assert_str_eq(mqtt_rc_name(255), "unknown");
}

/* Table 2-6, by packet. */
Test(rules, reason_codes_by_packet)
{
	static const struct {
		uint8_t type;
		struct blob codes;
	} packets[] = {
		{MQTT_CONNACK, BLOB("\x00\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8c\x90\x95"
				    "\x97\x99\x9a\x9b"
				    "\x9c\x9d\x9f")},
		{MQTT_PUBACK, BLOB("\x00\x10\x80\x83\x87\x90\x91\x97\x99")},
		{MQTT_PUBREC, BLOB("\x00\x10\x80\x83\x87\x90\x91\x97\x99")},
		{MQTT_PUBREL, BLOB("\x00\x92")},
		{MQTT_PUBCOMP, BLOB("\x00\x92")},
		{MQTT_SUBACK, BLOB("\x00\x01\x02\x80\x83\x87\x8f\x91\x97\x9e\xa1\xa2")},
		{MQTT_UNSUBACK, BLOB("\x00\x11\x80\x83\x87\x8f\x91")},
		{MQTT_DISCONNECT, BLOB("\x00\x04\x80\x81\x82\x83\x87\x89\x8b\x8c\x8d\x8e\x8f\x90"
				       "\x93\x94\x95\x96"
				       "\x97\x98\x99\x9a\x9b\x9c\x9d\x9e\x9f\xa0\xa1\xa2")},
		{MQTT_AUTH, BLOB("\x00\x18\x19")},
		{MQTT_PUBLISH, BLOB("")},
		{16, BLOB("")},
	};

	for (size_t i = 0; i < COUNT(packets); i++)
		for (int rc = 0; rc < 256; rc++)
			cr_assert_eq(mqtt_rc_allowed((uint8_t)rc, packets[i].type),
				memchr(packets[i].codes.s, rc, packets[i].codes.bytes) != NULL,
				"%02x in %s", rc, mqtt_type_name(packets[i].type));
}
