/*
 * The staging file of a transfer: created, preallocated, seeded and opened when first wanted; kept
 * open while used, and a while longer; deleted when the transfer goes.
 *
 *     NONE ─get─► OPENING: open ─► fallocate ─► seed ─► OPEN        any failure ─► FAILED ─(told)─► NONE
 *
 * A file that failed to sync is never written again (the kernel tells of lost writes once, and the next
 * fsync succeeds over them). When nobody uses it any more, what was synced before is copied into a new
 * one, with another name; the old one goes when the journal's record of that is on the disk.
 *
 *     any ─sync failed─► broken ─get─► OPENING: copy what was synced, fsync ─► OPEN, the new file
 *
 * An fd that nobody uses stays open on a list of io.open_files; the least recently used is closed
 * when the list is full, so ten thousand abandoned transfers hold no more descriptors than that.
 */
#include "transfer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "log.h"

enum { PREALLOCATE_BYTES_MIN = 64 << 10, UNLINK_RETRY_MS = 1000 };

static void on_opened(struct op *op);
static void on_allocated(struct op *op);
static void on_truncated(struct op *op);
static void on_seeded(struct op *op);
static void replace_start(struct transfer *t);

void staging_init(struct transfer *t)
{
	t->file_op.done = on_opened;
}

/* Does it say nothing of the file, and may be over by the next try? */
static bool is_shortage(int err)
{
	return err == -ENOSPC || err == -EDQUOT || err == -ENOMEM || err == -EMFILE || err == -ENFILE;
}

/* --- the list of idle fds --------------------------------------------------------------------- */

static void lru_remove(struct transfer *t)
{
	struct uploads *u = t->u;
	if (!t->lru_pprev)
		return;
	*t->lru_pprev = t->lru_next;
	if (t->lru_next)
		t->lru_next->lru_pprev = t->lru_pprev;
	else
		u->lru_tail = t->lru_pprev;
	t->lru_next = NULL;
	t->lru_pprev = NULL;
	u->lru_count--;
}

static void fd_close(struct transfer *t)
{
	if (t->fd >= 0)
		sys_close(t->fd);
	t->fd = -1;
}

void staging_close(struct transfer *t)
{
	assert(t->fd_users == 0);
	if (t->state != TRANSFER_EXPORTED) /* that one's links are the memory list's */
		lru_remove(t);
	fd_close(t);
}

void staging_let_go(struct transfer *t)
{
	lru_remove(t);
	if (t->fd_users == 0)
		fd_close(t); /* else write-behind is still at work: staging_put closes it */
	t->staging_state = STAGING_NONE;
	t->staging_exists = false;
	t->entry_synced = false;
	t->staging_gen++;
}

void staging_abandon(struct transfer *t)
{
	staging_let_go(t);
	t->fallocated = 0;
	if (t->is_counted)
		atomic_fetch_add(&t->u->store->unallocated_bytes, t->allocated);
	t->allocated = 0;
}

static void lru_push(struct transfer *t)
{
	struct uploads *u = t->u;
	t->lru_next = NULL;
	t->lru_pprev = u->lru_tail;
	*u->lru_tail = t;
	u->lru_tail = &t->lru_next;
	u->lru_count++;
	if (u->lru_count > u->conf->io.open_files_max)
		staging_close(u->lru);
}

/* --- deleting --------------------------------------------------------------------------------- */

/* Not before the journal says that the transfer is over, or has another file: a crash in between would
 * leave a transfer whose file is gone, and one that was being published would be taken for exported
 * and fetched. While the journal has no room to say so, the file stays, and the request: freeing
 * space elsewhere lets the journal go on. */
struct unlink {
	struct op op;
	struct journal_waiter waiter;
	struct uploads *u;
	struct unlink *next; /* on u->unlinks */
	char name[];
};

static void on_unlinked(struct op *op)
{
	struct unlink *x = container_of(op, struct unlink, op);
	if (op->res < 0 && op->res != -ENOENT)
		log_warn("staging file could not be deleted", LZ("name", x->name), LE("error", op->res), NULL);
	free(x);
}

/* Their records were appended long ago, or are part of the next snapshot. */
static void on_unlinks_due(struct timer *timer)
{
	struct uploads *u = container_of(timer, struct uploads, unlinks_timer);
	struct unlink *x = u->unlinks;
	u->unlinks = NULL;
	while (x) {
		struct unlink *next = x->next;
		journal_wait(u->rt->journal, &x->waiter, JOURNAL_SYNCED);
		x = next;
	}
}

static void on_end_recorded(struct journal_waiter *w, int err)
{
	struct unlink *x = container_of(w, struct unlink, waiter);
	struct uploads *u = x->u;
	if (!err) {
		x->op.done = on_unlinked;
		ring_unlinkat(u->rt->ring, &x->op, u->store->staging_fd, x->name, 0);
		return;
	}
	if (!journal_waits_for_room(u->rt->journal)) {
		free(x); /* the restart that it takes may still want the file, or sweeps it */
		return;
	}
	x->next = u->unlinks;
	u->unlinks = x;
	u->unlinks_timer.fire = on_unlinks_due;
	if (!timer_is_armed(&u->unlinks_timer))
		timers_arm(&u->rt->timers, &u->unlinks_timer, ring_now_ms(u->rt->ring) + UNLINK_RETRY_MS);
}

/* When what has been appended so far is on the disk. */
static void delete_recorded(struct uploads *u, const char *name)
{
	size_t bytes = strlen(name) + 1;
	struct unlink *x = calloc(1, sizeof(*x) + bytes);
	if (!x)
		return; /* recovery sweeps it */
	memcpy(x->name, name, bytes);
	x->u = u;
	x->waiter.done = on_end_recorded;
	journal_wait(u->rt->journal, &x->waiter, JOURNAL_SYNCED);
}

void staging_delete(struct transfer *t)
{
	if (t->fd_users == 0 && t->staging_state != STAGING_OPENING)
		staging_close(t);
	if (!t->staging_exists || t->staging_state == STAGING_OPENING)
		return; /* OPENING: opened() comes back here */
	t->staging_exists = false;
	delete_recorded(t->u, t->staging);
}

void staging_fini_all(struct uploads *u)
{
	timers_disarm(&u->rt->timers, &u->unlinks_timer);
	while (u->unlinks) {
		struct unlink *x = u->unlinks;
		u->unlinks = x->next;
		free(x); /* as long as no record says so, the next start has the transfer again */
	}
}

/* --- opening ---------------------------------------------------------------------------------- */

/* A small file's blocks are reserved in the accounts only (store.h): the file system finds them when
 * it writes the file back, all at once, and fallocate would cost more than all else at its init. */
static uint64_t wanted_allocation(const struct transfer *t)
{
	bool reserves = t->u->conf->transfer.prealloc == CONF_RESERVE && t->has_meta && t->meta.has_size &&
		t->meta.size > PREALLOCATE_BYTES_MIN;
	return reserves && !t->no_fallocate ? t->meta.size : 0;
}

bool staging_preallocates(const struct transfer *t)
{
	return wanted_allocation(t) > 0;
}

static int call_open(struct op *op)
{
	const struct transfer *t = container_of(op, struct transfer, file_op);
	return sys_openat(t->u->store->staging_fd, t->staging, O_RDWR | O_CREAT, t->u->conf->export.file_mode | 0600);
}

static void open_start(struct transfer *t)
{
	t->staging_state = STAGING_OPENING;
	t->staging_exists = true;
	transfer_pin(t);
	t->file_op.done = on_opened;
	ring_call(t->u->rt->ring, &t->file_op, RING_FILES, call_open);
}

static void allocate_start(struct transfer *t)
{
	t->staging_state = STAGING_OPENING;
	lru_remove(t);
	transfer_pin(t);
	t->file_op.done = on_allocated;
	ring_fallocate(t->u->rt->ring, &t->file_op, t->fd, 0, 0, wanted_allocation(t));
}

bool staging_get(struct transfer *t)
{
	switch (t->staging_state) {
	case STAGING_NONE:
		if (t->broken && t->fd < 0)
			replace_start(t);
		else if (t->fd < 0)
			open_start(t);
		return false; /* else the one abandoned is still in use: staging_put goes on */
	case STAGING_OPENING:
	case STAGING_FAILED:
		return false;
	case STAGING_OPEN:
		break;
	}
	if (t->broken) {
		if (t->fd_users == 0)
			replace_start(t);
		return false; /* else the last who uses it goes on: staging_put */
	}
	if (t->fd < 0) {
		open_start(t);
		return false;
	}
	if (wanted_allocation(t) > t->fallocated) {
		allocate_start(t);
		return false;
	}
	lru_remove(t);
	t->fd_users++;
	return true;
}

void staging_put(struct transfer *t)
{
	assert(t->fd_users > 0);
	if (--t->fd_users > 0)
		return;
	if (t->staging_state == STAGING_OPENING)
		return; /* an operation on it is in flight: opened() goes on */
	if (t->staging_state == STAGING_NONE) {
		fd_close(t);
		if (!t->gone && t->state != TRANSFER_EXPORTED)
			transfer_step(t); /* who wants the file may open a new one */
	} else if (t->gone) {
		staging_close(t);
	} else if (t->broken) {
		if (t->state != TRANSFER_EXPORTED)
			transfer_step(t); /* who wants the file has it replaced */
	} else if (t->staging_state == STAGING_OPEN) {
		lru_push(t);
	}
}

static void opened(struct transfer *t, int err)
{
	t->staging_state = err ? STAGING_FAILED : STAGING_OPEN;
	t->staging_err = err;
	if (t->gone) {
		if (t->fd_users == 0)
			staging_close(t);
		staging_delete(t);
	} else {
		if (err)
			log_warn("staging file failed", LS("clientid", t->clientid, t->clientid_bytes),
				LS("fileid", t->fileid, t->fileid_bytes), LE("error", err), NULL);
		else if (t->fd_users == 0)
			lru_push(t);
		transfer_step(t);
		if (err && !t->gone)
			transfer_wake_gates(t); /* one may wait for a hash that can't be made now */
		if (t->staging_state == STAGING_FAILED) { /* told; the next one who wants the file tries anew */
			if (t->seeding && t->fd >= 0 && t->fd_users == 0)
				staging_close(t); /* so that it is opened, and seeded, again */
			t->staging_state = t->fd >= 0 ? STAGING_OPEN : STAGING_NONE;
			if (t->fd >= 0 && t->fd_users == 0 && !t->lru_pprev && !t->gone)
				lru_push(t);
			else if (t->gone && t->fd_users == 0)
				staging_close(t);
		}
	}
	transfer_unpin(t);
}

/* --- seeding ---------------------------------------------------------------------------------- */

/* On the helper thread: copies what the previous generation acknowledged as replays. Nothing else
 * touches the two covers while seeding is set. */
static int call_seed(struct op *op)
{
	struct transfer *t = container_of(op, struct transfer, file_op);
	const struct transfer *p = t->previous;
	t->seed_unsynced = false;
	int fd = sys_openat(t->u->store->export_fd, p->exported.path, O_RDONLY | O_NOFOLLOW, 0);
	if (fd < 0)
		return fd;
	int err = 0;
	struct extent e;
	for (uint64_t at = 0; !err && cover_next(&p->cover, at, &e); at = e.to)
		err = sys_copy_range(fd, e.from, t->fd, e.from, e.to - e.from);
	sys_close(fd);
	if (err)
		return err;
	/* They were acknowledged over a file that survives the machine. */
	err = sys_fsync(t->fd);
	t->seed_unsynced = err < 0;
	return err ? err : sys_fsync(t->u->store->staging_fd);
}

/* What was to be taken over has been, or never can be: a restart must not do it again, over what
 * came since. */
static void replays_forget(struct transfer *p)
{
	struct record r = {.type = RECORD_UNCOVER, .tid = p->tid, .from = 0, .to = UINT64_MAX};
	cover_fini(&p->cover);
	cover_init(&p->cover, p->u->conf->transfer.extents_max);
	journal_append(p->u->rt->journal, &r);
}

static void on_seeded(struct op *op)
{
	struct transfer *t = container_of(op, struct transfer, file_op);
	int err = is_shortage(op->res) ? op->res : 0;
	t->seeding = err != 0;
	if (op->res < 0) {
		/* A shortage passes: the next who wants the file tries again. Else the consumer took the
		 * export away meanwhile: those ranges are missing again, and fin will say so. */
		log_warn("replayed ranges could not be taken over", LS("clientid", t->clientid, t->clientid_bytes),
			LS("fileid", t->fileid, t->fileid_bytes), LE("error", op->res), NULL);
		if (t->seed_unsynced && !t->gone)
			transfer_lose(t, op->res);
	} else if (!t->gone) {
		t->entry_synced = true;
		struct extent e;
		for (uint64_t at = 0; cover_next(&t->previous->cover, at, &e); at = e.to) {
			struct record r = {.type = RECORD_SYNCED, .tid = t->tid, .from = e.from, .to = e.to};
			if (transfer_add_synced(t, e.from, e.to) == 0)
				journal_append(t->u->rt->journal, &r);
		}
	}
	if (!t->seeding && !t->gone)
		replays_forget(t->previous);
	opened(t, err);
}

static void seed_or_done(struct transfer *t)
{
	if (!t->seeding || t->gone) {
		opened(t, 0);
		return;
	}
	t->file_op.done = on_seeded;
	ring_call(t->u->rt->ring, &t->file_op, RING_RARE, call_seed);
}

void staging_seed(struct transfer *t)
{
	t->seeding = true;
	if (staging_get(t))
		staging_put(t);
}

/* --- completions ------------------------------------------------------------------------------ */

static void on_opened(struct op *op)
{
	struct transfer *t = container_of(op, struct transfer, file_op);
	if (op->res < 0) {
		opened(t, op->res);
		return;
	}
	t->fd = op->res;
	if (wanted_allocation(t) > t->fallocated && !t->gone) {
		t->file_op.done = on_allocated;
		ring_fallocate(t->u->rt->ring, &t->file_op, t->fd, 0, 0, wanted_allocation(t));
	} else {
		seed_or_done(t);
	}
}

static void on_allocated(struct op *op)
{
	struct transfer *t = container_of(op, struct transfer, file_op);
	if (op->res == -EOPNOTSUPP) {
		t->no_fallocate = true;
		seed_or_done(t);
		return;
	}
	if (op->res < 0) {
		/* A failed fallocate leaves blocks behind: cut them off before anybody is told.
		 * What is covered stays. */
		struct extent e;
		uint64_t end = 0;
		for (uint64_t at = 0; cover_next(&t->cover, at, &e); at = e.to)
			end = e.to;
		if (t->segs && t->segs_end > end)
			end = t->segs_end; /* bytes of segments under way */
		t->staging_err = op->res;
		t->file_op.done = on_truncated;
		ring_ftruncate(t->u->rt->ring, &t->file_op, t->fd, end);
		return;
	}
	t->fallocated = t->meta.size;
	if (t->is_counted && t->fallocated > t->allocated) {
		uint64_t allocated = t->fallocated < t->reserved ? t->fallocated : t->reserved;
		store_allocated(t->u->store, allocated - t->allocated);
		t->allocated = allocated;
	}
	seed_or_done(t);
}

static void on_truncated(struct op *op)
{
	struct transfer *t = container_of(op, struct transfer, file_op);
	opened(t, t->staging_err);
}

/* --- replacing -------------------------------------------------------------------------------- */

/* Extents are copied from a list: the helper thread can't look at what the loop may change. */
struct replace {
	struct op op;
	struct transfer *t;
	struct uploads *u;
	char *old_name, *name;    /* owned */
	int old_fd, fd;
	uint32_t count;
	struct extent extents[];
};

static void replace_free(struct replace *x)
{
	free(x->old_name);
	free(x->name);
	free(x);
}

static int call_replace(struct op *op)
{
	struct replace *x = container_of(op, struct replace, op);
	int dir = x->u->store->staging_fd, old = x->old_fd, err = 0;
	x->fd = sys_openat(dir, x->name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (x->fd < 0)
		return x->fd;
	if (x->count && old < 0)
		err = old = sys_openat(dir, x->old_name, O_RDONLY, 0);
	for (uint32_t i = 0; err >= 0 && i < x->count; i++)
		err = sys_copy_range(old, x->extents[i].from, x->fd, x->extents[i].from,
			x->extents[i].to - x->extents[i].from);
	if (old >= 0 && old != x->old_fd)
		sys_close(old);
	if (err >= 0)
		err = sys_fsync(x->fd);
	if (err >= 0)
		err = sys_fsync(dir);
	if (err < 0) {
		sys_close(x->fd);
		(void)sys_unlinkat(dir, x->name, 0);
	}
	return err < 0 ? err : 0;
}

static void replaced(struct transfer *t, struct replace *x)
{
	struct record r = {.type = RECORD_STAGING, .tid = t->tid, .text = x->name,
		.text_bytes = (uint32_t)strlen(x->name)};
	fd_close(t);
	t->fd = x->fd;
	free(t->staging);
	t->staging = x->name;
	x->name = NULL;
	t->staging_exists = true;
	t->broken = false;
	t->entry_synced = true;
	t->fallocated = 0;
	if (t->is_counted)
		atomic_fetch_add(&t->u->store->unallocated_bytes, t->allocated);
	t->allocated = 0;
	journal_append(t->u->rt->journal, &r);
	/* Once it knows the new name, what the journal may say of the old one is not believed any more. */
	delete_recorded(t->u, x->old_name);
	log_info("staging file replaced", LS("clientid", t->clientid, t->clientid_bytes),
		LS("fileid", t->fileid, t->fileid_bytes), LU("copied", t->synced.bytes), NULL);
}

static void on_replaced(struct op *op)
{
	struct replace *x = container_of(op, struct replace, op);
	struct transfer *t = x->t;
	int err = op->res;
	/* What can't be read back is not there; the next try has less to copy. */
	if (err && !is_shortage(err) && !t->gone && x->count > 0)
		transfer_uncover(t, 0, UINT64_MAX);
	if (!err)
		replaced(t, x);
	replace_free(x);
	if (err)
		opened(t, err);
	else
		seed_or_done(t);
}

/* A name that the transfer's file has not had yet: a number behind a dot, which no first name has.
 * NULL: out of memory. */
static char *next_name(const char *name)
{
	const char *dot = strrchr(name, '.');
	size_t digits = dot ? strspn(dot + 1, "0123456789") : 0;
	bool is_first = digits == 0 || dot[1 + digits];
	char *next = NULL;
	if (asprintf(&next, "%.*s.%lu", (int)(is_first ? strlen(name) : (size_t)(dot - name)), name,
		is_first ? 1 : strtoul(dot + 1, NULL, 10) + 1) < 0)
		return NULL;
	return next;
}

static void replace_start(struct transfer *t)
{
	uint32_t count = t->synced.count;
	struct replace *x = calloc(1, sizeof(*x) + count * sizeof(x->extents[0]));
	struct extent e;
	assert(t->fd_users == 0);
	if (x) {
		x->old_name = strdup(t->staging);
		x->name = next_name(t->staging);
	}
	if (!x || !x->old_name || !x->name) {
		if (x)
			replace_free(x);
		return; /* the next who wants the file tries again */
	}
	for (uint64_t at = 0; x->count < count && cover_next(&t->synced, at, &e); at = e.to)
		x->extents[x->count++] = e;
	x->t = t;
	x->u = t->u;
	x->old_fd = t->fd;
	x->op.done = on_replaced;
	t->staging_state = STAGING_OPENING;
	lru_remove(t);
	transfer_pin(t);
	ring_call(t->u->rt->ring, &x->op, RING_RARE, call_replace);
}
