/*
 * sim.h: the daemon's memory. The linker puts these in the place of malloc and its kin, so that all
 * of a process that "dies" can be given back, and what one that ended in peace has forgotten is
 * known.
 */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct block {
	struct block *next, *prev;
	size_t bytes;
	const void *caller;
};

extern void *__real_malloc(size_t bytes);
extern void *__real_calloc(size_t count, size_t bytes);
extern void *__real_realloc(void *p, size_t bytes);
extern void __real_free(void *p);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *p, size_t bytes);
void __wrap_free(void *p);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t bytes_max);
int __wrap_asprintf(char **ret, const char *format, ...) __attribute__((format(printf, 2, 3)));

static struct block all = {&all, &all, 0, NULL};
static uint64_t count;

static void *link_block(struct block *b, size_t bytes, const void *caller)
{
	b->bytes = bytes;
	b->caller = caller;
	b->next = all.next;
	b->prev = &all;
	all.next->prev = b;
	all.next = b;
	count++;
	return b + 1;
}

static struct block *unlink_block(void *p)
{
	struct block *b = (struct block *)p - 1;
	b->next->prev = b->prev;
	b->prev->next = b->next;
	count--;
	return b;
}

void *__wrap_malloc(size_t bytes)
{
	struct block *b = __real_malloc(sizeof(*b) + bytes);
	return b ? link_block(b, bytes, __builtin_return_address(0)) : NULL;
}

void *__wrap_calloc(size_t items, size_t bytes)
{
	struct block *b = __real_calloc(1, sizeof(*b) + items * bytes);
	return b ? link_block(b, items * bytes, __builtin_return_address(0)) : NULL;
}

void *__wrap_realloc(void *p, size_t bytes)
{
	struct block *b = p ? unlink_block(p) : NULL;
	b = __real_realloc(b, sizeof(*b) + bytes);
	return b ? link_block(b, bytes, __builtin_return_address(0)) : NULL;
}

void __wrap_free(void *p)
{
	if (p)
		__real_free(unlink_block(p));
}

char *__wrap_strdup(const char *s)
{
	size_t bytes = strlen(s) + 1;
	struct block *b = __real_malloc(sizeof(*b) + bytes);
	return b ? memcpy(link_block(b, bytes, __builtin_return_address(0)), s, bytes) : NULL;
}

char *__wrap_strndup(const char *s, size_t bytes_max)
{
	size_t bytes = strnlen(s, bytes_max);
	struct block *b = __real_calloc(1, sizeof(*b) + bytes + 1);
	return b ? memcpy(link_block(b, bytes + 1, __builtin_return_address(0)), s, bytes) : NULL;
}

int __wrap_asprintf(char **ret, const char *format, ...)
{
	va_list args, again;
	va_start(args, format);
	va_copy(again, args);
	int bytes = vsnprintf(NULL, 0, format, args);
	va_end(args);
	struct block *b = __real_malloc(sizeof(*b) + (size_t)bytes + 1);
	if (b) {
		*ret = link_block(b, (size_t)bytes + 1, __builtin_return_address(0));
		vsnprintf(*ret, (size_t)bytes + 1, format, again);
	}
	va_end(again);
	return b ? bytes : -1;
}

void *sim_alloc(size_t bytes)
{
	void *p = __real_calloc(1, bytes);
	if (!p)
		abort();
	return p;
}

void *sim_realloc(void *p, size_t bytes)
{
	p = __real_realloc(p, bytes);
	if (!p)
		abort();
	return p;
}

void sim_free(void *p)
{
	__real_free(p);
}

uint64_t sim_memory_count(void)
{
	return count;
}

void sim_memory_drop(void)
{
	while (all.next != &all)
		__real_free(unlink_block(all.next + 1));
}

void sim_memory_keep(void)
{
	all.next = all.prev = &all;
	count = 0;
}

extern char __executable_start;

void sim_memory_describe(char *ret, size_t ret_max)
{
	const struct block *b = all.prev;
	snprintf(ret, ret_max, "%zu bytes, allocated before address 0x%llx of the program", b->bytes,
		(unsigned long long)((const char *)b->caller - &__executable_start));
}
