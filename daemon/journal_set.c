/*
 * journal_set.h. Blocking calls, at start-up, but for journal_set_distrust.
 */
#include "journal_set.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include "journal.h"
#include "log.h"
#include "ring.h"

enum { SET_NAME_MAX = 32, IDENTITY_MAX = 160 };

#define NEW_SET "new"
#define IDENTITY "page-cache"

static void set_name(uint64_t number, char ret[SET_NAME_MAX])
{
	snprintf(ret, SET_NAME_MAX, "set-%012llu", (unsigned long long)number);
}

/* The number of a set by its name; 0: it is none. */
static uint64_t set_number(const char *name)
{
	unsigned long long number;
	char check[SET_NAME_MAX];
	if (sscanf(name, "set-%llu", &number) != 1)
		return 0;
	set_name(number, check);
	return strcmp(check, name) == 0 ? number : 0;
}

/* --- the newest ------------------------------------------------------------------------------- */

static int find_newest(void *arg, const char *name)
{
	uint64_t number = set_number(name), *newest = arg;
	if (number > *newest)
		*newest = number;
	return 0;
}

/* 0 or −errno: believing that it is another one, or was never written, would lose what was acknowledged. */
static int identity_is(const char *now, int set_fd, bool *ret)
{
	char then[IDENTITY_MAX] = "";
	int fd = sys_openat(set_fd, IDENTITY, O_RDONLY, 0);
	if (fd < 0 && fd != -ENOENT)
		return fd;
	int64_t n = fd < 0 ? 0 : sys_pread(fd, then, sizeof(then) - 1, 0);
	if (fd >= 0)
		sys_close(fd);
	if (n < 0)
		return (int)n;
	*ret = n > 0 && strcmp(then, now) == 0;
	return 0;
}

int journal_set_open(const struct store *s, struct journal_set *ret)
{
	struct journal_set set = {.fd = -1};
	char name[SET_NAME_MAX], now[IDENTITY_MAX];
	int err = sys_cache_identity(s->staging_fd, now, sizeof(now));
	if (!err)
		err = sys_list_dir(s->journal_fd, find_newest, &set.number);
	if (err)
		return err;
	if (set.number) {
		set_name(set.number, name);
		set.fd = sys_openat(s->journal_fd, name, O_RDONLY | O_DIRECTORY, 0);
		if (set.fd < 0)
			return set.fd;
		err = identity_is(now, set.fd, &set.cache_alive);
		if (err) {
			sys_close(set.fd);
			return err;
		}
	}
	*ret = set;
	return 0;
}

void journal_set_close(struct journal_set *set)
{
	if (set->fd >= 0)
		sys_close(set->fd);
	set->fd = -1;
}

void journal_set_aside(const struct store *s, const struct journal_set *set, const char *name, int err)
{
	char aside[JOURNAL_NAME_MAX + 40];
	snprintf(aside, sizeof(aside), "damaged-%012llu-%s", (unsigned long long)set->number, name);
	log_error("damaged journal is set aside: transfers that only it names are lost", LZ("file", name),
		LZ("renamed", aside), LE("error", err), NULL);
	(void)sys_renameat2(set->fd, name, s->journal_fd, aside, 0);
}

/* --- the next --------------------------------------------------------------------------------- */

static int wipe_file(void *arg, const char *name)
{
	return sys_unlinkat(*(const int *)arg, name, 0);
}

static int wipe(const struct store *s, const char *name)
{
	int fd = sys_openat(s->journal_fd, name, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	int err = sys_list_dir(fd, wipe_file, &fd);
	sys_close(fd);
	return err ? err : sys_unlinkat(s->journal_fd, name, AT_REMOVEDIR);
}

static int write_identity(const struct store *s)
{
	char now[IDENTITY_MAX];
	int err = sys_cache_identity(s->staging_fd, now, sizeof(now));
	if (err)
		return err;
	int fd = sys_openat(s->set_fd, IDENTITY, O_WRONLY | O_CREAT, 0600);
	if (fd < 0)
		return fd;
	err = sys_pwrite(fd, now, strlen(now), 0);
	if (!err)
		err = sys_fsync(fd);
	sys_close(fd);
	return err;
}

int journal_set_distrust(struct store *s)
{
	int err = sys_unlinkat(s->set_fd, IDENTITY, 0);
	return err == -ENOENT ? 0 : err;
}

int journal_set_begin(struct store *s)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/journal/" NEW_SET, s->conf->data);
	int err = wipe(s, NEW_SET);
	if (!err)
		err = sys_mkdirs(path, 0700);
	if (!err)
		err = sys_openat(s->journal_fd, NEW_SET, O_RDONLY | O_DIRECTORY, 0);
	if (err < 0)
		return err;
	s->set_fd = err;
	return write_identity(s);
}

struct wipe_older {
	const struct store *s;
	uint64_t number;
};

static int wipe_if_older(void *arg, const char *name)
{
	const struct wipe_older *w = arg;
	uint64_t number = set_number(name);
	int err = number && number < w->number ? wipe(w->s, name) : 0;
	if (err)
		log_warn("an old journal could not be deleted", LZ("name", name), LE("error", err), NULL);
	return 0;
}

int journal_set_commit(struct store *s, const struct journal_set *old)
{
	char name[SET_NAME_MAX];
	set_name(old->number + 1, name);
	int err = sys_fsync(s->set_fd);
	if (!err)
		err = sys_renameat2(s->journal_fd, NEW_SET, s->journal_fd, name, 0);
	if (!err)
		err = sys_fsync(s->journal_fd);
	return err;
}

void journal_set_wipe_older(const struct store *s, const struct journal_set *old)
{
	struct wipe_older older = {s, old->number + 1};
	(void)sys_list_dir(s->journal_fd, wipe_if_older, &older);
}
