/*
 * One run: a configuration drawn from the seed, load with crashes and faults, then everything
 * brought to its end, at rest, and stopped.
 */
#ifndef SLUICE_SIM_WORLD_H
#define SLUICE_SIM_WORLD_H

#include "conf.h"
#include "sim.h"

/* False: a promise was broken, sim.failure says which. defaults: the daemon's configuration. */
bool world_run(uint64_t seed, const struct conf *defaults);

#endif
