/*
 * export.retention: exports whose metadata said until when to keep them (`expire_at`) go when that
 * time has come.
 *
 * What is there is found by its manifests, so nothing has to be remembered and a restart changes
 * nothing: a sweep walks through the export directory, a bounded number of entries at a time with
 * pauses between, on a thread for calls (ring_call, RING_RARE). Sweeps begin export.retention_interval
 * apart. One reactor does it for all.
 *
 * An export is removed only where its manifest says it was put: in a directory that was renamed or
 * copied, in one without a manifest, and behind symbolic links nothing is touched. Its file goes
 * first, then the manifest, then each directory above that this has left empty. A manifest whose
 * file is gone (its consumer took it, or a crash came between) goes when it is an hour old: a
 * younger one may belong to an export that is about to appear.
 */
#ifndef SLUICE_RETENTION_H
#define SLUICE_RETENTION_H

#include "reactor.h"

struct retention;

/* 0 and *ret (NULL when export.retention is off, or another reactor does it), or −ENOMEM. */
int retention_new(struct reactor *rt, struct retention **ret);
/* Begins no more; what is under way ends with the ring's operations. NULL is fine. */
void retention_stop(struct retention *r);
void retention_free(struct retention *r); /* stopped and at rest; NULL is fine */

#endif
