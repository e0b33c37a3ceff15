/*
 * sim_world.h.
 */
#include "sim_world.h"

#include <stdio.h>
#include <string.h>
#include "sim_daemon.h"
#include "sim_disk.h"
#include "sim_load.h"
#include "sim_model.h"
#include "sim_net.h"

enum {
	EVENTS_MAX = 3000000,
	LOAD_S_MAX = 3600, HEAL_S_MAX = 3600, REST_S_MAX = 400, STOP_S_MAX = 120, START_TRIES_MAX = 40,
};

struct world_conf {
	struct load_conf load;
	struct net_conf net;
	struct disk_conf disk;
	struct model_conf model;
	struct conf daemon;
	uint32_t reactors, verify_threads;
	bool faults, kills, crashes, restarts;
	bool faults_last;          /* from the first life on, for as long as there is load */
	uint64_t between_ns;       /* two of these */
	uint32_t patience;         /* of crashes at interesting moments: so much rarer */
};

static struct world_conf w;
static const struct conf *defaults;
static uint64_t start_ns;         /* the daemon is to be started then; 0: no */
static uint32_t start_tries;
static bool calm;                 /* no more crashes and faults */
static uint32_t troubles_left;

/* --- what the seed says ----------------------------------------------------------------------- */

static uint32_t one_of(const uint32_t *values, uint32_t count)
{
	return values[sim_below(count)];
}
#define ONE_OF(...) \
	one_of((const uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void choose_daemon(struct conf *c)
{
	static char data[] = "/data";
	*c = *defaults;
	c->data = data;
	/* Smaller than an operator may make them, so that their ends are met. */
	c->mqtt.connections_max = UINT32_MAX;
	c->mqtt.head_bytes_max = 1024;
	c->mqtt.topic_alias_max = 4;
	c->mqtt.replies_max = ONE_OF(2, 8, 65535);
	c->mqtt.min_rate_window_ms = 30000;
	c->mqtt.takeover_timeout_ms = 20; /* clients here have no patience */
	c->io.splice_min = ONE_OF(64, 64, 1024, 4096);
	c->io.buffer_bytes = 2 * c->io.splice_min + c->mqtt.head_bytes_max + ONE_OF(0, 0, 2000, 20000);
	c->io.buffers_max = ONE_OF(2, 3, 16);
	c->io.pipe_bytes = ONE_OF(4096, 8192, 65536);
	c->io.pipes_max = ONE_OF(1, 2, 3, 8);
	c->io.journal_bytes = ONE_OF(1024, 4096, 65536);
	c->io.open_files_max = ONE_OF(1, 2, 256);
	c->verify.step_bytes = ONE_OF(1, 700, 4096, 1048576);
	c->transfer.backlog_bytes_max = ONE_OF(1, 4096, 67108864);
	c->transfer.disk_free_min = 0;
	c->transfer.extents_max = ONE_OF(3, 64, 65536);
	c->transfer.prealloc = sim_chance(7000) ? CONF_RESERVE : CONF_SPARSE;
	c->export.parallel_max = ONE_OF(1, 2, 64, 64);
	c->export.layout = CONF_LAYOUT_PLAIN;
	if (sim_chance(1000))
		c->transfer.ttl_min_s = c->transfer.ttl_max_s = (uint32_t)sim_between(2, 30);
	c->durability = sim_chance(4000) ? CONF_POWER : CONF_CRASH;
	if (sim_chance(1500))
		c->limits.user_bytes_rate = 65536;
	if (sim_chance(1500))
		c->limits.user_messages_rate = ONE_OF(20, 200);
}

static void choose(void)
{
	bool is_large = sim_chance(2000);
	choose_daemon(&w.daemon);
	w.load = (struct load_conf){.clients = ONE_OF(1, 1, 2, 4), .files = ONE_OF(1, 2, 3, 6),
		.actions = ONE_OF(10, 40, 80), .block_bytes_max = is_large ? 30000 : ONE_OF(20, 900, 4200),
		.blocks_max = ONE_OF(1, 6, 16), .pause_ns_max = ONE_OF(1, 20, 400) * SIM_MS,
		.patience_ns = ONE_OF(0, 100, 1000) * SIM_MS, .leave = ONE_OF(0, 0, 100, 500, 1500),
		.conflict = ONE_OF(0, 500, 3000, 3000), .corrupt = ONE_OF(0, 500),
		.abort = ONE_OF(0, 200, 600), .fin = ONE_OF(300, 900, 2000), .take = ONE_OF(0, 0, 300),
		.whole = ONE_OF(0, 300, 2000), .is_v5 = !sim_chance(1500), .is_v3 = sim_chance(4000)};
	w.net = (struct net_conf){.delay_ns_max = ONE_OF(1, 5, 50) * SIM_MS,
		.piece_max = is_large ? 100000 : ONE_OF(40, 1500, 60000),
		.receive_max = ONE_OF(2000, 20000, 200000), .send_max = ONE_OF(500, 4000, 100000),
		.resets = ONE_OF(0, 0, 30, 200)};
	w.disk = (struct disk_conf){.bytes = 64 << 20, .is_strict = sim_chance(6000),
		.no_fallocate = sim_chance(700), .spares_journal = sim_chance(7000),
		.dirty_chance = ONE_OF(0, 5000, 10000)};
	w.faults = sim_chance(3500);
	w.faults_last = false;
	w.kills = sim_chance(5000);
	w.crashes = sim_chance(4000);
	w.restarts = sim_chance(2000);
	w.between_ns = ONE_OF(20, 100, 1000) * SIM_MS;
	w.patience = ONE_OF(1, 3, 20);
	if (w.faults) {
		w.load.abort = ONE_OF(0, 600, 1500);
		w.disk.eio_write = ONE_OF(0, 100, 400);
		w.disk.eio_read = ONE_OF(0, 0, 100);
		w.disk.eio_sync = ONE_OF(0, 100, 1000);
		w.disk.enospc = ONE_OF(0, 100, 1000);
		/* A disk that takes everything and loses some of it: else little gets as far as the
		 * syncs of publishing. */
		if (sim_chance(4000)) {
			w.faults_last = true;
			w.disk.eio_write = w.disk.eio_read = w.disk.enospc = 0;
			w.disk.eio_sync = ONE_OF(50, 300);
			w.load.files = ONE_OF(3, 6, 6);
			w.load.whole = ONE_OF(300, 2000);
		}
	}
	w.disk.short_write = ONE_OF(0, 300, 3000);
	w.reactors = ONE_OF(1, 1, 2);
	w.verify_threads = ONE_OF(1, 1, 2);
	/* As many as there can be, each file's export and its next generation: a count that goes on
	 * when its file does not is met as a refusal without end. By no draw of its own, so that the
	 * seeds that were kept stay what they were. */
	if (w.load.files > 1) {
		w.daemon.transfer.files_client_max = 2 * w.load.files;
		w.daemon.transfer.files_user_max = 2 * w.load.files * w.load.clients;
	}
	w.model = (struct model_conf){.faults = w.faults || w.daemon.transfer.extents_max < 64,
		.power = w.daemon.durability == CONF_POWER,
		.ttl_ns = w.daemon.transfer.ttl_max_s * SIM_S - SIM_S};
}

/* --- the daemon's ends ------------------------------------------------------------------------ */

static void start_later(void)
{
	start_ns = sim.now_ns + sim_skewed(1000, 300 * SIM_MS);
}

/* The disk loses bytes and says so once. A daemon that is killed between hearing of it and writing
 * it down takes that with it, and nobody can know any more; so far nothing is promised. */
static bool is_shaken(void)
{
	return disk.sync_failed_ns && sim.now_ns < disk.sync_failed_ns + 200 * SIM_MS;
}

static void kill_now(bool machine)
{
	if (!machine && is_shaken())
		return;
	daemon_crash(machine);
	if (machine) {
		model_machine_crashed();
		model_reappear();
	}
	model_check_exports(false);
	start_later();
}

static bool is_up(void)
{
	return daemon_state() == DAEMON_RUNNING || daemon_state() == DAEMON_STARTING ||
		daemon_state() == DAEMON_STOPPING;
}

static void on_crash(void *arg, uint64_t machine)
{
	(void)arg;
	if (!calm && is_up())
		kill_now(machine);
}

static void on_moment(uint32_t weight)
{
	if (calm || troubles_left == 0 || !(w.kills || w.crashes) || !sim_chance(weight / w.patience))
		return;
	troubles_left--;
	sim_after(sim_skewed(0, 2 * SIM_MS), true, on_crash, NULL, w.crashes && (!w.kills || sim_chance(6000)));
}

static void on_faults(void *arg, uint64_t num)
{
	(void)arg;
	(void)num;
	disk.faults = !calm;
}

static void on_trouble(void *arg, uint64_t num)
{
	(void)arg;
	(void)num;
	if (calm)
		return;
	if (troubles_left == 0) {
		disk.faults = w.faults_last;
		disk.taken_bytes = 0;
		return;
	}
	troubles_left--;
	uint32_t n = sim_below(4);
	if (n == 0 && w.kills && is_up())
		kill_now(false);
	else if (n == 1 && w.crashes && is_up())
		kill_now(true);
	else if (n == 2 && w.restarts)
		daemon_stop();
	else if (n == 3 && w.faults)
		disk.faults = w.faults_last || !disk.faults;
	else if (w.faults && sim_chance(5000))
		disk.taken_bytes = disk.taken_bytes ? 0 : disk_free_bytes() - disk_free_bytes() % DISK_PAGE;
	sim_after(sim_skewed(SIM_MS, w.between_ns), false, on_trouble, NULL, 0);
}

/* Looks after the daemon: what has ended is started again. */
static void attend(void)
{
	enum daemon_state state = daemon_state();
	if (state == DAEMON_RUNNING)
		daemon_check_users();
	if (state == DAEMON_REFUSED || state == DAEMON_ENDED) {
		if (state == DAEMON_REFUSED && !w.faults)
			sim_fail("the daemon does not start: %s", daemon_error());
		if (state == DAEMON_REFUSED && calm && ++start_tries > START_TRIES_MAX)
			sim_fail("the daemon does not start any more: %s", daemon_error());
		daemon_crash(false);
		model_check_exports(false);
		start_later();
	}
	if (start_ns && sim.now_ns >= start_ns) {
		start_ns = 0;
		daemon_start();
	}
}

static void on_attend(void *arg, uint64_t num)
{
	(void)arg;
	(void)num;
	attend();
	sim_after(20 * SIM_MS, false, on_attend, NULL, 0);
}

/* --- phases ----------------------------------------------------------------------------------- */

static void run_until(bool (*is_over)(void), uint64_t seconds, const char *what)
{
	uint64_t end_ns = sim.now_ns + seconds * SIM_S;
	uint32_t seen = disk.sync_failures;
	while (!is_over()) {
		if (!sim_step() || sim.now_ns > end_ns || sim.events_count > EVENTS_MAX)
			sim_fail("%s: no end after %llu s and %llu events", what,
				(unsigned long long)((sim.now_ns + seconds * SIM_S - end_ns) / SIM_S),
				(unsigned long long)sim.events_count);
		if (disk.sync_failures != seen)
			model_bytes_lost();
		seen = disk.sync_failures;
	}
}

static bool is_running(void)
{
	return daemon_state() == DAEMON_RUNNING;
}

static bool is_ended(void)
{
	return daemon_state() == DAEMON_ENDED;
}

static bool is_alone(void)
{
	return daemon_connections() == 0;
}

static uint64_t rest_ns;

static bool is_rested(void)
{
	return sim.now_ns >= rest_ns;
}

static int on_left_over(void *arg, const char *name)
{
	(void)arg;
	sim_fail("at rest, but %s lies in staging/", name);
}

static void check_rest(void)
{
	int err;
	model_check_exports(true);
	daemon_check_quiet();
	disk_list(disk_find(disk.root, "/data/staging", &err), on_left_over, NULL);
}

static void check_end(void)
{
	char what[160];
	uint32_t fds = sim_sys_open_count(what, sizeof(what));
	if (fds > 0)
		sim_fail("%u descriptors are left open, the first is %s", fds, what);
	if (sim_memory_count() > 0) {
		sim_memory_describe(what, sizeof(what));
		sim_fail("%llu blocks of memory are left, the oldest has %s",
			(unsigned long long)sim_memory_count(), what);
	}
}

static void body(void *arg)
{
	(void)arg;
	choose();
	net_reset(&w.net);
	disk_reset(&w.disk);
	disk_create(disk.root, "data", true);
	disk_make_durable(disk.root);
	model_reset(&w.model);
	daemon_reset(&w.daemon, w.reactors, w.verify_threads);
	load_reset(&w.load);
	calm = false;
	disk.faults = w.faults && !w.faults_last && sim_chance(5000);
	if (w.faults_last)
		sim_after(sim_skewed(2 * SIM_MS, 100 * SIM_MS), false, on_faults, NULL, 0);
	sim_on_moments(on_moment);
	troubles_left = ONE_OF(1, 4, 20);
	start_tries = 0;
	start_ns = 1;
	on_attend(NULL, 0);
	if (w.kills || w.crashes || w.restarts || w.faults)
		sim_after(sim_skewed(SIM_MS, w.between_ns), false, on_trouble, NULL, 0);
	run_until(load_is_over, LOAD_S_MAX, "load");

	SIM_TRACE("heal", 0, 0, "-- no more trouble; everything is brought to its end");
	calm = net.calm = true;
	disk.faults = false;
	disk.taken_bytes = 0;
	rest_ns = sim.now_ns + SIM_S;
	if (w.faults)
		run_until(is_rested, REST_S_MAX, "a moment");
	if (w.faults && is_running()) /* a journal that has failed stays so */
		kill_now(false);
	load_heal();
	run_until(load_is_healed, HEAL_S_MAX, "healing");
	load_leave();
	run_until(is_alone, REST_S_MAX, "leaving");
	rest_ns = sim.now_ns + 5 * SIM_S;
	run_until(is_rested, REST_S_MAX, "rest");
	check_rest();
	daemon_stop();
	run_until(is_ended, STOP_S_MAX, "stopping");
	check_end();
}

bool world_run(uint64_t seed, const struct conf *to)
{
	defaults = to;
	sim_reset(seed);
	sim_guard(body, NULL);
	/* What is left of the daemon, however it ended. */
	sim_threads_drop();
	sim.life = UINT32_MAX;
	daemon_drop();
	load_fini();
	net_fini();
	disk_fini();
	return !sim.failed;
}
