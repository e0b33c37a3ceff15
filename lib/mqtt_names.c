/*
 * Packet types and reason codes: their names, and which packet may carry which code (MQTT 5.0,
 * table 2-6).
 */
#include "mqtt.h"

static const char *const type_names[16] = {
	[MQTT_CONNECT] = "CONNECT",	    [MQTT_CONNACK] = "CONNACK",
	[MQTT_PUBLISH] = "PUBLISH",	    [MQTT_PUBACK] = "PUBACK",
	[MQTT_PUBREC] = "PUBREC",	    [MQTT_PUBREL] = "PUBREL",
	[MQTT_PUBCOMP] = "PUBCOMP",	    [MQTT_SUBSCRIBE] = "SUBSCRIBE",
	[MQTT_SUBACK] = "SUBACK",	    [MQTT_UNSUBSCRIBE] = "UNSUBSCRIBE",
	[MQTT_UNSUBACK] = "UNSUBACK",	    [MQTT_PINGREQ] = "PINGREQ",
	[MQTT_PINGRESP] = "PINGRESP",	    [MQTT_DISCONNECT] = "DISCONNECT",
	[MQTT_AUTH] = "AUTH",
};

enum {
	CONNACK = 1 << MQTT_CONNACK,
	PUBACK = 1 << MQTT_PUBACK | 1 << MQTT_PUBREC, /* the two have the same codes */
	PUBREL = 1 << MQTT_PUBREL | 1 << MQTT_PUBCOMP, /* and so have these two */
	SUBACK = 1 << MQTT_SUBACK,
	UNSUBACK = 1 << MQTT_UNSUBACK,
	DISCONNECT = 1 << MQTT_DISCONNECT,
	AUTH = 1 << MQTT_AUTH,
};

struct rc {
	const char *name;
	uint16_t packets; /* bits 1 << type */
};

static const struct rc rcs[] = {
	[0x00] = {"Success", CONNACK | PUBACK | PUBREL | SUBACK | UNSUBACK | DISCONNECT | AUTH},
	[0x01] = {"Granted QoS 1", SUBACK},
	[0x02] = {"Granted QoS 2", SUBACK},
	[0x04] = {"Disconnect with Will Message", DISCONNECT},
	[0x10] = {"No matching subscribers", PUBACK},
	[0x11] = {"No subscription existed", UNSUBACK},
	[0x18] = {"Continue authentication", AUTH},
	[0x19] = {"Re-authenticate", AUTH},
	[0x80] = {"Unspecified error", CONNACK | PUBACK | SUBACK | UNSUBACK | DISCONNECT},
	[0x81] = {"Malformed Packet", CONNACK | DISCONNECT},
	[0x82] = {"Protocol Error", CONNACK | DISCONNECT},
	[0x83] = {"Implementation specific error",
		CONNACK | PUBACK | SUBACK | UNSUBACK | DISCONNECT},
	[0x84] = {"Unsupported Protocol Version", CONNACK},
	[0x85] = {"Client Identifier not valid", CONNACK},
	[0x86] = {"Bad User Name or Password", CONNACK},
	[0x87] = {"Not authorized", CONNACK | PUBACK | SUBACK | UNSUBACK | DISCONNECT},
	[0x88] = {"Server unavailable", CONNACK},
	[0x89] = {"Server busy", CONNACK | DISCONNECT},
	[0x8a] = {"Banned", CONNACK},
	[0x8b] = {"Server shutting down", DISCONNECT},
	[0x8c] = {"Bad authentication method", CONNACK | DISCONNECT},
	[0x8d] = {"Keep Alive timeout", DISCONNECT},
	[0x8e] = {"Session taken over", DISCONNECT},
	[0x8f] = {"Topic Filter invalid", SUBACK | UNSUBACK | DISCONNECT},
	[0x90] = {"Topic Name invalid", CONNACK | PUBACK | DISCONNECT},
	[0x91] = {"Packet Identifier in use", PUBACK | SUBACK | UNSUBACK},
	[0x92] = {"Packet Identifier not found", PUBREL},
	[0x93] = {"Receive Maximum exceeded", DISCONNECT},
	[0x94] = {"Topic Alias invalid", DISCONNECT},
	[0x95] = {"Packet too large", CONNACK | DISCONNECT},
	[0x96] = {"Message rate too high", DISCONNECT},
	[0x97] = {"Quota exceeded", CONNACK | PUBACK | SUBACK | DISCONNECT},
	[0x98] = {"Administrative action", DISCONNECT},
	[0x99] = {"Payload format invalid", CONNACK | PUBACK | DISCONNECT},
	[0x9a] = {"Retain not supported", CONNACK | DISCONNECT},
	[0x9b] = {"QoS not supported", CONNACK | DISCONNECT},
	[0x9c] = {"Use another server", CONNACK | DISCONNECT},
	[0x9d] = {"Server moved", CONNACK | DISCONNECT},
	[0x9e] = {"Shared Subscriptions not supported", SUBACK | DISCONNECT},
	[0x9f] = {"Connection rate exceeded", CONNACK | DISCONNECT},
	[0xa0] = {"Maximum connect time", DISCONNECT},
	[0xa1] = {"Subscription Identifiers not supported", SUBACK | DISCONNECT},
	[0xa2] = {"Wildcard Subscriptions not supported", SUBACK | DISCONNECT},
};

enum { RCS_COUNT = sizeof(rcs) / sizeof(rcs[0]) };

const char *mqtt_type_name(uint8_t type)
{
	return type < 16 && type_names[type] ? type_names[type] : "reserved";
}

const char *mqtt_rc_name(uint8_t rc)
{
	return rc < RCS_COUNT && rcs[rc].name ? rcs[rc].name : "unknown";
}

bool mqtt_rc_allowed(uint8_t rc, uint8_t type)
{
	return rc < RCS_COUNT && type < 16 && (rcs[rc].packets >> type & 1);
}
