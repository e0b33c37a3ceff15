/*
 * user.h: accounts come and go with those who refer to them, limits hold also when several threads
 * count at once, exports that are gone are found, and a user's connections share its rates.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "ring.h"
#include "store.h"
#include "user.h"

enum { THREADS = 4, STEPS = 1000000 };

static struct conf conf = {
	.limits = {.user_bytes_rate = 1 << 20, .user_messages_rate = 100},
	.transfer = {.open_user_max = 3, .staged_user_max = 1000},
};
static const uint64_t now_ms = 100000;

static struct mqtt_str str(const char *s)
{
	return (struct mqtt_str){s, (uint32_t)strlen(s)};
}

static struct users *users_of(const struct conf *c)
{
	struct users *us;
	cr_assert_eq(users_new(c, &us), 0);
	return us;
}

/* ---- accounts ---- */

Test(user, an_account_is_there_while_somebody_refers_to_it)
{
	struct users *us = users_of(&conf);
	struct user *a = user_enter(us, str("anna")), *b = user_enter(us, str("ann"));
	struct user *c = user_enter(us, (struct mqtt_str){"ann\0a", 5});
	cr_assert(a && b && c && a != b && b != c && a != c);
	cr_expect_eq(user_enter(us, str("anna")), a);
	cr_expect_eq(user_ref(a), a);
	cr_expect_eq(users_count(us), 3);
	cr_expect_eq(user_name(c).bytes, 5);
	cr_expect_eq(memcmp(user_name(c).s, "ann\0a", 5), 0);
	user_leave(b);
	user_leave(c);
	user_leave(a);
	user_leave(a);
	cr_expect_eq(users_count(us), 1);
	cr_expect_eq(user_enter(us, str("anna")), a);
	user_leave(a);
	user_leave(a);
	cr_expect_eq(users_count(us), 0);
	users_free(us);
	users_free(NULL);
}

/* More of them than there are slots, and each is found again. */
Test(user, many_accounts)
{
	enum { MANY = 50000 };
	struct users *us = users_of(&conf);
	struct user **all = calloc(MANY, sizeof(*all));
	char name[16];
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		all[i] = user_enter(us, str(name));
	}
	cr_expect_eq(users_count(us), MANY);
	for (int i = MANY - 1; i >= 0; i--) {
		snprintf(name, sizeof(name), "u%d", i);
		cr_assert_eq(user_enter(us, str(name)), all[i]);
		user_leave(all[i]);
		if (i % 3)
			user_leave(all[i]);
	}
	cr_expect_eq(users_count(us), (MANY + 2) / 3);
	free(all);
	users_free(us); /* those that are left, too */
}

Test(user, nothing_is_held_against_nobody)
{
	struct rate own = {0};
	cr_expect_null(user_reserve(NULL, UINT64_MAX, NULL));
	cr_expect_null(user_reserve_more(NULL, UINT64_MAX));
	user_release_more(NULL, 1);
	user_count(NULL, 1);
	user_release(NULL, 1);
	user_forget(NULL, NULL);
	user_connect(NULL, &own);
	user_take_bytes(NULL, &own, 1 << 30, now_ms);
	user_take_packet(NULL, &own, MQTT_PUBLISH, now_ms);
	cr_expect(own.bytes.until_ns == 0 && own.messages.until_ns == 0);
	cr_expect_eq(user_bytes_max(NULL, 12345), 12345);
	user_disconnect(NULL);
	cr_expect_null(user_ref(NULL));
	user_leave(NULL);
}

/* ---- open transfers ---- */

Test(user, limits_on_transfers)
{
	struct users *us = users_of(&conf);
	struct user *x = user_enter(us, str("x")), *y = user_enter(us, str("y"));
	cr_expect_null(user_reserve(x, 600, NULL));
	cr_expect_str_eq(user_reserve(x, 401, NULL), "transfer.staged_user_max");
	cr_expect_null(user_reserve(x, 300, NULL), "what was refused counts nowhere");
	cr_expect_null(user_reserve_more(x, 100));
	cr_expect_str_eq(user_reserve_more(x, 1), "transfer.staged_user_max");
	cr_expect_null(user_reserve(x, 0, NULL));
	cr_expect_str_eq(user_reserve(x, 0, NULL), "transfer.open_user_max");
	cr_expect_null(user_reserve(y, 1000, NULL), "another user's are its own");
	user_release_more(x, 100);
	user_release(x, 300);
	cr_expect_str_eq(user_reserve(x, 401, NULL), "transfer.staged_user_max");
	cr_expect_null(user_reserve(x, 400, NULL));
	user_release(x, 400);
	user_release(x, 600);
	user_release(x, 0);
	user_release(y, 1000);
	user_leave(x);
	user_leave(y);
	users_free(us);
}

/* As after a restart with lower limits: what is there stays, and there is no more until enough has
 * ended. */
Test(user, what_is_there_counts_whatever_the_limits)
{
	struct users *us = users_of(&conf);
	struct user *x = user_enter(us, str("x"));
	for (int i = 0; i < 5; i++)
		user_count(x, 300);
	cr_expect_str_eq(user_reserve(x, 0, NULL), "transfer.open_user_max");
	cr_expect_str_eq(user_reserve_more(x, 1), "transfer.staged_user_max");
	cr_expect_null(user_reserve_more(x, 0));
	user_release(x, 300);
	user_release(x, 300);
	cr_expect_str_eq(user_reserve(x, 0, NULL), "transfer.open_user_max");
	user_release(x, 300);
	cr_expect_null(user_reserve(x, 400, NULL));
	user_release(x, 400);
	user_release(x, 300);
	user_release(x, 300);
	user_leave(x);
	users_free(us);
}

Test(user, zeros_are_no_limits)
{
	static const struct conf none;
	struct users *us = users_of(&none);
	struct user *x = user_enter(us, str("x"));
	struct rate own = {0};
	cr_expect_null(user_reserve(x, 1ull << 60, NULL));
	for (int i = 0; i < 1000; i++)
		cr_assert_null(user_reserve(x, 0, NULL));
	user_connect(x, &own);
	user_take_bytes(x, &own, 1 << 30, now_ms);
	user_take_packet(x, &own, MQTT_PUBLISH, now_ms);
	cr_expect(own.bytes.until_ns == 0 && own.messages.until_ns == 0);
	cr_expect_eq(user_bytes_max(x, 1 << 20), 1 << 20);
	user_disconnect(x);
	for (int i = 0; i < 1000; i++)
		user_release(x, 0);
	user_release(x, 1ull << 60);
	user_leave(x);
	users_free(us);
}

/* ---- at once ---- */

static struct users *shared;
static pthread_barrier_t together;
static _Atomic uint32_t open_now, open_most, reserved_count, went_back;

static void open_and_end_one(struct user *x, uint64_t bytes)
{
	if (user_reserve(x, bytes, NULL))
		return;
	uint32_t now = atomic_fetch_add(&open_now, 1) + 1;
	if (now > atomic_load(&open_most))
		atomic_store(&open_most, now);
	atomic_fetch_add(&reserved_count, 1);
	bool more = !user_reserve_more(x, 100);
	atomic_fetch_sub(&open_now, 1);
	user_release(x, more ? bytes + 100 : bytes);
}

static void *open_and_end(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	pthread_barrier_wait(&together);
	for (int i = 0; i < STEPS / 32; i++) {
		struct user *x = user_enter(shared, str("x"));
		for (int k = 0; k < 32; k++)
			open_and_end_one(x, (uint64_t)rand_r(&seed) % 300);
		user_leave(x);
	}
	return NULL;
}

static void run_threads(void *(*function)(void *arg))
{
	pthread_t threads[THREADS];
	pthread_barrier_init(&together, NULL, THREADS);
	for (uintptr_t i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, function, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

Test(user, limits_hold_over_threads)
{
	static const struct conf tight = {.transfer = {.open_user_max = 1, .staged_user_max = 300}};
	shared = users_of(&tight);
	run_threads(open_and_end);
	cr_expect_leq(open_most, 1);
	cr_expect_gt(reserved_count, 0);
	cr_expect_eq(users_count(shared), 0);
	users_free(shared);
}

/* ---- exports ---- */

enum { EXPORTS = 100 };

static const struct conf of_files = {.transfer = {.files_user_max = EXPORTS}};

/* An export directory in which the names with an even number are. */
struct dir {
	char path[32], names[EXPORTS][16];
	struct store store;
};

static void dir_make(struct dir *d)
{
	*d = (struct dir){.path = "/tmp/sluice-user-XXXXXX"};
	cr_assert_not_null(mkdtemp(d->path));
	d->store.export_fd = open(d->path, O_RDONLY | O_DIRECTORY);
	for (int i = 0; i < EXPORTS; i++) {
		snprintf(d->names[i], sizeof(d->names[i]), "n%d", i);
		if (i % 2 == 0)
			close(openat(d->store.export_fd, d->names[i], O_WRONLY | O_CREAT, 0600));
	}
}

static void dir_remove(struct dir *d)
{
	for (int i = 0; i < EXPORTS; i += 2)
		(void)unlinkat(d->store.export_fd, d->names[i], 0);
	close(d->store.export_fd);
	cr_assert_eq(rmdir(d->path), 0);
}

/* What happens elsewhere while a file is looked for. */
static void (*meanwhile)(const char *path);

int __real_sys_stat_at(int dir_fd, const char *path, struct sys_stat *ret);
int __wrap_sys_stat_at(int dir_fd, const char *path, struct sys_stat *ret);
int __wrap_sys_stat_at(int dir_fd, const char *path, struct sys_stat *ret)
{
	if (meanwhile)
		meanwhile(path);
	return __real_sys_stat_at(dir_fd, path, ret);
}

/* Looks take no time but what the tests say. */
static _Atomic uint64_t clock_ns;

uint64_t __wrap_sys_mono_ns(void);
uint64_t __wrap_sys_mono_ns(void)
{
	return clock_ns;
}

static const char *reserve_at(struct user *x, const struct dir *d, uint64_t at_ms)
{
	struct looks l = {.store = &d->store, .now_ms = at_ms};
	return user_reserve(x, 7, &l);
}

static const char *reserve(struct user *x, const struct dir *d)
{
	return reserve_at(x, d, now_ms);
}

Test(user, limits_on_files)
{
	static struct user_file files[EXPORTS];
	struct users *us = users_of(&of_files);
	struct user *x = user_enter(us, str("x"));
	struct dir d;
	dir_make(&d);
	for (int i = 0; i < EXPORTS; i++) {
		cr_assert_null(reserve(x, &d));
		cr_assert_eq(user_files_count(x), i + 1, "the limit was not reached");
		user_export(x, 7, &files[i], d.names[i]);
	}
	cr_expect_str_eq(user_reserve(x, 0, NULL), "transfer.files_user_max");
	for (int i = 0; i < EXPORTS / 2; i++) {
		cr_expect_null(reserve(x, &d), "%d: every second one is gone", i);
		cr_expect_eq(user_files_count(x), EXPORTS);
	}
	cr_expect_str_eq(reserve(x, &d), "transfer.files_user_max");
	for (int i = 0; i < EXPORTS; i++)
		user_forget(x, &files[i]);
	cr_expect_eq(user_files_count(x), EXPORTS / 2);
	for (int i = 0; i < EXPORTS / 2; i++)
		user_release(x, 7);
	user_keep(x, &files[0], d.names[0]);
	cr_expect_eq(user_files_count(x), 1);
	user_forget(x, &files[0]);
	user_leave(x);
	cr_expect_eq(users_count(us), 0);
	users_free(us);
	dir_remove(&d);
}

/* What its consumer has taken is looked for once each, however many: no pace holds that up. */
Test(user, a_consumer_that_keeps_up_is_enough)
{
	enum { MANY = 5000 };
	static struct user_file files[MANY];
	struct users *us = users_of(&of_files);
	struct user *x = user_enter(us, str("x"));
	struct dir d;
	dir_make(&d);
	for (int i = 0; i < MANY; i++) {
		cr_assert_null(reserve(x, &d), "%d", i);
		user_export(x, 7, &files[i], d.names[1]);
	}
	for (int i = 0; i < MANY; i++)
		user_forget(x, &files[i]);
	for (int i = 0; i < MANY; i++)
		user_keep(x, &files[i], d.names[1]);
	cr_expect_null(reserve(x, &d), "nor their number in one go");
	cr_expect_eq(user_files_count(x), EXPORTS);
	user_release(x, 7);
	for (int i = 0; i < MANY; i++)
		user_forget(x, &files[i]);
	user_leave(x);
	users_free(us);
	dir_remove(&d);
}

static struct user *looker;
static struct user_file looked[EXPORTS];
static struct dir looked_dir;
static uint32_t looks;

static void looked_init(struct users *us, int exports)
{
	looker = user_enter(us, str("x"));
	dir_make(&looked_dir);
	for (int i = 0; i < exports; i++)
		user_keep(looker, &looked[i], looked_dir.names[i]);
}

static void looked_fini(struct users *us, int exports)
{
	meanwhile = NULL;
	for (int i = 0; i < exports; i++)
		user_forget(looker, &looked[i]);
	cr_expect_eq(user_files_count(looker), 0);
	user_leave(looker);
	users_free(us);
	dir_remove(&looked_dir);
}

static void count_looks(const char *path)
{
	(void)path;
	looks++;
	clock_ns += 300000;
}

Test(user, looks_take_so_long)
{
	struct users *us = users_of(&of_files);
	looked_init(us, EXPORTS);
	meanwhile = count_looks;
	cr_expect_null(reserve(looker, &looked_dir));
	cr_expect_eq(looks, 2, "%u until there was room", looks);
	for (int i = 1; i < EXPORTS; i += 2)
		close(openat(looked_dir.store.export_fd, looked_dir.names[i], O_WRONLY | O_CREAT, 0600));
	looks = 0;
	cr_expect_str_eq(reserve(looker, &looked_dir), "transfer.files_user_max");
	cr_expect_eq(looks, 7, "%u in two milliseconds", looks);
	for (int i = 1; i < EXPORTS; i += 2)
		(void)unlinkat(looked_dir.store.export_fd, looked_dir.names[i], 0);
	user_release(looker, 7);
	looked_fini(us, EXPORTS);
}

static bool is_forgotten[EXPORTS];

/* Its own reactor forgets it, and what it lay in becomes something else. */
static void forget_it(const char *path)
{
	struct user_file *f = &looked[atoi(path + 1)];
	looks++;
	is_forgotten[f - looked] = true;
	user_forget(looker, f);
	memset(f, 0x5a, sizeof(*f));
}

Test(user, forgotten_while_it_is_looked_for)
{
	static const struct conf tight = {.transfer = {.files_user_max = EXPORTS / 10}};
	struct users *us = users_of(&tight);
	looked_init(us, EXPORTS);
	meanwhile = forget_it;
	cr_expect_null(reserve(looker, &looked_dir));
	cr_expect_eq(looks, EXPORTS * 9 / 10 + 1, "those that are there, and those that are not: %u", looks);
	cr_expect_eq(user_files_count(looker), EXPORTS / 10);
	user_release(looker, 7);
	for (uint32_t i = 0; i < EXPORTS; i++) {
		if (is_forgotten[i])
			looked[i] = (struct user_file){0};
	}
	looked_fini(us, EXPORTS);
}

static const char *reserved_meanwhile;

/* Another reactor does the same, for another one. */
static void look_too(const char *path)
{
	(void)path;
	meanwhile = NULL;
	reserved_meanwhile = reserve(looker, &looked_dir);
}

Test(user, several_look_at_once)
{
	static const struct conf tight = {.transfer = {.files_user_max = 4}};
	struct users *us = users_of(&tight);
	looked_init(us, 4);
	reserved_meanwhile = "";
	meanwhile = look_too;
	cr_expect_null(reserve(looker, &looked_dir));
	cr_expect_null(reserved_meanwhile, "%s", reserved_meanwhile);
	cr_expect_eq(user_files_count(looker), 4);
	cr_expect_str_eq(reserve(looker, &looked_dir), "transfer.files_user_max");
	user_release(looker, 7);
	user_release(looker, 7);
	looked_fini(us, 4);
}

/* Each has exports that it forgets again, while any of them may be looking for any of these. */
static struct dir shared_dir;

static void *export_and_forget(void *arg)
{
	struct user_file files[EXPORTS / 2];
	unsigned seed = (unsigned)(uintptr_t)arg;
	bool is_there[EXPORTS / 2] = {false};
	struct user *x = user_enter(shared, str("x"));
	pthread_barrier_wait(&together);
	for (uint64_t i = 0; i < STEPS / 20; i++) {
		uint32_t n = (uint32_t)rand_r(&seed) % (EXPORTS / 2);
		if (is_there[n]) {
			user_forget(x, &files[n]);
			memset(&files[n], 0x5a, sizeof(files[n]));
			is_there[n] = false;
			continue;
		}
		if (reserve_at(x, &shared_dir, now_ms + i * 100))
			continue;
		if (atomic_fetch_add(&reserved_count, 1) % 3 == 0) {
			user_release(x, 7);
			continue;
		}
		files[n] = (struct user_file){0};
		user_export(x, 7, &files[n], shared_dir.names[rand_r(&seed) % EXPORTS]);
		is_there[n] = true;
	}
	for (uint32_t n = 0; n < EXPORTS / 2; n++) {
		if (is_there[n])
			user_forget(x, &files[n]);
	}
	user_leave(x);
	return NULL;
}

Test(user, threads_look_for_what_others_forget)
{
	static const struct conf tight = {.transfer = {.files_user_max = 8}};
	dir_make(&shared_dir);
	shared = users_of(&tight);
	run_threads(export_and_forget);
	cr_expect_gt(reserved_count, 1000);
	cr_expect_eq(users_count(shared), 0, "and none of its files was left: that is asserted");
	users_free(shared);
	dir_remove(&shared_dir);
}

/* The files are gone as soon as they are exported: nobody is refused because others look, too, or have
 * just taken the room that was found. */
static void *export_what_is_taken(void *arg)
{
	enum { OWN = 1000 };
	struct user_file *files = calloc(OWN, sizeof(*files));
	struct user *x = user_enter(shared, str("x"));
	(void)arg;
	pthread_barrier_wait(&together);
	for (uint64_t i = 0; i < STEPS / 20; i++) {
		struct user_file *f = &files[i % OWN];
		if (i >= OWN)
			user_forget(x, f);
		*f = (struct user_file){0};
		if (reserve(x, &shared_dir))
			atomic_fetch_add(&went_back, 1);
		else
			user_export(x, 7, f, shared_dir.names[1]);
	}
	pthread_barrier_wait(&together); /* so that the list is never empty while others look */
	for (int i = 0; i < OWN; i++)
		user_forget(x, &files[i]);
	user_leave(x);
	free(files);
	return NULL;
}

Test(user, threads_look_at_once)
{
	static const struct conf tight = {.transfer = {.files_user_max = 64}};
	dir_make(&shared_dir);
	shared = users_of(&tight);
	run_threads(export_what_is_taken);
	cr_expect_eq(went_back, 0, "%u were refused", went_back);
	cr_expect_eq(users_count(shared), 0);
	users_free(shared);
	dir_remove(&shared_dir);
}

/* ---- rates of several threads ---- */

static void *take_messages(void *arg)
{
	struct user *x = user_enter(shared, str("x"));
	(void)arg;
	struct rate own = {0};
	pthread_barrier_wait(&together);
	for (int i = 0; i < STEPS; i++) {
		uint64_t before = own.messages.until_ns;
		user_take_packet(x, &own, MQTT_PUBLISH, now_ms);
		if (own.messages.until_ns <= before)
			atomic_fetch_add(&went_back, 1);
	}
	user_leave(x);
	return NULL;
}

Test(user, nothing_that_threads_take_is_lost)
{
	shared = users_of(&conf);
	struct user *x = user_enter(shared, str("x"));
	struct rate owed;
	run_threads(take_messages);
	cr_expect_eq(went_back, 0);
	user_connect(x, &owed);
	cr_expect_eq(owed.messages.until_ns,
		(now_ms - 1000) * 1000000 + (uint64_t)THREADS * STEPS * 1000000000 / conf.limits.user_messages_rate);
	user_disconnect(x);
	user_leave(x);
	users_free(shared);
}

/* ---- rates ---- */

Test(user, what_asks_for_something_counts)
{
	struct users *us = users_of(&conf);
	struct user *x = user_enter(us, str("x"));
	for (uint8_t type = MQTT_CONNECT; type <= MQTT_AUTH; type++) {
		struct rate own = {0};
		user_take_packet(x, &own, type, now_ms);
		cr_expect_eq(own.messages.until_ns != 0, rate_counts_packet(type), "type %u", type);
		cr_expect_eq(own.bytes.until_ns, 0);
	}
	user_leave(x);
	users_free(us);
}

/* Connections that take what they may, whenever they may, always looked at in the same order:
 * together they get the rate, and each of them as much as any other. */
Test(user, connections_share_the_rate)
{
	enum { CONNECTIONS = 10, SECONDS = 30 };
	struct users *us = users_of(&conf);
	struct user *x = user_enter(us, str("x"));
	struct rate own[CONNECTIONS];
	uint64_t taken[CONNECTIONS] = {0}, total = 0, least = UINT64_MAX, most = 0;
	for (int i = 0; i < CONNECTIONS; i++)
		user_connect(x, &own[i]);
	for (uint64_t ms = now_ms; ms < now_ms + SECONDS * 1000; ms++) {
		for (int i = 0; i < CONNECTIONS; i++) {
			while (!rate_is_over(&own[i].bytes, ms)) {
				uint32_t n = user_bytes_max(x, 8 << 20);
				user_take_bytes(x, &own[i], n, ms);
				taken[i] += n;
			}
		}
	}
	for (int i = 0; i < CONNECTIONS; i++) {
		total += taken[i];
		least = taken[i] < least ? taken[i] : least;
		most = taken[i] > most ? taken[i] : most;
		user_disconnect(x);
	}
	uint64_t per_s = conf.limits.user_bytes_rate;
	cr_expect_leq(total, per_s * (SECONDS + 2) + 8192, "%lu: the burst, and what is paid for afterwards", total);
	cr_expect_geq(total, per_s * SECONDS, "%lu", total);
	/* The first one takes the burst. */
	cr_expect_geq(least, per_s * SECONDS / CONNECTIONS * 9 / 10, "%lu", least);
	cr_expect_leq(most, least + 3 * per_s, "%lu, %lu", least, most);
	user_leave(x);
	users_free(us);
}

Test(user, one_go_is_a_share_of_a_second)
{
	struct users *us = users_of(&conf);
	struct user *x = user_enter(us, str("x"));
	struct rate own;
	user_connect(x, &own);
	cr_expect_eq(user_bytes_max(x, 8 << 20), 1 << 20);
	cr_expect_eq(user_bytes_max(x, 1000), 1000);
	for (int i = 1; i < 16; i++)
		user_connect(x, &own);
	cr_expect_eq(user_bytes_max(x, 8 << 20), 1 << 16);
	for (int i = 16; i < 1000; i++)
		user_connect(x, &own);
	cr_expect_eq(user_bytes_max(x, 8 << 20), 4096, "less is not worth a turn");
	for (int i = 0; i < 1000; i++)
		user_disconnect(x);
	user_leave(x);
	users_free(us);
}

/* Neither another connection nor the end of the last one buys anything. */
Test(user, who_begins_waits_for_what_is_owed)
{
	struct users *us = users_of(&conf);
	struct user *x = user_enter(us, str("x"));
	struct rate first, second, other = {{1}, {1}};
	user_connect(x, &first);
	user_take_bytes(x, &first, 5 << 20, now_ms);
	for (int i = 0; i < 300; i++)
		user_take_packet(x, &first, MQTT_PUBLISH, now_ms);
	for (int again = 0; again < 2; again++) {
		user_connect(x, &second);
		cr_expect_eq(second.bytes.until_ns, (now_ms + 4000) * 1000000);
		cr_expect_eq(second.messages.until_ns, (now_ms + 2000) * 1000000);
		user_disconnect(x);
		if (again)
			break;
		user_disconnect(x);
		user_leave(x);
		cr_expect_eq(users_count(us), 0);
		x = user_enter(us, str("x"));
	}
	struct user *y = user_enter(us, str("y"));
	user_connect(y, &other);
	cr_expect(other.bytes.until_ns == 0 && other.messages.until_ns == 0);
	user_disconnect(y);
	user_leave(y);
	user_leave(x);
	users_free(us);
}
