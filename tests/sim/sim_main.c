/*
 * tests/sim: the command.
 *
 *     sim [-j JOBS] [-s FIRST] COUNT    runs so many seeds; says which broke a promise
 *     sim -t SEED                       runs one, with its trace
 *     sim -f FILE                       runs the seeds of a file, one a line; # begins a comment
 *     sim -2 …                          runs each seed twice, and compares the traces
 *     sim -1 …                          ends with the first finding
 *
 * Seeds are dealt out to processes. One that dies is a finding, too: an assert of the simulator's
 * own, or a fault; the next seed goes on in a new process.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include "sim_daemon.h"
#include "sim_world.h"

enum { JOBS_MAX = 64, FINDINGS_MAX = 16, HANG_S = 20 };

static uint32_t findings_enough = FINDINGS_MAX;

struct finding {
	uint64_t seed;
	char text[1024];
};

struct worker {
	uint64_t next, done;          /* index of the seed that is run; how many were */
	uint64_t events, hash;
};

/* Shared by all processes. */
struct board {
	struct worker workers[JOBS_MAX];
	uint32_t findings_count;
	struct finding findings[FINDINGS_MAX];
};

static struct board *board;
static struct conf defaults;
static uint64_t *seeds, seeds_count, first_seed = 1;
static bool twice;
static uint32_t jobs;

static uint64_t seed_at(uint64_t idx)
{
	return seeds ? seeds[idx] : first_seed + idx;
}

static void find(uint64_t seed, const char *text)
{
	uint32_t i = __atomic_fetch_add(&board->findings_count, 1, __ATOMIC_SEQ_CST);
	if (i >= FINDINGS_MAX)
		return;
	board->findings[i].seed = seed;
	snprintf(board->findings[i].text, sizeof(board->findings[i].text), "%s", text);
}

/* --- running ---------------------------------------------------------------------------------- */

static void watch(void)
{
	struct itimerval t = {.it_value.tv_sec = HANG_S};
	setitimer(ITIMER_VIRTUAL, &t, NULL); /* SIGVTALRM ends the process */
}

static bool run_one(uint64_t seed)
{
	bool ok = world_run(seed, &defaults);
	uint64_t hash = sim.trace_hash;
	if (ok && twice) {
		ok = world_run(seed, &defaults);
		if (ok && hash != sim.trace_hash) {
			sim.failed = true;
			snprintf(sim.failure, sizeof(sim.failure), "two runs of one seed differ");
			ok = false;
		}
	}
	return ok;
}

static void work(uint32_t idx)
{
	struct worker *me = &board->workers[idx];
	for (; me->next < seeds_count && board->findings_count < findings_enough; me->next += jobs) {
		watch();
		if (!run_one(seed_at(me->next)))
			find(seed_at(me->next), sim.failure);
		me->events += sim.events_count;
		me->hash ^= sim.trace_hash;
		me->done++;
	}
}

static pid_t worker_start(uint32_t idx)
{
	pid_t pid = fork();
	if (pid == 0) {
		work(idx);
		fflush(stdout);
		exit(0);
	}
	return pid;
}

static void worker_died(uint32_t idx, int status)
{
	struct worker *w = &board->workers[idx];
	char text[80];
	snprintf(text, sizeof(text), WIFSIGNALED(status) ? "died of signal %d" : "ended with status %d",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	find(seed_at(w->next), text);
	w->next += jobs;
}

static int run_all(void)
{
	pid_t pids[JOBS_MAX];
	uint64_t done = 0, events = 0, hash = 0;
	for (uint32_t i = 0; i < jobs; i++) {
		board->workers[i].next = i;
		pids[i] = worker_start(i);
	}
	for (uint32_t running = jobs; running > 0;) {
		int status;
		pid_t pid = wait(&status);
		for (uint32_t i = 0; i < jobs; i++) {
			if (pids[i] != pid)
				continue;
			running--;
			if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
				break;
			worker_died(i, status);
			if (board->findings_count < findings_enough) {
				pids[i] = worker_start(i);
				running++;
			}
		}
	}
	for (uint32_t i = 0; i < jobs; i++) {
		done += board->workers[i].done;
		events += board->workers[i].events;
		hash ^= board->workers[i].hash;
	}
	uint32_t found = board->findings_count;
	for (uint32_t i = 0; i < found && i < FINDINGS_MAX; i++)
		printf("seed %llu: %s\n", (unsigned long long)board->findings[i].seed,
			board->findings[i].text);
	printf("%llu seeds, %llu events, %u violations; traces %016llx\n", (unsigned long long)done,
		(unsigned long long)events, found, (unsigned long long)hash);
	return found > 0;
}

static int trace_one(uint64_t seed)
{
	sim.tracing = true;
	bool ok = run_one(seed);
	printf("seed %llu: %s; %llu events, trace %016llx\n", (unsigned long long)seed,
		ok ? "no violation" : sim.failure, (unsigned long long)sim.events_count,
		(unsigned long long)sim.trace_hash);
	return !ok;
}

/* --- the command line ------------------------------------------------------------------------- */

static int read_seeds(const char *path)
{
	char line[256];
	FILE *file = fopen(path, "r");
	if (!file) {
		fprintf(stderr, "sim: %s: %s\n", path, strerror(errno));
		return 1;
	}
	while (fgets(line, sizeof(line), file)) {
		char *end;
		unsigned long long seed = strtoull(line, &end, 10);
		if (end == line)
			continue;
		seeds = sim_realloc(seeds, (seeds_count + 1) * sizeof(*seeds));
		seeds[seeds_count++] = seed;
	}
	fclose(file);
	return 0;
}

static int usage(void)
{
	fprintf(stderr, "usage: sim [-12] [-j JOBS] [-s FIRST] COUNT | sim [-12] -f FILE | sim -t SEED\n");
	return 2;
}

int main(int argc, char **argv)
{
	int option;
	uint64_t trace = 0;
	jobs = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	while ((option = getopt(argc, argv, "12j:s:t:f:")) != -1) {
		switch (option) {
		case '1':
			findings_enough = 1;
			break;
		case '2':
			twice = true;
			break;
		case 'j':
			jobs = (uint32_t)atoi(optarg);
			break;
		case 's':
			first_seed = strtoull(optarg, NULL, 10);
			break;
		case 't':
			trace = strtoull(optarg, NULL, 10);
			break;
		case 'f':
			if (read_seeds(optarg))
				return 2;
			break;
		default:
			return usage();
		}
	}
	if (jobs < 1 || jobs > JOBS_MAX || daemon_defaults(&defaults) < 0)
		return usage();
	if (trace)
		return trace_one(trace);
	if (!seeds && optind + 1 != argc)
		return usage();
	if (!seeds)
		seeds_count = strtoull(argv[optind], NULL, 10);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return board == MAP_FAILED ? 2 : run_all();
}
