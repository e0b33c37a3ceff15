/*
 * The daemon's processor time and memory, as /proc tells them.
 */
#ifndef SLUICE_BENCH_PROCSTAT_H
#define SLUICE_BENCH_PROCSTAT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct procstat {
	pid_t pid;
	uint64_t start_ticks; /* when the process began: tells a reused pid */
	double cpu_seconds_before;
	uint64_t hwm_bytes_before;
	bool lost;               /* the process ended during the run */
	double cpu_seconds;      /* used between start and stop, by all its threads */
	uint64_t rss_peak_bytes; /* between start and stop */
};

/* Begins to measure. 0, or −errno when there is no such process. */
int procstat_start(struct procstat *s, pid_t pid);
/* Looks at the memory now. Called often. */
void procstat_sample(struct procstat *s);
/* VmRSS now; 0 when there is no such process. */
uint64_t procstat_rss_bytes(pid_t pid);
/* Ends the measurement and fills in the results. */
void procstat_stop(struct procstat *s);

#endif
