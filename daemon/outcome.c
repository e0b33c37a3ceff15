/*
 * How commands end: from an errno or a state to the reason code, the text and the details that
 * clients are told.
 */
#include <errno.h>
#include <string.h>
#include "mqtt.h"
#include "transfer.h"

void outcome_fail(struct outcome *o, uint8_t reason, const char *text, bool is_transient)
{
	*o = (struct outcome){.reason = reason, .text = text, .is_transient = is_transient};
}

void outcome_storage(struct outcome *o, int err)
{
	switch (-err) {
	case ENOSPC:
		outcome_fail(o, MQTT_RC_QUOTA_EXCEEDED, "enospc", true);
		break;
	case EDQUOT:
	case E2BIG:
		outcome_fail(o, MQTT_RC_QUOTA_EXCEEDED, "quota_exceeded", true);
		break;
	case EFBIG:
		outcome_fail(o, MQTT_RC_QUOTA_EXCEEDED, "too_large", false);
		break;
	default:
		outcome_fail(o, MQTT_RC_UNSPECIFIED, "io_error", true);
	}
}

void outcome_fill_missing(struct outcome *o, const struct cover *cover, uint64_t size)
{
	o->has_missing = true;
	o->missing_count = 0;
	o->missing_bytes = size;
	struct extent gaps[ANSWER_MISSING_MAX + 1];
	size_t n;
	if (cover) {
		o->missing_bytes = size - cover_bytes_in(cover, 0, size);
		n = cover_gaps(cover, 0, size, gaps, ANSWER_MISSING_MAX + 1);
	} else {
		n = size ? 1 : 0;
		gaps[0] = (struct extent){0, size};
	}
	o->truncated = n > ANSWER_MISSING_MAX;
	o->missing_count = o->truncated ? ANSWER_MISSING_MAX : (uint32_t)n;
	memcpy(o->missing, gaps, o->missing_count * sizeof(gaps[0]));
}

void outcome_incomplete(struct outcome *o, const struct transfer *t, uint64_t size)
{
	outcome_fail(o, MQTT_RC_UNSPECIFIED, "incomplete", false);
	outcome_fill_missing(o, t ? &t->cover : NULL, size);
}

void outcome_mismatch(struct outcome *o, const uint8_t expected[32], const uint8_t actual[32])
{
	outcome_fail(o, MQTT_RC_UNSPECIFIED, "checksum_mismatch", false);
	o->has_digests = true;
	memcpy(o->expected, expected, 32);
	memcpy(o->actual, actual, 32);
}
