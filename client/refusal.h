/*
 * Refusals in plain words.
 */
#ifndef CLIENT_REFUSAL_H
#define CLIENT_REFUSAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REFUSAL_TEXT_MAX = 256 };

/* Does the description begin with this word? "incomplete: [0, 5) …" begins with "incomplete". */
bool refusal_begins(const char *description, const char *word);
/* "the server refused init: name has a '/' (invalid_filemeta)". name may be NULL. */
void refusal_format(const char *command, const char *name, uint8_t reason, const char *description,
	char *buf, size_t buf_max);
/* A NUL-terminated copy of what a server sent, without what could steer a terminal. */
void refusal_copy_text(const char *s, size_t bytes, char buf[REFUSAL_TEXT_MAX]);

#endif
