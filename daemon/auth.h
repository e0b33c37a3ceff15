/*
 * Who may subscribe and publish where: the rules that protect the topics of file transfer.
 *
 * Pure functions over the configuration, a client id and a topic. They return a v5 reason code:
 * 0x00 or 0x87 (not authorized). The filter or topic is already known to be valid MQTT.
 *
 *     first level        subscribe                              publish, will, Response Topic
 *     $file-response     only $file-response/<own client id>    the same
 *     $file-event        client ids in events.subscribers       never
 *     $file $file-async  never: commands are not messages       yes (they are commands)
 *     $SYS               yes                                    never
 *     anything else      yes                                    yes
 *
 * "Own" is equality of the whole rest of the topic, byte by byte. A client id may contain "/": it
 * is then several levels, and still only its own string. A client id with "+" or "#" has no
 * response topic at all: the filter that spells it would be a pattern and read the answers of
 * others, and the name that spells it can't be published.
 */
#ifndef SLUICE_AUTH_H
#define SLUICE_AUTH_H

#include <stdint.h>
#include "conf.h"
#include "mqtt.h"

/* May this client subscribe? A shared subscription is judged by the filter behind its group. */
uint8_t auth_subscribe(const struct conf *conf, struct mqtt_str clientid, struct mqtt_str filter);
/* For ordinary publishes, wills and Response Topics. */
uint8_t auth_publish(const struct conf *conf, struct mqtt_str clientid, struct mqtt_str topic);

#endif
