/*
 * hold.h. A table of sets: the hash of the client id chooses the set, in which the oldest entry
 * gives way.
 */
#include "hold.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { SETS = 128, WAYS = 8, FAILURES_MAX = 3, DELAY_MS_MIN = 5000, DELAY_MS_MAX = 300000,
	FORGET_MS = 900000 };

struct entry {
	uint64_t clientid_hash; /* 0: free */
	uint64_t topic_hash;    /* of the last command that failed */
	uint64_t at_ms;         /* when it failed */
	const char *text;
	uint32_t failures;      /* with this text, in a row */
	uint32_t delay_ms;      /* the next one */
};

struct hold {
	uint32_t count;         /* entries in use: 0 makes success cost nothing */
	struct entry entries[SETS][WAYS];
};

struct hold *hold_new(void)
{
	return calloc(1, sizeof(struct hold));
}

void hold_free(struct hold *h)
{
	free(h);
}

static uint64_t hash_of(const char *s, uint32_t bytes)
{
	uint64_t hash = XXH3_64bits(s, bytes);
	return hash ? hash : 1;
}

/* The client's entry, or NULL. */
static struct entry *find(const struct hold *h, uint64_t clientid_hash)
{
	/* The low bits choose the reactor. */
	const struct entry *set = h->entries[(clientid_hash >> 32) % SETS];
	for (int i = 0; i < WAYS; i++) {
		if (set[i].clientid_hash == clientid_hash)
			return (struct entry *)&set[i];
	}
	return NULL;
}

static struct entry *take(struct hold *h, uint64_t clientid_hash)
{
	struct entry *set = h->entries[(clientid_hash >> 32) % SETS], *oldest = &set[0];
	for (int i = 1; i < WAYS && oldest->clientid_hash; i++) {
		if (!set[i].clientid_hash || set[i].at_ms < oldest->at_ms)
			oldest = &set[i];
	}
	h->count += !oldest->clientid_hash;
	*oldest = (struct entry){.clientid_hash = clientid_hash, .delay_ms = DELAY_MS_MIN};
	return oldest;
}

static bool is_past(const struct entry *e, uint64_t now_ms)
{
	return now_ms - e->at_ms > FORGET_MS;
}

bool hold_would(const struct hold *h, const struct hold_key *k, const char *text, uint64_t now_ms)
{
	const struct entry *e = find(h, hash_of(k->clientid, k->clientid_bytes));
	return !e || is_past(e, now_ms) || strcmp(e->text, text) != 0 ||
		e->failures + 1 < FAILURES_MAX;
}

bool hold_fail(struct hold *h, const struct hold_key *k, const char *text, uint64_t now_ms,
	uint64_t *ret_delay_ms)
{
	uint64_t clientid_hash = hash_of(k->clientid, k->clientid_bytes);
	struct entry *e = find(h, clientid_hash);
	if (e && is_past(e, now_ms))
		*e = (struct entry){.clientid_hash = clientid_hash, .delay_ms = DELAY_MS_MIN};
	else if (!e)
		e = take(h, clientid_hash);
	if (!e->text || strcmp(e->text, text) != 0)
		e->failures = 0;
	e->text = text;
	e->topic_hash = hash_of(k->topic, k->topic_bytes);
	e->at_ms = now_ms;
	if (++e->failures >= FAILURES_MAX)
		return false;
	*ret_delay_ms = e->delay_ms;
	e->delay_ms = e->delay_ms < DELAY_MS_MAX / 2 ? e->delay_ms * 2 : DELAY_MS_MAX;
	return true;
}

void hold_succeed(struct hold *h, const struct hold_key *k)
{
	if (h->count == 0)
		return;
	struct entry *e = find(h, hash_of(k->clientid, k->clientid_bytes));
	if (!e || e->topic_hash != hash_of(k->topic, k->topic_bytes))
		return;
	*e = (struct entry){0};
	h->count--;
}
