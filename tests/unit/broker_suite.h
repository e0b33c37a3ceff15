/*
 * What the suites of rules about the broker share: a world, four connections, and short forms of
 * what every test does.
 */
#ifndef SLUICE_TEST_BROKER_SUITE_H
#define SLUICE_TEST_BROKER_SUITE_H

#include "broker_world.h"

static struct world w;
static struct conn c1, c2, c3, c4;

static void set_up(void)
{
	world_init(&w);
}

static void tear_down(void)
{
	world_fini(&w);
	struct conn *conns[] = { &c1, &c2, &c3, &c4 };
	for (size_t i = 0; i < 4; i++)
		conn_forget(conns[i]);
}

static uint8_t subscribe(struct session *s, const char *filter, uint8_t options,
	uint32_t identifier)
{
	return session_subscribe(s, span(filter), options, identifier);
}

static struct broker_stats stats(uint32_t broker)
{
	struct broker_stats st;
	broker_stats(w.b[broker], &st);
	return st;
}

#endif
