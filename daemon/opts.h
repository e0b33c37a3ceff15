/*
 * The command line of sluiced. sluiced(8) is the reference.
 */
#ifndef SLUICE_OPTS_H
#define SLUICE_OPTS_H

#include <stdio.h>
#include "conf.h"

enum opts_action {
	OPTS_RUN,     /* start the daemon with the configuration */
	OPTS_CHECK,   /* --check-config: it is valid, else opts_parse had failed */
	OPTS_DUMP,    /* --dump-config */
	OPTS_VERSION, /* --version */
	OPTS_HELP,    /* --help */
};

struct opts {
	enum opts_action action;
	const char *config_path; /* --config, or NULL; points into argv */
	char error[512];         /* when opts_parse failed: one sentence, without a newline */
};

/* Reads the command line over c (from conf_init): the file first, then -o in their order, then
 * --data and
 * --listen, and checks the whole (conf_check). --version and --help ask for nothing else to be
 * valid. 0, or −EINVAL with ret->error; c is to be finished by the caller either way. */
int opts_parse(int argc, char **argv, struct conf *c, struct opts *ret);
/* Does what an action other than OPTS_RUN asks for, writing to the stream. 0, or −EIO when that
 * failed. */
int opts_act(const struct opts *opts, const struct conf *c, FILE *to);

#endif
