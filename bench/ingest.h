/*
 * `sluice-bench ingest`: uploads files over many connections and says how that went.
 * `sluice-bench publish`: the same bytes in the same packets to an ordinary topic of any broker.
 */
#ifndef SLUICE_BENCH_INGEST_H
#define SLUICE_BENCH_INGEST_H

/* argv[0] is the subcommand. Returns the exit status: 0 when every file arrived, 1 when a file or a
 * connection failed, 2 when the run could not begin. */
int ingest_main(int argc, char **argv);
int publish_main(int argc, char **argv);

#endif
