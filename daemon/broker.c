/*
 * Matching: from a message to the sessions that get it.
 *
 * A publish first asks the counts: how many filters are there at all, here and elsewhere, that
 * could match such a topic? Filters whose first level is a wildcard never match a topic that begins
 * with "$" [MQTT-4.7.2-1], so filters are counted in two classes, and the daemon's own answers on
 * "$file-response/…" cost two loads when nobody listens.
 *
 * Then the trie calls on_match for every matching subscription. A session may be called several
 * times, so the matches are summed up in its session_out, and the session is put on a list; only
 * afterwards each session on the list gets its copy. Sending happens in this second step, so
 * nothing that it does can disturb the walk.
 *
 * The sums over all reactors are the only state that is shared, and only counters. A message goes
 * to the other reactors when they have filters of its class; whether one of them matches is not
 * known here, hence the "may".
 */
#include "broker_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct broker_sums broker_sums;

enum { BUCKETS_MIN = 64, HEAD_MIN = 4096 };

int broker_new(const struct conf *conf, uint32_t reactor_idx, const struct broker_ops *ops,
	struct broker **ret)
{
	assert(reactor_idx < 65536);
	struct broker *b = calloc(1, sizeof *b);
	if (b == NULL)
		return -ENOMEM;
	b->conf = conf;
	b->ops = *ops;
	/* Client ids are chosen by peers; where this lies in memory is not for them to know. */
	b->hash_seed = (uint64_t)(uintptr_t)b;
	b->session_id_next = (uint64_t)reactor_idx << 48 | 1;
	b->buckets_count = BUCKETS_MIN;
	b->buckets = calloc(b->buckets_count, sizeof(struct session *));
	b->head_max = HEAD_MIN;
	b->head = malloc(b->head_max);
	int r = b->buckets != NULL && b->head != NULL ? trie_init(&b->trie) : -ENOMEM;
	if (r < 0) {
		free(b->buckets);
		free(b->head);
		free(b);
		return r;
	}
	*ret = b;
	return 0;
}

void broker_free(struct broker *b)
{
	if (b == NULL)
		return;
	for (uint32_t i = 0; i < b->buckets_count; i++)
		while (b->buckets[i] != NULL)
			session_free(b->buckets[i]);
	assert(b->trie.count == 0);
	while (broker_sweep(b))
		;
	trie_fini(&b->trie);
	free(b->buckets);
	free(b->head);
	free(b);
}

void *broker_arg(struct broker *b)
{
	return b->ops.arg;
}

void broker_stats(const struct broker *b, struct broker_stats *ret)
{
	*ret = b->stats;
	ret->subscriptions = b->trie.count;
}

bool broker_wants_dollar(void)
{
	return atomic_load_explicit(&broker_sums.filters[1], memory_order_acquire) > 0;
}

/* ---- matching ---- */

/* Hands one session what was summed up for it. */
static void matched_deliver(struct broker *b, struct session *s)
{
	struct copy copy = s->out->match;
	s->out->match.subids_count = 0; /* of the copy; what is summed up next begins anew */
	session_deliver(s, b->matching, &copy, s->out->match_subids);
}

static void on_match(void *arg, void *owner, const struct trie_sub *sub)
{
	struct broker *b = arg;
	struct session *s = owner;
	struct session_out *o = s->out;
	struct message *m = b->matching;
	if ((sub->options & SUB_NO_LOCAL) != 0 && m->publisher == s->id)
		return;
	b->matches++;
	if (!o->is_matched) {
		o->is_matched = true;
		o->match = (struct copy){ 0 };
		o->matched_next = NULL;
		*b->matched_end = s;
		b->matched_end = &o->matched_next;
	}
	uint8_t qos = sub->options & SUB_QOS;
	qos = m->qos < qos ? m->qos : qos;
	if (qos > 1)
		qos = 1; /* outbound QoS 2 is not offered: SUBACK never grants it */
	if (qos > o->match.qos)
		o->match.qos = qos;
	if ((sub->options & SUB_RETAIN_AS_PUBLISHED) != 0 && m->retain)
		o->match.retain = true;
	if (sub->identifier != 0) {
		/* More identifiers than one PUBLISH takes: a further copy carries the others. */
		if (o->match.subids_count == MQTT_SUBIDS_MAX)
			matched_deliver(b, s);
		o->match_subids[o->match.subids_count++] = sub->identifier;
	}
}

/* Delivers m to the sessions of this reactor. Returns how many subscriptions match. */
static uint64_t match_here(struct broker *b, struct message *m)
{
	if (b->filters[topic_is_dollar(m->topic.s, m->topic.bytes)] == 0)
		return 0;
	assert(b->matching == NULL);
	b->matching = m;
	b->matches = 0;
	b->matched_first = NULL;
	b->matched_end = &b->matched_first;
	trie_match(&b->trie, m->topic.s, m->topic.bytes, on_match, b);
	for (struct session *s = b->matched_first; s != NULL; s = s->out->matched_next) {
		matched_deliver(b, s);
		s->out->is_matched = false;
	}
	b->matching = NULL;
	return b->matches;
}

bool broker_publish(struct broker *b, struct message *m)
{
	bool is_dollar = topic_is_dollar(m->topic.s, m->topic.bytes);
	uint64_t filters =
		atomic_load_explicit(&broker_sums.filters[is_dollar], memory_order_acquire);
	if (filters == 0)
		return false;
	bool elsewhere = filters > b->filters[is_dollar];
	bool here = match_here(b, m) > 0;
	if (elsewhere)
		b->ops.forward(b, m);
	return here || elsewhere;
}

void broker_deliver(struct broker *b, struct message *m)
{
	match_here(b, m);
}
