/*
 * The first of two passes over a configuration file: libyaml's events, before libcyaml loads
 * anything.
 *
 * libcyaml checks types and unknown keys, but its errors carry the line of the enclosing mapping
 * (or of the first of two equal keys), syntax errors carry none, everything behind the first
 * document is ignored, and a NUL inside a string silently ends it. So this pass records the line of
 * every key and refuses:
 *
 *   anchors and aliases (a small file could expand to gigabytes), tags, several documents, a key
 * given twice, a key without a value or with null, a NUL in a scalar, nesting that no key has, too
 * many keys or items.
 *
 * What passes is at most a mapping of scalars, lists of scalars, and sections of those, so the
 * loader's work and memory are bounded by the size of the file. Which keys exist is not decided
 * here.
 */
#include <errno.h>
#include <string.h>
#include <yaml.h>
#include "conf_key.h"

struct scan {
	struct conf_place *place;
	struct conf_marks *marks;
	struct conf_mark *key;  /* the key whose value comes next, else NULL */
	struct conf_mark *list; /* the list we are in, else NULL */
	const char *section;    /* path of the section we are in, else NULL; points into marks */
	unsigned documents;
	unsigned items;
	bool in_root;
};

static unsigned line_of(yaml_mark_t mark)
{
	return (unsigned)mark.line + 1;
}

/* A key or a scalar as a message can show it: NUL-terminated, cut by the format. */
static const char *text_of(const yaml_event_t *event)
{
	return (const char *)event->data.scalar.value;
}

static int scan_key(struct scan *s, const yaml_event_t *event)
{
	struct conf_marks *marks = s->marks;
	struct conf_mark *mark = &marks->at[marks->count];
	const char *name = text_of(event);
	int bytes;

	if (strchr(name, '.'))
		return conf_fail(s->place,
			"\"%.60s\" is no key; in a file a section is a mapping: write its "
			"name and a colon, and the key indented beneath it.",
			name);
	if (marks->count == CONF_MARKS_MAX)
		return conf_fail(
			s->place, "more than %d keys; there are not that many.", CONF_MARKS_MAX);
	bytes = snprintf(mark->path, sizeof(mark->path), "%s%s%s", s->section ? s->section : "",
		s->section ? "." : "", name);
	if (bytes >= (int)sizeof(mark->path))
		return conf_fail(s->place, "\"%.60s...\" is no key; see sluiced.yaml(5).", name);
	for (unsigned i = 0; i < marks->count; i++) {
		if (!strcmp(marks->at[i].path, mark->path))
			return conf_fail(s->place,
				"%s is given a second time, after line %u; "
				"remove one of the two.",
				mark->path, marks->at[i].line);
	}
	mark->line = s->place->line;
	s->key = mark;
	marks->count++;
	return 0;
}

/* YAML's null: an empty plain scalar, or one of these words without quotes. */
static bool is_null(const yaml_event_t *event)
{
	const char *text = text_of(event);

	return event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
	       (!*text || !strcmp(text, "~") || !strcmp(text, "null") || !strcmp(text, "Null") ||
		       !strcmp(text, "NULL"));
}

static int scan_scalar(struct scan *s, const yaml_event_t *event)
{
	const char *path = s->list ? s->list->path : s->key ? s->key->path : NULL;

	if (event->data.scalar.anchor || event->data.scalar.tag)
		return conf_fail(s->place,
			"anchors, aliases and tags are not taken; write the value itself.");
	if (memchr(text_of(event), '\0', event->data.scalar.length))
		return conf_fail(s->place, "a NUL character; remove it.");
	/* A document without content is one empty scalar: comments alone, or "---". */
	if (!s->in_root)
		return is_null(event) ? 0
				      : conf_fail(s->place,
						"\"%.60s\" is no mapping; write "
						"\"key: value\" lines.",
						text_of(event));
	if (!path)
		return scan_key(s, event);
	if (is_null(event))
		return conf_fail(s->place,
			"%s has no value; give it one, or remove it to get the default.", path);
	if (s->list) {
		if (s->items++ == CONF_ITEMS_MAX)
			return conf_fail(s->place, "%s has more than %d items; shorten the list.",
				path, CONF_ITEMS_MAX);
		return 0;
	}
	s->key->shape = CONF_SCALAR;
	s->key = NULL;
	return 0;
}

static int scan_mapping(struct scan *s, const yaml_event_t *event)
{
	if (event->data.mapping_start.anchor || event->data.mapping_start.tag)
		return conf_fail(s->place,
			"anchors, aliases and tags are not taken; write the value itself.");
	if (!s->in_root) {
		s->in_root = true;
		return 0;
	}
	if (!s->key && !s->list)
		return conf_fail(s->place, "a mapping can't be a key; write \"key: value\" lines.");
	if (s->list || s->section)
		return conf_fail(s->place, "%s takes no keys beneath it; see sluiced.yaml(5).",
			s->list ? s->list->path : s->key->path);
	s->key->shape = CONF_MAPPING;
	s->section = s->key->path;
	s->key = NULL;
	return 0;
}

static int scan_sequence(struct scan *s, const yaml_event_t *event)
{
	if (event->data.sequence_start.anchor || event->data.sequence_start.tag)
		return conf_fail(s->place,
			"anchors, aliases and tags are not taken; write the value itself.");
	if (!s->key)
		return conf_fail(s->place, "a list where none can be; write \"key: value\" lines.");
	s->key->shape = CONF_SEQUENCE;
	s->list = s->key;
	s->key = NULL;
	s->items = 0;
	return 0;
}

static int scan_event(struct scan *s, const yaml_event_t *event)
{
	s->place->line = line_of(event->start_mark);
	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (s->documents++)
			return conf_fail(
				s->place, "a second document begins; keep one, without \"---\".");
		return 0;
	case YAML_ALIAS_EVENT:
		return conf_fail(s->place,
			"anchors, aliases and tags are not taken; write the value itself.");
	case YAML_SCALAR_EVENT:
		return scan_scalar(s, event);
	case YAML_MAPPING_START_EVENT:
		return scan_mapping(s, event);
	case YAML_SEQUENCE_START_EVENT:
		return scan_sequence(s, event);
	case YAML_SEQUENCE_END_EVENT:
		s->list = NULL;
		return 0;
	case YAML_MAPPING_END_EVENT:
		/* The end of the root leaves no section either; nothing but the document's end
		 * follows it. */
		s->section = NULL;
		return 0;
	case YAML_DOCUMENT_END_EVENT:
	case YAML_STREAM_START_EVENT:
	case YAML_STREAM_END_EVENT:
	case YAML_NO_EVENT:
		return 0;
	}
	return 0;
}

/* The reader knows only the byte at which it stopped; the scanner and the parser know the line. */
static int scan_syntax_error(
	struct scan *s, const yaml_parser_t *parser, const char *text, size_t text_bytes)
{
	const char *problem = parser->problem ? parser->problem : "out of memory";

	s->place->line = line_of(parser->problem_mark);
	if (parser->error == YAML_READER_ERROR) {
		s->place->line = 1;
		for (size_t i = 0; i < parser->problem_offset && i < text_bytes; i++)
			s->place->line += text[i] == '\n';
	}
	return conf_fail(s->place, "this is not YAML: %s; correct the line.", problem);
}

int conf_scan_text(
	const char *text, size_t text_bytes, struct conf_place *place, struct conf_marks *ret_marks)
{
	struct scan s = {.place = place, .marks = ret_marks};
	yaml_parser_t parser;
	bool end = false;
	int err = 0;

	ret_marks->count = 0;
	place->line = 0;
	if (!yaml_parser_initialize(&parser))
		return conf_fail(place, "out of memory; free some and start again.");
	/* Without this a byte order mark could choose UTF-16, and a text means one thing only. */
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, text_bytes);
	while (!err && !end) {
		yaml_event_t event;

		if (!yaml_parser_parse(&parser, &event)) {
			err = scan_syntax_error(&s, &parser, text, text_bytes);
			break;
		}
		end = event.type == YAML_STREAM_END_EVENT;
		err = scan_event(&s, &event);
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&parser);
	return err;
}
