/*
 * A simulated client: MQTT from the other side, byte by byte, with the project's own codec. It
 * matches what comes back with what it has sent, and hands results to the model. What it does is
 * sim_load.c's.
 */
#ifndef SLUICE_SIM_CLIENT_H
#define SLUICE_SIM_CLIENT_H

#include "sim_model.h"
#include "sim_net.h"

struct client {
	uint32_t idx;
	char id[16];
	uint8_t version;
	bool is_persistent;             /* asks for its session back */
	bool wants_responses;           /* subscribes to $file-response/… */
	uint16_t keep_alive_s;
	const char *user;               /* name; NULL: none */
	struct sock *sock;              /* NULL: offline */
	bool online;                    /* CONNACK has come */
	bool subscribed;                /* SUBACK has come */
	bool dead, paused;
	bool is_back;                   /* nothing was sent yet over this connection (sim_load.c) */
	uint8_t *in;
	uint32_t in_bytes, in_max;
	uint32_t seq;                   /* of the last command */
	uint16_t pid;                   /* likewise */
	/* Packet identifiers of this connection: acknowledged for good; answered. */
	uint8_t over[8192], answered[8192];
	struct cmd cmds[MODEL_COMMANDS_MAX];
	struct file files[MODEL_FILES_MAX];
	uint32_t files_count;
	uint64_t offline_ns;            /* since when, if it is */
};

void client_connect(struct client *c);
/* Sends a command, whose verb, file and so on are set; the rest is filled in. False: no room. */
bool client_command(struct client *c, const struct cmd *cmd, bool is_dup);
/* Sends a QoS 2 PUBLISH that is not answered yet once more. */
void client_resend(struct client *c, const struct cmd *cmd);
void client_ping(struct client *c);
enum client_end { CLIENT_DISCONNECT, CLIENT_FIN, CLIENT_RESET, CLIENT_FORGET };
void client_leave(struct client *c, enum client_end how);
uint32_t client_outstanding(const struct client *c);
void client_fini(struct client *c);

#endif
