/*
 * Criterion's runner, as far as our tests need it, for builds in which the real one can't start.
 *
 * Criterion puts an arena at a random fixed address, which ThreadSanitizer's layout of memory
 * forbids (Criterion issue 274). Tests compiled against its headers need only a handful of its
 * functions; here they are. Each test runs in a forked child, in the order of linking; a child that
 * dies, or that a sanitizer ends with an exit code, has failed. Of the features of Test(): init,
 * fini, signal, exit_code and disabled. Parameterized tests are reported as failing.
 */
#include <criterion/criterion.h>
#include <criterion/event.h>
#include <criterion/options.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS_PER_TEST = 120 };

/* The linker's bounds of the sections into which Test() and TestSuite() put their pointers. */
extern struct criterion_test *__start_cr_tst[], *__stop_cr_tst[];
extern struct criterion_suite *__start_cr_sts[] __attribute__((weak));
extern struct criterion_suite *__stop_cr_sts[] __attribute__((weak));

struct criterion_options criterion_options;

static struct criterion_test *current;
static bool current_failed;

static const struct criterion_test_extra_data *suite_of(const struct criterion_test *test)
{
	for (struct criterion_suite **suite = __start_cr_sts; suite < __stop_cr_sts; suite++) {
		if (*suite && !strcmp((*suite)->name, test->category))
			return (*suite)->data;
	}
	return NULL;
}

void criterion_internal_test_setup(void)
{
	const struct criterion_test_extra_data *suite = suite_of(current);

	if (suite && suite->init)
		suite->init();
	if (current->data->init)
		current->data->init();
}

void criterion_internal_test_main(void (*fn)(void))
{
	fn();
}

void criterion_internal_test_teardown(void)
{
	const struct criterion_test_extra_data *suite = suite_of(current);

	if (current->data->fini)
		current->data->fini();
	if (suite && suite->fini)
		suite->fini();
}

void criterion_send_assert(struct criterion_assert_stats *stats)
{
	if (stats->passed)
		return;
	current_failed = true;
	fprintf(stderr, "%s:%u: %s\n", stats->file, stats->line, stats->message);
}

void criterion_abort_test(void)
{
	exit(1);
}

void criterion_continue_test(void)
{
}

void cri_asserts_passed_incr(void)
{
}

int cr_asprintf(char **ret_text, const char *format, ...)
{
	va_list args;
	int bytes;

	va_start(args, format);
	bytes = vasprintf(ret_text, format, args);
	va_end(args);
	return bytes;
}

void cr_asprintf_free(char *text)
{
	free(text);
}

/* The condition as it stands in the source is all that is told; the file and line lead to the rest.
 */
char *cr_translate_assert_msg(int msg_index, ...)
{
	char *text;
	va_list args;

	(void)msg_index;
	va_start(args, msg_index);
	text = strdup(va_arg(args, const char *));
	va_end(args);
	return text;
}

static bool run(struct criterion_test *test)
{
	const struct criterion_test_extra_data *data = test->data;
	int status;
	pid_t child;

	if (data->kind_ != CR_TEST_NORMAL)
		return false;
	fflush(NULL);
	child = fork();
	if (child < 0)
		return false;
	if (!child) {
		alarm(SECONDS_PER_TEST);
		current = test;
		test->test();
		exit(current_failed);
	}
	if (waitpid(child, &status, 0) != child)
		return false;
	if (data->signal)
		return WIFSIGNALED(status) && WTERMSIG(status) == data->signal;
	return WIFEXITED(status) && WEXITSTATUS(status) == data->exit_code;
}

int main(void)
{
	unsigned tested = 0, passing = 0;

	for (struct criterion_test **test = __start_cr_tst; test < __stop_cr_tst; test++) {
		if (!*test || (*test)->data->disabled)
			continue;
		tested++;
		if (run(*test))
			passing++;
		else
			fprintf(stderr, "[FAIL] %s::%s\n", (*test)->category, (*test)->name);
	}
	/* In Criterion's words, so that check.sh reads both. */
	printf("[====] Synthesis: Tested: %u | Passing: %u | Failing: %u | Crashing: 0\n", tested,
		passing, tested - passing);
	return passing == tested ? 0 : 1;
}
