/*
 * The log. log.h has the form of a line.
 *
 * A line is put together in a buffer on the stack and handed out in one piece, so threads need no
 * lock and lines never mix. One that doesn't fit is cut at a whole character and ends in "...": the
 * limit is PIPE_BUF, up to which a pipe takes a write whole, so a journal that reads from a pipe
 * sees whole lines too.
 *
 * A value is written bare when it is made of letters, digits and "_./:@%+,~$#*[]-" only. Otherwise
 * it is quoted: text stays readable, but quotes, backslashes, control characters, characters that
 * reorder or hide text, and bytes that are no UTF-8 are escaped. So nothing in a value can look
 * like the end of it, or like another line.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "log.h"
#include "utf8.h"

static enum conf_log_level log_level = CONF_LOG_INFO;
static int64_t (*log_now_ms)(void);
static void (*log_put)(const char *, size_t);

struct line {
	char text[PIPE_BUF];
	size_t used;
	bool cut;
};

/* Kept free for what ends a cut line. */
static const char line_cut[] = "...";
enum { LINE_BYTES_MAX = PIPE_BUF - sizeof(line_cut) };

void log_init(enum conf_log_level level, int64_t (*now_ms)(void), void (*put)(const char *, size_t))
{
	log_level = level;
	log_now_ms = now_ms;
	log_put = put;
}

bool log_enabled(enum conf_log_level level)
{
	return level <= log_level;
}

/* All of the bytes or, once the line is full, none from then on. */
static void line_add(struct line *line, const char *bytes, size_t count)
{
	if (line->cut || count > LINE_BYTES_MAX - line->used) {
		line->cut = true;
		return;
	}
	memcpy(line->text + line->used, bytes, count);
	line->used += count;
}

static void line_add_text(struct line *line, const char *text)
{
	line_add(line, text, strlen(text));
}

static bool is_bare(unsigned char byte)
{
	return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
	       (byte >= 'a' && byte <= 'z') || (byte && strchr("_./:@%+,~$#*[]-", byte));
}

/* C1 controls, line and paragraph separators, the marks that reorder text, zero-width characters,
 * and noncharacters of the basic plane: what a terminal obeys or a reader can't see. */
static bool is_hidden(uint32_t code)
{
	return code < 0xa0 || code == 0xad || (code >= 0x200b && code <= 0x200f) ||
	       (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) ||
	       code == 0xfeff || (code >= 0xfff0 && code <= 0xffff && code != 0xfffd);
}

static void line_add_escaped(struct line *line, const char *value, size_t bytes)
{
	char escape[8];

	if (*value == '"' || *value == '\\') {
		snprintf(escape, sizeof(escape), "\\%c", *value);
	} else if (*value == '\n') {
		snprintf(escape, sizeof(escape), "\\n");
	} else {
		for (size_t i = 0; i < bytes; i++) {
			snprintf(escape, sizeof(escape), "\\x%02x", (unsigned char)value[i]);
			line_add_text(line, escape);
		}
		return;
	}
	line_add_text(line, escape);
}

static void line_add_quoted(struct line *line, const char *value, size_t bytes)
{
	line_add_text(line, "\"");
	for (size_t i = 0; i < bytes && !line->cut;) {
		unsigned char byte = value[i];
		uint32_t code;
		unsigned length = byte < 0x80 ? 1 : utf8_next(value + i, bytes - i, &code);

		if (byte < 0x80 ? byte >= ' ' && byte != 0x7f && byte != '"' && byte != '\\'
				: length && !is_hidden(code))
			line_add(line, value + i, length);
		else
			line_add_escaped(line, value + i, length ? length : 1);
		i += length ? length : 1;
	}
	line_add_text(line, "\"");
}

static void line_add_value(struct line *line, const char *value, size_t bytes)
{
	bool bare = bytes > 0;
	size_t room;

	if (!value) {
		line_add_text(line, "-");
		return;
	}
	/* A lone "-" means that there is no value, so one that is there is quoted. */
	if (bytes == 1 && *value == '-')
		bare = false;
	for (size_t i = 0; bare && i < bytes; i++)
		bare = is_bare(value[i]);
	if (!bare) {
		line_add_quoted(line, value, bytes);
		return;
	}
	/* Of a bare value too what fits is shown. */
	room = line->cut ? 0 : LINE_BYTES_MAX - line->used;
	line_add(line, value, bytes < room ? bytes : room);
	line->cut = line->cut || bytes > room;
}

static void line_add_time(struct line *line, int64_t ms)
{
	time_t seconds = ms / 1000;
	char text[40] = "";
	struct tm tm;

	if (!gmtime_r(&seconds, &tm))
		memset(&tm, 0, sizeof(tm));
	line_add(line, text, strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm));
	snprintf(text, sizeof(text), ".%03dZ ", (int)(ms % 1000));
	line_add_text(line, text);
}

static void line_add_signed(struct line *line, int64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, value);
	line_add_text(line, text);
}

static void line_add_unsigned(struct line *line, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	line_add_text(line, text);
}

static void line_add_errno(struct line *line, int err)
{
	const char *text = strerrordesc_np(err < 0 ? -err : err);

	if (text)
		line_add_value(line, text, strlen(text));
	else
		line_add_signed(line, err);
}

/* The pairs as log.h's macros pass them: the type's letter and the key in one literal, then the
 * value. */
static void line_add_fields(struct line *line, va_list args)
{
	const char *field, *value;

	while ((field = va_arg(args, const char *))) {
		line_add_text(line, " ");
		line_add_text(line, field + 1);
		line_add_text(line, "=");
		switch (*field) {
		case 's':
			value = va_arg(args, const char *);
			line_add_value(line, value, va_arg(args, size_t));
			break;
		case 'z':
			value = va_arg(args, const char *);
			line_add_value(line, value, value ? strlen(value) : 0);
			break;
		case 'u':
			line_add_unsigned(line, va_arg(args, uint64_t));
			break;
		case 'i':
			line_add_signed(line, va_arg(args, int64_t));
			break;
		case 'e':
			line_add_errno(line, va_arg(args, int));
			break;
		default:
			/* Not from a macro: its value's type is unknown, so nothing behind it can
			 * be read. */
			line_add_text(line, "?");
			return;
		}
	}
}

static void log_line(enum conf_log_level level, const char *event, va_list args)
{
	static const char *const names[] = {"error ", "warn ", "info ", "debug "};
	struct line line;

	line.used = 0;
	line.cut = false;
	line_add_time(&line, log_now_ms ? log_now_ms() : 0);
	line_add_text(&line, names[level]);
	line_add_text(&line, event);
	line_add_fields(&line, args);
	if (line.cut) {
		memcpy(line.text + line.used, line_cut, sizeof(line_cut) - 1);
		line.used += sizeof(line_cut) - 1;
	}
	line.text[line.used++] = '\n';
	if (log_put)
		log_put(line.text, line.used);
	else
		fwrite(line.text, 1, line.used, stderr);
}

#define LOG_AT(name, level)                                                                        \
	void name(const char *event, ...)                                                          \
	{                                                                                          \
		va_list args;                                                                      \
                                                                                                   \
		if (!log_enabled(level))                                                           \
			return;                                                                    \
		va_start(args, event);                                                             \
		log_line(level, event, args);                                                      \
		va_end(args);                                                                      \
	}

LOG_AT(log_error, CONF_LOG_ERROR)
LOG_AT(log_warn, CONF_LOG_WARN)
LOG_AT(log_info, CONF_LOG_INFO)
LOG_AT(log_debug, CONF_LOG_DEBUG)
