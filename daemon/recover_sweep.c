/*
 * Staging files that no transfer has, and transfers that have no staging file. recover.c has the
 * order of things.
 *
 * A file whose transfer the journal knows to be over is the rest of a deletion, which is carried
 * out. One that nobody knows may be all there is of a transfer whose records were lost, so it is
 * moved to <data>/orphans/ and reported; never deleted. So may be a record: <data>/orphans/records
 * gets a line of JSON for each transfer whose file was gone.
 */
#include "recover_impl.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "log.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#endif

enum { ASIDE_TRIES = 1000 };

#define RECORDS "records"

struct names {
	const char **at; /* sorted */
	size_t count, max;
};

struct sweep {
	struct recovery *rc;
	struct names kept, over; /* of open transfers; of such as the journal knows to be over */
	uint64_t orphans, orphan_bytes, deleted;
	int orphans_fd;
};

static int names_add(struct names *n, const char *name)
{
	if (!name)
		return 0;
	if (n->count == n->max) {
		size_t max = n->max ? n->max * 2 : 1024;
		const char **at = realloc(n->at, max * sizeof(*at));
		if (!at)
			return -ENOMEM;
		n->at = at;
		n->max = max;
	}
	n->at[n->count++] = name;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void names_sort(struct names *n)
{
	if (n->count)
		qsort(n->at, n->count, sizeof(*n->at), by_name);
}

static bool names_have(const struct names *n, const char *name)
{
	return n->count && bsearch(&name, n->at, n->count, sizeof(*n->at), by_name);
}

static int names_of_transfers(struct sweep *w, const struct uploads *u)
{
	int err = 0;
	for (uint32_t k = 0; !err && k < u->table_size; k++) {
		for (const struct transfer *t = u->table[k]; !err && t; t = t->hash_next)
			err = names_add(t->state == TRANSFER_EXPORTED ? &w->over : &w->kept, t->staging);
	}
	return err;
}

static int names_collect(struct sweep *w, struct reactor **reactors, uint32_t count)
{
	struct recovery *rc = w->rc;
	int err = 0;
	for (uint32_t i = 0; !err && i < count; i++)
		err = names_of_transfers(w, reactors[i]->uploads);
	for (uint32_t i = 0; !err && i < rc->slots_count; i++) {
		const struct past *p = rc->slots[i];
		if (!p || !p->opened)
			continue;
		if (p->dropped || p->published)
			err = names_add(&w->over, p->open.text);
		if (!err)
			err = names_add(&w->over, p->former);
	}
	names_sort(&w->kept);
	names_sort(&w->over);
	return err;
}

/* --- orphans ---------------------------------------------------------------------------------- */

int recover_open_orphans(const struct recovery *rc)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/orphans", rc->conf->data);
	int err = sys_mkdirs(path, 0700);
	return err ? err : sys_openat(rc->store->data_fd, "orphans", O_RDONLY | O_DIRECTORY, 0);
}

/* Under its own name, or with a number behind it when there is one of that name already. */
static int set_aside(const struct sweep *w, const char *name)
{
	int staging_fd = w->rc->store->staging_fd;
	int err = sys_renameat2(staging_fd, name, w->orphans_fd, name, RENAME_NOREPLACE);
	for (int i = 2; err == -EEXIST && i < ASIDE_TRIES; i++) {
		char numbered[NAME_MAX + 1];
		snprintf(numbered, sizeof(numbered), "%.240s~%d", name, i);
		err = sys_renameat2(staging_fd, name, w->orphans_fd, numbered, RENAME_NOREPLACE);
	}
	return err;
}

static int sweep_one(void *arg, const char *name)
{
	struct sweep *w = arg;
	const struct store *store = w->rc->store;
	struct sys_stat st = {0};
	if (names_have(&w->kept, name))
		return 0;
	if (names_have(&w->over, name)) {
		w->deleted += sys_unlinkat(store->staging_fd, name, 0) == 0;
		return 0;
	}
	if (w->orphans_fd < 0)
		w->orphans_fd = recover_open_orphans(w->rc);
	(void)sys_stat_at(store->staging_fd, name, &st);
	int err = w->orphans_fd < 0 ? w->orphans_fd : set_aside(w, name);
	if (err)
		log_error("a staging file without a transfer can't be set aside: it stays", LZ("name", name),
			LE("error", err), NULL);
	w->orphans += !err;
	w->orphan_bytes += err ? 0 : st.blocks_bytes;
	return 0;
}

int recover_sweep(struct recovery *rc, struct reactor **reactors, uint32_t count)
{
	struct sweep w = {.rc = rc, .orphans_fd = -1};
	int err = names_collect(&w, reactors, count);
	if (!err)
		err = sys_list_dir(rc->store->staging_fd, sweep_one, &w);
	if (w.orphans)
		log_warn("staging files without a transfer are in <data>/orphans: delete them when nobody wants them",
			LU("files", w.orphans), LU("bytes_on_disk", w.orphan_bytes), NULL);
	if (w.deleted)
		log_info("staging files of transfers that are over were still there", LU("deleted", w.deleted), NULL);
	if (w.orphans_fd >= 0) {
		(void)sys_fsync(w.orphans_fd);
		sys_close(w.orphans_fd);
	}
	free(w.kept.at);
	free(w.over.at);
	return err;
}

/* --- records ---------------------------------------------------------------------------------- */

static char *record_line(const struct transfer *t, uint64_t bytes)
{
	cJSON *o = cJSON_CreateObject();
	char *line = NULL;
	if (o && cJSON_AddStringToObject(o, "clientid", t->clientid) &&
		cJSON_AddStringToObject(o, "fileid", t->fileid) &&
		cJSON_AddNumberToObject(o, "generation", t->generation) &&
		(!t->has_meta || cJSON_AddStringToObject(o, "name", t->meta.name)) &&
		cJSON_AddNumberToObject(o, "bytes", (double)bytes) &&
		cJSON_AddStringToObject(o, "staging", t->staging) &&
		cJSON_AddNumberToObject(o, "opened_at_ms", (double)t->opened_at_ms) &&
		cJSON_AddNumberToObject(o, "missed_at_ms", (double)sys_wall_ms()))
		line = cJSON_PrintUnformatted(o);
	cJSON_Delete(o);
	return line;
}

static int append_line(const struct recovery *rc, char *line)
{
	struct sys_stat st;
	int dir = recover_open_orphans(rc);
	int fd = dir < 0 ? dir : sys_openat(dir, RECORDS, O_WRONLY | O_CREAT, 0600);
	int err = fd < 0 ? fd : sys_fstat(fd, &st);
	size_t bytes = strlen(line);
	line[bytes] = '\n'; /* in the place of the NUL */
	if (!err)
		err = sys_pwrite(fd, line, bytes + 1, st.size);
	if (fd >= 0)
		sys_close(fd);
	if (dir >= 0)
		sys_close(dir);
	return err;
}

void recover_note_record(const struct recovery *rc, const struct transfer *t, uint64_t bytes)
{
	char *line = record_line(t, bytes);
	int err = line ? append_line(rc, line) : -ENOMEM;
	if (err)
		log_warn("<data>/orphans/" RECORDS " can't be written", LE("error", err), NULL);
	cJSON_free(line);
}
