#!/bin/sh
# Runs the named parts of the tests on what is built in a directory, and ends with one line "N passed, N failed"
# that sums them up. Fails when anything failed, or when a part ran no test at all.
#
#   tests/check.sh BUILD unit|fuzz|sim|e2e...

set -u
build=$1
shift
passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fail() {
	echo "FAILED: $1"
	failed=$((failed + 1))
}

# A criterion program says how many tests it ran; one that dies before that has failed once.
unit_program() {
	name=$(basename "$1")
	timeout -k 5 120 "$1" >"$log" 2>&1 </dev/null
	status=$?
	counts=$(sed -n 's/.*Synthesis: Tested: \(.*\) | Passing: \(.*\) | Failing: \(.*\) | Crashing: \(.*\)$/\1 \2 \3 \4/p' \
		"$log" | sed 's/[^0-9 ]//g' | tail -n 1)
	# shellcheck disable=SC2086
	set -- ${counts:-0 0 0 0}
	bad=$(($3 + $4))
	# Criterion takes no notice of a test whose process ends with a leak.
	if grep -Eq '(ERROR|SUMMARY|WARNING): [A-Za-z]+Sanitizer|runtime error:' "$log"; then
		bad=$((bad + 1))
	fi
	if [ "$status" -ne 0 ] || [ "$1" -eq 0 ] || [ "$bad" -ne 0 ]; then
		cat "$log"
		echo "FAILED: $name (status $status)"
		[ "$bad" -ne 0 ] || bad=1
	else
		echo "$name: $2 passed"
	fi
	passed=$((passed + $2))
	failed=$((failed + bad))
}

run_unit() {
	for source in tests/unit/test_*.c; do
		[ -e "$source" ] || { fail "no unit tests"; return; }
		unit_program "$build/unit/$(basename "$source" .c)"
	done
}

# One test per entry: its whole corpus goes through without a crash.
run_fuzz() {
	for source in tests/fuzz/fuzz_*.c; do
		[ -e "$source" ] || { fail "no fuzz entries"; return; }
		name=$(basename "$source" .c)
		if timeout -k 5 120 "$build/fuzz/$name" "tests/corpus/${name#fuzz_}" >"$log" 2>&1 </dev/null; then
			echo "$name: $(tail -n 1 "$log")"
			passed=$((passed + 1))
		else
			cat "$log"
			fail "$name"
		fi
	done
}

# Two tests: the seeds that are kept, each twice, and so many others.
run_sim() {
	if timeout -k 5 300 tests/sim/run.sh "$build" 3000 >"$log" 2>&1 </dev/null; then
		cat "$log"
		passed=$((passed + 2))
	else
		cat "$log"
		fail "the simulator"
	fi
}

# The runner prints as it goes; its last line is its own sum.
run_e2e() {
	{ timeout -k 10 1800 "${PYTHON:-python3}" tests/run.py --build "$build" </dev/null 2>&1; echo "status $?"; } | tee "$log" |
		sed '/^status [0-9]*$/d'
	status=$(sed -n 's/^status //p' "$log" | tail -n 1)
	counts=$(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed.*/\1 \2/p' "$log" | tail -n 1)
	# shellcheck disable=SC2086
	set -- ${counts:-0 0}
	passed=$((passed + $1))
	failed=$((failed + $2))
	if [ $(($1 + $2)) -eq 0 ]; then
		fail "the end-to-end runner ran no test"
	elif [ "$status" -ne 0 ] && [ "$2" -eq 0 ]; then
		fail "the end-to-end runner (status $status)"
	fi
}

for part in "$@"; do
	echo "== $part"
	case $part in
	unit) run_unit ;;
	fuzz) run_fuzz ;;
	sim) run_sim ;;
	e2e) run_e2e ;;
	*) fail "there is no part $part" ;;
	esac
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
