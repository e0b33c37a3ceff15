/*
 * Preloaded into a program, makes its SLUICE_ALLOC_NTH-th allocation fail (and all that follow, with
 * SLUICE_ALLOC_AND_ON). At the end of the process the number of allocations goes to SLUICE_ALLOC_COUNT, a file.
 * For alloc.py.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t calls, nth = UINT64_MAX;
static bool and_on;

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static int (*real_memalign)(void **, size_t, size_t);

/* dlsym may allocate itself, before its own functions are known. */
static _Alignas(16) char early[65536];
static size_t early_used;

static void *early_take(size_t bytes)
{
	void *p = early + early_used;
	early_used += (bytes + 15) & ~(size_t)15;
	if (early_used > sizeof(early))
		abort();
	return p;
}

__attribute__((constructor)) static void begin(void)
{
	const char *text = getenv("SLUICE_ALLOC_NTH");
	real_calloc = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
	real_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
	real_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
	real_memalign = (int (*)(void **, size_t, size_t))dlsym(RTLD_NEXT, "posix_memalign");
	and_on = getenv("SLUICE_ALLOC_AND_ON") != NULL;
	nth = text ? strtoull(text, NULL, 10) : UINT64_MAX;
	calls = 0;
}

__attribute__((destructor)) static void tell(void)
{
	const char *path = getenv("SLUICE_ALLOC_COUNT");
	FILE *file = path ? fopen(path, "w") : NULL;
	if (file) {
		fprintf(file, "%llu\n", (unsigned long long)calls);
		fclose(file);
	}
}

/* What the runtime does at the end is not the program's: a build that counts its lines writes them then. */
static void spare_the_end(void)
{
	__atomic_store_n(&and_on, false, __ATOMIC_SEQ_CST);
	__atomic_store_n(&nth, UINT64_MAX, __ATOMIC_SEQ_CST);
}

static bool fails(void)
{
	uint64_t n = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
	if (n == 1)
		atexit(spare_the_end);
	if (n != nth && !(and_on && n > nth))
		return false;
	errno = ENOMEM;
	return true;
}

void *malloc(size_t bytes)
{
	if (!real_malloc)
		return early_take(bytes);
	return fails() ? NULL : real_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	if (!real_calloc)
		return early_take(count * bytes);
	return fails() ? NULL : real_calloc(count, bytes);
}

void *realloc(void *p, size_t bytes)
{
	if (!real_realloc || ((char *)p >= early && (char *)p < early + sizeof(early))) {
		void *moved = early_take(bytes);
		if (p)
			memcpy(moved, p, bytes);
		return moved;
	}
	return fails() ? NULL : real_realloc(p, bytes);
}

int posix_memalign(void **ret, size_t alignment, size_t bytes)
{
	return fails() ? ENOMEM : real_memalign(ret, alignment, bytes);
}

void free(void *p)
{
	static void (*real_free)(void *);
	if ((char *)p >= early && (char *)p < early + sizeof(early))
		return;
	if (!real_free)
		real_free = (void (*)(void *))dlsym(RTLD_NEXT, "free");
	real_free(p);
}
