/*
 * The MQTT codec: any bytes, as a stream of packets of one version.
 *
 * The first byte chooses the version. What decodes must encode, and decode again to the same. Of a
 * PUBLISH every shorter prefix must say "more", with a count that is more than it has and not more
 * than the head needs: whether a head is read in one piece or byte by byte may change nothing.
 */
#include "../mqtt_any.h"

#include <stdio.h>

#define MUST(condition) ((condition) ? (void)0 : must_failed(#condition))

enum { PREFIXES_MAX = 512 }; /* of a head, tried one by one */

static void must_failed(const char *what)
{
	fprintf(stderr, "not so: %s\n", what);
	abort();
}

static void check_round_trip(const struct any *a)
{
	static uint8_t buf[1 << 16], again[1 << 16];
	struct any decoded;
	uint32_t used;
	size_t bytes = any_encode(buf, sizeof(buf), a);

	/* An encoded packet is never longer than what was decoded, but that may be over the
	 * buffer. */
	if (bytes == 0)
		return;
	MUST(any_decode(buf, bytes, a->version, &decoded, &used) == 0);
	MUST(used == bytes);
	MUST(any_equal(a, &decoded));
	MUST(any_encode(again, sizeof(again), &decoded) == bytes);
	MUST(memcmp(buf, again, bytes) == 0);
	for (size_t room = 0; room < bytes && room < PREFIXES_MAX; room++)
		MUST(any_encode(again, room, a) == 0);
}

/* A prefix in an allocation of its own size, decoded. */
static int decode_prefix(const uint8_t *buf, size_t bytes, uint8_t version, uint32_t *ret_hint)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);
	struct mqtt_publish publish;
	int rc;

	memcpy(copy, buf, bytes);
	rc = mqtt_decode_publish_head(copy, bytes, version, &publish, ret_hint);
	free(copy);
	return rc;
}

static void check_prefixes(const uint8_t *buf, uint32_t head_bytes, uint8_t version)
{
	for (uint32_t bytes = 0; bytes < head_bytes && bytes < PREFIXES_MAX; bytes++) {
		uint32_t hint = 0;

		MUST(decode_prefix(buf, bytes, version, &hint) == MQTT_MORE);
		MUST(hint > bytes && hint <= head_bytes);
	}
}

/* A PUBLISH that fails or is unfinished as a whole has no prefix that decodes. */
static void check_bad_prefixes(const uint8_t *buf, size_t buf_bytes, uint8_t version)
{
	uint32_t hint;

	for (size_t bytes = 0; bytes < buf_bytes && bytes < PREFIXES_MAX; bytes++)
		MUST(decode_prefix(buf, bytes, version, &hint) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const uint8_t versions[] = {MQTT_V5, MQTT_V311, MQTT_V31};
	uint8_t version;

	if (bytes == 0)
		return 0;
	version = versions[data[0] % 3];
	data++;
	bytes--;
	while (bytes > 0) {
		struct any a;
		uint32_t used;
		int rc = any_decode(data, bytes, version, &a, &used);

		if (rc != 0) {
			MUST(rc == MQTT_MORE || (rc <= -0x80 && rc >= -0xa2));
			if (data[0] >> 4 == MQTT_PUBLISH)
				check_bad_prefixes(data, bytes, version);
			return 0;
		}
		check_round_trip(&a);
		if (a.type == MQTT_PUBLISH) {
			check_prefixes(data, used, version);
			used += bytes - used < a.publish.payload_bytes ? bytes - used
								       : a.publish.payload_bytes;
		}
		version = a.version; /* CONNECT brings its own */
		data += used;
		bytes -= used;
	}
	return 0;
}
