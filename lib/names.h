/*
 * From ids that a peer chose to names in the file system.
 *
 * Whatever the input, the output is one path component: never empty, ".", "..", never with "/" or
 * NUL, never beginning with a dot (but for EMQX's), at most the stated number of bytes, valid
 * UTF-8.
 *
 * Where a hash stands for what had to be cut off, it is the beginning of a SHA-256: the ids are
 * chosen by peers, who could construct two that collide under a faster hash and so reach another's
 * files.
 */
#ifndef SLUICE_NAMES_H
#define SLUICE_NAMES_H

#include <stddef.h>
#include <stdint.h>

enum {
	NAMES_ID_MAX = 200,      /* bytes of an escaped id, without NUL */
	NAMES_FILE_MAX = 255,    /* bytes of an escaped file name, without NUL */
	NAMES_STAGING_MAX = 255,
};

/* Escapes a client or file id for the export tree: [A-Za-z0-9_-], "." except the first, and
 * bytes ≥ 0x80 of valid UTF-8 stay, everything else, and "~" (which marks a generation), becomes
 * %XX (upper-case). Result longer than NAMES_ID_MAX: its longest prefix that ends on a
 * whole character and fits before "~" + 32 hex digits (128 bits of the id's hash). Injective. The
 * empty id becomes "%". */
void names_escape_id(const char *id, size_t id_bytes, char ret[NAMES_ID_MAX + 1]);
/* Escapes an export file name: "%" → %25, a leading dot → %2E, the rest of what meta_name_ok allows
 * stays (what it does not allow becomes %XX). Longer than 255 bytes: cut at a whole character, and
 * "~" + 16 hex digits of its hash put at the end. */
void names_escape_file(const char *name, size_t name_bytes, char ret[NAMES_FILE_MAX + 1]);
/* The same as EMQX does it, for its layout: "%", ":", "\\", "/" and what can't be printed become %XX
 * of their UTF-8 bytes, and so do "." and ".."; all else stays. Longer than NAMES_ID_MAX: as above,
 * where EMQX fails. Not injective against ids that were cut off. */
void names_escape_id_emqx(const char *id, size_t id_bytes, char ret[NAMES_ID_MAX + 1]);
/* EMQX escapes nothing in the names that meta_name_ok allows. */
void names_escape_file_emqx(const char *name, size_t name_bytes, char ret[NAMES_FILE_MAX + 1]);
/* The staging file of a transfer: lower-case only, e<epoch>-<first 40 bytes of the escaped client
 * id, lower-cased>-<the same of the file id>-<32 hex digits of the hash of both ids with their
 * lengths>-<generation>. Two transfers never share one, also on a case-folding file system. ASCII
 * only (bytes ≥ 0x80 are escaped here). */
void names_staging(uint64_t epoch, const char *clientid, size_t clientid_bytes, const char *fileid,
	size_t fileid_bytes, uint32_t generation, char ret[NAMES_STAGING_MAX + 1]);

#endif
