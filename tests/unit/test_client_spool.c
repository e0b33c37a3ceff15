/*
 * The client's memory of a pipe, against a model of a server that takes chunks in any order and
 * loses connections: in the end it has every byte, and never more is kept than was promised.
 */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/wait.h>
#include "../../client/spool.c"

enum { TOTAL = 20000, CHUNK = 97, CHUNKS_MAX = 5 };

static uint32_t dice_state;

static uint32_t dice(uint32_t below)
{
	dice_state = dice_state * 1664525 + 1013904223;
	return (dice_state >> 8) % below;
}

struct server {
	uint8_t data[TOTAL];
	struct cover covered;
	struct extent waiting[CHUNKS_MAX]; /* sent, not yet acknowledged */
	uint32_t waiting_count;
};

static void take(struct server *server, struct spool *s, uint32_t idx)
{
	struct extent e = server->waiting[idx];

	server->waiting[idx] = server->waiting[--server->waiting_count];
	cr_assert_eq(cover_add(&server->covered, e.from, e.to), 0);
	spool_acked(s, e.from);
}

static void send_all(struct server *server, struct spool *s, bool is_idle)
{
	struct spool_chunk *c;

	while ((c = spool_next(s, is_idle)) != NULL) {
		cr_assert(server->waiting_count < CHUNKS_MAX && c->bytes > 0 && c->bytes <= CHUNK);
		memcpy(server->data + c->from, c->data, c->bytes);
		server->waiting[server->waiting_count++] = (struct extent){c->from, c->from + c->bytes};
		c->is_sent = true;
		is_idle = false;
	}
}

/* Some that were under way arrived, but their acknowledgements did not. */
static void lose_connection(struct server *server, struct spool *s)
{
	for (uint32_t i = 0; i < server->waiting_count; i++) {
		if (dice(2)) {
			cr_assert_eq(cover_add(&server->covered, server->waiting[i].from,
				server->waiting[i].to), 0);
		}
	}
	server->waiting_count = 0;
	cr_assert(spool_resume(s, &server->covered));
}

static void feed(int fd, const uint8_t *data)
{
	size_t at = 0;

	while (at < TOTAL) {
		size_t n = 1 + dice(150);
		n = n < TOTAL - at ? n : TOTAL - at;
		if (write(fd, data + at, n) != (ssize_t)n) {
			_exit(1);
		}
		at += n;
	}
	_exit(0);
}

Test(spool, every_byte_arrives_through_losses)
{
	static uint8_t data[TOTAL];
	static struct server server;
	struct spool s;
	uint8_t digest[2][32];
	struct sha256 sha;
	int fds[2], status;

	dice_state = 5;
	for (size_t i = 0; i < TOTAL; i++) {
		data[i] = (uint8_t)dice(256);
	}
	cr_assert_eq(pipe(fds), 0);
	pid_t child = fork();
	if (child == 0) {
		feed(fds[1], data);
	}
	close(fds[1]);
	cover_init(&server.covered, 10000);
	spool_init(&s, fds[0], CHUNK, CHUNKS_MAX);
	while (!s.is_eof || server.covered.bytes < s.end) {
		cr_assert(s.count <= CHUNKS_MAX);
		if (spool_wants_input(&s)) {
			cr_assert_eq(spool_read(&s), 0);
		}
		send_all(&server, &s, server.waiting_count == 0 && dice(3) == 0);
		if (server.waiting_count > 0 && (!spool_wants_input(&s) || dice(2))) {
			take(&server, &s, dice(server.waiting_count));
		}
		if (dice(40) == 0) {
			lose_connection(&server, &s);
		}
	}
	cr_assert_eq(s.end, TOTAL);
	cr_assert_eq(memcmp(server.data, data, TOTAL), 0);
	sha256_digest(&s.sha, digest[0]);
	sha256_init(&sha);
	sha256_update(&sha, data, TOTAL);
	sha256_digest(&sha, digest[1]);
	cr_assert_eq(memcmp(digest[0], digest[1], 32), 0);
	waitpid(child, &status, 0);
	cr_assert_eq(status, 0);
	cover_fini(&server.covered);
	spool_fini(&s);
	spool_fini(&s);
	close(fds[0]);
}

Test(spool, what_is_gone_is_noticed)
{
	struct cover covered;
	struct spool s;
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(write(fds[1], "0123456789", 10), 10);
	close(fds[1]);
	spool_init(&s, fds[0], 4, 5);
	while (!s.is_eof) {
		cr_assert_eq(spool_read(&s), 0);
	}
	spool_next(&s, false)->is_sent = true;
	spool_acked(&s, 0);
	cover_init(&covered, 10);
	cr_assert_eq(cover_add(&covered, 0, 4), 0);
	cr_assert(spool_resume(&s, &covered));
	cr_assert_eq(spool_next(&s, false)->from, 4);
	/* The server forgot one byte of what it had acknowledged. */
	cr_assert_eq(cover_remove(&covered, 2, 3), 0);
	cr_assert(!spool_resume(&s, &covered));
	cover_fini(&covered);
	spool_fini(&s);
	close(fds[0]);
}
