/*
 * lib/window.c against an array of 65,536 booleans. The source is included so that its calloc can
 * be made to fail.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>

static int callocs_left = -1; /* how many more succeed; negative: all */

static void *failing_calloc(size_t count, size_t bytes)
{
	if (callocs_left == 0)
		return NULL;
	if (callocs_left > 0)
		callocs_left--;
	return calloc(count, bytes);
}

#define calloc failing_calloc
#include "../../lib/window.c"
#undef calloc

struct model {
	bool in[65536];
	uint32_t count;
	uint16_t last;
};

static uint64_t seed;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % below;
}

static uint16_t model_take(struct model *m)
{
	uint16_t id = m->last;

	if (m->count == 65535)
		return 0;
	do
		id = id == 65535 ? 1 : id + 1;
	while (m->in[id]);
	m->in[id] = true;
	m->count++;
	m->last = id;
	return id;
}

static void check_same(const struct idset *s, const struct model *m)
{
	cr_assert_eq(s->count, m->count);
	for (uint32_t id = 0; id < 65536; id++)
		cr_assert_eq(idset_has(s, (uint16_t)id), m->in[id], "id %u", id);
}

/* Random operations that keep the set about as full as told, on identifiers below `below`. */
static void walk(struct idset *s, struct model *m, int steps, uint32_t below, uint32_t full)
{
	for (int i = 0; i < steps; i++) {
		uint16_t id = (uint16_t)(1 + rnd(below - 1));
		bool grow = rnd(full * 2) > m->count;

		if (grow && rnd(2)) {
			cr_assert_eq(idset_take(s), model_take(m));
		} else if (grow) {
			cr_assert_eq(idset_add(s, id), !m->in[id]);
			m->count += !m->in[id];
			m->in[id] = true;
		} else {
			cr_assert_eq(idset_remove(s, id), m->in[id]);
			m->count -= m->in[id];
			m->in[id] = false;
		}
		cr_assert_eq(s->count, m->count);
		cr_assert_eq(idset_has(s, id), m->in[id]);
	}
	check_same(s, m);
}

Test(window, the_empty_set_is_small)
{
	struct idset s;

	idset_init(&s);
	cr_assert_leq(sizeof(s), 32);
	cr_assert_not(idset_has(&s, 1));
	cr_assert_not(idset_remove(&s, 1));
	idset_fini(&s);
	idset_fini(&s);
}

Test(window, equals_the_model)
{
	static const struct {
		uint32_t below, full;
	} walks[] = {
		{40, 4}, {60, IDSET_FEW}, {300, 40}, {65536, 200}, {65536, 20000}, {4200, 4000}};

	for (size_t i = 0; i < sizeof(walks) / sizeof(walks[0]); i++) {
		static struct model m;
		struct idset s;

		seed = i;
		m = (struct model){0};
		idset_init(&s);
		for (int round = 0; round < 3; round++)
			walk(&s, &m, 8000, walks[i].below, walks[i].full);
		idset_fini(&s);
		cr_assert_eq(s.count, 0);
	}
}

Test(window, few_ids_need_no_memory)
{
	struct idset s;

	idset_init(&s);
	callocs_left = 0;
	for (int i = 1; i <= IDSET_FEW; i++)
		cr_assert_eq(idset_take(&s), i);
	cr_assert_eq(idset_take(&s), 0);
	cr_assert_eq(idset_add(&s, 5), 0);
	cr_assert_eq(idset_add(&s, 500), -ENOMEM);
	cr_assert_eq(s.count, IDSET_FEW);
	cr_assert(idset_remove(&s, 5));
	cr_assert_eq(idset_take(&s), IDSET_FEW + 1, "a failed take must not use up an identifier");
	callocs_left = -1;
	idset_fini(&s);
}

/* Every place where the memory may end on the way into pages. */
Test(window, memory_may_end_anywhere)
{
	for (int allowed = 0;; allowed++) {
		struct idset s;
		int rc;

		idset_init(&s);
		callocs_left = -1;
		for (int i = 0; i < IDSET_FEW; i++)
			cr_assert_eq(idset_add(&s, (uint16_t)(1 + i % 15 * PAGE_IDS + i)), 1);
		callocs_left = allowed;
		rc = idset_add(&s, 65535);
		cr_assert(rc == 1 || rc == -ENOMEM);
		cr_assert_eq(s.count, IDSET_FEW + (rc == 1));
		cr_assert_eq(idset_has(&s, 65535), rc == 1);
		for (int i = 0; i < IDSET_FEW; i++)
			cr_assert(idset_remove(&s, (uint16_t)(1 + i % 15 * PAGE_IDS + i)));
		cr_assert_eq(s.count, rc == 1);
		idset_fini(&s);
		callocs_left = -1;
		if (rc == 1) {
			cr_assert_eq(allowed, 1 + IDSET_FEW + 1, "the directory and every page");
			return;
		}
	}
}

Test(window, take_uses_all_and_wraps)
{
	struct idset s;

	idset_init(&s);
	for (uint32_t i = 1; i <= 65535; i++)
		cr_assert_eq(idset_take(&s), i);
	cr_assert_eq(idset_take(&s), 0);
	cr_assert(idset_remove(&s, 4096));
	cr_assert(idset_remove(&s, 63));
	cr_assert_eq(idset_take(&s), 63);
	cr_assert_eq(idset_take(&s), 4096);
	cr_assert_eq(idset_take(&s), 0);
	for (uint32_t i = 1; i <= 65535; i++)
		cr_assert(idset_remove(&s, (uint16_t)i));
	cr_assert_not(s.paged);
	cr_assert_eq(idset_take(&s), 4097);
	s.last = 65535;
	cr_assert_eq(idset_take(&s), 1);
	idset_fini(&s);
}

/* A session that sends one message at a time goes through all identifiers in the small form. */
Test(window, one_at_a_time_never_allocates)
{
	struct idset s;

	idset_init(&s);
	callocs_left = 0;
	for (uint32_t i = 0; i < 140000; i++) {
		uint16_t id = idset_take(&s);

		cr_assert_eq(id, 1 + i % 65535);
		cr_assert(idset_remove(&s, id));
	}
	callocs_left = -1;
	idset_fini(&s);
}
