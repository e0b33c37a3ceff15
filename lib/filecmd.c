/*
 * The $file topics: from the bytes of a topic name to a command. The grammar is in filecmd.h.
 *
 * The topic is cut at every "/" without trimming, so an empty level is a level like any other. One
 * pass, in the order the protocol fixes:
 *
 *   fileid      the level behind the prefix must not be empty
 *   shape       by the number of levels behind the fileid and by the word in the first one:
 *                 0                         invalid_file_command
 *                 1   init|abort|status     that command
 *                     anything else         a segment's offset ("fin" alone, too)
 *                 2   fin                   size
 *                     anything else         offset, checksum
 *                 3   fin                   size, checksum
 *                     anything else         invalid_file_command
 *                 4…                        invalid_file_command
 *   number      then checksum
 *
 * So "init/x" is a segment whose offset is not a number: that is what EMQX answers, and its
 * clients may look at it.
 *
 * Not checked here: that the topic is valid UTF-8 without wildcards (topic.h), and the digest.
 */
#include <string.h>
#include "filecmd.h"
#include "sha256.h"

enum { LEVELS_MAX = 3 }; /* behind the fileid, in the longest form */

struct level {
	const char *text;
	size_t bytes;
};

static bool level_is(const struct level *l, const char *word)
{
	return l->bytes == strlen(word) && memcmp(l->text, word, l->bytes) == 0;
}

/* Takes the next level off *at. False when the topic has no more: *at is NULL then. */
static bool level_next(const char **at, const char *end, struct level *ret)
{
	if (!*at)
		return false;
	const char *slash = memchr(*at, '/', (size_t)(end - *at));
	ret->text = *at;
	ret->bytes = (size_t)((slash ? slash : end) - *at);
	*at = slash ? slash + 1 : NULL;
	return true;
}

/* ASCII digits up to INT64_MAX: offsets become off_t, and two of them never overflow a uint64_t. */
static bool level_to_number(const struct level *l, uint64_t *ret)
{
	uint64_t n = 0;

	if (l->bytes == 0)
		return false;
	for (size_t i = 0; i < l->bytes; i++) {
		unsigned digit = (unsigned char)l->text[i] - (unsigned)'0';
		if (digit > 9 || n > ((uint64_t)INT64_MAX - digit) / 10)
			return false;
		n = n * 10 + digit;
	}
	*ret = n;
	return true;
}

static void set_bad(struct filecmd *ret, const char *error)
{
	ret->verb = FILECMD_BAD;
	ret->error = error;
}

/* The number and, if there is a level for it, the checksum of a segment or fin. */
static void parse_numbers(const struct level *number, const struct level *checksum,
	struct filecmd *ret)
{
	bool is_fin = ret->verb == FILECMD_FIN;

	if (!level_to_number(number, is_fin ? &ret->size : &ret->offset)) {
		set_bad(ret, is_fin ? "invalid_size" : "invalid_offset");
		return;
	}
	if (!checksum)
		return;
	if (sha256_from_hex(checksum->text, checksum->bytes, ret->checksum)) {
		set_bad(ret, "invalid_checksum");
		return;
	}
	ret->has_checksum = true;
}

static void parse_shape(const struct level *levels, size_t count, struct filecmd *ret)
{
	bool is_fin = count > 1 && level_is(&levels[0], "fin");

	if (count == 0 || count > (is_fin ? 3 : 2)) {
		set_bad(ret, "invalid_file_command");
	} else if (is_fin) {
		ret->verb = FILECMD_FIN;
		parse_numbers(&levels[1], count == 3 ? &levels[2] : NULL, ret);
	} else if (count == 1 && level_is(&levels[0], "init")) {
		ret->verb = FILECMD_INIT;
	} else if (count == 1 && level_is(&levels[0], "abort")) {
		ret->verb = FILECMD_ABORT;
	} else if (count == 1 && level_is(&levels[0], "status")) {
		ret->verb = FILECMD_STATUS;
	} else {
		ret->verb = FILECMD_SEGMENT;
		parse_numbers(&levels[0], count == 2 ? &levels[1] : NULL, ret);
	}
}

void filecmd_parse(const char *topic, size_t topic_bytes, struct filecmd *ret)
{
	struct level prefix = {NULL, 0}, fileid, levels[LEVELS_MAX + 1];
	size_t count = 0;

	memset(ret, 0, sizeof(*ret));
	if (topic_bytes == 0)
		return; /* topic may be NULL then */
	const char *at = topic, *end = topic + topic_bytes;
	level_next(&at, end, &prefix);
	if (level_is(&prefix, "$file-async"))
		ret->is_async = true;
	else if (!level_is(&prefix, "$file"))
		return;
	if (!level_next(&at, end, &fileid)) {
		ret->is_async = false; /* the bare prefix is an ordinary topic */
		return;
	}
	if (fileid.bytes == 0) {
		set_bad(ret, "invalid_fileid");
		return;
	}
	ret->fileid = fileid.text;
	ret->fileid_bytes = fileid.bytes;
	/* One level more than any form has is enough to know that there are too many. */
	while (count <= LEVELS_MAX && level_next(&at, end, &levels[count]))
		count++;
	parse_shape(levels, count, ret);
}
