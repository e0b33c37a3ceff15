#!/bin/sh
# Does the checker bite? Applies each deliberate bug of tests/sim/mutants to a copy of the tree, one at a time, builds
# the simulator, and runs seeds until one is found. Ends with 1 when a bug stays unseen, or can't be applied any more.
#
#   tests/sim/mutants.sh [-n SEEDS] [NAME...]      all of them, with at most 20000 seeds each

set -u
seeds=20000
if [ "${1:-}" = -n ]; then
	seeds=$2
	shift 2
fi
here=$PWD
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

cp -a Makefile lib daemon "$dir/"
mkdir -p "$dir/tests"
cp -a tests/sim "$dir/tests/"
cd "$dir" || exit 1
make -s -j"$(nproc)" BUILD=build sim-programs >log 2>&1 || { cat log; exit 1; }
if ! build/simulator -1 1000 >log; then
	echo "the daemon as it is breaks a promise:"
	cat log
	exit 1
fi

bad=0
found=0
# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(cd "$here/tests/sim/mutants" && ls -- *.patch)
for name in "$@"; do
	patch=$here/tests/sim/mutants/${name%.patch}.patch
	name=$(basename "$patch" .patch)
	if ! patch -s -p1 -F3 <"$patch" >log 2>&1; then
		echo "$name: does not apply"
		cat log
		bad=$((bad + 1))
		patch -s -R -f -p1 -F3 <"$patch" >/dev/null 2>&1
		continue
	fi
	if ! make -s BUILD=build sim-programs CFLAGS=-Wno-error >log 2>&1; then
		echo "$name: does not build"
		cat log
		bad=$((bad + 1))
	elif build/simulator -1 "$seeds" >log; then
		echo "$name: NOT FOUND in $seeds seeds"
		bad=$((bad + 1))
	else
		echo "$name: $(grep '^seed' log | sort -t ' ' -k 2n | head -n 1 | cut -c1-150)"
		found=$((found + 1))
	fi
	patch -s -R -p1 -F3 <"$patch"
	sed -n 's|^+++ b/\([^	]*\).*|\1|p' "$patch" | xargs touch
done
echo "$found found, $bad not"
[ "$bad" -eq 0 ]
