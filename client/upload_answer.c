/*
 * What comes back for an upload: acknowledgements, response messages, the loss of the connection.
 *
 * The outcome of fin counts as proof only where it is one: the PUBACK of a synchronous fin in MQTT
 * 5, else the response message alone. A refusal is sorted into three: it passes (no space, quota,
 * busy: come again), it can be repaired (missing ranges, a damaged segment), or it is final.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "refusal.h"
#include "upload.h"

enum {
	FRUITLESS_MAX = 3,
	BAD_SEGMENTS_MAX = 3,
	BLIND_MAX = 3,
	PAUSE_MIN_MS = 1000,
	PAUSE_MAX_MS = 60 * 1000,
};

static bool is_over(const struct upload *u)
{
	return u->state == UPLOAD_DONE || u->state == UPLOAD_FAILED || u->state == UPLOAD_ABORT;
}

static bool is_v3(const struct upload *u)
{
	return u->env->options->mqtt_version < MQTT_V5;
}

/* Is it the response message that tells the outcome of fin? */
static bool is_by_reply(const struct upload *u)
{
	return u->env->options->is_async || is_v3(u);
}

void upload_fail(struct upload *u, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	progress_say(u->env->progress, "%s: %s", u->path, text);
	/* No later run can go on with a pipe: what the server has of it only takes up room. */
	bool is_useless = u->is_pipe && !u->env->options->file_id;
	bool is_begun = u->state > UPLOAD_INIT && u->state != UPLOAD_ABORT;
	u->state = is_useless && is_begun ? UPLOAD_ABORT : UPLOAD_FAILED;
}

/* What was sent of a file that changed is of no use to anybody: the server may forget it. */
void upload_fail_source(struct upload *u, const char *how)
{
	if (u->is_pipe) {
		upload_fail(u, "can't read from the pipe: %s", how);
	} else if (u->source.error && u->source.error != ENODATA) {
		upload_fail(u, "can't be read: %s", how);
	} else {
		upload_fail(u, "the file changed while it was being sent: %s; send it again",
			u->source.error == ENODATA ? "it became shorter" : how);
	}
	u->state = UPLOAD_ABORT;
}

/* --- refusals --- */

static const char *command_name(const struct session_tag *tag, char buf[64])
{
	switch ((enum upload_kind)tag->kind) {
	case UPLOAD_STATUS:
		return "status";
	case UPLOAD_INIT_CMD:
		return "init";
	case UPLOAD_FIN_CMD:
		return "fin";
	case UPLOAD_ABORT_CMD:
		return "abort";
	case UPLOAD_SEGMENT:
		break;
	}
	snprintf(buf, 64, "the segment at %" PRIu64, tag->from);
	return buf;
}

static void pause_upload(struct upload *u, const char *refusal)
{
	const struct options *o = u->env->options;
	uint64_t now = session_now_ms();
	uint64_t delay = (uint64_t)PAUSE_MIN_MS << (u->pauses < 6 ? u->pauses : 6);

	if (u->state == UPLOAD_PAUSED) {
		return; /* another of the segments that were under way */
	}
	if (u->paused_ms && o->retry_max_ms && now - u->paused_ms >= o->retry_max_ms) {
		upload_fail(u, "%s, for %" PRIu64 " s now", refusal, (now - u->paused_ms) / 1000);
		return;
	}
	if (!u->paused_ms) {
		u->paused_ms = now;
		progress_note(u->env->progress, "%s: %s; trying again", u->path, refusal);
	}
	u->pauses++;
	delay = delay < PAUSE_MAX_MS ? delay : PAUSE_MAX_MS;
	if (o->retry_max_ms && now + delay > u->paused_ms + o->retry_max_ms) {
		delay = u->paused_ms + o->retry_max_ms - now;
	}
	u->resume_at_ms = now + delay;
	u->state = UPLOAD_PAUSED;
}

static void forget_coverage(struct upload *u)
{
	cover_fini(&u->sent);
	cover_fini(&u->acked);
	cover_init(&u->sent, UINT32_MAX);
	cover_init(&u->acked, UINT32_MAX);
}

/* The server has all bytes, but not the right ones. What an earlier run sent under this file id
 * may be to blame, so all of it is sent once more; a second mismatch is final. */
static void on_mismatch(struct upload *u, const char *refusal)
{
	const char *changed = u->is_pipe ? NULL : source_changed(&u->source);

	if (changed) {
		upload_fail_source(u, changed);
	} else if (u->is_pipe || u->is_resend) {
		upload_fail(u, "%s", refusal);
	} else {
		progress_note(u->env->progress, "%s: the server has other bytes than the file; "
			"sending all of it once more", u->path);
		u->is_resend = true;
		u->has_sent_fin = false;
		source_rehash(&u->source);
		forget_coverage(u);
		u->state = UPLOAD_INIT;
	}
}

static void on_segment_damaged(struct upload *u, uint64_t from, const char *refusal)
{
	/* Where it ended is computed as when it was sent: MQTT 3's response message does not say
	 * it. */
	uint64_t max = u->env->options->segment_bytes;
	uint64_t to = (from / max + 1) * max;

	if (++u->bad_segments > BAD_SEGMENTS_MAX ||
		cover_remove(&u->sent, from, to) < 0) {
		upload_fail(u, "%s", refusal);
		return;
	}
	for (struct spool_chunk *c = u->spool.first; c; c = c->next) {
		if (c->from == from) {
			c->is_sent = false;
		}
	}
	if (u->state > UPLOAD_DATA && u->state < UPLOAD_PAUSED) {
		u->state = UPLOAD_DATA;
	}
}

/* Time heals these, except a size that no time will make smaller. */
static bool is_passing(uint8_t reason, const char *text)
{
	return (reason == MQTT_RC_QUOTA_EXCEEDED && !refusal_begins(text, "too_large")) ||
	       reason == MQTT_RC_SERVER_BUSY || reason == MQTT_RC_RATE_TOO_HIGH ||
	       reason == MQTT_RC_SERVER_SHUTDOWN || refusal_begins(text, "io_error") ||
	       refusal_begins(text, "no_memory");
}

static bool pipe_is_whole(struct upload *u, const struct cover *covered)
{
	if (!u->is_pipe || spool_resume(&u->spool, covered)) {
		return true;
	}
	upload_fail(u, "the server no longer has what it acknowledged, "
		"and a pipe can't be read twice");
	return false;
}

/* A server that has no `status` is no reason to give up: everything is sent. */
static void on_no_status(struct upload *u)
{
	forget_coverage(u);
	if (u->blind_rounds++ > BLIND_MAX) {
		upload_fail(u,
			"the server does not take the file, nor does it say what is missing");
	} else if (pipe_is_whole(u, &u->sent)) {
		u->state = UPLOAD_INIT;
	}
}

static void on_refused(struct upload *u, const struct session_tag *tag, uint8_t reason,
	const char *text)
{
	char refusal[512], command[64];

	/* A segment that went out before this fin was refused first, and that has decided what
	 * follows. */
	if (tag->kind == UPLOAD_FIN_CMD && u->state != UPLOAD_FINNED) {
		return;
	}
	refusal_format(command_name(tag, command), u->name, reason, text, refusal, sizeof(refusal));
	if (reason == MQTT_RC_NO_MATCHING_SUBSCRIBERS) {
		session_fail(u->env->session, EXIT_REFUSED,
			"the server has no file transfer: it treats $file as an ordinary topic");
	} else if (is_passing(reason, text)) {
		pause_upload(u, refusal);
	} else if (tag->kind == UPLOAD_STATUS) {
		on_no_status(u);
	} else if (tag->kind == UPLOAD_FIN_CMD && refusal_begins(text, "incomplete") &&
		   u->fruitless++ < FRUITLESS_MAX) {
		u->is_small = false;
		u->state = UPLOAD_ASK;
	} else if (tag->kind == UPLOAD_FIN_CMD && refusal_begins(text, "checksum_mismatch")) {
		on_mismatch(u, refusal);
	} else if (tag->kind == UPLOAD_SEGMENT && refusal_begins(text, "checksum_mismatch")) {
		on_segment_damaged(u, tag->from, refusal);
	} else {
		upload_fail(u, "%s", refusal);
		if (u->is_small && tag->kind == UPLOAD_INIT_CMD) {
			u->state = UPLOAD_ABORT;
		}
	}
}

/* --- acknowledgements --- */

/* A segment is stored, or the file exported. An init alone is not progress: a server whose disk
 * is full accepts it in every round. */
static void progressed(struct upload *u)
{
	session_progress(u->env->session);
	u->paused_ms = 0;
	u->pauses = 0;
}

static void on_accepted(struct upload *u, const struct session_tag *tag)
{
	switch ((enum upload_kind)tag->kind) {
	case UPLOAD_STATUS:
	case UPLOAD_ABORT_CMD:
		return;
	case UPLOAD_INIT_CMD:
		if (u->state == UPLOAD_INITED && !is_v3(u)) {
			u->state = UPLOAD_DATA;
		}
		return;
	case UPLOAD_SEGMENT:
		if (cover_add(&u->acked, tag->from, tag->to) < 0) {
			upload_fail(u, "out of memory");
			return;
		}
		spool_acked(&u->spool, tag->from);
		break;
	case UPLOAD_FIN_CMD:
		if (u->state != UPLOAD_FINNED) {
			return; /* the response message was faster */
		}
		if (is_by_reply(u)) {
			u->is_fin_acked = true;
			u->outcome_ms = session_now_ms();
		} else {
			u->state = UPLOAD_DONE;
		}
		break;
	}
	if (!is_v3(u)) {
		progressed(u);
	}
}

void upload_on_ack(struct upload *u, const struct session_tag *tag, uint8_t reason,
	struct mqtt_str text)
{
	char copy[REFUSAL_TEXT_MAX];

	u->inflight--;
	if (tag->kind == UPLOAD_SEGMENT) {
		u->env->segments_inflight--;
	}
	if (is_over(u)) {
		return;
	}
	if (reason == 0) {
		on_accepted(u, tag);
		return;
	}
	refusal_copy_text(text.s, text.bytes, copy);
	on_refused(u, tag, reason, copy);
}

/* --- response messages --- */

/* In a second pass only what this pass has sent counts, whatever else the server has. */
static int keep_resent(struct upload *u, struct cover *covered)
{
	uint64_t at = 0, end = u->source.size;
	bool is_there;

	while (u->is_resend && at < end) {
		uint64_t to = cover_run_end(&u->acked, at, &is_there);
		to = to < end ? to : end;
		int r = is_there ? 0 : cover_remove(covered, at, to);
		if (r < 0) {
			return r;
		}
		at = to;
	}
	return 0;
}

static int copy_cover(struct cover *to, const struct cover *from)
{
	struct extent e = {0};
	int r = 0;

	cover_init(to, UINT32_MAX);
	while (r == 0 && cover_next(from, e.to, &e)) {
		r = cover_add(to, e.from, e.to);
	}
	return r;
}

/* Takes the server's word for what it has, and goes on from there. */
static void resume_from(struct upload *u, const struct reply *r)
{
	struct cover covered;
	bool is_partial;

	if (reply_coverage(r, !u->is_pipe, u->source.size, &covered, &is_partial) < 0) {
		upload_fail(u, "out of memory");
		return;
	}
	if (!pipe_is_whole(u, &covered)) {
		cover_fini(&covered);
		return;
	}
	u->is_partial = is_partial && !u->is_pipe;
	if (keep_resent(u, &covered) < 0) {
		upload_fail(u, "out of memory");
		cover_fini(&covered);
		return;
	}
	cover_fini(&u->sent);
	cover_fini(&u->acked);
	u->acked = covered;
	u->state = UPLOAD_INIT;
	if (copy_cover(&u->sent, &u->acked) < 0) {
		upload_fail(u, "out of memory");
	}
}

/* Everything is there, the server says: fin will tell whether it is the same file. */
static void believe_all(struct upload *u)
{
	forget_coverage(u);
	u->is_partial = false;
	uint64_t size = u->is_pipe ? u->spool.end : u->source.size;
	if (cover_add(&u->sent, 0, size) < 0 || cover_add(&u->acked, 0, size) < 0) {
		upload_fail(u, "out of memory");
		return;
	}
	u->state = UPLOAD_FIN;
}

static void on_status(struct upload *u, const struct reply *r)
{
	static const struct reply nothing = {.state = REPLY_NONE};
	bool has_digest = !u->env->options->no_checksum;
	/* Without a digest, or from a pipe, "exported" may be another file under the same id:
	 * only a fin that this run has sent makes it ours. */
	bool may_believe = u->has_sent_fin || (has_digest && !u->is_pipe && !u->is_resend &&
						      r->has_size && r->size == u->source.size);

	u->unanswered = 0;
	switch (r->state) {
	case REPLY_OPEN:
		/* A new run can't know what an old one has sent from its pipe: it begins anew,
		 * and the last write wins. */
		resume_from(u, u->is_pipe && u->acked.bytes == 0 ? &nothing : r);
		break;
	case REPLY_NONE:
		resume_from(u, r);
		break;
	case REPLY_VERIFYING:
	case REPLY_EXPORTED:
		if (may_believe) {
			believe_all(u);
		} else {
			resume_from(u, &nothing);
		}
		break;
	}
}

/* Is it the answer to our last fin, not to that of an earlier run with another file? */
static bool is_of_last_fin(const struct upload *u, const struct filecmd *cmd)
{
	return u->state == UPLOAD_FINNED && cmd->size == u->fin_size &&
	       cmd->has_checksum == !u->env->options->no_checksum &&
	       (!cmd->has_checksum ||
		       memcmp(cmd->checksum, u->fin_digest, sizeof(u->fin_digest)) == 0);
}

void upload_on_reply(struct upload *u, const struct reply *r)
{
	struct session_tag tag = {.owner = u, .from = r->cmd.offset};

	if (is_over(u)) {
		return;
	}
	switch (r->cmd.verb) {
	case FILECMD_STATUS:
		if (u->state == UPLOAD_ASKED && r->has_status && r->reason_code == 0) {
			on_status(u, r);
		} else if (u->state == UPLOAD_ASKED && is_v3(u) && r->reason_code != 0) {
			on_no_status(u);
		}
		return;
	case FILECMD_FIN:
		tag.kind = UPLOAD_FIN_CMD;
		if (!is_of_last_fin(u, &r->cmd)) {
			return;
		}
		if (is_by_reply(u) && r->reason_code == 0) {
			u->state = UPLOAD_DONE;
			progressed(u);
			return;
		}
		break;
	case FILECMD_INIT:
		tag.kind = UPLOAD_INIT_CMD;
		break;
	case FILECMD_SEGMENT:
		tag.kind = UPLOAD_SEGMENT;
		break;
	case FILECMD_NONE:
	case FILECMD_ABORT:
	case FILECMD_BAD:
		return;
	}
	/* In MQTT 3 the PUBACK has told nothing: that a command was carried out is known only
	 * now. */
	if (r->reason_code == 0 && is_v3(u)) {
		if (tag.kind == UPLOAD_INIT_CMD && u->state == UPLOAD_INITED) {
			u->state = UPLOAD_DATA;
		}
		if (tag.kind == UPLOAD_SEGMENT) {
			progressed(u);
		}
	}
	/* In MQTT 5 the PUBACK has told all but the outcome of an asynchronous fin. */
	if (r->reason_code != 0 && (is_v3(u) || (r->cmd.verb == FILECMD_FIN && is_by_reply(u)))) {
		char text[REFUSAL_TEXT_MAX];
		refusal_copy_text(r->description, sizeof(r->description), text);
		on_refused(u, &tag, r->reason_code, text);
	}
}

void upload_on_down(struct upload *u)
{
	u->inflight = 0;
	switch (u->state) {
	case UPLOAD_NEW:
	case UPLOAD_PAUSED:
	case UPLOAD_DONE:
	case UPLOAD_FAILED:
		return;
	case UPLOAD_ABORT:
		u->state = UPLOAD_FAILED;
		return;
	case UPLOAD_ASK:
	case UPLOAD_ASKED:
	case UPLOAD_INIT:
	case UPLOAD_INITED:
	case UPLOAD_DATA:
	case UPLOAD_FIN:
	case UPLOAD_FINNED:
		break;
	}
	if (u->is_small) {
		forget_coverage(u);
	}
	u->state = u->is_small || (u->is_pipe && u->spool.end == 0) ? UPLOAD_INIT : UPLOAD_ASK;
}
