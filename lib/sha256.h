/*
 * SHA-256 as resumable states, several at a time.
 *
 * The unit of work is a *lane*: a state and the bytes to feed it. Callers hand over as many
 * lanes as they have; the implementation decides how many run interleaved. A state whose
 * byte count is a multiple of 64 is a *midstate*: eight words and the count are all of it,
 * so it can be written to a journal and taken up again.
 */
#ifndef SLUICE_SHA256_H
#define SLUICE_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_DIGEST_BYTES = 32, SHA256_BLOCK_BYTES = 64 };

struct sha256 {
	uint32_t h[8];    /* after all whole blocks */
	uint64_t bytes;   /* fed so far */
	uint8_t tail[64]; /* the last bytes % 64, not yet compressed */
};

struct sha256_lane {
	struct sha256 *state;
	const uint8_t *data;
	size_t data_bytes;
};

/* Sets the state of the empty message. */
void sha256_init(struct sha256 *s);
/* Feeds data to one state. */
void sha256_update(struct sha256 *s, const void *data, size_t data_bytes);
/* Feeds every lane; the states must differ from each other. Any count, any lengths. The lanes
 * themselves are only read. */
void sha256_update_lanes(struct sha256_lane *lanes, size_t lanes_count);
/* Writes the digest of all that was fed. The state itself is left as it was (a copy is padded),
 * so a message may be continued after its digest was looked at. */
void sha256_digest(const struct sha256 *s, uint8_t ret_digest[SHA256_DIGEST_BYTES]);
/* Takes up a midstate. bytes must be a multiple of 64: asserted. */
void sha256_resume(struct sha256 *s, const uint32_t h[8], uint64_t bytes);
/* Measures which implementations are the fastest here, for each number of lanes: about 6 ms, on a
 * clock that is handed in. Without this call they are chosen by CPUID and experience alone. Not
 * while another thread hashes. */
void sha256_calibrate(uint64_t (*now_ns)(void));
/* As many lanes as the fastest implementation can make use of: 1 … 16. */
unsigned sha256_lanes_wanted(void);
/* The name of what hashes so many lanes at once; any count from 1 on. */
const char *sha256_impl_name(size_t lanes_count);

/* Lower-case hex of a digest, NUL-terminated, into 65 bytes. */
void sha256_to_hex(const uint8_t digest[SHA256_DIGEST_BYTES], char ret_hex[65]);
/* Exactly 64 hex digits of either case → digest. 0, or −EINVAL (ret untouched). */
int sha256_from_hex(const char *hex, size_t hex_bytes, uint8_t ret_digest[SHA256_DIGEST_BYTES]);

#endif
