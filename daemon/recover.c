/*
 * recover.h.
 *
 *     newest set of journals ──► a past per transfer id ──► transfers ──► staging files swept ──► the next set
 *
 * Of each reactor's files the newest that holds a whole checkpoint counts; an older one is only
 * still there because the machine died in a rotation. Records are applied to the pasts in the order
 * of the files; then the pasts become transfers, older generations first.
 *
 * What is believed: with the page cache surely alive (same boot and file system as when the set was
 * written) every journaled extent that lies within the staging file. Otherwise only what is marked
 * synced, and a transfer whose publish had begun (its file was fsynced first); the rest is received
 * again. All of that is said in the log.
 *
 * A journal file ends at its first bad record. That is where the daemon stopped, or the machine: the
 * last pages of a file reach the disk in any order, so after a power cut good records may lie behind
 * the end. It is damage when the page cache is alive and yet something lies there, or when one of
 * the records there is a mark that the file was on the disk further than this. A damaged file is set
 * aside and reported; what was read of it, and the rest, are served. It stays where it is until the
 * next set is the newest, since the good part of it is read again by whoever repeats this start.
 *
 * Staging files that nobody knows are set aside, too (recover_sweep.c), and before the journal that
 * explains why, so a start that is cut short here is repeated by the next.
 *
 * Files: recover.c journals, the next set, the whole; recover_past.c records → pasts;
 * recover_restore.c pasts → transfers; recover_sweep.c the staging directory.
 */
#include "recover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "log.h"
#include "recover_impl.h"

enum { TELL_MS = 1000, TELL_RECORDS = 4096 };

void recover_tell(struct recovery *rc)
{
	uint64_t now = sys_mono_ms();
	if (now < rc->told_ms + TELL_MS)
		return;
	rc->told_ms = now;
	log_info("recovering", LU("records", rc->records), LU("journal_bytes", rc->read_bytes),
		LU("of_bytes", rc->files_bytes), LU("transfers_seen", rc->pasts_count),
		LU("transfers_ready", rc->restored), LU("ms", now - rc->began_ms), NULL);
}

/* --- files ------------------------------------------------------------------------------------ */

static int on_name(void *arg, const char *name)
{
	struct recovery *rc = arg;
	unsigned idx;
	unsigned long long seq;
	char check[JOURNAL_NAME_MAX];
	if (sscanf(name, "r%u-%llu.log", &idx, &seq) != 2)
		return 0;
	journal_file_name(idx, seq, check);
	if (strcmp(check, name) != 0)
		return 0;
	if (rc->files_count == RECOVER_FILES_MAX)
		return -E2BIG;
	struct recover_file *f = &rc->files[rc->files_count++];
	struct sys_stat st;
	if (sys_stat_at(rc->set.fd, name, &st) == 0)
		rc->files_bytes += st.size;
	f->reactor_idx = idx;
	f->seq = seq;
	snprintf(f->name, sizeof(f->name), "%s", name);
	if (seq > rc->seq_max)
		rc->seq_max = seq;
	return 0;
}

/* Newest first. */
static int by_seq_down(const void *a, const void *b)
{
	const struct recover_file *x = a, *y = b;
	return x->seq < y->seq ? 1 : x->seq > y->seq ? -1 : 0;
}

/* The whole file: malloc'ed, or NULL with *ret_err. */
static uint8_t *load(const struct recovery *rc, const struct recover_file *f, size_t *ret_bytes, int *ret_err)
{
	struct sys_stat st;
	uint8_t *buf = NULL;
	int fd = sys_openat(rc->set.fd, f->name, O_RDONLY, 0);
	if (fd < 0) {
		*ret_err = fd;
		return NULL;
	}
	int err = sys_fstat(fd, &st);
	if (!err && !(buf = malloc(st.size + 1)))
		err = -ENOMEM;
	int64_t n = err ? err : sys_pread(fd, buf, st.size, 0);
	sys_close(fd);
	if (n < 0) {
		free(buf);
		*ret_err = (int)n;
		return NULL;
	}
	*ret_bytes = (size_t)n;
	return buf;
}

static bool has_whole_checkpoint(struct record_reader reader)
{
	struct record r;
	while (record_next(&reader, &r) == 1) {
		if (r.type == RECORD_CHECKPOINT_END)
			return true;
	}
	return false;
}

static void note_damage(struct recovery *rc, struct recover_file *f, int err)
{
	f->damaged = rc->damaged = true;
	f->err = err;
}

/* Is the end of the records, where the reader stands, where they were lost rather than where they
 * were written to? */
static bool end_is_damage(const struct recovery *rc, struct record_reader reader)
{
	uint64_t end = reader.off + RECORD_HEADER_BYTES;
	struct record r;
	while (record_skip(&reader)) {
		if (rc->set.cache_alive)
			return true;
		while (record_next(&reader, &r) == 1) {
			if (r.type == RECORD_SYNC_MARK && r.size > end)
				return true;
		}
	}
	return false;
}

/* 0, also when it ends in damage; −ENOMEM. */
static int read_records(struct recovery *rc, struct recover_file *f, struct record_reader *reader)
{
	struct record r;
	int got;
	while ((got = record_next(reader, &r)) == 1) {
		int err = recover_apply(rc, &r);
		if (err)
			return err;
		if (rc->records % TELL_RECORDS == 0) {
			uint64_t before = rc->read_bytes;
			rc->read_bytes += reader->off;
			recover_tell(rc);
			rc->read_bytes = before;
		}
	}
	if (got < 0 || end_is_damage(rc, *reader)) {
		log_error("journal damaged: what follows in this file is not read", LZ("file", f->name),
			LU("offset", reader->off + RECORD_HEADER_BYTES), NULL);
		note_damage(rc, f, got < 0 ? got : -EBADMSG);
	}
	return 0;
}

/* 1: read; 0: no whole checkpoint in it; −errno: −EBADMSG, −EINVAL, −EPROTO or of reading. */
static int read_file(struct recovery *rc, struct recover_file *f)
{
	size_t bytes = 0;
	int err = 0;
	uint32_t idx;
	uint64_t salt, seq;
	uint8_t *buf = load(rc, f, &bytes, &err);
	if (!buf)
		return err;
	err = record_header_decode(buf, bytes, &salt, &seq, &idx);
	struct record_reader reader = {.buf = buf + RECORD_HEADER_BYTES, .salt = salt};
	if (!err) {
		reader.buf_bytes = bytes - RECORD_HEADER_BYTES;
		err = has_whole_checkpoint(reader) ? 1 : 0;
	}
	if (err == 1) {
		int failed = read_records(rc, f, &reader);
		err = failed ? failed : 1;
	}
	rc->read_bytes += bytes;
	free(buf);
	return err;
}

static int read_files(struct recovery *rc)
{
	int err = rc->set.fd < 0 ? 0 : sys_list_dir(rc->set.fd, on_name, rc);
	if (err)
		return err;
	qsort(rc->files, rc->files_count, sizeof(rc->files[0]), by_seq_down);
	for (uint32_t i = 0; i < rc->files_count; i++) {
		struct recover_file *f = &rc->files[i];
		bool newer_used = false;
		for (uint32_t k = 0; k < i; k++)
			newer_used = newer_used || (rc->files[k].used && rc->files[k].reactor_idx == f->reactor_idx);
		if (newer_used)
			continue;
		err = read_file(rc, f);
		if (err == 1)
			f->used = true;
		else if (err == -ENOMEM || err == -EIO || err == -EACCES || err == -EMFILE || err == -EPROTO)
			return err;
		else
			note_damage(rc, f, err); /* a file gets its name when it is whole */
	}
	return 0;
}

/* --- the next set ----------------------------------------------------------------------------- */

static int start_journals(struct recovery *rc, struct reactor **reactors, uint32_t count)
{
	int err = journal_set_begin(rc->store);
	for (uint32_t i = 0; !err && i < count; i++)
		err = journal_new(reactors[i], rc->store, rc->seq_max + 1, uploads_checkpoint,
			reactors[i]->uploads, &reactors[i]->journal);
	if (!err)
		err = journal_set_commit(rc->store, &rc->set);
	if (err)
		return err; /* the old set is whole, damaged files and all: the next start repeats this one */
	for (uint32_t i = 0; i < rc->files_count; i++) {
		if (rc->files[i].damaged)
			journal_set_aside(rc->store, &rc->set, rc->files[i].name, rc->files[i].err);
	}
	journal_set_wipe_older(rc->store, &rc->set);
	for (uint32_t i = 0; i < count; i++)
		journal_reserve_next(reactors[i]->journal); /* the old set has given its room back */
	return 0;
}

static void recovery_free(struct recovery *rc)
{
	recover_pasts_free(rc);
	journal_set_close(&rc->set);
	free(rc);
}

int recover_run(struct reactor **reactors, uint32_t count, char *ret_error, size_t error_max)
{
	struct recovery *rc = calloc(1, sizeof(*rc));
	int err = rc ? 0 : -ENOMEM;
	if (rc)
		rc->set.fd = -1;
	for (uint32_t i = 0; !err && i < count; i++) {
		reactors[i]->uploads = uploads_new(reactors[i], reactors[i]->store);
		if (!reactors[i]->uploads)
			err = -ENOMEM;
	}
	if (!err) {
		rc->began_ms = rc->told_ms = sys_mono_ms();
		rc->store = reactors[0]->store;
		rc->conf = reactors[0]->conf;
		err = journal_set_open(rc->store, &rc->set);
	}
	if (!err)
		err = read_files(rc);
	if (!err)
		err = recover_restore(rc, reactors, count);
	if (!err)
		err = recover_sweep(rc, reactors, count);
	if (!err) {
		atomic_store(&rc->store->next_tid, rc->tid_max + 1);
		err = start_journals(rc, reactors, count);
	}
	if (!err) {
		if (rc->records > count)
			log_info("recovered", LU("records", rc->records), LU("transfers", rc->pasts_count),
				LU("transfers_with_losses", rc->lost), LU("lost_bytes", rc->lost_bytes),
				LU("ms", sys_mono_ms() - rc->began_ms), NULL);
	} else if (err == -EPROTO) {
		snprintf(ret_error, error_max, "the journal in %s was written by a newer sluiced: run that version, "
			"or empty the directory", rc->conf->data);
	} else {
		snprintf(ret_error, error_max, "the journal in %s/journal can't be used: %s: free space there, or "
			"give this user the right to write", reactors[0]->conf->data, strerror(-err));
	}
	if (rc)
		recovery_free(rc);
	return err;
}
