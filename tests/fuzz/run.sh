#!/bin/sh
# Fuzzes every entry for so many seconds, one after the other, from its corpus. What libFuzzer adds goes to
# BUILD/new/ENTRY, what crashes to BUILD/found/.
#
#   tests/fuzz/run.sh BUILD SECONDS

set -u
build=$1
seconds=$2
bad=0
mkdir -p "$build/found"
for source in tests/fuzz/fuzz_*.c; do
	name=$(basename "$source" .c)
	corpus=tests/corpus/${name#fuzz_}
	mkdir -p "$build/new/$name"
	echo "== $name"
	"$build/fuzz/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
		-print_final_stats=1 -artifact_prefix="$build/found/$name-" "$build/new/$name" "$corpus" ||
		bad=$((bad + 1))
done
echo "$bad entries with findings in $build/found"
[ "$bad" -eq 0 ]
