/*
 * What a transfer must hold: the model behind test_upload_model.c. It knows the protocol's rules,
 * and of the daemon no more than which transfer a name stands for.
 *
 * A file is a row of blocks; a segment writes some of them with its stamp, from which every byte
 * follows, so an exported file says which write each block came from. For each block the model
 * keeps the stamps that it may have and whether it is there: the last acknowledged write wins; one
 * that was never answered, because the process died, may have happened or not, or may have left
 * its range missing, since a range is taken out of coverage before other bytes are written over
 * it.
 *
 * Commands stand in a log in order of arrival, and take effect in the model in that order, once
 * they are answered: what comes later in the log is not waited for. A crash empties the log: each
 * unanswered command may have happened.
 *
 * After an export the blocks are those of the next generation; the exported version stays beside
 * them.
 *
 * What only the daemon can know (did the export that nobody was told of happen?) model_resolve
 * asks it, and checks that it is one of the things that may be.
 */
#ifndef SLUICE_TEST_UPLOAD_MODEL_H
#define SLUICE_TEST_UPLOAD_MODEL_H

#include "upload_bench.h"

enum { FILES = 3, BLOCKS = 24, STAMPS = 60, LOG_MAX = 64, VERSIONS_MAX = 64, PATH_BYTES = 160 };

/* Variants of metadata. */
enum { META_NONE, META_A, META_A_SIZED, META_B, META_WRONG_SUM, METAS };
static const char *const meta_names[METAS] = {"", "a", "a sized", "b", "c"};

enum presence { MISSING, MAYBE, COVERED };
enum known { NO, YES, UNKNOWN };

struct block {
	uint64_t stamps; /* bit n: stamp n */
	enum presence presence;
};

/* An exported file. */
struct version {
	uint64_t tid;     /* given again after a restart, when no record has it any more */
	int64_t at_ms;    /* when it was exported */
	uint32_t size; /* in blocks */
	uint8_t stamps[BLOCKS], digest[32];
	uint32_t meta;
	bool taken; /* the consumer has taken it away */
	char path[PATH_BYTES];
};

enum cmd_kind { CMD_INIT, CMD_SEGMENT, CMD_FIN, CMD_ABORT, CMD_STATUS, CMD_AGE };

struct file;

struct cmd {
	struct caught c; /* first */
	enum cmd_kind kind;
	struct file *file;
	struct journal_waiter waiter;         /* AGE: its record */
	uint32_t from, to;                    /* SEGMENT */
	uint8_t stamp;
	bool wrong_sum, dup, is_large, shaky; /* shaky: the exported file went away meanwhile */
	uint32_t size;                        /* FIN */
	bool has_sum, saw_abort;              /* meanwhile */
	uint8_t sum[32];
	struct version *version;              /* FIN: what success stood for */
	uint32_t meta, metas_before;          /* INIT */
	bool was_alone;                       /* INIT: nothing else was unanswered */
	bool was_exported;                    /* AGE */
};

struct file {
	uint32_t idx;
	struct upload_id id;
	struct block blocks[BLOCKS];
	uint32_t metas;       /* bit n: may have variant n */
	struct version *last; /* exported last and not forgotten */
	enum known is_open;   /* is there a transfer that is not exported? */
	bool was_at_rest;     /* is_open is YES since the last rest at least */
	/* of a crash */
	bool may_forget, may_reopen;
	uint32_t reopened_metas;
	uint32_t fin_sizes;   /* bit n: a fin for n blocks was not answered */
	struct version versions[VERSIONS_MAX];
	uint32_t versions_count;
	struct cmd log[LOG_MAX];
	uint32_t log_at, log_count;
	uint32_t stamps_count;
};

/* Lives in memory shared with the processes that run the daemon. */
struct world {
	uint64_t rng, seed;
	uint32_t life;
	uint32_t block_bytes;
	bool may_refuse;      /* quotas are small */
	bool has_manifest;
	bool was_killed;
	struct file files[FILES];
	uint64_t acks, exports, kills;
};

static struct world *w;

/* --- chance ----------------------------------------------------------------------------------- */

static inline uint32_t any(uint32_t below)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return (uint32_t)(w->rng >> 32) % below;
}

static inline bool once_in(uint32_t n)
{
	return any(n) == 0;
}

static inline uint32_t min_of(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}
static bool is_traced;

#define trace(...) (is_traced ? (void)fprintf(stderr, __VA_ARGS__) : (void)0)
#define check(f, condition, format, ...) \
	bench_check(condition, "file %u: " format, (f)->idx __VA_OPT__(, ) __VA_ARGS__)

/* --- contents --------------------------------------------------------------------------------- */

static inline void block_fill(uint8_t *to, uint32_t block, uint8_t stamp)
{
	for (uint32_t i = 0; i < w->block_bytes; i++)
		to[i] = (uint8_t)(stamp * 131 + block * 17 + i * 7 + (i >> 8) * 13);
	to[0] = stamp;
}

static inline void blocks_digest(const uint8_t *stamps, uint32_t blocks, uint8_t ret[32])
{
	struct sha256 s;
	uint8_t *data = malloc(w->block_bytes);
	sha256_init(&s);
	for (uint32_t i = 0; i < blocks; i++) {
		block_fill(data, i, stamps[i]);
		sha256_update(&s, data, w->block_bytes);
	}
	sha256_digest(&s, ret);
	free(data);
}

/* Reads an exported file: every block must be one that was sent, whole. */
static inline void version_read(struct bench *b, struct file *f, struct version *v)
{
	char path[PATH_BYTES + 80];
	uint8_t *got = malloc(w->block_bytes + 1), *want = malloc(w->block_bytes);
	snprintf(path, sizeof(path), "%s/export/%s", b->dir, v->path);
	int fd = open(path, O_RDONLY);
	check(f, fd >= 0, "%s is not there", path);
	struct sha256 s;
	sha256_init(&s);
	for (uint32_t i = 0; i < v->size; i++) {
		ssize_t n = read(fd, got, w->block_bytes);
		check(f, n == (ssize_t)w->block_bytes, "%s is too short", path);
		block_fill(want, i, got[0]);
		check(f, got[0] > 0 && got[0] < STAMPS && memcmp(got, want, w->block_bytes) == 0,
			"%s: block %u is no write's (stamp %u)", path, i, got[0]);
		v->stamps[i] = got[0];
		sha256_update(&s, got, w->block_bytes);
	}
	check(f, read(fd, got, 1) == 0, "%s is too long", path);
	sha256_digest(&s, v->digest);
	close(fd);
	free(got);
	free(want);
}

/* The manifest beside it must name its digest. */
static inline void version_check_manifest(struct bench *b, struct file *f, const struct version *v)
{
	char path[PATH_BYTES + 96], text[4096] = "", hex[65];
	if (!w->has_manifest)
		return;
	snprintf(path, sizeof(path), "%s/export/%.*s/.manifest.json", b->dir,
		(int)(strrchr(v->path, '/') - v->path), v->path);
	int fd = open(path, O_RDONLY);
	check(f, fd >= 0 && read(fd, text, sizeof(text) - 1) > 0, "no manifest %s", path);
	close(fd);
	sha256_to_hex(v->digest, hex);
	check(f, strstr(text, hex), "%s has another digest than %s", path, hex);
	snprintf(hex, sizeof(hex), "\"size\":\t%u,", v->size * w->block_bytes);
	check(f, strstr(text, hex), "%s has not %s", path, hex);
}

static inline uint32_t meta_of(const struct transfer *t)
{
	for (uint32_t i = 1; t->has_meta && i < METAS; i++) {
		if (strcmp(t->meta.name, meta_names[i]) == 0)
			return i;
	}
	return META_NONE;
}

static inline bool version_is(const struct version *v, const struct transfer *t)
{
	return v && v->tid == t->tid && v->at_ms == t->exported.at_ms;
}

static inline struct version *version_of(struct file *f, const struct transfer *t)
{
	for (uint32_t i = 0; i < f->versions_count; i++) {
		if (version_is(&f->versions[i], t))
			return &f->versions[i];
	}
	return NULL;
}

/* The version that the exported transfer t stands for; a new one is read. */
static inline struct version *version_take(struct bench *b, struct file *f, const struct transfer *t)
{
	struct version *v = version_of(f, t);
	if (v)
		return v;
	check(f, f->versions_count < VERSIONS_MAX, "too many exports");
	v = &f->versions[f->versions_count++];
	*v = (struct version){.tid = t->tid, .at_ms = t->exported.at_ms, .meta = meta_of(t)};
	check(f, t->exported.size % w->block_bytes == 0 && t->exported.size / w->block_bytes <= BLOCKS,
		"exported with a size that was never asked for");
	v->size = (uint32_t)(t->exported.size / w->block_bytes);
	snprintf(v->path, sizeof(v->path), "%s", t->exported.path);
	version_read(b, f, v);
	check(f, memcmp(v->digest, t->exported.digest, 32) == 0, "exported with another digest");
	version_check_manifest(b, f, v);
	w->exports++;
	return v;
}

/* --- the state -------------------------------------------------------------------------------- */

static inline uint64_t stamp_bit(uint8_t stamp)
{
	return (uint64_t)1 << stamp;
}

static inline enum presence presence_of(const struct file *f, uint32_t from, uint32_t to)
{
	enum presence p = COVERED;
	for (uint32_t i = from; i < to; i++) {
		if (f->blocks[i].presence < p)
			p = f->blocks[i].presence;
	}
	return p;
}

/* The one content that [0, size) can have. False: there are several, or none. */
static inline bool content_is_sure(const struct file *f, uint32_t size, uint8_t stamps[BLOCKS])
{
	if (f->last && f->is_open == UNKNOWN)
		return false;
	for (uint32_t i = 0; i < size; i++) {
		const struct block *b = &f->blocks[i];
		if (f->last && f->is_open == NO && i < f->last->size) {
			stamps[i] = f->last->stamps[i];
			continue;
		}
		if (b->presence != COVERED || (b->stamps & (b->stamps - 1)))
			return false;
		stamps[i] = (uint8_t)__builtin_ctzll(b->stamps);
	}
	return true;
}

static inline void blocks_forget(struct file *f)
{
	memset(f->blocks, 0, sizeof(f->blocks));
	f->was_at_rest = false;
}

static inline struct cmd *log_cmd(struct file *f, uint32_t i)
{
	return &f->log[(f->log_at + i) % LOG_MAX];
}

/* Unlike other commands an init does not wait for the segments that came before it. */
static inline void metas_add_later(struct file *f)
{
	for (uint32_t i = 0; i < f->log_count; i++) {
		const struct cmd *c = log_cmd(f, i);
		f->metas |= c->kind == CMD_INIT ? 1u << c->meta : 0;
	}
}

/* The open transfer goes; the exported one, if any, is back. Of what was acknowledged as its
 * replays it may still know. */
static inline void state_fall_back(struct file *f)
{
	if (f->last && f->is_open == NO)
		return;
	f->is_open = NO;
	f->was_at_rest = false;
	f->metas = 1u << (f->last ? f->last->meta : META_NONE);
	metas_add_later(f);
	if (!f->last) {
		blocks_forget(f);
		return;
	}
	for (uint32_t i = 0; i < BLOCKS; i++) {
		struct block *b = &f->blocks[i];
		if (b->presence != MISSING)
			*b = (struct block){b->stamps | (i < f->last->size ? stamp_bit(f->last->stamps[i]) : 0),
				MAYBE};
	}
}

static inline void state_shake(struct file *f)
{
	for (uint32_t i = 0; i < BLOCKS; i++) {
		if (f->blocks[i].presence == COVERED)
			f->blocks[i].presence = MAYBE;
	}
}

/* --- commands that were answered -------------------------------------------------------------- */

static inline bool is_refusal(const struct cmd *c)
{
	return w->may_refuse && c->c.o.reason == 0x97 && strcmp(c->c.o.text, "quota_exceeded") == 0;
}

static inline bool differs_from_last(const struct file *f, const struct cmd *c)
{
	for (uint32_t i = c->from; i < c->to; i++) {
		if (i >= f->last->size || f->last->stamps[i] != c->stamp)
			return true;
	}
	return false;
}

static inline void apply_segment(struct file *f, struct cmd *c)
{
	bool is_shaky = c->shaky || (f->last && f->last->taken && !f->was_at_rest);
	if (c->c.discarded || c->c.o.reason) {
		check(f, c->c.discarded || is_refusal(c) ||
			(c->wrong_sum && strcmp(c->c.o.text, "checksum_mismatch") == 0),
			"segment [%u,%u) refused: %s", c->from, c->to, c->c.o.text);
		if (f->is_open == NO)
			f->is_open = UNKNOWN;
		return;
	}
	w->acks++;
	/* One that can't be compared, but says of itself that it is a repetition, is not looked
	 * at. */
	check(f, !c->wrong_sum || (c->dup && is_shaky), "segment [%u,%u) accepted with a wrong checksum",
		c->from, c->to);
	if (!f->last)
		f->is_open = YES;
	else if (is_shaky && f->is_open == NO)
		f->is_open = UNKNOWN;
	else if (!is_shaky && differs_from_last(f, c))
		f->is_open = YES;
	for (uint32_t i = c->from; i < c->to; i++) {
		struct block *b = &f->blocks[i];
		if (is_shaky)
			*b = (struct block){b->stamps | stamp_bit(c->stamp), MAYBE};
		else
			*b = (struct block){stamp_bit(c->stamp), COVERED};
	}
}

static inline void apply_init(struct file *f, struct cmd *c)
{
	bool is_sure = c->was_alone && !f->last && c->metas_before > 1 &&
		!(c->metas_before & (c->metas_before - 1));
	if (c->c.o.reason) {
		bool is_conflict = strcmp(c->c.o.text, "filemeta_conflict") == 0;
		check(f, is_conflict || is_refusal(c), "init refused: %s", c->c.o.text);
		check(f, !is_conflict || !c->was_alone || (c->metas_before & ~(1u | 1u << c->meta)),
			"init in conflict with nothing");
		return;
	}
	check(f, !is_sure || c->metas_before == 1u << c->meta, "init changed the metadata");
	if (!f->last)
		f->is_open = YES;
	else if (f->is_open == NO && c->meta != f->last->meta)
		f->is_open = c->was_alone ? YES : UNKNOWN;
	else if (f->is_open == NO && !c->was_alone)
		f->is_open = UNKNOWN;
	f->metas = 1u << c->meta;
	metas_add_later(f);
}

/* A new export: v, by this fin, or by one that was not answered (c NULL). */
static inline void apply_export(struct file *f, const struct cmd *c, struct version *v)
{
	check(f, f->metas & ~1u && f->metas & 1u << v->meta, "exported with metadata %u of %x", v->meta,
		f->metas);
	check(f, !c || c->has_sum || v->meta != META_WRONG_SUM, "exported with a wrong checksum");
	for (uint32_t i = 0; i < v->size; i++) {
		const struct block *b = &f->blocks[i];
		check(f, b->presence != MISSING, "exported block %u (stamp %u), which is missing", i,
			v->stamps[i]);
		check(f, b->stamps & stamp_bit(v->stamps[i]), "exported block %u with stamp %u, not one of %llx",
			i, v->stamps[i], (unsigned long long)b->stamps);
	}
	check(f, !f->last || f->last->taken || memcmp(f->last->digest, v->digest, 32) != 0,
		"exported twice: %s and %s", f->last->path, v->path);
	f->last = v;
	f->is_open = NO;
	f->metas = 1u << v->meta;
	metas_add_later(f);
	blocks_forget(f);
}

/* Success without a new export: the last one is what this fin asks for. */
static inline void apply_export_again(struct file *f, const struct cmd *c)
{
	const struct version *v = f->last;
	bool is_whole = true;
	for (uint32_t i = 0; i < v->size; i++)
		is_whole = is_whole && f->blocks[i].presence != MISSING &&
			f->blocks[i].stamps & stamp_bit(v->stamps[i]);
	bool is_cut = presence_of(f, 0, v->size) != COVERED && c->has_sum;
	check(f, f->is_open != YES || is_whole || is_cut, "success, but %s is not what was sent", v->path);
	if (f->is_open != NO) {
		f->may_reopen = true;
		f->reopened_metas |= f->metas;
	}
	state_fall_back(f);
}

static inline void check_incomplete(struct file *f, const struct cmd *c)
{
	const struct outcome *o = &c->c.o;
	uint64_t missing_bytes = 0;
	bool is_listed[BLOCKS] = {false};
	check(f, !f->last || f->is_open != NO, "incomplete, but it is exported");
	check(f, f->metas & 1 || presence_of(f, 0, c->size) != COVERED, "incomplete, but nothing is missing");
	check(f, !f->last || f->is_open != YES || !c->has_sum || c->size != f->last->size ||
		memcmp(c->sum, f->last->digest, 32) != 0, "incomplete, but it is what was exported last");
	for (uint32_t i = 0; i < o->missing_count; i++) {
		const struct extent *e = &o->missing[i];
		check(f, e->from % w->block_bytes == 0 && e->to % w->block_bytes == 0 && e->from < e->to &&
			e->to <= (uint64_t)c->size * w->block_bytes, "missing: a part of a segment");
		for (uint64_t k = e->from / w->block_bytes; k < e->to / w->block_bytes; k++)
			is_listed[k] = true;
		missing_bytes += e->to - e->from;
	}
	check(f, !o->truncated && missing_bytes == o->missing_bytes, "missing: bytes and ranges differ");
	for (uint32_t i = 0; i < c->size; i++) {
		check(f, !is_listed[i] || f->blocks[i].presence != COVERED, "block %u was acknowledged, is missing",
			i);
		check(f, is_listed[i] || f->blocks[i].presence != MISSING, "block %u was never sent, is not missing",
			i);
	}
}

static inline void check_fin_refused(struct file *f, const struct cmd *c)
{
	const struct outcome *o = &c->c.o;
	uint8_t stamps[BLOCKS], digest[32];
	bool is_exported = f->last && f->is_open == NO;
	bool is_sure = (!is_exported || c->size == f->last->size) && content_is_sure(f, c->size, stamps);
	if (strcmp(o->text, "aborted") == 0) {
		check(f, c->saw_abort, "aborted by nobody");
		return;
	}
	if (is_sure)
		blocks_digest(stamps, c->size, digest);
	bool is_right = is_exported ? !c->has_sum : !(f->metas & (1u << META_NONE | 1u << META_WRONG_SUM));
	if (c->has_sum)
		is_right = is_sure && !(f->metas & 1) && memcmp(digest, c->sum, 32) == 0;
	check(f, !is_sure || !is_right, "fin for %u refused (%s), but all is there and right", c->size, o->text);
	if (strcmp(o->text, "incomplete") == 0) {
		check_incomplete(f, c);
	} else if (strcmp(o->text, "checksum_mismatch") == 0) {
		check(f, c->has_sum || f->metas & 1u << META_WRONG_SUM, "mismatch with no checksum");
		check(f, o->has_digests && memcmp(o->expected, o->actual, 32) != 0, "mismatch with itself");
		check(f, !c->has_sum || memcmp(o->expected, c->sum, 32) == 0, "mismatch with another checksum");
		check(f, !is_sure || memcmp(o->actual, digest, 32) == 0, "mismatch, but of other content");
	} else if (strcmp(o->text, "size_mismatch") == 0) {
		check(f, f->last && f->last->size != c->size && f->is_open != YES, "size_mismatch with nothing");
	} else {
		check(f, false, "fin refused: %s", o->text);
	}
}

static inline void apply_fin(struct file *f, struct cmd *c)
{
	if (c->c.o.reason) {
		check_fin_refused(f, c);
		return;
	}
	check(f, c->version->size == c->size, "success with another size");
	check(f, !c->has_sum || memcmp(c->sum, c->version->digest, 32) == 0, "success with another checksum");
	if (c->version == f->last)
		apply_export_again(f, c);
	else
		apply_export(f, c, c->version);
}

static inline void apply_age(struct file *f, const struct cmd *c)
{
	if (c->was_exported)
		f->last = NULL;
	state_fall_back(f);
}

static inline void cmd_apply(struct file *f, struct cmd *c)
{
	trace("  [%u] applies %u [%u,%u) stamp %u size %u: %s%s\n", f->idx, c->kind, c->from, c->to, c->stamp,
		c->size, c->c.o.text, c->c.discarded ? " (discarded)" : "");
	switch (c->kind) {
	case CMD_INIT:
		apply_init(f, c);
		break;
	case CMD_SEGMENT:
		apply_segment(f, c);
		break;
	case CMD_FIN:
		apply_fin(f, c);
		break;
	case CMD_ABORT:
		check(f, c->c.o.reason == 0, "abort refused: %s", c->c.o.text);
		state_fall_back(f);
		break;
	case CMD_STATUS:
		check(f, c->c.o.reason == 0 && c->c.o.has_status, "no status: %s", c->c.o.text);
		break;
	case CMD_AGE:
		apply_age(f, c);
		break;
	}
}

/* --- the log ---------------------------------------------------------------------------------- */

static inline struct cmd *log_push(struct file *f, const struct cmd *c)
{
	struct cmd *to = log_cmd(f, f->log_count++);
	*to = *c;
	to->file = f;
	for (uint32_t i = 0; c->kind == CMD_ABORT && i < f->log_count; i++)
		log_cmd(f, i)->saw_abort = true;
	for (uint32_t i = 0; c->kind == CMD_FIN && i < f->log_count; i++)
		to->saw_abort = to->saw_abort || log_cmd(f, i)->kind == CMD_ABORT;
	return to;
}

static inline void log_advance(struct file *f)
{
	while (f->log_count && log_cmd(f, 0)->c.done) {
		cmd_apply(f, log_cmd(f, 0));
		f->log_at = (f->log_at + 1) % LOG_MAX;
		f->log_count--;
	}
}

/* --- a crash ---------------------------------------------------------------------------------- */

static inline void lose_segment(struct file *f, const struct cmd *c)
{
	bool is_equal = presence_of(f, c->from, c->to) == COVERED;
	if (f->is_open == NO)
		f->is_open = UNKNOWN;
	for (uint32_t i = c->from; i < c->to; i++)
		is_equal = is_equal && f->blocks[i].stamps == stamp_bit(c->stamp);
	for (uint32_t i = c->from; !is_equal && !c->wrong_sum && i < c->to; i++)
		f->blocks[i] = (struct block){f->blocks[i].stamps | stamp_bit(c->stamp), MAYBE};
}

static inline void lose_end(struct file *f)
{
	state_shake(f);
	for (uint32_t i = 0; f->last && i < f->last->size; i++)
		f->blocks[i].stamps |= stamp_bit(f->last->stamps[i]);
	f->metas |= f->last ? 1u << f->last->meta : 1u << META_NONE;
	f->is_open = UNKNOWN;
	f->was_at_rest = false;
}

/* c was not answered: it may have happened. */
static inline void cmd_lose(struct file *f, const struct cmd *c)
{
	trace("  [%u] loses %u [%u,%u) stamp %u size %u\n", f->idx, c->kind, c->from, c->to, c->stamp, c->size);
	switch (c->kind) {
	case CMD_INIT:
		f->metas |= 1u << c->meta;
		if (f->is_open == NO)
			f->is_open = UNKNOWN;
		break;
	case CMD_SEGMENT:
		lose_segment(f, c);
		break;
	case CMD_FIN:
		f->fin_sizes |= 1u << c->size;
		if (f->last && f->last->size == c->size)
			lose_end(f); /* it may have been what was exported before */
		break;
	case CMD_AGE:
		f->may_forget = f->may_forget || c->was_exported;
		lose_end(f);
		if (c->was_exported)
			f->metas |= 1u << META_NONE;
		break;
	case CMD_ABORT:
		lose_end(f);
		break;
	case CMD_STATUS:
		break;
	}
}

static inline void file_crash(struct file *f)
{
	for (uint32_t i = 0; i < f->log_count; i++) {
		struct cmd *c = log_cmd(f, i);
		if (c->c.done)
			cmd_apply(f, c);
		else
			cmd_lose(f, c);
	}
	f->log_count = 0;
}

/* --- at rest ---------------------------------------------------------------------------------- */

static inline void resolve_coverage(struct file *f, const struct transfer *t, const struct outcome *status)
{
	uint64_t bytes = 0;
	for (uint32_t i = 0; i < BLOCKS; i++) {
		struct block *b = &f->blocks[i];
		uint64_t from = (uint64_t)i * w->block_bytes, to = from + w->block_bytes;
		uint64_t have = cover_bytes_in(&t->cover, from, to);
		check(f, have == 0 || have == w->block_bytes, "block %u is there in part", i);
		check(f, b->presence != COVERED || have, "block %u was acknowledged and is missing", i);
		check(f, b->presence != MISSING || !have, "block %u was never sent and is there", i);
		b->presence = have ? COVERED : MISSING;
		b->stamps = have ? b->stamps : 0;
		bytes += have;
		bool is_listed = to > status->status_size && status->status_has_size;
		for (uint32_t k = 0; k < status->missing_count; k++)
			is_listed = is_listed || (status->missing[k].from <= from && to <= status->missing[k].to);
		check(f, have || is_listed || to > t->contiguous, "block %u is missing, but not in the status", i);
		for (uint32_t k = 0; have && k < status->missing_count; k++)
			check(f, status->missing[k].from >= to || status->missing[k].to <= from,
				"block %u is there, but not in the status", i);
	}
	check(f, status->received == bytes && t->cover.bytes == bytes, "bytes beyond what was sent");
}

static inline void resolve_open(struct file *f, const struct transfer *t, const struct outcome *status)
{
	const struct transfer *p = t->previous;
	check(f, strcmp(status->state, "open") == 0, "status %s, but it is open", status->state);
	if (p && !version_is(f->last, p)) {
		check(f, f->may_forget && version_of(f, p), "an export that was none");
		f->last = version_of(f, p);
	}
	if (!p) {
		check(f, !f->last || f->may_forget, "%s is forgotten", f->last->path);
		f->last = NULL;
	}
	check(f, !f->last || f->is_open != NO || f->may_reopen, "a generation from nowhere");
	f->metas |= f->reopened_metas;
	check(f, f->metas & 1u << meta_of(t), "metadata %u, not of %x", meta_of(t), f->metas);
	f->metas = 1u << meta_of(t);
	f->is_open = YES;
	f->was_at_rest = true;
	resolve_coverage(f, t, status);
}

/* What may be there is there only as a replay of the last export. */
static inline void only_replays(struct file *f)
{
	for (uint32_t i = 0; i < BLOCKS; i++) {
		if (i >= f->last->size)
			f->blocks[i] = (struct block){0};
		else if (f->blocks[i].presence != MISSING)
			f->blocks[i].stamps = stamp_bit(f->last->stamps[i]);
	}
}

static inline void resolve_exported(struct bench *b, struct file *f, const struct transfer *t,
	const struct outcome *status)
{
	check(f, strcmp(status->state, "exported") == 0 && status->received == t->exported.size,
		"status %s, but it is exported", status->state);
	if (version_is(f->last, t)) {
		check(f, f->is_open != YES || f->fin_sizes, "the open generation is lost");
		state_fall_back(f);
		only_replays(f);
		return;
	}
	struct version *v = version_of(f, t);
	if (v) {
		check(f, f->may_forget, "%s is back", v->path);
		f->last = v;
		f->is_open = UNKNOWN;
		state_fall_back(f);
		only_replays(f);
		return;
	}
	v = version_take(b, f, t);
	check(f, f->fin_sizes & 1u << v->size, "%s exported, but nobody asked for it", v->path);
	apply_export(f, NULL, v);
}

/* Nothing is under way: what is there must be what the model has; what it does not know, it
 * learns. */
static inline void model_resolve(struct bench *b, struct file *f, const struct outcome *status)
{
	const struct transfer *t = transfer_find(b->rt.uploads, &f->id);
	check(f, f->log_count == 0, "%u commands are not answered", f->log_count);
	if (!t) {
		check(f, strcmp(status->state, "none") == 0, "status %s, but there is none", status->state);
		check(f, !f->last || f->may_forget, "%s is forgotten", f->last->path);
		check(f, f->metas & 1, "an init is lost");
		for (uint32_t i = 0; i < BLOCKS; i++)
			check(f, f->blocks[i].presence != COVERED, "block %u is lost", i);
		f->last = NULL;
		f->is_open = UNKNOWN;
		state_fall_back(f);
	} else if (t->state == TRANSFER_EXPORTED) {
		resolve_exported(b, f, t, status);
	} else {
		resolve_open(f, t, status);
	}
	f->may_forget = f->may_reopen = false;
	f->fin_sizes = f->reopened_metas = 0;
}

#endif
