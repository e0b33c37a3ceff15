#include "limits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

enum { FDS_RESERVED = 64 };

int limits_raise_files(uint32_t connections)
{
	struct rlimit limit;
	rlim_t wanted = (rlim_t)connections + FDS_RESERVED;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur >= wanted)
		return 0;
	limit.rlim_cur = wanted;
	if (limit.rlim_max < wanted)
		limit.rlim_max = wanted; /* granted to root only */
	if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
		return 0;
	fprintf(stderr,
		"sluice-bench: %" PRIu32 " connections need %llu file descriptors: ulimit -n\n",
		connections, (unsigned long long)wanted);
	return -EMFILE;
}
