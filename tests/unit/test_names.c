/*
 * File system names: the rules row by row, then every promise of the header for random ids, most of
 * them hostile, and no two names equal.
 */
#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "names.h"
#include "utf8.h"

static void expect_id(const char *id, size_t id_bytes, const char *expected)
{
	char name[NAMES_ID_MAX + 1];

	names_escape_id(id, id_bytes, name);
	cr_expect_str_eq(name, expected);
}

static void expect_file(const char *in, const char *expected)
{
	char name[NAMES_FILE_MAX + 1];

	names_escape_file(in, strlen(in), name);
	cr_expect_str_eq(name, expected);
}

Test(names, ids)
{
	static const char *const rows[][2] = {{"abcXYZ019_-", "abcXYZ019_-"}, {".", "%2E"},
		{"..", "%2E."}, {".a.b", "%2Ea.b"},
		{"../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"}, {"a/b", "a%2Fb"},
		{"a\\b", "a%5Cb"}, {"a:b", "a%3Ab"}, {"a~2", "a%7E2"}, {"a%2Fb", "a%252Fb"},
		{" ", "%20"}, {"a;rm -rf *", "a%3Brm%20-rf%20%2A"}, {"\x01\x7f\n", "%01%7F%0A"},
		{"\xc3\xa9\xf0\x9f\x98\x80", "\xc3\xa9\xf0\x9f\x98\x80"}, {"\xffz", "%FFz"},
		{"\xc3", "%C3"}, {"\xed\xa0\x80", "%ED%A0%80"}, {"$file", "%24file"},
		{"+#", "%2B%23"}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		expect_id(rows[i][0], strlen(rows[i][0]), rows[i][1]);
	expect_id("", 0, "%");
	expect_id("a\0b", 3, "a%00b");
}

Test(names, long_ids)
{
	char id[1024], name[NAMES_ID_MAX + 1], again[NAMES_ID_MAX + 1];

	memset(id, 'a', sizeof(id));
	names_escape_id(id, 200, name);
	cr_expect_eq(strlen(name), 200);
	cr_expect_null(strchr(name, '~'));
	names_escape_id(id, 201, name);
	cr_expect_eq(strlen(name), 200);
	cr_expect_eq(strchr(name, '~') - name, 167);
	cr_expect_eq(strspn(name + 168, "0123456789abcdef"), 32);
	/* The digits are the beginning of the SHA-256 of 201 times "a". */
	cr_expect_str_eq(name + 168, "a92efd82109373e58f9a2056dee01e80");
	names_escape_id(id, 202, again);
	cr_expect_str_neq(name, again);
	cr_expect(memcmp(name, again, 168) == 0);
	/* A cut falls in front of a character, and of an escape, not into it. */
	for (int shift = 0; shift < 4; shift++) {
		memset(id, 'a', sizeof(id));
		for (int i = 0; i < 100; i++)
			memcpy(id + shift + 4 * i, "\xf0\x9f\x98\x80", 4);
		names_escape_id(id, 400, name);
		cr_expect(utf8_mqtt_ok(name, strlen(name)));
		cr_expect_eq((strchr(name, '~') - name) % 4, shift);
		memset(id, '/', sizeof(id));
		memset(id, 'a', (size_t)shift);
		names_escape_id(id, 400, name);
		cr_expect_eq((strchr(name, '~') - name) % 3, shift % 3);
	}
}

Test(names, files)
{
	expect_file("a.txt", "a.txt");
	expect_file(".hidden", "%2Ehidden");
	expect_file("...", "%2E..");
	expect_file("100%", "100%25");
	expect_file("%2E", "%252E");
	expect_file("a b~1;*?\"<>|", "a b~1;*?\"<>|");
	expect_file("\xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x98\x80",
		"\xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x98\x80");
	/* Refused long before; if one came all the same, it would stay in its directory. */
	expect_file("", "%");
	expect_file("..", "%2E.");
	expect_file("/etc/passwd", "%2Fetc%2Fpasswd");
	expect_file("a\nb\x7f", "a%0Ab%7F");

	char name[240], out[NAMES_FILE_MAX + 1];
	memset(name, 'n', sizeof(name));
	names_escape_file(name, 240, out);
	cr_expect_eq(strlen(out), 240);
	memset(name, '%', sizeof(name));
	names_escape_file(name, 85, out);
	cr_expect_eq(strlen(out), 255);
	cr_expect_null(strchr(out, '~'));
	names_escape_file(name, 86, out);
	cr_expect_eq(strchr(out, '~') - out, 237);
	cr_expect_eq(strlen(out), 237 + 17);
}

/* What emqx_ft_fs_util:escape_filename makes of ids; file names it leaves alone. */
Test(names, as_emqx)
{
	static const struct {
		const char *in, *id, *file;
	} rows[] = {
		{"a", "a", "a"},
		{".hidden", ".hidden", ".hidden"},
		{"...", "...", "..."},
		{".", "%2E", "%2E"},
		{"..", "%2E%2E", "%2E%2E"},
		{"a~2", "a~2", "a~2"},
		{" a b;*?\"<>|", " a b;*?\"<>|", " a b;*?\"<>|"},
		{"100%", "100%25", "100%"},
		{"c:\\x/y", "c%3A%5Cx%2Fy", "c%3A%5Cx%2Fy"},
		{"a\nb\x7f", "a%0Ab%7F", "a%0Ab%7F"},
		{"\xc2\x85\xc2\xa0", "%C2%85\xc2\xa0", "%C2%85\xc2\xa0"},
		{"\xef\xbf\xbe\xef\xbf\xbd", "%EF%BF%BE\xef\xbf\xbd", "%EF%BF%BE\xef\xbf\xbd"},
		{"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
		{"", "%", "%"},
	};
	char id[NAMES_ID_MAX + 1], file[NAMES_FILE_MAX + 1];
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		names_escape_id_emqx(rows[i].in, strlen(rows[i].in), id);
		names_escape_file_emqx(rows[i].in, strlen(rows[i].in), file);
		cr_expect_str_eq(id, rows[i].id);
		cr_expect_str_eq(file, rows[i].file);
	}
	char longer[300];
	memset(longer, '.', sizeof(longer));
	names_escape_id_emqx(longer, sizeof(longer), id);
	cr_expect_eq(strlen(id), NAMES_ID_MAX);
	cr_expect_eq(id[NAMES_ID_MAX - 33], '~');
}

Test(names, staging)
{
	char a[NAMES_STAGING_MAX + 1], b[NAMES_STAGING_MAX + 1];

	names_staging(7, "Client", 6, "F/1", 3, 2, a);
	cr_expect(strncmp(a, "e7-client-f%2f1-", 16) == 0, "%s", a);
	cr_expect_eq(strlen(a), 16 + 32 + 2);
	cr_expect_str_eq(a + 16 + 32, "-2");
	/* Only the case differs, only the border between the ids, only the bytes behind the cut. */
	names_staging(7, "client", 6, "F/1", 3, 2, b);
	cr_expect_str_neq(a, b);
	names_staging(1, "ab", 2, "c", 1, 0, a);
	names_staging(1, "a", 1, "bc", 2, 0, b);
	cr_expect(memcmp(a + 8, b + 8, 32) != 0);
	char id[1000];
	memset(id, 0xff, sizeof(id));
	names_staging(UINT64_MAX, id, 999, id, 1000, UINT32_MAX, a);
	names_staging(UINT64_MAX, id, 1000, id, 999, UINT32_MAX, b);
	cr_expect_str_neq(a, b);
	cr_expect_leq(strlen(a), 147);
}

static unsigned random_state = 11;

static size_t random_id(char *id, size_t max)
{
	static const char *const pieces[] = {"/", "..", ".", "%", "~", "%2F", "a", "A", "\xc3\xa9",
		"\xff", "\0", "\xf0\x9f\x98\x80", "-", "-e", "1", ":", "\\", "\n"};
	size_t bytes = 0,
	       count = 1 + (size_t)rand_r(&random_state) % (rand_r(&random_state) % 4 ? 6 : 150);

	for (size_t i = 0; i < count && bytes + 4 < max; i++) {
		size_t which = (size_t)rand_r(&random_state) % (sizeof(pieces) / sizeof(*pieces));
		size_t piece = which == 10 ? 1 : strlen(pieces[which]);
		memcpy(id + bytes, pieces[which], piece);
		bytes += piece;
	}
	return bytes;
}

static void expect_component(const char *name, size_t max)
{
	cr_assert(*name && *name != '.' && !strchr(name, '/'), "%s", name);
	cr_assert_leq(strlen(name), max);
	cr_assert(utf8_mqtt_ok(name, strlen(name)), "%s", name);
}

struct named {
	char name[NAMES_STAGING_MAX + 1];
	char id[1024];
	size_t id_bytes;
};

static int named_compare(const void *a, const void *b)
{
	return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

/* Equal names, equal ids. */
static void expect_injective(struct named *all, size_t count)
{
	qsort(all, count, sizeof(*all), named_compare);
	for (size_t i = 1; i < count; i++) {
		if (strcmp(all[i - 1].name, all[i].name) != 0)
			continue;
		cr_assert(all[i - 1].id_bytes == all[i].id_bytes &&
				  memcmp(all[i - 1].id, all[i].id, all[i].id_bytes) == 0,
			"two ids are %s", all[i].name);
	}
}

Test(names, random_ids)
{
	enum { COUNT = 5000 };
	struct named *ids = calloc(COUNT, sizeof(*ids)), *staging = calloc(COUNT, sizeof(*staging));

	for (int i = 0; i < COUNT; i++) {
		struct named *n = &ids[i], *s = &staging[i];
		char file[NAMES_FILE_MAX + 1];
		n->id_bytes = random_id(n->id, sizeof(n->id));
		names_escape_id(n->id, n->id_bytes, n->name);
		expect_component(n->name, NAMES_ID_MAX);
		names_escape_file(n->id, n->id_bytes, file);
		expect_component(file, NAMES_FILE_MAX);
		/* Split anywhere: the id of the pair is the place and the bytes. */
		size_t split = (size_t)rand_r(&random_state) % (n->id_bytes + 1);
		names_staging(1, n->id, split, n->id + split, n->id_bytes - split, 1, s->name);
		expect_component(s->name, NAMES_STAGING_MAX);
		for (const char *c = s->name; *c; c++)
			cr_assert(
				(signed char)*c > 0 && !isupper((unsigned char)*c), "%s", s->name);
		s->id_bytes = (size_t)snprintf(s->id, 16, "%zu,", split);
		memcpy(s->id + s->id_bytes, n->id, n->id_bytes < 1000 ? n->id_bytes : 1000);
		s->id_bytes += n->id_bytes < 1000 ? n->id_bytes : 1000;
	}
	expect_injective(ids, COUNT);
	expect_injective(staging, COUNT);
	free(ids);
	free(staging);
}
