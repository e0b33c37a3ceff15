/*
 * The JSON that goes back to clients: response messages and events, written with cJSON.
 */
#ifndef SLUICE_ANSWER_H
#define SLUICE_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "cover.h"

enum { ANSWER_MISSING_MAX = 32 };

struct answer {
	const char *topic;        /* of the command; not NUL-terminated */
	size_t topic_bytes;
	uint16_t packet_id;       /* 0 for QoS 0 */
	uint8_t reason_code;
	const char *description;  /* reason_description */
	bool has_missing;         /* "missing" and "missing_bytes" */
	uint64_t missing_bytes;
	const struct extent *missing;
	size_t missing_count;     /* ≤ ANSWER_MISSING_MAX */
	const uint8_t *expected;  /* NULL, or 32 bytes each: "expected" and "actual" as hex */
	const uint8_t *actual;
	bool has_status;          /* "status":{…} */
	const char *state;        /* open verifying exported none */
	bool status_has_size;
	uint64_t status_size;
	uint64_t received;        /* bytes */
	uint64_t frontier;        /* hashed up to here */
	bool truncated;           /* more missing ranges than listed; with has_status "missing" goes
	                           * inside "status" */
};

struct answer_event {
	const char *clientid;     size_t clientid_bytes;
	const char *fileid;       size_t fileid_bytes;
	const char *name;         /* NULL → null */
	bool has_size;            uint64_t size;
	const uint8_t *sha256;    /* NULL → null */
	const char *path;         /* NULL: left out */
	const char *reason;       /* NULL: left out ("failed" events) */
	const char *user_data;    /* JSON text, NULL → null */
	double seconds;
};

/* {"vsn":"0.1","topic":…,"packet_id":…,"reason_code":…,"reason_description":…[,…]}: malloc'ed,
 * NUL-terminated, the caller frees; NULL when out of memory. Bytes of a topic that are not valid
 * UTF-8 can't occur (MQTT forbids them). */
char *answer_to_json(const struct answer *a, size_t *ret_bytes);
char *answer_event_to_json(const struct answer_event *e, size_t *ret_bytes);

struct answer_manifest {
	const char *clientid;     size_t clientid_bytes;
	const char *fileid;       size_t fileid_bytes;
	uint32_t generation;
	const char *name;
	const char *path;         /* relative to the export root */
	uint64_t size;
	const uint8_t *sha256;
	const char *meta_json;    /* the init metadata, an object */
	const char *user_data;    /* JSON text or NULL */
	int64_t opened_at_ms, exported_at_ms; /* since the epoch; written as RFC 3339 UTC with ms */
};
/* Pretty-printed, with a final newline. Ownership as above. */
char *answer_manifest_to_json(const struct answer_manifest *m, size_t *ret_bytes);

#endif
