#!/bin/sh
# Runs the kept seeds, each twice, then so many others, on all processors. Of the first seed that breaks a promise
# the whole trace is written beside the program, and its end shown.
#
#   tests/sim/run.sh BUILD SEEDS [FIRST]

set -u
build=$1
seeds=$2
first=${3:-1}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

finish() {
	cat "$log"
	seed=$(sed -n 's/^seed \([0-9]*\): .*/\1/p' "$log" | head -n 1)
	[ -n "$seed" ] || exit 1
	"$build/simulator" -t "$seed" >"$build/sim-$seed.trace" 2>&1
	echo "the end of the trace of seed $seed, all of which is in $build/sim-$seed.trace:"
	tail -n 60 "$build/sim-$seed.trace" | cut -c1-200
	exit 1
}

"$build/simulator" -2 -f tests/sim/seeds >"$log" 2>&1 || finish
sed 's/^/kept: /' "$log"
"$build/simulator" -s "$first" "$seeds" >"$log" 2>&1 || finish
cat "$log"
