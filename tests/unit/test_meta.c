/*
 * The init payload: every rule of the protocol's table, the bombs, and the way back to JSON.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "meta.h"

#define HEX "00112233445566778899aabbccddeeffffeeddccbbaa99887766554433221100"
#define HEX_OTHER "10112233445566778899aabbccddeeffffeeddccbbaa99887766554433221100"

static const char *parse_bytes(const char *json, size_t bytes, struct meta *ret)
{
	char *copy = memcpy(malloc(bytes + !bytes), json, bytes);
	const char *error = meta_parse(copy, bytes, ret);

	free(copy); /* nothing of the result may borrow */
	return error;
}

static struct meta good(const char *json)
{
	struct meta m = {0};
	const char *error = parse_bytes(json, strlen(json), &m);

	cr_assert_null(error, "%s: %s", json, error);
	return m;
}

static void bad(const char *json, const char *error)
{
	struct meta m;
	memset(&m, 0x5a, sizeof(m));
	struct meta before = m;
	const char *got = parse_bytes(json, strlen(json), &m);

	cr_expect(
		got && strcmp(got, error) == 0, "%s: %s, not %s", json, got ? got : "good", error);
	cr_expect(memcmp(&m, &before, sizeof(m)) == 0, "%s: touched the result", json);
}

/* One field beside a good name. */
static void bad_field(const char *field)
{
	char json[512];

	snprintf(json, sizeof(json), "{\"name\":\"a\",%s}", field);
	bad(json, "invalid_filemeta");
	snprintf(json, sizeof(json), "{%s,\"name\":\"a\"}", field);
	bad(json, "invalid_filemeta");
}

Test(meta, all_fields)
{
	struct meta m = good(" {\"name\":\"a.bin\",\"size\":168,\"checksum\":\"" HEX
			     "\",\"expire_at\":1700000000,\"segments_ttl\":600,\"user_data\":{ "
			     "\"k\" : [1.50, 1e2] },"
			     "\"future\":[{}]}\r\n");

	cr_expect_str_eq(m.name, "a.bin");
	cr_expect(m.has_size && m.size == 168);
	cr_expect(m.has_checksum && m.checksum[1] == 0x11 && m.checksum[31] == 0x00);
	cr_expect(m.has_expire_at && m.expire_at == 1700000000);
	cr_expect(m.has_segments_ttl && m.segments_ttl == 600);
	cr_expect_str_eq(m.user_data, "{ \"k\" : [1.50, 1e2] }");
	cr_expect_eq(m.user_data_bytes, strlen(m.user_data));
	meta_fini(&m);
	cr_expect_null(m.name);
	cr_expect_null(m.user_data);
	meta_fini(&m);
}

Test(meta, absent_and_null_are_one)
{
	struct meta a = good("{\"name\":\"a\"}");
	struct meta b = good("{\"name\":\"a\",\"size\":null,\"checksum\":null,\"expire_at\":null,"
			     "\"segments_ttl\":null,\"user_data\":null}");

	cr_expect(!b.has_size && !b.has_checksum && !b.has_expire_at && !b.has_segments_ttl);
	cr_expect_null(b.user_data);
	cr_expect(meta_equal(&a, &b));
	meta_fini(&a);
	meta_fini(&b);
	bad("{\"name\":null}", "invalid_filemeta");
	bad("{\"size\":1}", "invalid_filemeta");
	bad("{}", "invalid_filemeta");
}

Test(meta, not_json)
{
	static const char *const texts[] = {"", " ", "x", "{", "[]", "\"a\"", "12", "null", "true",
		"{\"name\":\"a\"", "{\"name\":\"a\"}x", "{\"name\":\"a\"}{}", "{\"name\":\"a\",}",
		"{'name':'a'}", "{\"name\":\"a\xff\"}", "{\"name\":\"a\n\"}",
		"{\"name\":\"\xed\xa0\x80\"}", "{\"name\":\"\\ud800\"}", "{\"name\":\"\\udc00x\"}",
		"{\"name\":\"a\",\"user_data\":\"\\ud800\"}", "{\"name\":\"a\",\"size\":01}",
		"{\"name\":\"a\",\"size\":+1}", "{\"name\":\"a\",\"size\":1.}",
		"{\"name\":\"a\",\"size\":NaN}", "\xef\xbb\xbf{\"name\":\"a\"}"};

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		bad(texts[i], "invalid_filemeta_json");
	struct meta m;
	cr_expect_str_eq(meta_parse(NULL, 0, &m), "invalid_filemeta_json");
	cr_expect_str_eq(parse_bytes("{\"name\":\"a\"}\0", 13, &m), "invalid_filemeta_json");
	cr_expect_str_eq(parse_bytes("{\"name\":\"a\0\"}", 13, &m), "invalid_filemeta_json");
}

Test(meta, names)
{
	static const char *const fine[] = {"a", ".a", "...", "..a", "a.", " ", "a b", "%2F", "%",
		"~", "\"", "'", "a;b|c*?<>&$", "\xc2\xa0", "\xe4\xb8\xad\xe6\x96\x87.txt",
		"\xf0\x9f\x98\x80", "\xef\xbf\xbd", "\xf0\x9f\xbf\xbe", "-rf", "con"};
	static const char *const refused[] = {"", ".", "..", "/", "a/b", "../a", "a\\b", "\\",
		"c:", ":", "\x01", "a\n", "\x1f", "\x7f", "\xc2\x80", "\xc2\x85", "\xc2\x9f",
		"\xef\xbf\xbe", "\xef\xbf\xbf", "\xed\xa0\x80", "\xff", "\xc0\xaf", "\xc3"};
	char name[META_NAME_MAX + 2];

	for (size_t i = 0; i < sizeof(fine) / sizeof(*fine); i++)
		cr_expect(meta_name_ok(fine[i], strlen(fine[i])), "%s", fine[i]);
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
		cr_expect(!meta_name_ok(refused[i], strlen(refused[i])), "%s", refused[i]);
	cr_expect(!meta_name_ok("a\0b", 3));
	memset(name, 'n', sizeof(name));
	cr_expect(meta_name_ok(name, META_NAME_MAX));
	cr_expect(!meta_name_ok(name, META_NAME_MAX + 1));
}

Test(meta, names_in_json)
{
	struct meta m = good("{\"n\\u0061me\":\"\\u4e2d\\ud83d\\ude00\\\"\"}");
	cr_expect_str_eq(m.name, "\xe4\xb8\xad\xf0\x9f\x98\x80\"");
	meta_fini(&m);

	static const char *const refused[] = {"\"\"", "\".\"", "\"..\"", "\"\\u002e\\u002e\"",
		"\"a\\/b\"", "\"a\\u002fb\"", "\"a\\\\b\"", "\"a:b\"", "\"a\\n\"", "\"\\u0000\"",
		"\"a\\u0000\"", "\"a\\u0000b\"", "\"\\u007f\"", "\"\\u009f\"", "\"\\ufffe\"",
		"\"\\uffff\"", "1", "true", "[\"a\"]", "{\"a\":1}"};
	char json[1024], name[512];
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		snprintf(json, sizeof(json), "{\"name\":%s}", refused[i]);
		bad(json, "invalid_filemeta");
	}
	memset(name, 'n', sizeof(name));
	snprintf(json, sizeof(json), "{\"name\":\"%.240s\"}", name);
	m = good(json);
	cr_expect_eq(strlen(m.name), 240);
	meta_fini(&m);
	snprintf(json, sizeof(json), "{\"name\":\"%.241s\"}", name);
	bad(json, "invalid_filemeta");
	/* 80 characters of three bytes each, and one byte more. */
	for (int i = 0; i < 80; i++)
		memcpy(name + 3 * i, "\xe4\xb8\xad", 3);
	snprintf(json, sizeof(json), "{\"name\":\"%.240s\"}", name);
	m = good(json);
	meta_fini(&m);
	snprintf(json, sizeof(json), "{\"name\":\"%.240s.\"}", name);
	bad(json, "invalid_filemeta");
}

Test(meta, integers_keep_every_digit)
{
	struct meta m =
		good("{\"name\":\"a\",\"size\":9007199254740993,\"expire_at\":9223372036854775807,"
		     "\"segments_ttl\":9223372036854775806}");
	cr_expect_eq(m.size, 9007199254740993u);
	cr_expect_eq(m.expire_at, INT64_MAX);
	cr_expect_eq(m.segments_ttl, INT64_MAX - 1);
	meta_fini(&m);
	m = good("{\"name\":\"a\",\"size\":\"123\",\"expire_at\":\"9007199254740993\",\"segments_"
		 "ttl\":\"01\"}");
	cr_expect_eq(m.size, 123);
	cr_expect_eq(m.expire_at, 9007199254740993u);
	cr_expect_eq(m.segments_ttl, 1);
	meta_fini(&m);
	m = good("{\"name\":\"a\",\"size\":0,\"expire_at\":0}");
	cr_expect(m.has_size && m.size == 0 && m.has_expire_at && m.expire_at == 0);
	meta_fini(&m);

	static const char *const keys[] = {"size", "expire_at", "segments_ttl"};
	static const char *const values[] = {"1.5", "1.0", "-1", "1e3", "9223372036854775808",
		"18446744073709551617", "1000000000000000000000000000", "\"\"", "\"-1\"", "\"+1\"",
		"\"1.5\"", "\" 1\"", "\"1 \"", "\"x\"", "\"0x1\"", "\"9223372036854775808\"",
		"true", "false", "[]", "[1]", "{}"};
	char field[256];
	for (size_t k = 0; k < 3; k++) {
		for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
			snprintf(field, sizeof(field), "\"%s\":%s", keys[k], values[i]);
			bad_field(field);
		}
	}
	bad_field("\"segments_ttl\":0");
	bad_field("\"segments_ttl\":\"0\"");
}

Test(meta, checksums)
{
	struct meta a = good("{\"name\":\"a\",\"checksum\":\"" HEX "\"}");
	struct meta b =
		good("{\"name\":\"a\",\"checksum\":"
		     "\"00112233445566778899AABBCCDDEEFFFFEEDDCCBBAA99887766554433221100\"}");
	cr_expect(meta_equal(&a, &b));
	meta_fini(&a);
	meta_fini(&b);
	bad_field("\"checksum\":\"\"");
	bad_field("\"checksum\":\"" HEX "0\"");
	bad_field(
		"\"checksum\":\"0112233445566778899aabbccddeeffffeeddccbbaa99887766554433221100\"");
	bad_field("\"checksum\":"
		  "\"x0112233445566778899aabbccddeeffffeeddccbbaa99887766554433221100\"");
	bad_field("\"checksum\":12");
	bad_field("\"checksum\":[]");
}

Test(meta, the_last_of_a_repeated_key_counts)
{
	struct meta m = good("{\"name\":5,\"size\":-1,\"name\":\"a\",\"size\":3,\"user_data\":1,"
			     "\"us\\u0065r_data\":2}");
	cr_expect_str_eq(m.name, "a");
	cr_expect_eq(m.size, 3);
	cr_expect_str_eq(m.user_data, "2");
	meta_fini(&m);
	m = good("{\"name\":\"a\",\"size\":3,\"size\":null}");
	cr_expect(!m.has_size);
	meta_fini(&m);
	bad("{\"name\":\"a\",\"name\":\"\"}", "invalid_filemeta");
	bad("{\"name\":\"a\",\"name\":null}", "invalid_filemeta");
	/* Only keys of the object itself count, and only whole ones. */
	bad("{\"x\":{\"name\":\"a\"}}", "invalid_filemeta");
	bad("{\"names\":\"a\",\"nam\":\"a\",\"Name\":\"a\",\"name\\u0000\":\"a\"}",
		"invalid_filemeta");
}

Test(meta, user_data_is_verbatim)
{
	static const char *const values[] = {"1", "-0.0", "123456789012345678901234567890.10",
		"1E400", "false", "\"\"", "\"\\u0000\\/\\u00E9\"", "[ ]",
		"{ \"a\" :\n[ 1 , {} ],\"a\":null}"};
	char json[256];

	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
		snprintf(json, sizeof(json), "{ \"user_data\" : %s , \"name\":\"a\"}", values[i]);
		struct meta m = good(json);
		cr_expect_str_eq(m.user_data, values[i]);
		cr_expect_eq(m.user_data_bytes, strlen(values[i]));
		meta_fini(&m);
	}
}

Test(meta, equality)
{
	static const char *const texts[] = {"{\"name\":\"a\"}", "{\"name\":\"b\"}",
		"{\"name\":\"a\",\"size\":0}", "{\"name\":\"a\",\"size\":9007199254740992}",
		"{\"name\":\"a\",\"size\":9007199254740993}",
		"{\"name\":\"a\",\"checksum\":\"" HEX "\"}",
		"{\"name\":\"a\",\"checksum\":\"" HEX_OTHER "\"}",
		"{\"name\":\"a\",\"expire_at\":0}", "{\"name\":\"a\",\"segments_ttl\":1}",
		"{\"name\":\"a\",\"user_data\":0}", "{\"name\":\"a\",\"user_data\":{}}",
		"{\"name\":\"a\",\"user_data\":{\"n\":9007199254740992}}",
		"{\"name\":\"a\",\"user_data\":{\"n\":9007199254740993}}"};
	enum { COUNT = sizeof(texts) / sizeof(*texts) };
	struct meta m[COUNT];

	for (int i = 0; i < COUNT; i++)
		m[i] = good(texts[i]);
	for (int i = 0; i < COUNT; i++)
		for (int k = 0; k < COUNT; k++)
			cr_expect_eq(
				meta_equal(&m[i], &m[k]), i == k, "%s and %s", texts[i], texts[k]);
	for (int i = 0; i < COUNT; i++)
		meta_fini(&m[i]);

	struct meta a = good("{\"name\":\"a\",\"user_data\":{\"x\":[1,2],\"y\":\"\\u0061\"}}");
	struct meta b = good("{\"user_data\":{ \"y\":\"a\", \"x\":[1.0,2] },\"name\":\"\\u0061\"}");
	cr_expect(meta_equal(&a, &b));
	meta_fini(&a);
	meta_fini(&b);
}

Test(meta, copy_is_deep)
{
	struct meta a = good("{\"name\":\"a\",\"size\":\"7\",\"user_data\":[1, 2]}"), b;

	cr_assert_eq(meta_copy(&b, &a), 0);
	cr_expect(meta_equal(&a, &b));
	cr_expect_neq(a.name, b.name);
	cr_expect_neq(a.user_data, b.user_data);
	meta_fini(&a);
	cr_expect_str_eq(b.name, "a");
	cr_expect_str_eq(b.user_data, "[1, 2]");
	meta_fini(&b);
	/* A transfer before its init has an empty one. */
	cr_assert_eq(meta_copy(&b, &a), 0);
	cr_expect(meta_equal(&a, &b));
	meta_fini(&b);
}

Test(meta, canonical_json)
{
	struct meta m = good(
		"{ \"user_data\":{ \"a\":1e2 }, \"segments_ttl\":\"1\", \"expire_at\":2,"
		"\"checksum\":\"00112233445566778899AABBCCDDEEFFFFEEDDCCBBAA99887766554433221100\","
		"\"size\":\"9223372036854775807\",\"name\":\"\\u0022\\u4e2d\",\"x\":0}");
	size_t bytes = 0;
	char *json = meta_to_json(&m, &bytes);

	cr_assert_str_eq(json,
		"{\"name\":\"\\\"\xe4\xb8\xad\",\"size\":9223372036854775807,\"checksum\":\"" HEX
		"\",\"expire_at\":2,\"segments_ttl\":1,\"user_data\":{ \"a\":1e2 }}");
	cr_expect_eq(bytes, strlen(json));
	struct meta again = good(json);
	cr_expect(meta_equal(&m, &again));
	cr_expect_str_eq(m.user_data, again.user_data);
	meta_fini(&m);
	meta_fini(&again);
	free(json);
}

Test(meta, payload_limit)
{
	char *json = malloc(META_PAYLOAD_MAX + 2);
	struct meta m;

	memset(json, ' ', META_PAYLOAD_MAX + 2);
	memcpy(json, "{\"name\":\"a\"}", 12);
	cr_expect_null(meta_parse(json, META_PAYLOAD_MAX, &m));
	meta_fini(&m);
	cr_expect_str_eq(meta_parse(json, META_PAYLOAD_MAX + 1, &m), "invalid_filemeta");
	/* As long as can be, and the canonical form still fits. */
	memset(json, 'x', META_PAYLOAD_MAX);
	memcpy(json, "{\"name\":\"a\",\"user_data\":\"", 25);
	memcpy(json + META_PAYLOAD_MAX - 2, "\"}", 2);
	cr_assert_null(meta_parse(json, META_PAYLOAD_MAX, &m));
	size_t bytes;
	char *text = meta_to_json(&m, &bytes);
	cr_expect_eq(bytes, META_PAYLOAD_MAX);
	cr_expect(memcmp(text, json, bytes) == 0);
	free(text);
	meta_fini(&m);
	free(json);
}

/* "{…prefix…" + as many repetitions as fit + "…suffix". */
static char *bomb(const char *prefix, const char *repeat, size_t times, const char *suffix)
{
	char *json = malloc(META_PAYLOAD_MAX + 1), *at = stpcpy(json, prefix);
	size_t room = META_PAYLOAD_MAX - strlen(prefix) - strlen(suffix);

	for (size_t i = 0; i < times && (i + 1) * strlen(repeat) <= room; i++)
		at = stpcpy(at, repeat);
	strcpy(at, suffix);
	return json;
}

Test(meta, bombs)
{
	struct meta a, b;
	char *json = bomb("{\"name\":\"a\",\"user_data\":", "[", SIZE_MAX, "");
	bad(json, "invalid_filemeta_json");
	free(json);
	json = bomb("{\"name\":\"a\",\"user_data\":", "{\"\":", SIZE_MAX, "");
	bad(json, "invalid_filemeta_json");
	free(json);
	/* The object itself is one level of the 64. */
	json = bomb("{\"name\":\"a\",\"user_data\":", "[", 63, "");
	for (int i = 0; i < 63; i++)
		strcat(json, "]");
	strcat(json, "}");
	a = good(json);
	meta_fini(&a);
	free(json);
	json = bomb("{\"name\":\"a\",\"user_data\":", "[", 64, "");
	for (int i = 0; i < 64; i++)
		strcat(json, "]");
	strcat(json, "}");
	bad(json, "invalid_filemeta_json");
	free(json);

	/* Thousands of repeated keys; compared, they are one. */
	json = bomb("{\"name\":\"a\",\"user_data\":{", "\"k\":1,", SIZE_MAX, "\"k\":2}}");
	a = good(json);
	b = good("{\"name\":\"a\",\"user_data\":{\"k\":2}}");
	cr_expect(meta_equal(&a, &b));
	meta_fini(&a);
	meta_fini(&b);
	free(json);
	json = bomb("{", "\"name\":\"b\",", SIZE_MAX, "\"name\":\"a\"}");
	a = good(json);
	cr_expect_str_eq(a.name, "a");
	meta_fini(&a);
	free(json);
}

Test(meta, the_slowest_comparison_is_bounded)
{
	/* Half the payload nested as deep as may be, the other half in the innermost object. */
	struct meta m[2];

	for (int k = 0; k < 2; k++) {
		char *json = malloc(META_PAYLOAD_MAX + 1),
		     *at = stpcpy(json, "{\"name\":\"a\",\"user_data\":");
		for (int i = 0; i < 62; i++)
			at = stpcpy(at, "{\"a\":");
		*at++ = '{';
		for (int i = 0; i < 6300; i++)
			at += sprintf(at, "%s\"%04x\":%d", i ? "," : "", k ? i : 6299 - i, 0);
		*at++ = '}';
		for (int i = 0; i < 62; i++)
			*at++ = '}';
		at = stpcpy(at, k ? "  }" : "}");
		cr_assert_leq(at - json, META_PAYLOAD_MAX);
		m[k] = (struct meta){0};
		const char *error = meta_parse(json, (size_t)(at - json), &m[k]);
		cr_assert_null(error, "%s", error);
		free(json);
	}
	clock_t begin = clock();
	cr_expect(meta_equal(&m[0], &m[1]));
	double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
	/* 0.03 s with optimisation, over 1 s where every line is counted; doubling at every level
	 * would take for ever. */
	cr_expect_lt(seconds, 4.0, "%.3f s", seconds);
	meta_fini(&m[0]);
	meta_fini(&m[1]);
}
