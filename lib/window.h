/*
 * Packet identifiers of a session, both directions.
 */
#ifndef SLUICE_WINDOW_H
#define SLUICE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

/* A set of packet identifiers 1–65535, memory in proportion to what it holds (64 bytes empty). */
struct idset {
	uint64_t *pages[16];  /* 4096 ids each, allocated on demand, freed when empty */
	uint16_t page_counts[16];
	uint32_t count;
	uint16_t last;        /* of idset_take */
};

void idset_init(struct idset *s);
void idset_fini(struct idset *s);
int idset_add(struct idset *s, uint16_t id);          /* 1 new, 0 was there, −ENOMEM */
bool idset_remove(struct idset *s, uint16_t id);      /* was it there? */
bool idset_has(const struct idset *s, uint16_t id);
/* Takes the next free identifier after the last one taken, wrapping from 65535 to 1, and adds it.
 * Returns it, or 0 when all are in use or memory is out. */
uint16_t idset_take(struct idset *s);

#endif
