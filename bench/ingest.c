/*
 * The run from its options to its report: what to send, digests, connections, comparison.
 */
#include "ingest.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "digest.h"
#include "fleet.h"
#include "options.h"
#include "report.h"
#include "verify.h"

enum { EXIT_ALL_ARRIVED = 0, EXIT_SOME_FAILED = 1, EXIT_NOT_BEGUN = 2 };

/* Everything that has something to be given back. */
struct ingest {
	struct options options;
	struct source source;
	struct digests digests;
	struct tally tally;
	struct procstat daemon;
	struct fleet fleet;
};

static void ingest_fini(struct ingest *in)
{
	fleet_fini(&in->fleet);
	tally_fini(&in->tally);
	digests_fini(&in->digests);
	source_fini(&in->source);
}

static int ingest_prepare(struct ingest *in)
{
	const struct options *o = &in->options;
	struct plan_rules rules = {
		.seed = o->seed,
		.segment_bytes_min = (uint32_t)o->segment.min,
		.segment_bytes_max = (uint32_t)o->segment.max,
		.order = o->order,
		.duplicate_percent = o->duplicate_percent,
	};
	int error = 0;

	if (o->daemon_pid != 0)
		error = procstat_start(&in->daemon, o->daemon_pid);
	if (error != 0) {
		fprintf(stderr, "sluice-bench: --pid %d: %s\n", (int)o->daemon_pid,
			strerror(-error));
		return error;
	}
	error = source_init(&in->source, o);
	if (error == 0)
		error = digests_init(&in->digests, o, &rules, &in->source);
	if (error == 0 && (error = tally_init(&in->tally, in->source.files_count)) != 0)
		fputs("sluice-bench: no memory\n", stderr);
	in->fleet = (struct fleet){
		.options = o,
		.source = &in->source,
		.digests = &in->digests,
		.rules = rules,
		.tally = &in->tally,
		.daemon = o->daemon_pid != 0 ? &in->daemon : NULL,
	};
	return error;
}

static int ingest_run(enum options_command command, int argc, char **argv)
{
	static struct ingest in;
	int status = EXIT_NOT_BEGUN;
	uint32_t verified = 0;
	int error = options_parse(&in.options, command, argc, argv);

	if (error != 0)
		return error > 0 ? EXIT_ALL_ARRIVED : EXIT_NOT_BEGUN;
	if (ingest_prepare(&in) != 0 || fleet_run(&in.fleet) != 0)
		goto out;
	if (in.options.verify_dir != NULL)
		verified = verify_exports(&in.fleet, in.options.verify_dir);
	if (in.fleet.window_min != 0)
		fprintf(stderr,
			"sluice-bench: the daemon's Receive Maximum narrowed the window to %u\n",
			in.fleet.window_min);
	if (in.daemon.lost)
		fprintf(stderr, "sluice-bench: process %d ended during the run\n",
			(int)in.daemon.pid);
	if (in.options.json)
		report_json(&in.fleet, verified);
	else
		report_table(&in.fleet, verified);
	status = in.tally.files_failed + in.tally.connections_failed > 0 ? EXIT_SOME_FAILED
									 : EXIT_ALL_ARRIVED;
out:
	ingest_fini(&in);
	return status;
}

int ingest_main(int argc, char **argv)
{
	return ingest_run(OPTIONS_INGEST, argc, argv);
}

int publish_main(int argc, char **argv)
{
	return ingest_run(OPTIONS_PUBLISH, argc, argv);
}
