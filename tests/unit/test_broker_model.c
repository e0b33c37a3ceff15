/*
 * broker, everything at once: random clients, subscriptions, publishes, acknowledgements, broken
 * connections, takeovers, wills and the passing of time, against a model that knows MQTT's rules
 * and nothing of tries, queues or timers.
 *
 * The model keeps, for each client, a list of copies it is owed. A publish appends one copy for
 * each session with a filter that topic_match says matches. Each PUBLISH that arrives must be
 *   - a repetition (DUP): of the oldest copy that was sent on an earlier connection and not
 *     acknowledged; or
 *   - new: the oldest copy owed for the same publisher, topic and QoS [MQTT-4.6.0-5], not expired,
 *     with the right QoS, retain flag, subscription identifiers and remaining time; and no
 *     repetition may still be due.
 * Copies stay owed until they arrive, so at the end, when every client has come back and
 * acknowledged, nothing may be left, except what the model knows may be dropped: what expired, and
 * what is larger than a client takes.
 *
 * A second run has tight limits. Then any copy may be dropped, but all rules above hold for what
 * arrives, and the limits are looked up in the session after every step.
 *
 * Deadlines are whole seconds after some step. Each passing of time adds a few milliseconds to
 * whole seconds, so no step falls into the tick by which a timer may be late.
 */
#include "broker_world.h"

#include "topic.h"

enum {
	CLIENTS = 6, FILTERS = 8, OWED_MAX = 4096, STEPS = 1500, SEEDS = 48,
	STEP_MS = 19,
	BIG_BYTES = 2000, SMALL_PACKET_MAX = 500, /* a big message does not fit a small packet */
};

static const char *const topics[] = { "a", "a/b", "a/b/c", "b", "b/", "$x/a", "$x" };
static const char *const filters[FILTERS] = {
	"a", "a/+", "#", "+/b/#", "b/#", "$x/#", "+", "a/b",
};
enum { TOPICS = sizeof topics / sizeof *topics };

/* What was published, as it also goes over the wire. */
struct note {
	uint32_t publisher; /* index; CLIENTS: the daemon */
	uint32_t number;
};

enum owed_state { OWED, UNACKED, REPEAT };

struct owed {
	enum owed_state state;
	struct note note;
	uint32_t topic;
	uint8_t qos;
	bool retain, is_big;
	bool may_drop;
	uint64_t expires_ms;  /* UINT64_MAX: never */
	uint32_t subids[FILTERS], subids_count;
	uint16_t packet_id;   /* UNACKED, REPEAT */
};

struct client {
	char clientid[8];
	struct conn *conn;    /* NULL: not connected */
	struct session *s;    /* while connected */
	uint64_t id;          /* of the session, while there is one */
	bool has_session;
	uint32_t expiry_s, receive_max, packet_max;
	uint8_t version;
	uint64_t detached_ms;
	bool has_will, will_retain, will_is_big;
	uint32_t will_delay_s, will_topic, will_expiry_s;
	struct note will_note;
	struct {
		bool is_on;
		uint8_t options;
		uint32_t identifier;
	} subs[FILTERS];
	struct owed owed[OWED_MAX];
	uint32_t owed_count;
};

static struct world w;
static struct client clients[CLIENTS];
static uint32_t note_next;
static bool is_lossy;
static uint64_t rng;
static uint64_t arrived, repeated, expired; /* that the run was not empty */

static uint32_t any(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)((rng * 0x2545f4914f6cdd1d) >> 33) % n;
}

/* ---- the model ---- */

static void owed_remove(struct client *c, uint32_t idx)
{
	c->owed_count--;
	memmove(&c->owed[idx], &c->owed[idx + 1], (c->owed_count - idx) * sizeof *c->owed);
}

static void model_publish_to(struct client *c, const struct owed *what, uint8_t qos)
{
	struct owed o = *what;
	bool matches = false;
	o.qos = 0;
	o.retain = false;
	for (uint32_t i = 0; i < FILTERS; i++) {
		if (!c->subs[i].is_on || !topic_match(filters[i], strlen(filters[i]),
			topics[o.topic], strlen(topics[o.topic])))
			continue;
		if ((c->subs[i].options & SUB_NO_LOCAL) != 0 && what->note.publisher < CLIENTS &&
			&clients[what->note.publisher] == c)
			continue;
		matches = true;
		uint8_t asked = c->subs[i].options & SUB_QOS;
		uint8_t sub_qos = asked < qos ? asked : qos;
		if (sub_qos > 0)
			o.qos = 1;
		if ((c->subs[i].options & SUB_RETAIN_AS_PUBLISHED) != 0 && what->retain)
			o.retain = true;
		if (c->subs[i].identifier != 0)
			o.subids[o.subids_count++] = c->subs[i].identifier;
	}
	if (!matches || (o.qos == 0 && c->conn == NULL))
		return;
	o.may_drop = is_lossy || (o.is_big && c->packet_max == SMALL_PACKET_MAX);
	cr_assert_lt(c->owed_count, OWED_MAX);
	c->owed[c->owed_count++] = o;
}

static void model_publish(uint32_t topic, struct note note, uint8_t qos, bool retain, bool is_big,
	uint32_t expiry_s)
{
	struct owed o = {
		.note = note, .topic = topic, .retain = retain, .is_big = is_big,
		.expires_ms = expiry_s != 0 ? w.now_ms + expiry_s * 1000ull : UINT64_MAX,
	};
	for (uint32_t i = 0; i < CLIENTS; i++)
		if (clients[i].has_session)
			model_publish_to(&clients[i], &o, qos);
}

static void model_will(struct client *c)
{
	if (c->has_will)
		model_publish(c->will_topic, c->will_note, 1, c->will_retain, c->will_is_big,
			c->will_expiry_s);
	c->has_will = false;
}

static void model_end(struct client *c)
{
	c->has_session = false;
	c->owed_count = 0;
	memset(c->subs, 0, sizeof c->subs);
	model_will(c);
}

static void model_disconnected(struct client *c)
{
	c->conn = NULL;
	for (uint32_t i = c->owed_count; i-- > 0;) {
		if (c->owed[i].qos == 0)
			owed_remove(c, i);
		else if (c->owed[i].state == UNACKED)
			c->owed[i].state = REPEAT;
	}
}

/* A session that waits: what time does to it. */
static void model_wait(struct client *c)
{
	if (!c->has_session || c->conn != NULL)
		return;
	if (c->expiry_s != UINT32_MAX && w.now_ms >= c->detached_ms + c->expiry_s * 1000ull)
		model_end(c);
	else if (c->has_will && w.now_ms >= c->detached_ms + c->will_delay_s * 1000ull)
		model_will(c);
}

static bool model_connect(struct client *c, bool clean_start)
{
	bool ends = clean_start || (c->conn != NULL && c->expiry_s == 0);
	bool present = c->has_session && !ends;
	if (c->conn != NULL)
		model_disconnected(c);
	if (c->has_session && ends)
		model_end(c);
	else if (c->has_will && c->will_delay_s == 0)
		model_will(c);
	c->has_will = false;
	c->has_session = true;
	return present;
}

/* ---- what arrives ---- */

static void check_repetition(struct client *c, const struct got *g, const struct note *note)
{
	for (uint32_t i = 0; i < c->owed_count; i++) {
		struct owed *o = &c->owed[i];
		if (o->state != REPEAT)
			continue;
		if (memcmp(&o->note, note, sizeof *note) != 0 && o->is_big && o->may_drop)
			continue;
		cr_assert_eq(memcmp(&o->note, note, sizeof *note), 0, "repeated out of order");
		cr_assert_eq(o->packet_id, g->p.packet_id, "repeated with another identifier");
		o->state = UNACKED;
		repeated++;
		return;
	}
	cr_assert_fail("repeated what was not in flight");
}

static uint32_t sum_u32(const uint32_t *v, uint32_t count)
{
	uint32_t sum = 0;
	for (uint32_t i = 0; i < count; i++)
		sum += v[i];
	return sum;
}

static void check_copy(const struct client *c, const struct owed *o, const struct got *g)
{
	cr_assert_eq(g->p.retain, o->retain);
	cr_assert(w.now_ms <= o->expires_ms, "arrived after it expired");
	if (c->version < MQTT_V5) {
		cr_assert_eq(g->p.props.has, 0);
		return;
	}
	/* identifiers are distinct powers of two, so the sum tells them all */
	cr_assert_eq(g->p.props.subids_count, o->subids_count);
	cr_assert_eq(sum_u32(g->p.props.subids, g->p.props.subids_count),
		sum_u32(o->subids, o->subids_count));
	cr_assert_eq(MQTT_HAS(&g->p.props, MQTT_P_MESSAGE_EXPIRY), o->expires_ms != UINT64_MAX);
	if (o->expires_ms != UINT64_MAX) {
		uint64_t left_ms = o->expires_ms - w.now_ms;
		cr_assert_eq(g->p.props.message_expiry, (left_ms + 999) / 1000);
	}
}

static bool may_be_missing(const struct owed *o)
{
	return o->may_drop || w.now_ms > o->expires_ms;
}

static void check_new(struct client *c, const struct got *g, const struct note *note)
{
	uint32_t window = 0;
	for (uint32_t i = 0; i < c->owed_count; i++) {
		struct owed *o = &c->owed[i];
		bool is_same = o->topic < TOPICS && span_is(g->p.topic, topics[o->topic]) &&
			o->note.publisher == note->publisher && o->qos == g->p.qos;
		window += o->state == UNACKED;
		cr_assert(g->p.qos == 0 || o->state != REPEAT || (o->is_big && o->may_drop),
			"new before the repetitions");
		if (o->state != OWED || !is_same)
			continue;
		if (o->note.number != note->number) {
			cr_assert(may_be_missing(o), "client %s: %u came before %u", c->clientid,
				note->number, o->note.number);
			expired += !o->may_drop;
			owed_remove(c, i--); /* those behind it came, so it was dropped */
			continue;
		}
		check_copy(c, o, g);
		arrived++;
		if (o->qos == 0) {
			owed_remove(c, i);
			return;
		}
		for (uint32_t j = 0; j < c->owed_count; j++)
			cr_assert(c->owed[j].state == OWED ||
				c->owed[j].packet_id != g->p.packet_id, "identifier in use");
		o->state = UNACKED;
		o->packet_id = g->p.packet_id;
		return;
	}
	cr_assert_fail("client %s got %u from %u, which nobody owes it (%u in flight)", c->clientid,
		note->number, note->publisher, window);
}

static void check_arrivals(void)
{
	for (uint32_t i = 0; i < CLIENTS; i++) {
		struct client *c = &clients[i];
		if (c->conn == NULL)
			continue;
		const struct got *g;
		while ((g = conn_next(c->conn)) != NULL) {
			struct note note;
			memcpy(&note, g->payload, sizeof note);
			cr_assert_leq(g->packet_bytes, c->packet_max);
			if (g->p.dup)
				check_repetition(c, g, &note);
			else
				check_new(c, g, &note);
		}
		conn_forget(c->conn);
		uint32_t unacked = 0;
		for (uint32_t j = 0; j < c->owed_count; j++)
			unacked += c->owed[j].state == UNACKED;
		cr_assert(unacked <= c->receive_max && unacked <= w.conf.mqtt.inflight_max);
	}
}

static void check_limits(void)
{
	struct broker_stats sum = { 0 };
	for (uint32_t i = 0; i < CLIENTS; i++) {
		struct session *s = session_find(w.b[i % WORLD_BROKERS], clients[i].clientid, 2);
		cr_assert_eq(s != NULL, clients[i].has_session, "client %u", i);
		if (s == NULL || s->out == NULL)
			continue;
		const struct delivery_list *q = s->out->queue;
		sum.queued_messages += q[0].count + q[1].count;
		sum.queued_bytes += q[0].bytes + q[1].bytes;
		/* what comes back from the window is not refused */
		cr_assert_leq(q[0].count + q[1].count,
			w.conf.mqtt.queue_messages_max + w.conf.mqtt.inflight_max);
		uint64_t fresh_bytes = 0;
		uint32_t fresh = 0;
		for (uint32_t qos = 0; qos < 2; qos++) {
			for (const struct delivery *d = q[qos].first; d != NULL; d = d->next) {
				fresh += d->copy.packet_id == 0;
				fresh_bytes += d->copy.packet_id == 0 ? d->m->bytes : 0;
			}
		}
		cr_assert_leq(fresh, w.conf.mqtt.queue_messages_max);
		cr_assert(fresh == 1 || fresh_bytes <= w.conf.mqtt.queue_bytes_max);
	}
	/* the total is checked when a copy is made; wills are made without asking */
	cr_assert_leq(broker_sums.held_bytes,
		w.conf.mqtt.queue_total_bytes_max + 2 * BIG_BYTES * CLIENTS);
	struct broker_stats a, b;
	broker_stats(w.b[0], &a);
	broker_stats(w.b[1], &b);
	cr_assert_eq(a.queued_messages + b.queued_messages, sum.queued_messages);
	cr_assert_eq(a.queued_bytes + b.queued_bytes, sum.queued_bytes);
}

/* ---- steps ---- */

static struct message *note_message(const struct note *note, uint32_t topic, uint8_t qos,
	bool retain, bool is_big, uint32_t expiry_s, uint64_t publisher)
{
	char payload[BIG_BYTES] = { 0 };
	memcpy(payload, note, sizeof *note);
	struct mqtt_publish p = {
		.qos = qos, .packet_id = qos > 0, .retain = retain, .topic = span(topics[topic]),
		.payload_bytes = is_big ? sizeof payload : sizeof *note,
	};
	if (expiry_s != 0) {
		p.props.has = 1u << MQTT_P_MESSAGE_EXPIRY;
		p.props.message_expiry = expiry_s;
	}
	struct message *m = message_new(&p, payload, publisher, w.now_ms);
	cr_assert_not_null(m);
	return m;
}

static void step_publish(uint32_t who)
{
	struct note note = { who, ++note_next };
	uint32_t topic = any(TOPICS), expiry_s = any(3) == 0 ? 1 + any(15) : 0;
	uint8_t qos = (uint8_t)any(3);
	bool retain = any(4) == 0, is_big = any(8) == 0;
	struct client *c = who < CLIENTS ? &clients[who] : NULL;
	if (c != NULL && c->conn == NULL)
		return;
	struct message *m = note_message(&note, topic, qos, retain, is_big, expiry_s,
		c != NULL ? c->id : 0);
	model_publish(topic, note, qos, retain, is_big, expiry_s);
	broker_publish(w.b[who % WORLD_BROKERS], m);
	message_unref(m);
	world_settle(&w);
}

static void will_set(struct client *c, uint32_t idx)
{
	c->has_will = any(2) == 0;
	if (!c->has_will)
		return;
	c->will_delay_s = any(2) * (1 + any(15));
	c->will_topic = any(TOPICS);
	c->will_expiry_s = any(3) == 0 ? 1 + any(15) : 0;
	c->will_retain = any(2) == 0;
	c->will_is_big = any(8) == 0;
	c->will_note = (struct note){ idx, ++note_next };
	c->s->will = note_message(&c->will_note, c->will_topic, 1, c->will_retain, c->will_is_big,
		c->will_expiry_s, c->s->id);
	c->s->will_delay_s = c->will_delay_s;
}

static void step_connect(uint32_t idx, bool is_last)
{
	static const uint32_t expiries[] = { 0, 5, 20, UINT32_MAX };
	struct client *c = &clients[idx];
	struct conn *old_conn = c->conn, *got_conn;
	bool clean_start = !is_last && any(8) == 0, present;
	bool want_present = model_connect(c, clean_start);
	struct conn *conn = calloc(1, sizeof *conn);
	int r = session_attach(w.b[idx % WORLD_BROKERS], conn, c->clientid, 2, clean_start, &c->s,
		&present, &got_conn);
	cr_assert_eq(r, 0);
	world_settle(&w);
	cr_assert_eq(present, want_present, "client %u", idx);
	cr_assert_eq(got_conn, old_conn);
	cr_assert(!present || c->s->id == c->id);
	if (old_conn != NULL) {
		conn_forget(old_conn);
		free(old_conn);
	}
	c->conn = conn;
	c->id = c->s->id;
	c->version = conn->version = c->s->version = any(3) == 0 ? MQTT_V311 : MQTT_V5;
	c->expiry_s = c->s->expiry_s = expiries[any(4)];
	c->receive_max = c->s->client_receive_max = is_last || any(2) ? UINT16_MAX : 1 + any(4);
	c->packet_max = is_last || any(3) ? UINT32_MAX : SMALL_PACKET_MAX;
	c->s->client_packet_max = c->packet_max;
	for (uint32_t i = 0; i < c->owed_count; i++)
		if (c->owed[i].is_big && c->packet_max == SMALL_PACKET_MAX)
			c->owed[i].may_drop = true;
	will_set(c, idx);
	session_resume(c->s);
}

static void step_disconnect(uint32_t idx)
{
	struct client *c = &clients[idx];
	if (c->conn == NULL)
		return;
	bool with_will = any(3) > 0;
	struct conn *conn = c->conn;
	model_disconnected(c);
	c->detached_ms = w.now_ms;
	if (!with_will)
		c->has_will = false;
	model_wait(c);
	world_leave(&w, c->s, with_will);
	conn_forget(conn);
	free(conn);
}

static void step_subscribe(uint32_t idx)
{
	struct client *c = &clients[idx];
	uint32_t f = any(FILTERS);
	if (c->conn == NULL)
		return;
	if (any(3) == 0) {
		uint8_t rc = session_unsubscribe(c->s, span(filters[f]));
		cr_assert_eq(rc, c->subs[f].is_on ? 0 : 0x11);
		c->subs[f].is_on = false;
		return;
	}
	uint8_t options = (uint8_t)any(3);
	uint32_t identifier = 0;
	if (c->version == MQTT_V5) {
		options |= (uint8_t)(any(4) << 2);
		identifier = any(2) << f;
	}
	uint8_t rc = session_subscribe(c->s, span(filters[f]), options, identifier);
	cr_assert_eq(rc, (options & SUB_QOS) > 0);
	c->subs[f].is_on = true;
	c->subs[f].options = (uint8_t)((options & ~SUB_QOS) | rc);
	c->subs[f].identifier = identifier;
}

static void step_puback(uint32_t idx)
{
	struct client *c = &clients[idx];
	if (c->conn == NULL || c->owed_count == 0)
		return;
	uint32_t i = any(2) ? any(c->owed_count) : 0; /* often in order */
	if (c->owed[i].state == OWED)
		return;
	/* a repetition that this client can't take may be gone already */
	bool is_there = c->owed[i].state == UNACKED || !c->owed[i].may_drop;
	uint16_t packet_id = c->owed[i].packet_id;
	owed_remove(c, i);
	cr_assert(session_puback(c->s, packet_id) || !is_there);
}

static void step_pass(void)
{
	w.now_ms += any(4) * 1000 + STEP_MS;
	/* Sessions that end in this step must not be owed the wills of those that end with them. */
	timers_expire(&w.timers, w.now_ms);
	for (uint32_t i = 0; i < CLIENTS; i++)
		model_wait(&clients[i]);
	world_settle(&w);
}

static void step_block(uint32_t idx)
{
	struct conn *conn = clients[idx].conn;
	if (conn == NULL)
		return;
	if (any(6) == 0) { /* broken: nobody has noticed yet */
		conn->failing = true;
		return;
	}
	conn->unsent = conn->unsent == 0 ? BROKER_UNSENT_MAX + 1 : 0;
	if (conn->unsent == 0)
		session_pump(clients[idx].s);
}

static void step(void)
{
	uint32_t idx = any(CLIENTS), what = any(100);
	if (what < 45)
		step_publish(any(CLIENTS + 1));
	else if (what < 60)
		step_puback(idx);
	else if (what < 75)
		step_subscribe(idx);
	else if (what < 83)
		step_connect(idx, false);
	else if (what < 89)
		step_disconnect(idx);
	else if (what < 94)
		step_block(idx);
	else
		step_pass();
	check_arrivals();
	check_limits();
}

/* All come back, take and acknowledge everything. */
static void finish(void)
{
	for (uint32_t i = 0; i < CLIENTS; i++) {
		step_connect(i, true);
		check_arrivals();
	}
	for (uint32_t i = 0; i < CLIENTS; i++) {
		struct client *c = &clients[i];
		for (uint32_t j = 0; j < c->owed_count;) {
			uint16_t packet_id = c->owed[j].packet_id;
			if (c->owed[j].state != UNACKED) {
				j++;
				continue;
			}
			owed_remove(c, j);
			cr_assert(session_puback(c->s, packet_id));
			check_arrivals();
			j = 0;
		}
		for (uint32_t j = 0; j < c->owed_count; j++)
			cr_assert(may_be_missing(&c->owed[j]), "client %u never got %u", i,
				c->owed[j].note.number);
		conn_forget(c->conn);
		free(c->conn);
		c->conn = NULL;
	}
}

static void run(uint64_t seed)
{
	rng = seed * 0x9e3779b97f4a7c15 + 1;
	world_init(&w);
	w.conf.mqtt.inflight_max = 5;
	if (is_lossy) {
		w.conf.mqtt.queue_messages_max = 6;
		w.conf.mqtt.queue_bytes_max = 3 * BIG_BYTES;
		w.conf.mqtt.queue_total_bytes_max = 20000;
	}
	memset(clients, 0, sizeof clients);
	for (uint32_t i = 0; i < CLIENTS; i++)
		snprintf(clients[i].clientid, sizeof clients[i].clientid, "c%u", i % 10);
	for (uint32_t i = 0; i < STEPS; i++)
		step();
	finish();
	world_fini(&w);
}

Test(broker_model, nothing_is_lost)
{
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		run(seed);
	cr_assert(arrived > 10000 && repeated > 1000 && expired > 50, "%lu %lu %lu", arrived,
		repeated, expired);
}

Test(broker_model, within_tight_limits)
{
	is_lossy = true;
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		run(seed);
	cr_assert(arrived > 10000 && repeated > 1000, "%lu %lu", arrived, repeated);
}
