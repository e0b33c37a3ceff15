/*
 * Topic names and topic filters: validity and matching (MQTT 5.0 chapter 4.7).
 */
#ifndef SLUICE_TOPIC_H
#define SLUICE_TOPIC_H

#include <stdbool.h>
#include <stddef.h>

/* Is there a "+" or "#" anywhere in it? */
bool topic_has_wildcard(const char *topic, size_t topic_bytes);
/* A name that a PUBLISH may carry: not empty, valid UTF-8 without NUL, at most 65,535 bytes, no
 * wildcard. [MQTT-3.3.2-2, MQTT-4.7.3-1] */
bool topic_name_ok(const char *topic, size_t topic_bytes);
/* A filter: not empty, valid UTF-8 without NUL, at most 65,535 bytes, wildcards only as whole
 * levels, "#" only last. [MQTT-4.7.1-1, -2] What a shared subscription demands beyond that is
 * topic_share_split's. */
bool topic_filter_ok(const char *filter, size_t filter_bytes);
/* Does the filter match the name? A wildcard in the first level does not match a name that begins
 * with "$". [MQTT-4.7.2-1] */
bool topic_match(const char *filter, size_t filter_bytes, const char *topic, size_t topic_bytes);
/* Is this a shared subscription ("$share/…")? */
bool topic_is_shared(const char *filter, size_t filter_bytes);
/* Splits "$share/<group>/<filter>", borrowed. False when it is no shared subscription or its group
 * is empty or has a wildcard, or when no filter follows. [MQTT-4.8.2-1, -2] */
bool topic_share_split(const char *filter, size_t filter_bytes, const char **ret_group,
	size_t *ret_group_bytes, const char **ret_filter, size_t *ret_filter_bytes);

#endif
