/*
 * JSON that a peer sent: checked strictly, then read where it lies.
 *
 * cJSON would do for values, but not here: it turns every number into a double, ends a string at
 * \u0000, accepts what RFC 8259 forbids, and compares objects in quadratic time. This scanner
 * never copies: a value is the span of its bytes, so what must be kept verbatim can be, and
 * integers keep every digit.
 *
 * json_check() is the gate. All other functions take only spans that came out of it, or out of an
 * iterator over such a span, and can't fail on their syntax. Spans borrow from the checked text.
 */
#ifndef SLUICE_JSON_H
#define SLUICE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_kind {
	JSON_NULL,
	JSON_FALSE,
	JSON_TRUE,
	JSON_NUMBER,
	JSON_STRING,
	JSON_ARRAY,
	JSON_OBJECT,
};

struct json {
	enum json_kind kind;
	const char *text; /* the value's own bytes: with its quotes or brackets, no space around */
	size_t bytes;
};

/* Is this one JSON value (RFC 8259) with nothing but white space around it? True and *ret, or
 * false: also when arrays and objects nest deeper than depth_max, when the text is not valid UTF-8,
 * holds U+0000 unescaped, or escapes half a surrogate pair (such a string has no UTF-8). */
bool json_check(const char *text, size_t text_bytes, unsigned depth_max, struct json *ret);

struct json_iter {
	const char *at, *end;
	bool is_object;
};

/* Walks the elements of an array or the members of an object, in their order. */
void json_iter_init(struct json_iter *it, const struct json *container);
/* False at the end. ret_key is set for objects only (a JSON_STRING) and may be NULL. */
bool json_iter_next(struct json_iter *it, struct json *ret_key, struct json *ret_value);

/* Is the string's content this text? (Escapes in it are resolved first.) */
bool json_string_is(const struct json *string, const char *text);
/* Writes the string's content, escapes resolved, as UTF-8 without a NUL at the end (there may be
 * U+0000 in it). 0; −E2BIG when it is longer than buf_max, then buf holds its beginning. */
int json_string_decode(const struct json *string, char *buf, size_t buf_max, size_t *ret_bytes);

/* Are these the same value? Members of objects count in any order, of a repeated key the last;
 * numbers by their exact decimal value (1.0 is 1, 9007199254740993 is not 9007199254740992),
 * strings by their content. Also false when memory for sorting an object's members could not be
 * had. */
bool json_equal(const struct json *a, const struct json *b);

#endif
