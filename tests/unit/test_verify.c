/*
 * daemon/verify.c: jobs against sha256_update and memcmp over the same bytes.
 */
#include "ring_world.h"

#include <errno.h>

#include "verify.h"

enum { STEP = 256 * 1024, DATA_BYTES = 3 * STEP + 4321 };

static struct ring_world w;
static struct verify *verify;
static uint8_t data[DATA_BYTES];
static uint32_t done_count;

static void set_up(void)
{
	uint64_t seed = 7;
	ring_world_init(&w);
	cr_assert_eq(verify_new(2, &verify), 0);
	for (uint32_t i = 0; i < DATA_BYTES; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		data[i] = (uint8_t)(seed >> 56);
	}
}

static void tear_down(void)
{
	verify_free(verify);
	ring_world_fini(&w);
}

TestSuite(verify, .init = set_up, .fini = tear_down);

static void on_done(struct op *op)
{
	struct verify_job *job = (struct verify_job *)op;
	cr_assert(op_is_idle(op));
	cr_assert_null(job->next);
	done_count++;
}

/* What a job over memory begins as. */
static struct verify_job memory_job(uint64_t from, uint64_t bytes)
{
	return (struct verify_job){.op.done = on_done, .ring = w.ring, .bytes = bytes,
		.data = {.fd = -1, .mem = data + from}};
}

static int run(struct verify_job *job)
{
	job->op.res = -1;
	verify_submit(verify, job);
	ring_world_until(&w, &done_count, done_count + 1);
	return job->op.res;
}

/* Goes on from whatever the states hold, so also from the middle of a block. */
static void expect_state(struct sha256 *got, struct sha256 before, const uint8_t *bytes, size_t count)
{
	uint8_t a[SHA256_DIGEST_BYTES], b[SHA256_DIGEST_BYTES];
	sha256_update(&before, bytes, count);
	cr_expect_eq(got->bytes, before.bytes);
	sha256_digest(got, a);
	sha256_digest(&before, b);
	cr_expect_arr_eq(a, b, sizeof(a));
}

Test(verify, hashes_memory)
{
	static const uint64_t sizes[] = {0, 1, 63, 64, 65, STEP - 1, STEP, STEP + 1, DATA_BYTES};
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct sha256 s, before;
		sha256_init(&before);
		sha256_update(&before, "prefix", i % 7);
		s = before;
		struct verify_job job = memory_job(0, sizes[i]);
		job.states[0] = &s;
		cr_expect_eq(run(&job), 0);
		cr_expect_not(job.differs);
		expect_state(&s, before, data, sizes[i]);
	}
}

Test(verify, hashes_a_file_into_two_states)
{
	struct sha256 a, b, b_before;
	int fd = ring_world_file(&w, "f", data, DATA_BYTES);
	sha256_init(&a);
	sha256_init(&b_before);
	sha256_update(&b_before, "what came before", 16);
	b = b_before;
	struct sha256 a_before = a;
	struct verify_job job = memory_job(0, DATA_BYTES - 1000);
	job.data = (struct verify_range){.fd = fd, .off = 777};
	job.states[0] = &a;
	job.states[1] = &b;
	cr_expect_eq(run(&job), 0);
	expect_state(&a, a_before, data + 777, DATA_BYTES - 1000);
	expect_state(&b, b_before, data + 777, DATA_BYTES - 1000);
	/* Only the second one. */
	sha256_init(&b);
	job.states[0] = NULL;
	job.data.off = 0;
	job.bytes = 100;
	cr_expect_eq(run(&job), 0);
	expect_state(&b, a_before, data, 100);
	close(fd);
}

Test(verify, a_file_that_is_too_short)
{
	struct sha256 s;
	int fd = ring_world_file(&w, "f", data, STEP + 100);
	struct verify_job job = memory_job(0, STEP + 101);
	sha256_init(&s);
	job.states[0] = &s;
	job.data = (struct verify_range){.fd = fd};
	cr_expect_eq(run(&job), -EIO);
	job.bytes = STEP + 100;
	sha256_init(&s);
	struct sha256 before = s;
	cr_expect_eq(run(&job), 0, "a job can be used again");
	expect_state(&s, before, data, STEP + 100);
	job.data.off = 1;
	cr_expect_eq(run(&job), -EIO);
	job.data.off = 1 << 30;
	job.bytes = 1;
	cr_expect_eq(run(&job), -EIO);
	job.bytes = 0;
	cr_expect_eq(run(&job), 0);
	close(fd);
	job.bytes = 1;
	cr_expect_eq(run(&job), -EBADF);
}

/* --- comparing -------------------------------------------------------------------------------- */

Test(verify, compares_a_file_with_memory)
{
	static uint8_t other[DATA_BYTES];
	static const uint32_t places[] = {0, 1, STEP - 1, STEP, 2 * STEP + 5, DATA_BYTES - 1};
	int fd = ring_world_file(&w, "f", data, DATA_BYTES);
	struct sha256 s, before;
	sha256_init(&before);
	memcpy(other, data, DATA_BYTES);
	struct verify_job job = memory_job(0, DATA_BYTES);
	job.data = (struct verify_range){.fd = fd};
	job.compares = true;
	job.with = (struct verify_range){.fd = -1, .mem = other};
	job.states[0] = &s;
	s = before;
	cr_expect_eq(run(&job), 0);
	cr_expect_not(job.differs);
	expect_state(&s, before, data, DATA_BYTES);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		other[places[i]] ^= 0x10;
		s = before;
		cr_expect_eq(run(&job), 0);
		cr_expect(job.differs, "at %u", places[i]);
		expect_state(&s, before, data, DATA_BYTES);
		other[places[i]] ^= 0x10;
	}
	cr_expect_eq(run(&job), 0);
	cr_expect_not(job.differs, "the result before is forgotten");
	other[100] ^= 1;
	job.compares = false;
	cr_expect_eq(run(&job), 0);
	cr_expect_not(job.differs, "not asked for");
	close(fd);
}

Test(verify, compares_two_files)
{
	int fd = ring_world_file(&w, "f", data, DATA_BYTES);
	int part = ring_world_file(&w, "part", data + 500, STEP + 10);
	struct verify_job job = memory_job(0, STEP + 10);
	job.data = (struct verify_range){.fd = fd, .off = 500};
	job.with = (struct verify_range){.fd = part};
	job.compares = true;
	cr_expect_eq(run(&job), 0);
	cr_expect_not(job.differs);
	job.bytes++;
	cr_expect_eq(run(&job), 0);
	cr_expect(job.differs, "what is shorter differs");
	job.bytes--;
	job.data.off++;
	cr_expect_eq(run(&job), 0);
	cr_expect(job.differs);
	job.data.off = 500 + STEP;
	job.with.off = STEP;
	job.bytes = 10;
	cr_expect_eq(run(&job), 0);
	cr_expect_not(job.differs);
	close(part);
	cr_expect_eq(run(&job), -EBADF);
	close(fd);
}

/* --- many ------------------------------------------------------------------------------------- */

enum { MANY = 400 };

struct many {
	struct verify_job job;
	struct sha256 states[2];
	uint64_t from, bytes;
	bool differs;
	int res;
};

static uint32_t rnd(uint32_t below)
{
	static uint64_t seed = 3;
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % below;
}

static void many_make(struct many *m, int fd, int short_fd)
{
	static const uint8_t zeros[1000];
	m->bytes = rnd(8) ? rnd(3000) : rnd(2 * STEP);
	m->from = rnd((uint32_t)(DATA_BYTES - m->bytes));
	m->job = memory_job(m->from, m->bytes);
	for (int s = 0; s < 2; s++) {
		sha256_init(&m->states[s]);
		m->job.states[s] = rnd(3) ? &m->states[s] : NULL;
	}
	switch (rnd(4)) {
	case 0:
		m->job.data = (struct verify_range){.fd = fd, .off = m->from};
		break;
	case 1:
		m->job.data = (struct verify_range){.fd = fd, .off = m->from};
		m->job.compares = true;
		m->job.with = (struct verify_range){.fd = -1, .mem = data + m->from};
		break;
	case 2:
		m->bytes = m->job.bytes = 1000;
		m->from = 0;
		m->job.data.mem = data;
		m->job.compares = m->differs = true;
		m->job.with = (struct verify_range){.fd = -1, .mem = zeros};
		break;
	default:
		m->job.data = (struct verify_range){.fd = short_fd, .off = m->from};
		m->res = m->from + m->bytes > 1000 && m->bytes > 0 ? -EIO : 0;
	}
}

static void submit_all(struct many *all)
{
	for (uint32_t i = 0; i < MANY; i++)
		verify_submit(verify, &all[i].job);
}

static void check_all(struct many *all)
{
	struct sha256 empty;
	sha256_init(&empty);
	for (uint32_t i = 0; i < MANY; i++) {
		cr_expect_eq(all[i].job.op.res, all[i].res, "job %u", i);
		if (all[i].res)
			continue;
		cr_expect_eq(all[i].job.differs, all[i].differs, "job %u", i);
		for (int s = 0; s < 2; s++) {
			if (all[i].job.states[s])
				expect_state(all[i].job.states[s], empty, data + all[i].from, all[i].bytes);
		}
	}
}

/* More than there are lanes, long and short and failing: no job's bytes reach another's state. */
Test(verify, many_at_once)
{
	static struct many all[MANY];
	int fd = ring_world_file(&w, "f", data, DATA_BYTES);
	int short_fd = ring_world_file(&w, "short", data, 1000);
	for (uint32_t i = 0; i < MANY; i++)
		many_make(&all[i], fd, short_fd);
	submit_all(all);
	ring_world_until(&w, &done_count, MANY);
	check_all(all);
	close(fd);
	close(short_fd);
}

/* --- chains ----------------------------------------------------------------------------------- */

enum { LINKS = 50 };

struct chain {
	struct verify_job jobs[LINKS];
	struct sha256 own[LINKS], through[LINKS];
	uint64_t from[LINKS + 1];
};

static uint32_t order_next;

static void on_link_done(struct op *op)
{
	struct verify_job *job = (struct verify_job *)op;
	const struct chain *c = job->with.mem ? (const void *)job->with.mem : NULL;
	if (c) /* the watched chain: its jobs come back in their order */
		cr_expect_eq(job - c->jobs, order_next++);
	done_count++;
}

/* Ranges of random lengths that follow each other, some empty. */
static void chain_make(struct chain *c, int fd, bool watched)
{
	memset(c, 0, sizeof(*c));
	for (uint32_t i = 0; i < LINKS; i++) {
		uint64_t bytes = rnd(5) ? rnd(20000) : 0;
		c->jobs[i] = memory_job(c->from[i], bytes);
		c->jobs[i].op.done = on_link_done;
		if (fd >= 0)
			c->jobs[i].data = (struct verify_range){.fd = fd, .off = c->from[i]};
		c->jobs[i].with.mem = watched ? (const void *)c : NULL;
		sha256_init(&c->own[i]);
		memset(&c->through[i], 0xee, sizeof(c->through[i]));
		c->jobs[i].states[0] = rnd(4) ? &c->own[i] : NULL;
		c->jobs[i].states[1] = &c->through[i];
		c->jobs[i].then = i + 1 < LINKS ? &c->jobs[i + 1] : NULL;
		c->from[i + 1] = c->from[i] + bytes;
	}
	sha256_init(&c->through[0]);
}

static void chain_check(struct chain *c, uint32_t count)
{
	struct sha256 empty;
	sha256_init(&empty);
	for (uint32_t i = 0; i < count; i++) {
		cr_expect_eq(c->jobs[i].op.res, 0);
		expect_state(&c->through[i], empty, data, c->from[i + 1]);
		if (c->jobs[i].states[0])
			expect_state(&c->own[i], empty, data + c->from[i], c->from[i + 1] - c->from[i]);
	}
}

/* One digest runs through, each job has its own, and the one that runs through is kept as it stood
 * after each of them. */
Test(verify, chains)
{
	static struct chain chains[8];
	int fd = ring_world_file(&w, "f", data, DATA_BYTES);
	for (uint32_t i = 0; i < 8; i++)
		chain_make(&chains[i], i % 2 ? fd : -1, i == 5);
	for (uint32_t i = 0; i < 8; i++)
		verify_submit(verify, &chains[i].jobs[0]);
	ring_world_until(&w, &done_count, 8 * LINKS);
	cr_expect_eq(order_next, LINKS);
	for (uint32_t i = 0; i < 8; i++)
		chain_check(&chains[i], LINKS);
	close(fd);
}

/* A job that fails does not stop those behind it: their own digests are right. */
Test(verify, a_chain_with_a_failure)
{
	static struct chain c;
	struct sha256 empty;
	int fd = ring_world_file(&w, "f", data, 1000);
	sha256_init(&empty);
	chain_make(&c, -1, true);
	c.jobs[LINKS / 2].data = (struct verify_range){.fd = fd, .off = 900};
	c.jobs[LINKS / 2].bytes = 101;
	verify_submit(verify, &c.jobs[0]);
	ring_world_until(&w, &done_count, LINKS);
	cr_expect_eq(c.jobs[LINKS / 2].op.res, -EIO);
	chain_check(&c, LINKS / 2);
	for (uint32_t i = LINKS / 2 + 1; i < LINKS; i++) {
		cr_expect_eq(c.jobs[i].op.res, 0);
		if (c.jobs[i].states[0])
			expect_state(&c.own[i], empty, data + c.from[i], c.from[i + 1] - c.from[i]);
	}
	close(fd);
}

Test(verify, the_end_waits_for_what_was_submitted)
{
	static struct many all[MANY];
	int fd = ring_world_file(&w, "f", data, DATA_BYTES);
	int short_fd = ring_world_file(&w, "short", data, 1000);
	for (uint32_t i = 0; i < MANY; i++)
		many_make(&all[i], fd, short_fd);
	submit_all(all);
	verify_free(verify);
	verify = NULL;
	ring_turn(w.ring, 0);
	cr_expect_eq(done_count, MANY, "all have been posted");
	check_all(all);
	close(fd);
	close(short_fd);
}

Test(verify, as_many_threads_as_cores)
{
	struct verify *v = NULL;
	struct sha256 s, before;
	cr_assert_eq(verify_new(0, &v), 0);
	struct verify_job job = memory_job(0, 1000);
	job.states[0] = &s;
	sha256_init(&before);
	s = before;
	verify_submit(v, &job);
	ring_world_until(&w, &done_count, 1);
	expect_state(&s, before, data, 1000);
	verify_free(v);
	verify_free(NULL);
}
