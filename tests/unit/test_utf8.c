/* lib/utf8.c against a decoder that follows the definition bit by bit. */
#include <criterion/criterion.h>

#include "utf8.h"

#include <stdlib.h>
#include <string.h>

static uint64_t seed = 7;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % below;
}

static unsigned encode(uint32_t code, unsigned bytes, char *ret)
{
	static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};

	for (unsigned i = bytes; i-- > 1; code >>= 6)
		ret[i] = (char)(0x80 | (code & 0x3f));
	ret[0] = (char)(lead[bytes] | code);
	return bytes;
}

static unsigned encoded_bytes(uint32_t code)
{
	return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

/* Of the character at s: its length, or 0. */
static unsigned model_next(const char *s, size_t s_bytes, uint32_t *ret_code)
{
	uint8_t lead = (uint8_t)s[0];
	unsigned bytes = lead < 0x80 ? 1 : (lead & 0xe0) == 0xc0 ? 2 : (lead & 0xf0) == 0xe0 ? 3
			: (lead & 0xf8) == 0xf0 ? 4 : 0;
	uint32_t code = bytes == 1 ? lead : lead & (0x7fu >> bytes);

	if (bytes == 0 || bytes > s_bytes)
		return 0;
	for (unsigned i = 1; i < bytes; i++) {
		if (((uint8_t)s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | ((uint8_t)s[i] & 0x3f);
	}
	if (encoded_bytes(code) != bytes || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	*ret_code = code;
	return bytes;
}

static bool model_ok(const char *s, size_t s_bytes)
{
	for (size_t i = 0; i < s_bytes;) {
		uint32_t code;
		unsigned bytes = model_next(s + i, s_bytes - i, &code);

		if (bytes == 0 || code == 0)
			return false;
		i += bytes;
	}
	return true;
}

/* In an allocation of exactly its size, so that a read past the end is seen by the sanitizer. */
static void check(const char *s, size_t s_bytes)
{
	char *copy = malloc(s_bytes ? s_bytes : 1);
	uint32_t code = 0, expected_code = 0;

	memcpy(copy, s, s_bytes);
	cr_assert_eq(utf8_mqtt_ok(copy, s_bytes), model_ok(s, s_bytes));
	if (s_bytes > 0) {
		cr_assert_eq(
			utf8_next(copy, s_bytes, &code), model_next(s, s_bytes, &expected_code));
		cr_assert_eq(code, expected_code);
	}
	free(copy);
}

Test(utf8, every_code_point)
{
	char s[4];
	uint32_t decoded;

	for (uint32_t code = 0; code <= 0x1fffff; code++) {
		unsigned bytes = encode(code, encoded_bytes(code), s);
		bool good = code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);

		if (bytes == 1)
			s[0] = (char)code;
		decoded = ~code;
		cr_assert_eq(utf8_next(s, bytes, &decoded), good ? bytes : 0, "U+%04X", code);
		cr_assert_eq(decoded, good ? code : ~code);
		cr_assert_eq(utf8_mqtt_ok(s, bytes), good && code != 0, "U+%04X", code);
	}
}

Test(utf8, no_overlong_forms)
{
	char s[4];
	uint32_t code;

	for (unsigned bytes = 2; bytes <= 4; bytes++)
		for (uint32_t c = 0; c < (bytes == 2          ? 0x80u
						 : bytes == 3 ? 0x800u
							      : 0x10000u);
			c++) {
			encode(c, bytes, s);
			cr_assert_eq(utf8_next(s, bytes, &code), 0, "U+%04X in %u bytes", c, bytes);
			cr_assert_not(utf8_mqtt_ok(s, bytes));
		}
}

Test(utf8, every_two_and_three_bytes)
{
	for (uint32_t v = 0; v < 0x1000000; v += v < 0x10000 ? 1 : 37)
		check((char[]){(char)(v & 0xff), (char)(v >> 8 & 0xff), (char)(v >> 16)},
			v < 0x10000 ? 2 : 3);
}

/* One bad byte, or one character, at every place of strings around the word size. */
Test(utf8, every_place_of_a_word)
{
	static const char *const marks[] = {"\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\x80",
		"\xff", "\xc3", "\xed\xa0\x80", "\x01", "\x7f"};
	char s[40];

	for (size_t bytes = 0; bytes <= sizeof(s); bytes++) {
		memset(s, 'a', sizeof(s));
		check(s, bytes);
		for (size_t at = 0; at < bytes; at++) {
			memset(s, 'a', sizeof(s));
			s[at] = 0;
			check(s, bytes);
			cr_assert_not(utf8_mqtt_ok(s, bytes));
			for (size_t m = 0; m < sizeof(marks) / sizeof(marks[0]); m++) {
				size_t mark_bytes = strlen(marks[m]);

				memset(s, 'a', sizeof(s));
				memcpy(s + at, marks[m],
					mark_bytes < bytes - at ? mark_bytes : bytes - at);
				check(s, bytes);
			}
		}
	}
}

Test(utf8, random_strings)
{
	char s[64];

	for (int i = 0; i < 100000; i++) {
		size_t bytes = 0;

		while (bytes < sizeof(s) - 4 && rnd(12) != 0) {
			uint32_t code = 1 + rnd(rnd(2) ? 0x7f : 0x10ffff);

			if (code < 0x80)
				s[bytes++] = (char)code;
			else
				bytes += encode(code, encoded_bytes(code), s + bytes);
		}
		if (bytes > 0 && rnd(3) == 0)
			s[rnd((uint32_t)bytes)] = (char)rnd(256);
		check(s, bytes);
	}
}
