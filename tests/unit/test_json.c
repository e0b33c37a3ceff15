/*
 * The JSON scanner: what RFC 8259 allows and forbids, spans, strings, and equality of values, also
 * against random values that are printed twice in different ways.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "json.h"

static bool check(const char *text, unsigned depth_max, struct json *ret)
{
	return json_check(text, strlen(text), depth_max, ret);
}

static bool equal(const char *a, const char *b)
{
	struct json va, vb;

	cr_assert(check(a, 64, &va), "%s", a);
	cr_assert(check(b, 64, &vb), "%s", b);
	bool result = json_equal(&va, &vb);
	cr_expect_eq(json_equal(&vb, &va), result, "%s and %s: not symmetric", a, b);
	return result;
}

Test(json, accepts)
{
	static const struct {
		const char *text;
		enum json_kind kind;
		const char *value;
	} good[] = {
		{"null", JSON_NULL, "null"},
		{" \t\r\n true\n", JSON_TRUE, "true"},
		{"false ", JSON_FALSE, "false"},
		{"0", JSON_NUMBER, "0"},
		{"-0", JSON_NUMBER, "-0"},
		{" -12.50e+07", JSON_NUMBER, "-12.50e+07"},
		{"1E-9", JSON_NUMBER, "1E-9"},
		{"\"\"", JSON_STRING, "\"\""},
		{"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00\"", JSON_STRING,
			"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00\""},
		{"\"\\u0000\x7f\xc3\xa9\"", JSON_STRING, "\"\\u0000\x7f\xc3\xa9\""},
		{" [ ] ", JSON_ARRAY, "[ ]"},
		{"[1 , [2],{}]", JSON_ARRAY, "[1 , [2],{}]"},
		{"{}", JSON_OBJECT, "{}"},
		{"{ \"a\" : 1 , \"a\":{\"b\":[]} } ", JSON_OBJECT,
			"{ \"a\" : 1 , \"a\":{\"b\":[]} }"},
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		struct json v;
		cr_assert(check(good[i].text, 3, &v), "%s", good[i].text);
		cr_expect_eq(v.kind, good[i].kind, "%s", good[i].text);
		cr_expect_eq(v.bytes, strlen(good[i].value), "%s", good[i].text);
		cr_expect(memcmp(v.text, good[i].value, v.bytes) == 0, "%s", good[i].text);
	}
}

Test(json, refuses)
{
	static const char *const bad[] = {"", " ", "nul", "nulll", "True", "truefalse", "1 2", "01",
		"-", "+1", ".5", "1.", "1.e3", "1e", "1e+", "0x1", "NaN", "Infinity", "--1", "\"",
		"\"a", "\"\\\"", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud800\"",
		"\"\\udc00\"", "\"\\ud800x\"", "\"\\ud800\\n\"", "\"\\ud800\\ud800\"",
		"\"\\ud800\\u0041\"", "\"\\udc00\\ud800\"", "\"a\nb\"", "\"\t\"", "\"\x1f\"",
		"\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xc3\"",
		"'a'", "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1}", "{", "}", "{\"a\"",
		"{\"a\":", "{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{,}", "{a:1}", "{1:1}",
		"{\"a\" 1}", "{\"a\":1 \"b\":2}", "{\"a\":1]", "{\"a\":}", "/*c*/1", "1//c",
		"\xef\xbb\xbf{}", "\xc2\xa0[]", "[1]]", "{}{}"};
	struct json v = {JSON_TRUE, bad[0], 77};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		size_t bytes = strlen(bad[i]);
		char *copy = memcpy(malloc(bytes + !bytes), bad[i], bytes);
		cr_expect(!json_check(copy, bytes, 8, &v), "%s", bad[i]);
		free(copy);
	}
	cr_expect(!json_check("1\0", 2, 8, &v));
	cr_expect(!json_check("\"\0\"", 3, 8, &v));
	cr_expect_eq(v.bytes, 77, "the result must stay untouched");
}

Test(json, depth)
{
	static char text[200000];
	struct json v;

	cr_expect(check("1", 0, &v));
	cr_expect(!check("[]", 0, &v));
	cr_expect(check("[]", 1, &v));
	cr_expect(check("[{\"a\":[]},[[]]]", 3, &v));
	cr_expect(!check("[{\"a\":[]},[[[]]]]", 3, &v));
	memset(text, '[', sizeof(text) - 1);
	cr_expect(!check(text, 64, &v));
	for (size_t i = 0; i + 5 < sizeof(text); i += 5)
		memcpy(text + i, "{\"\":", 5);
	cr_expect(!check(text, 64, &v));
}

Test(json, iterates)
{
	struct json v, key, value;
	struct json_iter it;

	cr_assert(check("{\"a\":[1, 2 ,\"x,]\"] , \"b\\n\" :{ } ,\"\":-1}", 8, &v));
	json_iter_init(&it, &v);
	cr_assert(json_iter_next(&it, &key, &value));
	cr_expect(json_string_is(&key, "a"));
	cr_expect_eq(value.bytes, strlen("[1, 2 ,\"x,]\"]"));
	struct json_iter inner;
	struct json element;
	json_iter_init(&inner, &value);
	cr_assert(json_iter_next(&inner, NULL, &element));
	cr_expect(element.bytes == 1 && *element.text == '1');
	cr_assert(json_iter_next(&inner, NULL, &element));
	cr_expect(element.bytes == 1 && *element.text == '2');
	cr_assert(json_iter_next(&inner, NULL, &element));
	cr_expect(json_string_is(&element, "x,]"));
	cr_expect(!json_iter_next(&inner, NULL, &element));
	cr_assert(json_iter_next(&it, &key, &value));
	cr_expect(json_string_is(&key, "b\n"));
	cr_expect_eq(value.kind, JSON_OBJECT);
	json_iter_init(&inner, &value);
	cr_expect(!json_iter_next(&inner, &element, &element));
	cr_assert(json_iter_next(&it, &key, &value));
	cr_expect(json_string_is(&key, ""));
	cr_expect_eq(value.kind, JSON_NUMBER);
	cr_expect_eq(value.bytes, 2);
	cr_expect(!json_iter_next(&it, &key, &value));
	cr_expect(!json_iter_next(&it, &key, &value));
}

Test(json, strings)
{
	struct json v;
	char buf[32];
	size_t bytes = 99;

	cr_assert(check("\"a\\u00e9\\u20ac\\ud83d\\ude00\\u0000z\\/\"", 0, &v));
	cr_assert_eq(json_string_decode(&v, buf, sizeof(buf), &bytes), 0);
	static const char expected[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\0z/";
	cr_expect_eq(bytes, sizeof(expected) - 1);
	cr_expect(memcmp(buf, expected, bytes) == 0);
	cr_expect_eq(json_string_decode(&v, buf, bytes, &bytes), 0);
	size_t exact = bytes;
	cr_expect_eq(json_string_decode(&v, buf, exact - 1, &bytes), -E2BIG);
	cr_expect_eq(bytes, exact);
	cr_expect(!json_string_is(&v, "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"));

	cr_assert(check("\"n\\u0061me\"", 0, &v));
	cr_expect(json_string_is(&v, "name"));
	cr_expect(!json_string_is(&v, "nam"));
	cr_expect(!json_string_is(&v, "names"));
	cr_expect(!json_string_is(&v, ""));
}

Test(json, equality)
{
	cr_expect(equal("null", " null "));
	cr_expect(!equal("true", "false"));
	cr_expect(!equal("0", "\"0\""));
	cr_expect(!equal("[]", "{}"));
	cr_expect(equal("\"\\u0061\"", "\"a\""));
	cr_expect(equal("\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\""));
	cr_expect(!equal("\"a\\u0000b\"", "\"a\\u0000c\""));
	cr_expect(!equal("\"a\\u0000\"", "\"a\""));
	cr_expect(equal("[1,[2,3]]", "[ 1, [2 ,3] ]"));
	cr_expect(!equal("[1,2]", "[2,1]"));
	cr_expect(!equal("[1,2]", "[1]"));
	cr_expect(!equal("[]", "[null]"));
	cr_expect(equal("{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}"));
	cr_expect(!equal("{\"a\":1,\"b\":2}", "{\"a\":2,\"b\":1}"));
	cr_expect(!equal("{\"a\":1}", "{\"a\":1,\"b\":null}"));
	cr_expect(!equal("{\"a\":1}", "{\"A\":1}"));
	cr_expect(equal("{\"a\":1,\"b\":0,\"\\u0061\":2}", "{\"a\":2,\"b\":0}"));
	cr_expect(!equal("{\"a\":1,\"b\":0,\"\\u0061\":2}", "{\"a\":1,\"b\":0}"));
	cr_expect(equal("{\"\":{\"x\":[{}]}}", "{\"\":{\"x\":[{ }]}}"));
}

Test(json, numbers_are_exact)
{
	cr_expect(equal("1", "1.0"));
	cr_expect(equal("1", "10e-1"));
	cr_expect(equal("100", "1e2"));
	cr_expect(equal("0.001", "1E-3"));
	cr_expect(equal("0.00120", "12e-4"));
	cr_expect(equal("-0", "0"));
	cr_expect(equal("0e99", "0.000"));
	cr_expect(equal("-1.50", "-15e-1"));
	cr_expect(equal("123.456", "0.123456e3"));
	cr_expect(!equal("1", "-1"));
	cr_expect(!equal("1", "10"));
	cr_expect(!equal("1", "0.1"));
	cr_expect(!equal("1.1", "11"));
	cr_expect(!equal("1.01", "1.1"));
	cr_expect(!equal("101", "1.1"));
	cr_expect(!equal("9007199254740993", "9007199254740992"));
	cr_expect(!equal("0.1", "0.10000000000000001"));
	cr_expect(!equal("1e400", "2e400"));
	cr_expect(!equal("1e400", "1e401"));
	cr_expect(equal("1e9223372036854775808", "1e9223372036854775808"));
	cr_expect(!equal("1e9223372036854775808", "1e-9223372036854775808"));
	cr_expect(equal("1000000000000000000000000", "1e24"));
}

/* A random value, the same for the same seed, in a form that `style` chooses. */
static char *value_print(unsigned *seed, unsigned *style, unsigned depth, char *at)
{
	static const char *const strings[][2] = {{"\"a\"", "\"\\u0061\""}, {"\"\"", "\"\""},
		{"\"\xc3\xa9\"", "\"\\u00E9\""}, {"\"/\\n\"", "\"\\/\\u000a\""}};
	static const char *const numbers[][2] = {{"0", "-0.0"}, {"12", "1.2e1"}, {"-7", "-0.07E+2"},
		{"9007199254740993", "9007199254740.993e3"}};
	unsigned which = (unsigned)rand_r(seed) % (depth ? 6 : 4),
		 form = (unsigned)rand_r(style) % 2;
	unsigned pick = (unsigned)rand_r(seed) % 4, count = (unsigned)rand_r(seed) % 4;
	const char *space = form ? " \n" : "";

	if (which < 2)
		return stpcpy(at, strings[pick][form]);
	if (which < 4)
		return stpcpy(at, which == 2 ? numbers[pick][form] : pick ? "null" : "true");
	*at++ = which == 4 ? '[' : '{';
	/* Members in either order: each has a seed of its own. */
	unsigned seeds[4] = {rand_r(seed), rand_r(seed), rand_r(seed), rand_r(seed)};
	for (unsigned i = 0; i < count; i++) {
		unsigned n = which == 5 && form ? count - 1 - i : i;
		at = stpcpy(at, i ? "," : "");
		at = stpcpy(at, space);
		if (which == 5)
			at += sprintf(at, form ? "\"\\u006b%u\" : " : "\"k%u\":", n);
		at = value_print(&seeds[n], style, depth - 1, at);
		at = stpcpy(at, space);
	}
	*at++ = which == 4 ? ']' : '}';
	*at = '\0';
	return at;
}

Test(json, random_values_in_two_forms)
{
	static char a[65536], b[65536], c[65536];
	unsigned style = 1, differ = 0;

	for (unsigned seed = 1; seed <= 3000; seed++) {
		unsigned s = seed;
		value_print(&s, &style, 4, a);
		s = seed;
		value_print(&s, &style, 4, b);
		cr_assert(equal(a, b), "seed %u: %s and %s", seed, a, b);
		s = seed + 1;
		unsigned plain = 7;
		value_print(&s, &plain, 4, c);
		differ += !equal(a, c);
	}
	cr_expect_gt(differ, 2000, "only %u of 3000 pairs differ", differ);
}
