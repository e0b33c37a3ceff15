/*
 * The payload of `init`: a JSON object that describes the file.
 *
 * It is read by json.h's strict scanner: payload ≤ META_PAYLOAD_MAX, nesting ≤ META_DEPTH_MAX,
 * valid UTF-8 without NUL, one value with nothing but white space around it. user_data is kept
 * verbatim: the very bytes of the value as the client sent them (numbers keep every digit).
 */
#ifndef SLUICE_META_H
#define SLUICE_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { META_PAYLOAD_MAX = 65536, META_NAME_MAX = 240, META_DEPTH_MAX = 64 };

struct meta {
	char *name;            /* owned, NUL-terminated, 1–240 bytes of UTF-8 */
	bool has_size;
	uint64_t size;
	bool has_checksum;
	uint8_t checksum[32];
	bool has_expire_at;
	uint64_t expire_at;    /* seconds since the epoch */
	bool has_segments_ttl;
	uint64_t segments_ttl; /* seconds, ≥ 1, not yet clamped */
	char *user_data;       /* owned, the value's JSON text, NUL-terminated; NULL if absent */
	size_t user_data_bytes;
};

extern const char META_NO_MEMORY[]; /* "no_memory" */

/* Parses an init payload. NULL and *ret filled (the caller owns it: meta_fini), or a static error:
 * "invalid_filemeta_json" (not JSON, empty, too deep, or not an object), "invalid_filemeta" (a
 * required key missing, or a value breaks its rule, or the payload is longer than
 * META_PAYLOAD_MAX). Unknown keys are ignored; null is absent; "size":"123" is 123; 1.5, negative
 * numbers and numbers > INT64_MAX are invalid_filemeta. Of a repeated key the last one counts. An
 * escape of half a surrogate pair is invalid_filemeta_json, wherever it is; \u0000 in the name is
 * invalid_filemeta. META_NO_MEMORY (that very pointer): there is nothing wrong with it. */
const char *meta_parse(const char *json, size_t json_bytes, struct meta *ret);
void meta_fini(struct meta *m); /* idempotent; zeroes */
/* Deep copy. 0 or −ENOMEM. */
int meta_copy(struct meta *ret, const struct meta *from);
/* Equal in every field (user_data compared as JSON values, not as text: json_equal). */
bool meta_equal(const struct meta *a, const struct meta *b);
/* The canonical JSON of it, such that meta_parse gives it back, never longer than what it was
 * parsed from: malloc'ed, NUL-terminated; NULL when out of memory. Used for the journal. */
char *meta_to_json(const struct meta *m, size_t *ret_bytes);
/* Is this a name that init may carry? (1–240 bytes UTF-8; not "." or ".."; none of / \ : and no
 * non-printable: 0–31, 127–159, surrogates, U+FFFE, U+FFFF) */
bool meta_name_ok(const char *name, size_t name_bytes);

#endif
