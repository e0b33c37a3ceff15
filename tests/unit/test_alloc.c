/*
 * lib/ when memory is out: of every function that allocates, each allocation fails once, one after the other.
 *
 * The function must say so, give back what it had taken, leave what it was to change as it was, and do it all at
 * the next call. The allocations of lib/ come here by the linker's --wrap, those of cJSON by its hooks. (The set of
 * packet identifiers has the like in test_window.c.)
 */
#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "answer.h"
#include "cover.h"
#include "json.h"
#include "meta.h"
#include "trie.h"

/* --- the seam --------------------------------------------------------------------------------- */

static uint32_t fail_nth, calls; /* the one that fails, 0: none; how many there were */
static int64_t live_count;       /* blocks that are in use */

static void *counted(void *p)
{
	live_count += p != NULL;
	return p;
}

static bool fails(void)
{
	return ++calls == fail_nth;
}

#define REAL(type, name, ...) \
	type __real_##name(__VA_ARGS__); \
	type __wrap_##name(__VA_ARGS__)

REAL(void *, malloc, size_t bytes)
{
	return fails() ? NULL : counted(__real_malloc(bytes));
}

REAL(void *, calloc, size_t count, size_t bytes)
{
	return fails() ? NULL : counted(__real_calloc(count, bytes));
}

REAL(void *, realloc, void *p, size_t bytes)
{
	if (fails())
		return NULL;
	void *moved = __real_realloc(p, bytes);
	return p ? moved : counted(moved);
}

REAL(char *, strdup, const char *text)
{
	return fails() ? NULL : counted(__real_strdup(text));
}

REAL(char *, strndup, const char *text, size_t bytes)
{
	return fails() ? NULL : counted(__real_strndup(text, bytes));
}

REAL(void, free, void *p)
{
	live_count -= p != NULL;
	__real_free(p);
}

static void hooks_init(void)
{
	cJSON_Hooks hooks = {malloc, free};
	cJSON_InitHooks(&hooks);
}

TestSuite(alloc, .init = hooks_init);

/* Calls it until none of its allocations is left to fail. True from `attempt`: it was done. Returns how often it
 * was not. */
static uint32_t each_fails(bool (*attempt)(void))
{
	for (uint32_t nth = 1;; nth++) {
		int64_t live_before = live_count;
		calls = 0;
		fail_nth = nth;
		bool done = attempt();
		bool was_hit = calls >= nth;
		fail_nth = 0;
		cr_assert_eq(done, !was_hit, "allocation %u of %u", nth, calls);
		if (done)
			return nth - 1;
		cr_assert_eq(live_count, live_before, "allocation %u: %d blocks stay", nth,
			(int)(live_count - live_before));
	}
}

/* --- JSON ------------------------------------------------------------------------------------- */

static const struct extent gaps[] = {{0, 5}, {7, 9}};
static const uint8_t digest[32] = {1};
static char *expected; /* what it is when there is memory; NULL: it is that now */

/* Takes the text. */
static bool text_is_expected(char *text, size_t bytes)
{
	if (!text) {
		cr_assert_eq(bytes, 77, "untouched on failure");
		return false;
	}
	cr_assert_eq(bytes, strlen(text));
	cr_assert_str_eq(text, expected);
	free(text);
	return true;
}

static bool answer_attempt(void)
{
	struct answer a = {.topic = "$file/f1/fin/9", .topic_bytes = 14, .description = "incomplete",
		.has_missing = true, .missing_bytes = 7, .missing = gaps, .missing_count = 2,
		.expected = digest, .actual = digest, .has_status = true, .state = "open",
		.status_has_size = true, .status_size = 9};
	size_t bytes = 77;
	char *text = answer_to_json(&a, &bytes);

	if (!expected)
		expected = text;
	return text == expected || text_is_expected(text, bytes);
}

static bool event_attempt(void)
{
	struct answer_event e = {.clientid = "c", .clientid_bytes = 1, .fileid = "f", .fileid_bytes = 1,
		.name = "a", .has_size = true, .size = 3, .sha256 = digest, .path = "c/f/a", .reason = "r",
		.user_data = "[1]"};
	size_t bytes = 77;
	char *text = answer_event_to_json(&e, &bytes);

	if (!expected)
		expected = text;
	return text == expected || text_is_expected(text, bytes);
}

static bool manifest_attempt(void)
{
	struct answer_manifest m = {.clientid = "c", .clientid_bytes = 1, .fileid = "f", .fileid_bytes = 1,
		.name = "a", .path = "c/f/a", .size = 3, .sha256 = digest, .meta_json = "{\"name\":\"a\"}",
		.user_data = "[1]", .opened_at_ms = 1, .exported_at_ms = INT64_MAX};
	size_t bytes = 77;
	char *text = answer_manifest_to_json(&m, &bytes);

	if (!expected)
		expected = text;
	return text == expected || text_is_expected(text, bytes);
}

static struct meta meta;

static bool meta_to_json_attempt(void)
{
	size_t bytes = 77;
	char *text = meta_to_json(&meta, &bytes);

	if (!expected)
		expected = text;
	return text == expected || text_is_expected(text, bytes);
}

static const char meta_json[] =
	"{\"name\":\"a.bin\",\"size\":5,\"checksum\":"
	"\"0100000000000000000000000000000000000000000000000000000000000000\","
	"\"expire_at\":9,\"segments_ttl\":8,\"user_data\":{\"a\":1,\"b\":{\"c\":2,\"d\":3},\"e\":[]}}";

static void each_text_fails(bool (*attempt)(void), uint32_t at_least)
{
	expected = NULL;
	cr_assert(attempt());
	cr_assert_not_null(expected);
	uint32_t count = each_fails(attempt);
	cr_expect_geq(count, at_least, "%u allocations", count);
	free(expected);
}

/* Half an answer would be a wrong one. */
Test(alloc, no_text_is_written_in_part)
{
	each_text_fails(answer_attempt, 20);
	each_text_fails(event_attempt, 15);
	each_text_fails(manifest_attempt, 15);
	cr_assert_null(meta_parse(meta_json, sizeof(meta_json) - 1, &meta));
	each_text_fails(meta_to_json_attempt, 10);
	meta_fini(&meta);
	cr_expect_eq(live_count, 0);
}

static bool meta_parse_attempt(void)
{
	struct meta m = {.size = 77};
	const char *error = meta_parse(meta_json, sizeof(meta_json) - 1, &m);

	if (error) {
		cr_expect_eq(error, META_NO_MEMORY, "%s", error);
		cr_expect(m.size == 77 && !m.name, "untouched on failure");
		return false;
	}
	cr_expect(m.size == 5 && strcmp(m.name, "a.bin") == 0);
	meta_fini(&m);
	return true;
}

static bool meta_copy_attempt(void)
{
	struct meta copy = {.size = 77};
	int rc = meta_copy(&copy, &meta);

	if (rc) {
		cr_expect_eq(rc, -ENOMEM);
		cr_expect(copy.size == 77 && !copy.name, "untouched on failure");
		return false;
	}
	cr_expect(meta_equal(&copy, &meta));
	meta_fini(&copy);
	return true;
}

static struct meta other;

static bool meta_equal_attempt(void)
{
	return meta_equal(&meta, &other);
}

Test(alloc, metadata)
{
	/* The same in another order, so that it takes sorting to see. */
	static const char turned[] =
		"{\"size\":5,\"name\":\"a.bin\",\"expire_at\":9,\"segments_ttl\":8,\"checksum\":"
		"\"0100000000000000000000000000000000000000000000000000000000000000\","
		"\"user_data\":{\"e\":[],\"b\":{\"d\":3,\"c\":2},\"a\":1}}";

	cr_expect_eq(each_fails(meta_parse_attempt), 2, "the name and user_data");
	cr_assert_null(meta_parse(meta_json, sizeof(meta_json) - 1, &meta));
	cr_expect_eq(each_fails(meta_copy_attempt), 2);
	cr_assert_null(meta_parse(turned, sizeof(turned) - 1, &other));
	/* Two objects of three members, and two of two: one of each is grown, once or twice. */
	cr_expect_eq(each_fails(meta_equal_attempt), 2 * 3 + 2 * 2);
	meta_fini(&meta);
	meta_fini(&other);
	cr_expect_eq(live_count, 0);
}

/* --- coverage --------------------------------------------------------------------------------- */

static struct cover cover;

static void expect_cover(uint32_t count, uint64_t bytes)
{
	cr_expect_eq(cover.count, count);
	cr_expect_eq(cover.bytes, bytes);
	cr_expect_eq(cover_bytes_in(&cover, 0, UINT64_MAX), bytes);
}

static bool cover_add_attempt(void)
{
	int rc = cover_add(&cover, 200, 300);

	if (!rc)
		return true;
	cr_expect_eq(rc, -ENOMEM);
	expect_cover(1, 100);
	return false;
}

static bool cover_split_attempt(void)
{
	int rc = cover_remove(&cover, 20, 30);

	if (!rc)
		return true;
	cr_expect_eq(rc, -ENOMEM);
	expect_cover(2, 200);
	cr_expect(cover_has(&cover, 0, 100));
	return false;
}

Test(alloc, coverage_stays_as_it_was)
{
	cover_init(&cover, 10);
	cr_assert_eq(cover_add(&cover, 0, 100), 0);
	cr_expect_eq(each_fails(cover_add_attempt), 1);
	expect_cover(2, 200);
	cr_expect_eq(each_fails(cover_split_attempt), 1);
	expect_cover(3, 190);
	cover_fini(&cover);
	cr_expect_eq(live_count, 0);
}

/* --- subscriptions ---------------------------------------------------------------------------- */

enum { OWNERS = 40 };
static struct trie trie;
static char owners[OWNERS];
static int owner; /* the one that subscribes */

static bool trie_init_attempt(void)
{
	int rc = trie_init(&trie);

	cr_expect(rc == 0 || rc == -ENOMEM);
	return rc == 0;
}

static void on_match(void *arg, void *matched, const struct trie_sub *sub)
{
	(void)matched;
	*(uint64_t *)arg += sub->identifier;
}

static uint64_t match_sum(const char *topic)
{
	uint64_t sum = 0;
	trie_match(&trie, topic, strlen(topic), on_match, &sum);
	return sum;
}

/* The next allocation fails, then the one after it, … as long as the addition makes any. What there is before
 * must be there after each that failed, and no more. Returns how many there were. (A table that was grown for it
 * may stay with its node, so blocks are counted at the end alone.) */
static uint32_t add_with_failures(const char *filter, uint32_t identifier, const char *topic)
{
	struct trie_sub sub = {.identifier = identifier};

	for (uint32_t failures = 0;; failures++) {
		uint64_t count = trie.count, nodes = trie.nodes, sum = match_sum(topic);
		calls = 0;
		fail_nth = failures + 1;
		int rc = trie_add(&trie, filter, strlen(filter), &owners[owner], &sub);
		bool was_hit = calls >= fail_nth;
		fail_nth = 0;
		if (!was_hit) {
			cr_assert_eq(rc, 1);
			cr_assert_eq(trie.count, count + 1);
			cr_assert_eq(match_sum(topic), sum + identifier);
			return failures;
		}
		cr_assert_eq(rc, -ENOMEM);
		cr_assert_eq(trie.count, count);
		cr_assert_eq(trie.nodes, nodes, "what was begun is taken back");
		cr_assert_eq(match_sum(topic), sum);
	}
}

Test(alloc, a_subscription_is_made_or_is_not)
{
	uint32_t failures = 0;
	char filter[32];

	cr_expect_eq(each_fails(trie_init_attempt), 1);
	/* Every level anew, wildcards too. */
	cr_expect_geq(add_with_failures("a/+/b/#", 1, "a/x/b/c"), 5);
	/* Many children of one node: its table grows. */
	for (uint32_t i = 0; i < 40; i++) {
		snprintf(filter, sizeof(filter), "wide/%u", i);
		failures += add_with_failures(filter, i + 2, filter);
	}
	cr_expect_geq(failures, 80, "a node each, and a list, or the table before it");
	/* Many subscribers of one filter: their list grows, and a table is made for it, and grows. */
	failures = 0;
	for (owner = 0; owner < OWNERS; owner++)
		failures += add_with_failures("all", 1000 + (uint32_t)owner, "all");
	cr_expect_geq(failures, 1 + 7 + 2);
	for (owner = 0; owner < OWNERS; owner++)
		cr_expect_eq(trie_remove(&trie, "all", 3, &owners[owner]), 1);
	cr_expect_eq(match_sum("all"), 0);
	trie_fini(&trie);
	cr_expect_eq(live_count, 0);
}
