/*
 * What the user sees: messages, and a progress line when stderr is a terminal.
 */
#ifndef CLIENT_PROGRESS_H
#define CLIENT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool is_quiet;         /* errors only */
	bool is_terminal;      /* and not quiet: there is a line to draw */
	bool is_drawn;         /* the line is on the screen */
	uint64_t drawn_ms;
	uint64_t rate_ms;      /* when the rate was last taken, and the bytes sent by then */
	uint64_t rate_bytes;
	double rate;           /* bytes per second, smoothed; 0 = not known yet */
};

struct progress_view {
	const char *label;          /* the file under way */
	unsigned done, total;       /* files */
	uint64_t stored, size;      /* bytes of all files; size 0 = not known (a pipe) */
	uint64_t sent;              /* bytes that went out in this run */
	const char *state;          /* NULL, or what is shown instead of the rate */
};

void progress_init(struct progress *p, bool is_quiet);
/* Draws the line, at most ten times a second. */
void progress_draw(struct progress *p, uint64_t now_ms, const struct progress_view *v);
void progress_clear(struct progress *p);
/* "sluice: …" on stderr. say is for errors; note is left out when quiet. */
void progress_say(struct progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void progress_note(struct progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "1.5 GiB" into buf, which it returns. */
const char *progress_bytes(uint64_t bytes, char buf[32]);

#endif
