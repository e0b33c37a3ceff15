/*
 * `sluice-bench put`: the bytes of ingest to servers that take a file in one piece: as one HTTP PUT
 * each, or as a connection each.
 */
#ifndef SLUICE_BENCH_PUT_H
#define SLUICE_BENCH_PUT_H

/* argv[0] is the subcommand. Returns the exit status, as ingest_main does. */
int put_main(int argc, char **argv);

#endif
