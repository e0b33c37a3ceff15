/*
 * The client id is held by binding a socket of that name in the abstract namespace: the kernel
 * lets go of it whenever and however the process ends, and nothing is left behind in a directory.
 */
#include "ident.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "sha256.h"

enum { SLOTS_MAX = 1000, USER_MAX = 64 };

/* The descriptor is never closed: it is the hold. True also when abstract sockets are not to be
 * had, since then two runs at once are the user's own business. */
static bool hold_name(const char *id)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		return true;
	}
	int n = snprintf(un.sun_path + 1, sizeof(un.sun_path) - 1, "%u/%s", (unsigned)getuid(), id);
	if (n >= (int)sizeof(un.sun_path) - 1) {
		n = (int)sizeof(un.sun_path) - 2;
	}
	socklen_t un_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
	if (bind(fd, (struct sockaddr *)&un, un_bytes) < 0 && errno == EADDRINUSE) {
		close(fd);
		return false;
	}
	return true;
}

/* A user or host name may have what means something in a topic filter. */
static void make_plain(char *s)
{
	for (; *s; s++) {
		if (*s == '/' || *s == '+' || *s == '#' || (unsigned char)*s <= ' ' ||
			(unsigned char)*s >= 127) {
			*s = '_';
		}
	}
}

int ident_client_id(bool may_number, char ret_id[IDENT_CLIENT_MAX])
{
	char host[HOST_NAME_MAX + 1] = "localhost", user[USER_MAX];
	const struct passwd *pw = getpwuid(getuid());

	gethostname(host, sizeof(host) - 1);
	if (pw) {
		snprintf(user, sizeof(user), "%s", pw->pw_name);
	} else {
		snprintf(user, sizeof(user), "%u", (unsigned)getuid());
	}
	make_plain(host);
	make_plain(user);
	snprintf(ret_id, IDENT_CLIENT_MAX, "sluice-%s-%s", user, host);
	for (int slot = 2; !hold_name(ret_id); slot++) {
		if (!may_number || slot > SLOTS_MAX) {
			return -EBUSY;
		}
		snprintf(ret_id, IDENT_CLIENT_MAX, "sluice-%s-%s-%d", user, host, slot);
	}
	return 0;
}

static void digest_to_id(const uint8_t digest[SHA256_DIGEST_BYTES], char ret_id[IDENT_FILE_BYTES])
{
	char hex[65];

	sha256_to_hex(digest, hex);
	memcpy(ret_id, hex, IDENT_FILE_BYTES - 1);
	ret_id[IDENT_FILE_BYTES - 1] = 0;
}

void ident_file_id(const char *path, const char *name, uint64_t size, const struct timespec *mtime,
	char ret_id[IDENT_FILE_BYTES])
{
	char *real = realpath(path, NULL);
	const char *where = real ? real : path;
	char numbers[80];
	uint8_t digest[SHA256_DIGEST_BYTES];
	struct sha256 sha;

	sha256_init(&sha);
	/* The terminating zeros keep ("a", "bc") and ("ab", "c") apart. */
	sha256_update(&sha, where, strlen(where) + 1);
	sha256_update(&sha, name, strlen(name) + 1);
	int n = snprintf(numbers, sizeof(numbers), "%llu %lld.%09ld", (unsigned long long)size,
		(long long)mtime->tv_sec, mtime->tv_nsec);
	sha256_update(&sha, numbers, (size_t)n);
	sha256_digest(&sha, digest);
	digest_to_id(digest, ret_id);
	free(real);
}

void ident_random_id(char ret_id[IDENT_FILE_BYTES])
{
	uint8_t digest[SHA256_DIGEST_BYTES] = {0};

	if (getrandom(digest, sizeof(digest), 0) != sizeof(digest)) {
		abort(); /* the call can't be short for so few bytes */
	}
	digest_to_id(digest, ret_id);
}
