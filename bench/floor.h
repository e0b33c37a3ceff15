/*
 * `sluice-bench floor`: the least that receiving a load can cost on this machine.
 *
 * A receiver, in a process of its own so that its processor time can be told from the senders',
 * takes the bytes of pour.h without any protocol and does with them what the mode says. The files,
 * their preallocation, write-behind and final fsync are those of the daemon.
 */
#ifndef SLUICE_BENCH_FLOOR_H
#define SLUICE_BENCH_FLOOR_H

#include <stdint.h>

#include "options.h"
#include "source.h"

/* What the receiver has found out; sent through a pipe as it is. */
struct floor_result {
	int error; /* −errno: the rest means nothing */
	uint32_t files;
	uint64_t bytes;
	uint64_t ns, cpu_ns; /* from the first byte wanted to the last file on the disk */
	uint64_t pulls;      /* calls that took something from a socket */
	uint64_t drains;     /* splices into a file */
};

/* argv[0] is the subcommand. Returns the exit status, as ingest_main does. */
int floor_main(int argc, char **argv);

/* Receives everything from these connections, connection c the files c, c + N, …. Writes one byte to
 * ready_fd when the clock may run. */
void floor_receive(const struct options *o, const struct source *source, const int *fds,
	int ready_fd, struct floor_result *ret);

/* Removes what floor_receive has written. */
void floor_remove_files(const struct options *o, const struct source *source);

/* Hashes everything from memory. */
void floor_hash_memory(
	const struct options *o, const struct source *source, struct floor_result *ret);

#endif
