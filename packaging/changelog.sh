#!/bin/sh
# Prints CHANGELOG.md as Debian's tools read it (deb-changelog(5)), the newest version under the given name.
# Usage: packaging/changelog.sh VERSION
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C
maintainer=$(sed -n 's/^Maintainer: //p' packaging/control)
now=${SOURCE_DATE_EPOCH-$(packaging/epoch.sh)}
date=$(date --utc --date="@$now" '+%a, %d %b %Y %H:%M:%S +0000')

awk -v newest="$1" -v maintainer="$maintainer" -v date="$date" '
function flush(    words, count, i, line, indent) {
    count = split(item, words, " ")
    line = "  *"
    for (i = 1; i <= count; i++) {
        if (length(line) + 1 + length(words[i]) > 78) {
            print line
            line = "   "
        }
        line = line " " words[i]
    }
    if (count) print line
    item = ""
}
function close_version() {
    flush()
    if (version) printf "\n -- %s  %s\n", maintainer, date
}
/^## / {
    close_version()
    if (version) print ""
    # "## 1.2.3 (2027-01-31)"; a version that is not out yet bears the date of the commit.
    version = version ? $2 : newest
    if (match($0, /[0-9]+-[0-9]+-[0-9]+/)) {
        "date --utc --date=" substr($0, RSTART, RLENGTH) " \"+%a, %d %b %Y %H:%M:%S +0000\"" | getline date
    }
    printf "fieldbridge (%s) bookworm; urgency=medium\n\n", version
    next
}
!version { next }
/^- / { flush(); item = substr($0, 3); next }
/^  / { item = item " " $0; next }
/^$/ { flush(); next }
{ flush(); item = $0 }
END { close_version() }
' CHANGELOG.md
