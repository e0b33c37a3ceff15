/*
 * sluice: the client. A table of commands.
 */
#include <stdio.h>
#include <string.h>
#include "commands.h"
#include "options.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *description;
} commands[] = {
	{"send", send_main, "Sends files, and goes on where an earlier run ended"},
	{"status", status_main, "Says what the server has of a file"},
	{"abort", abort_main, "Makes the server forget a file that is not complete"},
};

static void show_usage(FILE *to)
{
	fprintf(to, "usage: sluice COMMAND [OPTION…] FILE…\n\n");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].description);
	}
	fprintf(to, "\nsluice COMMAND --help shows its options; sluice(1) is the manual.\n");
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		show_usage(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V") ||
		!strcmp(argv[1], "version")) {
		printf("sluice %s\n", SLUICE_VERSION);
		return EXIT_OK;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		show_usage(stdout);
		return EXIT_OK;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!strcmp(argv[1], commands[i].name)) {
			return commands[i].run(argc - 1, argv + 1);
		}
	}
	fprintf(stderr, "sluice: there is no command \"%s\"; sluice --help lists them\n", argv[1]);
	return EXIT_USAGE;
}
