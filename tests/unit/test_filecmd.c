/*
 * The $file grammar: every row of the protocol's table, then every topic that can be made of a
 * small alphabet of levels against a second, dumber parser.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "filecmd.h"

#define HEX "00112233445566778899aabbccddeeffFFEEDDCCBBAA99887766554433221100"

static struct filecmd parse(const char *topic)
{
	/* An exact copy on the heap: one byte read past the end is a fault under ASan. */
	size_t bytes = strlen(topic);
	char *copy = memcpy(malloc(bytes + !bytes), topic, bytes);
	struct filecmd cmd;

	memset(&cmd, 0xa5, sizeof(cmd));
	filecmd_parse(copy, bytes, &cmd);
	/* What is borrowed must point at the same place of the original. */
	if (cmd.fileid)
		cmd.fileid = topic + (cmd.fileid - copy);
	free(copy);
	return cmd;
}

static void expect_bad(const char *form, const char *error)
{
	static const char *const prefixes[] = {"$file", "$file-async"};

	for (size_t i = 0; i < 2; i++) {
		char topic[512];
		snprintf(topic, sizeof(topic), "%s%s", prefixes[i], form);
		struct filecmd cmd = parse(topic);
		cr_expect_eq(cmd.verb, FILECMD_BAD, "%s: verb %d", topic, cmd.verb);
		cr_expect(cmd.error && strcmp(cmd.error, error) == 0, "%s: %s, not %s", topic,
			cmd.error ? cmd.error : "(none)", error);
		cr_expect_eq(cmd.is_async, i == 1, "%s", topic);
		cr_expect(!cmd.has_checksum, "%s", topic);
	}
}

static struct filecmd expect_verb(const char *topic, enum filecmd_verb verb, const char *fileid)
{
	struct filecmd cmd = parse(topic);

	cr_expect_eq(cmd.verb, verb, "%s: verb %d", topic, cmd.verb);
	cr_expect_null(cmd.error, "%s", topic);
	cr_expect_eq(cmd.fileid_bytes, strlen(fileid), "%s", topic);
	cr_expect(memcmp(cmd.fileid, fileid, strlen(fileid)) == 0, "%s", topic);
	return cmd;
}

Test(filecmd, no_topic)
{
	struct filecmd cmd;

	filecmd_parse(NULL, 0, &cmd);
	cr_expect_eq(cmd.verb, FILECMD_NONE);
}

Test(filecmd, ordinary_topics)
{
	static const char *const topics[] = {"", "/", "a", "a/$file/f/init", "$file", "$file-async",
		"$files/f/init", "$fil", "$fil/f/init", "$file-asyn/f/init", "$file-async2/f/init",
		"$file-response/c", "$file-event/exported", "$FILE/f/init", "$File/f/init",
		" $file/f/init", "$file /f/init", "/$file/f/init", "$SYS/x"};

	for (size_t i = 0; i < sizeof(topics) / sizeof(*topics); i++) {
		struct filecmd cmd = parse(topics[i]);
		cr_expect_eq(cmd.verb, FILECMD_NONE, "%s: verb %d", topics[i], cmd.verb);
		cr_expect_null(cmd.error);
		cr_expect_null(cmd.fileid);
		cr_expect(!cmd.is_async);
	}
}

Test(filecmd, the_forms)
{
	struct filecmd cmd = expect_verb("$file/f1/init", FILECMD_INIT, "f1");
	cr_expect(!cmd.is_async);
	cmd = expect_verb("$file-async/f1/init", FILECMD_INIT, "f1");
	cr_expect(cmd.is_async);
	expect_verb("$file/f1/abort", FILECMD_ABORT, "f1");
	cmd = expect_verb("$file-async/f1/status", FILECMD_STATUS, "f1");
	cr_expect(cmd.is_async);

	cmd = expect_verb("$file/f1/1024", FILECMD_SEGMENT, "f1");
	cr_expect_eq(cmd.offset, 1024);
	cr_expect(!cmd.has_checksum);
	cmd = expect_verb("$file/f1/0007/" HEX, FILECMD_SEGMENT, "f1");
	cr_expect_eq(cmd.offset, 7);
	cr_expect(cmd.has_checksum);
	cr_expect_eq(cmd.checksum[0], 0x00);
	cr_expect_eq(cmd.checksum[15], 0xff);
	cr_expect_eq(cmd.checksum[16], 0xff);
	cr_expect_eq(cmd.checksum[30], 0x11);

	cmd = expect_verb("$file-async/f1/fin/168", FILECMD_FIN, "f1");
	cr_expect(cmd.is_async);
	cr_expect_eq(cmd.size, 168);
	cr_expect(!cmd.has_checksum);
	cmd = expect_verb("$file/f1/fin/00/" HEX, FILECMD_FIN, "f1");
	cr_expect_eq(cmd.size, 0);
	cr_expect(cmd.has_checksum);
	cr_expect_eq(cmd.checksum[1], 0x11);
}

Test(filecmd, any_level_is_a_fileid)
{
	expect_verb("$file/../init", FILECMD_INIT, "..");
	expect_verb("$file/ /init", FILECMD_INIT, " ");
	expect_verb("$file/%2F;/init", FILECMD_INIT, "%2F;");
	expect_verb("$file/\xf0\x9f\x98\x80/init", FILECMD_INIT, "\xf0\x9f\x98\x80");
	expect_verb("$file/init/init", FILECMD_INIT, "init");
	expect_verb("$file/fin/fin/3", FILECMD_FIN, "fin");
	expect_verb("$file/12/34", FILECMD_SEGMENT, "12");
}

Test(filecmd, the_table)
{
	expect_bad("/", "invalid_fileid");
	expect_bad("//init", "invalid_fileid");
	expect_bad("//", "invalid_fileid");
	expect_bad("//////", "invalid_fileid");
	expect_bad("/f", "invalid_file_command");
	expect_bad("/f/", "invalid_offset");
	expect_bad("/f/offset", "invalid_offset");
	expect_bad("/f/fin", "invalid_offset");
	expect_bad("/f/INIT", "invalid_offset");
	expect_bad("/f/Status", "invalid_offset");
	expect_bad("/f/init ", "invalid_offset");
	expect_bad("/f/initx", "invalid_offset");
	expect_bad("/f/ini", "invalid_offset");
	expect_bad("/f/init/x", "invalid_offset");
	expect_bad("/f/init/", "invalid_offset");
	expect_bad("/f/abort/x", "invalid_offset");
	expect_bad("/f/status/x", "invalid_offset");
	expect_bad("/X/Y/Z", "invalid_offset");
	expect_bad("/f//", "invalid_offset");
	expect_bad("/f/FIN/3", "invalid_offset");
	expect_bad("/f/offset/" HEX, "invalid_offset");
	expect_bad("/f/fin/abc", "invalid_size");
	expect_bad("/f/fin/", "invalid_size");
	expect_bad("/f/fin//", "invalid_size");
	expect_bad("/f/fin/abc/xyz", "invalid_size");
	expect_bad("/f/fin/" HEX, "invalid_size");
	expect_bad("/f/fin/42/xyz", "invalid_checksum");
	expect_bad("/f/fin/42/", "invalid_checksum");
	expect_bad("/f/12/", "invalid_checksum");
	expect_bad("/f/12/xyz", "invalid_checksum");
	expect_bad("/f/12/" HEX "0", "invalid_checksum");
	expect_bad("/f/12/0112233445566778899aabbccddeeffffeeddccbbaa99887766554433221100",
		"invalid_checksum");
	expect_bad("/f/12/g0112233445566778899aabbccddeeffffeeddccbbaa99887766554433221100",
		"invalid_checksum");
	expect_bad("/f/fin/42/" HEX "/more", "invalid_file_command");
	expect_bad("/f/fin/42/" HEX "/", "invalid_file_command");
	expect_bad("/f/fin/a/b/c/d/e/f", "invalid_file_command");
	expect_bad("/f/1/2/3", "invalid_file_command");
	expect_bad("/f/1/" HEX "/", "invalid_file_command");
	expect_bad("/f/init/x/y", "invalid_file_command");
	expect_bad("/f///", "invalid_file_command");
}

Test(filecmd, numbers)
{
	static const char *const bad[] = {"+1", "-1", "-0", " 1", "1 ", "0x1", "1e3", "1.0",
		"\xd9\xa1", "9223372036854775808", "18446744073709551615", "18446744073709551616",
		"99999999999999999999999999999999"};
	char form[64];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		snprintf(form, sizeof(form), "/f/%s", bad[i]);
		expect_bad(form, "invalid_offset");
		snprintf(form, sizeof(form), "/f/fin/%s", bad[i]);
		expect_bad(form, "invalid_size");
	}
	struct filecmd cmd = expect_verb("$file/f/9223372036854775807", FILECMD_SEGMENT, "f");
	cr_expect_eq(cmd.offset, INT64_MAX);
	cmd = expect_verb("$file/f/fin/09223372036854775807", FILECMD_FIN, "f");
	cr_expect_eq(cmd.size, INT64_MAX);
}

Test(filecmd, longest_topic)
{
	static char topic[65536];

	memset(topic, '0', sizeof(topic) - 1);
	memcpy(topic, "$file/f/", 8);
	struct filecmd cmd = parse(topic);
	cr_expect_eq(cmd.verb, FILECMD_SEGMENT);
	cr_expect_eq(cmd.offset, 0);
	memset(topic + 8, '/', sizeof(topic) - 9);
	cmd = parse(topic);
	cr_expect_str_eq(cmd.error, "invalid_file_command");
	memset(topic + 6, 'f', sizeof(topic) - 12);
	memcpy(topic + sizeof(topic) - 6, "/init", 6);
	cmd = parse(topic);
	cr_expect_eq(cmd.verb, FILECMD_INIT);
	cr_expect_eq(cmd.fileid_bytes, 65535 - 6 - 5);
}

/* The model: strsep over a copy, then the table, written the long way round. */
static const char *model(const char *topic)
{
	static char copy[512];
	char *rest = copy, *level[16] = {NULL};
	int n = 0;

	snprintf(copy, sizeof(copy), "%s", topic);
	while (rest && n < 16)
		level[n++] = strsep(&rest, "/");
	if (n == 1)
		return "none";
	if (!*level[1])
		return "invalid_fileid";
	if (n == 2)
		return "invalid_file_command";
	bool fin = strcmp(level[2], "fin") == 0 && n > 3;
	if (n > 5 || (n == 5 && !fin))
		return "invalid_file_command";
	if (n == 3 && strcmp(level[2], "init") == 0)
		return "init";
	if (n == 3 && strcmp(level[2], "abort") == 0)
		return "abort";
	if (n == 3 && strcmp(level[2], "status") == 0)
		return "status";
	const char *number = level[fin ? 3 : 2], *checksum = level[fin ? 4 : 3];
	if (!*number || strspn(number, "0123456789") != strlen(number))
		return fin ? "invalid_size" : "invalid_offset";
	if (checksum &&
		(strlen(checksum) != 64 || strspn(checksum, "0123456789abcdefABCDEF") != 64))
		return "invalid_checksum";
	return fin ? "fin" : "segment";
}

Test(filecmd, all_combinations_against_the_model)
{
	static const char *const words[] = {
		"", "f", "init", "abort", "status", "fin", "12", "x", HEX};
	static const char *const verbs[] = {"none", "init", "segment", "fin", "abort", "status"};
	enum { WORDS = sizeof(words) / sizeof(*words), LEVELS = 5 };
	unsigned tried = 0;

	for (unsigned levels = 0, count = 1; levels <= LEVELS; levels++, count *= WORDS) {
		for (unsigned i = 0; i < count; i++) {
			char topic[512] = "$file";
			for (unsigned l = 0, rest = i; l < levels; l++, rest /= WORDS) {
				strcat(topic, "/");
				strcat(topic, words[rest % WORDS]);
			}
			struct filecmd cmd;
			filecmd_parse(topic, strlen(topic), &cmd);
			const char *got = cmd.verb == FILECMD_BAD ? cmd.error : verbs[cmd.verb];
			if (strcmp(got, model(topic)) != 0)
				cr_expect(false, "%s: %s, not %s", topic, got, model(topic));
			tried++;
		}
	}
	cr_expect_eq(tried, 1 + 9 + 81 + 729 + 6561 + 59049);
}
