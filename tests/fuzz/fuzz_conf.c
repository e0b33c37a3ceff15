/*
 * Configuration text of any content: it is loaded or refused with one sentence, and what was loaded
 * and then dumped loads again to the same values.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "conf_key.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_sentence(const char *error)
{
	size_t length = strlen(error);

	assert(length > 0);
	for (size_t i = 0; i < length; i++)
		assert((unsigned char)error[i] >= ' ');
}

static void check_again(const struct conf *c)
{
	char error[512], *dump = NULL;
	size_t dump_bytes = 0;
	FILE *memory = open_memstream(&dump, &dump_bytes);
	struct conf again;

	assert(memory && !conf_init(&again));
	conf_dump(c, memory);
	fclose(memory);
	assert(!conf_load_text(&again, "dump", dump, dump_bytes, error, sizeof(error)));
	for (size_t i = 0; i < conf_keys_count; i++)
		assert(conf_key_equal(c, &again, &conf_keys[i]));
	conf_fini(&again);
	free(dump);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char error[512] = "";
	struct conf c;

	assert(!conf_init(&c));
	if (conf_load_text(&c, "fuzz", (const char *)data, bytes, error, sizeof(error)))
		check_sentence(error);
	else
		check_again(&c);
	conf_fini(&c);
	return 0;
}
