/*
 * One key of the configuration: text to member, member to text. The table says where and how; here
 * is what each type means, and the sentences for values that don't fit.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "conf_key.h"

/* The members by their type; conf_table.c checks that the types are these. */
static void *member_of(const struct conf *c, const struct conf_key *key)
{
	return (char *)c + key->offset;
}

static uint32_t *count_of(const struct conf *c, const struct conf_key *key)
{
	return (uint32_t *)((char *)c + key->count_offset);
}

int conf_fail(const struct conf_place *place, const char *format, ...)
{
	size_t max = place->error_max;
	char *text = place->error;
	va_list args;
	int bytes;

	if (!max)
		return -EINVAL;
	if (place->line)
		bytes = snprintf(text, max, "%s:%u: ", place->name, place->line);
	else
		bytes = snprintf(text, max, "%s: ", place->name);
	va_start(args, format);
	if (bytes >= 0 && (size_t)bytes < max)
		vsnprintf(text + bytes, max - bytes, format, args);
	va_end(args);
	/* The text of a file may hold anything; the sentence is to stay one line of a terminal. */
	for (unsigned char *p = (unsigned char *)text; *p; p++) {
		if (*p < ' ' || *p == 0x7f)
			*p = '?';
	}
	return -EINVAL;
}

static int fail_range(const struct conf_key *key, const char *text, const char *kind,
	const char *least, const char *most, const char *hint, const struct conf_place *place)
{
	return conf_fail(place, "%s is \"%.40s\"; it takes %s%s from %s to %s%s.", key->path, text,
		key->words ? "\"auto\" or " : "", kind, least, most, hint);
}

static int parse_count(const struct conf_key *key, const char *text, uint64_t *ret_value,
	const struct conf_place *place)
{
	char least[24], most[24];

	if (key->words && !strcmp(text, key->words[0])) {
		*ret_value = 0;
		return 0;
	}
	if (!conf_count_parse(text, ret_value) && *ret_value >= key->min && *ret_value <= key->max)
		return 0;
	snprintf(least, sizeof(least), "%" PRIu64, key->min);
	snprintf(most, sizeof(most), "%" PRIu64, key->max);
	return fail_range(key, text, "a whole number", least, most, "", place);
}

static int parse_size(const struct conf_key *key, const char *text, uint64_t *ret_value,
	const struct conf_place *place)
{
	char least[CONF_TEXT_BYTES_MAX], most[CONF_TEXT_BYTES_MAX];

	if (!conf_size_parse(text, ret_value) && *ret_value >= key->min && *ret_value <= key->max)
		return 0;
	conf_size_format(key->min, least);
	conf_size_format(key->max, most);
	return fail_range(
		key, text, "a size", least, most, ", in bytes or with KiB, MiB, GiB or TiB", place);
}

/* unit_ms is what the member counts in: 1 or 1000. */
static int parse_time(const struct conf_key *key, const char *text, unsigned unit_ms,
	uint64_t *ret_value, const struct conf_place *place)
{
	char least[CONF_TEXT_BYTES_MAX], most[CONF_TEXT_BYTES_MAX];
	uint64_t ms;

	if (!conf_time_parse(text, &ms) && ms % unit_ms == 0 && ms / unit_ms >= key->min &&
		ms / unit_ms <= key->max) {
		*ret_value = ms / unit_ms;
		return 0;
	}
	conf_time_format(key->min * unit_ms, least);
	conf_time_format(key->max * unit_ms, most);
	return fail_range(key, text, "a time", least, most,
		unit_ms == 1 ? ", with ms, s, m, h or d" : ", with s, m, h or d", place);
}

static int parse_mode(const struct conf_key *key, const char *text, uint64_t *ret_value,
	const struct conf_place *place)
{
	uint64_t mode = 0;
	size_t digits = 0;

	for (; text[digits] >= '0' && text[digits] <= '7' && digits < 4; digits++)
		mode = mode * 8 + (text[digits] - '0');
	if (digits < 3 || text[digits] || mode > key->max || (mode & key->min) != key->min)
		return conf_fail(place,
			"%s is \"%.40s\"; it takes an octal mode with at least %04o in "
			"it, such as %s.",
			key->path, text, (unsigned)key->min, key->text);
	*ret_value = mode;
	return 0;
}

static int parse_word(const struct conf_key *key, const char *text, uint64_t *ret_value,
	const struct conf_place *place)
{
	char list[128] = "";

	for (size_t i = 0; key->words[i]; i++) {
		size_t used = strlen(list);
		const char *separator;

		if (!strcmp(text, key->words[i])) {
			*ret_value = i;
			return 0;
		}
		separator = !i ? "" : key->words[i + 1] ? ", " : " or ";
		snprintf(list + used, sizeof(list) - used, "%s%s", separator, key->words[i]);
	}
	return conf_fail(place, "%s is \"%.40s\"; it takes %s.", key->path, text, list);
}

static int parse_bool(const struct conf_key *key, const char *text, uint64_t *ret_value,
	const struct conf_place *place)
{
	if (strcmp(text, "true") && strcmp(text, "false"))
		return conf_fail(
			place, "%s is \"%.40s\"; it takes true or false.", key->path, text);
	*ret_value = *text == 't';
	return 0;
}

static int set_string(struct conf *c, const struct conf_key *key, const char *text,
	const struct conf_place *place)
{
	char **member = member_of(c, key);
	char *copy = NULL;

	if (!*text && key->type == CONF_STRING)
		return conf_fail(place, "%s is empty; give it a value, or remove it to get %s.",
			key->path, key->text);
	if (strlen(text) >= CONF_STRING_BYTES_MAX)
		return conf_fail(place, "%s is longer than %d bytes; shorten it.", key->path,
			CONF_STRING_BYTES_MAX - 1);
	if (*text) {
		copy = strdup(text);
		if (!copy)
			return conf_fail(place, "out of memory; free some and start again.");
	}
	free(*member);
	*member = copy;
	return 0;
}

static int set_list_text(struct conf *c, const struct conf_key *key, const char *text,
	const struct conf_place *place)
{
	char *items[CONF_ITEMS_MAX], *copy, *rest, *item;
	uint32_t count = 0;
	int err;

	copy = rest = strdup(text);
	if (!copy)
		return conf_fail(place, "out of memory; free some and start again.");
	while (*text && (item = strsep(&rest, ",")) && count < CONF_ITEMS_MAX)
		items[count++] = item;
	err = conf_key_set_items(c, key, items, count, place);
	free(copy);
	return err;
}

static int parse_number(const struct conf_key *key, const char *text, uint64_t *ret_value,
	const struct conf_place *place)
{
	switch (key->type) {
	case CONF_COUNT:
		return parse_count(key, text, ret_value, place);
	case CONF_SIZE32:
	case CONF_SIZE64:
		return parse_size(key, text, ret_value, place);
	case CONF_SECONDS:
		return parse_time(key, text, 1000, ret_value, place);
	case CONF_MILLIS:
		return parse_time(key, text, 1, ret_value, place);
	case CONF_WORD:
		return parse_word(key, text, ret_value, place);
	case CONF_BOOL:
		return parse_bool(key, text, ret_value, place);
	case CONF_MODE:
		return parse_mode(key, text, ret_value, place);
	case CONF_STRING:
	case CONF_OPTION:
	case CONF_LIST:
		break;
	}
	__builtin_unreachable();
}

int conf_key_set(struct conf *c, const struct conf_key *key, const char *text,
	const struct conf_place *place)
{
	void *member = member_of(c, key);
	uint64_t value;
	int err;

	if (key->type == CONF_STRING || key->type == CONF_OPTION)
		return set_string(c, key, text, place);
	if (key->type == CONF_LIST)
		return set_list_text(c, key, text, place);
	err = parse_number(key, text, &value, place);
	if (err)
		return err;
	if (key->type == CONF_SIZE64)
		*(uint64_t *)member = value;
	else if (key->type == CONF_BOOL)
		*(bool *)member = value;
	else if (key->type == CONF_WORD)
		*(unsigned *)member = value;
	else
		*(uint32_t *)member = value;
	return 0;
}

static int check_item(const struct conf_key *key, const char *item, const struct conf_place *place)
{
	if (!*item || strlen(item) >= CONF_STRING_BYTES_MAX)
		return conf_fail(place,
			"%s has an item that is empty or longer than %d bytes; remove it.",
			key->path, CONF_STRING_BYTES_MAX - 1);
	if (key->item_valid && !key->item_valid(item))
		return conf_fail(
			place, "%s has \"%.80s\"; it takes %s.", key->path, item, key->item_form);
	return 0;
}

int conf_key_set_items(struct conf *c, const struct conf_key *key, char *const *items,
	uint32_t items_count, const struct conf_place *place)
{
	char **member = member_of(c, key);
	char *copies[CONF_ITEMS_MAX];
	uint32_t copies_count = 0;
	int err = 0;

	if (items_count < key->min || items_count > key->max)
		return conf_fail(place,
			"%s has %" PRIu32 " items; it takes from %" PRIu64 " to %" PRIu64 ".",
			key->path, items_count, key->min, key->max);
	while (!err && copies_count < items_count) {
		err = check_item(key, items[copies_count], place);
		if (err)
			break;
		copies[copies_count] = strdup(items[copies_count]);
		if (!copies[copies_count])
			err = conf_fail(place, "out of memory; free some and start again.");
		else
			copies_count++;
	}
	if (err) {
		while (copies_count)
			free(copies[--copies_count]);
		return err;
	}
	conf_key_clear(c, key);
	if (copies_count)
		memcpy(member, copies, copies_count * sizeof(*copies));
	*count_of(c, key) = copies_count;
	return 0;
}

void conf_key_clear(struct conf *c, const struct conf_key *key)
{
	char **member = member_of(c, key);

	if (key->type == CONF_STRING || key->type == CONF_OPTION) {
		free(*member);
		*member = NULL;
	} else if (key->type == CONF_LIST) {
		while (*count_of(c, key)) {
			uint32_t last = --*count_of(c, key);

			free(member[last]);
			member[last] = NULL;
		}
	}
}

static bool strings_equal(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

bool conf_key_equal(const struct conf *a, const struct conf *b, const struct conf_key *key)
{
	const void *member_a = member_of(a, key), *member_b = member_of(b, key);

	switch (key->type) {
	case CONF_STRING:
	case CONF_OPTION:
		return strings_equal(*(char *const *)member_a, *(char *const *)member_b);
	case CONF_LIST:
		if (*count_of(a, key) != *count_of(b, key))
			return false;
		for (uint32_t i = 0; i < *count_of(a, key); i++) {
			if (strcmp(((char *const *)member_a)[i], ((char *const *)member_b)[i]))
				return false;
		}
		return true;
	case CONF_BOOL:
		return *(const bool *)member_a == *(const bool *)member_b;
	case CONF_SIZE64:
		return *(const uint64_t *)member_a == *(const uint64_t *)member_b;
	case CONF_COUNT:
	case CONF_SIZE32:
	case CONF_SECONDS:
	case CONF_MILLIS:
	case CONF_WORD:
	case CONF_MODE:
		return *(const uint32_t *)member_a == *(const uint32_t *)member_b;
	}
	__builtin_unreachable();
}

/* Bytes of the character at p that YAML 1.1 takes for a line break beyond ASCII (U+0085, U+2028,
 * U+2029), and the letter of its escape; 0: it is none. */
static int line_break(const unsigned char *p, char *ret_letter)
{
	if (p[0] == 0xc2 && p[1] == 0x85) {
		*ret_letter = 'N';
		return 2;
	}
	if (p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9)) {
		*ret_letter = p[2] == 0xa8 ? 'L' : 'P';
		return 3;
	}
	return 0;
}

/* As YAML's double-quoted scalar, which can hold any text. */
static void print_quoted(const char *text, FILE *to)
{
	fputc('"', to);
	for (const unsigned char *p = (const unsigned char *)(text ? text : ""); *p; p++) {
		char letter;
		int bytes = line_break(p, &letter);
		if (bytes > 0) {
			fprintf(to, "\\%c", letter);
			p += bytes - 1;
		} else if (*p == '"' || *p == '\\')
			fprintf(to, "\\%c", *p);
		else if (*p < ' ' || *p == 0x7f)
			fprintf(to, "\\x%02x", *p);
		else
			fputc(*p, to);
	}
	fputc('"', to);
}

void conf_key_print(const struct conf *c, const struct conf_key *key, FILE *to)
{
	const void *member = member_of(c, key);
	char text[CONF_TEXT_BYTES_MAX];

	switch (key->type) {
	case CONF_STRING:
	case CONF_OPTION:
		print_quoted(*(char *const *)member, to);
		return;
	case CONF_LIST:
		fputc('[', to);
		for (uint32_t i = 0; i < *count_of(c, key); i++) {
			fputs(i ? ", " : "", to);
			print_quoted(((char *const *)member)[i], to);
		}
		fputc(']', to);
		return;
	case CONF_COUNT:
		if (key->words && !*(const uint32_t *)member)
			fputs(key->words[0], to);
		else
			fprintf(to, "%" PRIu32, *(const uint32_t *)member);
		return;
	case CONF_SIZE32:
		conf_size_format(*(const uint32_t *)member, text);
		break;
	case CONF_SIZE64:
		conf_size_format(*(const uint64_t *)member, text);
		break;
	case CONF_SECONDS:
		conf_time_format(*(const uint32_t *)member * 1000ull, text);
		break;
	case CONF_MILLIS:
		conf_time_format(*(const uint32_t *)member, text);
		break;
	case CONF_WORD:
		fputs(key->words[*(const unsigned *)member], to);
		return;
	case CONF_BOOL:
		fputs(*(const bool *)member ? "true" : "false", to);
		return;
	case CONF_MODE:
		fprintf(to, "\"%04" PRIo32 "\"", *(const uint32_t *)member);
		return;
	}
	fputs(text, to);
}
