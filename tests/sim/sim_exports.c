/*
 * Exports: every name that appears under the export directory is looked at in the moment in which
 * it appears, when the model knows exactly what may be in it.
 */
#include "sim_exports.h"

#include <stdio.h>
#include <string.h>
#include "sha256.h"
#include "sim_client.h"
#include "sim_disk.h"
#include "sim_sys.h"

#define EXPORT_ROOT "/data/export"

struct export *model_last_export(struct file *f)
{
	return f->exports_count ? &f->exports[f->exports_count - 1] : NULL;
}

static struct file *file_of_dir(const char *client, const char *dir)
{
	struct file *f;
	for (uint32_t i = 0; (f = model_file(i)); i++) {
		size_t bytes = strlen(f->id);
		if (strcmp(f->client->id, client) == 0 && strncmp(dir, f->id, bytes) == 0 &&
			(dir[bytes] == 0 || dir[bytes] == '~'))
			return f;
	}
	return NULL;
}

/* Which directory of the export tree is this? True and its two names. */
struct search {
	const struct inode *wanted;
	struct inode *parent;
	const char *client;
	char client_name[64], dir_name[64];
	bool found;
};

static int on_dir(void *arg, const char *name)
{
	struct search *s = arg;
	int err;
	if (disk_find(s->parent, name, &err) != s->wanted)
		return 0;
	s->found = true;
	snprintf(s->client_name, sizeof(s->client_name), "%s", s->client);
	snprintf(s->dir_name, sizeof(s->dir_name), "%s", name);
	return 1;
}

static int on_client(void *arg, const char *name)
{
	struct search *s = arg;
	int err;
	s->client = name;
	s->parent = disk_find(disk_find(disk.root, EXPORT_ROOT, &err), name, &err);
	return s->parent && inode_is_dir(s->parent) ? disk_list(s->parent, on_dir, s) : 0;
}

/* --- what is in it ---------------------------------------------------------------------------- */

static bool block_is(const struct file *f, uint32_t block, uint8_t stamp, const uint8_t *bytes)
{
	uint8_t *wanted = sim_alloc(f->block_bytes);
	model_fill(f, stamp, (uint64_t)block * f->block_bytes, f->block_bytes, wanted);
	bool same = memcmp(wanted, bytes, f->block_bytes) == 0;
	sim_free(wanted);
	return same;
}

/* The stamp of a block's bytes, of those that may be there. */
static bool find_stamp(struct file *f, uint32_t block, const uint8_t *bytes, uint8_t *ret)
{
	const struct block *b = &f->b[block];
	const struct export *before = model_last_export(f);
	uint8_t may[MODEL_MAYBES_MAX + MODEL_STAMPS + 2];
	uint32_t count = 0;
	if (b->acked.seq)
		may[count++] = b->acked.stamp;
	for (uint32_t i = 0; i < b->maybes; i++)
		may[count++] = b->maybe[i].stamp;
	for (uint8_t stamp = 0; stamp < MODEL_STAMPS; stamp++) {
		if (b->older & 1u << stamp)
			may[count++] = stamp;
	}
	if (before && block < before->blocks && b->acked.seq <= f->guard)
		may[count++] = before->stamps[block];
	for (uint32_t i = 0; i < count; i++) {
		*ret = may[i];
		if (block_is(f, block, may[i], bytes))
			return true;
	}
	return false;
}

static void describe(const struct file *f, uint32_t block, const uint8_t *bytes, char *ret, size_t ret_max)
{
	for (uint32_t stamp = 0; stamp < MODEL_STAMPS; stamp++) {
		if (block_is(f, block, (uint8_t)stamp, bytes)) {
			snprintf(ret, ret_max, "the bytes of stamp %u", stamp);
			return;
		}
	}
	snprintf(ret, ret_max, bytes[0] || bytes[1] || bytes[2] ? "bytes that nobody sent" : "zeros");
}

static bool unhex(const char *text, uint8_t ret[32])
{
	for (int i = 0; i < 32; i++) {
		unsigned byte;
		if (sscanf(text + 2 * i, "%2x", &byte) != 1)
			return false;
		ret[i] = (uint8_t)byte;
	}
	return true;
}

/* The digest that the manifest names. */
static bool read_manifest(struct inode *dir, uint8_t ret[32])
{
	char text[4096] = "";
	int err;
	const struct inode *m = disk_find(dir, ".manifest.json", &err);
	if (!m || inode_size(m) >= sizeof(text))
		return false;
	inode_peek(m, text, inode_size(m), 0);
	const char *at = strstr(text, "\"sha256\"");
	at = at ? strchr(at + 8, '"') : NULL;
	return at && unhex(at + 1, ret);
}

static void look_into(struct file *f, struct export *e, struct inode *dir)
{
	uint64_t size = inode_size(e->inode);
	uint8_t *bytes = sim_alloc(size + 1), digest[32];
	char what[80];
	struct sha256 sha;
	inode_peek(e->inode, bytes, size, 0);
	e->blocks = (uint32_t)(size / f->block_bytes);
	if (e->blocks > MODEL_BLOCKS_MAX || size % f->block_bytes)
		sim_fail("%s: %llu bytes are exported, which nobody asked for", e->path,
			(unsigned long long)size);
	for (uint32_t i = 0; i < e->blocks; i++) {
		const uint8_t *block = bytes + (uint64_t)i * f->block_bytes;
		if (find_stamp(f, i, block, &e->stamps[i]))
			continue;
		describe(f, i, block, what, sizeof(what));
		sim_fail("%s: block %u holds %s, which can't be (acknowledged: stamp %u by command %u, "
			"%u later ones, guard %u)", e->path, i, what, f->b[i].acked.stamp,
			f->b[i].acked.seq, f->b[i].maybes, f->guard);
	}
	sha256_init(&sha);
	sha256_update(&sha, bytes, size);
	sha256_digest(&sha, e->digest);
	sim_free(bytes);
	if (!read_manifest(dir, digest))
		sim_fail("%s: exported without a manifest", e->path);
	if (memcmp(digest, e->digest, 32) != 0)
		sim_fail("%s: its manifest has the digest of something else", e->path);
}

static bool is_there(const struct export *e)
{
	char path[256];
	int err;
	snprintf(path, sizeof(path), EXPORT_ROOT "/%s", e->path);
	return disk_find(disk.root, path, &err) == e->inode;
}

static void appeared(struct file *f, struct inode *dir, const char *dir_name, const char *name)
{
	struct export *before = model_last_export(f);
	int err;
	if (f->exports_count == MODEL_EXPORTS_MAX)
		sim_fail("%s %s: exported more often than asked for", f->client->id, f->id);
	struct export *e = &f->exports[f->exports_count];
	*e = (struct export){.inode = disk_find(dir, name, &err), .seq = f->client->seq};
	snprintf(e->path, sizeof(e->path), "%s/%s/%s", f->client->id, dir_name, name);
	look_into(f, e, dir);
	SIM_TRACE("exported", e->blocks, f->idx, "check %s appears, %u blocks, as it should", e->path,
		e->blocks);
	if (before && before->blocks == e->blocks && is_there(before) &&
		memcmp(before->digest, e->digest, 32) == 0)
		sim_fail("%s: the same content is exported a second time, %s is there", e->path,
			before->path);
	f->exports_count++;
	inode_seal(e->inode, true);
	sim_moment(3000);
}

static void taken_back(struct inode *inode)
{
	struct file *f;
	for (uint32_t i = 0; (f = model_file(i)); i++) {
		struct export *e = model_last_export(f);
		if (!e || e->inode != inode)
			continue;
		if (e->acked)
			sim_fail("%s: taken back, but its fin was answered with success", e->path);
		inode_seal(inode, false);
		e->taken_back = true;
		f->exports_count--;
	}
}

/* A crash of the machine has undone the taking back, but not what it undid. */
void model_reappear(void)
{
	struct file *f;
	for (uint32_t i = 0; (f = model_file(i)); i++) {
		struct export *e = &f->exports[f->exports_count];
		if (f->exports_count == MODEL_EXPORTS_MAX || !e->taken_back || !is_there(e))
			continue;
		e->taken_back = false;
		inode_seal(e->inode, true);
		f->exports_count++;
	}
}

void sim_on_renamed(struct inode *from, const char *from_name, struct inode *to, const char *to_name)
{
	int err;
	struct inode *root = disk_find(disk.root, EXPORT_ROOT, &err);
	struct search s = {.wanted = to};
	(void)from_name;
	if (root)
		disk_list(root, on_client, &s);
	if (s.found) {
		struct file *f = file_of_dir(s.client_name, s.dir_name);
		if (!f)
			sim_fail("exported for nobody: %s/%s/%s", s.client_name, s.dir_name, to_name);
		appeared(f, to, s.dir_name, to_name);
		return;
	}
	s = (struct search){.wanted = from};
	if (root)
		disk_list(root, on_client, &s);
	if (s.found)
		taken_back(disk_find(to, to_name, &err));
}

/* --- later ------------------------------------------------------------------------------------ */

void model_taken(struct inode *inode)
{
	struct file *f;
	for (uint32_t i = 0; (f = model_file(i)); i++) {
		for (uint32_t k = 0; k < f->exports_count; k++)
			f->exports[k].taken = f->exports[k].taken || f->exports[k].inode == inode;
	}
	inode_seal(inode, false);
}

static void check_export(struct file *f, struct export *e)
{
	uint8_t digest[32], *bytes = sim_alloc(inode_size(e->inode) + 1);
	struct sha256 sha;
	inode_peek(e->inode, bytes, inode_size(e->inode), 0);
	sha256_init(&sha);
	sha256_update(&sha, bytes, inode_size(e->inode));
	sha256_digest(&sha, digest);
	sim_free(bytes);
	if (inode_size(e->inode) != (uint64_t)e->blocks * f->block_bytes ||
		memcmp(digest, e->digest, 32) != 0)
		sim_fail("%s: is not any more what was exported", e->path);
}

void model_check_exports(bool at_rest)
{
	struct file *f;
	for (uint32_t i = 0; (f = model_file(i)); i++) {
		uint32_t kept = 0;
		for (uint32_t k = 0; k < f->exports_count; k++) {
			struct export *e = &f->exports[k];
			bool there = is_there(e);
			if (!there && !e->taken && e->acked)
				sim_fail("%s: was exported and acknowledged, and is gone", e->path);
			if (there && (e->acked || at_rest))
				check_export(f, e);
			/* One that a crash of the machine has undone is nobody's loss. */
			if (there || e->acked || e->taken)
				f->exports[kept++] = *e;
			else
				inode_seal(e->inode, false);
		}
		f->exports_count = kept;
		for (uint32_t k = kept + 1; k < MODEL_EXPORTS_MAX; k++)
			f->exports[k].taken_back = false;
	}
}
