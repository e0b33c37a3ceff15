/*
 * The log: the form of a line, what is escaped, where a line is cut, and that no value can look
 * like more than a value.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include "log.h"

static char lines[4][PIPE_BUF + 1];
static size_t lines_count;
static int64_t now;

static int64_t now_ms(void)
{
	return now;
}

static void put(const char *line, size_t bytes)
{
	cr_assert_lt(lines_count, 4);
	cr_assert_leq(bytes, PIPE_BUF);
	memcpy(lines[lines_count], line, bytes);
	lines[lines_count++][bytes] = '\0';
}

static void init(void)
{
	now = 1795238778123; /* 2026-11-21T05:26:18.123Z */
	log_init(CONF_LOG_INFO, now_ms, put);
}

TestSuite(log, .init = init);

Test(log, one_line)
{
	log_info("listening", LZ("addr", "127.0.0.1:1883"), LU("n", UINT64_MAX), LI("m", INT64_MIN),
		NULL);
	cr_assert_eq(lines_count, 1);
	cr_expect_str_eq(lines[0], "2026-11-21T05:26:18.123Z info listening addr=127.0.0.1:1883 "
				   "n=18446744073709551615 m=-9223372036854775808\n");
}

Test(log, levels)
{
	static const enum conf_log_level all[] = {
		CONF_LOG_ERROR, CONF_LOG_WARN, CONF_LOG_INFO, CONF_LOG_DEBUG};

	for (size_t i = 0; i < 4; i++) {
		lines_count = 0;
		log_init(all[i], now_ms, put);
		log_error("e", NULL);
		log_warn("w", NULL);
		log_info("i", NULL);
		log_debug("d", NULL);
		cr_expect_eq(lines_count, i + 1);
		cr_expect(log_enabled(all[i]));
		cr_expect_eq(log_enabled(CONF_LOG_DEBUG), i == 3);
	}
	cr_expect_str_eq(lines[0], "2026-11-21T05:26:18.123Z error e\n");
	cr_expect_str_eq(lines[1], "2026-11-21T05:26:18.123Z warn w\n");
	cr_expect_str_eq(lines[3], "2026-11-21T05:26:18.123Z debug d\n");
}

/* The value of the one field of the last line, without the line's end. */
static const char *logged(const char *value, size_t bytes)
{
	char *text;

	lines_count = 0;
	log_info("x", LS("k", value, bytes), NULL);
	cr_assert_eq(lines_count, 1);
	text = strstr(lines[0], " info x k=");
	cr_assert(text);
	text += strlen(" info x k=");
	text[strcspn(text, "\n")] = '\0';
	return text;
}

#define LOGGED(literal) logged(literal, sizeof(literal) - 1)

Test(log, bare_values)
{
	cr_expect_str_eq(LOGGED("abcXYZ019_./:@%+,-"), "abcXYZ019_./:@%+,-");
	cr_expect_str_eq(LOGGED("[::1]:1883"), "[::1]:1883");
	cr_expect_str_eq(LOGGED("$file/~1/#"), "$file/~1/#");
	cr_expect_str_eq(logged(NULL, 0), "-");
	cr_expect_str_eq(logged(NULL, 7), "-");
	cr_expect_str_eq(LOGGED(""), "\"\"");
	cr_expect_str_eq(LOGGED("-"), "\"-\"");
	cr_expect_str_eq(LOGGED("--"), "--");
	cr_expect_str_eq(logged("abc", 2), "ab");
}

Test(log, quoted_values)
{
	cr_expect_str_eq(LOGGED("a b"), "\"a b\"");
	cr_expect_str_eq(LOGGED("a=b"), "\"a=b\"");
	cr_expect_str_eq(LOGGED("say \"x\\y\""), "\"say \\\"x\\\\y\\\"\"");
	cr_expect_str_eq(LOGGED("a\n2026-11-21T05:26:18.123Z info forged"),
		"\"a\\n2026-11-21T05:26:18.123Z info forged\"");
	cr_expect_str_eq(LOGGED("\0\t\r\x1b[2J\x7f"), "\"\\x00\\x09\\x0d\\x1b[2J\\x7f\"");
	cr_expect_str_eq(LOGGED("中文 \xf0\x9f\x98\x80"), "\"中文 \xf0\x9f\x98\x80\"");
	/* Not UTF-8: an overlong slash, a surrogate, a lone continuation, an end too early. */
	cr_expect_str_eq(LOGGED("\xc0\xaf"), "\"\\xc0\\xaf\"");
	cr_expect_str_eq(LOGGED("\xed\xa0\x80"), "\"\\xed\\xa0\\x80\"");
	cr_expect_str_eq(LOGGED("a\x80z"), "\"a\\x80z\"");
	cr_expect_str_eq(LOGGED("a\xe4\xb8"), "\"a\\xe4\\xb8\"");
	/* UTF-8 that a terminal obeys or a reader can't see: CSI, right-to-left override, zero
	 * width, BOM. */
	cr_expect_str_eq(LOGGED("\xc2\x9b"), "\"\\xc2\\x9b\"");
	cr_expect_str_eq(LOGGED("\xe2\x80\xae"), "\"\\xe2\\x80\\xae\"");
	cr_expect_str_eq(LOGGED("a\xe2\x80\x8b"), "\"a\\xe2\\x80\\x8b\"");
	cr_expect_str_eq(LOGGED("\xef\xbb\xbf"), "\"\\xef\\xbb\\xbf\"");
	cr_expect_str_eq(LOGGED("\xe2\x80\xa8"), "\"\\xe2\\x80\\xa8\"");
}

Test(log, errors_by_their_text)
{
	log_info("x", LE("a", ENOSPC), LE("b", -ENOSPC), LE("c", 99999), NULL);
	cr_expect_str_eq(strstr(lines[0], " a="),
		" a=\"No space left on device\" b=\"No space left on device\" c=99999\n");
}

/* Any bytes: the line stays one line, printable, and its quotes stay balanced. */
Test(log, no_bytes_break_a_line)
{
	uint32_t state = 12345;

	for (unsigned i = 0; i < 20000; i++) {
		char value[24];
		const char *text;
		size_t bytes, j;

		for (j = 0; j < sizeof(value); j++) {
			state = state * 1664525 + 1013904223;
			value[j] = state >> 24;
		}
		bytes = state % sizeof(value);
		text = logged(value, bytes);
		if (*text != '"') {
			cr_assert_eq(strcspn(text, " \"\\="), bytes);
			continue;
		}
		for (j = 1; text[j] && text[j] != '"'; j += text[j] == '\\' ? 2 : 1)
			cr_assert_geq((unsigned char)text[j], ' ');
		cr_assert_eq(text[j], '"');
		cr_assert_eq(text[j + 1], '\0');
	}
}

Test(log, long_lines_are_cut)
{
	static char value[3 * PIPE_BUF];

	memset(value, 'a', sizeof(value));
	log_info("x", LS("k", value, sizeof(value)), LU("after", 1), NULL);
	cr_expect_eq(strlen(lines[0]), PIPE_BUF);
	cr_expect_str_eq(lines[0] + PIPE_BUF - 5, "a...\n");
	value[0] = '\n';
	log_info("x", LS("k", value, sizeof(value)), LU("after", 1), NULL);
	cr_expect_eq(strlen(lines[1]), PIPE_BUF);
	cr_expect_str_eq(lines[1] + PIPE_BUF - 5, "a...\n");
	/* Two-byte characters are not cut through. */
	for (size_t i = 0; i + 2 <= sizeof(value); i += 2)
		memcpy(value + i, "\xc3\xa4", 2);
	for (size_t i = 0; i < 2; i++) {
		log_info(i ? "x" : "xy", LS("k", value, sizeof(value)), NULL);
		cr_expect_str_eq(strstr(lines[2 + i], "..."), "...\n");
		cr_expect_eq(strstr(lines[2 + i], "...")[-1], '\xa4');
	}
}
