/*
 * retention.h: the walk, a depth-first one over open directories, and what is done with a manifest.
 */
#include "retention.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "events.h"
#include "export_impl.h"
#include "json.h"
#include "log.h"
#include "meta.h"
#include "ring.h"
#include "store.h"

enum {
	ENTRIES_MAX = 256,   /* of a step */
	STEP_MS = 20,        /* likewise: a busy disk was seen to take 5 ms to remove a file */
	REMOVED_MAX = 32,    /* likewise: each is logged and told */
	PAUSE_MS_MIN = 25,   /* between steps; twice as long as the step took, if that is more */
	FIRST_MS = 1000,     /* after the start */
	DEPTH_MAX = 8,       /* the deepest layout has 5 */
	MANIFEST_BYTES_MAX = 1 << 20,
	MANIFEST_DEPTH_MAX = META_DEPTH_MAX + 2,
	LONE_MANIFEST_S = 3600,
};

/* An export that was removed, to be told of. */
struct removed {
	char *path, *text;      /* owned; the manifest's text, which the spans lie in */
	struct json clientid, fileid, name, user_data;
	uint64_t size, kept_s;  /* how long it was kept, about */
};

struct level {
	struct sys_dir *dir;
	uint32_t path_bytes;    /* of the path up to here, without a slash behind it */
	bool removed;           /* something in it was removed in this sweep */
};

struct retention {
	struct reactor *rt;
	struct op op;
	struct timer timer;
	bool stopping;
	uint64_t began_ms, entries, exports; /* of this sweep */
	/* The thread's while op is not idle: */
	struct level levels[DEPTH_MAX];
	uint32_t depth;         /* 0: no sweep is under way */
	char path[EXPORT_PATH_MAX + 1];
	struct removed removed[REMOVED_MAX];
	uint32_t removed_count;
	uint32_t seen;
	uint64_t took_ms;       /* by the last step */
};

/* --- a manifest, on the thread ----------------------------------------------------------------- */

struct manifest {
	struct json clientid, fileid, name, path, size, meta, user_data;
};

static bool manifest_parse(const char *text, size_t bytes, struct manifest *ret)
{
	struct { const char *key; struct json *span; } wanted[] = {{"clientid", &ret->clientid},
		{"fileid", &ret->fileid}, {"name", &ret->name}, {"path", &ret->path}, {"size", &ret->size},
		{"meta", &ret->meta}, {"user_data", &ret->user_data}};
	struct json object, key, value;
	struct json_iter it;
	*ret = (struct manifest){0};
	if (!json_check(text, bytes, MANIFEST_DEPTH_MAX, &object) || object.kind != JSON_OBJECT)
		return false;
	json_iter_init(&it, &object);
	while (json_iter_next(&it, &key, &value)) {
		for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
			if (json_string_is(&key, wanted[i].key))
				*wanted[i].span = value;
		}
	}
	return ret->path.kind == JSON_STRING && ret->clientid.kind == JSON_STRING &&
		ret->fileid.kind == JSON_STRING && ret->name.kind == JSON_STRING &&
		ret->meta.kind == JSON_OBJECT;
}

/* Its file's name, if the manifest belongs into this directory. */
static bool file_name(const struct retention *r, const struct manifest *m, char ret[NAMES_FILE_MAX + 1])
{
	char path[EXPORT_PATH_MAX + 1];
	size_t bytes, dir_bytes = strlen(r->path);
	if (json_string_decode(&m->path, path, sizeof(path) - 1, &bytes) < 0 || memchr(path, 0, bytes))
		return false;
	path[bytes] = 0;
	if (bytes <= dir_bytes + 1 || memcmp(path, r->path, dir_bytes) != 0 || path[dir_bytes] != '/')
		return false;
	const char *name = path + dir_bytes + 1;
	if (strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
		strcmp(name, EXPORT_MANIFEST) == 0 || strlen(name) > NAMES_FILE_MAX)
		return false;
	strcpy(ret, name);
	return true;
}

static bool is_due(const struct manifest *m, int64_t now_s)
{
	struct meta meta;
	if (meta_parse(m->meta.text, m->meta.bytes, &meta) != NULL)
		return false;
	bool due = meta.has_expire_at && meta.expire_at <= (uint64_t)now_s;
	meta_fini(&meta);
	return due;
}

/* The text, which the caller frees; NULL: none, or too long for one of ours. */
static char *read_manifest(int dir_fd, size_t *ret_bytes, struct sys_stat *ret)
{
	char *text = NULL;
	int fd = sys_openat(dir_fd, EXPORT_MANIFEST, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	if (fd < 0)
		return NULL;
	if (sys_fstat(fd, ret) == 0 && ret->is_regular && ret->size <= MANIFEST_BYTES_MAX)
		text = malloc(ret->size + 1);
	int64_t got = text ? sys_pread(fd, text, ret->size, 0) : -1;
	sys_close(fd);
	if (got < 0) {
		free(text);
		return NULL;
	}
	*ret_bytes = (size_t)got;
	return text;
}

static void note(struct retention *r, const struct manifest *m, const char *name, char *text, uint64_t size,
	uint64_t kept_s)
{
	char *path = NULL;
	if (asprintf(&path, "%s/%s", r->path, name) < 0) {
		free(text);
		return;
	}
	r->removed[r->removed_count++] = (struct removed){.path = path, .text = text, .clientid = m->clientid,
		.fileid = m->fileid, .name = m->name, .user_data = m->user_data, .size = size, .kept_s = kept_s};
}

/* There is a manifest in the directory at the top. False: it is none, but a directory, such as that
 * of a client of this name. */
static bool look_at_export(struct retention *r)
{
	struct level *top = &r->levels[r->depth - 1];
	int dir_fd = sys_dir_fd(top->dir);
	int64_t now_s = sys_wall_ms() / 1000;
	char name[NAMES_FILE_MAX + 1];
	struct sys_stat st = {0}, file = {0};
	struct manifest m;
	size_t bytes;
	char *text = read_manifest(dir_fd, &bytes, &st);
	if (!text)
		return !st.is_dir;
	int64_t kept_s = now_s - st.mtime_ns / 1000000000;
	if (!manifest_parse(text, bytes, &m) || !is_due(&m, now_s) || !file_name(r, &m, name)) {
		free(text);
		return true;
	}
	int err = sys_stat_at(dir_fd, name, &file);
	bool is_there = !err && file.is_regular;
	if (is_there)
		err = sys_unlinkat(dir_fd, name, 0);
	else if (err == -ENOENT && kept_s >= LONE_MANIFEST_S)
		err = 0;
	else
		err = -EBUSY; /* about to appear, or not ours */
	if (!err)
		err = sys_unlinkat(dir_fd, EXPORT_MANIFEST, 0);
	top->removed = top->removed || !err;
	if (is_there && !err)
		note(r, &m, name, text, file.size, kept_s > 0 ? (uint64_t)kept_s : 0);
	else
		free(text);
	return true;
}

/* --- the walk, on the thread ------------------------------------------------------------------- */

static void descend(struct retention *r, int dir_fd, const char *name)
{
	size_t bytes = strlen(r->path), name_bytes = strlen(name);
	struct sys_dir *dir;
	if (r->depth == DEPTH_MAX || bytes + 1 + name_bytes > EXPORT_PATH_MAX ||
		sys_dir_open(dir_fd, name, &dir) < 0)
		return; /* a file, a link, or not ours */
	if (r->depth > 0) {
		if (bytes > 0)
			r->path[bytes++] = '/';
		memcpy(r->path + bytes, name, name_bytes + 1);
		bytes += name_bytes;
	}
	r->levels[r->depth++] = (struct level){.dir = dir, .path_bytes = (uint32_t)bytes};
}

/* Leaves the top; what has been emptied goes, which fails when something is left in it. */
static void ascend(struct retention *r)
{
	struct level *top = &r->levels[--r->depth];
	sys_dir_close(top->dir);
	if (r->depth == 0)
		return;
	struct level *above = top - 1;
	const char *name = r->path + above->path_bytes + (above->path_bytes > 0);
	if (top->removed && sys_unlinkat(sys_dir_fd(above->dir), name, AT_REMOVEDIR) == 0)
		above->removed = true;
	r->path[above->path_bytes] = 0;
}

static int call_step(struct op *op)
{
	struct retention *r = container_of(op, struct retention, op);
	uint64_t began_ms = sys_mono_ms();
	r->seen = 0;
	if (r->depth == 0)
		descend(r, r->rt->store->export_fd, ".");
	while (r->depth > 0 && r->seen < ENTRIES_MAX && r->removed_count < REMOVED_MAX &&
		sys_mono_ms() < began_ms + STEP_MS) {
		struct sys_dir *dir = r->levels[r->depth - 1].dir;
		const char *name = sys_dir_next(dir);
		r->seen++;
		if (!name)
			ascend(r);
		else if (strcmp(name, EXPORT_MANIFEST) != 0 || !look_at_export(r))
			descend(r, sys_dir_fd(dir), name);
	}
	r->took_ms = sys_mono_ms() - began_ms;
	return 0;
}

/* --- on the reactor ---------------------------------------------------------------------------- */

/* The string as text that the caller frees; NULL: out of memory. */
static char *text_of(const struct json *string, size_t *ret_bytes)
{
	char *text = malloc(string->bytes + 1); /* escapes never get longer */
	if (!text || json_string_decode(string, text, string->bytes, ret_bytes) < 0) {
		free(text);
		return NULL;
	}
	text[*ret_bytes] = 0;
	return text;
}

static void tell(struct retention *r, const struct removed *x)
{
	size_t name_bytes;
	struct answer_event e = {.has_size = true, .size = x->size, .path = x->path, .seconds = (double)x->kept_s};
	char *clientid = text_of(&x->clientid, &e.clientid_bytes), *fileid = text_of(&x->fileid, &e.fileid_bytes);
	char *name = text_of(&x->name, &name_bytes), *user_data = NULL;
	if (x->user_data.text && x->user_data.kind != JSON_NULL)
		user_data = strndup(x->user_data.text, x->user_data.bytes);
	e.clientid = clientid;
	e.fileid = fileid;
	e.name = name;
	e.user_data = user_data;
	if (clientid && fileid && name) {
		log_info("export removed: its expire_at has come", LS("clientid", clientid, e.clientid_bytes),
			LS("fileid", fileid, e.fileid_bytes), LZ("path", x->path), LU("size", x->size), NULL);
		events_publish(r->rt, "removed", &e);
	}
	free(clientid);
	free(fileid);
	free(name);
	free(user_data);
}

static void tell_all(struct retention *r)
{
	for (uint32_t i = 0; i < r->removed_count; i++) {
		tell(r, &r->removed[i]);
		free(r->removed[i].path);
		free(r->removed[i].text);
	}
	r->exports += r->removed_count;
	r->removed_count = 0;
}

static void on_stepped(struct op *op)
{
	struct retention *r = container_of(op, struct retention, op);
	uint64_t now_ms = ring_now_ms(r->rt->ring), next_ms = now_ms + 2 * r->took_ms;
	if (r->took_ms < PAUSE_MS_MIN / 2)
		next_ms = now_ms + PAUSE_MS_MIN;
	tell_all(r);
	r->entries += r->seen;
	if (r->depth == 0) {
		log_debug("retention: the export directory was looked through", LU("entries", r->entries),
			LU("removed", r->exports), LU("ms", now_ms - r->began_ms), NULL);
		next_ms = r->began_ms + (uint64_t)r->rt->conf->export.retention_interval_s * 1000;
	}
	if (!r->stopping)
		timers_arm(&r->rt->timers, &r->timer, next_ms);
}

static void on_timer(struct timer *t)
{
	struct retention *r = container_of(t, struct retention, timer);
	if (r->depth == 0) {
		r->began_ms = ring_now_ms(r->rt->ring);
		r->entries = r->exports = 0;
	}
	ring_call(r->rt->ring, &r->op, RING_RARE, call_step);
}

int retention_new(struct reactor *rt, struct retention **ret)
{
	*ret = NULL;
	if (!rt->conf->export.retention || rt->idx != 0)
		return 0;
	struct retention *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->rt = rt;
	r->op.done = on_stepped;
	r->timer.fire = on_timer;
	timers_arm(&rt->timers, &r->timer, ring_now_ms(rt->ring) + FIRST_MS);
	*ret = r;
	return 0;
}

void retention_stop(struct retention *r)
{
	if (!r)
		return;
	r->stopping = true;
	timers_disarm(&r->rt->timers, &r->timer);
}

void retention_free(struct retention *r)
{
	if (!r)
		return;
	/* Nobody would come back for a directory that the last step emptied. */
	while (r->depth > 0)
		ascend(r);
	free(r);
}
