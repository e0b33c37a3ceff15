/*
 * Journal records: the bytes of the journal. The file-top essay of record.c is the format.
 *
 * A journal file begins with a header (magic, version, per-file salt, sequence number of the
 * file); then records follow, each with its length, type, sequence within the file and an XXH3
 * over all of it mixed with the salt, padded to 8 bytes. Old content of a preallocated file never
 * parses as a record: its salt or its sequence is wrong. Reading stops at the first record that
 * does not parse.
 */
#ifndef SLUICE_RECORD_H
#define SLUICE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum record_type {
	RECORD_OPEN = 1,    /* transfer: tid, clientid, fileid, generation, epoch, at_ms, staging name */
	RECORD_META,        /* tid, init metadata (JSON); replaces */
	RECORD_RESERVE,     /* tid, size: preallocated */
	RECORD_EXTENT,      /* tid, from, to: written and acknowledged */
	RECORD_UNCOVER,     /* tid, from, to: taken out of coverage; the hash frontier falls to from */
	RECORD_MIDSTATE,    /* tid, frontier (multiple of 64), h: SHA-256 of [0, frontier) */
	RECORD_FIN,         /* tid, size, has_digest, digest: a fin was accepted, verification follows */
	RECORD_FIN_FAILED,  /* tid: open again */
	RECORD_PUBLISHING,  /* tid, size, digest, path: the name is chosen */
	RECORD_PUBLISHED,   /* tid, at_ms */
	RECORD_ABORTED,     /* tid */
	RECORD_EXPIRED,     /* tid */
	RECORD_FORGET,      /* tid: no longer remembered */
	RECORD_CHECKPOINT_END, /* all that was live when this file began has been written */
	RECORD_SYNCED,      /* tid, from, to: as EXTENT, and the bytes are on the disk */
	RECORD_LOST,        /* tid: its staging file failed to sync; what is not SYNCED is missing */
	RECORD_STAGING,     /* tid, staging name: another file, which holds what was SYNCED */
	RECORD_SYNC_MARK,   /* size: this journal file was on the disk up to that offset */
	RECORD_USER,        /* tid, user name: before OPEN, whom it counts against; none: nobody */
	RECORD_TYPE_MAX = RECORD_USER,
};

enum { RECORD_HEADER_BYTES = 64, RECORD_BYTES_MAX = 512 * 1024 };

/* One record decoded, or to be encoded. Fields that the type does not have are ignored, and zero
 * after decoding. Spans borrow: after decoding they point into the reader's buffer. */
struct record {
	enum record_type type;
	uint64_t tid;          /* transfer, unique per data directory */
	uint64_t from, to;     /* EXTENT, SYNCED, UNCOVER: from ≤ to */
	uint64_t size;         /* RESERVE, FIN, PUBLISHING, SYNC_MARK */
	uint64_t frontier;     /* MIDSTATE: a multiple of 64 */
	uint32_t h[8];         /* MIDSTATE */
	bool has_digest;       /* FIN */
	uint8_t digest[32];    /* FIN, PUBLISHING */
	uint32_t generation;   /* OPEN */
	uint64_t epoch;        /* OPEN */
	int64_t at_ms;         /* OPEN, PUBLISHED: since the epoch */
	const char *clientid; uint32_t clientid_bytes; /* OPEN, ≤ 65535 */
	const char *fileid;   uint32_t fileid_bytes;   /* OPEN, ≤ 65535 */
	const char *text;     uint32_t text_bytes;     /* OPEN, STAGING: its name; META json; PUBLISHING path; USER */
};

struct record_writer {
	uint8_t *buf; /* caller's; NULL is fine while buf_max == 0 */
	size_t buf_max;
	size_t bytes; /* written so far */
	uint64_t salt;
	uint64_t seq; /* of the next record in the file */
};

/* Writes the file header into buf (RECORD_HEADER_BYTES). */
void record_header_encode(uint8_t *buf, uint64_t salt, uint64_t file_seq, uint32_t reactor_idx);
/* 0; −EINVAL: no journal (too short, or another magic); −EBADMSG: damaged (checksum); −EPROTO: a
 * whole header of a version that this program can't read. */
int record_header_decode(const uint8_t *buf, size_t buf_bytes, uint64_t *ret_salt,
	uint64_t *ret_file_seq, uint32_t *ret_reactor_idx);

/* Bytes that the record takes, padding included. */
size_t record_size(const struct record *r);
/* Appends. 0; −E2BIG when the record would pass RECORD_BYTES_MAX, or an id its 65535 bytes; −ENOSPC
 * when buf is too small. Nothing is written then. That the fields keep their type's rules is
 * asserted. */
int record_append(struct record_writer *w, const struct record *r);
/* If the record at last_off (SIZE_MAX: none) is the last one in the buffer and of this type, EXTENT
 * or SYNCED, of tid, and ends at `from`, makes it end at `to`, with a new checksum, and returns true. So bytes that
 * follow each other within one batch cost one record. last_off must be where a record was
 * appended in this buffer, one that nobody has taken away to write it yet. */
bool record_extend_extent(struct record_writer *w, size_t last_off, enum record_type type,
	uint64_t tid, uint64_t from, uint64_t to);

struct record_reader {
	const uint8_t *buf;
	size_t buf_bytes;
	size_t off;   /* of the next record */
	uint64_t salt;
	uint64_t seq;
};

/* 1 and *ret, off and seq moved on. 0 at the end: no valid record at off (torn, zeros, old
 * content). −EBADMSG: a good checksum over contents that break their type's rules, so the writer
 * was wrong or another program. In both cases off and seq stay, and *ret is untouched. */
int record_next(struct record_reader *r, struct record *ret);
/* Where record_next found the end: is there a record of the same file behind it? Then true, and r
 * stands at the first one: what lies between is bad, or was never written. Else false, and r is as
 * it was. */
bool record_skip(struct record_reader *r);

#endif
