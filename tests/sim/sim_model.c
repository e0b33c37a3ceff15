/*
 * sim_model.h: commands and blocks. Exports are sim_exports.c's.
 */
#include "sim_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "sha256.h"
#include "sim_client.h"
#include "sim_disk.h"
#include "sim_exports.h"

struct model_conf model;

static struct file *files[64];
static uint32_t files_count;

void model_reset(const struct model_conf *conf)
{
	model = *conf;
	files_count = 0;
}

void model_add_file(struct file *f)
{
	files[files_count++] = f;
}

struct file *model_file(uint32_t idx)
{
	return idx < files_count ? files[idx] : NULL;
}

/* --- content ---------------------------------------------------------------------------------- */

static uint64_t word_at(uint64_t key, uint64_t idx)
{
	uint64_t z = key + idx * 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	return z ^ (z >> 27);
}

void model_fill(const struct file *f, uint8_t stamp, uint64_t off, uint64_t len, uint8_t *ret)
{
	uint64_t key = ((uint64_t)f->client->idx << 40) + ((uint64_t)f->idx << 32) + stamp * 7919u + 1;
	for (uint64_t i = 0; i < len;) {
		uint64_t at = off + i, word = word_at(key * 0xd6e8feb86659fd93u, at / 8);
		uint32_t in = (uint32_t)(at % 8), n = 8 - in;
		n = n < len - i ? n : (uint32_t)(len - i);
		memcpy(ret + i, (const uint8_t *)&word + in, n);
		i += n;
	}
}

bool model_same(const struct file *f, uint32_t block, uint8_t stamp, uint8_t other)
{
	uint8_t a[256], b[256];
	if (stamp == other || f->block_bytes > sizeof(a))
		return stamp == other;
	model_fill(f, stamp, (uint64_t)block * f->block_bytes, f->block_bytes, a);
	model_fill(f, other, (uint64_t)block * f->block_bytes, f->block_bytes, b);
	return memcmp(a, b, f->block_bytes) == 0;
}

void model_digest(const struct file *f, uint8_t stamp, uint32_t blocks, uint8_t ret[32])
{
	uint8_t stamps[MODEL_BLOCKS_MAX];
	memset(stamps, stamp, sizeof(stamps));
	model_digest_of(f, stamps, blocks, ret);
}

void model_digest_of(const struct file *f, const uint8_t *stamps, uint32_t blocks, uint8_t ret[32])
{
	struct sha256 sha;
	uint8_t *block = sim_alloc(f->block_bytes);
	sha256_init(&sha);
	for (uint32_t i = 0; i < blocks; i++) {
		model_fill(f, stamps[i], (uint64_t)i * f->block_bytes, f->block_bytes, block);
		sha256_update(&sha, block, f->block_bytes);
	}
	sha256_digest(&sha, ret);
	sim_free(block);
}

/* --- blocks ----------------------------------------------------------------------------------- */

static bool is_promised(const struct file *f, const struct block *b)
{
	for (uint32_t i = 0; i < b->maybes; i++) {
		if (!b->maybe[i].is_equal)
			return false;
	}
	return b->acked.seq > f->guard && b->older == 0 && sim.now_ns < f->active_ns + model.ttl_ns;
}

/* Is it there, with this stamp alone? */
static bool is_sure(const struct file *f, uint32_t block, uint8_t stamp)
{
	const struct block *b = &f->b[block];
	return is_promised(f, b) && f->open_ends == 0 && b->acked.stamp == stamp;
}

bool model_is_only(const struct file *f, uint32_t block, uint8_t stamp)
{
	const struct block *b = &f->b[block];
	for (uint32_t i = 0; i < b->maybes; i++) {
		if (b->maybe[i].stamp != stamp)
			return false;
	}
	return b->acked.seq > 0 && b->acked.stamp == stamp && b->older == 0;
}

/* Forgets the later writes up to a command. */
static void maybes_drop(struct block *b, uint32_t seq)
{
	uint32_t keep = 0;
	for (uint32_t i = 0; i < b->maybes; i++) {
		if (b->maybe[i].seq > seq)
			b->maybe[keep++] = b->maybe[i];
	}
	b->maybes = keep;
	if (b->older_seq < seq)
		b->older = 0;
}

static void maybe_add(struct block *b, struct write w)
{
	if (b->maybes == MODEL_MAYBES_MAX) {
		b->older |= (uint8_t)(1u << b->maybe[0].stamp);
		b->older_seq = b->maybe[0].seq;
		memmove(b->maybe, b->maybe + 1, --b->maybes * sizeof(b->maybe[0]));
	}
	b->maybe[b->maybes++] = w;
}

static void raise_guard(struct file *f, uint32_t seq)
{
	if (f->guard < seq)
		f->guard = seq;
}

/* Where every block is promised with these very bytes, writing them again changes nothing. */
static bool is_harmless(const struct cmd *c)
{
	for (uint32_t i = c->from; i < c->to; i++) {
		if (!is_sure(c->file, i, c->stamp))
			return false;
	}
	return true;
}

/* Do none of the blocks have other bytes, whichever writes have happened? Then nothing of what was
 * acknowledged is taken out of coverage, also where other blocks are new. */
static bool is_equal(const struct cmd *c)
{
	const struct file *f = c->file;
	for (uint32_t i = c->from; i < c->to; i++) {
		const struct block *b = &f->b[i];
		if (b->older || (b->acked.seq && !model_same(f, i, b->acked.stamp, c->stamp)))
			return false;
		for (uint32_t k = 0; k < b->maybes; k++) {
			if (!model_same(f, i, b->maybe[k].stamp, c->stamp))
				return false;
		}
	}
	return true;
}

/* --- sent ------------------------------------------------------------------------------------- */

void model_sent(struct cmd *c)
{
	struct file *f = c->file;
	if (c->verb == VERB_FIN || c->verb == VERB_ABORT)
		f->open_ends++;
	if (c->verb != VERB_SEGMENT || c->wrong_sum)
		return;
	c->harmless = is_harmless(c);
	struct write w = {.seq = c->seq, .stamp = c->stamp, .is_equal = is_equal(c)};
	for (uint32_t i = c->from; i < c->to && !c->harmless; i++)
		maybe_add(&f->b[i], w);
}

static void segment_acked(struct cmd *c)
{
	if (c->wrong_sum)
		sim_fail("%s %s: a segment with a wrong checksum was taken (command %u)",
			c->file->client->id, c->file->id, c->seq);
	for (uint32_t i = c->from; i < c->to; i++) {
		struct block *b = &c->file->b[i];
		if (b->acked.seq > c->seq)
			continue;
		b->acked = (struct write){.seq = c->seq, .known = c->file->client->seq, .stamp = c->stamp};
		maybes_drop(b, c->seq);
	}
}

/* --- what is said to be missing --------------------------------------------------------------- */

/* Was the block acknowledged as a replay of what is exported? A generation that has just begun
 * may not have it yet; before its fin it will. */
static bool is_on_its_way(struct file *f, uint32_t block)
{
	const struct export *e = model_last_export(f);
	return e && block < e->blocks && model_same(f, block, e->stamps[block], f->b[block].acked.stamp);
}

/* A replay that the next generation could not copy, because the disk failed, is missing again; a fin
 * says so. */
static bool may_be_uncopied(struct file *f, uint32_t block)
{
	return disk.faults_count > 0 && is_on_its_way(f, block);
}

static void check_missing(const struct cmd *c, const struct answer_seen *a, const char *what)
{
	struct file *f = c->file;
	if (f->open_ends > (c->verb == VERB_FIN))
		return;
	for (uint32_t i = 0; i < MODEL_BLOCKS_MAX; i++) {
		uint64_t from = (uint64_t)i * f->block_bytes, to = from + f->block_bytes;
		if (!is_promised(f, &f->b[i]) || f->b[i].acked.seq > c->seq)
			continue;
		/* A status says what there is when it comes, and does not wait for what is under
		 * way; a fin does. */
		if (c->verb == VERB_STATUS && (f->b[i].acked.known >= c->seq || is_on_its_way(f, i)))
			continue;
		if (may_be_uncopied(f, i))
			continue;
		for (uint32_t k = 0; k < a->missing_count; k++) {
			if (a->missing[k][0] < to && from < a->missing[k][1])
				sim_fail("%s %s: block %u was acknowledged (command %u), but %s says that "
					"[%" PRIu64 ",%" PRIu64 ") is missing", f->client->id, f->id, i,
					f->b[i].acked.seq, what, a->missing[k][0], a->missing[k][1]);
		}
	}
}

static bool anything_promised(const struct file *f, uint32_t before)
{
	for (uint32_t i = 0; i < MODEL_BLOCKS_MAX; i++) {
		if (is_promised(f, &f->b[i]) && f->b[i].acked.known < before)
			return true;
	}
	return f->init_seq > f->guard && f->init_seq < before && sim.now_ns < f->active_ns + model.ttl_ns;
}

/* An export that the status may be about: the last one when it was sent, or one since. */
static const struct export *export_meant(const struct cmd *c, uint64_t size)
{
	const struct file *f = c->file;
	for (uint32_t i = f->exports_count; i-- > 0;) {
		const struct export *e = &f->exports[i];
		if (size == (uint64_t)e->blocks * f->block_bytes)
			return e;
		if (e->seq < c->seq)
			break;
	}
	return NULL;
}

static void check_status(const struct cmd *c, const struct answer_seen *a)
{
	struct file *f = c->file;
	if (!a->has_status)
		sim_fail("%s %s: an answer to status without a status", f->client->id, f->id);
	if (f->open_ends > 0)
		return;
	if (strcmp(a->state, "none") == 0) {
		if (anything_promised(f, c->seq))
			sim_fail("%s %s: forgotten, but something was acknowledged", f->client->id, f->id);
		const struct export *e = model_last_export(f);
		if (e && e->acked && e->seq < c->seq)
			sim_fail("%s %s: forgotten, but %s was exported", f->client->id, f->id, e->path);
	} else if (strcmp(a->state, "exported") == 0) {
		const struct export *e = model_last_export(f);
		if (!e || !export_meant(c, a->size))
			sim_fail("%s %s: said to be exported with %" PRIu64 " bytes, but it is not",
				f->client->id, f->id, a->size);
		for (uint32_t i = 0; i < MODEL_BLOCKS_MAX; i++) {
			const struct block *b = &f->b[i];
			if (is_promised(f, b) && b->acked.known < c->seq &&
				(i >= e->blocks || !model_same(f, i, e->stamps[i], b->acked.stamp)))
				sim_fail("%s %s: block %u was acknowledged with other bytes than those "
					"exported, and is forgotten", f->client->id, f->id, i);
		}
	} else {
		check_missing(c, a, "status");
	}
}

/* --- fin -------------------------------------------------------------------------------------- */

/* Every block of the fin is there, and with which bytes. */
static bool content_is_sure(const struct cmd *c, uint8_t *ret_stamps)
{
	struct file *f = c->file;
	if (f->open_ends > 1 || f->init_seq <= f->guard || f->init_seq > c->seq)
		return false;
	for (uint32_t i = 0; i < c->size; i++) {
		if (!is_promised(f, &f->b[i]) || f->b[i].acked.seq > c->seq || may_be_uncopied(f, i))
			return false;
		ret_stamps[i] = f->b[i].acked.stamp;
	}
	return true;
}

/* Which bytes each block of the fin has, if it is there at all; so what is said to be there after a
 * crash or a failing disk is held to it, too. But a syncfs that failed may have lost bytes of files
 * that were not in its round, which only their own sync tells: until then they read as something
 * else. */
static bool content_is_known(const struct cmd *c, uint8_t *ret_stamps)
{
	struct file *f = c->file;
	const struct export *e = model_last_export(f);
	for (uint32_t i = 0; i < c->size; i++) {
		const struct block *b = &f->b[i];
		bool may_be_replay = b->acked.seq <= f->guard && e && i < e->blocks &&
			e->stamps[i] != b->acked.stamp;
		bool may_be_lost = b->acked.seq <= f->guard && disk.syncfs_failures > 0;
		if (b->acked.seq > c->seq || may_be_replay || may_be_lost || !model_is_only(f, i, b->acked.stamp))
			return false;
		ret_stamps[i] = b->acked.stamp;
	}
	return f->open_ends <= 1;
}

static bool is_transient(const char *text)
{
	return strcmp(text, "io_error") == 0 || strcmp(text, "enospc") == 0 ||
		strcmp(text, "quota_exceeded") == 0;
}

static void fin_refused(const struct cmd *c, const struct answer_seen *a)
{
	const struct file *f = c->file;
	uint8_t stamps[MODEL_BLOCKS_MAX], digest[32];
	bool is_sure = content_is_sure(c, stamps);
	const char *who = f->client->id;
	if (is_transient(a->text) || strcmp(a->text, "aborted") == 0) {
		if (is_transient(a->text) && !model.faults)
			sim_fail("%s %s: fin failed (%s) on a sound disk", who, f->id, a->text);
		return;
	}
	if (strcmp(a->text, "incomplete") == 0) {
		check_missing(c, a, "fin");
		if (is_sure)
			sim_fail("%s %s: fin is refused as incomplete, but all was acknowledged", who, f->id);
	} else if (strcmp(a->text, "checksum_mismatch") == 0) {
		bool is_known = content_is_known(c, stamps);
		if (is_known)
			model_digest_of(f, stamps, c->size, digest);
		if (is_known && c->has_sum && memcmp(digest, c->sum, 32) == 0)
			sim_fail("%s %s: the checksum is said to be wrong, but it is right", who, f->id);
		if (is_known && a->has_actual && memcmp(digest, a->actual, 32) != 0)
			sim_fail("%s %s: the digest of something else was computed", who, f->id);
	} else if (strcmp(a->text, "size_mismatch") != 0) {
		sim_fail("%s %s: fin failed for a reason unheard of: %s", who, f->id, a->text);
	}
}

static void fin_done(struct cmd *c)
{
	struct file *f = c->file;
	struct export *e = NULL;
	for (uint32_t i = f->exports_count; i-- > 0 && !e;) {
		struct export *one = &f->exports[i];
		if (one->blocks == c->size && (!c->has_sum || memcmp(one->digest, c->sum, 32) == 0))
			e = one;
	}
	if (!e)
		sim_fail("%s %s: fin succeeded, but no such file is exported", f->client->id, f->id);
	e->acked = true;
	raise_guard(f, c->seq);
}

/* --- results ---------------------------------------------------------------------------------- */

static void check_reason(const struct cmd *c, const struct answer_seen *a)
{
	bool is_known = is_transient(a->text) || strcmp(a->text, "checksum_mismatch") == 0 ||
		strcmp(a->text, "filemeta_conflict") == 0 || strcmp(a->text, "aborted") == 0;
	if (is_transient(a->text) && !model.faults)
		sim_fail("%s %s: command %u failed (%s) on a sound disk", c->file->client->id,
			c->file->id, c->seq, a->text);
	if (a->text[0] && !is_known)
		sim_fail("%s %s: command %u failed for a reason unheard of: %s", c->file->client->id,
			c->file->id, c->seq, a->text);
	/* One that repeats what is there is compared with it, which a syncfs that failed may have lost, too. */
	bool may_be_lost = false;
	for (uint32_t i = c->from; disk.syncfs_failures > 0 && i < c->to && i < MODEL_BLOCKS_MAX; i++)
		may_be_lost = may_be_lost || c->file->b[i].acked.seq <= c->file->guard;
	if (c->verb == VERB_SEGMENT && strcmp(a->text, "checksum_mismatch") == 0 && !c->wrong_sum && !may_be_lost)
		sim_fail("%s %s: a segment's checksum is said to be wrong, but it is right (command %u)",
			c->file->client->id, c->file->id, c->seq);
}

void model_result(struct cmd *c, const struct answer_seen *a)
{
	struct file *f = c->file;
	bool ok = a->reason < 0x80;
	c->known = true;
	if (f->active_ns && sim.now_ns >= f->active_ns + model.ttl_ns)
		raise_guard(f, c->seq - 1); /* it may have been collected meanwhile */
	if (ok && (c->verb == VERB_SEGMENT || c->verb == VERB_INIT) && f->active_ns < c->sent_ns)
		f->active_ns = c->sent_ns;
	if (!ok && c->verb != VERB_FIN)
		check_reason(c, a);
	switch (c->verb) {
	case VERB_INIT:
		if (ok && f->init_seq < c->seq)
			f->init_seq = c->seq;
		break;
	case VERB_SEGMENT:
		if (ok)
			segment_acked(c);
		break;
	case VERB_FIN:
		if (ok)
			fin_done(c);
		else
			fin_refused(c, a);
		f->has_failed = !ok && is_transient(a->text);
		if (f->has_failed)
			raise_guard(f, c->seq);
		f->open_ends--;
		break;
	case VERB_ABORT:
		raise_guard(f, c->seq);
		f->open_ends--;
		for (uint32_t i = 0; i < MODEL_BLOCKS_MAX && ok; i++) {
			struct block *b = &f->b[i];
			if (b->acked.seq < c->seq)
				b->acked = (struct write){0};
			maybes_drop(b, c->seq);
		}
		break;
	case VERB_STATUS:
		if (ok)
			check_status(c, a);
		break;
	}
}

void model_lost(struct cmd *c)
{
	if (c->known)
		return;
	c->known = true;
	if (c->verb == VERB_FIN || c->verb == VERB_ABORT) {
		raise_guard(c->file, c->seq);
		c->file->open_ends--;
	}
}

/* Nothing is promised any more, but what was exported. */
void model_bytes_lost(void)
{
	for (uint32_t i = 0; i < files_count; i++)
		raise_guard(files[i], files[i]->client->seq);
}

void model_machine_crashed(void)
{
	if (!model.power)
		model_bytes_lost();
}
