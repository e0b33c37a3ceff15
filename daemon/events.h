/*
 * What the daemon tells ordinary subscribers: $file-event/exported, …/failed, …/aborted, …/expired, …/removed.
 */
#ifndef SLUICE_EVENTS_H
#define SLUICE_EVENTS_H

#include "answer.h"
#include "reactor.h"

/* Publishes $file-event/<kind>, QoS 1; does nothing when no one subscribes to a $-topic at all. */
void events_publish(struct reactor *rt, const char *kind, const struct answer_event *e);

#endif
