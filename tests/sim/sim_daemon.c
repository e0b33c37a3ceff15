/*
 * sim_daemon.h. The daemon's first thread does what main.c does between the options and the end.
 */
#include "sim_daemon.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "broker_impl.h"
#include "log.h"
#include "reactor.h"
#include "recover.h"
#include "ring.h"
#include "sim_disk.h"
#include "sim_load.h"
#include "sim_net.h"
#include "store.h"
#include "transfer.h"
#include "user.h"
#include "verify.h"

enum { REACTORS_MAX = 4 };

static struct {
	struct conf conf;
	uint32_t count, verify_threads;
	enum daemon_state state;
	uint32_t lives;
	bool stop;
	struct reactor *peers[REACTORS_MAX];
	struct store *store;
	struct verify *verify;
	struct reactors *reactors;
	struct sim_thread *main;
	char error[512];
} d;

int daemon_defaults(struct conf *ret)
{
	cJSON_Hooks hooks = {malloc, free};
	cJSON_InitHooks(&hooks); /* what it allocates is the daemon's, too */
	int err = conf_init(ret);
	sim_memory_keep();
	return err;
}

void daemon_reset(const struct conf *conf, uint32_t reactors, uint32_t verify_threads)
{
	memset(&d, 0, sizeof(d));
	d.conf = *conf;
	d.count = reactors;
	d.verify_threads = verify_threads;
	memset(&broker_sums, 0, sizeof(broker_sums));
	log_init(CONF_LOG_INFO, sys_wall_ms, sys_log_put);
}

/* --- its first thread ------------------------------------------------------------------------- */

static int make_reactors(void)
{
	for (uint32_t i = 0; i < d.count; i++) {
		struct reactor *rt = calloc(1, sizeof(*rt));
		if (!rt)
			return -ENOMEM;
		*rt = (struct reactor){.idx = i, .count = d.count, .conf = &d.conf, .store = d.store,
			.verify = d.verify, .peers = d.peers};
		timers_init(&rt->timers, sys_mono_ms());
		d.peers[i] = rt;
	}
	return 0;
}

static int begin(void)
{
	int fds[REACTORS_MAX];
	char name[64];
	int err = store_open(&d.conf, &d.store, d.error, sizeof(d.error));
	if (!err)
		err = verify_new(d.verify_threads, &d.verify);
	if (!err)
		err = make_reactors();
	if (!err)
		err = recover_run(d.peers, d.count, d.error, sizeof(d.error));
	if (!err)
		err = reactors_start(d.peers, d.count, &d.reactors, d.error, sizeof(d.error));
	for (uint32_t i = 0; !err && i < d.count; i++)
		err = sys_listen("sim:1883", true, &fds[i], name, sizeof(name));
	if (!err)
		reactors_listen(d.reactors, fds);
	return err;
}

static void end(void)
{
	reactors_free(d.reactors);
	verify_free(d.verify);
	for (uint32_t i = 0; i < d.count && d.peers[i]; i++) {
		uploads_free(d.peers[i]->uploads);
		ring_free(d.peers[i]->ring);
		free(d.peers[i]);
		d.peers[i] = NULL;
	}
	store_close(d.store);
	d.reactors = NULL;
	d.verify = NULL;
	d.store = NULL;
}

static void *main_thread(void *arg)
{
	int err = begin();
	(void)arg;
	if (err) {
		SIM_TRACE("refused", -err, 0, "-- the daemon does not start: %s", d.error);
		end();
		d.state = DAEMON_REFUSED;
		return NULL;
	}
	d.state = DAEMON_RUNNING;
	SIM_TRACE("runs", d.lives, 0, "-- the daemon runs");
	while (!d.stop)
		sim_park(UINT64_MAX);
	reactors_stop(d.reactors);
	while (!reactors_are_done(d.reactors))
		sim_park(UINT64_MAX);
	net_unlisten();
	end();
	d.state = DAEMON_ENDED;
	SIM_TRACE("ended", d.lives, 0, "-- the daemon has ended");
	return NULL;
}

/* --- from outside ----------------------------------------------------------------------------- */

void daemon_start(void)
{
	sim.life = ++d.lives;
	SIM_TRACE("start", d.lives, 0, "-- the daemon starts, life %u", d.lives);
	d.state = DAEMON_STARTING;
	d.stop = false;
	d.error[0] = 0;
	d.main = sim_thread_start(main_thread, NULL);
}

void daemon_stop(void)
{
	if (d.state != DAEMON_RUNNING)
		return;
	SIM_TRACE("stop", d.lives, 0, "-- the daemon is told to stop");
	d.state = DAEMON_STOPPING;
	d.stop = true;
	sim_wake(d.main);
}

void daemon_crash(bool machine)
{
	SIM_TRACE("crash", machine, 0, "-- %s", machine ? "the machine dies" : "the daemon is killed");
	sim_rings_crash();
	sim_sys_crash();
	sim_threads_drop();
	sim.life = ++d.lives; /* nothing of the daemon's happens any more */
	if (machine)
		disk_crash();
	sim_memory_drop();
	memset(d.peers, 0, sizeof(d.peers));
	memset(&broker_sums, 0, sizeof(broker_sums));
	d.reactors = NULL;
	d.verify = NULL;
	d.store = NULL;
	d.state = DAEMON_DEAD;
}

void daemon_drop(void)
{
	sim_rings_drop();
	sim_sys_reset();
	sim_memory_drop();
	d.state = DAEMON_DEAD;
}

enum daemon_state daemon_state(void)
{
	return d.state;
}

const char *daemon_error(void)
{
	return d.error;
}

uint64_t daemon_connections(void)
{
	uint64_t n = 0;
	for (uint32_t i = 0; d.state == DAEMON_RUNNING && i < d.count; i++)
		n += atomic_load(&d.peers[i]->stats.connections);
	return n;
}

uint64_t daemon_open_count(void)
{
	return d.store ? atomic_load(&d.store->open_count) : 0;
}

static void check_zero(const char *what, uint64_t n)
{
	if (n != 0)
		sim_fail("at rest, but %s is %" PRIu64, what, n);
}

/* Of before the last start, taken by its consumer before that: it counts for nobody. */
static bool was_taken(const struct transfer *t)
{
	return t->state == TRANSFER_EXPORTED && store_export_is_gone(d.store, t->exported.path);
}

static void check_user(const struct transfer *t)
{
	const char *name = load_user_of(t->clientid, t->clientid_bytes);
	struct mqtt_str got = t->user ? user_name(t->user) : (struct mqtt_str){"", 0};
	if (!t->is_counted && (t->state != TRANSFER_EXPORTED || d.conf.transfer.files_user_max == 0))
		name = NULL;
	if (!t->user && was_taken(t))
		name = NULL;
	if (got.bytes != (name ? strlen(name) : 0) || (name && memcmp(name, got.s, got.bytes) != 0))
		sim_fail("%s %s counts for the user \"%.*s\"", t->clientid, t->fileid, (int)got.bytes, got.s);
}

void daemon_check_users(void)
{
	for (uint32_t i = 0; i < d.count; i++) {
		const struct uploads *u = d.peers[i]->uploads;
		for (uint32_t k = 0; k < u->table_size; k++) {
			for (const struct transfer *t = u->table[k]; t; t = t->hash_next) {
				check_user(t);
				if (t->previous)
					check_user(t->previous);
			}
		}
	}
}

/* Remembered exports that count, of all reactors or of one user. */
static uint64_t count_exports(const struct user *user)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < d.count; i++) {
		const struct uploads *u = d.peers[i]->uploads;
		for (uint32_t k = 0; k < u->table_size; k++) {
			for (const struct transfer *t = u->table[k]; t; t = t->hash_next)
				n += user ? t->user == user : t->account || !was_taken(t);
		}
	}
	return n;
}

/* At rest exports alone are files. The limits are never reached here, so none was found to be gone but
 * by a restart. */
static void check_files(void)
{
	uint64_t of_clients = 0;
	for (uint32_t i = 0; i < d.count; i++) {
		const struct uploads *u = d.peers[i]->uploads;
		of_clients += accounts_files_count(&u->accounts);
		for (uint32_t k = 0; k < u->table_size; k++) {
			for (const struct transfer *t = u->table[k]; t; t = t->hash_next) {
				if (t->user && user_files_count(t->user) != count_exports(t->user))
					sim_fail("at rest, but %s %s's user has %" PRIu64 " files", t->clientid,
						t->fileid, user_files_count(t->user));
			}
		}
	}
	if (of_clients != (d.conf.transfer.files_client_max ? count_exports(NULL) : 0))
		sim_fail("at rest, but clients have %" PRIu64 " files", of_clients);
}

/* Those of remembered exports. */
static uint32_t count_users(void)
{
	struct mqtt_str seen[REACTORS_MAX * 8];
	uint32_t n = 0;
	for (uint32_t i = 0; i < d.count; i++) {
		const struct uploads *u = d.peers[i]->uploads;
		for (uint32_t k = 0; k < u->table_size; k++) {
			for (const struct transfer *t = u->table[k]; t; t = t->hash_next) {
				uint32_t at = 0;
				while (t->user && at < n && seen[at].s != user_name(t->user).s)
					at++;
				if (t->user && at == n && n < REACTORS_MAX * 8)
					seen[n++] = user_name(t->user);
			}
		}
	}
	return n;
}

void daemon_check_quiet(void)
{
	const struct store *s = d.store;
	for (uint32_t i = 0; i < d.count; i++) {
		const struct reactor *rt = d.peers[i];
		check_zero("the number of buffers in use", atomic_load(&rt->stats.buffers));
		check_zero("the number of pipes in use", atomic_load(&rt->stats.pipes));
		check_zero("the number of open transfers", atomic_load(&rt->stats.transfers_open));
		check_zero("the number of operations but accept", ring_busy_count(rt->ring) - 1);
		if (!uploads_is_idle(rt->uploads))
			sim_fail("at rest, but an upload is under way");
		if (!journal_is_idle(rt->journal))
			sim_fail("at rest, but the journal is at work");
		check_zero("the number of messages that nobody gets", rt->broker->dropped.count);
	}
	check_zero("store.open_count", atomic_load(&s->open_count));
	check_zero("store.staged_bytes", atomic_load(&s->staged_bytes));
	check_zero("store.unallocated_bytes", atomic_load(&s->unallocated_bytes));
	check_zero("store.backlog_bytes", atomic_load(&s->backlog_bytes));
	check_zero("the number of users without an export", users_count(s->users) - count_users());
	check_files();
	check_zero("store.scratch_bytes", atomic_load(&s->scratch_bytes));
}
