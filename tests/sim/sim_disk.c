/*
 * sim_disk.h: directories. Files are sim_file.c's.
 */
#include "sim_disk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "sim_inode.h"

enum { CHANGES_MAX = 192 };

/* A change of directories that is not on the medium yet. */
struct change {
	struct inode *inode;
	struct inode *from, *to;       /* NULL: a link, an unlinking; both: a renaming */
	const char *from_name, *to_name;
	bool needed;
};

struct disk disk;

static struct change changes[CHANGES_MAX];
static uint32_t changes_count;
static struct inode *inodes;
static uint64_t inodes_count;

/* --- names ------------------------------------------------------------------------------------ */

struct name {
	struct name *next;
	char text[];
};

static struct name *names;

static const char *name_keep(const char *text)
{
	size_t bytes = strlen(text) + 1;
	struct name *n = sim_alloc(sizeof(*n) + bytes);
	memcpy(n->text, text, bytes);
	n->next = names;
	names = n;
	return n->text;
}

/* --- entries ---------------------------------------------------------------------------------- */

static struct entry *entries_find(const struct entries *es, const char *name)
{
	for (uint32_t i = 0; i < es->count; i++) {
		if (strcmp(es->all[i].name, name) == 0)
			return &es->all[i];
	}
	return NULL;
}

static void entries_remove(struct entries *es, const char *name)
{
	struct entry *e = entries_find(es, name);
	if (e)
		memmove(e, e + 1, (size_t)(es->all + --es->count - e) * sizeof(*e));
}

static void entries_put(struct entries *es, const char *name, struct inode *inode)
{
	struct entry *e = entries_find(es, name);
	if (e) {
		e->inode = inode;
		return;
	}
	if (es->count == es->max) {
		es->max = es->max ? es->max * 2 : 8;
		es->all = sim_realloc(es->all, es->max * sizeof(*es->all));
	}
	es->all[es->count++] = (struct entry){name, inode};
}

static void entries_copy(struct entries *to, const struct entries *from)
{
	to->count = 0;
	for (uint32_t i = 0; i < from->count; i++)
		entries_put(to, from->all[i].name, from->all[i].inode);
}

/* --- changes ---------------------------------------------------------------------------------- */

static void change_commit(const struct change *c)
{
	if (c->from)
		entries_remove(&c->from->durable, c->from_name);
	if (c->to)
		entries_put(&c->to->durable, c->to_name, c->inode);
}

static bool names_same(const struct inode *dir, const char *name, const struct inode *dir2,
	const char *name2)
{
	return dir && dir == dir2 && strcmp(name, name2) == 0;
}

/* Is later built on earlier? What happens in a directory is built on its being there; but a sync
 * of the directory makes only its entries durable, not its own. */
static bool change_needs(const struct change *later, const struct change *earlier, bool by_sync)
{
	if (!by_sync && (later->to == earlier->inode || later->from == earlier->inode))
		return true;
	return names_same(later->from, later->from_name, earlier->from, earlier->from_name) ||
		names_same(later->from, later->from_name, earlier->to, earlier->to_name) ||
		names_same(later->to, later->to_name, earlier->from, earlier->from_name) ||
		names_same(later->to, later->to_name, earlier->to, earlier->to_name) ||
		later->inode == earlier->inode;
}

static void changes_commit_needed(bool by_sync)
{
	uint32_t kept = 0;
	for (uint32_t i = changes_count; i-- > 0;) {
		for (uint32_t k = i + 1; k < changes_count && !changes[i].needed; k++)
			changes[i].needed = changes[k].needed && change_needs(&changes[k], &changes[i],
				by_sync);
	}
	for (uint32_t i = 0; i < changes_count; i++) {
		if (changes[i].needed)
			change_commit(&changes[i]);
		else
			changes[kept++] = changes[i];
	}
	changes_count = kept;
}

void disk_commit_of(const struct inode *dir)
{
	for (uint32_t i = 0; i < changes_count; i++) {
		changes[i].needed = !disk.conf.is_strict || changes[i].from == dir ||
			changes[i].to == dir;
	}
	changes_commit_needed(true);
}

static void change_add(struct change c)
{
	if (changes_count == CHANGES_MAX || sim_chance(200)) {
		/* The file system's own commit, every now and then. */
		for (uint32_t i = 0; i < changes_count; i++)
			changes[i].needed = true;
		changes_commit_needed(false);
	}
	c.needed = false;
	changes[changes_count++] = c;
}

/* --- walking ---------------------------------------------------------------------------------- */

static struct inode *step(struct inode *dir, const char *name, size_t bytes, int *ret_err)
{
	char one[300];
	if (!dir->is_dir) {
		*ret_err = -ENOTDIR;
		return NULL;
	}
	if (bytes >= 256) {
		*ret_err = -ENAMETOOLONG;
		return NULL;
	}
	if (bytes == 0 || (bytes == 1 && *name == '.'))
		return dir;
	memcpy(one, name, bytes);
	one[bytes] = 0;
	const struct entry *e = entries_find(&dir->cached, one);
	*ret_err = e ? 0 : -ENOENT;
	return e ? e->inode : NULL;
}

struct inode *disk_find(struct inode *dir, const char *path, int *ret_err)
{
	if (*path == '/')
		dir = disk.root;
	while (dir && *path) {
		size_t bytes = strcspn(path, "/");
		dir = step(dir, path, bytes, ret_err);
		path += bytes;
		path += strspn(path, "/");
	}
	return dir;
}

struct inode *disk_parent(struct inode *dir, const char *path, const char **ret_name, int *ret_err)
{
	char head[4096];
	const char *slash = strrchr(path, '/');
	*ret_name = slash ? slash + 1 : path;
	if (!slash)
		return dir;
	snprintf(head, sizeof(head), "%.*s", (int)(slash - path) + (slash == path), path);
	struct inode *found = disk_find(dir, head, ret_err);
	if (found && !found->is_dir) {
		*ret_err = -ENOTDIR;
		return NULL;
	}
	return found;
}

/* --- changing --------------------------------------------------------------------------------- */

static struct inode *inode_new(bool is_dir)
{
	struct inode *i = sim_alloc(sizeof(*i));
	i->number = ++inodes_count + 10;
	i->is_dir = is_dir;
	i->mtime_ms = (int64_t)(sim.now_ns / SIM_MS);
	i->next = inodes;
	inodes = i;
	return i;
}

struct inode *disk_create(struct inode *dir, const char *name, bool is_dir)
{
	struct inode *i = inode_new(is_dir);
	name = name_keep(name);
	entries_put(&dir->cached, name, i);
	i->links = 1;
	i->is_journal = strncmp(name, "spare-", 6) == 0 || strncmp(name, "page-cache", 10) == 0 ||
		strcmp(name, "new") == 0 || strcmp(name, "journal") == 0;
	change_add((struct change){.inode = i, .to = dir, .to_name = name});
	return i;
}

struct inode *disk_create_unnamed(void)
{
	return inode_new(false);
}

int disk_unlink(struct inode *dir, const char *name, bool is_dir)
{
	const struct entry *e = entries_find(&dir->cached, name);
	if (!e)
		return -ENOENT;
	struct inode *i = e->inode;
	if (i->is_dir != is_dir)
		return is_dir ? -ENOTDIR : -EISDIR;
	if (is_dir && i->cached.count > 0)
		return -ENOTEMPTY;
	struct change c = {.inode = i, .from = dir, .from_name = e->name};
	entries_remove(&dir->cached, name);
	change_add(c);
	i->links--;
	inode_reap(i);
	sim_moment(3000);
	return 0;
}

int disk_rename(struct inode *from, const char *from_name, struct inode *to, const char *to_name,
	bool may_replace)
{
	const struct entry *e = entries_find(&from->cached, from_name);
	if (!e)
		return -ENOENT;
	const struct entry *old = entries_find(&to->cached, to_name);
	if (old && !may_replace)
		return -EEXIST;
	if (old && (old->inode->is_dir != e->inode->is_dir || old->inode->cached.count > 0))
		return -ENOTEMPTY;
	struct change c = {.inode = e->inode, .from = from, .from_name = e->name, .to = to,
		.to_name = name_keep(to_name)};
	struct inode *replaced = old && old->inode != e->inode ? old->inode : NULL;
	entries_remove(&from->cached, from_name);
	entries_put(&to->cached, c.to_name, c.inode);
	change_add(c);
	if (replaced) {
		replaced->links--;
		inode_reap(replaced);
	}
	return 0;
}

void disk_make_durable(struct inode *dir)
{
	bool faults = disk.faults;
	disk.faults = false;
	inode_sync(dir);
	disk.faults = faults;
}

int disk_sync_everything(void)
{
	int err = 0;
	for (struct inode *i = inodes; i; i = i->next) {
		if ((i->links > 0 || i->opens > 0) && inode_sync(i) < 0) {
			i->lost = !i->is_dir;
			err = -EIO;
		}
	}
	for (uint32_t i = 0; i < changes_count; i++)
		changes[i].needed = true;
	changes_commit_needed(false);
	disk.syncfs_failures += err < 0;
	return err;
}

int disk_list(struct inode *dir, int (*fn)(void *arg, const char *name), void *arg)
{
	struct entries copy = {0};
	int ret = 0;
	entries_copy(&copy, &dir->cached);
	for (uint32_t i = 0; !ret && i < copy.count; i++)
		ret = fn(arg, copy.all[i].name);
	sim_free(copy.all);
	return ret;
}

/* --- crash ------------------------------------------------------------------------------------ */

/* Which of the changes were on the medium already? */
static void changes_crash(void)
{
	bool is_prefix = !disk.conf.is_strict || sim_chance(5000);
	uint32_t prefix = sim_below(changes_count + 1);
	for (uint32_t i = 0; i < changes_count; i++)
		changes[i].needed = is_prefix ? i < prefix : sim_chance(5000);
	changes_commit_needed(false);
	changes_count = 0;
}

static void count_links(struct inode *dir)
{
	for (uint32_t i = 0; i < dir->cached.count; i++) {
		struct inode *child = dir->cached.all[i].inode;
		if (child->links++ == 0 && child->is_dir)
			count_links(child);
	}
}

void disk_crash(void)
{
	disk.boot++;
	changes_crash();
	for (struct inode *i = inodes; i; i = i->next) {
		i->links = 0;
		i->opens = 0;
		i->locked = i->lost = false;
		if (i->is_dir)
			entries_copy(&i->cached, &i->durable);
		else
			inode_crash(i);
	}
	disk.root->links = 1;
	count_links(disk.root);
	disk.used_pages = 0;
	for (const struct inode *i = inodes; i; i = i->next) {
		if (i->links > 0)
			disk.used_pages += inode_pages_allocated(i);
	}
}

void disk_reset(const struct disk_conf *conf)
{
	disk_fini();
	disk = (struct disk){.conf = *conf};
	disk.root = inode_new(true);
	disk.root->links = 1;
}

void disk_fini(void)
{
	while (inodes) {
		struct inode *next = inodes->next;
		inode_free(inodes);
		inodes = next;
	}
	while (names) {
		struct name *next = names->next;
		sim_free(names);
		names = next;
	}
	changes_count = 0;
	inodes_count = 0;
}
