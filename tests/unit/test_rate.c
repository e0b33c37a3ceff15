/*
 * rate.h: which packets count, that a client's debt outlives its connection, and when it may go on.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "rate.h"

static struct conf conf = {.limits = {.client_bytes_rate = 65536, .client_messages_rate = 100}};
static const uint64_t now_ms = 100000;

static struct mqtt_str str(const char *s)
{
	return (struct mqtt_str){s, (uint32_t)strlen(s)};
}

Test(rate, what_asks_for_something_counts)
{
	for (uint8_t type = MQTT_CONNECT; type <= MQTT_AUTH; type++) {
		struct rate r = {0};
		rate_take_packet(&r, &conf, type, now_ms);
		bool asks = type == MQTT_PUBLISH || type == MQTT_SUBSCRIBE || type == MQTT_UNSUBSCRIBE ||
			type == MQTT_PINGREQ;
		cr_expect_eq(r.messages.until_ns != 0, asks, "type %u", type);
	}
}

Test(rate, nothing_counts_without_a_limit)
{
	static const struct conf none;
	struct rate r = {0};
	rate_take_packet(&r, &none, MQTT_PUBLISH, now_ms);
	rate_take_bytes(&r, &none, 1 << 30, now_ms);
	cr_expect_eq(r.messages.until_ns, 0);
	cr_expect_eq(r.bytes.until_ns, 0);
}

Test(rate, goes_on_when_both_are_paid_for)
{
	struct rate r = {0};
	rate_take_bytes(&r, &conf, 3 * 65536, now_ms);
	for (int i = 0; i < 200; i++)
		rate_take_packet(&r, &conf, MQTT_PUBLISH, now_ms);
	cr_expect(rate_is_over(&r.bytes, now_ms) && rate_is_over(&r.messages, now_ms));
	cr_expect_eq(rate_due_ms(&r), now_ms + 2000 + 20);
	cr_expect_not(rate_is_over(&r.bytes, now_ms + 2000));
	cr_expect_not(rate_is_over(&r.messages, now_ms + 1000));
}

Test(rate, debt_outlives_the_connection)
{
	struct rates *rs;
	struct rate owed = {.bytes = {5000}, .messages = {7000}}, r = {0};
	cr_assert_eq(rates_new(true, &rs), 0);
	rates_keep(rs, str("a"), &owed);
	cr_expect_not(rates_recall(rs, str("b"), &r));
	cr_expect_eq(r.bytes.until_ns, 0);
	cr_expect(rates_recall(rs, str("a"), &r));
	cr_expect_eq(r.bytes.until_ns, 5000);
	cr_expect_eq(r.messages.until_ns, 7000);
	rates_free(rs);
}

/* Who owes little can't make another's debt forgotten, but takes a place that is paid for. */
Test(rate, longer_debt_keeps_its_place)
{
	struct rates *rs;
	struct rate owed = {.bytes = {9000}}, little = {.bytes = {10}, .messages = {20}}, r = {0};
	struct rate more = {.messages = {9001}};
	cr_assert_eq(rates_new(true, &rs), 0);
	rates_keep(rs, str("a"), &owed);
	for (int with = 0; with < 2; with++) {
		for (uint32_t i = 0; i < 100000; i++) {
			char name[16];
			snprintf(name, sizeof(name), "c%u", i);
			rates_keep(rs, str(name), with ? &more : &little);
		}
		cr_expect_eq(rates_recall(rs, str("a"), &r), !with);
	}
	rates_keep(rs, str("a"), &more);
	rates_keep(rs, str("a"), &little);
	cr_expect(rates_recall(rs, str("a"), &r));
	cr_expect_eq(r.messages.until_ns, 20, "one's own is always the last");
	rates_free(rs);
}

Test(rate, one_go_is_a_seconds_worth_at_most)
{
	static const struct conf none;
	cr_expect_eq(rate_bytes_max(&conf, 1 << 20), 65536);
	cr_expect_eq(rate_bytes_max(&conf, 1000), 1000);
	cr_expect_eq(rate_bytes_max(&none, 1 << 20), 1 << 20);
}

/* However many come, the memory is the same, and nobody owes what another owed. */
Test(rate, table_is_bounded)
{
	struct rates *rs;
	uint32_t remembered = 0;
	cr_assert_eq(rates_new(true, &rs), 0);
	for (uint32_t i = 1; i <= 100000; i++) {
		char name[16];
		struct rate r = {.bytes = {i}};
		snprintf(name, sizeof(name), "c%u", i);
		rates_keep(rs, str(name), &r);
	}
	for (uint32_t i = 1; i <= 100000; i++) {
		char name[16];
		struct rate r = {0};
		snprintf(name, sizeof(name), "c%u", i);
		(void)rates_recall(rs, str(name), &r);
		cr_assert(r.bytes.until_ns == 0 || r.bytes.until_ns == i);
		remembered += r.bytes.until_ns == i;
	}
	cr_expect(remembered > 3000 && remembered <= 4096, "%u", remembered);
	rates_free(rs);
}

Test(rate, log_says_so_once_a_second)
{
	struct rates *rs;
	cr_assert_eq(rates_new(true, &rs), 0);
	cr_expect(rates_may_log(rs, 5000));
	cr_expect_not(rates_may_log(rs, 5999));
	cr_expect(rates_may_log(rs, 6000));
	rates_free(rs);
}
