/*
 * Verdicts are final but for one case: a file that arrived may turn out to be wrong when it is
 * compared. Counters follow the verdicts; nothing is counted twice.
 */
#include "tally.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int tally_init(struct tally *t, uint32_t files_count)
{
	*t = (struct tally){.files_count = files_count, .files_open = files_count};
	hist_init(&t->ack_ns);
	hist_init(&t->fin_ns);
	t->verdicts = calloc(files_count, sizeof(*t->verdicts));
	return t->verdicts != NULL ? 0 : -ENOMEM;
}

void tally_fini(struct tally *t)
{
	free(t->verdicts);
	t->verdicts = NULL;
}

/* One line on stderr, unless enough has been said. */
static void tally_tell(struct tally *t, const char *subject, const char *cause, va_list args)
{
	if (t->causes_told > TALLY_CAUSES_MAX)
		return;
	if (t->line_open)
		fputc('\n', stderr);
	t->line_open = false;
	if (t->causes_told++ == TALLY_CAUSES_MAX) {
		fputs("sluice-bench: further failures are only counted\n", stderr);
		return;
	}
	fprintf(stderr, "sluice-bench: %s", subject);
	vfprintf(stderr, cause, args);
	fputc('\n', stderr);
}

void tally_file_ok(struct tally *t, uint32_t file_idx)
{
	if (t->verdicts[file_idx] != TALLY_OPEN)
		return;
	t->verdicts[file_idx] = TALLY_OK;
	t->files_open--;
}

static void tally_fail(struct tally *t, uint32_t file_idx)
{
	if (t->verdicts[file_idx] == TALLY_OPEN)
		t->files_open--;
	t->verdicts[file_idx] = TALLY_FAILED;
	t->files_failed++;
}

void tally_file_lost(struct tally *t, uint32_t file_idx)
{
	if (t->verdicts[file_idx] == TALLY_OPEN)
		tally_fail(t, file_idx);
}

void tally_file_failed(struct tally *t, uint32_t file_idx, const char *cause, ...)
{
	char subject[32];
	va_list args;

	if (t->verdicts[file_idx] == TALLY_FAILED)
		return;
	tally_fail(t, file_idx);
	snprintf(subject, sizeof(subject), "file %" PRIu32 ": ", file_idx);
	va_start(args, cause);
	tally_tell(t, subject, cause, args);
	va_end(args);
}

void tally_connection_failed(struct tally *t, const char *cause, ...)
{
	va_list args;

	t->connections_failed++;
	va_start(args, cause);
	tally_tell(t, "", cause, args);
	va_end(args);
}
