/*
 * `sluice-bench loop`: files made durable one by one, as a plain program does it.
 */
#ifndef SLUICE_BENCH_LOOP_H
#define SLUICE_BENCH_LOOP_H

/* argv[0] is the subcommand. Returns the exit status: 0; 1 when a file could not be written; 2 when
 * the run could not begin. */
int loop_main(int argc, char **argv);

#endif
