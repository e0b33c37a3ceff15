/*
 * SHA-256 against the published vectors and against wolfSSL's. Everything runs once with what is
 * chosen for this CPU, and then with each kernel that it can run, one after the other.
 */
#include "sha256.h"
#include "sha256_impl.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

/* NULL, then the name of one available kernel after the other; false at the end. */
static bool next_impl(size_t *idx)
{
	size_t count;
	const struct sha256_kernel *kernels = sha256_kernels(&count);
	if (*idx == 0) {
		cr_assert_eq(sha256_force_impl(NULL), 0);
		++*idx;
		return true;
	}
	for (; *idx <= count; ++*idx) {
		const struct sha256_kernel *k = &kernels[*idx - 1];
		if (sha256_kernel_is_available(k)) {
			cr_assert_eq(sha256_force_impl(k->name), 0);
			for (unsigned n = 1; n <= SHA256_WIDTH_MAX; n++)
				cr_assert_eq(sha256_kernel_for(n), k);
			++*idx;
			return true;
		}
		cr_assert_eq(sha256_force_impl(k->name), -ENOENT);
	}
	return false;
}

/* Runs the statement behind it with each implementation. */
#define EACH_IMPL for (size_t impl = 0; next_impl(&impl);)

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
	cr_assert_arr_eq(digest, expected, 32, "%s, %zu bytes", sha256_impl_name(1), bytes);
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

Test(sha256, midstate_is_taken_up_by_any_implementation)
{
	uint8_t *data = random_bytes(10000, 4);
	uint64_t rng = 9;
	EACH_IMPL {
		size_t count;
		const struct sha256_kernel *kernels = sha256_kernels(&count);
		const char *from = impl == 1 ? NULL : sha256_impl_name(1);
		for (size_t frontier = 0; frontier < 10000; frontier += 64 * 7) {
			struct sha256 s, resumed;
			sha256_init(&s);
			sha256_update(&s, data, frontier);
			memset(&resumed, 0xee, sizeof(resumed));
			sha256_resume(&resumed, s.h, s.bytes);
			(void)sha256_force_impl(kernels[random_next(&rng) % count].name);
			sha256_update(&resumed, data + frontier, 10000 - frontier);
			check_digest(&resumed, data, 10000);
			cr_assert_eq(sha256_force_impl(from), 0);
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
	uint8_t *data = random_bytes(64 * 300, 7);
	EACH_IMPL {
		for (size_t count = 1; count <= LANES_MAX; count++) {
			struct sha256 states[LANES_MAX];
			struct sha256_lane lanes[LANES_MAX];
			for (size_t i = 0; i < count; i++) {
				sha256_init(&states[i]);
				lanes[i] = (struct sha256_lane){&states[i], data + 64 * i, 64 * 200};
			}
			sha256_update_lanes(lanes, count);
			for (size_t i = 0; i < count; i++)
				check_digest(&states[i], data + 64 * i, 64 * 200);
		}
	}
	free(data);
}

/* The data of a state begins anywhere in memory. */
Test(sha256, lanes_of_any_alignment)
{
	uint8_t *data = random_bytes(64 * 20 + 128, 10);
	EACH_IMPL {
		for (size_t shift = 0; shift < 64; shift++) {
			struct sha256 states[SHA256_WIDTH_MAX];
			struct sha256_lane lanes[SHA256_WIDTH_MAX];
			for (size_t i = 0; i < SHA256_WIDTH_MAX; i++) {
				sha256_init(&states[i]);
				lanes[i] = (struct sha256_lane){&states[i], data + shift + i, 64 * 20};
			}
			sha256_update_lanes(lanes, SHA256_WIDTH_MAX);
			for (size_t i = 0; i < SHA256_WIDTH_MAX; i++)
				check_digest(&states[i], data + shift + i, 64 * 20);
		}
	}
	free(data);
}

/* Kernels write to no state but those they were given, and to nothing of these but h; places that
 * are not wanted share one. */
Test(sha256, kernels_keep_to_their_states)
{
	uint8_t *data = random_bytes(64 * 32, 8);
	size_t count;
	const struct sha256_kernel *kernels = sha256_kernels(&count);
	for (size_t i = 0; i < count; i++) {
		const struct sha256_kernel *k = &kernels[i];
		uint32_t h[SHA256_WIDTH_MAX + 2][8], one[8];
		uint32_t *states[SHA256_WIDTH_MAX];
		const uint8_t *from[SHA256_WIDTH_MAX];
		if (!sha256_kernel_is_available(k))
			continue;
		memset(h, 0xab, sizeof(h));
		for (unsigned s = 0; s < k->width; s++) {
			states[s] = h[1 + s];
			from[s] = data + 64 * s;
		}
		k->run(states, from, 0);
		for (size_t word = 0; word < sizeof(h) / 4; word++)
			cr_assert_eq(((uint32_t *)h)[word], 0xabababab, "%s", k->name);
		k->run(states, from, 3);
		for (unsigned s = 0; s < k->width; s++) {
			memset(one, 0xab, sizeof(one));
			sha256_portable_1(&(uint32_t *){one}, &from[s], 3);
			cr_assert_arr_eq(one, states[s], 32, "%s", k->name);
		}
		for (int word = 0; word < 8; word++) {
			cr_assert_eq(h[0][word], 0xabababab, "%s", k->name);
			cr_assert_eq(h[1 + k->width][word], 0xabababab, "%s", k->name);
		}

		memset(h, 0xab, sizeof(h));
		for (unsigned s = 1; s < k->width; s++) {
			states[s] = h[2];
			from[s] = from[0];
		}
		k->run(states, from, 5);
		memset(one, 0xab, sizeof(one));
		sha256_portable_1(&(uint32_t *){one}, &from[0], 5);
		cr_assert_arr_eq(one, h[1], 32, "%s", k->name);
	}
	free(data);
}

/* --- the choice ------------------------------------------------------------------------------- */

static uint64_t clock_ns;

/* A measurement by this clock finds all of them the same. */
static uint64_t still_clock(void)
{
	return clock_ns;
}

/* One by which whoever is measured later is faster: an interval is shorter each time. */
static uint64_t shrinking_clock(void)
{
	static uint64_t step_ns = 1 << 24;
	step_ns -= 1 << 16;
	return clock_ns += step_ns;
}

static void check_choice(void)
{
	for (unsigned n = 1; n <= SHA256_WIDTH_MAX; n++) {
		cr_assert(sha256_kernel_is_available(sha256_kernel_for(n)));
		cr_assert_str_eq(sha256_impl_name(n), sha256_kernel_for(n)->name);
	}
	cr_assert_geq(sha256_lanes_wanted(), 1);
	cr_assert_leq(sha256_lanes_wanted(), SHA256_WIDTH_MAX);
	cr_assert_str_eq(sha256_impl_name(1000), sha256_impl_name(SHA256_WIDTH_MAX));
}

Test(sha256, choice_follows_the_measurement)
{
	size_t count;
	const struct sha256_kernel *kernels = sha256_kernels(&count), *last = NULL;
	check_choice();
	for (size_t i = 0; i < count; i++) {
		if (sha256_kernel_is_available(&kernels[i]))
			last = &kernels[i];
	}

	/* All the same: a stream runs alone, since nothing is gained by company. */
	sha256_calibrate(still_clock);
	check_choice();
	cr_assert_eq(sha256_lanes_wanted(), 1);
	cr_assert_eq(sha256_kernel_for(1)->width, 1);

	sha256_calibrate(shrinking_clock);
	check_choice();
	cr_assert_eq(sha256_kernel_for(SHA256_WIDTH_MAX), last);

	cr_assert_eq(sha256_force_impl(NULL), 0);
	check_choice();
}

Test(sha256, more_streams_are_never_worse)
{
	unsigned before = 0;
	for (unsigned n = 1; n <= SHA256_WIDTH_MAX; n++) {
		const struct sha256_kernel *k = sha256_kernel_for(n);
		unsigned used = n < k->width ? n : k->width, rate = k->rate / k->width * used;
		cr_assert_geq(rate + k->width, before);
		before = rate;
	}
}

Test(sha256, unknown_names_change_nothing)
{
	cr_assert_eq(sha256_force_impl("portable"), 0);
	cr_assert_eq(sha256_force_impl("sha-512"), -ENOENT);
	cr_assert_str_eq(sha256_impl_name(1), "portable");
	cr_assert_str_eq(sha256_impl_name(16), "portable");
	cr_assert_eq(sha256_lanes_wanted(), 1);
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
