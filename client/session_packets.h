/*
 * The packets of a session: what session.c sends, and what comes in. For session.c only.
 */
#ifndef CLIENT_SESSION_PACKETS_H
#define CLIENT_SESSION_PACKETS_H

#include "session.h"

/* Each queues one packet. */
void session_packet_connect(struct session *s);
void session_packet_ping(struct session *s);
/* Queues DISCONNECT and sends what can be sent at once, unless a payload is under way. */
void session_packet_disconnect(struct session *s);
/* Handles every whole packet that has been received. */
void session_packets_handle(struct session *s);

/* The connection is gone, for the reason given: back to SESSION_IDLE, or the end. In session.c. */
void session_lost(struct session *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
