/*
 * SHA-256 against the published vectors and against wolfSSL's. Everything runs twice: with what
 * CPUID chose, and with the portable kernel.
 */
#include "sha256.h"
#include "sha256_impl.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

/* Runs the statement behind it with each implementation. */
#define EACH_IMPL \
	for (int portable = 0; portable < 2 && (sha256_force_portable(portable), true); portable++)

static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static uint8_t *random_bytes(size_t count, uint64_t seed)
{
	uint8_t *bytes = malloc(count);
	cr_assert_not_null(bytes);
	for (size_t i = 0; i < count; i++)
		bytes[i] = (uint8_t)random_next(&seed);
	return bytes;
}

static void reference(const uint8_t *data, size_t bytes, uint8_t ret_digest[32])
{
	wc_Sha256 sha;
	cr_assert_eq(wc_InitSha256(&sha), 0);
	cr_assert_eq(wc_Sha256Update(&sha, data, (word32)bytes), 0);
	cr_assert_eq(wc_Sha256Final(&sha, ret_digest), 0);
	wc_Sha256Free(&sha);
}

static void check_digest(const struct sha256 *s, const uint8_t *data, size_t bytes)
{
	uint8_t expected[32], digest[32];
	reference(data, bytes, expected);
	sha256_digest(s, digest);
	cr_assert_arr_eq(digest, expected, 32, "%s, %zu bytes", sha256_impl_name(), bytes);
}

static void check_vector(const char *message, size_t times, const char *expected_hex)
{
	struct sha256 s;
	uint8_t digest[32];
	char hex[65];
	sha256_init(&s);
	for (size_t i = 0; i < times; i++)
		sha256_update(&s, message, strlen(message));
	sha256_digest(&s, digest);
	sha256_to_hex(digest, hex);
	cr_assert_str_eq(hex, expected_hex);
}

/* FIPS 180-4 examples, as NIST publishes them (SHA256.pdf, SHA2_Additional.pdf). */
Test(sha256, nist_vectors)
{
	EACH_IMPL {
		check_vector("", 1,
			"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
		check_vector("abc", 1,
			"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
		check_vector("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
			"248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
		check_vector("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
			"hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu", 1,
			"cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
		check_vector("\xbd", 1,
			"68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b");
		check_vector("\xc9\x8c\x8e\x55", 1,
			"7abc22c0ae5af26ce93dbb94433a0e0b2e119d014f8e7f65bd56c61ccccd9504");
		check_vector("aaaaaaaaaa", 100000,
			"cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
	}
}

Test(sha256, every_short_length)
{
	uint8_t *data = random_bytes(400, 1);
	EACH_IMPL {
		for (size_t bytes = 0; bytes <= 400; bytes++) {
			struct sha256 s;
			sha256_init(&s);
			sha256_update(&s, data, bytes);
			cr_assert_eq(s.bytes, bytes);
			check_digest(&s, data, bytes);
		}
	}
	free(data);
}

Test(sha256, random_splits)
{
	enum { BYTES_MAX = 5000 };
	uint8_t *data = random_bytes(BYTES_MAX, 2);
	uint64_t rng = 3;
	EACH_IMPL {
		for (int run = 0; run < 300; run++) {
			size_t piece_max = 1 + random_next(&rng) % 300, at = 0;
			struct sha256 s;
			sha256_init(&s);
			while (at < BYTES_MAX) {
				size_t piece = random_next(&rng) % (piece_max + 1);
				piece = piece < BYTES_MAX - at ? piece : BYTES_MAX - at;
				sha256_update(&s, data + at, piece);
				at += piece;
				/* A digest on the way leaves the message as it was. */
				if (random_next(&rng) % 32 == 0)
					check_digest(&s, data, at);
			}
			check_digest(&s, data, BYTES_MAX);
		}
	}
	free(data);
}

Test(sha256, midstate_is_taken_up_by_either_implementation)
{
	uint8_t *data = random_bytes(10000, 4);
	for (int from = 0; from < 2; from++) {
		for (size_t frontier = 0; frontier < 10000; frontier += 64 * 7) {
			struct sha256 s, resumed;
			sha256_force_portable(from);
			sha256_init(&s);
			sha256_update(&s, data, frontier);
			memset(&resumed, 0xee, sizeof(resumed));
			sha256_resume(&resumed, s.h, s.bytes);
			sha256_force_portable(!from);
			sha256_update(&resumed, data + frontier, 10000 - frontier);
			check_digest(&resumed, data, 10000);
		}
	}
	free(data);
}

/* Lengths in bits beyond 32: a midstate stands in for the half gigabyte. */
Test(sha256, length_has_64_bits)
{
	EACH_IMPL {
		struct sha256 s, low;
		uint8_t digest[32], digest_low[32];
		sha256_init(&s);
		sha256_resume(&low, s.h, 64);
		sha256_resume(&s, s.h, 64 + (1ull << 29));
		sha256_digest(&s, digest);
		sha256_digest(&low, digest_low);
		cr_assert_arr_neq(digest, digest_low, 32);

		/* The padding by hand: 0x80, zeros, the length in bits. */
		uint8_t block[64] = {0x80, [59] = 1, [62] = 2};
		struct sha256 by_hand;
		sha256_init(&by_hand);
		sha256_update(&by_hand, block, 64);
		for (int i = 0; i < 8; i++) {
			uint8_t word[4] = {by_hand.h[i] >> 24, by_hand.h[i] >> 16 & 255,
				by_hand.h[i] >> 8 & 255, by_hand.h[i] & 255};
			cr_assert_arr_eq(digest + 4 * i, word, 4);
		}
	}
}

enum { LANES_MAX = 40, LANE_BYTES_MAX = 3000 };

/* Lanes of random lengths, fed in random portions, each from its own place: many end at once, many
 * are empty, some are long. */
static void run_lanes(const uint8_t *data, uint64_t *rng, size_t count, size_t portion_max)
{
	struct sha256 states[LANES_MAX];
	size_t fed[LANES_MAX] = {0};
	for (size_t i = 0; i < count; i++)
		sha256_init(&states[i]);
	for (int round = 0; round < 4; round++) {
		struct sha256_lane lanes[LANES_MAX];
		for (size_t i = 0; i < count; i++) {
			size_t portion = random_next(rng) % 4 == 0 ? 0 : random_next(rng) % portion_max;
			if (fed[i] + portion > LANE_BYTES_MAX)
				portion = LANE_BYTES_MAX - fed[i];
			lanes[i] = (struct sha256_lane){&states[i], data + i + fed[i], portion};
			fed[i] += portion;
		}
		sha256_update_lanes(lanes, count);
	}
	for (size_t i = 0; i < count; i++) {
		cr_assert_eq(states[i].bytes, fed[i]);
		check_digest(&states[i], data + i, fed[i]);
	}
}

Test(sha256, lanes_of_uneven_lengths)
{
	uint8_t *data = random_bytes(LANE_BYTES_MAX + LANES_MAX, 5);
	uint64_t rng = 6;
	EACH_IMPL {
		for (size_t count = 0; count <= LANES_MAX; count++) {
			run_lanes(data, &rng, count, 70);
			run_lanes(data, &rng, count, 800);
		}
	}
	free(data);
}

Test(sha256, lanes_of_equal_lengths)
{
	uint8_t *data = random_bytes(64 * 100, 7);
	EACH_IMPL {
		for (size_t count = 1; count < 10; count++) {
			struct sha256 states[10];
			struct sha256_lane lanes[10];
			for (size_t i = 0; i < count; i++) {
				sha256_init(&states[i]);
				lanes[i] = (struct sha256_lane){&states[i], data + 64 * i, 64 * 50};
			}
			sha256_update_lanes(lanes, count);
			for (size_t i = 0; i < count; i++)
				check_digest(&states[i], data + 64 * i, 64 * 50);
		}
	}
	free(data);
}

/* Kernels write to no state but those they were given, and to nothing of these but h. */
Test(sha256, kernels_keep_to_their_states)
{
	uint8_t *data = random_bytes(64 * 4, 8);
	uint32_t h[4][8];
	memset(h, 0xab, sizeof(h));
	if (sha256_ni_available()) {
		sha256_ni_2((uint32_t *[]){h[1], h[2]}, (const uint8_t *[]){data, data + 64}, 0);
		for (int i = 0; i < 32; i++)
			cr_assert_eq(h[i / 8][i % 8], 0xabababab);
		sha256_ni_2((uint32_t *[]){h[1], h[2]}, (const uint8_t *[]){data, data + 64}, 3);
		sha256_ni_1((uint32_t *[]){h[0]}, (const uint8_t *[]){data}, 3);
		cr_assert_arr_eq(h[0], h[1], 32);
		cr_assert_arr_neq(h[1], h[2], 32);
		for (int i = 0; i < 8; i++)
			cr_assert_eq(h[3][i], 0xabababab);
	}
	free(data);
}

Test(sha256, name_says_which)
{
	sha256_force_portable(true);
	cr_assert_str_eq(sha256_impl_name(), "portable");
	sha256_force_portable(false);
	cr_assert_str_eq(sha256_impl_name(), sha256_ni_available() ? "sha-ni" : "portable");
}

Test(sha256, hex)
{
	static const char hex[] = "0123456789abcdefABCDEF0000ffFFfF00112233445566778899aAbBcCdDeEfF";
	static const char lower[] = "0123456789abcdefabcdef0000ffffff00112233445566778899aabbccddeeff";
	uint8_t digest[32];
	char back[65];
	cr_assert_eq(sha256_from_hex(hex, 64, digest), 0);
	cr_assert_eq(digest[0], 0x01);
	cr_assert_eq(digest[31], 0xff);
	sha256_to_hex(digest, back);
	cr_assert_str_eq(back, lower);

	uint8_t untouched[32];
	memset(untouched, 0x5a, 32);
	memcpy(digest, untouched, 32);
	cr_assert_eq(sha256_from_hex(hex, 63, digest), -EINVAL);
	cr_assert_eq(sha256_from_hex(hex, 65, digest), -EINVAL);
	cr_assert_eq(sha256_from_hex(hex, 0, digest), -EINVAL);
	/* Every byte that is no digit, at every place. */
	for (int place = 0; place < 64; place++) {
		char bad[64];
		memcpy(bad, hex, 64);
		for (int c = 0; c < 256; c++) {
			bad[place] = (char)c;
			if (c == 0 || strchr("0123456789abcdefABCDEF", c) == NULL)
				cr_assert_eq(sha256_from_hex(bad, 64, digest), -EINVAL, "%d", c);
		}
	}
	cr_assert_arr_eq(digest, untouched, 32);
}
