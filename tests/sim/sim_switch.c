#include "sim_switch.h"

#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>
#include "sim.h"

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef HAVE_ASAN
const char *__asan_default_options(void);

/* What a process that dies leaves behind is no leak; of what the daemon leaves, sim_memory.c knows. */
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
#endif

enum { STACK_BYTES = 512 * 1024 };

static struct sim_stack *current;
static sigjmp_buf scheduler_env, maker_env;
#ifdef HAVE_ASAN
static void *scheduler_fake;
static const void *scheduler_bottom;
static size_t scheduler_bytes;
#endif

struct start {
	void (*entry)(void *arg);
	void *arg;
	struct sim_stack *stack;
	ucontext_t self;
};

static struct start *starting;

static void after_enter(void)
{
#ifdef HAVE_ASAN
	__sanitizer_finish_switch_fiber(current->fake, &scheduler_bottom, &scheduler_bytes);
#endif
}

/* Runs first in swapcontext, only to have a context to jump to. */
static void trampoline(void)
{
	struct start s = *starting;
	if (sigsetjmp(s.stack->env, 0) == 0)
		siglongjmp(maker_env, 1);
	after_enter();
	s.entry(s.arg);
}

void sim_switch_make(struct sim_stack *s, void (*entry)(void *arg), void *arg)
{
	static struct start start;
	if (!s->memory) {
		s->bytes = STACK_BYTES;
		s->memory = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	}
#ifdef HAVE_ASAN
	__asan_unpoison_memory_region(s->memory, s->bytes);
#endif
	s->fake = NULL;
	start = (struct start){.entry = entry, .arg = arg, .stack = s};
	starting = &start;
	getcontext(&start.self);
	start.self.uc_stack.ss_sp = s->memory;
	start.self.uc_stack.ss_size = s->bytes;
	start.self.uc_link = NULL;
	makecontext(&start.self, trampoline, 0);
#ifdef HAVE_ASAN
	void *fake = NULL;
	__sanitizer_start_switch_fiber(&fake, s->memory, s->bytes);
#endif
	if (sigsetjmp(maker_env, 0) == 0)
		setcontext(&start.self);
#ifdef HAVE_ASAN
	__sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
}

void sim_switch_free(struct sim_stack *s)
{
	if (s->memory)
		munmap(s->memory, s->bytes);
	s->memory = NULL;
}

void sim_switch_enter(struct sim_stack *s)
{
	current = s;
#ifdef HAVE_ASAN
	__sanitizer_start_switch_fiber(&scheduler_fake, s->memory, s->bytes);
#endif
	if (sigsetjmp(scheduler_env, 0) == 0)
		siglongjmp(s->env, 1);
#ifdef HAVE_ASAN
	__sanitizer_finish_switch_fiber(scheduler_fake, NULL, NULL);
#endif
	current = NULL;
}

void sim_switch_leave(bool last)
{
	struct sim_stack *s = current;
#ifdef HAVE_ASAN
	__sanitizer_start_switch_fiber(last ? NULL : &s->fake, scheduler_bottom, scheduler_bytes);
#else
	(void)last;
#endif
	if (sigsetjmp(s->env, 0) == 0)
		siglongjmp(scheduler_env, 1);
	after_enter();
}

void sim_switch_abandon(void)
{
#ifdef HAVE_ASAN
	if (current) {
		__sanitizer_start_switch_fiber(NULL, scheduler_bottom, scheduler_bytes);
		__sanitizer_finish_switch_fiber(scheduler_fake, NULL, NULL);
	}
#endif
	current = NULL;
}
