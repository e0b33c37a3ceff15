/*
 * Response messages as the client reads them: what a status says is covered, against a byte map
 * that a simulated server holds; and texts that are no response message.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* The client has no library of its own: the module under test is part of this program. */
#include "../../client/reply.c"

enum { SIZE = 200, LISTED_MAX = 4, ROUNDS = 3000 };

/* The daemon's side: bytes that are there, and whether init told the size. */
struct model {
	bool there[SIZE];
	bool has_size;
};

static uint32_t dice_state;

static uint32_t dice(uint32_t below)
{
	dice_state = dice_state * 1664525 + 1013904223;
	return (dice_state >> 8) % below;
}

static uint64_t model_end(const struct model *m)
{
	uint64_t end = SIZE;

	while (!m->has_size && end > 0 && !m->there[end - 1]) {
		end--;
	}
	return end;
}

/* The status message that a server with these bytes sends, with at most LISTED_MAX ranges. */
static int model_status(const struct model *m, char *text, size_t text_max)
{
	uint64_t end = model_end(m), received = 0, at = 0;
	int listed = 0, n;
	bool truncated = false;
	char missing[400] = "", size[24] = "null";

	for (uint64_t i = 0; i < SIZE; i++) {
		received += m->there[i];
	}
	while (at < end) {
		uint64_t to = at;
		while (to < end && m->there[to] == m->there[at]) {
			to++;
		}
		if (!m->there[at] && listed == LISTED_MAX) {
			truncated = true;
		} else if (!m->there[at]) {
			sprintf(missing + strlen(missing), "%s[%d,%d]", listed++ ? "," : "", (int)at, (int)to);
		}
		at = to;
	}
	if (m->has_size) {
		sprintf(size, "%d", SIZE);
	}
	n = snprintf(text, text_max, "{\"vsn\":\"0.1\",\"topic\":\"$file/f/status\",\"packet_id\":1,"
		"\"reason_code\":0,\"reason_description\":\"success\",\"status\":{\"state\":\"open\","
		"\"size\":%s,\"received\":%d,\"frontier\":0,\"missing\":[%s],\"truncated\":%s}}", size,
		(int)received, missing, truncated ? "true" : "false");
	return n;
}

static void check_round(const struct model *m, bool client_has_size)
{
	char text[1024];
	struct reply r;
	struct cover covered;
	bool is_partial;
	int bytes = model_status(m, text, sizeof(text));

	cr_assert_eq(reply_parse(text, (size_t)bytes, &r), 0, "%s", text);
	cr_assert(r.has_status && r.state == REPLY_OPEN && r.cmd.verb == FILECMD_STATUS);
	cr_assert_eq(reply_coverage(&r, client_has_size, SIZE, &covered, &is_partial), 0);
	uint64_t sure = SIZE;
	if (r.truncated) {
		sure = r.missing[r.missing_count - 1].to;
	}
	for (uint64_t i = 0; i < SIZE; i++) {
		bool has = cover_has(&covered, i, i + 1);
		/* Below the cut the answer is exact. Beyond it nothing that is missing may be
		 * taken for there, unless the client knows that it has to ask again. */
		if (i < sure) {
			cr_assert_eq(has, m->there[i], "byte %d of %s", (int)i, text);
		} else {
			cr_assert(!has || m->there[i] || is_partial, "byte %d of %s", (int)i, text);
		}
	}
	cr_assert(is_partial == (r.truncated && r.received > 0));
	cover_fini(&covered);
	reply_fini(&r);
}

Test(reply, coverage_is_what_the_server_has)
{
	dice_state = 7;
	for (int round = 0; round < ROUNDS; round++) {
		struct model m = {.has_size = dice(2)};
		uint32_t runs = dice(12), at = 0;
		for (uint32_t i = 0; i < runs && at < SIZE; i++) {
			at += dice(30);
			for (uint32_t n = dice(40); n > 0 && at < SIZE; n--) {
				m.there[at++] = true;
			}
		}
		check_round(&m, dice(2));
	}
}

Test(reply, more_than_the_file_is_cut)
{
	struct reply r = {.has_size = true, .size = 500, .received = 500};
	struct cover covered;
	bool is_partial;

	cr_assert_eq(reply_coverage(&r, true, 100, &covered, &is_partial), 0);
	cr_assert_eq(covered.bytes, 100);
	cover_fini(&covered);
}

Test(reply, what_is_no_response_message_is_refused)
{
	static const char *const texts[] = {
		"", "{}", "[]", "7", "{\"topic\":\"$file/f/init\"}", "{\"reason_code\":0}",
		"{\"topic\":7,\"reason_code\":0}", "{\"topic\":\"t\",\"reason_code\":256}",
		"{\"topic\":\"t\",\"reason_code\":-1}", "{\"topic\":\"t\",\"reason_code\":1.5}",
		"{\"topic\":\"t\",\"reason_code\":0,\"status\":{}}",
		"{\"topic\":\"t\",\"reason_code\":0,\"status\":{\"state\":\"odd\"}}",
		"{\"topic\":\"t\",\"reason_code\":0,\"status\":{\"state\":\"open\",\"missing\":[[5,5]]}}",
		"{\"topic\":\"t\",\"reason_code\":0,\"status\":{\"state\":\"open\",\"missing\":[[5]]}}",
		"{\"topic\":\"t\",\"reason_code\":0,\"status\":{\"state\":\"open\",\"missing\":[[5,9],[7,11]]}}",
		"{\"topic\":\"t\",\"reason_code\":0,\"status\":{\"state\":\"open\",\"missing\":[[1e30,2e30]]}}",
	};
	struct reply r;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		cr_assert_eq(reply_parse(texts[i], strlen(texts[i]), &r), -EBADMSG, "%s", texts[i]);
	}
}

Test(reply, failure_without_status)
{
	static const char text[] = "{\"vsn\":\"0.1\",\"topic\":\"$file/f/fin/42\",\"packet_id\":7,"
				   "\"reason_code\":128,\"reason_description\":\"incomplete\","
				   "\"missing\":[[0,42]],\"missing_bytes\":42}";
	struct reply r;

	cr_assert_eq(reply_parse(text, sizeof(text) - 1, &r), 0);
	cr_assert(!r.has_status && r.reason_code == 0x80 && !strcmp(r.description, "incomplete"));
	cr_assert(r.cmd.verb == FILECMD_FIN && r.cmd.size == 42);
	reply_fini(&r);
	reply_fini(&r);
}
