/*
 * The past of each transfer, record by record. recover.c has the order of things.
 */
#include "recover_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PASTS_MIN = 1024 };

static void past_free(struct past *p)
{
	if (!p)
		return;
	cover_fini(&p->cover);
	cover_fini(&p->synced);
	free(p->former);
	free(p->user);
	free((char *)p->open.clientid);
	free((char *)p->open.fileid);
	free((char *)p->open.text);
	free(p->exported.path);
	free(p->meta);
	free(p->mids);
	free(p);
}

static struct past **slot_of(struct recovery *rc, uint64_t tid)
{
	uint64_t h = tid * 0x9e3779b97f4a7c15u;
	for (uint32_t i = (uint32_t)(h >> 32);; i++) {
		struct past **slot = &rc->slots[i & (rc->slots_count - 1)];
		if (!*slot || (*slot)->tid == tid)
			return slot;
	}
}

static int slots_grow(struct recovery *rc)
{
	uint32_t old_count = rc->slots_count;
	struct past **old = rc->slots;
	uint32_t count = old_count ? old_count * 2 : PASTS_MIN;
	struct past **slots = calloc(count, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	rc->slots = slots;
	rc->slots_count = count;
	for (uint32_t i = 0; i < old_count; i++) {
		if (old[i])
			*slot_of(rc, old[i]->tid) = old[i];
	}
	free(old);
	return 0;
}

static struct past *past_of(struct recovery *rc, uint64_t tid)
{
	if (rc->pasts_count * 2 >= rc->slots_count && slots_grow(rc) < 0)
		return NULL;
	struct past **slot = slot_of(rc, tid);
	if (!*slot) {
		*slot = calloc(1, sizeof(**slot));
		if (!*slot)
			return NULL;
		(*slot)->tid = tid;
		cover_init(&(*slot)->cover, UINT32_MAX);
		cover_init(&(*slot)->synced, UINT32_MAX);
		rc->pasts_count++;
		if (tid > rc->tid_max)
			rc->tid_max = tid;
	}
	return *slot;
}

static char *copy_span(const char *s, size_t bytes)
{
	char *copy = malloc(bytes + 1);
	if (copy) {
		memcpy(copy, s, bytes);
		copy[bytes] = 0;
	}
	return copy;
}

static int replace_span(char **to, const char *s, size_t bytes)
{
	char *copy = copy_span(s, bytes);
	if (!copy)
		return -ENOMEM;
	free(*to);
	*to = copy;
	return 0;
}

static int apply_open(struct past *p, const struct record *r)
{
	if (p->opened)
		return 0;
	p->open = *r;
	p->open.clientid = copy_span(r->clientid, r->clientid_bytes);
	p->open.fileid = copy_span(r->fileid, r->fileid_bytes);
	p->open.text = copy_span(r->text, r->text_bytes);
	p->opened = true;
	return p->open.clientid && p->open.fileid && p->open.text ? 0 : -ENOMEM;
}

static int apply_midstate(struct past *p, const struct record *r)
{
	uint64_t idx = r->frontier / MIDSTATE_BYTES;
	if (r->frontier % MIDSTATE_BYTES || idx == 0 || idx > (uint64_t)p->mids_count + 1)
		return 0; /* one below it is missing: it can't be used */
	if (idx == (uint64_t)p->mids_count + 1) {
		uint32_t (*mids)[8] = realloc(p->mids, idx * sizeof(*mids));
		if (!mids)
			return -ENOMEM;
		p->mids = mids;
		p->mids_count++;
	}
	memcpy(p->mids[idx - 1], r->h, sizeof(*p->mids));
	return 0;
}

int recover_keep_synced(struct past *p)
{
	struct extent e;
	uint64_t run = 0;
	int err = 0;
	cover_fini(&p->cover);
	cover_init(&p->cover, UINT32_MAX);
	for (uint64_t at = 0; !err && cover_next(&p->synced, at, &e); at = e.to) {
		if (e.from == 0)
			run = e.to;
		err = cover_add(&p->cover, e.from, e.to);
	}
	if (p->mids_count > run / MIDSTATE_BYTES)
		p->mids_count = (uint32_t)(run / MIDSTATE_BYTES);
	return err;
}

static int apply_staging(struct past *p, const struct record *r)
{
	char *name = copy_span(r->text, r->text_bytes);
	if (!name)
		return -ENOMEM;
	free(p->former);
	p->former = (char *)p->open.text;
	p->open.text = name;
	p->broken = false;
	return 0;
}

int recover_apply(struct recovery *rc, const struct record *r)
{
	struct past *p;
	rc->records++;
	if (r->type == RECORD_CHECKPOINT_END || r->type == RECORD_SYNC_MARK)
		return 0;
	if (!(p = past_of(rc, r->tid)))
		return -ENOMEM;
	switch (r->type) {
	case RECORD_OPEN:
		return apply_open(p, r);
	case RECORD_META:
		p->meta_bytes = r->text_bytes;
		return replace_span(&p->meta, r->text, r->text_bytes);
	case RECORD_RESERVE:
		p->reserved = r->size;
		return 0;
	case RECORD_EXTENT:
		return cover_add(&p->cover, r->from, r->to);
	case RECORD_UNCOVER:
		if (p->mids_count > r->from / MIDSTATE_BYTES)
			p->mids_count = (uint32_t)(r->from / MIDSTATE_BYTES);
		return cover_remove(&p->synced, r->from, r->to) < 0 ? -ENOMEM :
			cover_remove(&p->cover, r->from, r->to);
	case RECORD_MIDSTATE:
		return apply_midstate(p, r);
	case RECORD_FIN:
		p->has_fin = true;
		p->fin_size = r->size;
		p->fin_has_digest = r->has_digest;
		memcpy(p->fin_digest, r->digest, 32);
		return 0;
	case RECORD_FIN_FAILED:
		p->has_fin = false;
		free(p->exported.path);
		p->exported.path = NULL;
		return 0;
	case RECORD_PUBLISHING:
		p->exported.size = r->size;
		memcpy(p->exported.digest, r->digest, 32);
		return replace_span(&p->exported.path, r->text, r->text_bytes);
	case RECORD_PUBLISHED:
		p->published = true;
		p->exported.at_ms = r->at_ms;
		cover_fini(&p->cover);
		cover_init(&p->cover, UINT32_MAX);
		cover_fini(&p->synced);
		p->mids_count = 0;
		return 0;
	case RECORD_ABORTED:
	case RECORD_EXPIRED:
	case RECORD_FORGET:
		p->dropped = true;
		return 0;
	case RECORD_SYNCED:
		return cover_add(&p->cover, r->from, r->to) < 0 ? -ENOMEM :
			cover_add(&p->synced, r->from, r->to);
	case RECORD_LOST:
		p->broken = true;
		return recover_keep_synced(p);
	case RECORD_STAGING:
		return apply_staging(p, r);
	case RECORD_USER:
		p->user_bytes = r->text_bytes;
		return replace_span(&p->user, r->text, r->text_bytes);
	case RECORD_SYNC_MARK:
	case RECORD_CHECKPOINT_END:
		break;
	}
	return 0;
}

void recover_pasts_free(struct recovery *rc)
{
	for (uint32_t i = 0; i < rc->slots_count; i++)
		past_free(rc->slots[i]);
	free(rc->slots);
}
