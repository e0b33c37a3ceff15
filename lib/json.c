/*
 * A strict scanner over JSON text, and comparison of values. The contract is in json.h.
 *
 * One set of functions, scan_*, knows the grammar. json_check() runs it over the whole text; an
 * iterator runs it again over what it steps across, to find its end. A byte is therefore scanned
 * once per level that is walked into, at most depth_max times.
 *
 * Recursion is as deep as the nesting, which json_check() bounds before anything else recurses.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "json.h"
#include "utf8.h"

/* A cursor with a sticky error: at == NULL once the text broke the grammar. */
struct scan {
	const char *at, *end;
};

static void scan_value(struct scan *s, unsigned depth_left, enum json_kind *ret_kind);

static int peek(const struct scan *s)
{
	return s->at && s->at < s->end ? (unsigned char)*s->at : -1;
}

static bool accept(struct scan *s, int c)
{
	if (peek(s) != c)
		return false;
	s->at++;
	return true;
}

static void expect(struct scan *s, int c)
{
	if (!accept(s, c))
		s->at = NULL;
}

static void scan_space(struct scan *s)
{
	while (accept(s, ' ') || accept(s, '\t') || accept(s, '\n') || accept(s, '\r'))
		;
}

static void scan_word(struct scan *s, const char *word)
{
	while (*word)
		expect(s, *word++);
}

static bool is_digit(int c)
{
	return c >= '0' && c <= '9';
}

static void scan_digits(struct scan *s)
{
	if (!is_digit(peek(s)))
		s->at = NULL;
	while (is_digit(peek(s)))
		s->at++;
}

static void scan_number(struct scan *s)
{
	accept(s, '-');
	if (!accept(s, '0')) /* a leading zero stands alone */
		scan_digits(s);
	if (accept(s, '.'))
		scan_digits(s);
	if (accept(s, 'e') || accept(s, 'E')) {
		if (!accept(s, '+'))
			accept(s, '-');
		scan_digits(s);
	}
}

static int hex_value(int c)
{
	if (is_digit(c))
		return c - '0';
	if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
		return (c | 0x20) - 'a' + 10;
	return -1;
}

/* The four digits behind \u. */
static uint32_t scan_hex4(struct scan *s)
{
	uint32_t code = 0;

	for (int i = 0; i < 4; i++) {
		int digit = hex_value(peek(s));
		if (digit < 0) {
			s->at = NULL;
			return 0;
		}
		code = code << 4 | (uint32_t)digit;
		s->at++;
	}
	return code;
}

/* What is behind a backslash. */
static uint32_t scan_escape(struct scan *s)
{
	static const char letters[] = "\"\\/bfnrt", codes[] = "\"\\/\b\f\n\r\t";
	int c = peek(s);

	if (c > 0 && strchr(letters, c)) {
		s->at++;
		return (unsigned char)codes[strchr(letters, c) - letters];
	}
	expect(s, 'u');
	uint32_t code = scan_hex4(s);
	if (code < 0xd800 || code > 0xdfff)
		return code;
	scan_word(s, "\\u");
	uint32_t low = scan_hex4(s);
	if (code > 0xdbff || low < 0xdc00 || low > 0xdfff)
		s->at = NULL;
	return 0x10000 + ((code & 0x3ff) << 10) + (low & 0x3ff);
}

/* The next character of a string whose opening quote is behind us. False at the closing quote,
 * which is taken, and on an error. */
static bool scan_char(struct scan *s, uint32_t *ret_code)
{
	if (accept(s, '"'))
		return false;
	if (accept(s, '\\')) {
		*ret_code = scan_escape(s);
		return s->at != NULL;
	}
	unsigned bytes = peek(s) < 0x20 ? 0 : utf8_next(s->at, (size_t)(s->end - s->at), ret_code);
	s->at = bytes ? s->at + bytes : NULL;
	return bytes != 0;
}

static void scan_string(struct scan *s)
{
	uint32_t code;

	expect(s, '"');
	do {
		/* Most of most payloads is this: printable ASCII inside a string. */
		while (peek(s) >= 0x20 && peek(s) < 0x7f && *s->at != '"' && *s->at != '\\')
			s->at++;
	} while (scan_char(s, &code));
}

/* Behind the opening bracket, up to and with the closing one. */
static void scan_container(struct scan *s, unsigned depth_left, int close)
{
	enum json_kind kind;

	if (depth_left == 0)
		s->at = NULL;
	scan_space(s);
	if (accept(s, close))
		return;
	do {
		scan_space(s);
		if (close == '}') {
			scan_string(s);
			scan_space(s);
			expect(s, ':');
			scan_space(s);
		}
		scan_value(s, depth_left - 1, &kind);
		scan_space(s);
	} while (accept(s, ','));
	expect(s, close);
}

static void scan_value(struct scan *s, unsigned depth_left, enum json_kind *ret_kind)
{
	switch (peek(s)) {
	case '{':
		*ret_kind = JSON_OBJECT;
		s->at++;
		scan_container(s, depth_left, '}');
		break;
	case '[':
		*ret_kind = JSON_ARRAY;
		s->at++;
		scan_container(s, depth_left, ']');
		break;
	case '"':
		*ret_kind = JSON_STRING;
		scan_string(s);
		break;
	case 't':
		*ret_kind = JSON_TRUE;
		scan_word(s, "true");
		break;
	case 'f':
		*ret_kind = JSON_FALSE;
		scan_word(s, "false");
		break;
	case 'n':
		*ret_kind = JSON_NULL;
		scan_word(s, "null");
		break;
	default:
		*ret_kind = JSON_NUMBER;
		scan_number(s);
	}
}

bool json_check(const char *text, size_t text_bytes, unsigned depth_max, struct json *ret)
{
	struct json root;

	if (text_bytes == 0)
		return false; /* text may be NULL then */
	struct scan s = {text, text + text_bytes};
	scan_space(&s);
	root.text = s.at;
	scan_value(&s, depth_max, &root.kind);
	if (!s.at)
		return false;
	root.bytes = (size_t)(s.at - root.text);
	scan_space(&s);
	if (s.at != s.end)
		return false;
	*ret = root;
	return true;
}

void json_iter_init(struct json_iter *it, const struct json *container)
{
	assert(container->kind == JSON_ARRAY || container->kind == JSON_OBJECT);
	it->at = container->text + 1;
	it->end = container->text + container->bytes - 1;
	it->is_object = container->kind == JSON_OBJECT;
}

bool json_iter_next(struct json_iter *it, struct json *ret_key, struct json *ret_value)
{
	struct scan s = {it->at, it->end};

	scan_space(&s);
	accept(&s, ','); /* in front of all but the first, as json_check saw */
	scan_space(&s);
	if (s.at == s.end)
		return false;
	if (it->is_object) {
		const char *key = s.at;
		scan_string(&s);
		assert(s.at);
		if (ret_key)
			*ret_key = (struct json){JSON_STRING, key, (size_t)(s.at - key)};
		scan_space(&s);
		expect(&s, ':');
		scan_space(&s);
	}
	ret_value->text = s.at;
	scan_value(&s, UINT32_MAX, &ret_value->kind);
	assert(s.at);
	ret_value->bytes = (size_t)(s.at - ret_value->text);
	it->at = s.at;
	return true;
}

static struct scan string_begin(const struct json *string)
{
	assert(string->kind == JSON_STRING);
	return (struct scan){string->text + 1, string->text + string->bytes};
}

/* memcmp's order, but by code points. */
static int string_compare(const struct json *a, const struct json *b)
{
	struct scan sa = string_begin(a), sb = string_begin(b);

	for (;;) {
		uint32_t ca = 0, cb = 0;
		bool more_a = scan_char(&sa, &ca), more_b = scan_char(&sb, &cb);
		if (!more_a || !more_b)
			return (int)more_a - (int)more_b;
		if (ca != cb)
			return ca < cb ? -1 : 1;
	}
}

static unsigned utf8_put(uint32_t code, char ret[4])
{
	if (code < 0x80) {
		ret[0] = (char)code;
		return 1;
	}
	unsigned bytes = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
	static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
	for (unsigned i = bytes - 1; i > 0; i--, code >>= 6)
		ret[i] = (char)(0x80 | (code & 0x3f));
	ret[0] = (char)(lead[bytes] | code);
	return bytes;
}

int json_string_decode(const struct json *string, char *buf, size_t buf_max, size_t *ret_bytes)
{
	struct scan s = string_begin(string);
	size_t used = 0;
	uint32_t code;

	while (scan_char(&s, &code)) {
		char utf8[4];
		unsigned bytes = utf8_put(code, utf8);
		if (bytes > buf_max - used)
			return -E2BIG;
		memcpy(buf + used, utf8, bytes);
		used += bytes;
	}
	*ret_bytes = used;
	return 0;
}

bool json_string_is(const struct json *string, const char *text)
{
	struct scan s = string_begin(string);
	uint32_t code;

	while (scan_char(&s, &code)) {
		char utf8[4];
		unsigned bytes = utf8_put(code, utf8);
		if (strncmp(text, utf8, bytes) != 0 || code == 0)
			return false;
		text += bytes;
	}
	return *text == '\0';
}

/* A number as 0.d₁d₂d₃… × 10^exponent, where d₁ and the last digit are not 0. */
struct decimal {
	bool is_negative;
	const char *first, *end; /* the digits, perhaps with a point among them; equal: zero */
	int64_t exponent;
};

/* An exponent of more digits than this is far out of the reach of every mantissa that fits into a
 * payload; they count as one, so that the sum with the digits can't overflow. */
static const int64_t EXPONENT_MAX = INT64_C(1000000000000000);

static int64_t exponent_read(const char *at, const char *end)
{
	bool is_negative = at < end && *at == '-';
	int64_t n = 0;

	for (; at < end; at++)
		if (is_digit(*at) && n < EXPONENT_MAX)
			n = n * 10 + (*at - '0');
	if (n > EXPONENT_MAX)
		n = EXPONENT_MAX;
	return is_negative ? -n : n;
}

static struct decimal decimal_read(const struct json *number)
{
	const char *at = number->text, *end = at + number->bytes;
	struct decimal d = {.is_negative = *at == '-'};
	int64_t digits = 0, point = -1, first = 0;

	d.first = d.end = end;
	for (at += d.is_negative; at < end && (is_digit(*at) || *at == '.'); at++) {
		if (*at == '.') {
			point = digits;
			continue;
		}
		if (*at != '0') {
			if (d.first == end) {
				d.first = at;
				first = digits;
			}
			d.end = at + 1;
		}
		digits++;
	}
	if (d.first == end)
		return (struct decimal){false, end, end, 0}; /* −0 is 0 */
	d.exponent = (point < 0 ? digits : point) - first;
	if (at < end)
		d.exponent += exponent_read(at + 1, end);
	return d;
}

static bool number_equal(const struct json *a, const struct json *b)
{
	struct decimal da = decimal_read(a), db = decimal_read(b);

	if (da.is_negative != db.is_negative || da.exponent != db.exponent)
		return false;
	for (;;) {
		/* No number ends in a point here, so stepping over one never reaches the end. */
		da.first += da.first < da.end && *da.first == '.';
		db.first += db.first < db.end && *db.first == '.';
		if (da.first == da.end || db.first == db.end)
			return da.first == da.end && db.first == db.end;
		if (*da.first++ != *db.first++)
			return false;
	}
}

static bool array_equal(const struct json *a, const struct json *b)
{
	struct json_iter ia, ib;
	struct json va, vb;

	json_iter_init(&ia, a);
	json_iter_init(&ib, b);
	for (;;) {
		bool more_a = json_iter_next(&ia, NULL, &va);
		bool more_b = json_iter_next(&ib, NULL, &vb);
		if (!more_a || !more_b)
			return more_a == more_b;
		if (!json_equal(&va, &vb))
			return false;
	}
}

struct member {
	struct json key, value;
};

static int member_compare(const void *a, const void *b)
{
	const struct member *ma = a, *mb = b;
	int order = string_compare(&ma->key, &mb->key);

	/* Repeated keys stay in the order of the text. */
	return order ? order : ma->key.text < mb->key.text ? -1 : 1;
}

/* The members of an object, each key once with its last value, sorted by key. NULL: no memory. */
static struct member *members_sorted(const struct json *object, size_t *ret_count)
{
	struct json_iter it;
	struct member m, *members = malloc(sizeof(*members));
	size_t all = 0, count = 0, room = 1;

	json_iter_init(&it, object);
	while (members && json_iter_next(&it, &m.key, &m.value)) {
		if (all == room) {
			room *= 2;
			struct member *more = realloc(members, room * sizeof(*members));
			if (!more)
				free(members);
			members = more;
		}
		if (members)
			members[all++] = m;
	}
	if (!members)
		return NULL;
	qsort(members, all, sizeof(*members), member_compare);
	for (size_t i = 0; i < all; i++) {
		if (count > 0 && string_compare(&members[count - 1].key, &members[i].key) == 0)
			count--;
		members[count++] = members[i];
	}
	*ret_count = count;
	return members;
}

static bool object_equal(const struct json *a, const struct json *b)
{
	size_t count_a = 0, count_b = 0;
	struct member *ma = members_sorted(a, &count_a), *mb = members_sorted(b, &count_b);
	bool equal = ma && mb && count_a == count_b;

	for (size_t i = 0; equal && i < count_a; i++)
		equal = string_compare(&ma[i].key, &mb[i].key) == 0 &&
			json_equal(&ma[i].value, &mb[i].value);
	free(ma);
	free(mb);
	return equal;
}

bool json_equal(const struct json *a, const struct json *b)
{
	if (a->kind != b->kind)
		return false;
	switch (a->kind) {
	case JSON_NULL:
	case JSON_FALSE:
	case JSON_TRUE:
		return true;
	case JSON_NUMBER:
		return number_equal(a, b);
	case JSON_STRING:
		return string_compare(a, b) == 0;
	case JSON_ARRAY:
		return array_equal(a, b);
	case JSON_OBJECT:
		return object_equal(a, b);
	}
	assert(false); /* json_check gives no other kind */
	return false;
}
