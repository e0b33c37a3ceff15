/*
 * The values of the configuration as people write them: sizes (64MiB), times (30s), counts,
 * addresses.
 *
 * A number is decimal digits and at most one unit, with nothing between or around. Units are
 * spelled in one way only: "MB" is refused rather than guessed at, since a reader can't tell which
 * of two sizes was meant, and a bare number is no time except 0. Formatting gives the largest unit
 * that holds the value exactly, so parse(format(v)) = v for every v.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "conf_key.h"

struct unit {
	const char *name;
	uint64_t factor;
};

/* Largest first: the formatters take the first that divides. */
static const struct unit size_units[] = {
	{"TiB", 1ull << 40},
	{"GiB", 1ull << 30},
	{"MiB", 1ull << 20},
	{"KiB", 1ull << 10},
	{"B", 1},
	{"", 1},
	{NULL, 0},
};

static const struct unit time_units[] = {
	{"d", 86400000},
	{"h", 3600000},
	{"m", 60000},
	{"s", 1000},
	{"ms", 1},
	{NULL, 0},
};

/* Digits from *at on; *at is moved behind them. −EINVAL when there are none, −ERANGE when they
 * overflow. */
static int take_digits(const char **at, uint64_t *ret_value)
{
	const char *p = *at;
	uint64_t value = 0;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(value, 10, &value) ||
			__builtin_add_overflow(value, *p - '0', &value))
			return -ERANGE;
	}
	*at = p;
	*ret_value = value;
	return 0;
}

static int parse_with_units(const char *text, const struct unit *unit, uint64_t *ret_value)
{
	uint64_t value;
	int err = take_digits(&text, &value);

	if (err)
		return err;
	for (; unit->name; unit++) {
		if (strcmp(text, unit->name))
			continue;
		if (__builtin_mul_overflow(value, unit->factor, &value))
			return -ERANGE;
		*ret_value = value;
		return 0;
	}
	return -EINVAL;
}

int conf_size_parse(const char *text, uint64_t *ret_bytes)
{
	return parse_with_units(text, size_units, ret_bytes);
}

int conf_time_parse(const char *text, uint64_t *ret_ms)
{
	if (!strcmp(text, "0")) {
		*ret_ms = 0;
		return 0;
	}
	return parse_with_units(text, time_units, ret_ms);
}

int conf_count_parse(const char *text, uint64_t *ret_count)
{
	uint64_t value;
	int err = take_digits(&text, &value);

	if (err)
		return err;
	if (*text)
		return -EINVAL;
	*ret_count = value;
	return 0;
}

void conf_size_format(uint64_t bytes, char ret_text[CONF_TEXT_BYTES_MAX])
{
	const struct unit *unit = size_units;

	while (unit->factor > 1 && bytes % unit->factor)
		unit++;
	/* Bytes are written bare: "0" and "1500" need no unit. */
	if (!bytes || unit->factor == 1)
		snprintf(ret_text, CONF_TEXT_BYTES_MAX, "%" PRIu64, bytes);
	else
		snprintf(ret_text, CONF_TEXT_BYTES_MAX, "%" PRIu64 "%s", bytes / unit->factor,
			unit->name);
}

void conf_time_format(uint64_t ms, char ret_text[CONF_TEXT_BYTES_MAX])
{
	const struct unit *unit = time_units;

	if (!ms) {
		snprintf(ret_text, CONF_TEXT_BYTES_MAX, "0s");
		return;
	}
	while (unit->factor > 1 && ms % unit->factor)
		unit++;
	snprintf(ret_text, CONF_TEXT_BYTES_MAX, "%" PRIu64 "%s", ms / unit->factor, unit->name);
}

static bool address_valid(const char *text)
{
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN];
	struct in6_addr address;
	bool v6 = *text == '[';
	uint64_t port;
	size_t host_bytes;

	if (!colon || conf_count_parse(colon + 1, &port) || port > UINT16_MAX)
		return false;
	host_bytes = colon - text;
	if (v6) {
		if (host_bytes < 2 || colon[-1] != ']')
			return false;
		text++;
		host_bytes -= 2;
	}
	if (host_bytes >= sizeof(host))
		return false;
	memcpy(host, text, host_bytes);
	host[host_bytes] = '\0';
	return inet_pton(v6 ? AF_INET6 : AF_INET, host, &address) == 1;
}

static bool option_parse(const char *text, struct conf_listener *ret)
{
	if (!strcmp(text, "durability=crash"))
		ret->durability = CONF_CRASH;
	else if (!strcmp(text, "durability=power"))
		ret->durability = CONF_POWER;
	else
		return false;
	return true;
}

bool conf_listen_parse(const char *text, struct conf_listener *ret)
{
	const char *space = strchr(text, ' ');
	size_t bytes = space ? (size_t)(space - text) : strlen(text);

	if (bytes >= sizeof(ret->address))
		return false;
	memcpy(ret->address, text, bytes);
	ret->address[bytes] = '\0';
	/* There is one option only as yet: a second word would be one given twice. */
	return address_valid(ret->address) && (!space || option_parse(space + 1, ret));
}

bool conf_listen_valid(const char *text)
{
	struct conf_listener listener;

	return conf_listen_parse(text, &listener);
}

void conf_listener(const struct conf *c, uint32_t idx, struct conf_listener *ret)
{
	*ret = (struct conf_listener){.durability = c->durability};
	(void)conf_listen_parse(c->listen[idx], ret); /* it was valid when it was set */
}

bool conf_has_power(const struct conf *c)
{
	for (uint32_t i = 0; i < c->listen_count; i++) {
		struct conf_listener listener;

		conf_listener(c, i, &listener);
		if (listener.durability == CONF_POWER)
			return true;
	}
	return false;
}
