/*
 * The progress line: redrawn in place, cut to the width of the terminal, gone before any message.
 */
#include "progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { DRAW_MS = 100, RATE_MS = 500, BAR_CELLS = 24 };

void progress_init(struct progress *p, bool is_quiet)
{
	*p = (struct progress){.is_quiet = is_quiet};
	p->is_terminal = !is_quiet && isatty(STDERR_FILENO);
}

const char *progress_bytes(uint64_t bytes, char buf[32])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	int unit = 0;

	while (value >= 1024 && unit < 6) {
		value /= 1024;
		unit++;
	}
	snprintf(buf, 32, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, units[unit]);
	return buf;
}

void progress_clear(struct progress *p)
{
	if (p->is_drawn) {
		fputs("\r\033[K", stderr);
		p->is_drawn = false;
	}
}

static void say(struct progress *p, const char *fmt, va_list ap)
{
	progress_clear(p);
	fputs("sluice: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
}

void progress_say(struct progress *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(p, fmt, ap);
	va_end(ap);
}

void progress_note(struct progress *p, const char *fmt, ...)
{
	va_list ap;

	if (p->is_quiet) {
		return;
	}
	va_start(ap, fmt);
	say(p, fmt, ap);
	va_end(ap);
}

/* An exponential mean over some three seconds: steady enough to read, quick enough to believe. */
static void take_rate(struct progress *p, uint64_t now_ms, uint64_t sent)
{
	if (p->rate_ms == 0) {
		p->rate_ms = now_ms;
		p->rate_bytes = sent;
		return;
	}
	uint64_t ms = now_ms - p->rate_ms;
	if (ms < RATE_MS) {
		return;
	}
	double now_rate = (double)(sent - p->rate_bytes) * 1000 / (double)ms;
	double weight = (double)ms / 3000 > 1 ? 1 : (double)ms / 3000;
	p->rate = p->rate == 0 ? now_rate : p->rate + (now_rate - p->rate) * weight;
	p->rate_ms = now_ms;
	p->rate_bytes = sent;
}

static void format_eta(char *buf, size_t buf_max, uint64_t left_bytes, double rate)
{
	uint64_t s = rate < 1 ? UINT64_MAX : (uint64_t)((double)left_bytes / rate);

	if (s > 99 * 3600) {
		snprintf(buf, buf_max, "--:--");
	} else if (s >= 3600) {
		snprintf(buf, buf_max, "%d:%02d:%02d", (int)(s / 3600), (int)(s / 60 % 60), (int)(s % 60));
	} else {
		snprintf(buf, buf_max, "%d:%02d", (int)(s / 60), (int)(s % 60));
	}
}

static void format_bar(char *buf, double part)
{
	int full = (int)(part * BAR_CELLS);

	for (int i = 0; i < BAR_CELLS; i++) {
		buf[i] = i < full ? '=' : i == full ? '>' : ' ';
	}
	buf[BAR_CELLS] = 0;
}

static int terminal_columns(void)
{
	struct winsize w;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

void progress_draw(struct progress *p, uint64_t now_ms, const struct progress_view *v)
{
	char line[512], tail[128], files[48] = "", stored[32], size[32], rate[32], eta[32];
	char bar[BAR_CELLS + 1];

	if (!p->is_terminal || now_ms - p->drawn_ms < DRAW_MS) {
		return;
	}
	p->drawn_ms = now_ms;
	take_rate(p, now_ms, v->sent);
	if (v->total > 1) {
		snprintf(files, sizeof(files), "%u/%u ", v->done, v->total);
	}
	format_eta(eta, sizeof(eta), v->size > v->stored ? v->size - v->stored : 0, p->rate);
	progress_bytes(v->stored, stored);
	progress_bytes((uint64_t)p->rate, rate);
	if (v->state) {
		snprintf(tail, sizeof(tail), "%s", v->state);
	} else if (v->size) {
		snprintf(tail, sizeof(tail), "%s/s  ETA %s", rate, eta);
	} else {
		snprintf(tail, sizeof(tail), "%s/s", rate);
	}
	if (v->size) {
		double part = (double)v->stored / (double)v->size;
		format_bar(bar, part);
		snprintf(line, sizeof(line), "%s%.200s  %3.0f%% [%s] %s of %s  %s", files, v->label,
			part * 100, bar, stored, progress_bytes(v->size, size), tail);
	} else {
		snprintf(line, sizeof(line), "%s%.200s  %s  %s", files, v->label, stored, tail);
	}
	fprintf(stderr, "\r%.*s\033[K", terminal_columns() - 1, line);
	p->is_drawn = true;
}
