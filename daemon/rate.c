/*
 * The memory of rate.h: a direct-mapped table, by a hash that nobody outside can choose.
 */
#include "rate.h"

#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>
#include "log.h"
#include "ring.h"

enum { PLACES = 4096, CREDIT_MS = 20 };

struct place {
	uint64_t hash; /* 0: free */
	struct rate rate;
};

struct rates {
	uint64_t seed, logged_ms;
	struct place *places; /* NULL: no rate is limited */
};

int rates_new(bool is_limited, struct rates **ret)
{
	struct rates *rs = calloc(1, sizeof(*rs));
	if (!rs)
		return -ENOMEM;
	if (is_limited) {
		rs->places = calloc(PLACES, sizeof(struct place));
		if (!rs->places) {
			free(rs);
			return -ENOMEM;
		}
	}
	(void)sys_random(&rs->seed, sizeof(rs->seed));
	*ret = rs;
	return 0;
}

void rates_free(struct rates *rs)
{
	if (!rs)
		return;
	free(rs->places);
	free(rs);
}

static struct place *place_of(const struct rates *rs, struct mqtt_str name, uint64_t *ret_hash)
{
	*ret_hash = XXH3_64bits_withSeed(name.s, name.bytes, rs->seed);
	*ret_hash += *ret_hash == 0;
	return &rs->places[*ret_hash % PLACES];
}

bool rates_recall(const struct rates *rs, struct mqtt_str name, struct rate *ret)
{
	uint64_t hash;
	if (!rs->places)
		return false;
	const struct place *p = place_of(rs, name, &hash);
	if (p->hash != hash)
		return false;
	*ret = p->rate;
	return true;
}

static uint64_t paid_until_ns(const struct rate *r)
{
	return r->bytes.until_ns > r->messages.until_ns ? r->bytes.until_ns : r->messages.until_ns;
}

void rates_keep(struct rates *rs, struct mqtt_str name, const struct rate *r)
{
	uint64_t hash;
	if (!rs->places)
		return;
	struct place *p = place_of(rs, name, &hash);
	if (p->hash == hash || paid_until_ns(&p->rate) <= paid_until_ns(r))
		*p = (struct place){hash, *r};
}

uint64_t rate_due_ms(const struct rate *r)
{
	return paid_until_ns(r) / 1000000 + CREDIT_MS;
}

bool rates_may_log(struct rates *rs, uint64_t now_ms)
{
	return log_is_due(&rs->logged_ms, now_ms);
}
