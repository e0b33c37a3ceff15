/*
 * Any bytes as a topic: it is no $file topic, or it is refused with one of the five words, or it is
 * a command; and a command, written again in its shortest form, is the same command.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "filecmd.h"
#include "sha256.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_error(const struct filecmd *cmd)
{
	static const char *const words[] = {"invalid_fileid", "invalid_file_command",
		"invalid_offset", "invalid_size", "invalid_checksum"};
	size_t i = 0;

	assert(cmd->error);
	while (i < 5 && strcmp(cmd->error, words[i]) != 0)
		i++;
	assert(i < 5);
	assert(!cmd->has_checksum);
	assert((i == 0) == (cmd->fileid == NULL));
}

/* The part behind the fileid. */
static size_t command_write(const struct filecmd *cmd, char *out, size_t out_max)
{
	char hex[65];
	int n = 0;

	switch (cmd->verb) {
	case FILECMD_INIT:
		return (size_t)snprintf(out, out_max, "/init");
	case FILECMD_ABORT:
		return (size_t)snprintf(out, out_max, "/abort");
	case FILECMD_STATUS:
		return (size_t)snprintf(out, out_max, "/status");
	case FILECMD_SEGMENT:
		n = snprintf(out, out_max, "/%" PRIu64, cmd->offset);
		break;
	case FILECMD_FIN:
		n = snprintf(out, out_max, "/fin/%" PRIu64, cmd->size);
		break;
	case FILECMD_NONE:
	case FILECMD_BAD:
		abort();
	}
	if (!cmd->has_checksum)
		return (size_t)n;
	sha256_to_hex(cmd->checksum, hex);
	return (size_t)(n + snprintf(out + n, out_max - (size_t)n, "/%s", hex));
}

static void check_again(const struct filecmd *cmd)
{
	char *topic = malloc(cmd->fileid_bytes + 256);
	size_t bytes = (size_t)sprintf(topic, "%s/", cmd->is_async ? "$file-async" : "$file");
	struct filecmd again;

	memcpy(topic + bytes, cmd->fileid, cmd->fileid_bytes);
	bytes += cmd->fileid_bytes;
	bytes += command_write(cmd, topic + bytes, 128);
	filecmd_parse(topic, bytes, &again);
	assert(again.verb == cmd->verb && again.is_async == cmd->is_async && !again.error);
	assert(again.offset == cmd->offset && again.size == cmd->size);
	assert(again.fileid_bytes == cmd->fileid_bytes);
	assert(memcmp(again.fileid, cmd->fileid, cmd->fileid_bytes) == 0);
	assert(again.has_checksum == cmd->has_checksum);
	assert(memcmp(again.checksum, cmd->checksum, sizeof(cmd->checksum)) == 0);
	free(topic);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const char *topic = (const char *)data;
	struct filecmd cmd;

	filecmd_parse(topic, bytes, &cmd);
	if (cmd.verb == FILECMD_NONE) {
		assert(!cmd.error && !cmd.fileid && !cmd.is_async);
		return 0;
	}
	assert(bytes > 5 && memcmp(topic, "$file", 5) == 0);
	assert(cmd.offset <= INT64_MAX && cmd.size <= INT64_MAX);
	if (cmd.fileid) {
		assert(cmd.fileid_bytes > 0 && !memchr(cmd.fileid, '/', cmd.fileid_bytes));
		assert(cmd.fileid > topic && cmd.fileid + cmd.fileid_bytes <= topic + bytes);
	}
	if (cmd.verb == FILECMD_BAD)
		check_error(&cmd);
	else
		check_again(&cmd);
	return 0;
}
