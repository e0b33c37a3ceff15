/*
 * Sessions: found by client id, taken over, left, expired; and their subscriptions.
 *
 *     (none) ──attach──► connected ──detach, expiry_s > 0──► waiting ──timer──► (none)
 *                         │ ▲   ▲                              │
 *                         │ │   └────────────attach────────────┘
 *                         │ └── attach by another connection
 *                         └── detach, expiry_s == 0 ──► (none)
 *
 * A waiting session has one timer for two deadlines, both counted from detached_ms: the will's
 * delay and the expiry. It is armed for the earlier one.
 *
 * A client that starts clean, or whose old session is over, keeps the struct and the id: No Local
 * is about the client id, so a will of the old session must not come back to the new one as
 * another's.
 *
 * The table of sessions chains by hash and doubles; the hash is kept in the session, so doubling
 * reads no client id.
 */
#include "broker_impl.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "topic.h"

enum { EXPIRY_NEVER = UINT32_MAX };

static void sums_add(_Atomic uint64_t *sum, uint64_t n)
{
	atomic_fetch_add_explicit(sum, n, memory_order_release);
}

static void sums_sub(_Atomic uint64_t *sum, uint64_t n)
{
	uint64_t before = atomic_fetch_sub_explicit(sum, n, memory_order_release);
	assert(before >= n);
}

/* ---- the table ---- */

static uint32_t clientid_hash(const struct broker *b, const char *clientid, uint32_t clientid_bytes)
{
	/* The reactor was chosen by the low bits of an unseeded hash; the high ones of a seeded one
	 * are free. */
	return (uint32_t)(XXH3_64bits_withSeed(clientid, clientid_bytes, b->hash_seed) >> 32);
}

static struct session **table_slot(struct broker *b, uint32_t hash)
{
	return &b->buckets[hash & (b->buckets_count - 1)];
}

static void table_insert(struct broker *b, struct session *s)
{
	struct session **slot = table_slot(b, s->hash);
	s->hash_next = *slot;
	*slot = s;
}

static void table_remove(struct broker *b, struct session *s)
{
	struct session **at = table_slot(b, s->hash);
	while (*at != s)
		at = &(*at)->hash_next;
	*at = s->hash_next;
}

/* Doubles the table when it has more sessions than buckets. Without memory it stays as it is. */
static void table_grow(struct broker *b)
{
	if (b->stats.sessions <= b->buckets_count || b->buckets_count > UINT32_MAX / 4)
		return;
	struct session **buckets = calloc((size_t)b->buckets_count * 2, sizeof *buckets);
	if (buckets == NULL)
		return;
	struct session **old = b->buckets;
	uint32_t old_count = b->buckets_count;
	b->buckets = buckets;
	b->buckets_count = old_count * 2;
	for (uint32_t i = 0; i < old_count; i++) {
		for (struct session *s = old[i], *next; s != NULL; s = next) {
			next = s->hash_next;
			table_insert(b, s);
		}
	}
	free(old);
}

struct session *session_find(struct broker *b, const char *clientid, uint32_t clientid_bytes)
{
	uint32_t hash = clientid_hash(b, clientid, clientid_bytes);
	struct session *s = *table_slot(b, hash);
	while (s != NULL && (s->hash != hash || s->clientid_bytes != clientid_bytes ||
		memcmp(s->clientid, clientid, clientid_bytes) != 0))
		s = s->hash_next;
	return s;
}

/* ---- wills ---- */

/* The will, no longer the session's; NULL when there is none. */
static struct message *will_take(struct session *s)
{
	struct message *m = s->will;
	s->will = NULL;
	return m;
}

/* Publishes a will, if there is one, and lets go of it. Its expiry counts from now [3.1.3.2.4]. */
static void will_publish(struct broker *b, struct message *m)
{
	if (m == NULL)
		return;
	if (MQTT_HAS(&m->props, MQTT_P_MESSAGE_EXPIRY))
		m->expires_ms = broker_now_ms(b) + (uint64_t)m->props.message_expiry * 1000;
	broker_publish(b, m);
	message_unref(m);
}

/* ---- beginning and end ---- */

static void on_timer(struct timer *t);

static int session_new(struct broker *b, const char *clientid, uint32_t clientid_bytes,
	struct session **ret)
{
	uint64_t before = atomic_fetch_add_explicit(&broker_sums.sessions, 1, memory_order_relaxed);
	if (before >= b->conf->mqtt.sessions_max) {
		sums_sub(&broker_sums.sessions, 1);
		return -ENOSPC;
	}
	struct session *s = malloc(sizeof *s + clientid_bytes + 1);
	if (s == NULL) {
		sums_sub(&broker_sums.sessions, 1);
		return -ENOMEM;
	}
	*s = (struct session){
		.broker = b,
		.id = b->session_id_next++,
		.clientid = (char *)(s + 1),
		.clientid_bytes = clientid_bytes,
		.hash = clientid_hash(b, clientid, clientid_bytes),
		.timer.fire = on_timer,
	};
	memcpy(s->clientid, clientid, clientid_bytes);
	s->clientid[clientid_bytes] = '\0';
	idset_init(&s->received);
	b->stats.sessions++;
	table_grow(b);
	table_insert(b, s);
	*ret = s;
	return 0;
}

static void filter_forget(struct session *s, struct filter **at)
{
	struct broker *b = s->broker;
	struct filter *f = *at;
	bool is_dollar = topic_is_dollar(f->text, f->bytes);
	int removed = trie_remove(&b->trie, f->text, f->bytes, s);
	assert(removed == 1);
	b->filters[is_dollar]--;
	sums_sub(&broker_sums.filters[is_dollar], 1);
	s->out->filters_count--;
	*at = f->next;
	free(f);
}

/* Drops what the session remembers, so that it is as new. */
static void session_clear(struct session *s)
{
	if (s->out != NULL) {
		while (s->out->filters != NULL)
			filter_forget(s, &s->out->filters);
		session_out_free(s->broker, s->out);
		s->out = NULL;
	}
	idset_fini(&s->received);
	idset_init(&s->received);
}

void session_free(struct session *s)
{
	struct broker *b = s->broker;
	timers_disarm(b->ops.timers, &s->timer);
	session_clear(s);
	idset_fini(&s->received);
	message_unref(s->will);
	table_remove(b, s);
	b->stats.sessions--;
	sums_sub(&broker_sums.sessions, 1);
	free(s);
}

/* The session is over: its will goes out now, if it has not yet [3.1.2.5], and not to itself. */
static void session_end(struct session *s)
{
	struct broker *b = s->broker;
	struct message *will = will_take(s);
	session_free(s);
	will_publish(b, will);
}

/* ---- waiting for the client ---- */

static uint64_t will_due_ms(const struct session *s)
{
	return s->will != NULL ? s->detached_ms + (uint64_t)s->will_delay_s * 1000 : UINT64_MAX;
}

static uint64_t expiry_due_ms(const struct session *s)
{
	if (s->expiry_s == EXPIRY_NEVER)
		return UINT64_MAX;
	return s->detached_ms + (uint64_t)s->expiry_s * 1000;
}

/* Does what is due of a session without a connection, and arms the timer for what is not. s may be
 * gone then. */
static void session_wait(struct session *s)
{
	struct broker *b = s->broker;
	uint64_t now_ms = broker_now_ms(b);
	if (now_ms >= expiry_due_ms(s)) {
		session_end(s);
		return;
	}
	if (now_ms >= will_due_ms(s))
		will_publish(b, will_take(s));
	uint64_t will_ms = will_due_ms(s), expiry_ms = expiry_due_ms(s);
	uint64_t due_ms = will_ms < expiry_ms ? will_ms : expiry_ms;
	if (due_ms != UINT64_MAX)
		timers_arm(b->ops.timers, &s->timer, due_ms);
}

static void on_timer(struct timer *t)
{
	session_wait((struct session *)((char *)t - offsetof(struct session, timer)));
}

/* From a connection to none. */
static void session_unlink_conn(struct session *s)
{
	s->conn = NULL;
	s->live = false;
	if (s->out != NULL)
		session_out_disconnect(s);
}

void session_detach(struct session *s, bool with_will)
{
	assert(s->conn != NULL);
	session_unlink_conn(s);
	if (!with_will)
		message_unref(will_take(s));
	s->detached_ms = broker_now_ms(s->broker);
	session_wait(s);
}

/* An existing session gets a new connection. Returns whether its state is kept. */
static bool session_continue(struct session *s, bool clean_start, struct conn **ret_old_conn)
{
	struct broker *b = s->broker;
	bool was_connected = s->conn != NULL;
	bool ends = clean_start || (was_connected ? s->expiry_s == 0 :
		broker_now_ms(b) >= expiry_due_ms(s));
	*ret_old_conn = s->conn;
	timers_disarm(b->ops.timers, &s->timer);
	session_unlink_conn(s);
	struct message *will = will_take(s);
	if (ends) {
		session_clear(s);
		s->expiry_s = 0;
	}
	if (ends || s->will_delay_s == 0)
		will_publish(b, will);
	else
		message_unref(will);
	return !ends;
}

int session_attach(struct broker *b, struct conn *c, const char *clientid, uint32_t clientid_bytes,
	bool clean_start, struct session **ret, bool *ret_present, struct conn **ret_old_conn)
{
	struct conn *old_conn = NULL;
	bool present = false;
	struct session *s = session_find(b, clientid, clientid_bytes);
	if (s != NULL) {
		present = session_continue(s, clean_start, &old_conn);
	} else {
		int r = session_new(b, clientid, clientid_bytes, &s);
		if (r < 0)
			return r;
	}
	s->conn = c;
	s->client_receive_max = UINT16_MAX;
	s->client_packet_max = UINT32_MAX;
	s->will_delay_s = 0;
	*ret = s;
	*ret_present = present;
	*ret_old_conn = old_conn;
	return 0;
}

/* ---- subscriptions ---- */

static struct filter **filter_find(struct session_out *o, struct mqtt_str filter)
{
	struct filter **at = &o->filters;
	while (*at != NULL && ((*at)->bytes != filter.bytes ||
		memcmp((*at)->text, filter.s, filter.bytes) != 0))
		at = &(*at)->next;
	return *at != NULL ? at : NULL;
}

/* Puts the filter into the trie, and into the session's list when it is new. 0 or −ENOMEM. */
static int filter_add(struct session *s, struct mqtt_str filter, const struct trie_sub *sub)
{
	struct broker *b = s->broker;
	struct filter *f = malloc(sizeof *f + filter.bytes);
	if (f == NULL)
		return -ENOMEM;
	int r = trie_add(&b->trie, filter.s, filter.bytes, s, sub);
	if (r <= 0) {
		free(f);
		return r;
	}
	f->bytes = filter.bytes;
	memcpy(f->text, filter.s, filter.bytes);
	f->next = s->out->filters;
	s->out->filters = f;
	s->out->filters_count++;
	bool is_dollar = topic_is_dollar(filter.s, filter.bytes);
	b->filters[is_dollar]++;
	sums_add(&broker_sums.filters[is_dollar], 1);
	return 0;
}

uint8_t session_subscribe(struct session *s, struct mqtt_str filter, uint8_t options,
	uint32_t identifier)
{
	if (topic_is_shared(filter.s, filter.bytes))
		return MQTT_RC_SHARED_UNSUPPORTED;
	if (trie_levels(filter.s, filter.bytes) > s->broker->conf->mqtt.filter_levels_max)
		return MQTT_RC_QUOTA_EXCEEDED;
	if (s->out == NULL) {
		s->out = session_out_new();
		if (s->out == NULL)
			return MQTT_RC_UNSPECIFIED;
	}
	if (s->out->filters_count >= s->broker->conf->mqtt.subscriptions_max &&
		filter_find(s->out, filter) == NULL)
		return MQTT_RC_QUOTA_EXCEEDED;
	uint8_t granted = (options & SUB_QOS) > 0 ? 1 : 0;
	struct trie_sub sub = {
		.options = (uint8_t)((options & ~SUB_QOS) | granted),
		.identifier = identifier,
	};
	return filter_add(s, filter, &sub) < 0 ? MQTT_RC_UNSPECIFIED : granted;
}

uint8_t session_unsubscribe(struct session *s, struct mqtt_str filter)
{
	struct filter **at = s->out != NULL ? filter_find(s->out, filter) : NULL;
	if (at == NULL)
		return MQTT_RC_NO_SUBSCRIPTION_EXISTED;
	filter_forget(s, at);
	return MQTT_RC_SUCCESS;
}
