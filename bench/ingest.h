/* `sluice-bench ingest`: uploads files over many connections and says how that went. */
#ifndef SLUICE_BENCH_INGEST_H
#define SLUICE_BENCH_INGEST_H

/* argv[0] is the subcommand. Returns the exit status: 0 when every file arrived, 1 when a file or a
 * connection failed, 2 when the run could not begin. */
int ingest_main(int argc, char **argv);

#endif
