/*
 * What the clients do: at random while there is load, to the point when all is to be brought to an
 * end.
 */
#ifndef SLUICE_SIM_LOAD_H
#define SLUICE_SIM_LOAD_H

#include "sim_client.h"

struct load_conf {
	uint32_t clients, files;        /* files of each client */
	uint32_t actions;               /* of all */
	uint32_t block_bytes_max, blocks_max;
	uint64_t pause_ns_max;          /* between two of a client's */
	uint64_t patience_ns;           /* at the end of the actions: so long, at most, for answers */
	uint32_t leave;                 /* in 10000: a connection is left, somehow */
	uint32_t conflict, corrupt, abort, fin, take;
	uint32_t whole;                 /* likewise: files are sent as a client sends them, then ended */
	bool is_v5, is_v3;
};

void load_reset(const struct load_conf *conf);
void load_fini(void);
/* All actions are done, and what was sent is answered, or has been waited for long enough. */
bool load_is_over(void);
/* The user name of a client; NULL: it has none. */
const char *load_user_of(const char *id, uint32_t id_bytes);
/* From now on each file is brought to its end. */
void load_heal(void);
bool load_is_healed(void);
/* Everybody leaves. */
void load_leave(void);

#endif
