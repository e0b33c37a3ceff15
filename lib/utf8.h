/* UTF-8 as MQTT has it. */
#ifndef SLUICE_UTF8_H
#define SLUICE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Well-formed UTF-8 (no overlongs, no surrogates, ≤ U+10FFFF) without U+0000.
 * [MQTT-1.5.4-1, MQTT-1.5.4-2] */
bool utf8_mqtt_ok(const char *s, size_t s_bytes);
/* Decodes one character at s (s_bytes > 0): its length 1–4 and the code point, or 0 when
 * malformed. */
unsigned utf8_next(const char *s, size_t s_bytes, uint32_t *ret_code);

#endif
