#!/bin/sh
# Measures the daemon with sluice-bench on this machine: starts it on a free port, with its data in a directory of
# its own, runs four loads one after the other, and stops it.
#
#   tests/bench.sh BUILD [DIRECTORY]      the data goes to DIRECTORY, BUILD/bench by default: 5 GiB

set -eu
build=$1
dir=${2:-$build/bench}
mkdir -p "$dir"
dir=$(mktemp -d "$dir/run.XXXXXX")
log=$dir/log
"$build/sluiced" --data "$dir/data" --listen 127.0.0.1:0 2>"$log" &
pid=$!
stop() {
	kill "$pid" 2>/dev/null && wait "$pid" || :
	rm -rf "$dir"
}
trap stop EXIT
trap 'exit 1' INT TERM

port=
for _ in $(seq 100); do
	port=$(sed -n 's/^[^ ]* info listening addr=127\.0\.0\.1:\([0-9]*\)$/\1/p' "$log")
	[ -z "$port" ] || break
	kill -0 "$pid" 2>/dev/null || break
	sleep 0.1
done
if [ -z "$port" ]; then
	cat "$log"
	echo "the daemon did not start; its log is above" >&2
	exit 1
fi

bad=0
load() {
	echo
	echo "== $1"
	shift
	"$build/sluice-bench" ingest --host 127.0.0.1 --port "$port" --pid "$pid" "$@" || bad=1
	# The next load is not to wait for the disk because of this one.
	rm -rf "$dir/data/export"/*
	sync
}
load "one file of 1 GiB, segments of 256 KiB" --connections 1 --size 1G --segment 256K
load "64 files of 16 MiB over 16 connections, segments of 256 KiB" \
	--connections 16 --files 64 --size 16M --segment 256K
load "the same, segments of 64 KiB" --connections 16 --files 64 --size 16M --segment 64K
load "the same, 256 KiB, a checksum per segment and at fin" \
	--connections 16 --files 64 --size 16M --segment 256K --checksum segment
exit "$bad"
