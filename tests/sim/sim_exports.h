/*
 * The checker's view of the export directory; for sim_model.c.
 */
#ifndef SLUICE_SIM_EXPORTS_H
#define SLUICE_SIM_EXPORTS_H

#include "sim_model.h"

struct file *model_file(uint32_t idx);   /* NULL: there are no more */
void model_digest_of(const struct file *f, const uint8_t *stamps, uint32_t blocks, uint8_t ret[32]);

#endif
