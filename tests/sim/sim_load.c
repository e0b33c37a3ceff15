/*
 * sim_load.h.
 */
#include "sim_load.h"

#include <stdio.h>
#include <string.h>
#include "mqtt.h"
#include "sim_daemon.h"
#include "sim_disk.h"

enum {
	CLIENTS_MAX = 4,
	HEAL_TRIES_MAX = 40,     /* with few extents each brings one block, at the worst */
	/* Nothing is asked of the daemon now that takes longer. */
	STARVED_S = 120,
};

static struct load_conf conf;
static struct client clients[CLIENTS_MAX];
static uint32_t actions_left;
static bool healing, leaving;
static uint64_t heal_ns;          /* not before */
static uint64_t over_ns;          /* at the latest; 0: something is still to be done */

static void on_tick(void *arg, uint64_t num);

static void tick_later(struct client *c)
{
	uint64_t most = healing ? 5 * SIM_MS : conf.pause_ns_max;
	uint64_t least = healing && sim.now_ns < heal_ns ? heal_ns - sim.now_ns : 1000;
	sim_after(sim_skewed(least, least + most), false, on_tick, c, 0);
}

/* --- at random -------------------------------------------------------------------------------- */

static uint8_t any_qos(void)
{
	uint32_t n = sim_below(20);
	return n == 0 ? 0 : n < 5 ? 2 : 1;
}

static void new_version(struct file *f)
{
	if (!f->exports_count || !sim_chance(1500))
		return;
	f->stamp = (uint8_t)sim_below(MODEL_STAMPS);
	f->blocks = sim_below(conf.blocks_max + 1);
}

static void act_segment(struct client *c, struct file *f)
{
	uint32_t most = sim_chance(9500) && f->blocks ? f->blocks : MODEL_BLOCKS_MAX;
	struct cmd cmd = {.verb = VERB_SEGMENT, .file = f, .qos = any_qos(), .stamp = f->stamp};
	uint32_t one = sim_below(most), other = sim_below(most);
	cmd.from = one < other ? one : other;
	cmd.to = (one < other ? other : one) + 1;
	if (sim_chance(5000))
		cmd.to = cmd.from + 1;
	if (sim_chance(conf.conflict))
		cmd.stamp = (uint8_t)sim_below(MODEL_STAMPS);
	cmd.wrong_sum = sim_chance(conf.corrupt);
	cmd.has_sum = cmd.wrong_sum || sim_chance(3000);
	cmd.is_async = sim_chance(1000);
	client_command(c, &cmd, sim_chance(400));
}

static void act_fin(struct client *c, struct file *f)
{
	struct cmd cmd = {.verb = VERB_FIN, .file = f, .qos = any_qos(), .size = f->blocks};
	if (sim_chance(700))
		cmd.size = sim_below(conf.blocks_max + 1);
	cmd.has_sum = sim_chance(4000);
	if (cmd.has_sum)
		model_digest(f, sim_chance(500) ? 0 : f->stamp, cmd.size, cmd.sum);
	cmd.is_async = sim_chance(3000);
	client_command(c, &cmd, false);
}

static void act_plain(struct client *c, struct file *f, enum verb verb)
{
	struct cmd cmd = {.verb = verb, .file = f, .qos = any_qos(),
		.size = sim_chance(7000) ? f->blocks : UINT32_MAX};
	client_command(c, &cmd, false);
}

/* As a client sends a file: in pieces, one behind the other. */
static void act_pieces(struct client *c, struct file *f)
{
	uint32_t most = 1 + sim_below(MODEL_BLOCKS_MAX);
	struct cmd cmd = {.verb = VERB_SEGMENT, .file = f, .qos = sim_chance(8000) ? 1 : 2,
		.stamp = f->stamp, .has_sum = sim_chance(3000)};
	if (f->init_seq <= f->guard || sim_chance(2000))
		act_plain(c, f, VERB_INIT);
	for (cmd.to = 0; cmd.to < f->blocks;) {
		cmd.from = cmd.to;
		cmd.to += 1 + sim_below(most);
		if (cmd.to > f->blocks)
			cmd.to = f->blocks;
		client_command(c, &cmd, false);
	}
}

static bool may_end(const struct file *f)
{
	return f->exports_count + f->open_ends < MODEL_EXPORTS_MAX / 2;
}

/* One file or all of them, whole; then some pieces again; then their ends in a row. */
static void act_whole(struct client *c, struct file *only)
{
	bool is_all = sim_chance(6000), is_ended = sim_chance(7000);
	for (uint32_t i = 0; i < c->files_count; i++) {
		if (is_all || &c->files[i] == only)
			act_pieces(c, &c->files[i]);
	}
	for (uint32_t i = sim_below(4); i > 1; i--)
		act_segment(c, is_all ? &c->files[sim_below(c->files_count)] : only);
	for (uint32_t i = 0; i < c->files_count && is_ended; i++) {
		if ((is_all || &c->files[i] == only) && may_end(&c->files[i]))
			act_fin(c, &c->files[i]);
	}
}

/* Back after a connection was lost: wants to know whether what has arrived is enough. */
static void act_resume(struct client *c)
{
	for (uint32_t i = 0; i < c->files_count; i++) {
		if (sim_chance(5000))
			act_plain(c, &c->files[i], VERB_STATUS);
		if (may_end(&c->files[i]))
			act_fin(c, &c->files[i]);
	}
}

static void act_resend(struct client *c)
{
	for (int i = 0; i < MODEL_COMMANDS_MAX; i++) {
		if (c->cmds[i].used && c->cmds[i].qos == 2 && sim_chance(5000)) {
			client_resend(c, &c->cmds[i]);
			return;
		}
	}
}

/* The consumer of the exports takes one away. */
static void act_take(struct file *f)
{
	struct export *e = model_last_export(f);
	char path[256];
	const char *name;
	int err;
	if (!e || e->taken || !e->acked)
		return;
	snprintf(path, sizeof(path), "/data/export/%s", e->path);
	struct inode *dir = disk_parent(disk.root, path, &name, &err);
	if (!dir || disk_find(dir, name, &err) != e->inode)
		return;
	SIM_TRACE("take", f->idx, 0, "%-5s %s is taken away by its consumer", f->client->id, e->path);
	model_taken(e->inode);
	disk_unlink(dir, name, false);
	disk_make_durable(dir); /* else a crash brings it back */
	if (f->guard < f->client->seq)
		f->guard = f->client->seq;
}

static void act_online(struct client *c)
{
	struct file *f = &c->files[sim_below(c->files_count)];
	uint32_t n = sim_below(10000);
	bool gives_up = f->has_failed && sim_chance(5000);
	new_version(f);
	f->has_failed = false;
	if (gives_up)
		act_plain(c, f, VERB_ABORT);
	else if (c->is_back && sim_chance(5000))
		act_resume(c);
	else if (sim_chance(conf.whole))
		act_whole(c, f);
	else if (n < conf.fin && f->exports_count < MODEL_EXPORTS_MAX / 2)
		act_fin(c, f);
	else if (n < conf.fin + conf.abort)
		act_plain(c, f, VERB_ABORT);
	else if (n < conf.fin + conf.abort + 700)
		act_plain(c, f, VERB_STATUS);
	else if (n < conf.fin + conf.abort + 1700)
		act_plain(c, f, VERB_INIT);
	else if (n < conf.fin + conf.abort + 2000)
		act_resend(c);
	else if (n < conf.fin + conf.abort + 2000 + conf.take)
		act_take(f);
	else
		act_segment(c, f);
	c->is_back = false;
}

static void act(struct client *c)
{
	if (actions_left == 0)
		return;
	if (!c->sock || sim_chance(conf.leave / 4)) {
		client_connect(c);
		c->is_back = true;
	} else if (!c->online) {
		return;
	} else if (sim_chance(conf.leave)) {
		client_leave(c, sim_below(4));
	} else if (sim_chance(conf.leave)) {
		c->paused = !c->paused;
		net_pause(c->sock, c->paused);
	} else {
		for (uint32_t n = sim_chance(3000) ? 1 + sim_below(8) : 1; n > 0 && actions_left > 0; n--) {
			act_online(c);
			actions_left--;
		}
	}
}

/* --- to the end ------------------------------------------------------------------------------- */

static void heal_send(struct client *c, struct file *f)
{
	const struct answer_seen *s = &f->status;
	bool is_fresh = strcmp(s->state, "exported") == 0 || strcmp(s->state, "none") == 0;
	struct cmd cmd = {.verb = VERB_INIT, .file = f, .qos = 1, .size = UINT32_MAX};
	/* Stray extents behind its end may use up all that it may have. */
	struct cmd abort = {.verb = VERB_ABORT, .file = f, .qos = 1};
	if (f->tries % 10 == 0)
		client_command(c, &abort, false);
	if (f->init_seq <= f->guard || f->tries > 2)
		client_command(c, &cmd, false);
	for (uint32_t i = 0; i < f->blocks; i++) {
		uint64_t from = (uint64_t)i * f->block_bytes, to = from + f->block_bytes;
		bool wanted = is_fresh || f->tries > 4 || !model_is_only(f, i, f->stamp);
		for (uint32_t k = 0; k < s->missing_count; k++)
			wanted = wanted || (s->missing[k][0] < to && from < s->missing[k][1]);
		cmd = (struct cmd){.verb = VERB_SEGMENT, .file = f, .qos = 1, .stamp = f->stamp,
			.from = i, .to = i + 1};
		if (wanted)
			client_command(c, &cmd, false);
	}
	cmd = (struct cmd){.verb = VERB_FIN, .file = f, .qos = 1, .size = f->blocks, .has_sum = true};
	model_digest(f, f->stamp, f->blocks, cmd.sum);
	client_command(c, &cmd, false);
}

/* Is what it shall become part of what was exported? Then sending it begins no new version, and
 * there is nothing left to do. */
static bool is_exported(struct file *f)
{
	const struct export *e = model_last_export(f);
	if (!e || f->blocks > e->blocks)
		return false;
	for (uint32_t i = 0; i < f->blocks; i++) {
		if (!model_same(f, i, e->stamps[i], f->stamp))
			return false;
	}
	return true;
}

static void heal_file(struct client *c, struct file *f)
{
	if (!f->has_status) {
		struct cmd cmd = {.verb = VERB_STATUS, .file = f, .qos = 1};
		client_command(c, &cmd, false);
		return;
	}
	f->has_status = false;
	if (strcmp(f->status.state, "exported") == 0 && is_exported(f)) {
		f->settled = true;
		return;
	}
	if (strcmp(f->status.state, "verifying") == 0)
		return;
	if (++f->tries > HEAL_TRIES_MAX)
		sim_fail("%s %s: after %d tries it is not exported (%s)", c->id, f->id, HEAL_TRIES_MAX,
			f->status.state);
	heal_send(c, f);
}

static void check_starved(const struct client *c)
{
	for (int i = 0; i < MODEL_COMMANDS_MAX; i++) {
		const struct cmd *cmd = &c->cmds[i];
		if (cmd->used && sim.now_ns > cmd->sent_ns + STARVED_S * SIM_S)
			sim_fail("%s: command %u has had no answer for %d s (acknowledged: %d, answered: %d)",
				c->id, cmd->seq, STARVED_S, cmd->acked, cmd->responded);
	}
	if (!c->online && sim.now_ns > c->offline_ns + STARVED_S * SIM_S)
		sim_fail("%s: no connection for %d s", c->id, STARVED_S);
}

static void heal(struct client *c)
{
	if (daemon_state() != DAEMON_RUNNING || sim.now_ns < heal_ns) {
		c->offline_ns = sim.now_ns;
		return;
	}
	if (!c->sock || !c->wants_responses || c->paused || (c->online && c->dead)) {
		c->wants_responses = true;
		client_connect(c);
		return;
	}
	check_starved(c);
	if (!c->online || !c->subscribed || client_outstanding(c) > 0)
		return;
	for (uint32_t i = 0; i < c->files_count; i++) {
		if (!c->files[i].settled)
			heal_file(c, &c->files[i]);
	}
}

static void on_tick(void *arg, uint64_t num)
{
	struct client *c = arg;
	(void)num;
	if (leaving)
		return;
	if (healing)
		heal(c);
	else
		act(c);
	tick_later(c);
}

/* --- begin and end ---------------------------------------------------------------------------- */

static void file_init(struct client *c, uint32_t idx)
{
	struct file *f = &c->files[idx];
	f->client = c;
	f->idx = idx;
	snprintf(f->id, sizeof(f->id), "f%u", idx);
	f->block_bytes = (uint32_t)sim_skewed(1, conf.block_bytes_max);
	f->blocks = sim_below(conf.blocks_max + 1);
	f->stamp = (uint8_t)sim_below(MODEL_STAMPS);
	model_add_file(f);
}

void load_reset(const struct load_conf *to)
{
	load_fini();
	conf = *to;
	memset(clients, 0, sizeof(clients));
	healing = leaving = false;
	over_ns = 0;
	actions_left = conf.actions;
	for (uint32_t i = 0; i < conf.clients; i++) {
		struct client *c = &clients[i];
		c->idx = i;
		snprintf(c->id, sizeof(c->id), "c%u", i);
		c->version = conf.is_v5 && (!conf.is_v3 || sim_chance(5000)) ? MQTT_V5 : MQTT_V311;
		c->is_persistent = sim_chance(4000);
		c->wants_responses = sim_chance(8000);
		c->keep_alive_s = sim_chance(5000) ? 0 : (uint16_t)sim_between(5, 60);
		c->user = sim_chance(4000) ? NULL : sim_chance(7000) ? "anna" : "bob";
		c->files_count = 1 + sim_below(conf.files);
		for (uint32_t k = 0; k < c->files_count; k++)
			file_init(c, k);
		tick_later(c);
	}
}

const char *load_user_of(const char *id, uint32_t id_bytes)
{
	for (uint32_t i = 0; i < conf.clients; i++) {
		if (strlen(clients[i].id) == id_bytes && memcmp(clients[i].id, id, id_bytes) == 0)
			return clients[i].user;
	}
	return NULL;
}

void load_fini(void)
{
	for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
		client_fini(&clients[i]);
		clients[i].in = NULL;
	}
}

bool load_is_over(void)
{
	bool is_answered = true;
	if (actions_left > 0)
		return false;
	for (uint32_t i = 0; i < conf.clients; i++)
		is_answered = is_answered && client_outstanding(&clients[i]) == 0;
	if (over_ns == 0)
		over_ns = sim.now_ns + sim_skewed(0, conf.patience_ns);
	return is_answered || sim.now_ns >= over_ns;
}

void load_heal(void)
{
	healing = true;
	heal_ns = sim.now_ns + SIM_S; /* what is under way still comes to its end */
	for (uint32_t i = 0; i < conf.clients; i++) {
		struct client *c = &clients[i];
		client_leave(c, CLIENT_RESET);
		c->offline_ns = sim.now_ns;
		c->keep_alive_s = 0;
		for (uint32_t k = 0; k < c->files_count; k++)
			c->files[k].has_status = false;
	}
}

bool load_is_healed(void)
{
	for (uint32_t i = 0; i < conf.clients; i++) {
		for (uint32_t k = 0; k < clients[i].files_count; k++) {
			if (!clients[i].files[k].settled)
				return false;
		}
	}
	return true;
}

void load_leave(void)
{
	leaving = true;
	for (uint32_t i = 0; i < conf.clients; i++)
		client_leave(&clients[i], CLIENT_DISCONNECT);
}
