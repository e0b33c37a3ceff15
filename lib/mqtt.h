/*
 * The MQTT codec: 3.1, 3.1.1 and 5.0, both directions, bytes in and structs out.
 *
 * Nothing is allocated. A decoded packet borrows every string from the buffer it was decoded from
 * and is valid as long as that buffer. PUBLISH decodes as a stream: mqtt_decode_publish_head needs
 * the bytes up to the payload only, so a 256 MiB payload is never in memory.
 *
 * Decoding is strict: every rule that the specification gives a receiver is checked, and a
 * violation returns the v5 reason code that the specification names for it (the edge maps it to
 * what a v3 peer gets: a closed connection, or a CONNACK return code).
 */
#ifndef SLUICE_MQTT_H
#define SLUICE_MQTT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mqtt_type {
	MQTT_CONNECT = 1, MQTT_CONNACK, MQTT_PUBLISH, MQTT_PUBACK, MQTT_PUBREC, MQTT_PUBREL,
	MQTT_PUBCOMP, MQTT_SUBSCRIBE, MQTT_SUBACK, MQTT_UNSUBSCRIBE, MQTT_UNSUBACK, MQTT_PINGREQ,
	MQTT_PINGRESP, MQTT_DISCONNECT, MQTT_AUTH,
};

enum { MQTT_V31 = 3, MQTT_V311 = 4, MQTT_V5 = 5 };

/* Reason codes of MQTT 5.0, 2.4. */
enum mqtt_rc {
	MQTT_RC_SUCCESS = 0x00, MQTT_RC_GRANTED_QOS1 = 0x01, MQTT_RC_GRANTED_QOS2 = 0x02,
	MQTT_RC_DISCONNECT_WITH_WILL = 0x04, MQTT_RC_NO_MATCHING_SUBSCRIBERS = 0x10,
	MQTT_RC_NO_SUBSCRIPTION_EXISTED = 0x11, MQTT_RC_CONTINUE_AUTH = 0x18, MQTT_RC_REAUTH = 0x19,
	MQTT_RC_UNSPECIFIED = 0x80, MQTT_RC_MALFORMED = 0x81, MQTT_RC_PROTOCOL_ERROR = 0x82,
	MQTT_RC_IMPLEMENTATION = 0x83, MQTT_RC_UNSUPPORTED_VERSION = 0x84, MQTT_RC_BAD_CLIENTID = 0x85,
	MQTT_RC_BAD_USER_PASSWORD = 0x86, MQTT_RC_NOT_AUTHORIZED = 0x87, MQTT_RC_SERVER_UNAVAILABLE = 0x88,
	MQTT_RC_SERVER_BUSY = 0x89, MQTT_RC_BANNED = 0x8a, MQTT_RC_SERVER_SHUTDOWN = 0x8b,
	MQTT_RC_BAD_AUTH_METHOD = 0x8c, MQTT_RC_KEEP_ALIVE_TIMEOUT = 0x8d, MQTT_RC_TAKEN_OVER = 0x8e,
	MQTT_RC_FILTER_INVALID = 0x8f, MQTT_RC_TOPIC_NAME_INVALID = 0x90, MQTT_RC_PACKET_ID_IN_USE = 0x91,
	MQTT_RC_PACKET_ID_NOT_FOUND = 0x92, MQTT_RC_RECEIVE_MAX_EXCEEDED = 0x93,
	MQTT_RC_TOPIC_ALIAS_INVALID = 0x94, MQTT_RC_PACKET_TOO_LARGE = 0x95, MQTT_RC_RATE_TOO_HIGH = 0x96,
	MQTT_RC_QUOTA_EXCEEDED = 0x97, MQTT_RC_ADMINISTRATIVE = 0x98, MQTT_RC_PAYLOAD_FORMAT = 0x99,
	MQTT_RC_RETAIN_UNSUPPORTED = 0x9a, MQTT_RC_QOS_UNSUPPORTED = 0x9b, MQTT_RC_USE_ANOTHER = 0x9c,
	MQTT_RC_SERVER_MOVED = 0x9d, MQTT_RC_SHARED_UNSUPPORTED = 0x9e, MQTT_RC_CONNECTION_RATE = 0x9f,
	MQTT_RC_MAX_CONNECT_TIME = 0xa0, MQTT_RC_SUBID_UNSUPPORTED = 0xa1,
	MQTT_RC_WILDCARD_UNSUPPORTED = 0xa2,
};

enum { MQTT_REMAINING_MAX = 268435455, MQTT_FIXED_HEADER_MAX = 5 };

struct mqtt_str {
	const char *s; /* borrowed, not NUL-terminated; NULL = absent (for properties) */
	uint32_t bytes;
};

/* All properties of all packets; which ones a packet may carry is checked by the decoder. An absent
 * one is 0 / NULL, and its bit in `has` is clear. */
enum mqtt_prop_bit { /* bit numbers in mqtt_props.has */
	MQTT_P_PAYLOAD_FORMAT, MQTT_P_MESSAGE_EXPIRY, MQTT_P_CONTENT_TYPE, MQTT_P_RESPONSE_TOPIC,
	MQTT_P_CORRELATION_DATA, MQTT_P_SUBSCRIPTION_ID, MQTT_P_SESSION_EXPIRY,
	MQTT_P_ASSIGNED_CLIENTID, MQTT_P_SERVER_KEEP_ALIVE, MQTT_P_AUTH_METHOD, MQTT_P_AUTH_DATA,
	MQTT_P_REQUEST_PROBLEM_INFO, MQTT_P_WILL_DELAY, MQTT_P_REQUEST_RESPONSE_INFO,
	MQTT_P_RESPONSE_INFO, MQTT_P_SERVER_REFERENCE, MQTT_P_REASON_STRING, MQTT_P_RECEIVE_MAX,
	MQTT_P_TOPIC_ALIAS_MAX, MQTT_P_TOPIC_ALIAS, MQTT_P_MAXIMUM_QOS, MQTT_P_RETAIN_AVAILABLE,
	MQTT_P_USER_PROPERTY, MQTT_P_MAXIMUM_PACKET_SIZE, MQTT_P_WILDCARD_AVAILABLE,
	MQTT_P_SUBID_AVAILABLE, MQTT_P_SHARED_AVAILABLE,
};
#define MQTT_HAS(p, bit) (((p)->has >> (bit)) & 1u)

enum { MQTT_SUBIDS_MAX = 16 };

struct mqtt_props {
	uint32_t has;
	uint8_t payload_format, request_problem_info, request_response_info, maximum_qos,
		retain_available, wildcard_available, subid_available, shared_available;
	uint16_t server_keep_alive, receive_max, topic_alias_max, topic_alias;
	uint32_t message_expiry, session_expiry, will_delay, maximum_packet_size;
	struct mqtt_str content_type, response_topic, correlation_data, assigned_clientid, auth_method,
		auth_data, response_info, server_reference, reason_string;
	/* All user properties as one span: the encoded property bytes 0x26 len key len value …,
	 * only these, in order, when they are adjacent in the packet; iterate with
	 * mqtt_user_property_next. When the peer interleaved them with others, the span runs from
	 * the first to the last and the iterator skips the others. */
	struct mqtt_str user_properties;
	/* A PUBLISH to a client may carry several, SUBSCRIBE one. Of more than MQTT_SUBIDS_MAX the
	 * first ones are kept. The array comes last because it is the one thing that decoding does
	 * not clear. */
	uint8_t subids_count;
	uint32_t subids[MQTT_SUBIDS_MAX];
};

/* Walks a user_properties span. cursor begins at 0. False at the end. */
bool mqtt_user_property_next(const struct mqtt_str *span, uint32_t *cursor, struct mqtt_str *ret_key,
	struct mqtt_str *ret_value);

struct mqtt_connect {
	uint8_t version; /* MQTT_V31, MQTT_V311, MQTT_V5 */
	bool clean_start;
	uint16_t keep_alive_s;
	struct mqtt_props props;
	struct mqtt_str clientid; /* may be empty (bytes == 0) */
	bool has_will;
	bool will_retain;
	uint8_t will_qos;
	struct mqtt_props will_props;
	struct mqtt_str will_topic, will_payload;
	bool has_username, has_password;
	struct mqtt_str username, password;
};

struct mqtt_connack {
	bool session_present;
	uint8_t code; /* v5 reason code, or v3 return code 0–5 */
	struct mqtt_props props;
};

struct mqtt_publish {
	bool dup, retain;
	uint8_t qos;
	uint16_t packet_id;         /* 0 at QoS 0 */
	struct mqtt_str topic;      /* may be empty in v5 when a topic alias is set */
	struct mqtt_props props;
	uint32_t payload_bytes;
};

struct mqtt_ack { /* PUBACK PUBREC PUBREL PUBCOMP */
	uint16_t packet_id;
	uint8_t reason;
	struct mqtt_props props;
};

struct mqtt_sub { /* one entry of SUBSCRIBE / UNSUBSCRIBE */
	struct mqtt_str filter;
	uint8_t options; /* QoS bits 0–1, No Local 2, Retain As Published 3, Retain Handling 4–5 */
};

struct mqtt_subscribe { /* SUBSCRIBE and UNSUBSCRIBE; entries by mqtt_subscribe_next */
	uint16_t packet_id;
	struct mqtt_props props;
	uint32_t count;              /* ≥ 1, all validated for syntax by the decoder */
	const uint8_t *entries;
	uint32_t entries_bytes;
	bool is_unsubscribe;
};

struct mqtt_suback { /* SUBACK and UNSUBACK (v3 UNSUBACK has no codes) */
	uint16_t packet_id;
	struct mqtt_props props;
	const uint8_t *codes;
	uint32_t codes_count;
};

struct mqtt_disconnect { /* and AUTH */
	uint8_t reason;
	struct mqtt_props props;
};

/* --- decoding ------------------------------------------------------------------------------- */

/* After a failure what *ret holds is undefined, except where it is said. Reason codes that several
 * decoders return, with the clause where it is not obvious:
 *   −0x81  cut short or too long for its own lengths, bytes left over, reserved bits, ill-formed UTF-8 or
 *          U+0000, variable integer longer than needed [MQTT-1.5.5-1], unknown property or one that this
 *          packet may not carry (2.2.2.2)
 *   −0x82  packet id 0, a property twice or with a value that it may not have, authentication data without
 *          a method, a reason code that this packet may not carry, empty SUBSCRIBE [MQTT-3.8.3-2]
 *   −0x8f  a filter, −0x90 a topic that breaks chapter 4.7
 *   −0x94  topic alias 0
 * Rules that need to know who is who (a client's PUBLISH with a subscription identifier, a server's
 * DISCONNECT with a session expiry) or the session (alias over the maximum) are the caller's. */

enum { MQTT_MORE = 1 }; /* the buffer does not yet hold enough */

/* The fixed header. 0 and *ret_type, *ret_flags, *ret_remaining (bytes after the fixed header),
 * *ret_header_bytes (2–5); MQTT_MORE; or a negated reason code (−0x81: fifth length byte, reserved
 * type 0; reserved flags wrong for the type, QoS 3, DUP at QoS 0 → −0x81). Works on as little as
 * one byte. A length in more bytes than needed is accepted here: some v3 clients write it so, and
 * v3 allows it. */
int mqtt_decode_fixed(const uint8_t *buf, size_t buf_bytes, uint8_t *ret_type, uint8_t *ret_flags,
	uint32_t *ret_remaining, uint32_t *ret_header_bytes);

/* A PUBLISH up to its payload. buf begins at the fixed header. 0 and *ret_head_bytes: all bytes
 * before the payload, fixed header included; MQTT_MORE when buf ends before the payload begins (a
 * hint of how many bytes the head has at least is in *ret_head_bytes); or a negated reason code:
 * packet too short for its own lengths, id 0, bad UTF-8, property rules → −0x81 / −0x82 as the
 * specification says, wildcard in the topic, empty topic without alias → −0x90 resp. −0x82, alias 0
 * → −0x94. */
int mqtt_decode_publish_head(const uint8_t *buf, size_t buf_bytes, uint8_t version,
	struct mqtt_publish *ret, uint32_t *ret_head_bytes);

/* The others take the body: the `remaining` bytes after the fixed header, whole. 0 or a negated
 * reason code. For CONNECT: −0x84 for an unknown protocol name or level (also a known one with the
 * wrong name), −0x85 for an empty client id without clean session in v3.1.1 [MQTT-3.1.3-8] and for
 * any empty one in 3.1, whose limit of 23 bytes nobody keeps and we do not enforce. After a failure
 * ret->version is valid: the level that the packet asked for, or 0 when the packet did not get that
 * far; a CONNACK that refuses it is written in that version. */
int mqtt_decode_connect(const uint8_t *body, uint32_t body_bytes, struct mqtt_connect *ret);
int mqtt_decode_connack(const uint8_t *body, uint32_t body_bytes, uint8_t version,
	struct mqtt_connack *ret);
int mqtt_decode_ack(const uint8_t *body, uint32_t body_bytes, uint8_t version, uint8_t type,
	struct mqtt_ack *ret);
int mqtt_decode_subscribe(const uint8_t *body, uint32_t body_bytes, uint8_t version, uint8_t type,
	struct mqtt_subscribe *ret);
/* Next entry; cursor begins at 0. False at the end. */
bool mqtt_subscribe_next(const struct mqtt_subscribe *s, uint32_t *cursor, struct mqtt_sub *ret);
int mqtt_decode_suback(const uint8_t *body, uint32_t body_bytes, uint8_t version, uint8_t type,
	struct mqtt_suback *ret);
/* DISCONNECT and AUTH. An empty body is reason 0. */
int mqtt_decode_disconnect(const uint8_t *body, uint32_t body_bytes, uint8_t version, uint8_t type,
	struct mqtt_disconnect *ret);

/* --- encoding ------------------------------------------------------------------------------- */

/* Each writes a whole packet (PUBLISH: its head, the payload follows) and returns its bytes, or 0
 * when buf_max is too small or a string is longer than 65,535 bytes. With version < 5 properties
 * and (acks) reason codes are left out. An ack with reason 0 and no properties takes the 4-byte
 * form. For DUP copies the caller sets bit 3 of the first byte. In props, only what is set in `has`
 * is written, and of that only what the packet may carry: a will's properties may be handed to the
 * PUBLISH that it becomes. Of the user_properties span the user properties are copied, not what
 * stands between them. */
size_t mqtt_encode_connect(uint8_t *buf, size_t buf_max, const struct mqtt_connect *c);
size_t mqtt_encode_connack(uint8_t *buf, size_t buf_max, uint8_t version, const struct mqtt_connack *c);
size_t mqtt_encode_publish_head(uint8_t *buf, size_t buf_max, uint8_t version,
	const struct mqtt_publish *p);
size_t mqtt_encode_ack(uint8_t *buf, size_t buf_max, uint8_t version, uint8_t type,
	const struct mqtt_ack *a);
/* props may be NULL: none. subs_count > 0. */
size_t mqtt_encode_subscribe(uint8_t *buf, size_t buf_max, uint8_t version, uint16_t packet_id,
	const struct mqtt_props *props, const struct mqtt_sub *subs, size_t subs_count);
size_t mqtt_encode_unsubscribe(uint8_t *buf, size_t buf_max, uint8_t version, uint16_t packet_id,
	const struct mqtt_props *props, const struct mqtt_sub *subs, size_t subs_count);
size_t mqtt_encode_suback(uint8_t *buf, size_t buf_max, uint8_t version, uint8_t type,
	const struct mqtt_suback *s);
size_t mqtt_encode_disconnect(uint8_t *buf, size_t buf_max, uint8_t version, uint8_t type,
	const struct mqtt_disconnect *d);
/* PINGREQ, PINGRESP: two bytes. */
size_t mqtt_encode_ping(uint8_t *buf, size_t buf_max, uint8_t type);

/* "PUBLISH", …; "reserved" for 0 and > 15. */
const char *mqtt_type_name(uint8_t type);
/* "Not authorized", … as in the specification's table; "unknown" otherwise. */
const char *mqtt_rc_name(uint8_t rc);
/* May a v5 packet of this type carry this reason code? (Table 2-6) */
bool mqtt_rc_allowed(uint8_t rc, uint8_t type);

#endif
