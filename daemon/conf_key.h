/*
 * Inside the configuration: the table of keys and what conf.c, conf_values.c, conf_scan.c and
 * conf_file.c share. Nothing else includes this but their tests.
 */
#ifndef SLUICE_CONF_KEY_H
#define SLUICE_CONF_KEY_H

#include <stddef.h>
#include "conf.h"

enum {
	CONF_KEYS_MAX = 128,               /* lines of the table */
	CONF_FILE_BYTES_MAX = 1024 * 1024, /* a larger file is refused before it is parsed */
	CONF_PATH_BYTES_MAX = 64,          /* of "section.key", with its NUL */
	CONF_MARKS_MAX = 256,              /* keys and sections one file can name */
	CONF_ITEMS_MAX = 1024,             /* items one list of a file can have */
	CONF_STRING_BYTES_MAX = 4096,      /* of one string value, with its NUL */
	CONF_TEXT_BYTES_MAX = 32,          /* of a formatted size or time, with its NUL */
};

enum conf_type {
	CONF_STRING,  /* char *, never NULL, never empty */
	CONF_OPTION,  /* char *, NULL when the text is empty */
	CONF_COUNT,   /* uint32_t; words[0], if there is one, stands for 0, and "0" is not taken */
	CONF_SIZE32,  /* uint32_t, bytes */
	CONF_SIZE64,  /* uint64_t, bytes */
	CONF_SECONDS, /* uint32_t; min and max in seconds */
	CONF_MILLIS,  /* uint32_t; min and max in milliseconds */
	CONF_WORD,    /* an enum: the index in words */
	CONF_BOOL,    /* bool */
	CONF_MODE,    /* uint32_t, octal permission bits; those of min must be there */
	CONF_LIST,    /* char *[max], their number at count_offset; min is the least number */
};

struct conf_key {
	const char *path;         /* "key" or "section.key"; those of a section stand together */
	const char *text;         /* the default as in a file; of a list: items by commas */
	enum conf_type type;
	uint16_t offset;          /* of the member in struct conf */
	uint16_t count_offset;    /* CONF_LIST: of its uint32_t count */
	uint64_t min, max;        /* inclusive */
	const char *const *words; /* CONF_WORD and CONF_COUNT, NULL-terminated */
	const char *item_form;    /* what item_valid wants, for messages */
	bool (*item_valid)(const char *item); /* CONF_LIST: or NULL for any text */
};

extern const struct conf_key conf_keys[];
extern const size_t conf_keys_count;

/* The key of that path, or NULL. */
const struct conf_key *conf_key_find(const char *path, size_t path_bytes);
/* True when name (a path without its last level) is a section of the table. */
bool conf_section_known(const char *name);
/* The key that looks most like path, or NULL when none is near: for "did you mean". */
const struct conf_key *conf_key_nearest(const char *path);

/* Where an error is reported: "name:line: " (line 0: "name: ") goes before the sentence. */
struct conf_place {
	const char *name;
	unsigned line;
	char *error;
	size_t error_max;
};

/* Writes the sentence, control characters replaced, and returns −EINVAL. */
int conf_fail(const struct conf_place *place, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Parses text into the key's member. A list takes its items apart (conf_key_set_items) instead. */
int conf_key_set(struct conf *c, const struct conf_key *key, const char *text,
	const struct conf_place *place);
int conf_key_set_items(struct conf *c, const struct conf_key *key, char *const *items,
	uint32_t items_count, const struct conf_place *place);
bool conf_key_equal(const struct conf *a, const struct conf *b, const struct conf_key *key);
void conf_key_print(const struct conf *c, const struct conf_key *key, FILE *to);
void conf_key_clear(
	struct conf *c, const struct conf_key *key); /* frees what it owns, idempotent */

/* "64MiB", "512", "1TiB": bytes; B, KiB, MiB, GiB, TiB. 0, −EINVAL for another form, −ERANGE for
 * 2^64 and more. */
int conf_size_parse(const char *text, uint64_t *ret_bytes);
/* "500ms", "30s", "5m", "24h", "7d", and "0": milliseconds. Errors as above. */
int conf_time_parse(const char *text, uint64_t *ret_ms);
/* Decimal digits alone. Errors as above. */
int conf_count_parse(const char *text, uint64_t *ret_count);
/* The shortest form that the parsers above take, exactly the same value. */
void conf_size_format(uint64_t bytes, char ret_text[CONF_TEXT_BYTES_MAX]);
void conf_time_format(uint64_t ms, char ret_text[CONF_TEXT_BYTES_MAX]);
/* An item of `listen`: "a.b.c.d:port" or "[v6]:port", addresses numeric, port 0–65535; then
 * options, each once and with one space before it: "durability=crash" or "durability=power". What
 * is not said stays in *ret, which may be partly changed when false is returned. */
bool conf_listen_parse(const char *text, struct conf_listener *ret);
bool conf_listen_valid(const char *text);

/* What conf_scan found: each key and section of the file in its order. */
enum conf_shape { CONF_SCALAR, CONF_SEQUENCE, CONF_MAPPING };
struct conf_mark {
	char path[CONF_PATH_BYTES_MAX];
	unsigned line;
	enum conf_shape shape;
};
struct conf_marks {
	struct conf_mark at[CONF_MARKS_MAX];
	unsigned count;
};

/* Walks the YAML events and refuses what must never reach the loader; see conf_scan.c. place->line
 * is overwritten. 0 or −EINVAL with the sentence. */
int conf_scan_text(const char *text, size_t text_bytes, struct conf_place *place,
	struct conf_marks *ret_marks);

#endif
