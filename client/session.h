/*
 * A session with the server: connects, says CONNECT, keeps the connection alive, and connects again
 * when it is lost.
 *
 * The owner drives it with session_wait and publishes when session_room says so. Every connection
 * begins clean: what was unacknowledged when it broke is forgotten here, and the owner learns from
 * on_down that it must find out (with `status`) what has arrived. The server's answers to file
 * commands come by the subscription to $file-response/<clientid>, which is made only when somebody
 * wants it.
 */
#ifndef CLIENT_SESSION_H
#define CLIENT_SESSION_H

#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include "link.h"
#include "mqtt.h"

enum { SESSION_PENDING_MAX = 1024, SESSION_ERROR_MAX = 512 };

struct session_conf { /* all borrowed for the life of the session */
	const char *host, *port, *clientid;
	const char *username, *password; /* NULL: none */
	uint8_t version;                 /* MQTT_V311 or MQTT_V5 */
	uint64_t timeout_ms;             /* without a sign of life the connection counts as lost */
	uint64_t retry_max_ms;           /* without progress for so long we give up; 0 = never */
};

/* What an acknowledgement is for, as the owner of the publish named it. */
struct session_tag {
	void *owner;
	int kind;
	uint64_t from, to;
};

struct session_payload {
	uint32_t bytes;
	const void *mem; /* copied up to LINK_COPY_MAX bytes, else borrowed until acknowledged or
	                  * down */
	int fd;          /* when mem is NULL */
	uint64_t off;
	int *error_at;   /* see link.h */
};

struct session_handler {
	void *arg;
	void (*on_up)(void *arg);
	/* Every pending publish is forgotten. */
	void (*on_down)(void *arg);
	/* reason is 0 in v3. text is the Reason String, or absent. */
	void (*on_ack)(void *arg, const struct session_tag *tag, uint8_t reason,
		struct mqtt_str text);
	void (*on_message)(void *arg, const struct mqtt_publish *p, const char *payload);
	/* One sentence for the user: the connection is lost, or could not be made, and why. */
	void (*on_notice)(void *arg, const char *text);
};

enum session_state {
	SESSION_IDLE,       /* waits until retry_at_ms, then begins with the first address */
	SESSION_CONNECTING, /* TCP; deadline_ms */
	SESSION_GREETING,   /* CONNECT sent, CONNACK awaited; deadline_ms */
	SESSION_UP,
};

enum session_replies { SESSION_NO_REPLIES, SESSION_SUBSCRIBING, SESSION_SUBSCRIBED };

struct session {
	const struct session_conf *conf;
	const struct session_handler *handler;
	enum session_state state;
	struct link link;
	struct addrinfo *addresses, *address; /* all, and the one being tried */
	struct session_tag pending[SESSION_PENDING_MAX]; /* packet id − 1; owner NULL = free */
	uint32_t pending_count;
	uint32_t pending_max;       /* the server's Receive Maximum, at most SESSION_PENDING_MAX */
	uint16_t last_id;
	uint32_t packet_bytes_max;  /* the server's Maximum Packet Size */
	bool wants_replies;
	enum session_replies replies;
	uint64_t retry_at_ms, deadline_ms;
	uint64_t progress_ms;       /* last time that something was achieved */
	uint64_t up_ms;             /* since when SESSION_UP */
	unsigned attempts;          /* since the last progress: the exponent of the back-off */
	uint64_t keep_alive_ms;
	uint64_t sent_ms, received_ms; /* last bytes out, last bytes in */
	uint64_t ping_ms;           /* of a PINGREQ that nothing has come after; 0 = none */
	bool has_noticed;           /* on_notice was called in this outage */
	bool has_failed;
	int exit_code;              /* valid when has_failed */
	char error[SESSION_ERROR_MAX]; /* last reason; when has_failed the final one */
};

uint64_t session_now_ms(void);

void session_init(struct session *s, const struct session_conf *conf,
	const struct session_handler *handler);
void session_fini(struct session *s); /* idempotent; says DISCONNECT when it can */

/* Waits for events, at most timeout_ms (0: only looks), and handles them; extra (may be NULL) is
 * polled too. 0; −EINTR when SIGINT or SIGTERM was caught; −ECONNABORTED when the session has
 * failed for good (error and exit_code say how). */
int session_wait(struct session *s, struct pollfd *extra, int timeout_ms);

/* How many more publishes may be queued right now: 0 when down, the window is full or the link
 * is. */
uint32_t session_room(const struct session *s);
/* Asks for the subscription to $file-response/<clientid>; true when it stands. */
bool session_replies_ready(struct session *s);
/* Queues a QoS 1 PUBLISH. 0; −EAGAIN without room; −ENOMEM; −E2BIG when the server's Maximum Packet
 * Size forbids it. */
int session_publish(struct session *s, const struct session_tag *tag, const char *topic,
	const struct session_payload *payload);
/* Something was achieved: the clock of retry_max_ms and the back-off begin anew. */
void session_progress(struct session *s);
/* Ends the session for good with one sentence. */
void session_fail(struct session *s, int exit_code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Catches SIGINT and SIGTERM for session_wait; ignores SIGPIPE. */
void session_catch_signals(void);
int session_caught_signal(void); /* 0 = none */

#endif
