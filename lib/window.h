/*
 * Packet identifiers of a session, both directions.
 */
#ifndef SLUICE_WINDOW_H
#define SLUICE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

enum { IDSET_FEW = 12 }; /* makes the empty set 32 bytes; a connection has two */

struct idset_pages;

/* A set of packet identifiers 1–65535, memory in proportion to what it holds: up to IDSET_FEW of
 * them live in the struct itself, more in pages of 4096 bits. */
struct idset {
	union {
		uint16_t few[IDSET_FEW];   /* the first `count`, in no order, when !paged */
		struct idset_pages *pages; /* when paged */
	};
	uint32_t count;
	uint16_t last; /* of idset_take */
	bool paged;    /* from the first identifier that does not fit until the set is empty again */
};

void idset_init(struct idset *s);
/* Leaves an empty set. */
void idset_fini(struct idset *s);
/* 1 new, 0 was there, −ENOMEM with the set as it was. */
int idset_add(struct idset *s, uint16_t id);
bool idset_remove(struct idset *s, uint16_t id); /* was it there? */
bool idset_has(const struct idset *s, uint16_t id);
/* Takes the next free identifier after the last one taken, wrapping from 65535 to 1, and adds it.
 * Returns it, or 0 when all are in use or memory is out. */
uint16_t idset_take(struct idset *s);

#endif
