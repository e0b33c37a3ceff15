/*
 * sluiced: from the command line to running reactors, and back. sluiced(8) is the manual.
 *
 * What can be wrong is found before anything is changed or served, in the order in which an
 * operator would mend it: options, kernel, descriptors, addresses, directories, journals. Each is
 * one sentence on stderr and exit status 1.
 *
 * Signals are blocked in all threads and waited for here: SIGTERM and SIGINT stop the daemon (the
 * second one at once), SIGUSR1 logs the counters, SIGUSR2 is a reactor's word that it has ended.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "log.h"
#include "opts.h"
#include "reactor.h"
#include "recover.h"
#include "ring.h"
#include "store.h"
#include "verify.h"

enum {
	REACTORS_MAX = 64,
	ADDRESS_MAX = 80,
	PROBE_MS = 2000,
	LISTEN_TRIES = 10,
	/* Descriptors that one reactor needs before the first connection: ring, event, listeners,
	 * journal. */
	DESCRIPTORS_FIXED = 32, DESCRIPTORS_PER_REACTOR = 24,
};

struct server {
	struct conf conf;
	uint32_t count;                     /* reactors */
	struct reactor *peers[REACTORS_MAX];
	struct store *store;
	struct verify *verify;
	struct reactors *reactors;
	int *fds;                           /* listening sockets; NULL: handed over, not open */
	char names[CONF_LISTEN_MAX][ADDRESS_MAX];
	uint64_t descriptors;               /* the limit */
	char error[512];
};

/* --- setting up ------------------------------------------------------------------------------- */

static uint32_t reactors_wanted(const struct conf *conf)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (conf->reactors > 0)
		return conf->reactors;
	return cpus < 1 ? 1 : cpus > REACTORS_MAX ? REACTORS_MAX : (uint32_t)cpus;
}

/* Where descriptors are scarce, files take at most a part of them. Before a reactor looks. */
static void fit_files(struct server *s)
{
	uint64_t each = s->descriptors / s->count;
	uint32_t files = each / 8 < 1 ? 1 : each / 8 > UINT32_MAX ? UINT32_MAX : (uint32_t)(each / 8);
	uint32_t publishes = files / 4 < 1 ? 1 : files / 4;
	if (s->conf.io.open_files_max > files)
		s->conf.io.open_files_max = files;
	if (s->conf.export.parallel_max > publishes)
		s->conf.export.parallel_max = publishes;
}

/* Raises the limit as far as it goes. What it allows must be enough to run at all. */
static int raise_descriptors(struct server *s)
{
	struct rlimit limit;
	uint64_t least = DESCRIPTORS_FIXED + (uint64_t)s->count * DESCRIPTORS_PER_REACTOR;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		getrlimit(RLIMIT_NOFILE, &limit);
	s->descriptors = limit.rlim_cur;
	if (s->descriptors >= least) {
		fit_files(s);
		return 0;
	}
	snprintf(s->error, sizeof(s->error),
		"only %llu file descriptors are allowed, but %llu are needed at least: raise the "
		"limit (LimitNOFILE= in the unit, or ulimit -n)",
		(unsigned long long)s->descriptors, (unsigned long long)least);
	return -EMFILE;
}

static int fail_listen(struct server *s, const char *address, int err)
{
	const char *cure = err == -EADDRINUSE ? "stop what uses it, or listen elsewhere" :
		err == -EACCES ?
		"choose a port above 1023, or give this process CAP_NET_BIND_SERVICE" :
		"listen on an address of this machine, as ADDRESS:PORT";
	snprintf(s->error, sizeof(s->error), "can't listen on %s: %s: %s", address,
		err == -EADDRINUSE ? "the address is in use" : strerror(-err), cure);
	return err;
}

/* The kernel lets go of a killed daemon's socket only after its operations in flight have ended. */
static int probe_address(const char *address, int *ret_fd, char ret_name[ADDRESS_MAX])
{
	uint64_t began_ms = sys_mono_ms();
	int err = sys_listen(address, false, ret_fd, ret_name, ADDRESS_MAX);
	while (err == -EADDRINUSE && sys_mono_ms() - began_ms < PROBE_MS) {
		sys_sleep_ms(10);
		err = sys_listen(address, false, ret_fd, ret_name, ADDRESS_MAX);
	}
	return err;
}

/* With SO_REUSEPORT a second daemon would silently share the port, so each address is tried
 * without it first. A port 0 becomes the one that the kernel chose. */
static int probe_addresses(struct server *s)
{
	int fds[CONF_LISTEN_MAX], err = 0;
	uint32_t open = 0;
	for (; open < s->conf.listen_count; open++) {
		struct conf_listener listener;
		conf_listener(&s->conf, open, &listener);
		err = probe_address(listener.address, &fds[open], s->names[open]);
		if (err) {
			fail_listen(s, listener.address, err);
			break;
		}
	}
	while (open > 0)
		sys_close(fds[--open]);
	return err;
}

static int open_listeners(struct server *s)
{
	uint32_t addresses = s->conf.listen_count, total = s->count * addresses;
	char name[ADDRESS_MAX];
	s->fds = malloc(total * sizeof(int));
	if (!s->fds)
		return -ENOMEM;
	for (uint32_t i = 0; i < total; i++)
		s->fds[i] = -1;
	for (uint32_t i = 0; i < total; i++) {
		const char *address = s->names[i % addresses];
		int err = sys_listen(address, true, &s->fds[i], name, sizeof(name));
		if (err)
			return fail_listen(s, address, err);
	}
	return 0;
}

static void close_listeners(struct server *s)
{
	for (uint32_t i = 0; s->fds && i < s->count * s->conf.listen_count; i++) {
		if (s->fds[i] >= 0)
			sys_close(s->fds[i]);
	}
	free(s->fds);
	s->fds = NULL;
}

static bool any_port_will_do(const struct server *s)
{
	for (uint32_t i = 0; i < s->conf.listen_count; i++) {
		struct conf_listener listener;
		conf_listener(&s->conf, i, &listener);
		size_t bytes = strlen(listener.address);
		if (bytes >= 2 && strcmp(listener.address + bytes - 2, ":0") == 0)
			return true;
	}
	return false;
}

/* Recovery may have taken long: another daemon that listens there by now is found, and where the kernel chooses
 * the port, one that somebody took meanwhile is no reason to end. */
static int listen_to_all(struct server *s)
{
	int err = -EADDRINUSE;
	for (int left = LISTEN_TRIES; left > 0; left--) {
		s->error[0] = '\0';
		err = probe_addresses(s);
		if (err)
			break;
		err = open_listeners(s);
		if (err != -EADDRINUSE || !any_port_will_do(s))
			break;
		close_listeners(s);
	}
	return err;
}

static int make_reactors(struct server *s)
{
	for (uint32_t i = 0; i < s->count; i++) {
		struct reactor *rt = calloc(1, sizeof(*rt));
		if (!rt)
			return -ENOMEM;
		*rt = (struct reactor){.idx = i, .count = s->count, .conf = &s->conf,
			.store = s->store, .verify = s->verify, .peers = s->peers};
		timers_init(&rt->timers, sys_mono_ms());
		s->peers[i] = rt;
	}
	return 0;
}

static int start(struct server *s)
{
	int err = ring_check_kernel(s->error, sizeof(s->error));
	s->count = reactors_wanted(&s->conf);
	if (!err)
		err = raise_descriptors(s);
	if (!err)
		err = probe_addresses(s);
	if (!err)
		err = store_open(&s->conf, &s->store, s->error, sizeof(s->error));
	if (!err)
		err = verify_new(s->conf.verify.threads, &s->verify);
	if (!err)
		err = make_reactors(s);
	if (!err)
		err = recover_run(s->peers, s->count, s->error, sizeof(s->error));
	if (!err)
		err = reactors_start(s->peers, s->count, &s->reactors, s->error, sizeof(s->error));
	if (!err)
		err = listen_to_all(s);
	return err;
}

/* Connections must leave the descriptors that files and pipes need, or a peer that only connects
 * would stop every upload; where these are scarce, pipes are opened when first needed. No reactor
 * accepts before this. */
static void fit_descriptors(struct server *s)
{
	struct conf *conf = &s->conf;
	/* A publish has a staging file and a manifest. */
	uint64_t each = DESCRIPTORS_PER_REACTOR + conf->io.open_files_max + 2ull * conf->io.pipes_max +
		2ull * conf->export.parallel_max;
	uint64_t others = DESCRIPTORS_FIXED + s->count * each;
	bool are_many = others <= s->descriptors / 2;
	if (!are_many)
		others = s->descriptors / 2;
	uint64_t left = s->descriptors - others;
	for (uint32_t i = 0; i < s->count; i++) {
		s->peers[i]->keeps_pipes = are_many;
		s->peers[i]->descriptors_spare = (uint32_t)(others / 4);
		s->peers[i]->descriptors_max = left < UINT32_MAX ? (uint32_t)left : UINT32_MAX;
	}
	if (conf->mqtt.connections_max <= s->descriptors - others)
		return;
	log_warn("fewer connections than mqtt.connections_max, for want of file descriptors: raise "
		"LimitNOFILE in the unit, or ulimit -n", LU("descriptors", s->descriptors),
		LU("connections_max", conf->mqtt.connections_max),
		LU("connections", s->descriptors - others), NULL);
	conf->mqtt.connections_max = (uint32_t)(s->descriptors - others);
}

static void announce(struct server *s)
{
	log_info("hashing", LZ("one", sha256_impl_name(1)), LZ("four", sha256_impl_name(4)),
		LZ("many", sha256_impl_name(SIZE_MAX)), LU("lanes", sha256_lanes_wanted()), NULL);
	fit_descriptors(s);
	reactors_listen(s->reactors, s->fds);
	free(s->fds);
	s->fds = NULL;
	for (uint32_t i = 0; i < s->conf.listen_count; i++) {
		struct conf_listener listener;
		conf_listener(&s->conf, i, &listener);
		if (listener.durability == CONF_POWER)
			log_info("listening", LZ("addr", s->names[i]), LZ("durability", "power"), NULL);
		else
			log_info("listening", LZ("addr", s->names[i]), NULL);
	}
}

/* --- counters --------------------------------------------------------------------------------- */

#define SUM(s, field) LU(#field, sum_of(s, offsetof(struct reactor, stats.field)))

static uint64_t sum_of(const struct server *s, size_t offset)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; i < s->count; i++) {
		const char *rt = (const char *)s->peers[i];
		sum += atomic_load_explicit((const _Atomic uint64_t *)(const void *)(rt + offset),
			memory_order_relaxed);
	}
	return sum;
}

static void log_stats(const struct server *s)
{
	log_info("stats", SUM(s, connections), SUM(s, connections_total), SUM(s, sessions),
		SUM(s, subscriptions), SUM(s, publishes), SUM(s, delivered), SUM(s, dropped),
		SUM(s, bytes_received), SUM(s, bytes_spliced), SUM(s, bytes_copied),
		SUM(s, segments), SUM(s, segments_replayed), SUM(s, segments_refused),
		SUM(s, transfers_open), SUM(s, exported), SUM(s, aborted), SUM(s, expired),
		SUM(s, failed), SUM(s, journal_batches), SUM(s, journal_records),
		SUM(s, journal_bytes), SUM(s, journal_syncs), SUM(s, file_syncs), SUM(s, dir_syncs),
		SUM(s, hashed_bytes), SUM(s, buffers), SUM(s, pipes),
		LU("staged_bytes", atomic_load(&s->store->staged_bytes)),
		LU("rss", sys_rss_bytes()), NULL);
}

/* --- running and the end ---------------------------------------------------------------------- */

static void block_signals(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGUSR1);
	sigaddset(ret, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, ret, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static void wait_for_end(struct server *s, const sigset_t *signals)
{
	bool stopping = false;
	while (!reactors_are_done(s->reactors)) {
		int number;
		if (sigwait(signals, &number) != 0)
			continue;
		if (number == SIGUSR1)
			log_stats(s);
		if (number != SIGTERM && number != SIGINT)
			continue;
		if (stopping)
			_exit(0); /* what was acknowledged is in the journal */
		stopping = true;
		log_info("stopping", LZ("signal", number == SIGTERM ? "SIGTERM" : "SIGINT"), NULL);
		reactors_stop(s->reactors);
	}
}

static void server_fini(struct server *s)
{
	close_listeners(s);
	reactors_free(s->reactors);
	verify_free(s->verify); /* posts to the rings until its threads have ended */
	for (uint32_t i = 0; i < s->count && s->peers[i]; i++) {
		uploads_free(s->peers[i]->uploads);
		ring_free(s->peers[i]->ring);
		free(s->peers[i]);
	}
	store_close(s->store);
	conf_fini(&s->conf);
}

static int run(struct server *s)
{
	sigset_t signals;
	block_signals(&signals);
	log_init(s->conf.log.level, sys_wall_ms, sys_log_put);
	sha256_calibrate(sys_mono_ns); /* before any thread */
	int err = start(s);
	if (err) {
		fprintf(stderr, "sluiced: %s\n", s->error[0] ? s->error : strerror(-err));
		if (s->reactors) {
			reactors_stop(s->reactors);
			wait_for_end(s, &signals);
		}
		return err;
	}
	announce(s);
	wait_for_end(s, &signals);
	log_stats(s);
	log_info("stopped", NULL);
	return 0;
}

int main(int argc, char **argv)
{
	static struct server server;
	struct opts opts;
	int err = conf_init(&server.conf);
	if (err) {
		fprintf(stderr, "sluiced: %s\n", strerror(-err));
		return 1;
	}
	err = opts_parse(argc, argv, &server.conf, &opts);
	if (err)
		fprintf(stderr, "sluiced: %s\n", opts.error);
	else if (opts.action != OPTS_RUN)
		err = opts_act(&opts, &server.conf, stdout);
	else
		err = run(&server);
	server_fini(&server);
	return err ? 1 : 0;
}
