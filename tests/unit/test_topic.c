/* lib/topic.c: the specification's examples, tables, and a recursive matcher over split levels as
 * the model. */
#include <criterion/criterion.h>

#include "topic.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 11;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % below;
}

static bool match(const char *filter, const char *topic)
{
	return topic_match(filter, strlen(filter), topic, strlen(topic));
}

Test(topic, matches)
{
	static const struct {
		const char *filter, *topic;
		bool matches;
	} cases[] = {
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/tennis/player1/#", "sport/tennis/player12", false},
		{"sport/#", "sport", true},
		{"sport/#", "sport/", true},
		{"#", "a/b/c", true},
		{"#", "/", true},
		{"#", "$SYS/x", false},
		{"+/monitor/Clients", "$SYS/monitor/Clients", false},
		{"+/#", "$SYS/x", false},
		{"$SYS/#", "$SYS/monitor/Clients", true},
		{"$SYS/#", "$SYS", true},
		{"$SYS/monitor/+", "$SYS/monitor/Clients", true},
		{"a/#", "a/$b", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"+", "finance", true},
		{"+/+/#", "a/b", true},
		{"+/+/#", "a", false},
		{"a/+/c", "a//c", true},
		{"a//c", "a//c", true},
		{"a/", "a", false},
		{"a", "a/", false},
		{"ACCOUNTS", "Accounts", false},
		{"a/b", "a/bc", false},
		{"a/bc", "a/b", false},
		{"/", "/", true},
		{"/#", "/", true},
		{"/#", "a", false},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		cr_assert_eq(match(cases[i].filter, cases[i].topic), cases[i].matches, "%s %s",
			cases[i].filter, cases[i].topic);
	cr_assert_not(topic_match("", 0, "a", 1));
	cr_assert_not(topic_match("a", 1, "", 0));
}

Test(topic, filters)
{
	static const struct {
		const char *filter;
		bool ok;
	} cases[] = {
		{"", false},
		{"a", true},
		{"#", true},
		{"+", true},
		{"a/#", true},
		{"a#", false},
		{"#/a", false},
		{"a/#/b", false},
		{"##", false},
		{"+/+", true},
		{"a+", false},
		{"+a", false},
		{"a/+b/c", false},
		{"a/b+/c", false},
		{"+/#", true},
		{"+#", false},
		{"#+", false},
		{"/", true},
		{"//#", true},
		{"a/+/b", true},
		{"+/", true},
		{"/+", true},
		{"$share/g/#", true},
		{"a/\xc3\xa4/+", true},
		{"a/\xc3/+", false},
		{"\xc0\x80", false},
		{"a/#/", false},
		{"++", false},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		cr_assert_eq(topic_filter_ok(cases[i].filter, strlen(cases[i].filter)), cases[i].ok,
			"%s", cases[i].filter);
	cr_assert_not(topic_filter_ok("a\0b", 3));
}

Test(topic, names)
{
	static char longest[65536];

	cr_assert(topic_name_ok("a", 1));
	cr_assert(topic_name_ok("/", 1));
	cr_assert(topic_name_ok("$file/f/init", 12));
	cr_assert_not(topic_name_ok("", 0));
	cr_assert_not(topic_name_ok("a\0b", 3));
	cr_assert_not(topic_name_ok("\xff", 1));
	memset(longest, 'x', sizeof(longest));
	cr_assert(topic_name_ok(longest, 65535));
	cr_assert_not(topic_name_ok(longest, 65536));
	cr_assert(topic_filter_ok(longest, 65535));
	cr_assert_not(topic_filter_ok(longest, 65536));
}

/* At every place of strings around the word size; the neighbours of the two characters are none. */
Test(topic, wildcards_anywhere)
{
	for (size_t bytes = 1; bytes <= 40; bytes++) {
		char *s = malloc(bytes);

		for (size_t at = 0; at < bytes; at++) {
			for (int c = 1; c < 128; c++) {
				bool wild = c == '+' || c == '#';

				memset(s, at % 2 ? '*' : '$', bytes);
				s[at] = (char)c;
				cr_assert_eq(topic_has_wildcard(s, bytes), wild);
				cr_assert_eq(topic_name_ok(s, bytes), !wild);
			}
		}
		free(s);
	}
}

Test(topic, shared)
{
	static const struct {
		const char *filter;
		bool shared, ok;
		const char *group, *rest;
	} cases[] = {
		{"$share/g/a/+", true, true, "g", "a/+"},
		{"$share/group//", true, true, "group", "/"},
		{"$share/g/#", true, true, "g", "#"},
		{"$share/g", true, false, NULL, NULL},
		{"$share/g/", true, false, NULL, NULL},
		{"$share//a", true, false, NULL, NULL},
		{"$share/", true, false, NULL, NULL},
		{"$share/+/a", true, false, NULL, NULL},
		{"$share/#", true, false, NULL, NULL},
		{"$share", false, false, NULL, NULL},
		{"$shared/g/a", false, false, NULL, NULL},
		{"a", false, false, NULL, NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *group = NULL, *rest = NULL;
		size_t bytes = strlen(cases[i].filter), group_bytes = 0, rest_bytes = 0;

		cr_assert_eq(topic_is_shared(cases[i].filter, bytes), cases[i].shared, "%s",
			cases[i].filter);
		cr_assert_eq(topic_share_split(cases[i].filter, bytes, &group, &group_bytes, &rest,
				     &rest_bytes),
			cases[i].ok, "%s", cases[i].filter);
		if (!cases[i].ok)
			continue;
		cr_assert_eq(group_bytes, strlen(cases[i].group));
		cr_assert_arr_eq(group, cases[i].group, group_bytes);
		cr_assert_eq(rest_bytes, strlen(cases[i].rest));
		cr_assert_arr_eq(rest, cases[i].rest, rest_bytes);
	}
}

/* The model: NUL-terminated strings cut into levels, matched by recursion. */
struct levels {
	char text[64];
	const char *level[32];
	int count;
};

static void split(const char *s, struct levels *ret)
{
	char *rest = strcpy(ret->text, s);

	ret->count = 0;
	for (char *level; (level = strsep(&rest, "/"));)
		ret->level[ret->count++] = level;
}

static bool model_match(const struct levels *f, int fi, const struct levels *t, int ti)
{
	if (fi == f->count)
		return ti == t->count;
	if (strcmp(f->level[fi], "#") == 0)
		return true;
	if (ti == t->count)
		return false;
	return (strcmp(f->level[fi], "+") == 0 || strcmp(f->level[fi], t->level[ti]) == 0) &&
	       model_match(f, fi + 1, t, ti + 1);
}

static void random_topic(char *ret, bool filter)
{
	static const char *const words[] = {"", "a", "b", "ab", "$x", "+", "+", "#"};
	int count = 1 + (int)rnd(5);

	ret[0] = '\0';
	for (int i = 0; i < count; i++) {
		const char *word = words[rnd(filter ? 8 : 5)];

		if (strcmp(word, "#") == 0)
			i = count;
		strcat(ret, word);
		if (i + 1 < count)
			strcat(ret, "/");
	}
	if (ret[0] == '\0')
		strcpy(ret, "a");
}

Test(topic, matches_as_the_model)
{
	int matched = 0;

	for (int i = 0; i < 200000; i++) {
		char filter[32], topic[32];
		struct levels f, t;
		bool expected;

		random_topic(filter, true);
		random_topic(topic, false);
		split(filter, &f);
		split(topic, &t);
		expected = model_match(&f, 0, &t, 0) &&
			   !(topic[0] == '$' && (filter[0] == '+' || filter[0] == '#'));
		cr_assert(topic_filter_ok(filter, strlen(filter)), "%s", filter);
		cr_assert(topic_name_ok(topic, strlen(topic)), "%s", topic);
		cr_assert_eq(match(filter, topic), expected, "%s %s", filter, topic);
		matched += expected;
	}
	cr_assert_gt(matched, 10000, "the walk must try both answers");
}

/* Any bytes at all may come in; what is asked here is that nothing outside them is read. */
Test(topic, any_bytes)
{
	for (int i = 0; i < 20000; i++) {
		size_t f_bytes = rnd(12), t_bytes = rnd(12);
		char *f = malloc(f_bytes + 1), *t = malloc(t_bytes + 1);

		for (size_t b = 0; b < f_bytes; b++)
			f[b] = "/+#$a\xc3\0"[rnd(7)];
		for (size_t b = 0; b < t_bytes; b++)
			t[b] = "/+#$a\xc3\0"[rnd(7)];
		f = realloc(f, f_bytes ? f_bytes : 1);
		t = realloc(t, t_bytes ? t_bytes : 1);
		if (topic_filter_ok(f, f_bytes) && !topic_has_wildcard(f, f_bytes))
			cr_assert(topic_match(f, f_bytes, f, f_bytes));
		if (topic_match(f, f_bytes, t, t_bytes))
			cr_assert(f_bytes > 0 && t_bytes > 0);
		free(f);
		free(t);
	}
}
