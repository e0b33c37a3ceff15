/*
 * `sluice-bench idle`: what connections cost that only stay alive.
 * `sluice-bench ping`: how long one of them waits for its answer.
 */
#ifndef SLUICE_BENCH_IDLE_H
#define SLUICE_BENCH_IDLE_H

/* argv[0] is the subcommand. Return the exit status: 0; 1 when a connection failed; 2 when the run
 * could not begin. */
int idle_main(int argc, char **argv);
int ping_main(int argc, char **argv);

#endif
