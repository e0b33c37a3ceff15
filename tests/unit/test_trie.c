/*
 * The subscription trie against a list of filters, each matched by itself; then its extremes: the
 * deepest filter, the widest node, the most owners of one filter.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "trie.h"

/* ---- the model ---- */

enum { ENTRIES_MAX = 400, OWNERS = 20 };

struct entry {
	char filter[64];
	int owner;
	struct trie_sub sub;
};

static struct entry entries[ENTRIES_MAX];
static int entries_count;
static char owners[OWNERS];
static unsigned random_state;

/* Level by level on copies, wildcards by the letter of chapter 4.7. */
static bool model_match(const char *filter, const char *topic)
{
	const char *f = strchrnul(filter, '/'), *t = strchrnul(topic, '/');

	if (strcmp(filter, "#") == 0)
		return true;
	bool level = (f - filter == 1 && *filter == '+') ||
		     (f - filter == t - topic && strncmp(filter, topic, (size_t)(f - filter)) == 0);
	if (!level)
		return false;
	if (!*t)
		return !*f || strcmp(f, "/#") == 0;
	return *f && model_match(f + 1, t + 1);
}

static bool model_matches(const char *filter, const char *topic)
{
	if (*topic == '$' && (*filter == '+' || *filter == '#'))
		return false;
	return model_match(filter, topic);
}

static int model_find(const char *filter, int owner)
{
	for (int i = 0; i < entries_count; i++)
		if (entries[i].owner == owner && strcmp(entries[i].filter, filter) == 0)
			return i;
	return -1;
}

/* Distinct paths of levels that the filters have. */
static uint64_t model_nodes(void)
{
	static char paths[ENTRIES_MAX * 8][64];
	size_t count = 0;

	for (int i = 0; i < entries_count; i++) {
		const char *filter = entries[i].filter;
		for (const char *end = filter; end; end = *end ? end + 1 : NULL) {
			end = strchrnul(end, '/');
			char path[64] = "";
			/* A marker behind it keeps "a" and "a/" apart. */
			memcpy(path, filter, (size_t)(end - filter));
			strcat(path, "|");
			size_t k = 0;
			while (k < count && strcmp(paths[k], path) != 0)
				k++;
			if (k == count)
				strcpy(paths[count++], path);
		}
	}
	return count;
}

/* ---- matching, collected ---- */

struct hits {
	int count[OWNERS];
	uint32_t sum[OWNERS]; /* of identifiers and options: the values must be the right ones */
	int all;
};

static void on_match(void *arg, void *owner, const struct trie_sub *sub)
{
	struct hits *hits = arg;
	ptrdiff_t i = (char *)owner - owners;

	cr_assert(i >= 0 && i < OWNERS);
	hits->count[i]++;
	hits->sum[i] += sub->identifier * 7 + sub->options;
	hits->all++;
}

static struct hits match(const struct trie *t, const char *topic)
{
	struct hits hits = {0};
	size_t bytes = strlen(topic);
	char *copy = memcpy(malloc(bytes + !bytes), topic, bytes);

	trie_match(t, copy, bytes, on_match, &hits);
	free(copy);
	return hits;
}

static int add(struct trie *t, const char *filter, int owner, uint32_t identifier)
{
	struct trie_sub sub = {.options = (uint8_t)(identifier % 3), .identifier = identifier};
	size_t bytes = strlen(filter);
	char *copy = memcpy(malloc(bytes + !bytes), filter, bytes);
	int result = trie_add(t, copy, bytes, &owners[owner], &sub);

	free(copy);
	return result;
}

static int rem(struct trie *t, const char *filter, int owner)
{
	return trie_remove(t, filter, strlen(filter), &owners[owner]);
}

static int random_below(int n)
{
	return rand_r(&random_state) % n;
}

static void random_path(char *path, bool is_filter)
{
	static const char *const words[] = {"", "a", "b", "ab", "$a", "\xc3\xa9", "+", "#"};
	int levels = 1 + random_below(5);

	*path = '\0';
	for (int i = 0; i < levels; i++) {
		const char *word = words[random_below(is_filter ? i + 1 == levels ? 8 : 7 : 6)];
		strcat(path, i ? "/" : "");
		strcat(path, word);
	}
	if (!*path)
		strcpy(path, "a");
}

static void compare(const struct trie *t, const char *topic)
{
	struct hits expected = {0}, got = match(t, topic);

	for (int i = 0; i < entries_count; i++)
		if (model_matches(entries[i].filter, topic))
			on_match(&expected, &owners[entries[i].owner], &entries[i].sub);
	cr_assert(memcmp(&expected, &got, sizeof(got)) == 0, "%s: %d hits, not %d", topic, got.all,
		expected.all);
}

Test(trie, random_against_the_model)
{
	struct trie t;
	char path[64];

	for (unsigned seed = 1; seed <= 5; seed++) {
		random_state = seed;
		entries_count = 0;
		cr_assert_eq(trie_init(&t), 0);
		for (int step = 0; step < 3000; step++) {
			int owner = random_below(OWNERS);
			random_path(path, true);
			/* Removing what is there, more often than what is not; ebb and flow. */
			bool is_remove = random_below(100) < (step / 500 % 2 ? 70 : 30);
			if (is_remove && entries_count && random_below(4)) {
				int i = random_below(entries_count);
				strcpy(path, entries[i].filter);
				owner = entries[i].owner;
			}
			int i = model_find(path, owner);
			if (is_remove) {
				cr_assert_eq(rem(&t, path, owner), i >= 0, "%s", path);
				if (i >= 0)
					entries[i] = entries[--entries_count];
			} else if (i >= 0 || entries_count < ENTRIES_MAX) {
				cr_assert_eq(
					add(&t, path, owner, (uint32_t)step), i < 0, "%s", path);
				if (i < 0)
					i = entries_count++;
				strcpy(entries[i].filter, path);
				entries[i].owner = owner;
				entries[i].sub =
					(struct trie_sub){(uint8_t)(step % 3), (uint32_t)step};
			}
			cr_assert_eq(t.count, (uint64_t)entries_count);
			random_path(path, false);
			compare(&t, path);
			if (step % 250 == 0)
				cr_assert_eq(t.nodes, model_nodes(), "%lu nodes, not %lu",
					(unsigned long)t.nodes, (unsigned long)model_nodes());
		}
		while (seed % 2 && entries_count) {
			struct entry *e = &entries[--entries_count];
			cr_assert_eq(rem(&t, e->filter, e->owner), 1);
		}
		if (seed % 2)
			cr_assert_eq(t.nodes, 0);
		trie_fini(&t);
		cr_assert_eq(t.count, 0);
		trie_fini(&t);
	}
}

Test(trie, the_examples_of_the_specification)
{
	static const struct {
		const char *filter, *topic;
		bool matches;
	} rows[] = {
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/#", "sport", true},
		{"sport/#", "sports", false},
		{"sport/#", "sport/", true},
		{"#", "sport", true},
		{"#", "/", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"+", "finance", true},
		{"+/#", "finance", true},
		{"#", "$SYS/broker", false},
		{"+/monitor/Clients", "$SYS/monitor/Clients", false},
		{"$SYS/#", "$SYS/broker/x", true},
		{"$SYS/#", "$SYS", true},
		{"$SYS/monitor/+", "$SYS/monitor/Clients", true},
		{"$SYS/+/x", "$SYS/$a/x", true},
		{"a/+", "a/$b", true},
		{"ACCOUNTS", "Accounts", false},
		{"a/b", "a", false},
		{"a", "a/b", false},
		{"a", "a/", false},
		{"/", "/", true},
		{"a//b", "a//b", true},
		{"a/+/b", "a//b", true},
		{"+/b/c", "a/b/d", false},
		{"a/+/c", "a/b/c/d", false},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct trie t;
		cr_assert_eq(trie_init(&t), 0);
		cr_assert_eq(add(&t, rows[i].filter, 0, 1), 1);
		cr_expect_eq(match(&t, rows[i].topic).all, rows[i].matches, "%s and %s",
			rows[i].filter, rows[i].topic);
		cr_expect_eq(model_matches(rows[i].filter, rows[i].topic), rows[i].matches,
			"the model: %s and %s", rows[i].filter, rows[i].topic);
		cr_expect_eq(t.nodes, trie_levels(rows[i].filter, strlen(rows[i].filter)));
		trie_fini(&t);
	}
}

Test(trie, one_owner_with_several_filters)
{
	struct trie t;

	cr_assert_eq(trie_init(&t), 0);
	cr_expect_eq(add(&t, "a/b", 3, 1), 1);
	cr_expect_eq(add(&t, "a/+", 3, 2), 1);
	cr_expect_eq(add(&t, "a/#", 3, 3), 1);
	cr_expect_eq(add(&t, "#", 4, 4), 1);
	cr_expect_eq(add(&t, "a/b", 3, 10), 0); /* replaces */
	struct hits hits = match(&t, "a/b");
	cr_expect_eq(hits.count[3], 3);
	cr_expect_eq(hits.count[4], 1);
	cr_expect_eq(hits.sum[3], (10 * 7 + 1) + (2 * 7 + 2) + (3 * 7 + 0));
	cr_expect_eq(t.count, 4);
	cr_expect_eq(rem(&t, "a/+", 4), 0);
	cr_expect_eq(rem(&t, "a", 3), 0);
	cr_expect_eq(rem(&t, "a/b/c", 3), 0);
	cr_expect_eq(rem(&t, "a/+", 3), 1);
	cr_expect_eq(rem(&t, "a/+", 3), 0);
	cr_expect_eq(match(&t, "a/b").count[3], 2);
	trie_fini(&t);
}

static void on_match_count(void *arg, void *owner, const struct trie_sub *sub)
{
	(void)owner;
	(void)sub;
	++*(uint64_t *)arg;
}

Test(trie, the_deepest_filter)
{
	enum { BYTES = 65535 };
	char *filter = malloc(BYTES), *plus = malloc(BYTES), *topic = malloc(BYTES);
	struct trie_sub sub = {0};
	struct trie t;
	uint64_t hits = 0;

	memset(filter, '/', BYTES);
	for (int i = 0; i < BYTES; i++) {
		plus[i] = i % 2 ? '/' : '+';
		topic[i] = i % 2 ? '/' : 'a';
	}
	cr_assert_eq(trie_init(&t), 0);
	cr_expect_eq(trie_add(&t, filter, BYTES, &owners[0], &sub), 1);
	cr_expect_eq(t.nodes, BYTES + 1);
	cr_expect_eq(trie_levels(filter, BYTES), BYTES + 1);
	cr_expect_eq(trie_add(&t, plus, BYTES, &owners[0], &sub), 1);
	cr_expect_eq(trie_add(&t, topic, BYTES, &owners[0], &sub), 1);
	cr_expect_eq(t.nodes, BYTES + 1 + 2 * (BYTES / 2 + 1));
	trie_match(&t, filter, BYTES, on_match_count, &hits);
	cr_expect_eq(hits, 1);
	hits = 0;
	trie_match(&t, topic, BYTES, on_match_count, &hits);
	cr_expect_eq(hits, 2);
	cr_expect_eq(trie_remove(&t, filter, BYTES, &owners[0]), 1);
	cr_expect_eq(t.nodes, 2 * (BYTES / 2 + 1));
	trie_fini(&t);
	free(filter);
	free(plus);
	free(topic);
}

Test(trie, the_widest_node)
{
	enum { COUNT = 50000 };
	struct trie_sub sub = {0};
	struct trie t;
	char filter[64];

	cr_assert_eq(trie_init(&t), 0);
	for (int i = 0; i < COUNT; i++) {
		int bytes = snprintf(filter, sizeof(filter), "$file-response/client-%d", i);
		cr_assert_eq(trie_add(&t, filter, (size_t)bytes, &owners[0], &sub), 1);
	}
	cr_expect_eq(t.nodes, COUNT + 1);
	for (int i = 0; i < COUNT; i++) {
		uint64_t hits = 0;
		int bytes = snprintf(filter, sizeof(filter), "$file-response/client-%d", i);
		trie_match(&t, filter, (size_t)bytes, on_match_count, &hits);
		cr_assert_eq(hits, 1);
		/* Every other one goes, and the rest must still be found across the gaps. */
		if (i % 2)
			cr_assert_eq(trie_remove(&t, filter, (size_t)bytes, &owners[0]), 1);
	}
	for (int i = 0; i < COUNT; i++) {
		uint64_t hits = 0;
		int bytes = snprintf(filter, sizeof(filter), "$file-response/client-%d", i);
		trie_match(&t, filter, (size_t)bytes, on_match_count, &hits);
		cr_assert_eq(hits, i % 2 == 0);
	}
	trie_fini(&t);
}

Test(trie, the_most_owners_of_one_filter)
{
	enum { COUNT = 50000 };
	char *many = malloc(COUNT), *gone = calloc(COUNT, 1);
	struct trie_sub sub = {0};
	struct trie t;
	uint64_t hits = 0;
	clock_t begin = clock();

	cr_assert_eq(trie_init(&t), 0);
	for (int i = 0; i < COUNT; i++)
		cr_assert_eq(trie_add(&t, "all", 3, &many[i], &sub), 1);
	for (int i = 0; i < COUNT; i++)
		cr_assert_eq(trie_add(&t, "all", 3, &many[i], &sub), 0);
	trie_match(&t, "all", 3, on_match_count, &hits);
	cr_expect_eq(hits, COUNT);
	/* In an order that has nothing to do with that of their arrival. */
	for (uint64_t k = 0; k < COUNT; k++) {
		uint64_t i = k * 7919 % COUNT;
		cr_assert_eq(trie_remove(&t, "all", 3, &many[i]), 1);
		cr_assert_eq(trie_remove(&t, "all", 3, &many[i]), 0);
		gone[i] = 1;
		if (k % 5000 == 0) {
			hits = 0;
			trie_match(&t, "all", 3, on_match_count, &hits);
			cr_assert_eq(hits, COUNT - k - 1);
		}
	}
	cr_expect_null(memchr(gone, 0, COUNT));
	cr_expect_eq(t.nodes, 0);
	/* A scan of the list per removal would be 2.5 × 10⁹ steps. */
	double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
	cr_expect_lt(seconds, 1.0, "%.3f s", seconds);
	trie_fini(&t);
	free(many);
	free(gone);
}

static void on_match_order(void *arg, void *owner, const struct trie_sub *sub)
{
	char *order = arg;

	(void)sub;
	order[strlen(order)] = (char)('0' + ((char *)owner - owners));
}

Test(trie, the_order_is_the_history)
{
	struct trie t;
	char order[32] = "";

	cr_assert_eq(trie_init(&t), 0);
	for (int i = 0; i < 6; i++)
		add(&t, "a", i, 0);
	rem(&t, "a", 1);
	add(&t, "#", 9, 0);
	add(&t, "+", 8, 0);
	trie_match(&t, "a", 1, on_match_order, order);
	cr_expect_str_eq(order, "9052348");
	trie_fini(&t);
}
