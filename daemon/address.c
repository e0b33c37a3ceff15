/*
 * address.h: one table with chains, for 100,000 addresses and more, and one of sets for the rates.
 */
#include "address.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "pace.h"
#include "ring.h"

enum { SLOTS = 65536, SETS = 8192, WAYS = 8 };

struct address {
	struct address *next;
	uint32_t slot;
	uint32_t count; /* never 0 */
	uint8_t bytes[ADDRESS_BYTES];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Under the lock. */
static struct address *slots[SLOTS];
static uint32_t count;
static uint64_t seed; /* 0: not yet chosen */
static struct rated {
	uint64_t hash;
	struct pace pace; /* 0: free */
} sets[SETS][WAYS];

static uint64_t hash_of(const uint8_t bytes[ADDRESS_BYTES])
{
	if (seed == 0)
		(void)sys_random(&seed, sizeof(seed));
	return XXH3_64bits_withSeed(bytes, ADDRESS_BYTES, seed);
}

static struct address *find(uint32_t slot, const uint8_t bytes[ADDRESS_BYTES])
{
	struct address *a = slots[slot];
	while (a && memcmp(a->bytes, bytes, ADDRESS_BYTES) != 0)
		a = a->next;
	return a;
}

struct address *address_enter(const uint8_t bytes[ADDRESS_BYTES], uint32_t max)
{
	pthread_mutex_lock(&lock);
	uint32_t slot = hash_of(bytes) % SLOTS;
	struct address *a = find(slot, bytes);
	if (a) {
		if (a->count < max)
			a->count++;
		else
			a = NULL;
	} else if (max > 0 && (a = malloc(sizeof(*a)))) {
		*a = (struct address){.next = slots[slot], .slot = slot, .count = 1};
		memcpy(a->bytes, bytes, ADDRESS_BYTES);
		slots[slot] = a;
		count++;
	}
	pthread_mutex_unlock(&lock);
	return a;
}

void address_leave(struct address *a)
{
	if (!a)
		return;
	pthread_mutex_lock(&lock);
	if (--a->count == 0) {
		struct address **at = &slots[a->slot];
		while (*at != a)
			at = &(*at)->next;
		*at = a->next;
		count--;
		free(a);
	}
	pthread_mutex_unlock(&lock);
}

uint32_t addresses_count(void)
{
	pthread_mutex_lock(&lock);
	uint32_t n = count;
	pthread_mutex_unlock(&lock);
	return n;
}

/* The place of an address; that of another one is emptied for it. */
static struct rated *place_of(uint64_t hash)
{
	struct rated *set = sets[hash % SETS], *oldest = &set[0];
	for (int i = 0; i < WAYS; i++) {
		if (set[i].hash == hash)
			return &set[i];
		if (set[i].pace.until_ns < oldest->pace.until_ns)
			oldest = &set[i];
	}
	*oldest = (struct rated){.hash = hash};
	return oldest;
}

bool address_take_rate(const uint8_t bytes[ADDRESS_BYTES], uint32_t per_s, uint64_t now_ms)
{
	pthread_mutex_lock(&lock);
	struct rated *r = place_of(hash_of(bytes));
	bool may = pace_wait_ns(&r->pace, now_ms * 1000000) == 0;
	if (may)
		pace_take(&r->pace, per_s, 1, now_ms * 1000000);
	pthread_mutex_unlock(&lock);
	return may;
}
