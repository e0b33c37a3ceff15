/*
 * A PUBLISH whose payload did not come with its head: thrown away, collected, or streamed.
 *
 * While one is under way nothing else of the connection is decoded, and nothing of it lies in the
 * stash: what had arrived of the payload was taken when it began, all further bytes come straight
 * from the socket.
 *
 * Collected memory grows with what has arrived, never with what was announced.
 */
#include "conn.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "reply.h"

/* Segments of all connections that are on their way into a file, which each of them keeps open. */
static _Atomic uint32_t streams_count;

uint32_t payload_streams(void)
{
	return atomic_load(&streams_count);
}

enum {
	COLLECT_BYTES_MIN = 16 * 1024,
	/* In one go; with a limit on bytes, less. */
	TAKE_BYTES_MAX = 1 << 20,
	PULL_BYTES_MAX = 8 << 20,
};

static void end_drain(struct conn *c, const struct payload *pl)
{
	switch ((enum payload_end)pl->end) {
	case PAYLOAD_NOTHING:
		break;
	case PAYLOAD_ACK:
		reply_plain(c, pl->qos, pl->packet_id, pl->reason);
		break;
	case PAYLOAD_PUBREC:
		conn_send_ack(c, MQTT_PUBREC, pl->packet_id, 0, NULL);
		break;
	case PAYLOAD_FAIL:
		reply_fail(pl->reply, pl->reason, pl->text, pl->is_transient);
		break;
	case PAYLOAD_COMMAND:
		conn_command_whole(c, pl->reply);
		break;
	}
}

/* The last byte is here. pl is not the connection's any more. */
static void end(struct conn *c, struct payload *pl)
{
	switch ((enum payload_kind)pl->kind) {
	case PAYLOAD_DRAIN:
		end_drain(c, pl);
		break;
	case PAYLOAD_COLLECT:
		conn_publish_whole(c, pl->data, pl->bytes, pl->reply);
		received_free(pl->data, pl->bytes_max);
		break;
	case PAYLOAD_STREAM: /* goes on alone */
		break;
	}
}

int payload_begin(struct conn *c, const struct payload *pl)
{
	struct payload now = *pl;
	if (now.left == 0 && now.kind != PAYLOAD_STREAM) {
		end(c, &now);
		return 0;
	}
	c->payload = malloc(sizeof(now));
	if (c->payload) {
		*c->payload = now;
		atomic_fetch_add(&streams_count, now.kind == PAYLOAD_STREAM);
		return 0;
	}
	if (now.reply)
		reply_discard(now.reply);
	if (now.seg)
		ingest_cut(now.seg);
	received_free(now.data, now.bytes_max);
	c->failed = true;
	return -ENOMEM;
}

int payload_keep(const struct conn *c, struct payload *pl, const struct input *in,
	uint32_t head_bytes, uint32_t payload_bytes)
{
	uint32_t total = head_bytes + payload_bytes;
	pl->kind = PAYLOAD_COLLECT;
	pl->head_bytes = head_bytes;
	pl->bytes = in->bytes < total ? in->bytes : total;
	pl->left = total - pl->bytes;
	pl->bytes_max = total < COLLECT_BYTES_MIN ? total : COLLECT_BYTES_MIN;
	if (pl->bytes_max < pl->bytes)
		pl->bytes_max = pl->bytes;
	pl->data = received_resize(c, NULL, 0, pl->bytes_max);
	if (!pl->data)
		return -ENOMEM;
	memcpy(pl->data, in->data, pl->bytes);
	return 0;
}

/* Room for more of it: as much again as there is, but no more than will come. 0 or −ENOMEM. */
static int grow(const struct conn *c, struct payload *pl)
{
	if (pl->bytes < pl->bytes_max)
		return 0;
	uint32_t more = pl->bytes < pl->left ? pl->bytes : pl->left;
	uint8_t *data = received_resize(c, pl->data, pl->bytes_max, pl->bytes_max + more);
	if (!data)
		return -ENOMEM;
	pl->data = data;
	pl->bytes_max += more;
	return 0;
}

/* Bytes or −errno of the socket, 0 at its end. */
static int take(struct conn *c, struct payload *pl)
{
	uint32_t bytes = conn_bytes_max(c, TAKE_BYTES_MAX);
	if (bytes > pl->left)
		bytes = pl->left;
	int n;
	if (pl->kind == PAYLOAD_DRAIN) {
		n = sock_discard(c->fd, bytes);
	} else {
		n = grow(c, pl);
		if (n < 0)
			return n;
		uint32_t room = pl->bytes_max - pl->bytes;
		n = sock_recv(c->fd, pl->data + pl->bytes, room < bytes ? room : bytes);
		if (n > 0)
			pl->bytes += (uint32_t)n;
	}
	if (n > 0)
		pl->left -= (uint32_t)n;
	return n;
}

static enum step lost(struct conn *c)
{
	c->failed = true;
	return STEP_STOP;
}

static enum step stream_step(struct conn *c, struct payload *pl, uint32_t *ret_bytes)
{
	uint32_t before = ingest_left(pl->seg);
	/* Set before the call, since the segment may say within it that it wants to go on in the
	 * next turn. */
	c->stops |= STOP_SEGMENT;
	enum ingest_pull pulled = ingest_pull(pl->seg, c->fd, conn_bytes_max(c, PULL_BYTES_MAX));
	*ret_bytes = before - (pulled == INGEST_DONE ? 0 : ingest_left(pl->seg));
	conn_count_received(c, *ret_bytes);
	switch (pulled) {
	case INGEST_WAIT:
		c->window_ms = 0; /* it is us who are slow */
		return STEP_STOP;
	case INGEST_POLL:
		c->stops &= (uint16_t)~STOP_SEGMENT;
		return STEP_POLL;
	case INGEST_EOF:
		return lost(c); /* conn_end cuts it */
	case INGEST_DONE:
		break;
	}
	c->stops &= (uint16_t)~STOP_SEGMENT;
	c->payload = NULL;
	atomic_fetch_sub(&streams_count, 1);
	free(pl);
	return STEP_AGAIN;
}

enum step payload_step(struct conn *c, uint32_t *ret_bytes)
{
	struct payload *pl = c->payload;
	if (pl->kind == PAYLOAD_STREAM)
		return stream_step(c, pl, ret_bytes);
	int n = take(c, pl);
	if (n == -EAGAIN)
		return STEP_POLL;
	if (n <= 0)
		return lost(c);
	*ret_bytes = (uint32_t)n;
	conn_count_received(c, *ret_bytes);
	if (pl->left == 0) {
		c->payload = NULL;
		end(c, pl);
		free(pl);
	}
	return STEP_AGAIN;
}

void payload_cut(struct conn *c)
{
	struct payload *pl = c->payload;
	if (!pl)
		return;
	c->payload = NULL;
	if (pl->reply)
		reply_discard(pl->reply);
	if (pl->seg)
		ingest_cut(pl->seg);
	atomic_fetch_sub(&streams_count, pl->kind == PAYLOAD_STREAM);
	received_free(pl->data, pl->bytes_max);
	free(pl);
}
