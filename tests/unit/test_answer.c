/*
 * The JSON that clients and consumers read: the exact text, numbers that a double can't hold, and
 * strings that need escaping.
 */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "answer.h"
#include "json.h"

#define HEX_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEX_5 "5555555555555555555555555555555555555555555555555555555555555555"

static uint8_t digest_a[32], digest_5[32];

static void digests_fill(void)
{
	memset(digest_a, 0xaa, sizeof(digest_a));
	memset(digest_5, 0x55, sizeof(digest_5));
}

TestSuite(answer, .init = digests_fill);

static void expect_text(char *got, size_t got_bytes, const char *expected)
{
	struct json v;

	cr_assert_not_null(got);
	cr_expect_str_eq(got, expected);
	cr_expect_eq(got_bytes, strlen(expected));
	cr_expect(json_check(got, got_bytes, 8, &v), "not JSON: %s", got);
	free(got);
}

Test(answer, plain)
{
	size_t bytes = 0;
	/* The topic is a slice of something longer. */
	struct answer a = {.topic = "$file-async/f1/fin/168/more",
		.topic_bytes = 22,
		.packet_id = 7,
		.description = "success"};
	char *text = answer_to_json(&a, &bytes);

	expect_text(text, bytes,
		"{\"vsn\":\"0.1\",\"topic\":\"$file-async/f1/fin/168\",\"packet_id\":7,"
		"\"reason_code\":0,\"reason_description\":\"success\"}");
	a = (struct answer){.topic = "",
		.topic_bytes = 0,
		.packet_id = 65535,
		.reason_code = 0x97,
		.description = "enospc"};
	text = answer_to_json(&a, &bytes);
	expect_text(text, bytes,
		"{\"vsn\":\"0.1\",\"topic\":\"\",\"packet_id\":65535,\"reason_code\":151,"
		"\"reason_description\":\"enospc\"}");
}

Test(answer, topics_are_escaped)
{
	static const char topic[] = "$file/\"\\\x01\n\xf0\x9f\x98\x80\x7f/init";
	size_t bytes = 0;
	struct answer a = {
		.topic = topic, .topic_bytes = sizeof(topic) - 1, .description = "success"};
	char *text = answer_to_json(&a, &bytes);
	struct json root, key, value;
	struct json_iter it;
	char back[64];
	size_t back_bytes = 0;

	cr_assert(json_check(text, bytes, 4, &root), "%s", text);
	json_iter_init(&it, &root);
	cr_assert(json_iter_next(&it, &key, &value));
	cr_assert(json_iter_next(&it, &key, &value));
	cr_assert(json_string_is(&key, "topic"));
	cr_assert_eq(json_string_decode(&value, back, sizeof(back), &back_bytes), 0);
	cr_expect_eq(back_bytes, sizeof(topic) - 1);
	cr_expect(memcmp(back, topic, back_bytes) == 0);
	free(text);
}

Test(answer, missing)
{
	static const struct extent gaps[] = {{0, 5}, {9007199254740993, 9223372036854775807}};
	size_t bytes = 0;
	struct answer a = {.topic = "t",
		.topic_bytes = 1,
		.reason_code = 0x80,
		.description = "incomplete",
		.has_missing = true,
		.missing = gaps,
		.missing_count = 2,
		.missing_bytes = 18446744073709551615u};
	char *text = answer_to_json(&a, &bytes);

	expect_text(text, bytes,
		"{\"vsn\":\"0.1\",\"topic\":\"t\",\"packet_id\":0,\"reason_code\":128,"
		"\"reason_description\":\"incomplete\","
		"\"missing\":[[0,5],[9007199254740993,9223372036854775807]],"
		"\"missing_bytes\":18446744073709551615}");
	/* The most ranges, each as long as can be. */
	struct extent most[ANSWER_MISSING_MAX];
	for (int i = 0; i < ANSWER_MISSING_MAX; i++)
		most[i] = (struct extent){UINT64_MAX - 1, UINT64_MAX};
	a.missing = most;
	a.missing_count = ANSWER_MISSING_MAX;
	text = answer_to_json(&a, &bytes);
	struct json root, key, value, extent;
	struct json_iter it;
	cr_assert(json_check(text, bytes, 4, &root), "%s", text);
	json_iter_init(&it, &root);
	while (json_iter_next(&it, &key, &value) && !json_string_is(&key, "missing"))
		;
	int count = 0;
	json_iter_init(&it, &value);
	while (json_iter_next(&it, NULL, &extent)) {
		static const char whole[] = "[18446744073709551614,18446744073709551615]";
		cr_expect(extent.bytes == strlen(whole) &&
			  memcmp(extent.text, whole, extent.bytes) == 0);
		count++;
	}
	cr_expect_eq(count, ANSWER_MISSING_MAX);
	free(text);
}

Test(answer, digests)
{
	size_t bytes = 0;
	struct answer a = {.topic = "t",
		.topic_bytes = 1,
		.reason_code = 0x80,
		.description = "checksum_mismatch",
		.expected = digest_a,
		.actual = digest_5};
	char *text = answer_to_json(&a, &bytes);

	expect_text(text, bytes,
		"{\"vsn\":\"0.1\",\"topic\":\"t\",\"packet_id\":0,\"reason_code\":128,"
		"\"reason_description\":\"checksum_mismatch\",\"expected\":\"" HEX_A
		"\",\"actual\":\"" HEX_5 "\"}");
}

Test(answer, status)
{
	static const struct extent gaps[] = {{10, 20}};
	size_t bytes = 0;
	struct answer a = {.topic = "t",
		.topic_bytes = 1,
		.description = "success",
		.has_status = true,
		.state = "open",
		.received = 9007199254740993,
		.frontier = 10,
		.missing = gaps,
		.missing_count = 1,
		.truncated = true};
	char *text = answer_to_json(&a, &bytes);

	expect_text(text, bytes,
		"{\"vsn\":\"0.1\",\"topic\":\"t\",\"packet_id\":0,\"reason_code\":0,"
		"\"reason_description\":\"success\",\"status\":{\"state\":\"open\","
		"\"size\":null,\"received\":9007199254740993,\"frontier\":10,"
		"\"missing\":[[10,20]],\"truncated\":true}}");
	a = (struct answer){.topic = "t",
		.topic_bytes = 1,
		.description = "success",
		.has_status = true,
		.state = "exported",
		.status_has_size = true,
		.status_size = 9223372036854775807};
	text = answer_to_json(&a, &bytes);
	expect_text(text, bytes,
		"{\"vsn\":\"0.1\",\"topic\":\"t\",\"packet_id\":0,\"reason_code\":0,"
		"\"reason_description\":\"success\",\"status\":{\"state\":\"exported\","
		"\"size\":9223372036854775807,\"received\":0,\"frontier\":0,"
		"\"missing\":[],\"truncated\":false}}");
}

Test(answer, events)
{
	size_t bytes = 0;
	struct answer_event e = {.clientid = "c\"1",
		.clientid_bytes = 3,
		.fileid = "f1xx",
		.fileid_bytes = 2,
		.name = "a.bin",
		.has_size = true,
		.size = 9007199254740993,
		.sha256 = digest_a,
		.path = "c/f1/a.bin",
		.user_data = "{ \"n\":12345678901234567890123 }",
		.seconds = 1.25};
	char *text = answer_event_to_json(&e, &bytes);

	expect_text(text, bytes,
		"{\"clientid\":\"c\\\"1\",\"fileid\":\"f1\",\"name\":\"a.bin\","
		"\"size\":9007199254740993,\"sha256\":\"" HEX_A "\","
		"\"path\":\"c/f1/a.bin\","
		"\"user_data\":{ \"n\":12345678901234567890123 },\"seconds\":1.25}");
	e = (struct answer_event){.clientid = "c",
		.clientid_bytes = 1,
		.fileid = "f",
		.fileid_bytes = 1,
		.reason = "expired"};
	text = answer_event_to_json(&e, &bytes);
	expect_text(text, bytes,
		"{\"clientid\":\"c\",\"fileid\":\"f\",\"name\":null,\"size\":null,"
		"\"sha256\":null,\"reason\":\"expired\",\"user_data\":null,\"seconds\":0}");
}

Test(answer, any_seconds_are_json)
{
	static const double seconds[] = {0.1, 1e-9, 1e300, -1, DBL_MAX, NAN, INFINITY};
	struct answer_event e = {
		.clientid = "c", .clientid_bytes = 1, .fileid = "f", .fileid_bytes = 1};

	for (size_t i = 0; i < sizeof(seconds) / sizeof(*seconds); i++) {
		struct json v;
		size_t bytes = 0;
		e.seconds = seconds[i];
		char *text = answer_event_to_json(&e, &bytes);
		cr_expect(json_check(text, bytes, 2, &v), "%s", text);
		free(text);
	}
}

Test(answer, manifest)
{
	size_t bytes = 0;
	struct answer_manifest m = {.clientid = "c1",
		.clientid_bytes = 2,
		.fileid = "f1",
		.fileid_bytes = 2,
		.generation = 2,
		.name = "a",
		.path = "c1/f1~2/a",
		.size = 9007199254740993,
		.sha256 = digest_5,
		.meta_json = "{\"name\":\"a\"}",
		.user_data = "[1]",
		.opened_at_ms = 1700000000000,
		.exported_at_ms = 1700000000999};
	char *text = answer_manifest_to_json(&m, &bytes);

	expect_text(text, bytes,
		"{\n"
		"\t\"clientid\":\t\"c1\",\n"
		"\t\"fileid\":\t\"f1\",\n"
		"\t\"generation\":\t2,\n"
		"\t\"name\":\t\"a\",\n"
		"\t\"path\":\t\"c1/f1~2/a\",\n"
		"\t\"size\":\t9007199254740993,\n"
		"\t\"sha256\":\t\"" HEX_5 "\",\n"
		"\t\"meta\":\t{\"name\":\"a\"},\n"
		"\t\"user_data\":\t[1],\n"
		"\t\"opened_at\":\t\"2023-11-14T22:13:20.000Z\",\n"
		"\t\"exported_at\":\t\"2023-11-14T22:13:20.999Z\"\n"
		"}\n");
	m.user_data = NULL;
	m.opened_at_ms = -1;
	m.exported_at_ms = INT64_MAX;
	text = answer_manifest_to_json(&m, &bytes);
	cr_expect_not_null(strstr(text, "\"user_data\":\tnull"));
	cr_expect_not_null(strstr(text, "\"1969-12-31T23:59:59.999Z\""));
	struct json v;
	cr_expect(json_check(text, bytes, 4, &v), "%s", text);
	free(text);
	m.opened_at_ms = INT64_MIN;
	text = answer_manifest_to_json(&m, &bytes);
	cr_expect(json_check(text, bytes, 4, &v), "%s", text);
	free(text);
}
