/*
 * sim_disk.h: files, page by page.
 */
#include <errno.h>
#include <string.h>
#include "sim_inode.h"

enum { SECTOR = 512, LOOK = 16 };

/* --- pages ------------------------------------------------------------------------------------ */

union free_page {
	union free_page *next;
	uint8_t bytes[DISK_PAGE];
};

static union free_page *free_pages;

static uint8_t *page_take(void)
{
	union free_page *p = free_pages;
	if (!p)
		return sim_alloc(sizeof(*p));
	free_pages = p->next;
	memset(p, 0, sizeof(*p));
	return p->bytes;
}

static void page_give(uint8_t *bytes)
{
	union free_page *p = (union free_page *)(void *)bytes;
	if (!p)
		return;
	p->next = free_pages;
	free_pages = p;
}

static void page_copy(uint8_t **to, const uint8_t *from)
{
	if (!from) {
		page_give(*to);
		*to = NULL;
		return;
	}
	if (!*to)
		*to = page_take();
	memcpy(*to, from, DISK_PAGE);
}

static struct page *page_at(struct inode *i, uint64_t idx)
{
	if (idx >= i->pages_count) {
		uint32_t count = i->pages_count ? i->pages_count * 2 : 8;
		while (count <= idx)
			count *= 2;
		i->pages = sim_realloc(i->pages, count * sizeof(*i->pages));
		memset(i->pages + i->pages_count, 0, (count - i->pages_count) * sizeof(*i->pages));
		i->pages_count = count;
	}
	return &i->pages[idx];
}

static bool counts(const struct inode *i)
{
	return i->links > 0 || i->opens > 0;
}

uint64_t inode_pages_allocated(const struct inode *i)
{
	uint64_t n = 0;
	for (uint32_t k = 0; k < i->pages_count; k++)
		n += i->pages[k].allocated;
	return n;
}

uint64_t disk_free_bytes(void)
{
	uint64_t used = disk.used_pages * DISK_PAGE + disk.taken_bytes;
	return used < disk.conf.bytes ? disk.conf.bytes - used : 0;
}

static bool page_allocate(struct page *p)
{
	if (p->allocated)
		return true;
	if (disk_free_bytes() < DISK_PAGE)
		return false;
	p->allocated = true;
	disk.used_pages++;
	return true;
}

static void page_write_back(struct page *p)
{
	page_copy(&p->durable, p->cached);
	p->dirty = false;
}

static bool fault(const struct inode *i, uint32_t in_10000)
{
	if (!disk.faults || (i->is_journal && disk.conf.spares_journal) || !sim_chance(in_10000))
		return false;
	disk.faults_count++;
	return true;
}

/* --- files ------------------------------------------------------------------------------------ */

bool inode_is_dir(const struct inode *i)
{
	return i->is_dir;
}

uint64_t inode_size(const struct inode *i)
{
	return i->size;
}

uint64_t inode_number(const struct inode *i)
{
	return i->number;
}

uint64_t inode_blocks_bytes(const struct inode *i)
{
	return inode_pages_allocated(i) * DISK_PAGE;
}

int64_t inode_mtime_ms(const struct inode *i)
{
	return i->mtime_ms;
}

uint32_t inode_mode(const struct inode *i)
{
	return i->mode;
}

void inode_set_mode(struct inode *i, uint32_t mode)
{
	i->mode = mode;
}

void inode_open(struct inode *i)
{
	i->opens++;
}

void inode_close(struct inode *i)
{
	i->opens--;
	inode_reap(i);
}

void inode_reap(struct inode *i)
{
	if (i->links || i->opens || i->is_dir)
		return;
	/* Only of the blocks: a crash may bring the file back. */
	disk.used_pages -= inode_pages_allocated(i);
	for (uint32_t k = 0; k < i->pages_count; k++)
		i->pages[k].allocated = false;
}

bool inode_lock(struct inode *i)
{
	bool was_free = !i->locked;
	i->locked = true;
	return was_free;
}

void inode_unlock(struct inode *i)
{
	i->locked = false;
}

void inode_seal(struct inode *i, bool sealed)
{
	i->sealed = sealed;
}

void inode_peek(const struct inode *i, void *buf, uint64_t len, uint64_t off)
{
	uint8_t *to = buf;
	while (len > 0) {
		uint64_t idx = off / DISK_PAGE, in = off % DISK_PAGE, n = DISK_PAGE - in;
		const uint8_t *from = idx < i->pages_count ? i->pages[idx].cached : NULL;
		n = n < len ? n : len;
		if (from)
			memcpy(to, from + in, n);
		else
			memset(to, 0, n);
		to += n;
		off += n;
		len -= n;
	}
}

bool inode_replaces(const struct inode *i, const void *buf, uint64_t len, uint64_t off)
{
	static const uint8_t zeros[LOOK];
	uint8_t there[LOOK];
	uint64_t n = len < LOOK ? len : LOOK;
	if (i->is_dir || i->is_journal || off + n > i->size)
		return false;
	inode_peek(i, there, n, off);
	return memcmp(there, buf, n) != 0 && memcmp(there, zeros, n) != 0;
}

int64_t inode_read(struct inode *i, void *buf, uint64_t len, uint64_t off)
{
	if (fault(i, disk.conf.eio_read))
		return -EIO;
	if (off >= i->size)
		return 0;
	if (len > i->size - off)
		len = i->size - off;
	inode_peek(i, buf, len, off);
	return (int64_t)len;
}

static void check_seal(const struct inode *i)
{
	if (i->sealed)
		sim_fail("an exported file is changed (inode %llu)", (unsigned long long)i->number);
}

int64_t inode_write(struct inode *i, const void *buf, uint64_t len, uint64_t off)
{
	const uint8_t *from = buf;
	uint64_t done = 0;
	check_seal(i);
	if (fault(i, disk.conf.eio_write))
		return -EIO;
	if (fault(i, disk.conf.enospc))
		return -ENOSPC;
	if (len > 1 && (disk.dying || (!i->is_journal && sim_chance(disk.conf.short_write))))
		len = sim_between(1, len - 1);
	while (done < len) {
		uint64_t at = off + done, in = at % DISK_PAGE, n = DISK_PAGE - in;
		struct page *p = page_at(i, at / DISK_PAGE);
		if (!page_allocate(p))
			break;
		n = n < len - done ? n : len - done;
		if (!p->cached)
			p->cached = page_take();
		memcpy(p->cached + in, from + done, n);
		p->dirty = true;
		done += n;
		if (sim_chance(300))
			page_write_back(p);
	}
	if (done > 0 && off + done > i->size)
		i->size = off + done;
	i->mtime_ms = (int64_t)(sim.now_ns / SIM_MS);
	sim_moment(i->is_journal ? 20 : 100);
	return done > 0 || len == 0 ? (int64_t)done : -ENOSPC;
}

/* Bytes behind the end read as zeros when the file grows again. */
static void cut_pages(struct inode *i, uint64_t size)
{
	for (uint64_t idx = size / DISK_PAGE; idx < i->pages_count; idx++) {
		struct page *p = &i->pages[idx];
		uint64_t keep = idx * DISK_PAGE < size ? size % DISK_PAGE : 0;
		if (p->cached && keep > 0) {
			memset(p->cached + keep, 0, DISK_PAGE - keep);
			p->dirty = true;
		} else if (keep == 0) {
			p->dirty = p->dirty || p->cached || p->durable;
			page_give(p->cached);
			p->cached = NULL;
			if (p->allocated && counts(i))
				disk.used_pages--;
			p->allocated = false;
		}
	}
}

int inode_truncate(struct inode *i, uint64_t size)
{
	check_seal(i);
	if (fault(i, disk.conf.eio_write))
		return -EIO;
	if (size < i->size)
		cut_pages(i, size);
	i->size = size;
	return 0;
}

int inode_allocate(struct inode *i, uint64_t off, uint64_t len)
{
	check_seal(i);
	if (disk.conf.no_fallocate)
		return -EOPNOTSUPP;
	if (fault(i, disk.conf.enospc))
		return -ENOSPC;
	for (uint64_t at = off / DISK_PAGE * DISK_PAGE; at < off + len; at += DISK_PAGE) {
		if (!page_allocate(page_at(i, at / DISK_PAGE)))
			return -ENOSPC; /* and leaves behind what it has taken, as ext4 does */
	}
	if (off + len > i->size)
		i->size = off + len;
	return 0;
}

/* The pages are clean, and what they held may be gone from the cache, too. */
static int sync_fails(struct inode *i)
{
	bool evicted = sim_chance(5000);
	disk.sync_failures++;
	disk.sync_failed_ns = sim.now_ns;
	for (uint32_t k = 0; k < i->pages_count; k++) {
		struct page *p = &i->pages[k];
		if (p->dirty && evicted)
			page_copy(&p->cached, p->durable);
		p->dirty = false;
	}
	return -EIO;
}

int inode_sync(struct inode *i)
{
	if (i->lost) {
		i->lost = false;
		return -EIO;
	}
	if (fault(i, disk.conf.eio_sync))
		return i->is_dir ? -EIO : sync_fails(i);
	for (uint32_t k = 0; k < i->pages_count; k++) {
		if (i->pages[k].dirty)
			page_write_back(&i->pages[k]);
	}
	i->durable_size = i->size;
	sim_moment(200);
	if (i->is_dir || !disk.conf.is_strict)
		disk_commit_of(i);
	return 0;
}

/* --- crash ------------------------------------------------------------------------------------ */

static void page_crash(struct page *p)
{
	uint32_t fate = sim_below(3);
	if (fate == 0 && p->cached) { /* torn */
		uint8_t *torn = page_take();
		if (p->durable)
			memcpy(torn, p->durable, DISK_PAGE);
		for (uint32_t at = 0; at < DISK_PAGE; at += SECTOR) {
			if (sim_chance(5000))
				memcpy(torn + at, p->cached + at, SECTOR);
		}
		page_give(p->durable);
		p->durable = torn;
	} else if (fate == 1) { /* written back just before */
		page_copy(&p->durable, p->cached);
	}
	p->dirty = false;
}

void inode_crash(struct inode *i)
{
	uint64_t size = i->durable_size;
	if (i->size != size)
		size = sim_chance(3000) ? size : sim_chance(5000) ? i->size :
			sim_between(i->size < size ? i->size : size, i->size < size ? size : i->size);
	for (uint32_t k = 0; k < i->pages_count; k++) {
		struct page *p = &i->pages[k];
		if (p->dirty)
			page_crash(p);
		page_copy(&p->cached, p->durable);
		p->allocated = p->allocated || p->cached;
	}
	i->size = i->durable_size = size;
	for (uint64_t idx = size / DISK_PAGE; idx < i->pages_count; idx++) {
		struct page *p = &i->pages[idx];
		uint64_t keep = idx * DISK_PAGE < size ? size % DISK_PAGE : 0;
		if (p->cached)
			memset(p->cached + keep, 0, DISK_PAGE - keep);
		page_copy(&p->durable, p->cached);
		p->allocated = p->allocated && idx * DISK_PAGE < size;
	}
}

void inode_free(struct inode *i)
{
	for (uint32_t k = 0; k < i->pages_count; k++) {
		page_give(i->pages[k].cached);
		page_give(i->pages[k].durable);
	}
	sim_free(i->pages);
	sim_free(i->cached.all);
	sim_free(i->durable.all);
	sim_free(i);
}
