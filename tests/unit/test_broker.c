/*
 * broker: one test for each rule of delivery. Sessions and wills are test_session.c; everything
 * together, at random and against a model, is test_broker_model.c.
 */
#include "broker_suite.h"

#include <pthread.h>
#include <stddef.h>

TestSuite(broker, .init = set_up, .fini = tear_down);

/* ---- matching and what a subscription asks for ---- */

Test(broker, nobody_wants_it)
{
	cr_expect_not(world_publish(&w, NULL, "a", "x", 1));
	cr_expect_not(broker_wants_dollar());
	struct session *s = world_join(&w, 0, &c1, "c1", 0);
	cr_expect_eq(subscribe(s, "a", 1, 0), 1);
	cr_expect_not(world_publish(&w, NULL, "b", "x", 1));
	cr_expect_not(world_publish(&w, NULL, "$SYS/a", "x", 1));
	cr_expect(world_publish(&w, NULL, "a", "x", 1));
	cr_expect_not(broker_wants_dollar());
	cr_expect_eq(w.forwarded, 0, "the other reactor has no subscription");
	conn_expect(&c1, "a", "x", 1);
	conn_expect_none(&c1);
}

Test(broker, dollar_topics_are_counted_apart)
{
	struct session *s = world_join(&w, 1, &c1, "c1", 0);
	subscribe(s, "#", 1, 0);
	cr_expect_not(broker_wants_dollar(), "# does not match topics that begin with $");
	cr_expect_not(world_publish(&w, NULL, "$x/a", "x", 1));
	cr_expect_eq(w.forwarded, 0);
	subscribe(s, "$x/#", 1, 0);
	cr_expect(broker_wants_dollar());
	cr_expect(world_publish(&w, NULL, "$x/a", "x", 1));
	conn_expect(&c1, "$x/a", "x", 1);
	cr_expect_eq(session_unsubscribe(s, span("$x/#")), 0);
	cr_expect_not(broker_wants_dollar());
}

Test(broker, the_other_reactor_gets_it)
{
	struct session *a = world_join(&w, 0, &c1, "c1", 0);
	struct session *b = world_join(&w, 1, &c2, "c2", 0);
	subscribe(a, "t", 1, 0);
	subscribe(b, "+", 0, 0);
	cr_expect(world_publish(&w, a, "t", "x", 1));
	conn_expect(&c1, "t", "x", 1);
	conn_expect(&c2, "t", "x", 0);
	/* Nothing here matches, but there are filters elsewhere: it is not certain. */
	session_unsubscribe(a, span("t"));
	cr_expect(world_publish(&w, a, "no/one", "x", 1));
	cr_expect_eq(w.forwarded, 2);
	cr_expect_neq(a->id, b->id);
	conn_expect_none(&c1);
	conn_expect_none(&c2);
}

Test(broker, qos_is_the_lower_one)
{
	struct session *s = world_join(&w, 0, &c1, "c1", 0);
	static const uint8_t want[3][3] = { { 0, 0, 0 }, { 0, 1, 1 }, { 0, 1, 1 } };
	for (uint8_t published = 0; published < 3; published++) {
		for (uint8_t asked = 0; asked < 3; asked++) {
			cr_expect_eq(subscribe(s, "t", asked, 0), asked > 1 ? 1 : asked);
			world_publish(&w, NULL, "t", "x", published);
			uint16_t id = conn_expect(&c1, "t", "x", want[published][asked]);
			cr_expect_eq(session_puback(s, id), id != 0);
		}
	}
	conn_expect_none(&c1);
}

Test(broker, overlapping_filters_give_one_copy)
{
	struct session *s = world_join(&w, 0, &c1, "c1", 0);
	subscribe(s, "a/b", 0, 1);
	subscribe(s, "a/+", 1, 2);
	subscribe(s, "#", 0, 0);
	subscribe(s, "+/b", 0, 268435455);
	subscribe(s, "a/c", 1, 4);
	world_publish(&w, NULL, "a/b", "x", 1);
	conn_expect(&c1, "a/b", "x", 1);
	const struct mqtt_props *p = &c1.got[0]->p.props;
	cr_assert_eq(p->subids_count, 3);
	uint64_t sum = (uint64_t)p->subids[0] + p->subids[1] + p->subids[2];
	cr_expect_eq(sum, 1 + 2 + 268435455);
	conn_expect_none(&c1);
	/* a replaced subscription has its new options and identifier only */
	subscribe(s, "a/+", 0, 7);
	session_unsubscribe(s, span("a/b"));
	session_unsubscribe(s, span("+/b"));
	world_publish(&w, NULL, "a/b", "y", 1);
	conn_expect(&c1, "a/b", "y", 0);
	p = &c1.got[1]->p.props;
	cr_assert_eq(p->subids_count, 1);
	cr_expect_eq(p->subids[0], 7);
}

Test(broker, more_identifiers_than_fit)
{
	enum { FILTERS = MQTT_SUBIDS_MAX * 2 + 3 };
	struct session *s = world_join(&w, 0, &c1, "c1", 0);
	/* every combination of "x" and "+" over six levels matches */
	for (uint32_t i = 0; i < FILTERS; i++) {
		char filter[12] = "x/x/x/x/x/x";
		for (uint32_t level = 0; level < 6; level++)
			if ((i >> level & 1) != 0)
				filter[level * 2] = '+';
		cr_assert_eq(subscribe(s, filter, 1, i + 1), 1);
	}
	world_publish(&w, NULL, "x/x/x/x/x/x", "p", 1);
	cr_assert_eq(c1.got_count, 3);
	bool seen[FILTERS + 1] = { false };
	uint32_t seen_count = 0;
	for (uint32_t i = 0; i < c1.got_count; i++) {
		conn_expect(&c1, "x/x/x/x/x/x", "p", 1);
		for (uint32_t j = 0; j < c1.got[i]->p.props.subids_count; j++) {
			uint32_t id = c1.got[i]->p.props.subids[j];
			cr_assert(id >= 1 && id <= FILTERS && !seen[id]);
			seen[id] = true;
			seen_count++;
		}
	}
	cr_expect_eq(seen_count, FILTERS);
}

Test(broker, no_local)
{
	struct session *a = world_join(&w, 0, &c1, "c1", 0);
	struct session *b = world_join(&w, 0, &c2, "c2", 0);
	subscribe(a, "t", 1 | SUB_NO_LOCAL, 5);
	subscribe(b, "t", 1 | SUB_NO_LOCAL, 0);
	cr_expect(world_publish(&w, a, "t", "from a", 1));
	conn_expect_none(&c1);
	conn_expect(&c2, "t", "from a", 1);
	/* Another filter of the same client still delivers, without that identifier. */
	subscribe(a, "+", 0, 6);
	world_publish(&w, a, "t", "again", 1);
	conn_expect(&c1, "t", "again", 0);
	cr_assert_eq(c1.got[0]->p.props.subids_count, 1);
	cr_expect_eq(c1.got[0]->p.props.subids[0], 6);
	world_publish(&w, NULL, "t", "daemon", 1);
	conn_expect(&c1, "t", "daemon", 1);
	/* only itself wants it, and does not get it: nobody matches */
	subscribe(a, "own", 1 | SUB_NO_LOCAL, 0);
	session_unsubscribe(a, span("+"));
	cr_expect_not(world_publish(&w, a, "own", "x", 1));
}

Test(broker, retain_as_published)
{
	struct session *a = world_join(&w, 0, &c1, "c1", 0);
	struct session *b = world_join(&w, 0, &c2, "c2", 0);
	subscribe(a, "t", 1 | SUB_RETAIN_AS_PUBLISHED, 0);
	subscribe(b, "t", 1, 0);
	struct mqtt_publish p = { .retain = true, .qos = 1, .packet_id = 1, .topic = span("t") };
	struct message *m = message_new(&p, NULL, 0, w.now_ms);
	broker_publish(w.b[0], m);
	message_unref(m);
	world_publish(&w, NULL, "t", "", 1);
	cr_assert_eq(c1.got_count + c2.got_count, 4);
	cr_expect(c1.got[0]->p.retain);
	cr_expect_not(c2.got[0]->p.retain);
	cr_expect_not(c1.got[1]->p.retain);
}

Test(broker, properties_go_on_unaltered)
{
	/* what the decoder gives when another property lies between two user properties */
	static const char user[] = "\x26\0\1k\0\1v\x23\0\5\x26\0\1k\0\2v2";
	struct session *a = world_join(&w, 0, &c1, "c1", 0);
	struct hello old = { .clientid = "c2", .version = MQTT_V311 };
	struct session *b = world_connect(&w, 0, &c2, &old).s;
	subscribe(a, "t", 1, 9);
	subscribe(b, "t", 1, 0);
	struct mqtt_publish p = {
		.qos = 1, .packet_id = 77, .topic = span("t"), .payload_bytes = 3,
	};
	p.props = (struct mqtt_props){
		.has = 1u << MQTT_P_PAYLOAD_FORMAT | 1u << MQTT_P_MESSAGE_EXPIRY |
			1u << MQTT_P_CONTENT_TYPE | 1u << MQTT_P_RESPONSE_TOPIC |
			1u << MQTT_P_CORRELATION_DATA | 1u << MQTT_P_USER_PROPERTY |
			1u << MQTT_P_TOPIC_ALIAS,
		.payload_format = 1,
		.message_expiry = 100,
		.topic_alias = 5,
		.content_type = { "", 0 },
		.response_topic = span("reply/to"),
		.correlation_data = { "\0\xff", 2 },
		.user_properties = { user, sizeof user - 1 },
	};
	struct message *m = message_new(&p, "abc", 0, w.now_ms);
	broker_publish(w.b[0], m);
	message_unref(m);
	conn_expect(&c1, "t", "abc", 1);
	conn_expect(&c2, "t", "abc", 1);
	const struct mqtt_props *got = &c1.got[0]->p.props;
	cr_expect_eq(got->has, ((p.props.has | 1u << MQTT_P_SUBSCRIPTION_ID) &
		~(1u << MQTT_P_TOPIC_ALIAS)));
	cr_expect_eq(got->payload_format, 1);
	cr_expect_eq(got->message_expiry, 100);
	cr_expect_eq(got->content_type.bytes, 0);
	cr_expect(span_is(got->response_topic, "reply/to"));
	cr_expect(got->correlation_data.bytes == 2 &&
		memcmp(got->correlation_data.s, "\0\xff", 2) == 0);
	static const char packed[] = "\x26\0\1k\0\1v\x26\0\1k\0\2v2";
	cr_assert_eq(got->user_properties.bytes, sizeof packed - 1);
	cr_expect_eq(memcmp(got->user_properties.s, packed, sizeof packed - 1), 0);
	cr_expect_eq(c2.got[0]->p.props.has, 0);
	cr_expect_eq(c2.got[0]->packet_bytes, 2 + 2 + 1 + 2 + 3);
}

Test(broker, subscriptions_have_a_limit)
{
	w.conf.mqtt.subscriptions_max = 3;
	struct session *s = world_join(&w, 0, &c1, "c1", 0);
	cr_expect_eq(session_unsubscribe(s, span("a")), 0x11, "before any subscription");
	cr_expect_eq(subscribe(s, "a", 1, 0), 1);
	cr_expect_eq(subscribe(s, "b", 1, 0), 1);
	cr_expect_eq(subscribe(s, "c", 1, 0), 1);
	cr_expect_eq(subscribe(s, "d", 1, 0), 0x97);
	cr_expect_eq(subscribe(s, "b", 0, 0), 0, "replacing needs no room");
	cr_expect_eq(stats(0).subscriptions, 3);
	cr_expect_eq(session_unsubscribe(s, span("b")), 0);
	cr_expect_eq(session_unsubscribe(s, span("b")), 0x11);
	cr_expect_eq(subscribe(s, "d", 1, 0), 1);
	cr_expect_eq(subscribe(s, "$share/g/a", 1, 0), 0x9e);
	cr_expect_eq(stats(0).subscriptions, 3);
	w.conf.mqtt.filter_levels_max = 4;
	cr_expect_eq(session_unsubscribe(s, span("a")), 0);
	cr_expect_eq(subscribe(s, "1/2/3/4/5", 1, 0), 0x97);
	cr_expect_eq(subscribe(s, "1/2/3/4", 1, 0), 1);
	world_publish(&w, NULL, "b", "x", 1);
	conn_expect_none(&c1);
}

/* ---- window, order, repetition ---- */

Test(broker, the_window_holds_qos1_back)
{
	struct hello h = { .clientid = "c1", .receive_max = 2 };
	struct session *s = world_connect(&w, 0, &c1, &h).s;
	subscribe(s, "t", 1, 0);
	world_publish(&w, NULL, "t", "1", 1);
	world_publish(&w, NULL, "t", "2", 1);
	world_publish(&w, NULL, "t", "3", 1);
	world_publish(&w, NULL, "t", "zero", 0);
	world_publish(&w, NULL, "t", "4", 1);
	uint16_t id1 = conn_expect(&c1, "t", "1", 1);
	uint16_t id2 = conn_expect(&c1, "t", "2", 1);
	conn_expect(&c1, "t", "zero", 0); /* QoS 0 needs no window */
	conn_expect_none(&c1);
	cr_expect_neq(id1, id2);
	cr_expect_eq(stats(0).queued_messages, 2);
	cr_expect_not(session_puback(s, 999));
	cr_expect_not(session_puback(s, 0));
	conn_expect_none(&c1);
	cr_expect(session_puback(s, id2)); /* any order will do */
	uint16_t id3 = conn_expect(&c1, "t", "3", 1);
	conn_expect_none(&c1);
	cr_expect_not(session_puback(s, id2), "acknowledged once");
	cr_expect(session_puback(s, id1));
	uint16_t id4 = conn_expect(&c1, "t", "4", 1);
	cr_expect(session_puback(s, id3));
	cr_expect(session_puback(s, id4));
	cr_expect_eq(stats(0).queued_messages, 0);
	cr_expect_eq(stats(0).delivered, 5);
}

Test(broker, inflight_limit_of_the_daemon)
{
	w.conf.mqtt.inflight_max = 3;
	struct session *s = world_join(&w, 0, &c1, "c1", 0);
	subscribe(s, "t", 1, 0);
	for (int i = 0; i < 5; i++)
		world_publish(&w, NULL, "t", "x", 1);
	cr_expect_eq(c1.got_count, 3);
}

Test(broker, packet_identifiers_stay_distinct_past_their_end)
{
	struct session *s = world_join(&w, 0, &c1, "c1", 0);
	subscribe(s, "t", 1, 0);
	world_publish(&w, NULL, "t", "first", 1);
	uint16_t first = conn_expect(&c1, "t", "first", 1);
	struct message *m = message_make(&w, "t", "x", 1, 0);
	for (uint32_t i = 0; i < 70000; i++) {
		broker_publish(w.b[0], m);
		uint16_t id = conn_expect(&c1, "t", "x", 1);
		cr_assert(id != first && session_puback(s, id));
		if (c1.got_count == 1000)
			conn_forget(&c1);
	}
	message_unref(m);
	cr_expect(session_puback(s, first));
}

Test(broker, a_new_connection_gets_it_again)
{
	struct session *s = world_join(&w, 0, &c1, "c1", 60);
	subscribe(s, "t", 1, 3);
	world_publish(&w, NULL, "t", "1", 1);
	world_publish(&w, NULL, "t", "2", 1);
	world_publish(&w, NULL, "t", "3", 1);
	uint16_t id1 = conn_expect(&c1, "t", "1", 1);
	uint16_t id2 = conn_expect(&c1, "t", "2", 1);
	uint16_t id3 = conn_expect(&c1, "t", "3", 1);
	session_puback(s, id2);
	world_leave(&w, s, true);
	world_publish(&w, NULL, "t", "4", 1);
	world_publish(&w, NULL, "t", "0", 0); /* nobody is there: lost */

	/* Receive Maximum 1: even the repetitions wait for each other */
	struct hello h = { .clientid = "c1", .receive_max = 1, .expiry_s = 60, .is_silent = true };
	struct welcome wel = world_connect(&w, 0, &c2, &h);
	cr_assert(wel.present && wel.s == s && wel.old_conn == NULL);
	conn_expect_none(&c2); /* CONNACK first */
	world_publish(&w, NULL, "t", "5", 0); /* connected, so QoS 0 waits for CONNACK too */
	conn_expect_none(&c2);
	session_resume(s);
	cr_expect_eq(conn_expect(&c2, "t", "1", 1), id1);
	cr_expect(c2.got[0]->p.dup);
	cr_expect_eq(c2.got[0]->p.props.subids[0], 3);
	conn_expect(&c2, "t", "5", 0);
	conn_expect_none(&c2);
	/* acknowledged before it was sent again: the client did get it then */
	cr_expect(session_puback(s, id3));
	conn_expect_none(&c2);
	cr_expect(session_puback(s, id1));
	conn_expect(&c2, "t", "4", 1);
	cr_expect_not(c2.got[2]->p.dup);
	world_leave(&w, s, true);

	s = world_join(&w, 0, &c3, "c1", 60);
	uint16_t id4 = conn_expect(&c3, "t", "4", 1);
	cr_expect(c3.got[0]->p.dup);
	cr_expect(session_puback(s, id4));
	conn_expect_none(&c3);
}

Test(broker, output_that_does_not_drain)
{
	struct session *s = world_join(&w, 0, &c1, "c1", 0);
	subscribe(s, "t", 1, 0);
	c1.unsent = BROKER_UNSENT_MAX;
	world_publish(&w, NULL, "t", "1", 1);
	conn_expect(&c1, "t", "1", 1);
	c1.unsent = BROKER_UNSENT_MAX + 1;
	world_publish(&w, NULL, "t", "2", 1);
	world_publish(&w, NULL, "t", "3", 0);
	world_publish(&w, NULL, "t", "4", 1);
	session_pump(s);
	conn_expect_none(&c1);
	c1.unsent = 0;
	session_pump(s);
	conn_expect(&c1, "t", "2", 1);
	conn_expect(&c1, "t", "3", 0);
	conn_expect(&c1, "t", "4", 1);
}

Test(broker, a_send_that_fails_was_no_send)
{
	struct session *s = world_join(&w, 0, &c1, "c1", 60);
	subscribe(s, "t", 1, 0);
	c1.failing = true;
	world_publish(&w, NULL, "t", "1", 1);
	world_publish(&w, NULL, "t", "2", 1);
	cr_expect_eq(stats(0).queued_messages, 2);
	world_leave(&w, s, true);
	s = world_join(&w, 0, &c2, "c1", 60);
	conn_expect(&c2, "t", "1", 1);
	conn_expect(&c2, "t", "2", 1);
	cr_expect_not(c2.got[0]->p.dup || c2.got[1]->p.dup);
	/* and a repetition that fails stays one, with its identifier */
	world_leave(&w, s, true);
	c1.failing = true;
	s = world_join(&w, 0, &c1, "c1", 60);
	world_leave(&w, s, true);
	world_join(&w, 0, &c3, "c1", 60);
	cr_expect_eq(conn_expect(&c3, "t", "1", 1), c2.got[0]->p.packet_id);
	cr_expect(c3.got[0]->p.dup);
}

Test(broker, larger_than_the_client_takes)
{
	/* 2 + 2+1 topic + 2 id + 1 properties + payload */
	struct hello h = { .clientid = "c1", .packet_max = 8 + 4, .expiry_s = 60 };
	struct session *s = world_connect(&w, 0, &c1, &h).s;
	subscribe(s, "t", 1, 0);
	world_publish(&w, NULL, "t", "12345", 1);
	world_publish(&w, NULL, "t", "1234", 1);
	world_publish(&w, NULL, "t", "1234567", 0);
	world_publish(&w, NULL, "t", "123456", 0);
	conn_expect(&c1, "t", "1234", 1);
	conn_expect(&c1, "t", "123456", 0);
	conn_expect_none(&c1);
	cr_expect_eq(stats(0).dropped, 2);
	cr_expect_eq(c1.got[0]->packet_bytes, 12);
	/* What waits meets the next connection's limit, and leaves its place in the window. */
	world_leave(&w, s, true);
	world_publish(&w, NULL, "t", "1", 1);
	h.packet_max = 9;
	h.receive_max = 1;
	s = world_connect(&w, 0, &c2, &h).s;
	uint16_t id = conn_expect(&c2, "t", "1", 1);
	cr_expect_eq(stats(0).dropped, 3);
	cr_expect(session_puback(s, id));
	cr_expect_eq(stats(0).queued_messages, 0);
}

/* ---- time ---- */

static void publish_expiring(const char *payload, uint32_t expiry_s)
{
	struct mqtt_publish p = {
		.qos = 1, .packet_id = 1, .topic = span("t"),
		.payload_bytes = (uint32_t)strlen(payload),
		.props = { .has = 1u << MQTT_P_MESSAGE_EXPIRY, .message_expiry = expiry_s },
	};
	struct message *m = message_new(&p, payload, 0, w.now_ms);
	broker_publish(w.b[0], m);
	message_unref(m);
}

Test(broker, messages_expire_while_they_wait)
{
	struct session *s = world_join(&w, 0, &c1, "c1", UINT32_MAX);
	subscribe(s, "t", 1, 0);
	publish_expiring("at once", 0);
	uint16_t id = conn_expect(&c1, "t", "at once", 1);
	cr_expect_eq(c1.got[0]->p.props.message_expiry, 0);
	session_puback(s, id);
	world_leave(&w, s, true);
	publish_expiring("short", 10);
	publish_expiring("long", 100);
	publish_expiring("longest", UINT32_MAX);
	world_pass(&w, 10001);
	world_join(&w, 0, &c2, "c1", UINT32_MAX);
	conn_expect(&c2, "t", "long", 1);
	cr_expect_eq(c2.got[0]->p.props.message_expiry, 90, "what is left, rounded up");
	conn_expect(&c2, "t", "longest", 1);
	cr_expect_eq(c2.got[1]->p.props.message_expiry, UINT32_MAX - 10);
	conn_expect_none(&c2);
	cr_expect_eq(stats(0).dropped, 1);
	/* sending had begun: it must be completed, however late */
	world_leave(&w, s, true);
	world_pass(&w, 1000000);
	world_join(&w, 0, &c3, "c1", UINT32_MAX);
	conn_expect(&c3, "t", "long", 1);
	cr_expect_eq(c3.got[0]->p.props.message_expiry, 0);
}

/* ---- limits of the queue ---- */

Test(broker, queue_is_bounded_by_messages)
{
	w.conf.mqtt.queue_messages_max = 3;
	struct session *s = world_join(&w, 0, &c1, "c1", 60);
	subscribe(s, "t", 1, 0);
	c1.unsent = UINT32_MAX;
	world_publish(&w, NULL, "t", "0a", 0);
	world_publish(&w, NULL, "t", "1a", 1);
	world_publish(&w, NULL, "t", "0b", 0);
	world_publish(&w, NULL, "t", "0c", 0); /* full: refused */
	cr_expect_eq(stats(0).queued_messages, 3);
	cr_expect_eq(stats(0).dropped, 1);
	world_publish(&w, NULL, "t", "1b", 1); /* displaces 0a */
	world_publish(&w, NULL, "t", "1c", 1); /* displaces 0b */
	world_publish(&w, NULL, "t", "1d", 1); /* the newest is refused */
	cr_expect_eq(stats(0).queued_messages, 3);
	cr_expect_eq(stats(0).dropped, 4);
	c1.unsent = 0;
	session_pump(s);
	conn_expect(&c1, "t", "1a", 1);
	conn_expect(&c1, "t", "1b", 1);
	conn_expect(&c1, "t", "1c", 1);
	conn_expect_none(&c1);
}

Test(broker, queue_is_bounded_by_bytes)
{
	struct message *m = message_make(&w, "t", "0123456789", 1, 0);
	w.conf.mqtt.queue_bytes_max = m->bytes * 3 - 1;
	struct session *s = world_join(&w, 0, &c1, "c1", 60);
	subscribe(s, "t", 1, 0);
	world_leave(&w, s, true);
	for (int i = 0; i < 4; i++)
		broker_publish(w.b[0], m);
	cr_expect_eq(stats(0).queued_messages, 2);
	cr_expect_eq(stats(0).queued_bytes, m->bytes * 2);
	cr_expect_eq(stats(0).dropped, 2);
	message_unref(m);
	/* one message of any size fits into an empty queue */
	struct session *b = world_join(&w, 0, &c2, "c2", 60);
	subscribe(b, "big", 1, 0);
	world_leave(&w, b, true);
	char big[4000] = { 0 };
	memset(big, 'x', sizeof big - 1);
	world_publish(&w, NULL, "big", big, 1);
	world_publish(&w, NULL, "big", "small", 1);
	cr_expect_eq(stats(0).queued_messages, 3);
	cr_expect_eq(stats(0).dropped, 3);
}

Test(broker, expired_messages_make_room_first)
{
	w.conf.mqtt.queue_messages_max = 3;
	struct session *s = world_join(&w, 0, &c1, "c1", 60);
	subscribe(s, "t", 1, 0);
	world_leave(&w, s, true);
	publish_expiring("short", 5);
	publish_expiring("long", 50);
	publish_expiring("short", 5);
	world_pass(&w, 6000);
	world_publish(&w, NULL, "t", "new", 1);
	world_publish(&w, NULL, "t", "newer", 1);
	world_publish(&w, NULL, "t", "newest", 1);
	world_join(&w, 0, &c2, "c1", 60);
	conn_expect(&c2, "t", "long", 1);
	conn_expect(&c2, "t", "new", 1);
	conn_expect(&c2, "t", "newer", 1);
	conn_expect_none(&c2);
}

Test(broker, all_sessions_share_a_total)
{
	char payload[1000] = { 0 };
	memset(payload, 'x', sizeof payload - 1);
	struct session *s[3];
	struct conn *c[3] = { &c1, &c2, &c3 };
	static const char *const ids[] = { "c1", "c2", "c3" };
	for (uint32_t i = 0; i < 3; i++) {
		s[i] = world_join(&w, i % 2, c[i], ids[i], 60);
		subscribe(s[i], ids[i], 1, 0);
		world_leave(&w, s[i], true);
	}
	w.conf.mqtt.queue_total_bytes_max = 10000;
	for (uint32_t i = 0; i < 6; i++)
		for (uint32_t j = 0; j < 3; j++)
			world_publish(&w, NULL, ids[j], payload, 1);
	uint64_t queued = stats(0).queued_messages + stats(1).queued_messages;
	cr_expect(queued >= 6 && queued <= 9, "%lu", queued);
	cr_expect_leq(broker_sums.held_bytes, 10000);
	cr_expect_eq(stats(0).dropped + stats(1).dropped, 18 - queued);
	/* What is in flight counts as well, and what is acknowledged no longer does. */
	s[0] = world_join(&w, 0, &c4, "c1", 60);
	uint32_t before = c4.got_count;
	world_publish(&w, NULL, "c1", payload, 1);
	cr_expect_eq(c4.got_count, before);
	cr_expect(session_puback(s[0], c4.got[0]->p.packet_id));
	world_publish(&w, NULL, "c1", payload, 1);
	cr_expect_eq(c4.got_count, before + 1);
}

/* Its messages are freed some at a time; when somebody needs the room, before he is refused. */
static void check_freed_by_and_by(bool is_needed)
{
	struct hello clean = { .clientid = "c1", .clean_start = true };
	struct session *s = world_join(&w, 0, &c1, "c1", 60);
	subscribe(s, "c1", 1, 0);
	world_leave(&w, s, true);
	w.conf.mqtt.queue_messages_max = 600;
	for (uint32_t i = 0; i < 600; i++)
		world_publish(&w, NULL, "c1", "some text", 1);
	cr_assert_eq(stats(0).queued_messages, 600);
	uint64_t held = broker_sums.held_bytes, each = held / 600;
	world_leave(&w, world_connect(&w, 0, &c1, &clean).s, true);
	cr_expect_eq(stats(0).queued_messages, 0);
	cr_expect_eq(broker_sums.held_bytes, held);
	if (is_needed) {
		w.conf.mqtt.queue_total_bytes_max = held;
		s = world_join(&w, 0, &c2, "c2", 60);
		subscribe(s, "c2", 1, 0);
		world_leave(&w, s, true);
		world_publish(&w, NULL, "c2", "some text", 1);
		cr_expect_eq(stats(0).queued_messages, 1);
		cr_expect_eq(stats(0).dropped, 0);
	}
	uint32_t times = 1;
	while (broker_sweep(w.b[0]))
		times++;
	cr_expect_geq(times, is_needed ? 2 : 3);
	cr_expect_leq(broker_sums.held_bytes, is_needed ? 2 * each : 0);
}

Test(broker, a_queue_that_ends_is_freed_by_and_by)
{
	check_freed_by_and_by(false);
}

Test(broker, a_queue_that_ended_makes_room)
{
	check_freed_by_and_by(true);
}

Test(broker, a_message_for_many_is_held_once)
{
	char payload[1000] = { 0 }, clientid[16];
	memset(payload, 'x', sizeof payload - 1);
	for (uint32_t i = 0; i < 50; i++) {
		snprintf(clientid, sizeof clientid, "c%u", i);
		struct session *s = world_join(&w, i % 2, &c1, clientid, 60);
		subscribe(s, "t", 1, 0);
		world_leave(&w, s, true);
	}
	w.conf.mqtt.queue_total_bytes_max = 10000;
	world_publish(&w, NULL, "t", payload, 1);
	cr_expect_eq(stats(0).queued_messages + stats(1).queued_messages, 50);
}

Test(broker, no_queue_at_all_still_delivers)
{
	w.conf.mqtt.queue_messages_max = 0;
	w.conf.mqtt.queue_bytes_max = 0;
	struct session *s = world_join(&w, 0, &c1, "c1", 60);
	subscribe(s, "t", 1, 0);
	for (int i = 0; i < 3; i++)
		world_publish(&w, NULL, "t", "x", 1);
	cr_expect_eq(c1.got_count, 3);
}

/* ---- two threads ---- */

enum { RACE_MESSAGES = 2000 };

/* One reactor: its broker, and where the other one posts. */
static struct racer {
	struct world w;
	struct broker *b;
	struct conn conn;
	pthread_mutex_t lock;
	struct message *inbox[RACE_MESSAGES];
	uint32_t posted, taken; /* posted is guarded by lock */
	struct racer *peer;
} racers[2];

static void race_forward(struct broker *b, struct message *m)
{
	struct racer *r = (struct racer *)((char *)broker_arg(b) - offsetof(struct racer, w));
	message_ref(m);
	pthread_mutex_lock(&r->peer->lock);
	r->peer->inbox[r->peer->posted++] = m;
	pthread_mutex_unlock(&r->peer->lock);
}

static void race_take(struct racer *r)
{
	pthread_mutex_lock(&r->lock);
	uint32_t posted = r->posted;
	pthread_mutex_unlock(&r->lock);
	for (; r->taken < posted; r->taken++) {
		broker_deliver(r->b, r->inbox[r->taken]);
		message_unref(r->inbox[r->taken]);
	}
}

static void *race_run(void *arg)
{
	struct racer *r = arg;
	for (uint32_t i = 0; i < RACE_MESSAGES; i++) {
		struct message *m = message_make(&r->w, "t", "x", 1, 0);
		broker_publish(r->b, m);
		message_unref(m);
		race_take(r);
	}
	while (r->taken < RACE_MESSAGES)
		race_take(r);
	return NULL;
}

Test(broker, two_reactors_at_once)
{
	for (uint32_t i = 0; i < 2; i++) {
		struct racer *r = &racers[i];
		r->peer = &racers[1 - i];
		r->w.conf = w.conf;
		r->w.conf.mqtt.queue_messages_max = 2 * RACE_MESSAGES;
		r->w.conf.mqtt.queue_bytes_max = UINT64_MAX;
		r->w.now_ms = w.now_ms;
		timers_init(&r->w.timers, w.now_ms);
		pthread_mutex_init(&r->lock, NULL);
		struct broker_ops ops = {
			.send = world_send, .unsent_bytes = world_unsent, .now_ms = world_now,
			.forward = race_forward, .timers = &r->w.timers, .arg = &r->w,
		};
		cr_assert_eq(broker_new(&r->w.conf, i, &ops, &r->b), 0);
		r->w.b[0] = r->b;
		subscribe(world_join(&r->w, 0, &r->conn, "c", UINT32_MAX), "t", 1, 0);
	}
	pthread_t threads[2];
	for (uint32_t i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, race_run, &racers[i]);
	for (uint32_t i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	for (uint32_t i = 0; i < 2; i++) {
		struct broker_stats st;
		broker_stats(racers[i].b, &st);
		cr_expect_eq(st.delivered + st.queued_messages, 2 * RACE_MESSAGES);
		cr_expect_eq(st.dropped, 0);
		conn_forget(&racers[i].conn);
		broker_free(racers[i].b);
		pthread_mutex_destroy(&racers[i].lock);
	}
	cr_expect_eq(broker_sums.held_bytes, 0);
}
