/*
 * The result of a run, for people and for programs.
 */
#ifndef SLUICE_BENCH_REPORT_H
#define SLUICE_BENCH_REPORT_H

#include "fleet.h"

/* files_verified counts only when the options name a directory to compare with. */
void report_table(const struct fleet *f, uint32_t files_verified);
void report_json(const struct fleet *f, uint32_t files_verified);

#endif
