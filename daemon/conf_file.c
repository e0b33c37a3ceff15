/*
 * A configuration file: read, scanned (conf_scan.c), loaded by libcyaml, then set key by key.
 *
 * libcyaml is given a schema made from the table in which every value is text or a list of texts,
 * all of them optional: it decides which keys and shapes exist. The values themselves are parsed by
 * conf_key.c, since sizes and times have no counterpart in a schema. libcyaml's errors don't tell
 * the line of the key at fault, so the sentence is made from the marks of the scan, which know
 * every key's line and shape.
 */
#include <assert.h>
#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "conf_key.h"

enum { SECTIONS_MAX = 16 };

/* What libcyaml fills: text or list per key, in the order of the table, NULL where the file says
 * nothing. */
struct raw {
	struct raw_value {
		char *text;
		char **items;
		uint32_t items_count;
	} at[CONF_KEYS_MAX];
};

struct schema {
	cyaml_schema_value_t root;
	cyaml_schema_field_t root_fields[CONF_KEYS_MAX + 1];
	/* Each section's fields in turn, each run ended by a NULL key. */
	cyaml_schema_field_t fields[CONF_KEYS_MAX + SECTIONS_MAX];
	char sections[SECTIONS_MAX][CONF_PATH_BYTES_MAX];
};

static const cyaml_schema_value_t item_schema = {
	CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, CYAML_UNLIMITED),
};

static cyaml_schema_field_t field_of(size_t key_idx, const char *name)
{
	uint32_t base = key_idx * sizeof(struct raw_value);

	if (conf_keys[key_idx].type == CONF_LIST) {
		return (cyaml_schema_field_t){
			.key = name,
			.data_offset = base + offsetof(struct raw_value, items),
			.count_offset = base + offsetof(struct raw_value, items_count),
			.count_size = sizeof(uint32_t),
			.value = {CYAML_VALUE_SEQUENCE(CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
				char *, &item_schema, 0, CYAML_UNLIMITED)},
		};
	}
	return (cyaml_schema_field_t){
		.key = name,
		.data_offset = base + offsetof(struct raw_value, text),
		.value = {CYAML_VALUE_STRING(
			CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, char *, 0, CYAML_UNLIMITED)},
	};
}

/* A section has no struct of its own: its mapping lies at offset 0 of the same raw. */
static void schema_init(struct schema *s)
{
	cyaml_schema_field_t *root_field = s->root_fields, *field = s->fields;
	unsigned sections_count = 0;

	memset(s, 0, sizeof(*s));
	for (size_t i = 0; i < conf_keys_count; i++) {
		const char *path = conf_keys[i].path, *dot = strchr(path, '.');
		char *section;

		if (!dot) {
			*root_field++ = field_of(i, path);
			continue;
		}
		section = sections_count ? s->sections[sections_count - 1] : NULL;
		if (!section || strncmp(section, path, dot - path) || section[dot - path]) {
			assert(sections_count < SECTIONS_MAX);
			section = s->sections[sections_count++];
			memcpy(section, path, dot - path);
			field += field !=
				 s->fields; /* leaves the NULL key that ends the run before */
			*root_field++ = (cyaml_schema_field_t){
				.key = section,
				.value = {CYAML_VALUE_MAPPING(
					CYAML_FLAG_OPTIONAL, struct raw, field)},
			};
		}
		*field++ = field_of(i, dot + 1);
	}
	s->root = (cyaml_schema_value_t){
		CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw, s->root_fields)};
}

static int fail_unknown(const char *path, const struct conf_place *place)
{
	const struct conf_key *nearest = conf_key_nearest(path);

	if (nearest)
		return conf_fail(place, "%s is no key; did you mean %s?", path, nearest->path);
	return conf_fail(place,
		"%s is no key; remove it, or see sluiced.yaml(5) for the keys there are.", path);
}

/* The first mark that is not what the table has there; 0 when all agree. */
static int blame_mark(const struct conf_marks *marks, struct conf_place *place)
{
	for (unsigned i = 0; i < marks->count; i++) {
		const struct conf_mark *mark = &marks->at[i];
		const struct conf_key *key = conf_key_find(mark->path, strlen(mark->path));

		place->line = mark->line;
		if (!key && !conf_section_known(mark->path))
			return fail_unknown(mark->path, place);
		if (!key && mark->shape != CONF_MAPPING)
			return conf_fail(place,
				"%s is a section; write its keys indented beneath it.", mark->path);
		if (key && mark->shape == CONF_MAPPING)
			return conf_fail(
				place, "%s takes no keys beneath it; write one value.", mark->path);
		if (key && key->type == CONF_LIST && mark->shape != CONF_SEQUENCE)
			return conf_fail(place, "%s takes a list; write [a, b], or [] for none.",
				mark->path);
		if (key && key->type != CONF_LIST && mark->shape == CONF_SEQUENCE)
			return conf_fail(place,
				"%s takes one value, not a list; write it without brackets.",
				mark->path);
	}
	place->line = 0;
	return 0;
}

static int set_from_raw(struct conf *c, const struct raw *raw, const struct conf_marks *marks,
	struct conf_place *place)
{
	for (unsigned i = 0; i < marks->count; i++) {
		const struct conf_mark *mark = &marks->at[i];
		const struct conf_key *key = conf_key_find(mark->path, strlen(mark->path));
		const struct raw_value *value;
		int err;

		if (!key)
			continue;
		place->line = mark->line;
		value = &raw->at[key - conf_keys];
		if (key->type == CONF_LIST)
			err = conf_key_set_items(c, key, value->items, value->items_count, place);
		else
			err = conf_key_set(c, key, value->text, place);
		if (err)
			return err;
	}
	return 0;
}

int conf_load_text(struct conf *c, const char *name, const char *text, size_t text_bytes,
	char *ret_error, size_t error_max)
{
	struct conf_place place = {.name = name, .error = ret_error, .error_max = error_max};
	const cyaml_config_t cyaml = {.mem_fn = cyaml_mem, .flags = CYAML_CFG_NO_ALIAS};
	struct conf_marks marks;
	struct schema schema;
	struct raw *raw = NULL;
	cyaml_err_t status;
	int err;

	if (text_bytes > CONF_FILE_BYTES_MAX)
		return conf_fail(&place,
			"larger than 1MiB; it can't be a configuration, name another file.");
	err = conf_scan_text(text, text_bytes, &place, &marks);
	if (err || !marks.count)
		return err;
	schema_init(&schema);
	status = cyaml_load_data((const uint8_t *)text, text_bytes, &cyaml, &schema.root,
		(cyaml_data_t **)&raw, NULL);
	if (status != CYAML_OK) {
		err = blame_mark(&marks, &place);
		return err ? err
			   : conf_fail(&place, "libcyaml can't load it (%s); simplify the file.",
				     cyaml_strerror(status));
	}
	err = set_from_raw(c, raw, &marks, &place);
	cyaml_free(&cyaml, &schema.root, raw, 0);
	return err;
}

int conf_load_file(struct conf *c, const char *path, char *ret_error, size_t error_max)
{
	struct conf_place place = {.name = path, .error = ret_error, .error_max = error_max};
	FILE *file = fopen(path, "re");
	char *text = NULL;
	size_t bytes;
	int err;

	if (!file)
		return conf_fail(&place,
			"can't be opened (%s); correct the path or its permissions.",
			strerror(errno));
	/* One byte more than allowed shows a file that is too large without reading all of it. */
	text = malloc(CONF_FILE_BYTES_MAX + 1);
	if (!text) {
		err = conf_fail(&place, "out of memory; free some and start again.");
		goto out;
	}
	bytes = fread(text, 1, CONF_FILE_BYTES_MAX + 1, file);
	if (ferror(file)) {
		err = conf_fail(
			&place, "can't be read (%s); name a readable file.", strerror(errno));
		goto out;
	}
	err = conf_load_text(c, path, text, bytes, ret_error, error_max);
out:
	free(text);
	fclose(file);
	return err;
}
