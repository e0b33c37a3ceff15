/*
 * Of test_upload_model.c: whose files there are, and whether as many count as there are.
 */
#ifndef SLUICE_TEST_UPLOAD_FILES_H
#define SLUICE_TEST_UPLOAD_FILES_H

#include "upload_model.h"

/* Two have the first, of two clients. */
static inline void enter_users(struct bench *b)
{
	static const char *const names[FILES] = {"anna", "anna", "bob"};
	for (uint32_t i = 0; i < FILES; i++) {
		struct mqtt_str name = {names[i], (uint32_t)strlen(names[i])};
		w->files[i].id.user = user_enter(b->rt.store->users, name);
		bench_check(w->files[i].id.user, "no user");
	}
}

static inline void leave_users(void)
{
	for (uint32_t i = 0; i < FILES; i++)
		user_leave(w->files[i].id.user);
}

/* One that is open is a file; so is an export, while it is there, if exports are limited. */
static inline bool is_file(struct bench *b, const struct transfer *t, uint32_t max, const void *link)
{
	bool counts = t->is_counted || link;
	bench_check(!link || (max && !t->is_counted), "%s is in a list of exports", t->fileid);
	bench_check(counts || max == 0 || store_export_is_gone(b->rt.store, t->exported.path),
		"%s is there, but does not count", t->fileid);
	return counts;
}

static inline uint64_t check_files_of(struct bench *b, const struct transfer *t, uint64_t of_users[FILES])
{
	const struct conf *conf = b->rt.conf;
	for (uint32_t i = 0; i < FILES; i++) {
		const struct upload_id *id = &w->files[i].id;
		if (t->clientid_bytes != id->clientid_bytes || t->fileid_bytes != id->fileid_bytes ||
			memcmp(t->clientid, id->clientid, id->clientid_bytes) != 0 ||
			memcmp(t->fileid, id->fileid, id->fileid_bytes) != 0)
			continue;
		bench_check(t->user == id->user || (!t->user && !t->is_counted), "%s is of another user", t->fileid);
		bool is_of_user = is_file(b, t, conf->transfer.files_user_max, t->user_file.pprev);
		for (uint32_t k = 0; k < FILES; k++)
			of_users[k] += is_of_user && w->files[k].id.user == id->user;
	}
	return is_file(b, t, conf->transfer.files_client_max, t->file_pprev);
}

static inline void check_files(struct bench *b)
{
	const struct uploads *u = b->rt.uploads;
	uint64_t of_clients = 0, of_users[FILES] = {0};
	for (uint32_t i = 0; i < u->table_size; i++) {
		for (const struct transfer *t = u->table[i]; t; t = t->hash_next) {
			of_clients += check_files_of(b, t, of_users);
			of_clients += t->previous ? check_files_of(b, t->previous, of_users) : 0;
		}
	}
	uint64_t got = accounts_files_count(&u->accounts);
	bench_check(got == of_clients && !u->accounts.count == !of_clients, "%llu files of clients, not %llu",
		(unsigned long long)got, (unsigned long long)of_clients);
	for (uint32_t i = 0; i < FILES; i++) {
		got = user_files_count(w->files[i].id.user);
		bench_check(got == of_users[i], "%llu files of a user, not %llu", (unsigned long long)got,
			(unsigned long long)of_users[i]);
	}
}

#endif
