/*
 * UTF-8 validity, as MQTT asks for it on every string of every packet.
 *
 * Nearly all of them are ASCII, so that eight bytes at a time are looked at, and only a character
 * that is not ASCII is decoded. Control characters and the non-characters, which a receiver may
 * refuse [MQTT 5.0, 1.5.4], are accepted: a topic that a client uses elsewhere works here too.
 */
#include "utf8.h"

#include <string.h>

#define ONES 0x0101010101010101ull
#define HIGHS 0x8080808080808080ull

/* All eight bytes are in 0x01–0x7f. Subtracting one sets the high bit of a zero byte; the borrow
 * that it then takes from its neighbour can't turn the answer back. */
static inline bool ascii_word(const char *s)
{
	uint64_t word;

	memcpy(&word, s, sizeof(word));
	return ((word | (word - ONES)) & HIGHS) == 0;
}

static inline bool is_tail(uint8_t b)
{
	return (b & 0xc0) == 0x80;
}

unsigned utf8_next(const char *s, size_t s_bytes, uint32_t *ret_code)
{
	const uint8_t *b = (const uint8_t *)s;

	if (b[0] < 0x80) {
		*ret_code = b[0];
		return 1;
	}
	if (b[0] < 0xc2) /* a tail byte, or an overlong form of ASCII */
		return 0;
	if (b[0] < 0xe0) {
		if (s_bytes < 2 || !is_tail(b[1]))
			return 0;
		*ret_code = (uint32_t)(b[0] & 0x1f) << 6 | (b[1] & 0x3f);
		return 2;
	}
	if (b[0] < 0xf0) {
		if (s_bytes < 3 || !is_tail(b[1]) || !is_tail(b[2]))
			return 0;
		uint32_t code = (uint32_t)(b[0] & 0x0f) << 12 | (uint32_t)(b[1] & 0x3f) << 6 |
				(b[2] & 0x3f);

		if (code < 0x800 || (code >= 0xd800 && code <= 0xdfff))
			return 0;
		*ret_code = code;
		return 3;
	}
	if (b[0] > 0xf4 || s_bytes < 4 || !is_tail(b[1]) || !is_tail(b[2]) || !is_tail(b[3]))
		return 0;
	uint32_t code = (uint32_t)(b[0] & 0x07) << 18 | (uint32_t)(b[1] & 0x3f) << 12 |
			(uint32_t)(b[2] & 0x3f) << 6 | (b[3] & 0x3f);

	if (code < 0x10000 || code > 0x10ffff)
		return 0;
	*ret_code = code;
	return 4;
}

bool utf8_mqtt_ok(const char *s, size_t s_bytes)
{
	size_t i = 0;

	while (i < s_bytes) {
		uint32_t code;
		unsigned bytes;

		if (s_bytes - i >= 8 && ascii_word(s + i)) {
			i += 8;
			continue;
		}
		/* The last few bytes of a longer string are one word that overlaps bytes already
		 * seen: those were whole characters, and only ASCII ones can pass again. */
		if (s_bytes >= 8 && s_bytes - i < 8 && ascii_word(s + s_bytes - 8))
			return true;
		bytes = utf8_next(s + i, s_bytes - i, &code);
		if (bytes == 0 || code == 0)
			return false;
		i += bytes;
	}
	return true;
}
