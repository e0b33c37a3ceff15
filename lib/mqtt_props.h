/*
 * The properties of MQTT 5, for the codec's own files. Everybody else has what mqtt.h shows.
 */
#ifndef SLUICE_MQTT_PROPS_H
#define SLUICE_MQTT_PROPS_H

#include "mqtt.h"
#include "wire.h"

/* Where properties stand: a packet of a type, or in CONNECT the will, which has the reserved type
 * 0's bit. */
enum { MQTT_IN_WILL = 1 << 0 };
#define MQTT_IN(type) (1u << (type))

/* Makes every property absent. */
void mqtt_props_clear(struct mqtt_props *p);
/* The properties without their length. 0 or a negated reason code. */
int mqtt_props_parse(
	const uint8_t *span, uint32_t span_bytes, uint32_t where, struct mqtt_props *ret);
/* Length and properties, from the cursor. 0 or a negated reason code; −0x81 when they are cut
 * short. */
int mqtt_props_read(struct wire_reader *r, uint32_t where, struct mqtt_props *ret);
/* Length and properties. */
void mqtt_props_write(struct wire_writer *w, const struct mqtt_props *p, uint32_t where);

#endif
