/*
 * The configuration: one struct, filled from defaults, a YAML file, and -o key.path=value, in this
 * order. sluiced.yaml(5) is the reference for every key; conf_table.c has the table that all of it
 * comes from. Beside each member stand its key, its default, and what it counts.
 */
#ifndef SLUICE_CONF_H
#define SLUICE_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum conf_durability { CONF_CRASH, CONF_POWER };
enum conf_prealloc { CONF_RESERVE, CONF_SPARSE };
enum conf_digest { CONF_DIGEST_ALWAYS, CONF_DIGEST_ASKED };
enum conf_layout { CONF_LAYOUT_PLAIN, CONF_LAYOUT_EMQX };
enum conf_log_level { CONF_LOG_ERROR, CONF_LOG_WARN, CONF_LOG_INFO, CONF_LOG_DEBUG };

enum { CONF_LISTEN_MAX = 8, CONF_SUBSCRIBERS_MAX = 64, CONF_ADDRESS_MAX = 80 };

struct conf {
	char *data;                      /* data: directory; ./sluice-data */
	uint32_t reactors;               /* reactors: 1–64, or 0 for auto */
	enum conf_durability durability; /* durability: crash; of listeners that don't say */
	char *listen[CONF_LISTEN_MAX];   /* listen: numeric "ADDR:PORT" or "[v6]:PORT"; port 0 is
					  * any free one; perhaps with " durability=power" behind it:
					  * conf_listener takes them apart */
	uint32_t listen_count;           /* 1 or more */

	struct {
		enum conf_log_level level; /* log.level: info */
	} log;
	struct {
		uint32_t connections_max;      /* connections_max: 100000 */
		uint32_t connections_address_max; /* connections_address_max: 0 = no limit */
		uint32_t connect_rate;         /* connect_rate: 0 = no limit; per second, daemon */
		uint32_t connect_rate_address; /* connect_rate_address: 0 = no limit; per second */
		uint32_t connect_timeout_ms;   /* connect_timeout: 10s */
		uint32_t takeover_timeout_ms;  /* takeover_timeout: 1s, for what the client id's old
						* connection has sent */
		uint32_t keep_alive_max_s;     /* keep_alive_max: 0s = what the client asks; else
						* the server keep alive */
		uint32_t min_rate_bytes;       /* min_rate: 1KiB per second inside a packet */
		uint32_t min_rate_window_ms;   /* min_rate_window: 30s */
		uint32_t receive_max;          /* receive_maximum: 1024 */
		uint32_t packet_bytes_max;     /* packet_max: 268435460 */
		uint32_t head_bytes_max;       /* header_max: 32KiB, a PUBLISH before its payload,
						* and every other packet whole */
		uint32_t message_bytes_max;    /* message_max: 1MiB, an ordinary message's payload */
		uint64_t received_bytes_max;   /* received_total: 512MiB in memory, of packets of all
						* connections that are not whole or not handled yet */
		uint64_t unsent_bytes_max;     /* unsent_total: 256MiB of output in memory, of all connections */
		uint32_t topic_alias_max;      /* topic_alias_maximum: 32 */
		uint32_t session_expiry_max_s; /* session_expiry_max: 7d */
		uint32_t sessions_max;         /* sessions_max: 200000, connected or not */
		uint32_t subscriptions_max;    /* subscriptions_max: 100 per session */
		uint32_t filter_levels_max;    /* filter_levels_max: 128 levels of a topic filter, each of which takes
		                                * some 100 bytes of memory */
		uint32_t queue_messages_max;   /* queue_messages: 1000 per session */
		uint64_t queue_bytes_max;      /* queue_bytes: 1MiB per session */
		uint64_t queue_total_bytes_max; /* queue_total: 256MiB in all sessions */
		uint32_t inflight_max;         /* inflight: 32 QoS 1 messages to a client that it
						* has not acknowledged */
		uint32_t replies_max;          /* unacknowledged_max: 65535 commands of a connection
						* not yet answered; then it is not read */
		uint32_t statuses_max;         /* statuses_max: 16 status commands of a connection not yet
						* answered; then it is not read */
		uint32_t statuses_reactor_max; /* statuses_reactor_max: 64 of all connections of a reactor; then
						* each of them has only one */
		uint32_t drain_ms;             /* shutdown_timeout: 10s, from SIGTERM to the end */
	} mqtt;
	struct {
		uint64_t client_bytes_rate;    /* client_bytes_rate: 0 = no limit; per second */
		uint32_t client_messages_rate; /* client_messages_rate: 0 = no limit; per second */
		uint64_t user_bytes_rate;      /* user_bytes_rate: 0 = no limit; per second */
		uint32_t user_messages_rate;   /* user_messages_rate: 0 = no limit; per second */
	} limits;
	struct {
		uint64_t file_bytes_max;     /* file_max: 1TiB */
		uint32_t extents_max;        /* extents_max: 65536 per transfer */
		uint32_t unfinished_max;     /* unfinished_max: 1024 segments per transfer */
		uint32_t open_max;           /* open_max: 100000 in the daemon */
		uint32_t open_client_max;    /* open_client_max: 10000 per client id */
		uint32_t open_user_max;      /* open_user_max: 0 = no limit, per user name */
		uint32_t files_client_max;   /* files_client_max: 0 = no limit, open and exported, per
					      * client id */
		uint32_t files_user_max;     /* files_user_max: 0 = no limit, the same per user name */
		uint64_t staged_bytes_max;   /* staged_max: 0 = no limit but the disk */
		uint64_t staged_client_max;  /* staged_client_max: 0 = no limit, per client id */
		uint64_t staged_user_max;    /* staged_user_max: 0 = no limit, per user name */
		uint32_t ttl_min_s;          /* ttl_min: 60s; segments_ttl is clamped to the two */
		uint32_t ttl_max_s;          /* ttl_max: 1d */
		uint64_t backlog_bytes_max;  /* backlog_max: 64MiB per transfer, received and
					      * contiguous but not yet hashed */
		uint64_t backlog_total_max;  /* backlog_total: 512MiB */
		uint64_t scratch_bytes_max;  /* scratch_max: 1GiB, of segments over covered bytes */
		uint32_t replay_window_s;    /* replay_window: 24h */
		uint32_t replay_max;         /* replay_max: 100000 finished transfers remembered */
		enum conf_prealloc prealloc; /* preallocate: reserve | sparse */
		uint64_t sync_bytes;         /* sync_every: 4GiB of a transfer in sequence; 0: at fin alone */
		uint64_t disk_free_min;      /* disk_free_min: 64MiB; below it no transfer is opened */
		uint64_t disk_free_stop;     /* disk_free_stop: 16MiB; below it no segment that needs
					      * space is taken; at most disk_free_min counts */
	} transfer;
	struct {
		char *dir;              /* dir: NULL = <data>/export */
		enum conf_layout layout; /* layout: plain ({clientid}/{fileid}) | emqx (hashed) */
		uint32_t file_mode;     /* file_mode: "0640", octal */
		uint32_t dir_mode;      /* dir_mode: "0750" */
		char *group;            /* group: NULL = unchanged */
		bool manifest;          /* manifest: true */
		bool retention;         /* retention: false; expire_at removes exports */
		uint32_t retention_interval_s; /* retention_interval: 10m, between two sweeps */
		uint32_t parallel_max;  /* parallel: 512 publishes at once per reactor */
	} export;
	struct {
		uint32_t splice_min;     /* splice_min: 48KiB, payload still to come from which it
					  * is spliced */
		uint32_t pipe_bytes;     /* pipe_size: 1MiB */
		uint32_t pipes_max;      /* pipes: 32 per reactor */
		uint32_t buffer_bytes;   /* buffer_size: 128KiB; ≥ 2 × splice_min + header_max */
		uint32_t buffers_max;    /* buffers: 128 per reactor */
		uint32_t splices_max;    /* splices: 6 file splices at once per reactor */
		uint32_t workers_max;    /* workers: 24 kernel workers per reactor */
		uint32_t open_files_max; /* open_files: 4096 idle staging files open per reactor */
		uint64_t journal_bytes;  /* journal_size: 16MiB per journal file */
	} io;
	struct {
		uint32_t threads;    /* threads: 1–256, or 0 for auto, one per core */
		uint32_t step_bytes; /* step: 1MiB, contiguous bytes that make a hashing job */
		enum conf_digest digest; /* digest: always | asked, which files get a SHA-256 */
	} verify;
	struct {
		/* subscribers: client ids that may subscribe to $file-event/#; "*": all; none */
		char *subscribers[CONF_SUBSCRIBERS_MAX];
		uint32_t subscribers_count;
	} events;
};

/* Fills c with the defaults. 0 or −ENOMEM. */
int conf_init(struct conf *c);
/* Reads a YAML file over c: strict; unknown and repeated keys, wrong types and values out of range
 * are errors. On error −EINVAL and one sentence with file, line and key in ret_error. c may be
 * partly changed. */
int conf_load_file(struct conf *c, const char *path, char *ret_error, size_t error_max);
/* The same from memory (tests and fuzzing); name stands for the file in messages. */
int conf_load_text(struct conf *c, const char *name, const char *text, size_t text_bytes,
	char *ret_error, size_t error_max);
/* One "key.path=value"; list keys take "a,b,c". Errors as above; a value that is refused leaves the
 * one before. */
int conf_set(struct conf *c, const char *assignment, char *ret_error, size_t error_max);
/* Checks what spans keys (buffer sizes, directories that lie within each other, …) and that
 * export.group exists. Errors as above. */
int conf_check(const struct conf *c, char *ret_error, size_t error_max);
/* How many of io.workers may sync files at once: at least one, and the journal finds one, too. Of a
 * configuration that was checked. */
uint32_t conf_syncs_max(const struct conf *c);
/* What the idx-th item of `listen` says. */
struct conf_listener {
	char address[CONF_ADDRESS_MAX];
	enum conf_durability durability;
};
void conf_listener(const struct conf *c, uint32_t idx, struct conf_listener *ret);
/* Is any listener's durability power? */
bool conf_has_power(const struct conf *c);
/* Every key with its value as YAML that conf_load_file takes; "# default" behind what is
 * unchanged. */
void conf_dump(const struct conf *c, FILE *to);
void conf_fini(struct conf *c); /* idempotent */

#endif
