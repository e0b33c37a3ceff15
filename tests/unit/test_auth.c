/*
 * auth: the table of auth.h row by row, then the claim that matters most, tried exhaustively over
 * small strings: no client can ever receive a response that is meant for another.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "auth.h"
#include "topic.h"

static struct mqtt_str span(const char *z)
{
	return (struct mqtt_str){ z, (uint32_t)strlen(z) };
}

static struct conf conf_with(const char *subscriber)
{
	struct conf c;
	memset(&c, 0, sizeof c);
	if (subscriber != NULL) {
		c.events.subscribers[0] = (char *)"first";
		c.events.subscribers[1] = (char *)subscriber;
		c.events.subscribers_count = 2;
	}
	return c;
}

struct row {
	const char *clientid, *topic;
	uint8_t want;
};

Test(auth, subscribe_table)
{
	static const struct row rows[] = {
		{ "c1", "a/b", 0 },
		{ "c1", "#", 0 },
		{ "c1", "+/c2", 0 },
		{ "c1", "/", 0 },
		{ "c1", "$SYS/#", 0 },
		{ "c1", "$other/x", 0 },
		{ "c1", "$file-response/c1", 0 },
		{ "c1", "$file-response/c2", 0x87 },
		{ "c1", "$file-response/c", 0x87 },
		{ "c1", "$file-response/c11", 0x87 },
		{ "c1", "$file-response/c1/", 0x87 },
		{ "c1", "$file-response/c1/#", 0x87 },
		{ "c1", "$file-response/+", 0x87 },
		{ "c1", "$file-response/#", 0x87 },
		{ "c1", "$file-response/", 0x87 },
		{ "c1", "$file-response", 0x87 },
		{ "c1", "$file-responses/c2", 0 },
		{ "C1", "$file-response/c1", 0x87 },
		{ "a/b", "$file-response/a/b", 0 },
		{ "a", "$file-response/a/b", 0x87 },
		{ "+", "$file-response/+", 0x87 },
		{ "#", "$file-response/#", 0x87 },
		{ "a/#", "$file-response/a/#", 0x87 },
		{ "", "$file-response/", 0x87 },
		{ "c1", "$file-event/#", 0x87 },
		{ "c1", "$file-event", 0x87 },
		{ "c1", "$file-event/exported", 0x87 },
		{ "c1", "$file-events/x", 0 },
		{ "c1", "$file/#", 0x87 },
		{ "c1", "$file", 0x87 },
		{ "c1", "$file/f/init", 0x87 },
		{ "c1", "$file-async/+/init", 0x87 },
		{ "c1", "$filex", 0 },
		{ "c1", "$share/g/$file-response/c1", 0 },
		{ "c1", "$share/g/$file-response/+", 0x87 },
		{ "c1", "$share/g/$file/#", 0x87 },
		{ "c1", "$share/g/$file-event/#", 0x87 },
		{ "c1", "$share/g/a", 0 },
		{ "c1", "$share", 0 },
	};
	struct conf conf = conf_with(NULL);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		uint8_t rc = auth_subscribe(&conf, span(rows[i].clientid), span(rows[i].topic));
		cr_expect_eq(rc, rows[i].want, "%s subscribes %s: %#x", rows[i].clientid,
			rows[i].topic, rc);
	}
}

Test(auth, publish_table)
{
	static const struct row rows[] = {
		{ "c1", "a/b", 0 },
		{ "c1", "$file", 0 },
		{ "c1", "$file/f/init", 0 },
		{ "c1", "$file-async/f/fin/1", 0 },
		{ "c1", "$file-response/c1", 0 },
		{ "c1", "$file-response/c2", 0x87 },
		{ "c1", "$file-response", 0x87 },
		{ "c1", "$file-response/", 0x87 },
		{ "c1", "$file-response/c1/x", 0x87 },
		{ "a/b", "$file-response/a/b", 0 },
		{ "c1", "$file-event", 0x87 },
		{ "c1", "$file-event/exported", 0x87 },
		{ "c1", "$SYS", 0x87 },
		{ "c1", "$SYS/broker", 0x87 },
		{ "c1", "$SYSTEM", 0 },
	};
	struct conf conf = conf_with("*"); /* the list is for subscribers only */
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		uint8_t rc = auth_publish(&conf, span(rows[i].clientid), span(rows[i].topic));
		cr_expect_eq(rc, rows[i].want, "%s publishes %s: %#x", rows[i].clientid,
			rows[i].topic, rc);
	}
}

Test(auth, event_subscribers)
{
	struct conf one = conf_with("watcher");
	cr_expect_eq(auth_subscribe(&one, span("watcher"), span("$file-event/#")), 0);
	cr_expect_eq(auth_subscribe(&one, span("first"), span("$file-event/exported")), 0);
	cr_expect_eq(auth_subscribe(&one, span("watchers"), span("$file-event/#")), 0x87);
	cr_expect_eq(auth_subscribe(&one, span("watche"), span("$file-event/#")), 0x87);
	struct conf all = conf_with("*");
	cr_expect_eq(auth_subscribe(&all, span("anyone"), span("$file-event/#")), 0);
	/* a client called "*" is no wildcard */
	cr_expect_eq(auth_subscribe(&one, span("*"), span("$file-event/#")), 0x87);
}

/* The idx-th string over an alphabet that has every character with a meaning. */
static uint32_t small_string(uint32_t idx, char *ret)
{
	static const char alphabet[] = "ab/+#";
	uint32_t bytes = 0;
	for (; idx > 0; idx = (idx - 1) / 5)
		ret[bytes++] = alphabet[(idx - 1) % 5];
	ret[bytes] = '\0';
	return bytes;
}

Test(auth, nobody_reads_the_responses_of_another)
{
	enum { STRINGS = 1 + 5 + 25 + 125 };
	struct conf conf = conf_with(NULL);
	unsigned granted = 0, received = 0;
	for (uint32_t c = 0; c < STRINGS; c++) {
		char clientid[8], rest[8], filter[32];
		uint32_t clientid_bytes = small_string(c, clientid);
		for (uint32_t f = 0; f < STRINGS; f++) {
			small_string(f, rest);
			snprintf(filter, sizeof filter, "$file-response/%s", rest);
			if (!topic_filter_ok(filter, strlen(filter)) ||
				auth_subscribe(&conf, (struct mqtt_str){ clientid, clientid_bytes },
					span(filter)) != 0)
				continue;
			granted++;
			for (uint32_t o = 0; o < STRINGS; o++) {
				char other[8], topic[32];
				small_string(o, other);
				snprintf(topic, sizeof topic, "$file-response/%s", other);
				if (!topic_match(filter, strlen(filter), topic, strlen(topic)))
					continue;
				cr_assert_str_eq(other, clientid, "%s reads %s", clientid, topic);
				received++;
			}
		}
	}
	/* every client id without "+" and "#", but the empty one, reads its own */
	cr_expect_eq(granted, 3 + 9 + 27);
	cr_expect_eq(received, granted);
}
