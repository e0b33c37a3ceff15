/*
 * Topic names and topic filters: validity and matching (MQTT 5.0 chapter 4.7).
 */
#ifndef SLUICE_TOPIC_H
#define SLUICE_TOPIC_H

#include <stdbool.h>
#include <stddef.h>

/* A name that a PUBLISH may carry: not empty, valid UTF-8 without NUL, no wildcard.
 * [MQTT-3.3.2-2, MQTT-4.7.3-1] UTF-8 validity is checked by utf8_mqtt_ok. */
bool topic_name_ok(const char *topic, size_t topic_bytes);
/* A filter: wildcards only as whole levels, "#" only last. [MQTT-4.7.1-1, -2] */
bool topic_filter_ok(const char *filter, size_t filter_bytes);
/* Does the filter match the name? A wildcard in the first level does not match a name that begins
 * with "$". [MQTT-4.7.2-1] */
bool topic_match(const char *filter, size_t filter_bytes, const char *topic, size_t topic_bytes);
/* Is this a shared subscription ("$share/…")? */
bool topic_is_shared(const char *filter, size_t filter_bytes);

#endif
