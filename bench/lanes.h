/*
 * sluice-bench sha256.
 */
#ifndef SLUICE_BENCH_LANES_H
#define SLUICE_BENCH_LANES_H

int lanes_main(int argc, char **argv);

#endif
