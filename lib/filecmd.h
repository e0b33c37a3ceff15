/*
 * The grammar of the $file topics (EMQX's File Transfer over MQTT, and `status`, which is ours).
 *
 *   $file/<fileid>/init
 *   $file/<fileid>/<offset>[/<sha256hex>]
 *   $file/<fileid>/fin/<size>[/<sha256hex>]
 *   $file/<fileid>/abort
 *   $file/<fileid>/status
 *   $file-async/…            the same forms
 *
 * Pure: bytes in, struct out; nothing is allocated, the result borrows from the topic.
 */
#ifndef SLUICE_FILECMD_H
#define SLUICE_FILECMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum filecmd_verb {
	FILECMD_NONE,    /* no $file topic: an ordinary publish ("$file" alone, too) */
	FILECMD_INIT,
	FILECMD_SEGMENT,
	FILECMD_FIN,
	FILECMD_ABORT,
	FILECMD_STATUS,
	FILECMD_BAD,     /* a $file topic that breaks the grammar: see error */
};

struct filecmd {
	enum filecmd_verb verb;
	bool is_async;         /* $file-async */
	const char *fileid;    /* borrowed from the topic, not NUL-terminated */
	size_t fileid_bytes;
	uint64_t offset;       /* SEGMENT; ≤ INT64_MAX */
	uint64_t size;         /* FIN; ≤ INT64_MAX */
	bool has_checksum;
	uint8_t checksum[32];
	const char *error;     /* BAD: the reason_description, a static string: invalid_fileid,
	                        * invalid_file_command, invalid_offset, invalid_size,
	                        * invalid_checksum */
};

/* Parses a topic name. Checks in the order fileid, shape, offset or size, checksum, exactly as the
 * table of the protocol has them: "$file/" and "$file//init" → invalid_fileid; "$file/f" →
 * invalid_file_command; any unknown second word, "init/x", "abort/x", "status/x" and "fin" alone →
 * invalid_offset when the shape is that of a segment ("$file/f/X", "$file/f/X/Y");
 * "$file/f/fin/abc" → invalid_size; a malformed hex → invalid_checksum; more levels than any form
 * has → invalid_file_command. Numbers: ASCII digits only, leading zeros fine, > INT64_MAX →
 * invalid. */
void filecmd_parse(const char *topic, size_t topic_bytes, struct filecmd *ret);

#endif
