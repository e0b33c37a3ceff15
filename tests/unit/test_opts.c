/*
 * The command line of sluiced: what each option sets, which one wins, and the sentences.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "opts.h"

enum { ARGS_MAX = 160 };

static struct conf conf;
static struct opts opts;
static char file[] = "/tmp/test_opts.XXXXXX";

static void init(void)
{
	static const char text[] = "data: /from-file\nmqtt: {inflight: 5}\nlisten: ['0.0.0.0:5']\n";
	int fd = mkstemp(file);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	close(fd);
	cr_assert_eq(conf_init(&conf), 0);
}

static void fini(void)
{
	conf_fini(&conf);
	unlink(file);
}

TestSuite(opts, .init = init, .fini = fini);

/* The arguments behind the program's name, ended by NULL. */
static int parse(const char *const *args)
{
	char *argv[ARGS_MAX + 2] = {(char *)"sluiced"};
	int argc = 1;

	conf_fini(&conf);
	cr_assert_eq(conf_init(&conf), 0);
	for (; args[argc - 1]; argc++) {
		cr_assert_lt(argc, ARGS_MAX);
		argv[argc] = (char *)args[argc - 1];
	}
	return opts_parse(argc, argv, &conf, &opts);
}

#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

static void assert_refused(const char *const *args, const char *sentence)
{
	cr_expect_eq(parse(args), -EINVAL);
	cr_expect_str_eq(opts.error, sentence);
}

#define REFUSED(sentence, ...) assert_refused((const char *const[]){__VA_ARGS__, NULL}, sentence)

static char *act(void)
{
	char *text = NULL;
	size_t bytes;
	FILE *memory = open_memstream(&text, &bytes);

	cr_assert(memory);
	cr_expect_eq(opts_act(&opts, &conf, memory), 0);
	fclose(memory);
	return text;
}

Test(opts, none)
{
	cr_expect_eq(parse((const char *const[]){NULL}), 0, "%s", opts.error);
	cr_expect_eq(opts.action, OPTS_RUN);
	cr_expect_null(opts.config_path);
	cr_expect_str_eq(conf.data, "./sluice-data");
}

Test(opts, file_then_assignments_then_named_options)
{
	/* Also when the file is named last. */
	cr_expect_eq(PARSE("--data", "/named", "-o", "data=/assigned", "-o", "mqtt.inflight=6", "-o",
			     "mqtt.inflight=7", "-c", file),
		0, "%s", opts.error);
	cr_expect_str_eq(conf.data, "/named");
	cr_expect_eq(conf.mqtt.inflight_max, 7);
	cr_expect_str_eq(conf.listen[0], "0.0.0.0:5");
	cr_expect_str_eq(opts.config_path, file);
	cr_expect_eq(PARSE("--config", file), 0);
	cr_expect_str_eq(conf.data, "/from-file");
	cr_expect_eq(conf.mqtt.inflight_max, 5);
}

Test(opts, listen_replaces_the_default_and_repeats)
{
	cr_expect_eq(PARSE("--listen", "127.0.0.1:0", "-c", file, "--listen=[::1]:2"), 0, "%s",
		opts.error);
	cr_assert_eq(conf.listen_count, 2);
	cr_expect_str_eq(conf.listen[0], "127.0.0.1:0");
	cr_expect_str_eq(conf.listen[1], "[::1]:2");
}

Test(opts, actions)
{
	char *text;

	cr_expect_eq(PARSE("--dump-config", "-o", "log.level=warn"), 0);
	text = act();
	cr_expect_not_null(strstr(text, "\nlog:\n  level: warn\nmqtt:\n"), "%s", text);
	free(text);
	cr_expect_eq(PARSE("--check-config", "-c", file), 0);
	text = act();
	cr_expect_eq(strncmp(text, file, strlen(file)), 0);
	cr_expect_str_eq(text + strlen(file), ": valid\n");
	free(text);
	/* These two answer although the rest is wrong. */
	cr_expect_eq(PARSE("--version", "-o", "nonsense"), 0);
	text = act();
	cr_expect_str_eq(text, "sluiced " SLUICE_VERSION "\n");
	free(text);
	cr_expect_eq(PARSE("-o", "nonsense", "--help"), 0);
	text = act();
	cr_expect_not_null(strstr(text, "--listen"));
	free(text);
	cr_expect_eq(opts.action, OPTS_HELP);
}

Test(opts, output_that_fails_is_an_error)
{
	FILE *full = fopen("/dev/full", "we");

	cr_assert(full);
	cr_expect_eq(PARSE("--help"), 0);
	cr_expect_eq(opts_act(&opts, &conf, full), -EIO);
	fclose(full);
}

Test(opts, sentences)
{
	const char *many[ARGS_MAX + 1] = {NULL};
	char sentence[256];

	REFUSED("--foo is no option, or takes no value; sluiced --help lists them.", "--foo");
	REFUSED("-x is no option, or takes no value; sluiced --help lists them.", "-x");
	REFUSED("--help=3 is no option, or takes no value; sluiced --help lists them.", "--help=3");
	REFUSED("data is no option; sluiced --help lists them.", "data");
	REFUSED("-c needs a value; write it behind the option.", "-c");
	REFUSED("--listen needs a value; write it behind the option.", "--listen");
	REFUSED("-o: mqtt.inflght is no key; did you mean mqtt.inflight?", "-o", "mqtt.inflght=1");
	REFUSED("-o: listen has \"localhost:1\"; it takes a numeric ADDR:PORT such as 127.0.0.1:1883 "
		"or [::1]:1883, "
		"perhaps with \" durability=power\" behind it.",
		"--listen", "localhost:1");
	REFUSED("-o: data is empty; give it a value, or remove it to get ./sluice-data.", "--data", "");
	REFUSED("/nowhere/x: can't be opened (No such file or directory); correct the path or its "
		"permissions.",
		"-c", "/nowhere/x");
	/* What spans keys is checked after all of them are set. */
	REFUSED("configuration: transfer.ttl_min is more than transfer.ttl_max; lower it.", "-o",
		"transfer.ttl_min=2d");
	cr_expect_eq(PARSE("-o", "transfer.ttl_min=2d", "-o", "transfer.ttl_max=3d"), 0);
	for (size_t i = 0; i < ARGS_MAX - 2; i++)
		many[i] = i % 2 ? "::1" : "--listen";
	snprintf(sentence, sizeof(sentence), "-o: listen has %d items; it takes from 1 to 8.",
		(ARGS_MAX - 2) / 2);
	assert_refused(many, sentence);
	for (size_t i = 1; i < ARGS_MAX - 2; i += 2)
		many[i] = "[1111:2222:3333:4444:5555:6666:7777:8888]:10000";
	assert_refused(many,
		"--listen [1111:2222:3333:4444:5555:6666:7777:8888]:10000 is one too many; name fewer "
		"addresses.");
}
