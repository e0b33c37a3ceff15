/*
 * The progress line: redrawn in place, cut to the width of the terminal, gone before any message.
 */
#include "progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { DRAW_MS = 100, RATE_MS = 500, BAR_MIN = 8, BAR_MAX = 30 };

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

/* The name of a file, or a server's words, must not steer the terminal. */
static void make_harmless(char *s)
{
	for (; *s; s++) {
		if ((unsigned char)*s < 32 || *s == 127) {
			*s = '?';
		}
	}
}

static void say(struct progress *p, const char *fmt, va_list ap)
{
	char text[8192];

	progress_clear(p);
	vsnprintf(text, sizeof(text), fmt, ap);
	make_harmless(text);
	fprintf(stderr, "sluice: %s\n", text);
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
		snprintf(buf, buf_max, "%d:%02d:%02d", (int)(s / 3600), (int)(s / 60 % 60),
			(int)(s % 60));
	} else {
		snprintf(buf, buf_max, "%d:%02d", (int)(s / 60), (int)(s % 60));
	}
}

/* "[=====>    ] " of that many columns in all, or nothing when the terminal has no room for a
 * bar. */
static void format_bar(char *buf, double part, int columns)
{
	int cells = columns - 3 < BAR_MAX ? columns - 3 : BAR_MAX;
	int full = (int)(part * cells), n = 0;

	if (cells >= BAR_MIN) {
		buf[n++] = '[';
		for (int i = 0; i < cells; i++) {
			buf[n++] = i < full ? '=' : i == full ? '>' : ' ';
		}
		buf[n++] = ']';
		buf[n++] = ' ';
	}
	buf[n] = 0;
}

static int terminal_columns(void)
{
	struct winsize w;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

/* The end of the line: what has arrived, how fast, how long yet. */
static void format_tail(const struct progress *p, const struct progress_view *v, char *buf,
	size_t buf_max)
{
	char stored[32], size[40] = "", rate[48], eta[32];

	progress_bytes(v->stored, stored);
	if (v->size) {
		memcpy(size, " of ", 5);
		progress_bytes(v->size, size + 4);
	}
	if (v->state) {
		snprintf(buf, buf_max, "%s%s  %s", stored, size, v->state);
		return;
	}
	progress_bytes((uint64_t)p->rate, rate);
	if (v->size) {
		uint64_t left = v->size > v->stored ? v->size - v->stored : 0;
		format_eta(eta, sizeof(eta), left, p->rate);
		snprintf(buf, buf_max, "%s%s  %s/s  ETA %s", stored, size, rate, eta);
	} else {
		snprintf(buf, buf_max, "%s  %s/s", stored, rate);
	}
}

void progress_draw(struct progress *p, uint64_t now_ms, const struct progress_view *v)
{
	char head[320], tail[160], bar[BAR_MAX + 4] = "", files[48] = "";
	int columns = terminal_columns() - 1;

	if (!p->is_terminal || now_ms - p->drawn_ms < DRAW_MS) {
		return;
	}
	p->drawn_ms = now_ms;
	take_rate(p, now_ms, v->sent);
	if (v->total > 1) {
		snprintf(files, sizeof(files), "%u/%u ", v->done, v->total);
	}
	format_tail(p, v, tail, sizeof(tail));
	if (v->size) {
		double part = (double)v->stored / (double)v->size;
		int n = snprintf(head, sizeof(head), "%s%.200s  %3.0f%% ", files, v->label,
			part * 100);
		format_bar(bar, part, columns - n - (int)strlen(tail));
	} else {
		snprintf(head, sizeof(head), "%s%.200s  ", files, v->label);
	}
	make_harmless(head);
	fprintf(stderr, "\r%s%s%.*s\033[K", head, bar,
		columns - (int)strlen(head) > 0 ? columns - (int)strlen(head) : 0, tail);
	p->is_drawn = true;
}
