/*
 * The export is read in blocks and compared with the content as it is made again, never with a
 * copy. Only files whose fin succeeded are looked at: the others have failed already.
 */
#include "verify.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meta.h"
#include "names.h"

enum { VERIFY_BLOCK_BYTES = 128 << 10 };

/* Where the export of a file is, as the daemon's plain layout has it. */
static void verify_path(
	const struct fleet *f, const char *dir, uint32_t file_idx, char path[PATH_MAX])
{
	char clientid[PEER_CLIENTID_MAX + 1], fileid[SOURCE_FILEID_MAX + 1],
		name[META_NAME_MAX + 1];
	char client_dir[NAMES_ID_MAX + 1], file_dir[NAMES_ID_MAX + 1],
		file_name[NAMES_FILE_MAX + 1];

	peer_clientid(&f->peers[file_idx % f->peers_count], clientid);
	source_fileid(f->source, file_idx, fileid);
	source_name(f->source, file_idx, name);
	names_escape_id(clientid, strlen(clientid), client_dir);
	names_escape_id(fileid, strlen(fileid), file_dir);
	names_escape_file(name, strlen(name), file_name);
	snprintf(path, PATH_MAX, "%s/%s/%s/%s", dir, client_dir, file_dir, file_name);
}

/* Is the block right? *off is moved to its end, or to the first wrong byte. */
static bool verify_block(const struct source *s, uint32_t file_idx, const uint8_t *block,
	size_t bytes, uint64_t *off)
{
	size_t done = 0;

	while (done < bytes) {
		uint8_t stamp[SOURCE_STAMP_BYTES];
		const uint8_t *wanted;
		size_t span = source_span(s, file_idx, *off, bytes - done, stamp, &wanted);

		if (memcmp(block + done, wanted, span) != 0) {
			for (size_t i = 0; block[done + i] == wanted[i]; i++)
				(*off)++;
			return false;
		}
		done += span;
		*off += span;
	}
	return true;
}

static bool verify_content(struct fleet *f, uint32_t file_idx, const char *path, int fd)
{
	uint64_t bytes = f->source->files[file_idx].bytes, off = 0;
	uint8_t block[VERIFY_BLOCK_BYTES];

	while (off < bytes) {
		ssize_t got = pread(fd, block, sizeof(block), (off_t)off);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			tally_file_failed(f->tally, file_idx, "%s: %s", path,
				got < 0 ? strerror(errno) : "it ends too early");
			return false;
		}
		if ((uint64_t)got > bytes - off)
			got = (ssize_t)(bytes - off);
		if (!verify_block(f->source, file_idx, block, (size_t)got, &off)) {
			tally_file_failed(f->tally, file_idx,
				"%s: differs from what was sent at byte %" PRIu64, path, off);
			return false;
		}
	}
	return true;
}

static bool verify_file(struct fleet *f, const char *dir, uint32_t file_idx)
{
	char path[PATH_MAX];
	struct stat st;
	int fd, error = source_open(f->source, file_idx);
	bool is_right = false;

	verify_path(f, dir, file_idx, path);
	if (error != 0) {
		tally_file_failed(f->tally, file_idx, "%s: %s", f->source->files[file_idx].path,
			strerror(-error));
		return false;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0)
		tally_file_failed(f->tally, file_idx, "%s: %s", path, strerror(errno));
	else if ((uint64_t)st.st_size != f->source->files[file_idx].bytes)
		tally_file_failed(f->tally, file_idx, "%s: has %jd bytes, %" PRIu64 " were sent",
			path, (intmax_t)st.st_size, f->source->files[file_idx].bytes);
	else
		is_right = verify_content(f, file_idx, path, fd);
	if (fd >= 0)
		close(fd);
	source_close(f->source, file_idx);
	return is_right;
}

uint32_t verify_exports(struct fleet *f, const char *dir)
{
	uint32_t right = 0;

	for (uint32_t i = 0; i < f->source->files_count; i++) {
		if (f->tally->verdicts[i] == TALLY_OK && verify_file(f, dir, i))
			right++;
	}
	return right;
}
