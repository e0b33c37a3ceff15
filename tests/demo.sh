#!/bin/bash
# What `make demo` runs: a daemon of its own on a free port, real files from /usr over MQTT into its export
# directory, and a table that compares both sides. Leaves nothing behind. Exit status 1 when anything differs.
set -eu
export LC_ALL=C.UTF-8

build=$(realpath "${1:-build}")
dir=$(mktemp -d "${TMPDIR:-/tmp}/sluice-demo-XXXXXX")
daemon=

cleanup() {
	if [ -n "$daemon" ]; then
		kill "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
	fi
	rm -rf "$dir"
}
trap cleanup EXIT

fail() {
	echo "demo: $*" >&2
	echo "--- the daemon's log" >&2
	tail -n 20 "$dir/log" >&2 || true
	exit 1
}

say() {
	if [ -t 1 ]; then
		printf '\n\033[1m$ %s\033[0m\n' "$*"
	else
		printf '\n$ %s\n' "$*"
	fi
}

# Fills the array `files`: plain names, each different; the largest below 64 MiB, and some of all sizes.
choose_files() {
	local all="$dir/all" count
	find /usr/bin /usr/lib /usr/share/doc /usr/share/perl /usr/share/zoneinfo /usr/include -xdev -type f \
		-readable -size +0 -size -64M -printf '%s\t%f\t%p\n' 2>/dev/null |
		grep -P '^\d+\t[A-Za-z0-9_][A-Za-z0-9._+-]*\t' | sort -n | awk -F'\t' '!seen[$2]++' >"$all"
	count=$(wc -l <"$all")
	[ "$count" -ge 50 ] || fail "fewer than 50 files under /usr"
	mapfile -t files < <({ awk -v n="$count" 'NR % int(n / 36) == 1' "$all" | head -n 36
		tail -n 1 "$all"; } | cut -f 3 | awk '!seen[$0]++')
	: >"$dir/empty.txt"
	files+=("$dir/empty.txt")
}

start_daemon() {
	"$build/sluiced" --data "$dir/data" --listen 127.0.0.1:0 2>"$dir/log" &
	daemon=$!
	for _ in $(seq 500); do
		port=$(sed -n 's/.* info listening addr=127\.0\.0\.1:\([0-9]*\)$/\1/p' "$dir/log" | head -n 1)
		[ -z "$port" ] || return 0
		kill -0 "$daemon" 2>/dev/null || fail "the daemon did not start"
		sleep 0.02
	done
	fail "the daemon does not listen"
}

# One file by the hands of a stranger: any MQTT client will do.
send_with_mosquitto() {
	local file=$1 size to
	size=$(stat -c %s "$file")
	to=(mosquitto_pub -h 127.0.0.1 -p "$port" -i by-hand -V mqttv5 -q 1)
	say "mosquitto_pub -q 1 -t '\$file/f1/init' -m '{\"name\":\"$(basename "$file")\"}'   (then /0, then /fin/$size)"
	"${to[@]}" -t '$file/f1/init' -m "{\"name\":\"$(basename "$file")\"}"
	"${to[@]}" -t '$file/f1/0' -f "$file"
	"${to[@]}" -t "\$file/f1/fin/$size" -n
}

# A row of the table for one file. Counts the ones that differ.
compare() {
	local client=$1 file=$2 sent got path
	path=$(find "$dir/data/export/$client" -name "$(basename "$file")" -type f 2>/dev/null | head -n 2)
	sent=$(sha256sum <"$file" | cut -c 1-16)
	got=missing
	if [ -n "$path" ] && [ "$(wc -l <<<"$path")" = 1 ]; then
		got=$(sha256sum <"$path" | cut -c 1-16)
	fi
	bytes=$((bytes + $(stat -c %s "$file")))
	count=$((count + 1))
	verdict=same
	if [ "$sent" != "$got" ]; then
		verdict=DIFFERS
		different=$((different + 1))
	fi
	printf '%-10s %-34.34s %10d  %-16s  %-16s  %s\n' "$client" "$(basename "$file")" \
		"$(stat -c %s "$file")" "$sent" "$got" "$verdict"
}

command -v mosquitto_pub >/dev/null || fail "mosquitto_pub is missing: apt-get install mosquitto-clients"
choose_files
by_hand=$(find /usr/share/common-licenses /usr/share/doc -type f -name 'GPL-3' -o -type f -name copyright |
	head -n 1)

say "build/sluiced --data $dir/data --listen 127.0.0.1:0"
start_daemon
echo "listening on 127.0.0.1:$port"
say "build/sluice send -p $port -i demo …   (${#files[@]} files of /usr)"
began=$(date +%s%N)
timeout 60 "$build/sluice" send -h 127.0.0.1 -p "$port" -i demo "${files[@]}" || fail "sluice send failed"
took_ms=$((($(date +%s%N) - began) / 1000000))
send_with_mosquitto "$by_hand" || fail "mosquitto_pub failed"

bytes=0 count=0 different=0
printf '\n%-10s %-34s %10s  %-16s  %-16s  %s\n' client file bytes 'sha256 sent' 'sha256 exported' ''
for file in "${files[@]}"; do
	compare demo "$file"
done
compare by-hand "$by_hand"
exported=$(find "$dir/data/export" -type f ! -name '*.manifest.json' | wc -l)
staged=$(find "$dir/data/staging" -type f | wc -l)

kill "$daemon"
status=0
wait "$daemon" || status=$?
daemon=
printf '\n%d files sent, %d exported, %d compared, %d different; %d bytes in %d ms; %d left in staging; ' \
	"$count" "$exported" "$count" "$different" "$bytes" "$took_ms" "$staged"
printf 'the daemon ended with %d\n' "$status"
[ "$different" = 0 ] && [ "$exported" = "$count" ] && [ "$staged" = 0 ] && [ "$status" = 0 ] ||
	fail "sent and exported differ"
