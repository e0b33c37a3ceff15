/*
 * What a user's transfers count, over its client ids: from the command that opens one to its end,
 * through generations, and over a restart. Per client id it is in tests/e2e/test_init.py.
 *
 * And the files of a client id and of a user: exports count on until they are forgotten, or found to
 * be gone.
 */
#include <sys/stat.h>
#include "upload_commands.h"
#include "user.h"

/* Transfers of three client ids. */
enum { A, B, C, IDS };
static struct upload_id ids[IDS] = {{"cam", 3, "f1", 2, NULL}, {"dog", 3, "f1", 2, NULL}, {"cat", 3, "f1", 2, NULL}};
static const char name_a[] = "{\"name\":\"a\"}", name_b[] = "{\"name\":\"b\"}";

static struct user *enter(struct bench *b, const char *name)
{
	struct user *x = user_enter(b->rt.store->users, (struct mqtt_str){name, (uint32_t)strlen(name)});
	cr_assert_not_null(x);
	return x;
}

/* All of them come on connections of this user. */
static void set_user(struct user *x)
{
	for (int i = 0; i < IDS; i++)
		ids[i].user = x;
}

/* A segment as a connection brings it: refused by its header, or stored. */
static struct caught do_segment(struct bench *b, const struct upload_id *id, uint64_t off, const char *data,
	uint32_t bytes)
{
	struct caught c = {.done = true};
	struct filecmd cmd = segment_cmd(off);
	if (upload_segment_admit(b->rt.uploads, id, &cmd, bytes, &c.o))
		return do_small_of(b, id, off, data, bytes);
	return c;
}

/* How many more the user could have now, and how many bytes. The limits are set. */
static void assert_counts(struct bench *b, struct user *x, uint64_t open, uint64_t staged)
{
	uint64_t more = 0, bytes = b->conf.transfer.staged_user_max - staged;
	while (more <= b->conf.transfer.open_user_max && !user_reserve(x, 0, NULL))
		more++;
	for (uint64_t i = 0; i < more; i++)
		user_release(x, 0);
	cr_expect_eq(more + open, b->conf.transfer.open_user_max, "room for %lu more", more);
	cr_expect_not_null(user_reserve_more(x, bytes + 1), "less than %lu are staged", staged);
	cr_expect_null(user_reserve_more(x, bytes), "more than %lu are staged", staged);
	user_release_more(x, bytes);
}

static void set_limits(struct bench *b, uint32_t open, uint64_t staged)
{
	b->conf.transfer.open_user_max = open;
	b->conf.transfer.staged_user_max = staged;
}

Test(admit, transfers_of_a_user_are_so_many)
{
	struct bench b;
	bench_init(&b);
	set_limits(&b, 2, 1000);
	struct user *x = enter(&b, "x"), *y = enter(&b, "y");
	set_user(x);
	assert_ok(do_init_of(&b, &ids[A], name_a));
	assert_ok(do_segment(&b, &ids[B], 0, "abc", 3)); /* its first segment opens it */
	assert_counts(&b, x, 2, 3);
	assert_fails(do_init_of(&b, &ids[C], name_a), 0x97, "quota_exceeded");
	assert_fails(do_segment(&b, &ids[C], 0, "a", 1), 0x97, "quota_exceeded");
	assert_ok(do_init_of(&b, &ids[B], name_a)); /* those that are there go on */
	assert_ok(do_segment(&b, &ids[A], 0, "ab", 2));
	assert_counts(&b, x, 2, 5);
	set_user(y);
	assert_ok(do_init_of(&b, &ids[C], name_a));
	assert_ok(do_segment(&b, &ids[A], 2, "c", 1)); /* still x's */
	assert_counts(&b, y, 1, 0);
	assert_counts(&b, x, 2, 6);
	assert_ok(do_fin_of(&b, &ids[A], 3, NULL));
	assert_counts(&b, x, 1, 3);
	assert_ok(do_abort_of(&b, &ids[B]));
	assert_counts(&b, x, 0, 0);
	set_user(NULL);
	assert_ok(do_abort_of(&b, &ids[C]));
	assert_counts(&b, y, 0, 0);
	user_leave(x);
	user_leave(y);
	cr_expect_eq(users_count(b.rt.store->users), 0);
	assert_ok(do_init_of(&b, &ids[B], name_a)); /* of no user */
	cr_expect_eq(users_count(b.rt.store->users), 0);
	bench_fini(&b);
}

Test(admit, bytes_of_a_user_are_so_many)
{
	struct bench b;
	bench_init(&b);
	set_limits(&b, 10, 1000);
	struct user *x = enter(&b, "x");
	set_user(x);
	assert_fails(do_init_of(&b, &ids[A], "{\"name\":\"a\",\"size\":1001}"), 0x97, "quota_exceeded");
	assert_counts(&b, x, 0, 0);
	assert_ok(do_init_of(&b, &ids[A], "{\"name\":\"a\",\"size\":600}"));
	assert_ok(do_segment(&b, &ids[B], 300, "x", 1));
	assert_counts(&b, x, 2, 901);
	assert_fails(do_segment(&b, &ids[B], 400, "x", 1), 0x97, "quota_exceeded");
	assert_ok(do_segment(&b, &ids[B], 0, "x", 1)); /* below what it reaches already */
	assert_ok(do_segment(&b, &ids[B], 399, "x", 1));
	assert_counts(&b, x, 2, 1000);
	assert_fails(do_init_of(&b, &ids[C], "{\"name\":\"a\",\"size\":1}"), 0x97, "quota_exceeded");
	assert_ok(do_init_of(&b, &ids[C], name_a));
	assert_ok(do_abort_of(&b, &ids[A]));
	assert_counts(&b, x, 2, 400);
	user_leave(x);
	bench_fini(&b);
}

/* What the daemon as a whole, or its disk, has no room for is not the user's either. */
Test(admit, what_the_store_refuses_is_given_back)
{
	struct bench b;
	bench_init(&b);
	set_limits(&b, 2, 100000);
	b.conf.transfer.staged_bytes_max = 1000;
	struct user *x = enter(&b, "x");
	set_user(x);
	for (int i = 0; i < 3; i++)
		assert_fails(do_init_of(&b, &ids[A], "{\"name\":\"a\",\"size\":1001}"), 0x97, "quota_exceeded");
	assert_counts(&b, x, 0, 0);
	assert_ok(do_init_of(&b, &ids[A], "{\"name\":\"a\",\"size\":900}"));
	for (int i = 0; i < 3; i++)
		assert_fails(do_segment(&b, &ids[A], 1000, "x", 1), 0x97, "quota_exceeded");
	assert_counts(&b, x, 1, 900);
	user_leave(x);
	bench_fini(&b);
}

/* The next generation of a finished file is another transfer: of whoever begins it, be it by an init or
 * by a segment that differs. */
Test(admit, a_generation_is_of_who_begins_it)
{
	struct bench b;
	bench_init(&b);
	set_limits(&b, 1, 1000);
	struct user *x = enter(&b, "x"), *y = enter(&b, "y");
	set_user(x);
	assert_ok(do_init_of(&b, &ids[A], name_a));
	assert_ok(do_segment(&b, &ids[A], 0, "abc", 3));
	assert_ok(do_fin_of(&b, &ids[A], 3, NULL));
	assert_counts(&b, x, 0, 0);
	set_user(y);
	assert_ok(do_segment(&b, &ids[A], 0, "abc", 3)); /* a replay: nothing is opened */
	assert_counts(&b, y, 0, 0);
	assert_ok(do_segment(&b, &ids[A], 0, "xbc", 3));
	assert_counts(&b, x, 0, 0);
	assert_counts(&b, y, 1, 3);
	assert_ok(do_fin_of(&b, &ids[A], 3, NULL));
	assert_counts(&b, y, 0, 0);
	assert_ok(do_init_of(&b, &ids[A], name_b));
	assert_counts(&b, y, 1, 0);
	assert_fails(do_init_of(&b, &ids[B], name_a), 0x97, "quota_exceeded");
	assert_ok(do_abort_of(&b, &ids[A])); /* the finished one is back */
	assert_counts(&b, y, 0, 0);
	assert_ok(do_init_of(&b, &ids[B], name_a));
	assert_fails(do_segment(&b, &ids[A], 0, "zbc", 3), 0x97, "quota_exceeded");
	assert_fails(do_init_of(&b, &ids[A], name_b), 0x97, "quota_exceeded");
	assert_ok(do_abort_of(&b, &ids[B]));
	user_leave(x);
	user_leave(y);
	cr_expect_eq(users_count(b.rt.store->users), 0, "no segment refers to them any more");
	bench_fini(&b);
}

/* A transfer with a fin that waits for a segment of it. */
static void open_with_fin(struct bench *b, struct caught *ret_small, struct caught *ret_fin)
{
	struct filecmd fin = {.verb = FILECMD_FIN, .size = 3}, seg = segment_cmd(0);
	assert_ok(do_init_of(b, &ids[A], name_a));
	struct buf *buf = bufs_take(b->rt.bufs);
	memcpy(buf->data, "abc", 3);
	ingest_small(b->rt.uploads, &ids[A], &seg, buf, buf->data, 3, reply_for(ret_small));
	ingest_flush(b->rt.uploads);
	buf_unref(buf);
	upload_fin(b->rt.uploads, &ids[A], &fin, reply_for(ret_fin));
}

/* An init that waits behind a fin is its connection's user's, also when that has gone meanwhile. */
Test(admit, an_init_that_waits_keeps_its_user)
{
	struct bench b;
	struct caught c[2], small, fin;
	bench_init(&b);
	set_limits(&b, 1, 1000);
	set_user(NULL);
	open_with_fin(&b, &small, &fin);
	struct user *x = enter(&b, "x");
	set_user(x);
	cr_assert_not(upload_init(b.rt.uploads, &ids[A], name_b, 12, reply_for(&c[0])));
	cr_assert_not(upload_init(b.rt.uploads, &ids[A], name_b, 12, reply_for(&c[1])));
	user_leave(x);
	cr_expect_eq(users_count(b.rt.store->users), 1, "the inits refer to it");
	settle(&b);
	assert_ok(fin);
	assert_ok(c[0]);
	assert_ok(c[1]);
	cr_expect_eq(users_count(b.rt.store->users), 1);
	x = enter(&b, "x");
	assert_counts(&b, x, 1, 0);
	set_user(NULL);
	assert_ok(do_abort_of(&b, &ids[A]));
	user_leave(x);
	cr_expect_eq(users_count(b.rt.store->users), 0);
	bench_fini(&b);
}

/* Aborted while they wait, the inits let go of it. */
Test(admit, an_init_that_is_skipped_lets_go_of_its_user)
{
	struct bench b;
	struct caught init, small, fin;
	bench_init(&b);
	set_limits(&b, 1, 1000);
	set_user(NULL);
	open_with_fin(&b, &small, &fin);
	struct user *x = enter(&b, "x");
	set_user(x);
	cr_assert_not(upload_init(b.rt.uploads, &ids[A], name_b, 12, reply_for(&init)));
	user_leave(x);
	set_user(NULL);
	assert_ok(do_abort_of(&b, &ids[A]));
	assert_ok(init);
	cr_expect_eq(users_count(b.rt.store->users), 0);
	bench_fini(&b);
}

/* ---- over a restart ---- */

/* What the journal says, from the records of each transfer or from a checkpoint of all. */
static void restart_keeps_users(bool from_checkpoint)
{
	struct bench b;
	bench_init(&b);
	set_limits(&b, 10, 10000);
	struct user *x = enter(&b, "x"), *y = enter(&b, "y");
	set_user(x);
	assert_ok(do_init_of(&b, &ids[A], "{\"name\":\"a\",\"size\":500}"));
	assert_ok(do_segment(&b, &ids[B], 0, "abc", 3));
	set_user(y);
	assert_ok(do_init_of(&b, &ids[C], name_a));
	user_leave(x);
	user_leave(y);
	if (from_checkpoint)
		bench_restart(&b);
	set_limits(&b, 1, 100); /* less than there is */
	bench_restart(&b);
	cr_expect_eq(users_count(b.rt.store->users), 2);
	x = enter(&b, "x");
	y = enter(&b, "y");
	set_user(x);
	assert_ok(do_segment(&b, &ids[A], 0, "abc", 3)); /* it has its room */
	assert_fails(do_segment(&b, &ids[B], 3, "d", 1), 0x97, "quota_exceeded");
	set_limits(&b, 10, 10000);
	assert_counts(&b, x, 2, 503);
	assert_counts(&b, y, 1, 0);
	assert_ok(do_init_of(&b, &ids[B], name_a));
	assert_ok(do_fin_of(&b, &ids[B], 3, NULL));
	assert_counts(&b, x, 1, 500);
	user_leave(x);
	user_leave(y);
	bench_restart(&b);
	cr_expect_eq(users_count(b.rt.store->users), 2);
	x = enter(&b, "x");
	assert_counts(&b, x, 1, 500);
	user_leave(x);
	set_user(NULL);
	assert_ok(do_abort_of(&b, &ids[A]));
	assert_ok(do_abort_of(&b, &ids[C]));
	cr_expect_eq(users_count(b.rt.store->users), 0);
	bench_fini(&b);
}

Test(admit, a_restart_keeps_users)
{
	restart_keeps_users(false);
}

Test(admit, a_restart_from_a_checkpoint_keeps_users)
{
	restart_keeps_users(true);
}

/* ---- files ---- */

enum { FILES_MAX = 200, LOOKS_MAX = 64, PROBE = FILES_MAX + 1 };

/* The nth file of a client id. */
static struct upload_id file_of(int client, int n)
{
	static char names[PROBE + 1][16];
	snprintf(names[n], sizeof(names[n]), "n%d", n);
	struct upload_id id = ids[client];
	id.fileid = names[n];
	id.fileid_bytes = (uint32_t)strlen(names[n]);
	return id;
}

static struct caught do_open(struct bench *b, int client, int n)
{
	struct upload_id id = file_of(client, n);
	return do_init_of(b, &id, name_a);
}

static void do_export(struct bench *b, int client, int n)
{
	struct upload_id id = file_of(client, n);
	assert_ok(do_open(b, client, n));
	assert_ok(do_fin_of(b, &id, 0, NULL));
}

static void do_exports(struct bench *b, int client, int count)
{
	for (int n = 0; n < count; n++)
		do_export(b, client, n);
}

static void assert_no_room(struct bench *b, int client)
{
	assert_fails(do_open(b, client, PROBE), 0x97, "quota_exceeded");
}

/* Opens one, and takes that back. */
static void assert_room(struct bench *b, int client)
{
	struct upload_id id = file_of(client, PROBE);
	assert_ok(do_open(b, client, PROBE));
	assert_ok(do_abort_of(b, &id));
}

/* Its consumer takes it, with or without the directory. */
static void take(struct bench *b, int client, int n, bool with_dir)
{
	char path[160];
	struct upload_id id = file_of(client, n);
	int bytes = snprintf(path, sizeof(path), "%s/export/%.3s/%s/a", b->dir, id.clientid, id.fileid);
	cr_assert_eq(unlink(path), 0, "%s", path);
	if (!with_dir)
		return;
	strcpy(path + bytes - 1, ".manifest.json");
	cr_assert_eq(unlink(path), 0);
	path[bytes - 2] = 0;
	cr_assert_eq(rmdir(path), 0);
}

static void assert_files(const struct bench *b, struct user *x, uint64_t of_clients, uint64_t of_user)
{
	cr_expect_eq(accounts_files_count(&b->rt.uploads->accounts), of_clients, "%lu, not %lu",
		accounts_files_count(&b->rt.uploads->accounts), of_clients);
	if (x)
		cr_expect_eq(user_files_count(x), of_user, "%lu, not %lu", user_files_count(x), of_user);
}

Test(admit, files_of_a_client_are_so_many)
{
	struct bench b;
	bench_init(&b);
	set_user(NULL);
	b.conf.transfer.files_client_max = 3;
	struct upload_id first = file_of(A, 0), third = file_of(A, 2);
	do_exports(&b, A, 2);
	assert_ok(do_open(&b, A, 2));
	assert_no_room(&b, A);
	assert_fails(do_segment(&b, &first, 0, "x", 1), 0x97, "quota_exceeded"); /* the next generation */
	assert_fails(do_init_of(&b, &first, name_b), 0x97, "quota_exceeded");
	assert_room(&b, B);
	assert_files(&b, NULL, 3, 0);
	assert_ok(do_abort_of(&b, &third));
	assert_ok(do_segment(&b, &first, 0, "x", 1));
	assert_no_room(&b, A);
	assert_ok(do_abort_of(&b, &first));
	assert_ok(do_segment(&b, &first, 0, "x", 1));
	assert_no_room(&b, A);
	assert_ok(do_fin_of(&b, &first, 1, NULL)); /* it takes the place of the generation before */
	assert_files(&b, NULL, 2, 0);
	assert_ok(do_open(&b, A, 2));
	assert_no_room(&b, A);
	bench_fini(&b);
}

Test(admit, files_that_are_gone_do_not_count)
{
	struct bench b;
	bench_init(&b);
	struct user *x = enter(&b, "x");
	set_user(x);
	b.conf.transfer.files_client_max = b.conf.transfer.files_user_max = 3;
	do_exports(&b, A, 3);
	assert_no_room(&b, A);
	take(&b, A, 2, false);
	assert_files(&b, x, 3, 3); /* nobody has looked yet */
	assert_room(&b, A);
	assert_files(&b, x, 2, 2);
	take(&b, A, 0, true);
	take(&b, A, 1, true);
	do_export(&b, A, 3);
	assert_files(&b, x, 3, 3);
	assert_room(&b, A);
	assert_files(&b, x, 2, 2); /* the first that was gone has made room */
	take(&b, A, 3, true);
	b.conf.transfer.files_client_max = b.conf.transfer.files_user_max = 1;
	assert_room(&b, A);
	assert_files(&b, x, 0, 0);
	cr_expect_eq(b.rt.uploads->accounts.count, 0);
	user_leave(x);
	cr_expect_eq(users_count(b.rt.store->users), 0);
	bench_fini(&b);
}

/* A refusal looks for so many and no more; the next one goes on behind them. */
static void looks_are_bounded(bool of_user)
{
	struct bench b;
	bench_init(&b);
	struct user *x = enter(&b, "x");
	set_user(x);
	*(of_user ? &b.conf.transfer.files_user_max : &b.conf.transfer.files_client_max) = FILES_MAX;
	do_exports(&b, A, FILES_MAX);
	take(&b, A, FILES_MAX - 1, false);
	for (int looked = LOOKS_MAX; looked < FILES_MAX; looked += LOOKS_MAX)
		assert_no_room(&b, A);
	assert_room(&b, A);
	do_export(&b, A, FILES_MAX);
	take(&b, A, LOOKS_MAX, false); /* looks have come round to the first one */
	assert_no_room(&b, A);
	assert_room(&b, A);
	user_leave(x);
	bench_fini(&b);
}

/* Whoever was refused with all of them there goes on elsewhere the next time, but looks for the oldest
 * again. */
static void oldest_are_looked_for_first(bool of_user)
{
	struct bench b;
	bench_init(&b);
	struct user *x = enter(&b, "x");
	set_user(x);
	uint32_t *max = of_user ? &b.conf.transfer.files_user_max : &b.conf.transfer.files_client_max;
	*max = FILES_MAX;
	do_exports(&b, A, FILES_MAX);
	for (int n = 0; n < 5; n++) {
		*max = FILES_MAX - n;
		assert_no_room(&b, A);
		take(&b, A, n, false);
		assert_room(&b, A);
	}
	user_leave(x);
	bench_fini(&b);
}

Test(admit, oldest_of_a_client_are_looked_for_first)
{
	oldest_are_looked_for_first(false);
}

Test(admit, oldest_of_a_user_are_looked_for_first)
{
	oldest_are_looked_for_first(true);
}

Test(admit, looks_for_a_clients_files_are_bounded)
{
	looks_are_bounded(false);
}

Test(admit, looks_for_a_users_files_are_bounded)
{
	looks_are_bounded(true);
}

static uint64_t look_ns; /* what each look takes; and what they have taken */
static uint64_t looked_ns;

int __real_sys_stat_at(int dir_fd, const char *path, struct sys_stat *ret);
int __wrap_sys_stat_at(int dir_fd, const char *path, struct sys_stat *ret);
int __wrap_sys_stat_at(int dir_fd, const char *path, struct sys_stat *ret)
{
	looked_ns += look_ns;
	return __real_sys_stat_at(dir_fd, path, ret);
}

uint64_t __wrap_sys_mono_ns(void);
uint64_t __wrap_sys_mono_ns(void)
{
	return looked_ns;
}

/* One that finds the export gone costs nothing: who has none there is let in, however fast. */
static void a_consumer_that_keeps_up_is_enough(bool of_user)
{
	struct bench b;
	bench_init(&b);
	struct user *x = enter(&b, "x");
	set_user(x);
	*(of_user ? &b.conf.transfer.files_user_max : &b.conf.transfer.files_client_max) = 100;
	for (int n = 0; n < FILES_MAX; n++) {
		do_export(&b, A, n);
		if (n >= 99)
			take(&b, A, n - 99, false); /* it is always that far behind */
	}
	for (int n = FILES_MAX - 99; n < FILES_MAX; n++)
		take(&b, A, n, false);
	*(of_user ? &b.conf.transfer.files_user_max : &b.conf.transfer.files_client_max) = 1;
	assert_room(&b, A);
	assert_files(&b, x, 0, 0);
	user_leave(x);
	bench_fini(&b);
}

Test(admit, a_consumer_that_keeps_up_with_a_client_is_enough)
{
	a_consumer_that_keeps_up_is_enough(false);
}

Test(admit, a_consumer_that_keeps_up_with_a_user_is_enough)
{
	a_consumer_that_keeps_up_is_enough(true);
}

/* The client's looks and the user's together: three for the client, who has room then, and one more. */
Test(admit, looks_take_so_long)
{
	struct bench b;
	bench_init(&b);
	struct user *x = enter(&b, "x");
	set_user(x);
	do_exports(&b, C, 1); /* before there were limits: these count for nobody */
	b.conf.transfer.files_client_max = 3;
	b.conf.transfer.files_user_max = 6;
	do_exports(&b, B, 3);
	do_exports(&b, A, 3);
	take(&b, A, 2, false);
	b.conf.transfer.files_user_max = 5;
	take(&b, B, 1, false);
	look_ns = 600000;
	uint64_t from_ns = looked_ns;
	assert_no_room(&b, A);
	cr_expect_eq(looked_ns - from_ns, 4 * look_ns, "%lu ns", looked_ns - from_ns);
	assert_files(&b, x, 5, 5);
	look_ns = 0;
	assert_room(&b, A);
	assert_files(&b, x, 5, 4);
	user_leave(x);
	bench_fini(&b);
}

/* Whichever client has exported what is gone by now. */
Test(admit, files_of_a_user_are_so_many)
{
	struct bench b;
	bench_init(&b);
	struct user *x = enter(&b, "x"), *y = enter(&b, "y");
	set_user(x);
	b.conf.transfer.files_user_max = 4;
	do_exports(&b, A, 2);
	do_exports(&b, B, 1);
	assert_ok(do_open(&b, B, 1));
	for (int i = 0; i < IDS; i++)
		assert_no_room(&b, i);
	struct upload_id first = file_of(A, 0);
	assert_fails(do_segment(&b, &first, 0, "x", 1), 0x97, "quota_exceeded");
	assert_files(&b, x, 1, 4);
	take(&b, A, 1, true);
	assert_room(&b, C);
	assert_files(&b, x, 1, 3);
	set_user(y);
	do_exports(&b, C, 4); /* y's are its own */
	assert_no_room(&b, A);
	assert_ok(do_segment(&b, &(struct upload_id){first.clientid, first.clientid_bytes, first.fileid,
		first.fileid_bytes, x}, 0, "x", 1));
	assert_files(&b, x, 2, 4);
	assert_ok(do_fin_of(&b, &first, 1, NULL));
	assert_files(&b, x, 1, 3);
	set_user(NULL);
	do_exports(&b, B, 1); /* of no user: a replay */
	assert_room(&b, B);
	user_leave(x);
	user_leave(y);
	cr_expect_eq(users_count(b.rt.store->users), 2, "their exports refer to them");
	bench_fini(&b);
}

/* Its time, which is 0 by now, is over. */
static void age(struct bench *b, int client, int n)
{
	struct upload_id id = file_of(client, n);
	struct transfer *t = transfer_find(b->rt.uploads, &id);
	t->active_ms = 0;
	timers_arm(&b->rt.timers, &t->ttl, 0);
	timers_expire(&b->rt.timers, ring_now_ms(b->rt.ring));
	cr_expect_null(transfer_find(b->rt.uploads, &id));
	settle(b);
}

/* Over the window of replays, and over their number. */
Test(admit, what_is_forgotten_does_not_count)
{
	struct bench b;
	bench_init(&b);
	struct user *x = enter(&b, "x");
	set_user(x);
	b.conf.transfer.files_client_max = b.conf.transfer.files_user_max = 3;
	b.conf.transfer.replay_max = 2;
	do_exports(&b, A, 6);
	assert_files(&b, x, 2, 2);
	b.conf.transfer.replay_max = 10;
	do_export(&b, A, 6);
	assert_no_room(&b, A);
	b.conf.transfer.replay_window_s = 0;
	age(&b, A, 6);
	assert_files(&b, x, 2, 2);
	user_leave(x);
	bench_fini(&b);
}

/* An open transfer that expires. */
Test(admit, what_expires_does_not_count)
{
	struct bench b;
	bench_init(&b);
	struct user *x = enter(&b, "x");
	set_user(x);
	b.conf.transfer.files_client_max = b.conf.transfer.files_user_max = 1;
	assert_ok(do_open(&b, A, 0));
	assert_no_room(&b, A);
	b.conf.transfer.ttl_min_s = b.conf.transfer.ttl_max_s = 0;
	age(&b, A, 0);
	assert_files(&b, x, 0, 0);
	assert_room(&b, A);
	user_leave(x);
	bench_fini(&b);
}

static void restart_keeps_files(bool from_checkpoint)
{
	struct bench b;
	bench_init(&b);
	struct user *x = enter(&b, "x");
	set_user(x);
	b.conf.transfer.files_client_max = b.conf.transfer.files_user_max = 10;
	struct upload_id first = file_of(A, 0), second = file_of(A, 1);
	do_exports(&b, A, 3);
	do_exports(&b, B, 1);
	assert_ok(do_segment(&b, &first, 0, "x", 1)); /* open, beside the export */
	assert_ok(do_segment(&b, &second, 0, "x", 1));
	assert_ok(do_fin_of(&b, &second, 1, NULL)); /* exported, in its place */
	assert_files(&b, x, 5, 5);
	user_leave(x);
	if (from_checkpoint)
		bench_restart(&b);
	b.conf.transfer.files_client_max = b.conf.transfer.files_user_max = 2; /* less than there is */
	bench_restart(&b);
	cr_expect_eq(users_count(b.rt.store->users), 1);
	x = enter(&b, "x");
	set_user(x);
	assert_files(&b, x, 5, 5);
	assert_no_room(&b, A);
	assert_no_room(&b, C);
	assert_ok(do_fin_of(&b, &first, 1, NULL)); /* what is open goes on */
	assert_files(&b, x, 4, 4);
	take(&b, B, 0, true);
	take(&b, A, 2, true);
	assert_no_room(&b, A); /* two are left */
	assert_files(&b, x, 3, 3);
	b.conf.transfer.files_client_max = b.conf.transfer.files_user_max = 3;
	assert_room(&b, A);
	assert_files(&b, x, 3, 2);
	user_leave(x);
	b.conf.transfer.files_client_max = b.conf.transfer.files_user_max = 0;
	bench_restart(&b);
	cr_expect_eq(users_count(b.rt.store->users), 0);
	assert_files(&b, NULL, 0, 0);
	bench_fini(&b);
}

/* Their consumer had taken most of them before the restart: who has room gets it at once, though nobody
 * has looked for them yet. */
static void restart_finds_what_is_gone(bool of_user)
{
	struct bench b;
	bench_init(&b);
	struct user *x = enter(&b, "x");
	set_user(x);
	b.conf.transfer.files_client_max = b.conf.transfer.files_user_max = FILES_MAX;
	do_exports(&b, A, FILES_MAX);
	for (int n = 0; n < FILES_MAX; n++) {
		if (n != FILES_MAX / 2)
			take(&b, A, n, n % 2);
	}
	user_leave(x);
	b.conf.transfer.files_client_max = of_user ? 0 : 2;
	b.conf.transfer.files_user_max = of_user ? 2 : 0;
	bench_restart(&b);
	x = enter(&b, "x");
	set_user(x);
	assert_files(&b, x, !of_user, of_user);
	assert_ok(do_open(&b, A, FILES_MAX));
	assert_no_room(&b, A);
	user_leave(x);
	bench_fini(&b);
}

Test(admit, a_restart_finds_what_is_gone_of_a_client)
{
	restart_finds_what_is_gone(false);
}

Test(admit, a_restart_finds_what_is_gone_of_a_user)
{
	restart_finds_what_is_gone(true);
}

Test(admit, a_restart_keeps_files)
{
	restart_keeps_files(false);
}

Test(admit, a_restart_from_a_checkpoint_keeps_files)
{
	restart_keeps_files(true);
}
