/*
 * What is sent, and in which order.
 *
 * The outbox of a peer lists the packets that are generated and not wholly written, by packet id;
 * their bytes are made when they are written, and made again when a write stopped inside one. A
 * flush gathers packets until a batch is full: heads in an arena on the stack, payloads straight
 * from the source. Fins that are due go first, then the rest of the present file, then the next
 * file.
 *
 * Small segments wait until a quarter of the window is free, so that one system call carries many:
 * sending one for each acknowledgement would double the price of a byte. Larger ones go as soon as
 * they may.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "batch.h"
#include "clocks.h"
#include "fleet.h"
#include "peer.h"

enum { BATCHES_PER_TURN = 4, SMALL_SEGMENT_BYTES = 16 << 10 };

/* --- generating ----------------------------------------------------------------------------- */

static bool outbox_grow(struct peer *p)
{
	uint32_t *ring = calloc(p->outbox_capacity, 2 * sizeof(*ring));

	if (ring == NULL)
		return false;
	for (uint32_t i = 0; i < p->outbox_count; i++)
		ring[i] = p->outbox[(p->outbox_head + i) & (p->outbox_capacity - 1)];
	free(p->outbox);
	p->outbox = ring;
	p->outbox_capacity *= 2;
	p->outbox_head = 0;
	return true;
}

static bool outbox_append(struct peer *p, uint32_t entry)
{
	if (p->outbox_count == p->outbox_capacity && !outbox_grow(p))
		return false;
	p->outbox[(p->outbox_head + p->outbox_count) & (p->outbox_capacity - 1)] = entry;
	p->outbox_count++;
	return true;
}

bool outbox_add_puback(struct peer *p, uint16_t packet_id)
{
	/* Without files there is no outbox, and no command whose outcome could come. */
	return p->outbox != NULL && outbox_append(p, PEER_ENTRY_PUBACK | packet_id);
}

/* The file's segments are all acknowledged: its fin is due. */
static void outbox_add_fin(struct peer *p, uint32_t file_idx)
{
	struct upload *uploads = p->fleet->uploads;

	uploads[file_idx].fin_next = PEER_FILE_NONE;
	if (p->fin_head == PEER_FILE_NONE)
		p->fin_head = file_idx;
	else
		uploads[p->fin_tail].fin_next = file_idx;
	p->fin_tail = file_idx;
}

void outbox_settle(struct peer *p, uint32_t file_idx)
{
	struct fleet *f = p->fleet;
	struct upload *u = &f->uploads[file_idx];

	if (p->state == PEER_CLOSED || f->tally->verdicts[file_idx] == TALLY_OPEN)
		return;
	if (!u->is_settled) {
		u->is_settled = true;
		p->files_left--;
	}
	/* Commands in the outbox still need the content; unacknowledged ones that are written
	 * don't, but they are few and it is not worth telling them apart. */
	if (u->unacked == 0)
		source_close(f->source, file_idx);
}

void outbox_release(struct peer *p, uint16_t packet_id)
{
	struct fleet *f = p->fleet;
	struct command c = p->commands[packet_id - 1];
	struct upload *u = &f->uploads[c.file_idx];

	p->commands[packet_id - 1] = (struct command){.kind = COMMAND_NONE};
	p->ids[p->ids_free++] = packet_id;
	u->unacked--;
	if (u->unacked == 0 && u->all_generated && c.kind != COMMAND_FIN &&
		f->tally->verdicts[c.file_idx] == TALLY_OPEN) {
		if (f->options->topic != NULL)
			tally_file_ok(f->tally, c.file_idx);
		else
			outbox_add_fin(p, c.file_idx);
	}
	outbox_settle(p, c.file_idx);
}

/* Takes a packet id, which must be free, for a command. */
static bool outbox_add_command(struct peer *p, const struct command *c)
{
	uint16_t id = p->ids[p->ids_free - 1];

	if (!outbox_append(p, id))
		return false;
	p->ids_free--;
	p->commands[id - 1] = *c;
	p->fleet->uploads[c->file_idx].unacked++;
	return true;
}

static bool outbox_generate_fin(struct peer *p)
{
	struct fleet *f = p->fleet;

	while (p->fin_head != PEER_FILE_NONE) {
		struct command c = {.kind = COMMAND_FIN, .file_idx = p->fin_head};

		p->fin_head = f->uploads[p->fin_head].fin_next;
		if (f->tally->verdicts[c.file_idx] == TALLY_OPEN)
			return outbox_add_command(p, &c);
	}
	return false;
}

/* All commands of the present file before its fin may now have been generated. */
static void outbox_check_end(struct peer *p)
{
	if (p->cursor.idx < p->plan.segments_count)
		return;
	p->fleet->uploads[p->file_now].all_generated = true;
	p->file_now = PEER_FILE_NONE;
}

static bool outbox_generate_segment(struct peer *p)
{
	struct command c = {.kind = COMMAND_SEGMENT, .file_idx = p->file_now};
	struct plan_segment segment;

	if (p->file_now == PEER_FILE_NONE)
		return false;
	if (p->fleet->tally->verdicts[p->file_now] != TALLY_OPEN) {
		/* It failed: the rest of it would be wasted. */
		p->file_now = PEER_FILE_NONE;
		return false;
	}
	c.ordinal = (uint32_t)p->cursor.ordinal;
	if (!plan_next(&p->plan, &p->cursor, &segment))
		return false;
	c.from = segment.from;
	c.bytes = segment.bytes;
	outbox_check_end(p);
	return outbox_add_command(p, &c);
}

/* Begins the next file. False: there is none. */
static bool outbox_generate_init(struct peer *p)
{
	struct fleet *f = p->fleet;

	while (p->file_next < f->source->files_count) {
		struct command c = {.kind = COMMAND_INIT, .file_idx = p->file_next};
		int error = source_open(f->source, p->file_next);

		p->file_next += f->peers_count;
		if (error != 0) {
			tally_file_failed(f->tally, c.file_idx, "%s: %s",
				f->source->files[c.file_idx].path,
				error == -ESTALE ? "its size has changed" : strerror(-error));
			outbox_settle(p, c.file_idx);
			continue;
		}
		p->file_now = c.file_idx;
		p->cursor = (struct plan_cursor){0};
		plan_init(&p->plan, &f->rules, c.file_idx, f->source->files[c.file_idx].bytes);
		outbox_check_end(p);
		if (f->options->topic != NULL)
			return outbox_generate_segment(p);
		return outbox_add_command(p, &c);
	}
	return false;
}

/* Appends one more command, if there is one and the window has room for it. */
static bool outbox_generate(struct peer *p)
{
	if (p->ids_free == 0)
		return false;
	return outbox_generate_fin(p) || outbox_generate_segment(p) ||
	       (p->file_now == PEER_FILE_NONE && outbox_generate_init(p));
}

/* May new commands be generated now, or is it better to wait for more acknowledgements? */
static bool outbox_window_is_open(const struct peer *p)
{
	if (p->fleet->options->segment.max >= SMALL_SEGMENT_BYTES)
		return p->ids_free > 0;
	return p->ids_free >= (p->window + 3) / 4;
}

bool outbox_has_work(const struct peer *p)
{
	if (p->state != PEER_READY || p->outbox == NULL || !p->is_writable)
		return false;
	if (p->outbox_count > 0)
		return true;
	return outbox_window_is_open(p) &&
	       (p->fin_head != PEER_FILE_NONE || p->file_now != PEER_FILE_NONE ||
		       p->file_next < p->fleet->source->files_count);
}

/* --- writing ---------------------------------------------------------------------------------- */

static bool outbox_gather(struct peer *p, struct batch *b)
{
	bool may_generate = outbox_window_is_open(p);

	batch_init(b);
	while (batch_has_room(b)) {
		uint32_t idx = b->entries_count;

		if (idx == p->outbox_count && !(may_generate && outbox_generate(p)))
			break;
		if (!batch_add_entry(b, p,
			    p->outbox[(p->outbox_head + idx) & (p->outbox_capacity - 1)],
			    idx == 0 ? p->outbox_done : 0))
			return false;
	}
	return true;
}

/* The kernel took `written` bytes of the batch. */
static void outbox_advance(struct peer *p, const struct batch *b, size_t written)
{
	p->active_ns = clocks_now_ns();
	for (unsigned i = 0; i < b->entries_count; i++) {
		uint32_t entry = p->outbox[p->outbox_head];
		uint64_t left = b->totals[i] - p->outbox_done;

		if (written < left) {
			p->outbox_done += written;
			return;
		}
		written -= left;
		p->outbox_done = 0;
		p->outbox_head = (p->outbox_head + 1) & (p->outbox_capacity - 1);
		p->outbox_count--;
		if (entry & PEER_ENTRY_PUBACK)
			continue;
		p->commands[entry - 1].written_ns = p->active_ns;
		if (p->commands[entry - 1].is_refused)
			outbox_release(p, (uint16_t)entry);
	}
}

void outbox_flush(struct peer *p)
{
	struct batch batch;

	for (unsigned i = 0; i < BATCHES_PER_TURN && outbox_has_work(p); i++) {
		struct msghdr msg = {.msg_iov = batch.spans};
		ssize_t written;

		if (!outbox_gather(p, &batch)) {
			peer_fail(p, "no memory for a packet");
			return;
		}
		if (batch.spans_count == 0)
			return;
		msg.msg_iovlen = batch.spans_count;
		do
			written = sendmsg(p->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		while (written < 0 && errno == EINTR);
		if (written < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
			/* The daemon may have said why before it closed. */
			int error = errno;

			inbox_read(p);
			peer_fail(p, "the daemon closed the connection: %s", strerror(error));
			return;
		}
		/* A short write has filled the socket: epoll will tell when there is room. */
		if (written < 0 || (size_t)written < batch.bytes)
			p->is_writable = false;
		if (written > 0)
			outbox_advance(p, &batch, (size_t)written);
	}
}
