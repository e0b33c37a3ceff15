/*
 * Recovery from journals as they may be found: written here record by record, or left by a daemon
 * and then changed.
 */
#include "recover_craft.h"

#include <sys/resource.h>
#include <xxhash.h>

/* --- sets of journals ------------------------------------------------------------------------- */

/* A start that is killed before its set is whole has not been; one that is killed before the old
 * ones are wiped, has. */
Test(recover, the_newest_whole_set_counts)
{
	struct bench b;
	uint8_t *data = noise(3000, 1);
	craft(&b);
	make_file(&b, "staging/e1-x", data, 3000);
	put_open(1, 1, "e1-x");
	put_extent(1, 0, 1000);
	make_set(&b, "set-000000000008", true);
	put_extent(1, 2000, 3000);
	make_set(&b, "set-000000000009", true);
	writer.bytes = RECORD_HEADER_BYTES;
	writer.seq = 0;
	make_set(&b, "new", true);
	bench_up(&b);
	cr_assert_eq(do_status(&b).o.received, 2000);
	cr_assert_eq(count_names(&b, "journal", "*"), 1, "all others are gone");
	cr_assert(is_there(&b, "journal/set-000000000010"));
	bench_restart(&b);
	cr_assert_eq(do_status(&b).o.received, 2000);
	free(data);
	bench_fini(&b);
}

static void recover_as_two(struct bench *b)
{
	static struct reactor two[2];
	struct reactor *rts[2] = {&two[0], &two[1]};
	char error[512] = "";
	struct store *store;
	cr_assert_eq(store_open(&b->conf, &store, error, sizeof(error)), 0, "%s", error);
	for (uint32_t i = 0; i < 2; i++) {
		two[i] = (struct reactor){.idx = i, .count = 2, .conf = &b->conf, .store = store, .peers = rts};
		timers_init(&two[i].timers, sys_mono_ms());
	}
	cr_assert_eq(recover_run(rts, 2, error, sizeof(error)), 0, "%s", error);
	cr_assert_eq(transfer_find(two[0].uploads, &ID)->cover.bytes, 3);
	cr_assert_eq(two[1].uploads->count, 0);
	for (uint32_t i = 0; i < 2; i++) {
		uploads_free(two[i].uploads);
		journal_free(two[i].journal);
	}
	store_close(store);
}

Test(recover, another_number_of_reactors)
{
	struct bench b;
	bench_init(&b);
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	assert_ok(do_small(&b, 0, "abc", 3));
	bench_down(&b);
	recover_as_two(&b);
	cr_assert_eq(count_names(&b, "journal/set-000000000002", "r0?-*.log"), 2);
	recover_as_two(&b);
	bench_up(&b);
	cr_assert_eq(count_names(&b, "journal", "*"), 1);
	cr_assert_eq(count_names(&b, "journal/set-000000000004", "r0?-*.log"), 1);
	cr_assert_eq(do_status(&b).o.received, 3);
	assert_ok(do_fin(&b, 3, NULL));
	assert_file(&b, "cam/f1/a", (const uint8_t *)"abc", 3);
	bench_fini(&b);
}

/* --- what is believed ------------------------------------------------------------------------- */

/* The page cache is another one: nothing that was not synced is there, however often the start is
 * killed after it has seen that. */
Test(recover, after_a_reboot_unsynced_content_is_missing)
{
	struct bench b;
	uint8_t *data = noise(1000, 1);
	craft(&b);
	make_file(&b, "staging/e1-x", data, 1000);
	put_open(1, 1, "e1-x");
	put_extent(1, 0, 1000);
	make_set(&b, "set-000000000001", false);
	make_set(&b, "new", true);
	bench_up(&b);
	struct caught c = do_status(&b);
	cr_assert_str_eq(c.o.state, "open");
	cr_assert_eq(c.o.received, 0);
	assert_ok(do_small(&b, 0, "abc", 3));
	bench_restart(&b);
	cr_assert_eq(do_status(&b).o.received, 3, "the cache is alive from then on");
	free(data);
	bench_fini(&b);
}

/* A fin for a smaller size cut the file off and was killed: what lies below stays acknowledged. */
Test(recover, a_file_that_is_too_short_keeps_its_beginning)
{
	struct bench b;
	uint8_t *data = noise(1000, 1);
	craft(&b);
	make_file(&b, "staging/e1-x", data, 500);
	put_open(1, 1, "e1-x");
	put_meta(1, "{\"name\":\"a\"}");
	put_extent(1, 0, 300);
	put_extent(1, 400, 1000);
	make_set(&b, "set-000000000001", true);
	bench_up(&b);
	struct caught c = do_status(&b);
	cr_assert_eq(c.o.received, 400);
	assert_ok(do_small(&b, 300, data + 300, 100));
	assert_ok(do_fin(&b, 500, NULL));
	assert_file(&b, "cam/f1/a", data, 500);
	free(data);
	bench_fini(&b);
}

/* A publish had begun, but the file is not the one that was verified: no zeros are exported in its
 * place. */
Test(recover, a_publish_whose_file_was_cut_off_is_not_resumed)
{
	struct bench b;
	uint8_t *data = noise(1000, 1), digest[32];
	digest_of(data, 1000, digest);
	craft(&b);
	make_file(&b, "staging/e1-x", data, 999);
	put_open(1, 1, "e1-x");
	put_meta(1, "{\"name\":\"a\"}");
	put_extent(1, 0, 1000);
	put((struct record){.type = RECORD_FIN, .tid = 1, .size = 1000});
	put_publishing(1, 1000, digest, "cam/f1/a");
	make_set(&b, "set-000000000001", true);
	bench_up(&b);
	settle(&b);
	struct caught c = do_status(&b);
	cr_assert_str_eq(c.o.state, "open");
	cr_assert_eq(c.o.received, 0);
	cr_assert_eq(count_names(&b, "export", "*"), 0);
	free(data);
	bench_fini(&b);
}

/* --- generations ------------------------------------------------------------------------------ */

/* An export, of which all was acknowledged again up to `replayed`, and the beginning of its next
 * generation. */
static void craft_generations(struct bench *b, const uint8_t *data, uint64_t replayed, const char *next_meta)
{
	uint8_t digest[32];
	digest_of(data, 3000, digest);
	craft(b);
	make_dir(b, "export/cam/f1");
	make_file(b, "export/cam/f1/a", data, 3000);
	put_open(1, 1, "e1-x");
	put_meta(1, "{\"name\":\"a\"}");
	put_publishing(1, 3000, digest, "cam/f1/a");
	put((struct record){.type = RECORD_PUBLISHED, .tid = 1, .at_ms = sys_wall_ms()});
	put_extent(1, 0, replayed);
	put_open(2, 2, "e1-y");
	put_meta(2, next_meta);
	make_set(b, "set-000000000001", true);
	bench_up(b);
}

/* Killed before the next generation had taken over what was acknowledged as a replay. */
Test(recover, acknowledged_replays_are_seeded)
{
	for (int fin_first = 0; fin_first < 2; fin_first++) {
		struct bench b;
		uint8_t *data = noise(3000, 1);
		craft_generations(&b, data, 2000, "{\"name\":\"a\"}");
		memcpy(data + 2500, "changed", 7);
		if (fin_first) /* a fin before anything else opens the file */
			assert_fails(do_fin(&b, 2001, NULL), 0x80, "incomplete");
		assert_ok(do_small(&b, 2000, data + 2000, 1000));
		assert_ok(do_fin(&b, 3000, NULL));
		assert_file(&b, "cam/f1~2/a", data, 3000);
		free(data);
		bench_fini(&b);
	}
}

/* A shortage that passes: what was acknowledged is taken over when there are descriptors again, also when it is a fin
 * that comes first. */
static void seed_after_a_shortage(bool fin_first)
{
	struct bench b;
	struct rlimit limit, none;
	uint8_t *data = noise(3000, 1);
	craft_generations(&b, data, 2000, "{\"name\":\"a\"}");
	for (int i = 0; i < 1000 && !is_there(&b, "staging/e1-y"); i++)
		usleep(1000);
	cr_assert(is_there(&b, "staging/e1-y"), "opened by the lane's thread; no turn was run since");
	int lowest = dup(0);
	close(lowest);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = (rlim_t)lowest;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	settle(&b);
	if (fin_first) {
		struct caught c = do_fin(&b, 2000, NULL);
		cr_assert(c.o.reason && c.o.is_transient, "%02x %s", c.o.reason, c.o.text);
	}
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	const struct transfer *t = transfer_find(b.rt.uploads, &ID);
	cr_assert_eq(t->cover.bytes, 0);
	cr_assert_eq(t->previous->cover.bytes, 2000);
	if (fin_first)
		assert_fails(do_fin(&b, 2001, NULL), 0x80, "incomplete");
	else
		assert_ok(do_small(&b, 2000, data + 2000, 1000));
	cr_assert_eq(t->cover.bytes, fin_first ? 2000 : 3000);
	if (fin_first)
		assert_ok(do_small(&b, 2000, data + 2000, 1000));
	assert_ok(do_fin(&b, 3000, NULL));
	free(data);
	bench_fini(&b);
}

Test(recover, acknowledged_replays_are_seeded_after_a_shortage)
{
	seed_after_a_shortage(false);
	seed_after_a_shortage(true);
}

/* The window runs from the last replay, not from the export. */
Test(recover, acknowledged_replays_outlive_the_window_of_the_export)
{
	for (int replayed = 0; replayed < 2; replayed++) {
		struct bench b;
		uint8_t *data = noise(3000, 1), digest[32];
		digest_of(data, 3000, digest);
		craft(&b);
		make_dir(&b, "export/cam/f1");
		make_file(&b, "export/cam/f1/a", data, 3000);
		put_open(1, 1, "e1-x");
		put_meta(1, "{\"name\":\"a\"}");
		put_publishing(1, 3000, digest, "cam/f1/a");
		put((struct record){.type = RECORD_PUBLISHED, .tid = 1,
			.at_ms = sys_wall_ms() - (int64_t)b.conf.transfer.replay_window_s * 1000 - 60000});
		if (replayed)
			put_extent(1, 0, 2000);
		make_set(&b, "set-000000000001", true);
		for (int i = 0; i < 2; i++) {
			bench_up(&b);
			turn(&b);
			struct transfer *t = transfer_find(b.rt.uploads, &ID);
			cr_assert_eq(t != NULL, replayed);
			cr_assert(!t || t->cover.bytes == 2000);
			bench_down(&b);
		}
		free(data);
		bench_remove(&b);
	}
}

Test(recover, metadata_of_its_own_is_not_replaced)
{
	struct bench b;
	uint8_t *data = noise(3000, 1);
	craft_generations(&b, data, 10, "{\"name\":\"a\"}");
	assert_ok(do_init(&b, "{\"name\":\"b\"}")); /* it was taken over */
	bench_restart(&b);
	assert_fails(do_init(&b, "{\"name\":\"c\"}"), 0x80, "filemeta_conflict");
	assert_ok(do_init(&b, "{\"name\":\"b\"}"));
	free(data);
	bench_fini(&b);
}

/* --- staging files without a transfer --------------------------------------------------------- */

static void put_named(enum record_type type, uint64_t tid, const char *text)
{
	put((struct record){.type = type, .tid = tid, .text = text, .text_bytes = (uint32_t)strlen(text)});
}

/* Files of what is over are deleted; one that nobody knows is set aside, under another name if there
 * is one of its own already. */
Test(recover, staging_files_that_no_transfer_has)
{
	struct bench b;
	craft(&b);
	make_file(&b, "staging/e1-x", "abc", 3);
	make_file(&b, "staging/e1-over", "abc", 3);
	make_file(&b, "staging/e1-former", "abc", 3);
	put_open(1, 1, "e1-over");
	put((struct record){.type = RECORD_ABORTED, .tid = 1});
	put_open(2, 1, "e1-former");
	put((struct record){.type = RECORD_LOST, .tid = 2});
	put_named(RECORD_STAGING, 2, "e1-x");
	put_meta(2, "{\"name\":\"a\"}");
	put_extent(2, 0, 3);
	make_set(&b, "set-000000000001", true);
	bench_up(&b);
	cr_assert_eq(staging_count(&b), 1);
	cr_assert(is_there(&b, "staging/e1-x"));
	cr_assert_not(is_there(&b, "orphans"));
	bench_down(&b);
	for (int i = 0; i < 3; i++) {
		make_file(&b, "staging/e1-unknown", "abc", i);
		bench_up(&b);
		cr_assert_eq(staging_count(&b), 1);
		cr_assert_eq(count_names(&b, "orphans", "*"), i + 1);
		bench_down(&b);
	}
	cr_assert(is_there(&b, "orphans/e1-unknown"));
	cr_assert(is_there(&b, "orphans/e1-unknown~2"));
	cr_assert(is_there(&b, "orphans/e1-unknown~3"));
	bench_up(&b);
	assert_ok(do_fin(&b, 3, NULL));
	bench_fini(&b);
}

/* The reverse: what a journal says of content whose file is gone is missing, and kept on record. */
Test(recover, a_transfer_whose_staging_file_is_gone)
{
	struct bench b;
	char text[1024] = "", path[512];
	craft(&b);
	put_open(1, 1, "e1-gone");
	put_meta(1, "{\"name\":\"a\"}");
	put_extent(1, 0, 2000);
	make_set(&b, "set-000000000001", true);
	for (int i = 0; i < 2; i++) {
		bench_up(&b);
		cr_assert_str_eq(do_status(&b).o.state, "open");
		cr_assert_eq(do_status(&b).o.received, 0);
		bench_down(&b);
	}
	in_data(&b, "orphans/records", path);
	FILE *f = fopen(path, "r");
	cr_assert_not_null(f);
	cr_assert_not_null(fgets(text, sizeof(text), f));
	cr_assert_null(fgets(path, sizeof(path), f), "it is said once");
	fclose(f);
	cr_assert(strstr(text, "{\"clientid\":\"cam\",\"fileid\":\"f1\",\"generation\":1,\"name\":\"a\","
		"\"bytes\":2000,\"staging\":\"e1-gone\",") == text, "%s", text);
	bench_remove(&b);
}

/* Killed between a sync that failed and the file that was to take its place. */
Test(recover, a_file_that_failed_to_sync_is_replaced)
{
	for (int copied = 0; copied < 2; copied++) {
		struct bench b;
		uint8_t *data = noise(100000, 1);
		struct sys_stat before, after;
		craft(&b);
		make_file(&b, "staging/e1-x", data, 100000);
		put_open(1, 1, "e1-x");
		put_meta(1, "{\"name\":\"a\"}");
		put_extent(1, 0, 100000);
		if (copied)
			put((struct record){.type = RECORD_SYNCED, .tid = 1, .from = 10, .to = 50000});
		put((struct record){.type = RECORD_LOST, .tid = 1});
		make_set(&b, "set-000000000001", true);
		bench_up(&b);
		cr_assert_eq(sys_stat_at(b.rt.store->staging_fd, "e1-x", &before), 0);
		int held = sys_openat(b.rt.store->staging_fd, "e1-x", O_RDONLY, 0);
		cr_assert_eq(do_status(&b).o.received, copied ? 49990 : 0);
		bench_restart(&b); /* nothing wanted the file: it is to be replaced still */
		if (!copied)
			assert_ok(do_large(&b, 10, data + 10, 49990, 0, NULL));
		assert_ok(do_small(&b, 0, data, 10));
		cr_assert_eq(sys_stat_at(b.rt.store->staging_fd, "e1-x.1", &after), 0);
		cr_assert_neq(before.ino, after.ino);
		cr_assert_eq(staging_count(&b), 1, "the old one is gone");
		bench_restart(&b);
		cr_assert_eq(do_status(&b).o.received, 50000);
		assert_ok(do_large(&b, 50000, data + 50000, 50000, 0, NULL));
		assert_ok(do_fin(&b, 100000, NULL));
		assert_file(&b, "cam/f1/a", data, 100000);
		close(held);
		free(data);
		bench_fini(&b);
	}
}

/* Marked as synced, content is there under any page cache. */
Test(recover, after_a_reboot_synced_content_is_there)
{
	struct bench b;
	uint8_t *data = noise(100000, 1);
	craft(&b);
	make_file(&b, "staging/e1-x", data, 90000);
	put_open(1, 1, "e1-x");
	put_meta(1, "{\"name\":\"a\"}");
	put_extent(1, 0, 60000);
	put((struct record){.type = RECORD_SYNCED, .tid = 1, .from = 1000, .to = 50000});
	put((struct record){.type = RECORD_SYNCED, .tid = 1, .from = 70000, .to = 80000});
	put((struct record){.type = RECORD_SYNCED, .tid = 1, .from = 85000, .to = 95000});
	put((struct record){.type = RECORD_UNCOVER, .tid = 1, .from = 2000, .to = 3000});
	put_extent(1, 2000, 3000); /* written over, and not synced again */
	make_set(&b, "set-000000000001", false);
	for (int i = 0; i < 2; i++) {
		bench_up(&b);
		struct caught c = do_status(&b);
		cr_assert_eq(c.o.received, 49000 - 1000 + 10000 + 5000);
		struct transfer *t = transfer_find(b.rt.uploads, &ID);
		cr_assert(cover_has(&t->cover, 1000, 2000));
		cr_assert(cover_has(&t->cover, 3000, 50000));
		cr_assert(cover_has(&t->cover, 70000, 80000));
		cr_assert(cover_has(&t->cover, 85000, 90000), "no further than the file goes");
		cr_assert_eq(t->synced.bytes, t->cover.bytes);
		bench_down(&b);
	}
	free(data);
	bench_remove(&b);
}

/* --- where a journal ends --------------------------------------------------------------------- */

/* Of records behind each other, one is bad, and what follows is good. */
static void craft_bad_record(struct bench *b, bool cache_alive, uint64_t mark)
{
	uint8_t *data = noise(3000, 1);
	craft(b);
	make_file(b, "staging/e1-x", data, 3000);
	put_open(1, 1, "e1-x");
	put((struct record){.type = RECORD_CHECKPOINT_END});
	put_synced(1, 0, 1000);
	size_t bad = writer.bytes;
	put_synced(1, 1000, 1500);
	if (mark == 1) /* behind the bad one */
		put((struct record){.type = RECORD_SYNC_MARK, .size = writer.bytes});
	if (mark == 2) /* before it */
		put((struct record){.type = RECORD_SYNC_MARK, .size = bad});
	put_synced(1, 2000, 3000);
	journal[bad + 20] ^= 1;
	make_set(b, "set-000000000001", cache_alive);
	free(data);
}

/* With the page cache alive, a record that can't be read among others that can is damage. After a
 * power cut it is what may be expected, unless all was on the disk by then. */
Test(recover, a_bad_record_in_the_middle)
{
	for (uint64_t mark = 0; mark < 3; mark++) {
		for (int cache_alive = 0; cache_alive < 2; cache_alive++) {
			struct bench b;
			craft_bad_record(&b, cache_alive, mark);
			bool is_damage = cache_alive || mark == 1;
			bench_up(&b);
			cr_assert_eq(do_status(&b).o.received, 1000, "what is before it counts");
			cr_assert_eq(count_names(&b, "journal", "damaged-*"), is_damage,
				"mark %d, cache %d", (int)mark, cache_alive);
			bench_fini(&b);
		}
	}
}

/* A record that was torn when the daemon or the machine died is the end, and so is what the file
 * held before. */
Test(recover, torn_tails_and_old_content)
{
	for (int cache_alive = 0; cache_alive < 2; cache_alive++) {
		struct bench b;
		uint8_t *data = noise(3000, 1);
		craft(&b);
		make_file(&b, "staging/e1-x", data, 3000);
		/* Longer than what will be written over it, and all good. */
		writer.salt = SALT + 1;
		for (int i = 0; i < 100; i++)
			put_synced(9, (uint64_t)i * 10, (uint64_t)i * 10 + 5);
		size_t end = writer.bytes;
		writer.salt = SALT;
		writer.bytes = RECORD_HEADER_BYTES;
		writer.seq = 0;
		put_open(1, 1, "e1-x");
		put((struct record){.type = RECORD_CHECKPOINT_END});
		put_synced(1, 0, 1000);
		size_t torn = writer.bytes;
		put_synced(1, 1000, 3000);
		memset(journal + torn + 24, 0xee, writer.bytes - torn - 24);
		writer.bytes = end;
		make_set_as_is(&b, "set-000000000001", cache_alive);
		bench_up(&b);
		cr_assert_eq(do_status(&b).o.received, 1000);
		cr_assert_eq(b.rt.uploads->count, 1);
		cr_assert_eq(count_names(&b, "journal", "damaged-*"), 0);
		free(data);
		bench_fini(&b);
	}
}

/* What a journal that can't be read may have named is kept, and so is the journal; also over the
 * restarts that follow. */
Test(recover, with_a_damaged_journal_nothing_is_deleted)
{
	struct bench b;
	craft(&b);
	make_file(&b, "staging/e1-x", "abc", 3);
	make_file(&b, "staging/e1-over", "abc", 3);
	make_file(&b, "staging/e1-unknown", "abc", 3);
	put_open(1, 1, "e1-over");
	put((struct record){.type = RECORD_ABORTED, .tid = 1});
	put_open(2, 1, "e1-x");
	put_extent(2, 0, 3);
	make_set(&b, "set-000000000001", true);
	make_file(&b, "journal/set-000000000001/r01-000000000007.log", "scribble", 8);
	for (int i = 0; i < 3; i++) {
		bench_up(&b);
		cr_assert_eq(do_status(&b).o.received, 3);
		cr_assert_eq(count_names(&b, "staging", "*"), 1);
		cr_assert_eq(count_names(&b, "orphans", "*"), 1);
		cr_assert(is_there(&b, "orphans/e1-unknown"));
		cr_assert(is_there(&b, "journal/damaged-000000000001-r01-000000000007.log"));
		cr_assert_eq(count_names(&b, "journal", "*"), 2);
		bench_down(&b);
	}
	bench_remove(&b);
}

static void fail_to_start(struct bench *b, const char *word)
{
	struct reactor one = {.count = 1, .conf = &b->conf}, *rts[1] = {&one};
	char error[512] = "";
	cr_assert_eq(store_open(&b->conf, &one.store, error, sizeof(error)), 0, "%s", error);
	one.peers = rts;
	timers_init(&one.timers, sys_mono_ms());
	cr_assert_lt(recover_run(rts, 1, error, sizeof(error)), 0);
	cr_assert(strstr(error, word), "%s", error);
	uploads_free(one.uploads);
	store_close(one.store);
}

/* The good part of a damaged journal is read again by the start that follows one that failed. */
Test(recover, a_start_that_failed_takes_no_journal_away)
{
	struct bench b;
	craft_bad_record(&b, true, 0);
	make_file(&b, "journal/new", "in the way", 10);
	for (int i = 0; i < 2; i++) {
		fail_to_start(&b, "can't be used");
		cr_assert(is_there(&b, "journal/set-000000000001/r00-000000000007.log"));
		cr_assert_eq(count_names(&b, "journal", "damaged-*"), 0);
	}
	char path[512];
	in_data(&b, "journal/new", path);
	cr_assert_eq(unlink(path), 0);
	bench_up(&b);
	cr_assert_eq(do_status(&b).o.received, 1000);
	cr_assert(is_there(&b, "journal/damaged-000000000001-r00-000000000007.log"));
	cr_assert_not(is_there(&b, "journal/set-000000000001"));
	bench_fini(&b);
}

/* What a newer version wrote is left to that one, whole. */
Test(recover, the_journal_of_a_newer_version)
{
	static const char name[] = "journal/set-000000000001/r00-000000000007.log";
	struct bench b;
	craft(&b);
	make_file(&b, "staging/e1-x", "abc", 3);
	put_open(1, 1, "e1-x");
	put_extent(1, 0, 3);
	make_set(&b, "set-000000000001", true);
	for (int newer = 1; newer >= 0; newer--) {
		journal[8] ^= 0x40; /* the version; then back */
		uint64_t checksum = XXH3_64bits(journal, 56);
		memcpy(journal + 56, &checksum, 8);
		make_file(&b, name, journal, writer.bytes);
		if (newer)
			fail_to_start(&b, "written by a newer sluiced");
		cr_assert(is_there(&b, name) && is_there(&b, "staging/e1-x"));
	}
	bench_up(&b);
	cr_assert_eq(do_status(&b).o.received, 3);
	bench_fini(&b);
}

/* Which only a damaged or foreign journal can say: the first is served, and the other's file is kept. */
Test(recover, one_transfer_twice)
{
	struct bench b;
	craft(&b);
	make_file(&b, "staging/e1-x", "abc", 3);
	make_file(&b, "staging/e1-y", "defg", 4);
	put_open(1, 1, "e1-x");
	put_extent(1, 0, 3);
	put_open(2, 1, "e1-y");
	put_extent(2, 0, 4);
	make_set(&b, "set-000000000001", true);
	for (int i = 0; i < 2; i++) {
		bench_up(&b);
		cr_assert_eq(do_status(&b).o.received, 3);
		cr_assert(is_there(&b, "orphans/e1-y"));
		cr_assert_eq(staging_count(&b), 1);
		bench_down(&b);
	}
	bench_remove(&b);
}

/* --- size ------------------------------------------------------------------------------------- */

#ifdef __SANITIZE_THREAD__
enum { MANY_TRANSFERS = 1000 };
#else
enum { MANY_TRANSFERS = 10000 };
#endif
enum { MANY_EXTENTS = 100, EXTENT_BYTES = 1000 };

/* Ten thousand open transfers, each with a hundred extents that don't touch. */
static void craft_many(struct bench *b, bool cache_alive)
{
	char name[32], id[32], path[512];
	craft(b);
	journal = malloc(64 << 20);
	cr_assert_not_null(journal);
	writer.buf = journal;
	writer.buf_max = 64 << 20;
	for (uint32_t i = 0; i < MANY_TRANSFERS; i++) {
		snprintf(name, sizeof(name), "staging/e1-%u", i);
		snprintf(id, sizeof(id), "client-%u", i);
		make_file(b, name, "", 0);
		in_data(b, name, path);
		cr_assert_eq(truncate(path, 2 * MANY_EXTENTS * EXTENT_BYTES), 0);
		put((struct record){.type = RECORD_OPEN, .tid = i + 1, .generation = 1, .epoch = 1,
			.at_ms = sys_wall_ms(), .clientid = id, .clientid_bytes = (uint32_t)strlen(id),
			.fileid = "f1", .fileid_bytes = 2, .text = name + 8,
			.text_bytes = (uint32_t)strlen(name + 8)});
		put_meta(i + 1, "{\"name\":\"a\"}");
	}
	/* As they come when all clients send at once. */
	for (uint32_t k = 0; k < MANY_EXTENTS; k++) {
		for (uint32_t i = 0; i < MANY_TRANSFERS; i++) {
			uint64_t from = (k * 37 % MANY_EXTENTS) * 2ull * EXTENT_BYTES;
			put((struct record){.type = k % 2 ? RECORD_SYNCED : RECORD_EXTENT, .tid = i + 1,
				.from = from, .to = from + EXTENT_BYTES});
		}
	}
	make_set(b, "set-000000000001", cache_alive);
	free(journal);
	journal = small_journal;
}

/* The first start reads records in the order in which they came, the second one a checkpoint. */
Test(recover, ten_thousand_transfers_and_a_million_extents, .timeout = 300)
{
	for (int cache_alive = 0; cache_alive < 2; cache_alive++) {
		struct bench b;
		craft_many(&b, cache_alive);
		for (int i = 0; i < 2; i++) {
			uint64_t began_ms = sys_mono_ms();
			bench_up(&b);
			uint64_t ms = sys_mono_ms() - began_ms;
			fprintf(stderr, "cache %s, start %d: ready after %lu ms\n",
				cache_alive ? "alive" : "dead", i + 1, (unsigned long)ms);
			cr_assert_eq(b.rt.uploads->count, MANY_TRANSFERS);
			uint64_t bytes = 0;
			for (uint32_t k = 0; k < b.rt.uploads->table_size; k++) {
				for (const struct transfer *t = b.rt.uploads->table[k]; t; t = t->hash_next)
					bytes += t->cover.bytes;
			}
			cr_assert_eq(bytes, (uint64_t)MANY_TRANSFERS * MANY_EXTENTS * EXTENT_BYTES /
				(cache_alive ? 1 : 2));
			bench_down(&b);
		}
		bench_remove(&b);
	}
}
