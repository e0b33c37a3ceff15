/*
 * A process's CPU clock counts the time of all its threads in nanoseconds, also of those that have
 * ended and of io_uring's workers; the start time in /proc/PID/stat tells whether it is still the
 * same process. VmRSS is sampled. VmHWM is the peak since the process began: it says more than the
 * samples only when it has risen during the run, and then it is exact.
 */
#include "procstat.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int procstat_read(pid_t pid, const char *name, char *buf, size_t buf_max)
{
	char path[64];
	ssize_t got;
	int fd, error = 0;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	got = read(fd, buf, buf_max - 1);
	if (got < 0)
		error = -errno;
	buf[got < 0 ? 0 : got] = '\0';
	close(fd);
	return error;
}

static int procstat_read_cpu(pid_t pid, double *ret_seconds, uint64_t *ret_start_ticks)
{
	char buf[1024];
	unsigned long long start;
	struct timespec used;
	clockid_t clock;
	const char *fields;
	int error = procstat_read(pid, "stat", buf, sizeof(buf));

	if (error != 0)
		return error;
	/* The name in parentheses may itself hold spaces and parentheses. Behind it field 3
	 * follows; 22 is starttime. */
	fields = strrchr(buf, ')');
	if (fields == NULL || sscanf(fields + 1,
				      " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u"
				      " %*d %*d %*d %*d %*d %*d %llu",
				      &start) != 1)
		return -EPROTO;
	if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0)
		return -ESRCH;
	*ret_seconds = (double)used.tv_sec + (double)used.tv_nsec / 1e9;
	*ret_start_ticks = start;
	return 0;
}

static uint64_t procstat_read_kib(const char *status, const char *key)
{
	const char *line = strstr(status, key);
	unsigned long long kib = 0;

	if (line == NULL || sscanf(line + strlen(key), " %llu", &kib) != 1)
		return 0;
	return kib * 1024;
}

static int procstat_read_memory(pid_t pid, uint64_t *ret_rss_bytes, uint64_t *ret_hwm_bytes)
{
	char buf[4096];
	int error = procstat_read(pid, "status", buf, sizeof(buf));

	if (error != 0)
		return error;
	*ret_rss_bytes = procstat_read_kib(buf, "\nVmRSS:");
	*ret_hwm_bytes = procstat_read_kib(buf, "\nVmHWM:");
	return 0;
}

int procstat_start(struct procstat *s, pid_t pid)
{
	int error;

	*s = (struct procstat){.pid = pid};
	error = procstat_read_cpu(pid, &s->cpu_seconds_before, &s->start_ticks);
	if (error == 0)
		error = procstat_read_memory(pid, &s->rss_peak_bytes, &s->hwm_bytes_before);
	return error;
}

void procstat_sample(struct procstat *s)
{
	uint64_t rss_bytes, hwm_bytes;

	if (procstat_read_memory(s->pid, &rss_bytes, &hwm_bytes) != 0)
		return;
	if (hwm_bytes > s->hwm_bytes_before)
		rss_bytes = hwm_bytes;
	if (rss_bytes > s->rss_peak_bytes)
		s->rss_peak_bytes = rss_bytes;
}

uint64_t procstat_rss_bytes(pid_t pid)
{
	uint64_t rss_bytes, hwm_bytes;

	return procstat_read_memory(pid, &rss_bytes, &hwm_bytes) == 0 ? rss_bytes : 0;
}

void procstat_stop(struct procstat *s)
{
	double seconds;
	uint64_t start_ticks;

	procstat_sample(s);
	if (procstat_read_cpu(s->pid, &seconds, &start_ticks) != 0 ||
		start_ticks != s->start_ticks) {
		s->lost = true;
		return;
	}
	s->cpu_seconds = seconds - s->cpu_seconds_before;
}
