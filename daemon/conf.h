/*
 * The configuration: one struct, filled from defaults, a YAML file, and -o key.path=value, in this order.
 * sluiced.yaml(5) is the reference for every key; conf.c has the table that all of it comes from.
 */
#ifndef SLUICE_CONF_H
#define SLUICE_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum conf_durability { CONF_CRASH, CONF_POWER };
enum conf_prealloc { CONF_RESERVE, CONF_SPARSE };
enum conf_layout { CONF_LAYOUT_PLAIN, CONF_LAYOUT_EMQX };
enum conf_log_level { CONF_LOG_ERROR, CONF_LOG_WARN, CONF_LOG_INFO, CONF_LOG_DEBUG };

enum { CONF_LISTEN_MAX = 8, CONF_SUBSCRIBERS_MAX = 64 };

struct conf {
	/* top level */
	char *data;                       /* data: directory; ./sluice-data */
	uint32_t reactors;                /* reactors: auto (0) or 1–64 */
	enum conf_durability durability;  /* durability: crash | power ("power" is refused with one sentence
	                                   * until it is built) */
	/* listen: list of "ADDR:PORT" ([v6]:PORT); 127.0.0.1:1883. Port 0: any free one, logged. */
	char *listen[CONF_LISTEN_MAX];
	uint32_t listen_count;

	struct {
		enum conf_log_level level;    /* log.level: info */
	} log;
	struct {
		uint32_t connections_max;     /* mqtt.connections_max: 100000 */
		uint32_t connect_timeout_ms;  /* mqtt.connect_timeout: 10s */
		uint32_t keep_alive_max_s;    /* mqtt.keep_alive_max: 0s = whatever the client asks; else the
		                               * server keep alive */
		uint32_t min_rate_bytes;      /* mqtt.min_rate: 1KiB per second inside a packet */
		uint32_t min_rate_window_ms;  /* mqtt.min_rate_window: 30s */
		uint32_t receive_max;         /* mqtt.receive_maximum: 1024 */
		uint32_t packet_bytes_max;    /* mqtt.packet_max: 268435460 */
		uint32_t head_bytes_max;      /* mqtt.header_max: 32KiB, PUBLISH before its payload, and every
		                               * other packet whole */
		uint32_t message_bytes_max;   /* mqtt.message_max: 1MiB, payload of an ordinary PUBLISH */
		uint32_t topic_alias_max;     /* mqtt.topic_alias_maximum: 32 */
		uint32_t session_expiry_max_s;/* mqtt.session_expiry_max: 7d */
		uint32_t sessions_max;        /* mqtt.sessions_max: 200000, those without a connection too */
		uint32_t subscriptions_max;   /* mqtt.subscriptions_max: 100 per session */
		uint32_t queue_messages_max;  /* mqtt.queue_messages: 1000 per session */
		uint64_t queue_bytes_max;     /* mqtt.queue_bytes: 1MiB per session */
		uint64_t queue_total_bytes_max; /* mqtt.queue_total: 256MiB in all sessions */
		uint32_t inflight_max;        /* mqtt.inflight: 32 QoS 1 messages to a client unacknowledged */
		uint32_t replies_max;         /* mqtt.unacknowledged_max: 65535 commands of one connection not yet
		                               * answered; then it is not read */
		uint32_t drain_ms;            /* mqtt.shutdown_timeout: 10s, SIGTERM to the end */
	} mqtt;
	struct {
		uint64_t file_bytes_max;      /* transfer.file_max: 1TiB */
		uint32_t extents_max;         /* transfer.extents_max: 65536 per transfer */
		uint32_t open_max;            /* transfer.open_max: 100000 in the daemon */
		uint32_t open_client_max;     /* transfer.open_client_max: 10000 per client id */
		uint64_t staged_bytes_max;    /* transfer.staged_max: 0 = no limit but the disk */
		uint32_t ttl_min_s;           /* transfer.ttl_min: 60s   (segments_ttl is clamped to these) */
		uint32_t ttl_max_s;           /* transfer.ttl_max: 1d */
		uint64_t backlog_bytes_max;   /* transfer.backlog_max: 64MiB per transfer, received and contiguous
		                               * but not yet hashed */
		uint64_t backlog_total_max;   /* transfer.backlog_total: 512MiB */
		uint64_t scratch_bytes_max;   /* transfer.scratch_max: 1GiB, segments that replace covered bytes */
		uint32_t replay_window_s;     /* transfer.replay_window: 24h */
		uint32_t replay_max;          /* transfer.replay_max: 100000 finished transfers remembered */
		enum conf_prealloc prealloc;  /* transfer.preallocate: reserve | sparse */
		uint64_t disk_free_min;       /* transfer.disk_free_min: 64MiB left free by admission */
	} transfer;
	struct {
		char *dir;                    /* export.dir: NULL = <data>/export */
		enum conf_layout layout;      /* export.layout: plain | emqx ({clientid}/{fileid}, or EMQX's hashed buckets) */
		uint32_t file_mode;           /* export.file_mode: "0640", octal */
		uint32_t dir_mode;            /* export.dir_mode: "0750" */
		char *group;                  /* export.group: NULL = unchanged */
		bool manifest;                /* export.manifest: true */
		uint32_t parallel_max;        /* export.parallel: 64 publishes at once per reactor */
	} export;
	struct {
		uint32_t splice_min;          /* io.splice_min: 32KiB, payload still to come from which it is spliced */
		uint32_t pipe_bytes;          /* io.pipe_size: 1MiB */
		uint32_t pipes_max;           /* io.pipes: 32 per reactor */
		uint32_t buffer_bytes;        /* io.buffer_size: 128KiB, must be ≥ 2 × splice_min + header_max */
		uint32_t buffers_max;         /* io.buffers: 128 per reactor */
		uint32_t splices_max;         /* io.splices: 6 file splices at once per reactor */
		uint32_t workers_max;         /* io.workers: 24 kernel workers per reactor */
		uint32_t open_files_max;      /* io.open_files: 256 idle staging files kept open per reactor */
		uint64_t journal_bytes;       /* io.journal_size: 16MiB per journal file */
	} io;
	struct {
		uint32_t threads;             /* verify.threads: auto (0) = one per core */
		uint32_t step_bytes;          /* verify.step: 1MiB, contiguous bytes that make a hashing job */
	} verify;
	struct {
		/* events.subscribers: client ids that may subscribe to $file-event/#; "*" = everyone; none */
		char *subscribers[CONF_SUBSCRIBERS_MAX];
		uint32_t subscribers_count;
	} events;
};

/* Fills c with the defaults. 0 or −ENOMEM. */
int conf_init(struct conf *c);
/* Reads a YAML file over c: strict; unknown and repeated keys, wrong types and values out of range are
 * errors. On error −EINVAL and one sentence with file, line and key in ret_error. c may be partly changed. */
int conf_load_file(struct conf *c, const char *path, char *ret_error, size_t error_max);
/* The same from memory (tests and fuzzing); name stands for the file in messages. */
int conf_load_text(struct conf *c, const char *name, const char *text, size_t text_bytes,
	char *ret_error, size_t error_max);
/* One "key.path=value"; list keys take "a,b,c". Errors as above. */
int conf_set(struct conf *c, const char *assignment, char *ret_error, size_t error_max);
/* Checks what spans keys (buffer sizes, directories that lie within each other, …). Errors as above. */
int conf_check(const struct conf *c, char *ret_error, size_t error_max);
/* Every key with its value as YAML that conf_load_file takes; "# default" behind those unchanged. */
void conf_dump(const struct conf *c, FILE *to);
void conf_fini(struct conf *c); /* idempotent */

#endif
