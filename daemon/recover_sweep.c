/*
 * Staging files that no transfer has. recover.c has the order of things.
 */
#include "recover_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "log.h"

struct sweep {
	struct recovery *rc;
	const char **kept;          /* of open transfers, sorted */
	size_t kept_count;
	uint32_t orphans;
	int orphans_fd;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int sweep_one(void *arg, const char *name)
{
	struct sweep *w = arg;
	const struct store *store = w->rc->store;
	if (w->kept_count && bsearch(&name, w->kept, w->kept_count, sizeof(*w->kept), by_name))
		return 0;
	if (w->orphans_fd < 0) {
		(void)sys_unlinkat(store->staging_fd, name, 0);
	} else if (sys_renameat2(store->staging_fd, name, w->orphans_fd, name, 0) == 0) {
		w->orphans++;
	}
	return 0;
}

static int keep_names(struct sweep *w, struct reactor **reactors, uint32_t count)
{
	size_t max = 0;
	for (uint32_t i = 0; i < count; i++)
		max += reactors[i]->uploads->count;
	w->kept = calloc(max + 1, sizeof(*w->kept));
	if (!w->kept)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		const struct uploads *u = reactors[i]->uploads;
		for (uint32_t k = 0; k < u->table_size; k++) {
			for (const struct transfer *t = u->table[k]; t; t = t->hash_next) {
				if (t->state != TRANSFER_EXPORTED)
					w->kept[w->kept_count++] = t->staging;
			}
		}
	}
	qsort(w->kept, w->kept_count, sizeof(*w->kept), by_name);
	return 0;
}

static int open_orphans(const struct recovery *rc)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/orphans", rc->conf->data);
	int err = sys_mkdirs(path, 0700);
	return err ? err : sys_openat(rc->store->data_fd, "orphans", O_RDONLY | O_DIRECTORY, 0);
}

int recover_sweep(struct recovery *rc, struct reactor **reactors, uint32_t count)
{
	struct sweep w = {.rc = rc, .orphans_fd = -1};
	int err = keep_names(&w, reactors, count);
	if (!err && rc->damaged) {
		/* Of those that the journal knows to be over nothing is wanted. */
		for (uint32_t i = 0; i < rc->slots_count; i++) {
			const struct past *p = rc->slots[i];
			if (p && p->opened && p->dropped && p->open.text)
				(void)sys_unlinkat(rc->store->staging_fd, p->open.text, 0);
		}
		w.orphans_fd = open_orphans(rc);
		err = w.orphans_fd < 0 ? w.orphans_fd : 0;
	}
	if (!err)
		err = sys_list_dir(rc->store->staging_fd, sweep_one, &w);
	if (w.orphans)
		log_warn("staging files without a transfer are in <data>/orphans: delete them when nobody wants them",
			LU("files", w.orphans), NULL);
	if (w.orphans_fd >= 0)
		sys_close(w.orphans_fd);
	free(w.kept);
	return err;
}
