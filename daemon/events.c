/*
 * events.h. The topics are short and fixed, the JSON is answer.c's.
 */
#include "events.h"

#include <stdio.h>
#include <stdlib.h>
#include "broker.h"

void events_publish(struct reactor *rt, const char *kind, const struct answer_event *e)
{
	char topic[64];
	size_t json_bytes;
	if (!broker_wants_dollar())
		return;
	int topic_bytes = snprintf(topic, sizeof(topic), "$file-event/%s", kind);
	char *json = answer_event_to_json(e, &json_bytes);
	if (json)
		reactor_publish(rt, topic, (uint32_t)topic_bytes, json, (uint32_t)json_bytes,
			NULL, 0);
	free(json);
}
