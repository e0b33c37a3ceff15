/*
 * Comparing what the daemon exported with what was sent.
 */
#ifndef SLUICE_BENCH_VERIFY_H
#define SLUICE_BENCH_VERIFY_H

#include <stdint.h>

#include "fleet.h"

/* Compares every file that was sent with success, byte by byte, with its export below dir; those
 * that differ or are not there fail. Returns how many were right. */
uint32_t verify_exports(struct fleet *f, const char *dir);

#endif
