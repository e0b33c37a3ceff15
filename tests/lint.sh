#!/bin/sh
# The house's limits, in what git tracks: lines of 100 columns (120 stop it: a comment may need a little more),
# files of 800 lines, functions of 70, no trailing blanks; then what cppcheck, mandoc and shellcheck say, where they are installed. clang-format is no judge here:
# version 14 can't keep columns of comments in headers and tables.

set -u
bad=0

sources=$(git ls-files '*.c' '*.h')
# Bytes that continue a character of UTF-8 take no column.
# shellcheck disable=SC2086
LC_ALL=C awk '
function width(line,  n, i, c) {
	n = 0
	gsub(/[\200-\277]/, "", line)
	for (i = 1; i <= length(line); i++) {
		c = substr(line, i, 1)
		n += c == "\t" ? 8 - n % 8 : 1
	}
	return n
}
function report(text) { print FILENAME ":" FNR ": " text; bad = 1 }
FNR == 1 { start = 0 }
width($0) > 120 { report("longer than 120 columns") }
/[ \t]$/ { report("blanks at the end") }
FNR == 801 { report("the file has more than 800 lines") }
/^{$/ { start = FNR }
/^}$/ && start { if (FNR - start - 1 > 70) report("a function of " FNR - start - 1 " lines"); start = 0 }
END { exit bad }
' $sources || bad=1

if command -v cppcheck >/dev/null; then
	# shellcheck disable=SC2046
	cppcheck --quiet --std=c11 --enable=warning,portability --suppress=varFuncNullUB --inline-suppr --error-exitcode=1 \
		--suppress=missingIncludeSystem -D_GNU_SOURCE -DSLUICE_VERSION='""' -Ilib -Idaemon \
		$(git ls-files 'lib/*.c' 'daemon/*.c' 'client/*.c' 'bench/*.c') || bad=1
else
	echo "cppcheck is not installed; left out"
fi
if command -v mandoc >/dev/null; then
	# shellcheck disable=SC2046
	mandoc -T lint -W warning $(git ls-files '*.1' '*.5' '*.8') || bad=1
else
	echo "mandoc is not installed; left out"
fi
if command -v shellcheck >/dev/null; then
	# shellcheck disable=SC2046
	shellcheck -S warning .ci/run $(git ls-files '*.sh') || bad=1
else
	echo "shellcheck is not installed; left out"
fi
[ "$bad" -eq 0 ] && echo "lint: clean"
exit "$bad"
