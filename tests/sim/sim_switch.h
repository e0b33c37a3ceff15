/*
 * How one stack is left for another. The context is made by makecontext, then entered and left by
 * sigsetjmp and siglongjmp without the signal mask, which costs no system call. AddressSanitizer
 * is told.
 */
#ifndef SLUICE_SIM_SWITCH_H
#define SLUICE_SIM_SWITCH_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>

struct sim_stack {
	void *memory;
	size_t bytes;
	sigjmp_buf env;
	void *fake;             /* AddressSanitizer's */
};

/* Makes the stack; entry(arg) runs when it is first entered, and must not return. */
void sim_switch_make(struct sim_stack *s, void (*entry)(void *arg), void *arg);
void sim_switch_free(struct sim_stack *s);
/* From the scheduler into the stack, until it leaves. */
void sim_switch_enter(struct sim_stack *s);
/* Back to the scheduler. last: it is never entered again. */
void sim_switch_leave(bool last);
/* The scheduler is jumped to by other means. */
void sim_switch_abandon(void);

#endif
