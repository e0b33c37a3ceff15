/*
 * What was promised, and whether it is kept.
 *
 * A client numbers its commands in the order in which it sends them, which is the order in which
 * the daemon carries them out: a connection's commands are handled in turn, and a later connection
 * of the same client ends the earlier one first. So of each block of a file the model knows the
 * last write that was acknowledged, and those behind it that may have happened.
 *
 *     promised to be there:   a write that was acknowledged, unless it is at or below the file's
 *                             guard (an abort or an export may have taken it, or a crash that it
 *                             need not survive), and no write came behind it that changes any of
 *                             the blocks that it covers
 *     may be exported:        of each block the last acknowledged write, one behind it, or, when
 *                             nothing newer is promised, what the export before had
 *
 * Every byte is made from (client, file, stamp, place), so content tells who wrote it.
 */
#ifndef SLUICE_SIM_MODEL_H
#define SLUICE_SIM_MODEL_H

#include "sim.h"

struct client;
struct inode;

enum {
	MODEL_BLOCKS_MAX = 24, MODEL_MAYBES_MAX = 6, MODEL_EXPORTS_MAX = 12, MODEL_FILES_MAX = 6,
	MODEL_COMMANDS_MAX = 256, MODEL_STAMPS = 8,
};

enum verb { VERB_INIT, VERB_SEGMENT, VERB_FIN, VERB_ABORT, VERB_STATUS };

struct write {
	uint32_t seq;
	uint32_t known;     /* the last command when its acknowledgement came */
	uint8_t stamp;
	bool is_equal;      /* it brought nothing but what every block of it had, if anything */
};

struct block {
	struct write acked;                     /* seq 0: none */
	struct write maybe[MODEL_MAYBES_MAX];   /* behind it, in order */
	uint32_t maybes;
	uint32_t older_seq;                     /* there were more of them: the last one's, */
	uint8_t older;                          /* and their stamps, a bit each */
};

struct export {
	struct inode *inode;
	char path[160];                         /* relative to the export root */
	uint32_t blocks;
	uint8_t digest[32];
	uint8_t stamps[MODEL_BLOCKS_MAX];
	uint32_t seq;                           /* of the last command when it appeared */
	bool acked;                             /* a fin was answered with it */
	bool taken;                             /* by the consumer */
	bool taken_back;                        /* by the daemon, which had not answered yet */
};

/* What the daemon said. */
struct answer_seen {
	uint8_t reason;
	char text[32];
	bool has_missing, has_status, truncated;
	char state[16];
	uint64_t size;
	uint32_t missing_count;
	uint64_t missing[64][2];
	uint64_t missing_bytes;
	bool has_actual;
	uint8_t actual[32];
};

struct file {
	struct client *client;
	uint32_t idx;
	char id[16];
	uint32_t blocks, block_bytes;           /* as the client means it to be at present */
	uint8_t stamp;                          /* likewise */
	struct block b[MODEL_BLOCKS_MAX];
	uint32_t guard;                         /* see above */
	uint32_t init_seq;                      /* acknowledged; 0: none */
	uint64_t active_ns;                     /* the last acknowledged one was sent */
	uint32_t open_ends;                     /* fins and aborts without a known result */
	bool has_failed;                        /* the last fin, for want of a disk */
	struct export exports[MODEL_EXPORTS_MAX];
	uint32_t exports_count;
	/* healing */
	bool settled, has_status;
	uint32_t tries;
	struct answer_seen status;
};

struct cmd {
	bool used;
	enum verb verb;
	struct file *file;
	uint32_t seq;
	uint16_t pid;
	uint8_t qos;
	bool is_async, wants_response, wrong_sum, harmless, has_sum;
	bool acked, responded, known;
	bool received;                          /* QoS 2: PUBREC came, PUBCOMP is awaited */
	bool resent, is_dup;
	uint8_t reason;                         /* of the acknowledgement */
	uint32_t from, to;                      /* blocks */
	uint8_t stamp;
	uint32_t size;                          /* FIN: blocks; INIT: likewise, UINT32_MAX: none */
	uint8_t sum[32];
	uint64_t sent_ns;
};

struct model_conf {
	bool faults;                            /* the disk may fail in this run, or run full */
	bool power;                             /* durability: power */
	uint64_t ttl_ns;
};
extern struct model_conf model;

void model_reset(const struct model_conf *conf);
void model_add_file(struct file *f);
/* The bytes [off, off + len) of a file, all blocks with one stamp. */
void model_fill(const struct file *f, uint8_t stamp, uint64_t off, uint64_t len, uint8_t *ret);
/* Do two stamps make the same bytes there? Blocks of few bytes may. */
bool model_same(const struct file *f, uint32_t block, uint8_t stamp, uint8_t other);
void model_digest(const struct file *f, uint8_t stamp, uint32_t blocks, uint8_t ret[32]);

void model_sent(struct cmd *c);
/* The result is known. */
void model_result(struct cmd *c, const struct answer_seen *a);
/* It never will be. */
void model_lost(struct cmd *c);
/* A crash of the machine; or bytes that the disk has lost. */
void model_machine_crashed(void);
void model_bytes_lost(void);
/* What a consumer has taken is not missed. */
void model_taken(struct inode *i);
/* All exports that were answered are there, and nothing else is in the export directory but what
 * can be explained. */
void model_check_exports(bool at_rest);
void model_reappear(void);
/* If the block is there, must it be with this stamp? */
bool model_is_only(const struct file *f, uint32_t block, uint8_t stamp);
struct export *model_last_export(struct file *f);

#endif
