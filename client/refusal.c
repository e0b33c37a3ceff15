/*
 * From the protocol's words (PROTOCOL 1.1, 2) to a sentence. The word itself stays in the sentence,
 * in parentheses, since it is what a search finds.
 */
#include "refusal.h"

#include <stdio.h>
#include <string.h>
#include "meta.h"
#include "mqtt.h"
#include "utf8.h"

bool refusal_begins(const char *description, const char *word)
{
	size_t n = strlen(word);

	return strncmp(description, word, n) == 0 &&
	       (description[n] == 0 || strchr(" :,;(", description[n]));
}

static const char *explain(const char *description)
{
	static const struct {
		const char *word, *text;
	} table[] = {
		{"invalid_fileid", "the file id is not acceptable"},
		{"invalid_filemeta", "the file's name or its metadata is not acceptable"},
		{"invalid_filemeta_json", "the metadata is not acceptable"},
		{"filemeta_conflict", "a transfer with this file id is open with other metadata "
				      "(sluice abort ends it, --file-id names another)"},
		{"checksum_mismatch", "what arrived is not what was sent"},
		{"incomplete", "parts of the file are missing"},
		{"enospc", "no space is left on the server"},
		{"too_large", "the file is larger than the server takes"},
		{"quota_exceeded", "the quota is used up"},
		{"io_error", "the server could not write it"},
		{"no_memory", "the server is out of memory"},
		{"shutdown", "the server is shutting down"},
		{"size_mismatch", "a file of another size was exported under this file id"},
		{"aborted", "somebody has aborted the transfer"},
		{"not_authorized", "this user may not send files"},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (refusal_begins(description, table[i].word)) {
			return table[i].text;
		}
	}
	return NULL;
}

/* Why a server would not take this name, or NULL when it should. */
static const char *explain_name(const char *name, char *buf, size_t buf_max)
{
	uint32_t code;
	size_t bytes = strlen(name), at = 0;

	if (meta_name_ok(name, bytes)) {
		return NULL;
	}
	if (bytes == 0) {
		return "the name is empty";
	}
	if (bytes > META_NAME_MAX) {
		snprintf(buf, buf_max, "the name is longer than %d bytes", META_NAME_MAX);
		return buf;
	}
	while (at < bytes) {
		unsigned n = utf8_next(name + at, bytes - at, &code);
		if (n == 1 && strchr("/\\:", (int)code)) {
			snprintf(buf, buf_max, "name has a '%c'", (int)code);
			return buf;
		}
		if (n == 0 || code < 32 || (code >= 127 && code < 160)) {
			return "name has a character that can't be printed";
		}
		at += n;
	}
	return "the name is not acceptable";
}

void refusal_format(const char *command, const char *name, uint8_t reason, const char *description,
	char *buf, size_t buf_max)
{
	char why[64];
	const char *cause = NULL;

	if (name && refusal_begins(description, "invalid_filemeta")) {
		cause = explain_name(name, why, sizeof(why));
	}
	if (!cause) {
		cause = explain(description);
	}
	if (!cause) {
		cause = mqtt_rc_name(reason);
	}
	snprintf(buf, buf_max, "the server refused %s: %s%s%s%s", command, cause,
		description[0] ? " (" : "", description, description[0] ? ")" : "");
}

void refusal_copy_text(const char *s, size_t bytes, char buf[REFUSAL_TEXT_MAX])
{
	size_t n = 0;

	for (; s && n < bytes && n < REFUSAL_TEXT_MAX - 1 && s[n]; n++) {
		unsigned char c = (unsigned char)s[n];
		buf[n] = c < 32 || c == 127 ? '?' : (char)c;
	}
	buf[n] = 0;
}
