/*
 * After a restart: from the journals back to the transfers, whatever number of reactors wrote them.
 */
#ifndef SLUICE_RECOVER_H
#define SLUICE_RECOVER_H

#include <stddef.h>
#include <stdint.h>
#include "reactor.h"

/* Reads the newest set of journals, makes uploads and a new journal (with a checkpoint) for each
 * reactor, deletes the old journals and the staging files that no open transfer has. Blocking;
 * before the reactors' threads start. 0, or −errno and one sentence with the cure. */
int recover_run(struct reactor **reactors, uint32_t count, char *ret_error, size_t error_max);
void uploads_free(struct uploads *u);

#endif
