/*
 * Records that tell no content: whom a transfer counts against; and journals that do not know of that.
 */
#include "recover_craft.h"

#include <xxhash.h>
#include "user.h"

static void put_user(uint64_t tid, const char *name, uint32_t bytes)
{
	put((struct record){.type = RECORD_USER, .tid = tid, .text = name, .text_bytes = bytes});
}

static uint64_t open_of(struct bench *b, const char *name, uint32_t bytes)
{
	struct user *x = user_enter(b->rt.store->users, (struct mqtt_str){name, bytes});
	uint64_t free_count = 0, max = b->conf.transfer.open_user_max;
	while (free_count < max && !user_reserve(x, 0, NULL))
		free_count++;
	for (uint64_t i = 0; i < free_count; i++)
		user_release(x, 0);
	user_leave(x);
	return max - free_count;
}

/* The last record counts, any bytes are a name, and one of a transfer that is over is nobody's. */
Test(recover, users_of_open_transfers)
{
	struct bench b;
	uint8_t *data = noise(3000, 1), digest[32];
	craft(&b);
	b.conf.transfer.open_user_max = 5;
	digest_of(data, 1000, digest);
	make_file(&b, "staging/e1-y", data, 3000);
	put_open(1, 1, "e1-x"); /* finished */
	put_user(1, "done", 4);
	put_extent(1, 0, 1000);
	put_publishing(1, 1000, digest, "cam/f1/a");
	put((struct record){.type = RECORD_PUBLISHED, .tid = 1, .at_ms = sys_wall_ms()});
	put_open(2, 2, "e1-y"); /* open */
	put_user(2, "first", 5);
	put_user(2, "se\0cond", 7);
	put_extent(2, 0, 3000);
	put((struct record){.type = RECORD_OPEN, .tid = 3, .generation = 1, .epoch = 1, .clientid = "dog",
		.clientid_bytes = 3, .fileid = "f", .fileid_bytes = 1, .text = "e1-z", .text_bytes = 4});
	put_user(3, "gone", 4);
	put((struct record){.type = RECORD_ABORTED, .tid = 3});
	put((struct record){.type = RECORD_OPEN, .tid = 4, .generation = 1, .epoch = 1, .clientid = "cat",
		.clientid_bytes = 3, .fileid = "f", .fileid_bytes = 1, .text = "e1-w", .text_bytes = 4});
	make_set(&b, "set-000000000008", true);
	bench_up(&b);
	for (int again = 0; again < 3; again++) {
		cr_expect_eq(users_count(b.rt.store->users), 1);
		cr_expect_eq(open_of(&b, "se\0cond", 7), 1);
		cr_expect_eq(transfer_find(b.rt.uploads, &ID)->previous->user, NULL);
		cr_expect_eq(do_status(&b).o.received, 3000);
		bench_restart(&b);
	}
	assert_ok(do_abort(&b));
	cr_expect_eq(users_count(b.rt.store->users), 0);
	free(data);
	bench_fini(&b);
}

/* As a daemon writes it that knows no users. */
Test(recover, a_journal_of_the_version_before)
{
	struct bench b;
	char path[512];
	uint8_t header[RECORD_HEADER_BYTES];
	craft(&b);
	make_file(&b, "staging/e1-x", "abc", 3);
	put_open(1, 1, "e1-x");
	put_extent(1, 0, 3);
	make_set(&b, "set-000000000008", true);
	record_header_encode(header, SALT, 7, 0);
	header[8] = 2;
	uint64_t sum = XXH3_64bits(header, sizeof(header) - sizeof(sum));
	memcpy(header + sizeof(header) - sizeof(sum), &sum, sizeof(sum));
	in_data(&b, "journal/set-000000000008/r00-000000000007.log", path);
	int fd = open(path, O_WRONLY);
	cr_assert_eq(pwrite(fd, header, sizeof(header), 0), (ssize_t)sizeof(header));
	close(fd);
	bench_up(&b);
	cr_expect_eq(do_status(&b).o.received, 3);
	cr_expect_eq(users_count(b.rt.store->users), 0);
	bench_fini(&b);
}
