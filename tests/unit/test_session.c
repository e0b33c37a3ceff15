/*
 * session: how sessions begin, continue, are taken over and end, and what becomes of their wills.
 */
#include "broker_suite.h"

#include <errno.h>

TestSuite(session, .init = set_up, .fini = tear_down);

/* ---- beginning and end ---- */

Test(session, sessions_expire)
{
	struct session *s = world_join(&w, 0, &c1, "c1", 10);
	subscribe(s, "t", 1, 0);
	world_leave(&w, s, true);
	world_pass(&w, 9999);
	cr_expect_eq(session_find(w.b[0], "c1", 2), s);
	cr_expect_eq(stats(0).sessions, 1);
	world_pass(&w, 20);
	cr_expect_null(session_find(w.b[0], "c1", 2));
	cr_expect_eq(stats(0).sessions, 0);
	cr_expect_eq(stats(0).subscriptions, 0);
	/* no expiry interval: gone with the connection */
	s = world_join(&w, 0, &c2, "c1", 0);
	subscribe(s, "t", 1, 0);
	world_leave(&w, s, true);
	cr_expect_null(session_find(w.b[0], "c1", 2));
	/* never */
	s = world_join(&w, 0, &c3, "c1", UINT32_MAX);
	world_leave(&w, s, true);
	world_pass(&w, (uint64_t)UINT32_MAX * 1000 + 1000);
	cr_expect_eq(session_find(w.b[0], "c1", 2), s);
}

Test(session, an_overdue_session_is_not_continued)
{
	struct hello h = {
		.clientid = "c1", .expiry_s = 10, .will_topic = "will", .will_delay_s = 20,
	};
	struct session *watcher = world_join(&w, 0, &c4, "watcher", 0);
	subscribe(watcher, "will", 1, 0);
	struct session *s = world_connect(&w, 0, &c1, &h).s;
	subscribe(s, "t", 1, 0);
	world_leave(&w, s, true);
	w.now_ms += 10000; /* the timer is due but did not run yet */
	struct hello again = { .clientid = "c1", .expiry_s = 10 };
	cr_expect_not(world_connect(&w, 0, &c2, &again).present);
	conn_expect(&c4, "will", "c1", 1);
	cr_expect_not(world_publish(&w, NULL, "t", "x", 1), "its subscription is gone");
}

Test(session, presence_and_clean_start)
{
	struct hello h = { .clientid = "c1", .expiry_s = 60 };
	struct welcome wel = world_connect(&w, 0, &c1, &h);
	cr_expect_not(wel.present);
	uint64_t id = wel.s->id;
	subscribe(wel.s, "t", 1, 0);
	idset_add(&wel.s->received, 7);
	world_leave(&w, wel.s, true);
	wel = world_connect(&w, 0, &c2, &h);
	cr_expect(wel.present);
	cr_expect(idset_has(&wel.s->received, 7));
	world_publish(&w, NULL, "t", "x", 1);
	conn_expect(&c2, "t", "x", 1);
	world_leave(&w, wel.s, true);
	world_publish(&w, NULL, "t", "y", 1);
	h.clean_start = true;
	wel = world_connect(&w, 0, &c3, &h);
	cr_expect_not(wel.present);
	cr_expect_not(idset_has(&wel.s->received, 7));
	cr_expect_eq(wel.s->id, id);
	conn_expect_none(&c3);
	cr_expect_not(world_publish(&w, NULL, "t", "z", 1));
	cr_expect_eq(stats(0).queued_messages, 0);
}

Test(session, sessions_have_a_limit)
{
	w.conf.mqtt.sessions_max = 2;
	struct session *a = world_join(&w, 0, &c1, "c1", 60), *s;
	world_join(&w, 1, &c2, "c2", 60);
	world_leave(&w, a, true);
	bool present;
	struct conn *old;
	cr_expect_eq(session_attach(w.b[0], &c3, "c3", 2, true, &s, &present, &old), -ENOSPC);
	/* the limit is about new ones */
	cr_expect_eq(session_attach(w.b[0], &c3, "c1", 2, true, &s, &present, &old), 0);
	session_detach(s, false); /* no expiry after a clean start: gone */
	cr_expect_eq(session_attach(w.b[0], &c3, "c3", 2, true, &s, &present, &old), 0);
}

Test(session, the_table_grows)
{
	enum { MANY = 1000 };
	struct conn *conns = calloc(MANY, sizeof *conns);
	char clientid[16];
	for (uint32_t i = 0; i < MANY; i++) {
		snprintf(clientid, sizeof clientid, "c%u", i);
		struct session *s = world_join(&w, 0, &conns[i], clientid, 0);
		cr_assert_str_eq(s->clientid, clientid);
	}
	for (uint32_t i = 0; i < MANY; i++) {
		snprintf(clientid, sizeof clientid, "c%u", i);
		struct session *s = session_find(w.b[0], clientid, (uint32_t)strlen(clientid));
		cr_assert(s != NULL && s->conn == &conns[i]);
		if (i % 2 == 0)
			world_leave(&w, s, true);
	}
	cr_expect_eq(stats(0).sessions, MANY / 2);
	cr_expect_null(session_find(w.b[0], "c0", 2));
	cr_expect_not_null(session_find(w.b[0], "c1", 2));
	cr_expect_null(session_find(w.b[0], "c", 1));
	broker_free(w.b[0]);
	w.b[0] = NULL;
	free(conns);
}

/* ---- wills ---- */

/* A watcher on the other reactor sees what is published to "will". */
static void watch_wills(void)
{
	struct session *s = world_join(&w, 1, &c4, "watcher", 0);
	subscribe(s, "will", 1, 0);
}

static const struct hello with_will = { .clientid = "c1", .expiry_s = 60, .will_topic = "will" };

Test(session, will_at_once)
{
	watch_wills();
	struct session *s = world_connect(&w, 0, &c1, &with_will).s;
	world_leave(&w, s, true);
	conn_expect(&c4, "will", "c1", 1);
	world_pass(&w, 100000);
	conn_expect_none(&c4);
}

Test(session, no_will_after_a_proper_end)
{
	watch_wills();
	struct session *s = world_connect(&w, 0, &c1, &with_will).s;
	world_leave(&w, s, false);
	world_pass(&w, 100000);
	conn_expect_none(&c4);
}

Test(session, will_after_its_delay)
{
	watch_wills();
	struct hello h = with_will;
	h.will_delay_s = 10;
	struct session *s = world_connect(&w, 0, &c1, &h).s;
	subscribe(s, "t", 1, 0);
	world_leave(&w, s, true);
	world_pass(&w, 9999);
	conn_expect_none(&c4);
	world_pass(&w, 20);
	conn_expect(&c4, "will", "c1", 1);
	cr_expect_eq(session_find(w.b[0], "c1", 2), s, "the session waits on");
	world_pass(&w, 50000);
	cr_expect_null(session_find(w.b[0], "c1", 2));
	conn_expect_none(&c4);
}

Test(session, will_when_the_session_ends_first)
{
	watch_wills();
	struct hello h = with_will;
	h.will_delay_s = 100;
	world_leave(&w, world_connect(&w, 0, &c1, &h).s, true);
	world_pass(&w, 59999);
	conn_expect_none(&c4);
	world_pass(&w, 20);
	conn_expect(&c4, "will", "c1", 1);
	h.expiry_s = 0;
	world_leave(&w, world_connect(&w, 0, &c1, &h).s, true);
	conn_expect(&c4, "will", "c1", 1);
	world_pass(&w, 200000);
	conn_expect_none(&c4);
}

Test(session, no_will_when_the_client_is_back_in_time)
{
	watch_wills();
	struct hello h = with_will, again = { .clientid = "c1", .expiry_s = 60 };
	h.will_delay_s = 10;
	world_leave(&w, world_connect(&w, 0, &c1, &h).s, true);
	world_pass(&w, 9000);
	struct session *s = world_connect(&w, 0, &c2, &again).s;
	world_pass(&w, 20000);
	conn_expect_none(&c4);
	world_leave(&w, s, true); /* this connection had none */
	world_pass(&w, 20000);
	conn_expect_none(&c4);
	/* but a clean start ends the session that had it */
	s = world_connect(&w, 0, &c1, &h).s;
	world_leave(&w, s, true);
	again.clean_start = true;
	world_connect(&w, 0, &c2, &again);
	conn_expect(&c4, "will", "c1", 1);
	world_pass(&w, 20000);
	conn_expect_none(&c4);
}

Test(session, takeover)
{
	watch_wills();
	static const struct {
		uint32_t expiry_s, delay_s;
		bool clean_start, want_will, want_present;
	} rows[] = {
		{ 60, 0, false, true, true },
		{ 60, 10, false, false, true },
		{ 60, 10, true, true, false },
		{ 60, 0, true, true, false },
		{ 0, 10, false, true, false },
		{ 0, 0, false, true, false },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct hello h = with_will;
		h.clean_start = true;
		h.expiry_s = rows[i].expiry_s;
		h.will_delay_s = rows[i].delay_s;
		struct session *s = world_connect(&w, 0, &c1, &h).s;
		subscribe(s, "t", 1, 0);
		struct hello next = {
			.clientid = "c1", .clean_start = rows[i].clean_start, .expiry_s = 60,
		};
		struct welcome wel = world_connect(&w, 0, &c2, &next);
		cr_expect_eq(wel.old_conn, &c1, "row %zu", i);
		cr_expect_eq(wel.present, rows[i].want_present, "row %zu", i);
		cr_expect_eq(wel.s->conn, &c2);
		cr_expect_eq(stats(0).subscriptions, rows[i].want_present, "row %zu", i);
		if (rows[i].want_will)
			conn_expect(&c4, "will", "c1", 1);
		world_pass(&w, 30000);
		conn_expect_none(&c4);
		world_leave(&w, wel.s, true);
		conn_expect_none(&c4);
	}
}

Test(session, takeover_keeps_what_was_in_flight)
{
	struct session *s = world_join(&w, 0, &c1, "c1", 60);
	subscribe(s, "t", 1, 0);
	world_publish(&w, NULL, "t", "x", 1);
	uint16_t id = conn_expect(&c1, "t", "x", 1);
	s = world_join(&w, 0, &c2, "c1", 60);
	cr_expect_eq(conn_expect(&c2, "t", "x", 1), id);
	cr_expect(c2.got[0]->p.dup);
	conn_expect_none(&c1);
}

Test(session, a_will_of_ones_own)
{
	/* A session that waits and subscribes to its own will gets it later; a new one does not. */
	struct session *s = world_connect(&w, 0, &c1, &with_will).s;
	subscribe(s, "will", 1, 0);
	world_leave(&w, s, true);
	struct hello again = { .clientid = "c1", .expiry_s = 60 };
	world_connect(&w, 0, &c2, &again);
	conn_expect(&c2, "will", "c1", 1);
	/* No Local also holds for the will that its taken-over connection leaves */
	s = world_connect(&w, 0, &c1, &with_will).s;
	subscribe(s, "will", 1 | SUB_NO_LOCAL, 0);
	session_puback(s, c2.got[0]->p.packet_id);
	conn_forget(&c1);
	world_connect(&w, 0, &c3, &again);
	conn_expect_none(&c3);
}

Test(session, expiry_of_a_will_counts_from_its_publication)
{
	watch_wills();
	struct session *s = world_join(&w, 0, &c1, "c1", 60);
	struct mqtt_publish p = {
		.qos = 1, .packet_id = 1, .topic = span("will"),
		.props = { .has = 1u << MQTT_P_MESSAGE_EXPIRY, .message_expiry = 5 },
	};
	s->will = message_new(&p, NULL, s->id, w.now_ms);
	world_pass(&w, 3600000);
	world_leave(&w, s, true);
	conn_expect(&c4, "will", "", 1);
	cr_expect_eq(c4.got[0]->p.props.message_expiry, 5);
}
