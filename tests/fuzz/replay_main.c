/*
 * The main of a fuzz entry outside libFuzzer: every file of the directories named is handed to the
 * entry once.
 *
 * Each input lies in an allocation of exactly its size, so that a sanitizer or valgrind sees a read
 * behind it. A crash ends the program as it would end the daemon; the input's name is printed on
 * the way.
 */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char current[4096];

static void on_crash(int number)
{
	/* Only what a signal handler may call. */
	if (write(STDERR_FILENO, "crashed on ", 11) < 0 ||
		write(STDERR_FILENO, current, strlen(current)) < 0 ||
		write(STDERR_FILENO, "\n", 1) < 0)
		_exit(2);
	signal(number, SIG_DFL);
	raise(number);
}

static int replay_file(const char *path)
{
	FILE *file = fopen(path, "re");
	uint8_t *data = NULL;
	long bytes;
	int err = -1;

	if (!file)
		return -1;
	if (fseek(file, 0, SEEK_END) || (bytes = ftell(file)) < 0 || fseek(file, 0, SEEK_SET))
		goto out;
	data = malloc(bytes ? bytes : 1);
	if (!data || fread(data, 1, bytes, file) != (size_t)bytes)
		goto out;
	snprintf(current, sizeof(current), "%s", path);
	LLVMFuzzerTestOneInput(data, bytes);
	err = 0;
out:
	free(data);
	fclose(file);
	return err;
}

/* The number of inputs, or −1. */
static int replay_directory(const char *path)
{
	struct dirent **entries;
	int count = scandir(path, &entries, NULL, alphasort), replayed = 0;
	char name[4096];

	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
		if (*entries[i]->d_name != '.' && replayed >= 0)
			replayed = replay_file(name) ? -1 : replayed + 1;
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	return count < 0 ? -1 : replayed;
}

int main(int argc, char **argv)
{
	static const int crashes[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
	int total = 0;

	for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		signal(crashes[i], on_crash);
	for (int i = 1; i < argc; i++) {
		int replayed = replay_directory(argv[i]);

		if (replayed < 0) {
			fprintf(stderr, "%s: can't be read; the corpus is a directory of files.\n",
				argv[i]);
			return 1;
		}
		total += replayed;
	}
	printf("%d inputs\n", total);
	return total ? 0 : 1; /* a corpus without an input tests nothing */
}
