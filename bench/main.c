/*
 * sluice-bench: load generators and floors for sluiced. See sluice-bench(1).
 */
#include <stdio.h>
#include <string.h>

#include "floor.h"
#include "idle.h"
#include "ingest.h"
#include "lanes.h"
#include "loop.h"
#include "put.h"

struct subcommand {
	const char *name, *summary;
	int (*run)(int argc, char **argv);
};

static const struct subcommand subcommands[] = {
	{"ingest", "upload files over many connections and measure it", ingest_main},
	{"publish", "the same packets to an ordinary topic of any broker", publish_main},
	{"floor", "the least that receiving a load can cost here", floor_main},
	{"loop", "files made durable one by one, as a plain program does it", loop_main},
	{"put", "the same bytes as HTTP PUTs, or as a connection per file", put_main},
	{"idle", "what connections cost that only stay alive", idle_main},
	{"ping", "how long a PINGREQ waits for its answer", ping_main},
	{"sha256", "what hashing costs here, beside OpenSSL's", lanes_main},
};

enum { SUBCOMMANDS_COUNT = sizeof(subcommands) / sizeof(subcommands[0]) };

static void main_usage(FILE *to)
{
	fputs("usage: sluice-bench COMMAND [options]\n", to);
	for (unsigned i = 0; i < SUBCOMMANDS_COUNT; i++)
		fprintf(to, "  %-8s %s\n", subcommands[i].name, subcommands[i].summary);
	fputs("sluice-bench COMMAND --help tells the options; sluice-bench --version the "
	      "version.\n",
		to);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		main_usage(stderr);
		return 2;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
		main_usage(stdout);
		return 0;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("sluice-bench " SLUICE_VERSION);
		return 0;
	}
	for (unsigned i = 0; i < SUBCOMMANDS_COUNT; i++) {
		if (strcmp(argv[1], subcommands[i].name) == 0)
			return subcommands[i].run(argc - 1, argv + 1);
	}
	fprintf(stderr, "sluice-bench: no command \"%s\"\n", argv[1]);
	main_usage(stderr);
	return 2;
}
