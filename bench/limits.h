/*
 * The limit on descriptors, which a benchmark is bound to meet.
 */
#ifndef SLUICE_BENCH_LIMITS_H
#define SLUICE_BENCH_LIMITS_H

#include <stdint.h>

/* Lets this process have so many connections. 0, or −EMFILE after a message on stderr. */
int limits_raise_files(uint32_t connections);

#endif
