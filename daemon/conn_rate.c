/*
 * How fast a connection may be read: what it takes counts for its client (rate.h) and for its user
 * (user.h), and it waits for the later of the two.
 */
#include "conn.h"

#include <errno.h>
#include "log.h"
#include "store.h"

/* A limit that a connection may be over. */
struct bound {
	const struct pace *pace;
	const char *key;
	uint64_t per_s;
	bool of_user;
};

int conn_user_begin(struct conn *c, const struct mqtt_connect *cn)
{
	/* Sending an empty name is how some libraries send none. */
	if (!cn->has_username || cn->username.bytes == 0)
		return 0;
	c->user = user_enter(c->rt->store->users, cn->username);
	if (!c->user)
		return -ENOMEM;
	user_connect(c->user, &c->user_rate);
	return 0;
}

void conn_rate_begin(struct conn *c, const struct mqtt_connect *cn, uint32_t received)
{
	if (rates_recall(c->rt->conns->rates, cn->clientid, &c->rate))
		rate_take_bytes(&c->rate, c->rt->conf, received, c->active_ms);
	user_take_bytes(c->user, &c->user_rate, received, c->active_ms);
}

void conn_rate_end(struct conn *c)
{
	if (c->session && (c->rate.bytes.until_ns || c->rate.messages.until_ns))
		rates_keep(c->rt->conns->rates, (struct mqtt_str){c->session->clientid,
			c->session->clientid_bytes}, &c->rate);
	user_disconnect(c->user);
	user_leave(c->user);
	c->user = NULL;
}

void conn_take_bytes(struct conn *c, uint32_t bytes)
{
	rate_take_bytes(&c->rate, c->rt->conf, bytes, c->active_ms);
	user_take_bytes(c->user, &c->user_rate, bytes, c->active_ms);
}

uint32_t conn_bytes_max(const struct conn *c, uint32_t bytes)
{
	return user_bytes_max(c->user, rate_bytes_max(c->rt->conf, bytes));
}

uint32_t conn_messages_rate(const struct conn *c)
{
	uint32_t client = c->rt->conf->limits.client_messages_rate;
	uint32_t user = c->user ? c->rt->conf->limits.user_messages_rate : 0;
	return client && (!user || client < user) ? client : user;
}

uint64_t conn_rate_due_ms(const struct conn *c)
{
	uint64_t client_ms = rate_due_ms(&c->rate), user_ms = rate_due_ms(&c->user_rate);
	return client_ms > user_ms ? client_ms : user_ms;
}

static void log_held_back(const struct conn *c, const struct bound *b)
{
	struct session *s = c->session;
	if (b->of_user)
		log_info("user over its rate is read more slowly",
			LS("user", user_name(c->user).s, user_name(c->user).bytes),
			LS("clientid", s->clientid, s->clientid_bytes), LZ("limit", b->key),
			LU("per_s", b->per_s), NULL);
	else
		log_info("client over its rate is read more slowly",
			LS("clientid", s->clientid, s->clientid_bytes), LZ("limit", b->key),
			LU("per_s", b->per_s), NULL);
}

void conn_check_rate(struct conn *c)
{
	const struct conf *conf = c->rt->conf;
	const struct bound bounds[] = {
		{&c->rate.bytes, "limits.client_bytes_rate", conf->limits.client_bytes_rate, false},
		{&c->rate.messages, "limits.client_messages_rate", conf->limits.client_messages_rate, false},
		{&c->user_rate.bytes, "limits.user_bytes_rate", conf->limits.user_bytes_rate, true},
		{&c->user_rate.messages, "limits.user_messages_rate", conf->limits.user_messages_rate, true},
	};
	uint64_t now_ms = ring_now_ms(c->rt->ring);
	const struct bound *over = NULL;
	if (c->state != CONN_OPEN || (c->stops & STOP_RATE))
		return;
	for (size_t i = 0; !over && i < sizeof(bounds) / sizeof(bounds[0]); i++) {
		if (rate_is_over(bounds[i].pace, now_ms))
			over = &bounds[i];
	}
	if (!over)
		return;
	conn_stop(c, STOP_RATE);
	conn_watch(c);
	if (rates_may_log(c->rt->conns->rates, now_ms))
		log_held_back(c, over);
}
