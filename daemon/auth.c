/*
 * The rules of auth.h. They look at the first level of a topic and, for response topics, at the
 * rest; a wildcard in the first level never matches a topic that begins with "$" [MQTT-4.7.2-1], so
 * the literal first level decides everything.
 */
#include "auth.h"

#include <string.h>

static bool str_is(struct mqtt_str a, const char *z)
{
	size_t bytes = strlen(z);
	return a.bytes == bytes && memcmp(a.s, z, bytes) == 0;
}

/* Cuts the first level off *rest. False when there is nothing behind it, not even a "/". */
static bool level_next(struct mqtt_str *rest, struct mqtt_str *ret_level)
{
	const char *slash = rest->bytes > 0 ? memchr(rest->s, '/', rest->bytes) : NULL;
	*ret_level = *rest;
	if (slash == NULL) {
		*rest = (struct mqtt_str){ "", 0 };
		return false;
	}
	ret_level->bytes = (uint32_t)(slash - rest->s);
	rest->s = slash + 1;
	rest->bytes -= ret_level->bytes + 1;
	return true;
}

/* Is `rest`, what follows "$file-response/", exactly this client, with no meaning as a pattern? */
static bool is_own_response(struct mqtt_str clientid, struct mqtt_str rest)
{
	if (clientid.bytes == 0 || rest.bytes != clientid.bytes ||
		memcmp(rest.s, clientid.s, clientid.bytes) != 0)
		return false;
	return memchr(clientid.s, '+', clientid.bytes) == NULL &&
		memchr(clientid.s, '#', clientid.bytes) == NULL;
}

static bool may_see_events(const struct conf *conf, struct mqtt_str clientid)
{
	for (uint32_t i = 0; i < conf->events.subscribers_count; i++) {
		const char *allowed = conf->events.subscribers[i];
		if (strcmp(allowed, "*") == 0 || str_is(clientid, allowed))
			return true;
	}
	return false;
}

static uint8_t verdict(bool allowed)
{
	return allowed ? MQTT_RC_SUCCESS : MQTT_RC_NOT_AUTHORIZED;
}

uint8_t auth_subscribe(const struct conf *conf, struct mqtt_str clientid, struct mqtt_str filter)
{
	struct mqtt_str rest = filter, level;
	bool has_rest = level_next(&rest, &level);
	if (str_is(level, "$share") && has_rest) {
		level_next(&rest, &level); /* the group */
		has_rest = level_next(&rest, &level);
	}
	if (str_is(level, "$file-response"))
		return verdict(has_rest && is_own_response(clientid, rest));
	if (str_is(level, "$file-event"))
		return verdict(may_see_events(conf, clientid));
	return verdict(!str_is(level, "$file") && !str_is(level, "$file-async"));
}

uint8_t auth_publish(const struct conf *conf, struct mqtt_str clientid, struct mqtt_str topic)
{
	struct mqtt_str rest = topic, level;
	bool has_rest = level_next(&rest, &level);
	(void)conf; /* no rule for publishing is configurable yet */
	if (str_is(level, "$file-response"))
		return verdict(has_rest && is_own_response(clientid, rest));
	return verdict(!str_is(level, "$file-event") && !str_is(level, "$SYS"));
}
