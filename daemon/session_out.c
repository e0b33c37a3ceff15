/*
 * What goes out to one session: its queues, its window of unacknowledged QoS 1, and the sending.
 *
 * The lists are explained in broker_impl.h. Rules:
 *
 *   1. QoS 1 is sent while fewer than min(client's Receive Maximum, mqtt.inflight) are
 *      unacknowledged on this connection; QoS 0 needs no window [MQTT-3.3.4-7, -9]. Both wait while
 *      the connection's output is long.
 *   2. Of two that could be sent, the older one goes first.
 *   3. Room: a message is refused when the queues are full by count or bytes, or all sessions
 *      together hold too much. Before QoS 1 is refused, what has expired goes, then QoS 0, oldest
 *      first. What was sent before is never dropped to make room: the client may have seen it, so
 *      it must be sent again [MQTT-4.4.0-1].
 *   4. What is in flight counts for the total of the daemon, but not for the session's queue: the
 *      window bounds it.
 *   5. What goes with a session or a connection is freed by and by, at the latest when the total has
 *      no room for a session of the same reactor.
 *   6. Expired messages are dropped instead of sent, unless sending had begun [MQTT-3.3.2-5].
 */
#include "broker_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SWEEP_MAX = 256 }; /* some tenths of a millisecond */

enum send_result {
	SENT,
	SEND_UNFIT, /* the client never gets it: it takes no packet of this size */
	SEND_LATER, /* the connection is ending or out of memory */
};

/* ---- lists ---- */

static void list_append(struct delivery_list *l, struct delivery *d)
{
	d->next = NULL;
	if (l->last != NULL)
		l->last->next = d;
	else
		l->first = d;
	l->last = d;
	l->count++;
	l->bytes += d->m->bytes;
}

/* Takes the one behind `prev` out; NULL: the first. */
static struct delivery *list_take(struct delivery_list *l, struct delivery *prev)
{
	struct delivery **at = prev != NULL ? &prev->next : &l->first;
	struct delivery *d = *at;
	*at = d->next;
	if (l->last == d)
		l->last = prev;
	l->count--;
	l->bytes -= d->m->bytes;
	d->next = NULL;
	return d;
}

/* Moves all of `from` in front of `to`. */
static void list_prepend(struct delivery_list *to, struct delivery_list *from)
{
	if (from->first == NULL)
		return;
	from->last->next = to->first;
	to->first = from->first;
	if (to->last == NULL)
		to->last = from->last;
	to->count += from->count;
	to->bytes += from->bytes;
	*from = (struct delivery_list){ 0 };
}

/* The queues' changes go through these two, so that the statistics follow. */
static void queue_append(struct session *s, struct delivery *d)
{
	struct session_out *o = s->out;
	list_append(&o->queue[d->copy.qos], d);
	if (d->m->expires_ms < o->expires_ms_min)
		o->expires_ms_min = d->m->expires_ms;
	s->broker->stats.queued_messages++;
	s->broker->stats.queued_bytes += d->m->bytes;
}

static struct delivery *queue_take(struct broker *b, struct delivery_list *l, struct delivery *prev)
{
	struct delivery *d = list_take(l, prev);
	b->stats.queued_messages--;
	b->stats.queued_bytes -= d->m->bytes;
	return d;
}

/* All of it, for broker_sweep. */
static void queue_drop(struct broker *b, struct delivery_list *l)
{
	b->stats.queued_messages -= l->count;
	b->stats.queued_bytes -= l->bytes;
	list_prepend(&b->dropped, l);
}

/* ---- deliveries ---- */

static size_t delivery_bytes(const struct copy *copy)
{
	return sizeof(struct delivery) + copy->subids_count * sizeof(uint32_t);
}

/* NULL when out of memory. */
static struct delivery *delivery_new(struct session *s, struct message *m, const struct copy *copy,
	const uint32_t *subids)
{
	size_t bytes = delivery_bytes(copy);
	struct delivery *d = malloc(bytes);
	if (d == NULL)
		return NULL;
	atomic_fetch_add_explicit(&broker_sums.held_bytes, bytes, memory_order_relaxed);
	*d = (struct delivery){ .m = m, .seq = s->out->seq_next++, .copy = *copy };
	if (copy->subids_count > 0)
		memcpy(d->subids, subids, copy->subids_count * sizeof *subids);
	message_ref(m);
	return d;
}

static void delivery_free(struct delivery *d)
{
	atomic_fetch_sub_explicit(&broker_sums.held_bytes, delivery_bytes(&d->copy),
		memory_order_relaxed);
	message_unref(d->m);
	free(d);
}

struct session_out *session_out_new(void)
{
	struct session_out *o = calloc(1, sizeof *o);
	if (o == NULL)
		return NULL;
	o->expires_ms_min = UINT64_MAX;
	idset_init(&o->ids);
	return o;
}

void session_out_free(struct broker *b, struct session_out *o)
{
	if (o == NULL)
		return;
	assert(o->filters == NULL);
	for (unsigned qos = 0; qos < 2; qos++)
		queue_drop(b, &o->queue[qos]);
	list_prepend(&b->dropped, &o->inflight);
	idset_fini(&o->ids);
	free(o);
}

bool broker_sweep(struct broker *b)
{
	for (uint32_t left = SWEEP_MAX; left > 0 && b->dropped.first != NULL; left--)
		delivery_free(list_take(&b->dropped, NULL));
	return b->dropped.first != NULL;
}

/* ---- sending ---- */

/* Seconds left, rounded up; 0 when it has expired on its way. */
static uint32_t expiry_left_s(const struct message *m, uint64_t now_ms)
{
	if (m->expires_ms <= now_ms)
		return 0;
	return (uint32_t)((m->expires_ms - now_ms + 999) / 1000);
}

/* Lets b->head take any head of m. 0 or −ENOMEM. */
static int head_reserve(struct broker *b, const struct message *m)
{
	/* The fixed parts, with room for every property of a number: generous, and checked by the
	 * encoder. */
	enum { FIXED_MAX = 128 + MQTT_SUBIDS_MAX * 5 };
	size_t head_max = FIXED_MAX + (size_t)m->topic.bytes + m->props.content_type.bytes +
		m->props.response_topic.bytes + m->props.correlation_data.bytes +
		m->props.user_properties.bytes;
	if (head_max <= b->head_max)
		return 0;
	uint8_t *head = realloc(b->head, head_max);
	if (head == NULL)
		return -ENOMEM;
	b->head = head;
	b->head_max = head_max;
	return 0;
}

/* Encodes everything up to the payload into b->head. 0: no packet can be this large. */
static size_t head_encode(struct broker *b, const struct session *s, const struct message *m,
	const struct copy *copy, const uint32_t *subids)
{
	struct mqtt_publish p = {
		.dup = copy->dup,
		.retain = copy->retain,
		.qos = copy->qos,
		.packet_id = copy->packet_id,
		.topic = m->topic,
		.payload_bytes = m->payload.bytes,
	};
	if (s->version >= MQTT_V5) {
		p.props = m->props;
		if (MQTT_HAS(&p.props, MQTT_P_MESSAGE_EXPIRY))
			p.props.message_expiry = expiry_left_s(m, broker_now_ms(b));
		if (copy->subids_count > 0) {
			p.props.has |= 1u << MQTT_P_SUBSCRIPTION_ID;
			p.props.subids_count = copy->subids_count;
			memcpy(p.props.subids, subids, copy->subids_count * sizeof *subids);
		}
	}
	return mqtt_encode_publish_head(b->head, b->head_max, s->version, &p);
}

static enum send_result copy_send(struct session *s, const struct message *m,
	const struct copy *copy, const uint32_t *subids)
{
	struct broker *b = s->broker;
	if (head_reserve(b, m) < 0)
		return SEND_LATER;
	size_t head_bytes = head_encode(b, s, m, copy, subids);
	/* Not sent, and treated as if it had been [MQTT-3.1.2-25]. */
	if (head_bytes == 0 || head_bytes + m->payload.bytes > s->client_packet_max) {
		b->stats.dropped++;
		return SEND_UNFIT;
	}
	if (!b->ops.send(s->conn, b->head, (uint32_t)head_bytes, m->payload.s, m->payload.bytes))
		return SEND_LATER;
	b->stats.delivered++;
	return SENT;
}

static bool output_has_room(const struct session *s)
{
	return s->live && s->broker->ops.unsent_bytes(s->conn) <= BROKER_UNSENT_MAX;
}

static bool window_is_open(const struct session *s)
{
	uint32_t max = s->broker->conf->mqtt.inflight_max;
	if (s->client_receive_max < max)
		max = s->client_receive_max;
	return s->out->inflight.count < max;
}

/* Sends the first of queue[0], or drops it: QoS 0 is tried once. */
static bool send_first_qos0(struct session *s)
{
	struct delivery *d = queue_take(s->broker, &s->out->queue[0], NULL);
	enum send_result r = SEND_UNFIT;
	if (message_is_expired(d->m, broker_now_ms(s->broker)))
		s->broker->stats.dropped++;
	else
		r = copy_send(s, d->m, &d->copy, d->subids);
	delivery_free(d);
	return r != SEND_LATER;
}

/* Sends the first of queue[1]. False: not now, it stays where it is. */
static bool send_first_qos1(struct session *s)
{
	struct broker *b = s->broker;
	struct session_out *o = s->out;
	struct delivery *d = o->queue[1].first;
	bool is_first_time = d->copy.packet_id == 0;
	enum send_result r = SEND_UNFIT;
	if (is_first_time && message_is_expired(d->m, broker_now_ms(b))) {
		b->stats.dropped++;
	} else {
		if (is_first_time)
			d->copy.packet_id = idset_take(&o->ids);
		r = d->copy.packet_id != 0 ? copy_send(s, d->m, &d->copy, d->subids) : SEND_LATER;
	}
	if (r == SEND_LATER && !is_first_time)
		return false;
	if (r != SENT && d->copy.packet_id != 0) {
		idset_remove(&o->ids, d->copy.packet_id);
		d->copy.packet_id = 0;
	}
	if (r == SEND_LATER)
		return false;
	queue_take(b, &o->queue[1], NULL);
	if (r == SENT)
		list_append(&o->inflight, d);
	else
		delivery_free(d);
	return true;
}

void session_pump(struct session *s)
{
	if (s->out == NULL)
		return;
	while (output_has_room(s)) {
		struct delivery *qos0 = s->out->queue[0].first;
		struct delivery *qos1 = window_is_open(s) ? s->out->queue[1].first : NULL;
		if (qos0 == NULL && qos1 == NULL)
			return;
		bool is_qos1 = qos0 == NULL || (qos1 != NULL && qos1->seq < qos0->seq);
		if (!(is_qos1 ? send_first_qos1(s) : send_first_qos0(s)))
			return;
	}
}

/* ---- room ---- */

/* Drops what has expired of one queue; notes when the next one will. */
static void queue_expire(struct session *s, struct delivery_list *l, uint64_t now_ms)
{
	for (struct delivery *prev = NULL, *d = l->first; d != NULL;) {
		struct delivery *next = d->next;
		if (d->copy.packet_id == 0 && message_is_expired(d->m, now_ms)) {
			delivery_free(queue_take(s->broker, l, prev));
			s->broker->stats.dropped++;
		} else {
			if (d->copy.packet_id == 0 && d->m->expires_ms < s->out->expires_ms_min)
				s->out->expires_ms_min = d->m->expires_ms;
			prev = d;
		}
		d = next;
	}
}

static bool queue_has_room(const struct session *s, const struct message *m)
{
	const struct session_out *o = s->out;
	const struct conf *conf = s->broker->conf;
	uint64_t count = (uint64_t)o->queue[0].count + o->queue[1].count;
	uint64_t bytes = o->queue[0].bytes + o->queue[1].bytes;
	return count == 0 || (count < conf->mqtt.queue_messages_max &&
		bytes + m->bytes <= conf->mqtt.queue_bytes_max);
}

/* The message itself is counted already, since it exists. */
static bool total_has_room(const struct session *s, const struct copy *copy)
{
	uint64_t held = atomic_load_explicit(&broker_sums.held_bytes, memory_order_relaxed);
	return held + delivery_bytes(copy) <= s->broker->conf->mqtt.queue_total_bytes_max;
}

/* Makes room for m as far as rule 3 allows. False: there is none. is_sent_now: m won't wait, so
 * only the total counts. */
static bool make_room(struct session *s, const struct message *m, const struct copy *copy,
	bool is_sent_now)
{
	struct session_out *o = s->out;
	while (!total_has_room(s, copy) && s->broker->dropped.first != NULL)
		broker_sweep(s->broker);
	for (unsigned step = 0;; step++) {
		if ((is_sent_now || queue_has_room(s, m)) && total_has_room(s, copy))
			return true;
		uint64_t now_ms = broker_now_ms(s->broker);
		if (step == 0 && now_ms > o->expires_ms_min) {
			o->expires_ms_min = UINT64_MAX;
			queue_expire(s, &o->queue[0], now_ms);
			queue_expire(s, &o->queue[1], now_ms);
			continue;
		}
		if (copy->qos == 0 || o->queue[0].first == NULL)
			return false;
		delivery_free(queue_take(s->broker, &o->queue[0], NULL));
		s->broker->stats.dropped++;
	}
}

void session_deliver(struct session *s, struct message *m, const struct copy *copy,
	const uint32_t *subids)
{
	struct session_out *o = s->out;
	struct broker *b = s->broker;
	if (copy->qos == 0 && s->conn == NULL)
		return;
	if (message_is_expired(m, broker_now_ms(b))) {
		b->stats.dropped++;
		return;
	}
	bool is_sent_now = o->queue[copy->qos].first == NULL && output_has_room(s) &&
		(copy->qos == 0 || window_is_open(s));
	if (is_sent_now && copy->qos == 0) {
		copy_send(s, m, copy, subids);
		return;
	}
	struct delivery *d = NULL;
	if (make_room(s, m, copy, is_sent_now))
		d = delivery_new(s, m, copy, subids);
	if (d == NULL) {
		b->stats.dropped++;
		return;
	}
	queue_append(s, d);
	session_pump(s);
}

/* ---- connections come and go, clients acknowledge ---- */

void session_resume(struct session *s)
{
	s->live = true;
	session_pump(s);
}

void session_out_disconnect(struct session *s)
{
	struct session_out *o = s->out;
	struct broker_stats *stats = &s->broker->stats;
	queue_drop(s->broker, &o->queue[0]);
	for (struct delivery *d = o->inflight.first; d != NULL; d = d->next)
		d->copy.dup = true;
	stats->queued_messages += o->inflight.count;
	stats->queued_bytes += o->inflight.bytes;
	list_prepend(&o->queue[1], &o->inflight);
}

/* The one with this identifier among those from `first` on that have been sent; *ret_prev is what
 * precedes it. */
static struct delivery *find_sent(struct delivery *first, uint16_t packet_id,
	struct delivery **ret_prev)
{
	struct delivery *prev = NULL, *d = first;
	while (d != NULL && d->copy.packet_id != 0 && d->copy.packet_id != packet_id) {
		prev = d;
		d = d->next;
	}
	*ret_prev = prev;
	return d != NULL && d->copy.packet_id != 0 ? d : NULL;
}

bool session_puback(struct session *s, uint16_t packet_id)
{
	struct session_out *o = s->out;
	if (o == NULL || packet_id == 0 || !idset_has(&o->ids, packet_id))
		return false;
	struct delivery *prev;
	if (find_sent(o->inflight.first, packet_id, &prev) != NULL) {
		delivery_free(list_take(&o->inflight, prev));
	} else {
		/* Sent on an earlier connection, and this acknowledgement comes before we sent it
		 * again. */
		struct delivery *d = find_sent(o->queue[1].first, packet_id, &prev);
		assert(d != NULL);
		delivery_free(queue_take(s->broker, &o->queue[1], prev));
	}
	idset_remove(&o->ids, packet_id);
	session_pump(s);
	return true;
}
