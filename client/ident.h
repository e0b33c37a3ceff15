/*
 * Names that stay the same from run to run, so that a second run goes on where the first one ended.
 */
#ifndef CLIENT_IDENT_H
#define CLIENT_IDENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { IDENT_CLIENT_MAX = 512, IDENT_FILE_BYTES = 33 };

/* The default client id: "sluice-<user>-<host>", the same in every run. Two clients with one id
 * would throw each other out, so the id is held while this process lives; when another holds it
 * and may_number is set, "-2", "-3", … is appended. 0; −EBUSY when it is held and may_number is
 * not set. */
int ident_client_id(bool may_number, char ret_id[IDENT_CLIENT_MAX]);

/* The default file id: 32 hex digits from the file's absolute path, name, size and time of
 * modification, not from its contents: knowing it must not cost a pass over the file. */
void ident_file_id(const char *path, const char *name, uint64_t size, const struct timespec *mtime,
	char ret_id[IDENT_FILE_BYTES]);
/* For a pipe: random, as nothing can be resumed by a second run. */
void ident_random_id(char ret_id[IDENT_FILE_BYTES]);

#endif
