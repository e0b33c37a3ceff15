/*
 * The command line of sluiced.
 *
 * getopt permits options in any order, while the configuration has one: the file, then -o, then the
 * two that have an option of their own. So a first pass only collects, pointing into argv, and the
 * second applies.
 */
#include <errno.h>
#include <getopt.h>
#include <string.h>
#include "opts.h"

enum { ASSIGNMENTS_MAX = 128 };

enum { OPT_DATA = 256, OPT_LISTEN, OPT_CHECK, OPT_DUMP, OPT_VERSION, OPT_HELP };

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'},
	{"data", required_argument, NULL, OPT_DATA},
	{"listen", required_argument, NULL, OPT_LISTEN},
	{"check-config", no_argument, NULL, OPT_CHECK},
	{"dump-config", no_argument, NULL, OPT_DUMP},
	{"version", no_argument, NULL, OPT_VERSION},
	{"help", no_argument, NULL, OPT_HELP},
	{NULL, 0, NULL, 0},
};

static const char help_text[] =
	"usage: sluiced [-c FILE] [--data DIR] [--listen ADDR:PORT]... [-o KEY=VALUE]...\n"
	"\n"
	"Takes files over MQTT. Without options it listens on 127.0.0.1:1883 and keeps its data\n"
	"in ./sluice-data.\n"
	"\n"
	"  -c, --config FILE   read this configuration; see sluiced.yaml(5)\n"
	"      --data DIR      the data directory (data)\n"
	"      --listen A:P    listen here instead of the default; may be repeated (listen)\n"
	"  -o KEY=VALUE        set any key, such as -o log.level=debug\n"
	"      --check-config  check the configuration and end\n"
	"      --dump-config   print the whole configuration as YAML and end\n"
	"      --version       print the version and end\n"
	"      --help          print this and end\n";

struct collected {
	const char *assignments[ASSIGNMENTS_MAX];
	unsigned assignments_count;
	const char *data;
	char listen[1024]; /* joined by commas, as conf_set takes a list */
};

static int fail(struct opts *ret, const char *format, const char *what)
{
	snprintf(ret->error, sizeof(ret->error), format, what);
	return -EINVAL;
}

static int collect_listen(struct collected *all, const char *address, struct opts *ret)
{
	size_t used = strlen(all->listen);
	int bytes = snprintf(
		all->listen + used, sizeof(all->listen) - used, "%s%s", used ? "," : "", address);

	if (bytes >= (int)(sizeof(all->listen) - used))
		return fail(ret, "--listen %.60s is one too many; name fewer addresses.", address);
	return 0;
}

static int collect_option(int option, char **argv, struct collected *all, struct opts *ret)
{
	switch (option) {
	case 'c':
		ret->config_path = optarg;
		return 0;
	case 'o':
		if (all->assignments_count == ASSIGNMENTS_MAX)
			return fail(ret,
				"-o %.60s is one too many; put them into a file for --config.",
				optarg);
		all->assignments[all->assignments_count++] = optarg;
		return 0;
	case OPT_DATA:
		all->data = optarg;
		return 0;
	case OPT_LISTEN:
		return collect_listen(all, optarg, ret);
	case OPT_CHECK:
		ret->action = OPTS_CHECK;
		return 0;
	case OPT_DUMP:
		ret->action = OPTS_DUMP;
		return 0;
	case OPT_VERSION:
		ret->action = OPTS_VERSION;
		return 0;
	case OPT_HELP:
		ret->action = OPTS_HELP;
		return 0;
	case ':':
		return fail(
			ret, "%.60s needs a value; write it behind the option.", argv[optind - 1]);
	default:
		return fail(ret,
			"%.60s is no option, or takes no value; sluiced --help lists them.",
			argv[optind - 1]);
	}
}

static int apply(const struct collected *all, struct conf *c, struct opts *ret)
{
	char assignment[4096 + 8];
	int err = 0;

	if (ret->config_path)
		err = conf_load_file(c, ret->config_path, ret->error, sizeof(ret->error));
	for (unsigned i = 0; !err && i < all->assignments_count; i++)
		err = conf_set(c, all->assignments[i], ret->error, sizeof(ret->error));
	if (!err && all->data) {
		if (snprintf(assignment, sizeof(assignment), "data=%s", all->data) >=
			(int)sizeof(assignment))
			return fail(ret, "--data %.60s... is too long; name a shorter path.",
				all->data);
		err = conf_set(c, assignment, ret->error, sizeof(ret->error));
	}
	if (!err && *all->listen) {
		snprintf(assignment, sizeof(assignment), "listen=%s", all->listen);
		err = conf_set(c, assignment, ret->error, sizeof(ret->error));
	}
	return err ? err : conf_check(c, ret->error, sizeof(ret->error));
}

int opts_parse(int argc, char **argv, struct conf *c, struct opts *ret)
{
	struct collected all = {.data = NULL};
	int option, err;

	memset(ret, 0, sizeof(*ret));
	optind = 0; /* glibc's way to begin anew, for the second call in one process */
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":c:o:", options, NULL)) != -1) {
		err = collect_option(option, argv, &all, ret);
		if (err)
			return err;
		if (ret->action == OPTS_VERSION || ret->action == OPTS_HELP)
			return 0;
	}
	if (optind < argc)
		return fail(ret, "%.60s is no option; sluiced --help lists them.", argv[optind]);
	return apply(&all, c, ret);
}

int opts_act(const struct opts *opts, const struct conf *c, FILE *to)
{
	switch (opts->action) {
	case OPTS_RUN:
		break;
	case OPTS_CHECK:
		fprintf(to, "%s: valid\n", opts->config_path ? opts->config_path : "configuration");
		break;
	case OPTS_DUMP:
		conf_dump(c, to);
		break;
	case OPTS_VERSION:
		fputs("sluiced " SLUICE_VERSION "\n", to);
		break;
	case OPTS_HELP:
		fputs(help_text, to);
		break;
	}
	return fflush(to) || ferror(to) ? -EIO : 0;
}
