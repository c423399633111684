#!/bin/sh
# Packs a program for this machine and looks at the package: the same bytes each time, lintian, what the installed files
# do, the user and the folders that it makes, and what dpkg makes of it (packaging/test-install.sh). Nothing is installed on
# this machine.
# Usage: packaging/test-deb.sh [PROGRAM]     target/plain/fieldbridge if none is named
#
# As another user than root the parts that make a user are left out, and the script says so.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh lint
arch=$(dpkg --print-architecture)
program=${1-target/plain/fieldbridge}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

fail() {
    echo "packaging/test-deb.sh: $1" >&2
    exit 1
}

echo "== packed twice" >&2
deb=$(packaging/pack.sh "$arch" "$program" "$work/one" 2>/dev/null)
again=$(umask 077 && TZ=Asia/Tokyo LC_ALL=C.UTF-8 packaging/pack.sh "$arch" "$program" "$work/two" 2>/dev/null)
cmp "$deb" "$again"

echo "== lintian" >&2
as_root=""
[ "$(id -u)" != 0 ] || as_root=--allow-root
# shellcheck disable=SC2086
lintian $as_root --fail-on error,warning "$deb"

echo "== the installed configuration" >&2
dpkg-deb --extract "$deb" "$root"
[ "$(dpkg-deb --info "$deb" conffiles)" = /etc/fieldbridge/fieldbridge.toml ] || fail "the conffiles are others"
installed=$root/usr/bin/fieldbridge
host_line=$(grep -n "^host = " "$root/etc/fieldbridge/fieldbridge.toml" | cut -d: -f1)
for command in check run; do
    status=0
    "$installed" "$command" --config "$root/etc/fieldbridge/fieldbridge.toml" >"$work/said" 2>&1 || status=$?
    [ "$status" = 78 ] || fail "$command ends with $status as installed: $(cat "$work/said")"
    for word in "$root/etc/fieldbridge/fieldbridge.toml:$host_line:1: hub.host: " "systemctl restart fieldbridge"; do
        grep -qF "$word" "$work/said" || fail "$command does not say $word: $(cat "$work/said")"
    done
done
grep -q FIELDBRIDGE_LOG "$installed" || fail "the program is another"
for word in FIELDBRIDGE_CRASH_AT FIELDBRIDGE_STICK_AT; do
    ! grep -q "$word" "$installed" || fail "the program can be made to fail: it has the feature proof"
done
[ "$("$installed" --version)" = "fieldbridge $(dpkg-deb --field "$deb" Version)" ] || fail "the version is another"

echo "== the unit" >&2
systemd-analyze security --offline=true --no-pager --threshold=15 "$root/usr/lib/systemd/system/fieldbridge.service" >"$work/said" 2>&1 ||
    fail "the sandbox has holes: $(cat "$work/said")"

echo "== the documents" >&2
doc=$root/usr/share/doc/fieldbridge
for page in "$doc"/*.md; do
    for link in $(grep -o '](\([^)# ]*\)[^)]*)' "$page" | sed 's/^](\([^)#]*\).*/\1/'); do
        case "$link" in
        http://* | https://*) ;;
        *) [ -e "$doc/$link" ] || fail "$(basename "$page") leads to $link, which is not in the package" ;;
        esac
    done
done
[ -e "$doc/SECURITY.md" ] || fail "a page is missing"
for page in 1:fieldbridge 5:fieldbridge.toml; do
    man --manpath="$root/usr/share/man" "${page%%:*}" "${page#*:}" >"$work/said" || fail "no manual page $page"
done
for path in $(grep -oE '/usr/share/doc/fieldbridge/[A-Za-z0-9./-]*' "$root/etc/fieldbridge/fieldbridge.toml" "$root"/usr/lib/*/*.conf \
    "$root/usr/lib/systemd/system/fieldbridge.service" packaging/man/*.in | sed 's/^[^:]*://; s/\.$//'); do
    [ -e "$root$path" ] || fail "$path is named and is not in the package"
done

echo "== the user and the folders" >&2
if [ "$(id -u)" = 0 ]; then
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\ndialout:x:20:\n' >"$root/etc/group"
    mkdir "$root/etc/fieldbridge/keys"
    (umask 077 && echo key >"$root/etc/fieldbridge/keys/pump-7.key")
    # As postinst calls them.
    systemd-sysusers --root="$root" fieldbridge.conf
    systemd-tmpfiles --root="$root" --create fieldbridge.conf
    grep -q '^dialout:.*:fieldbridge$' "$root/etc/group" || fail "fieldbridge may not use serial ports"
    gid=$(sed -n 's/^fieldbridge:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/group")
    grep -q "^fieldbridge:[^:]*:[0-9]*:$gid:.*:/usr/sbin/nologin$" "$root/etc/passwd" || fail "the user is not as it should be"
    for entry in "750 ." "750 conf.d" "750 keys" "640 keys/pump-7.key"; do
        found=$(stat --format='%a %u:%g' "$root/etc/fieldbridge/${entry#* }")
        [ "$found" = "${entry%% *} 0:$gid" ] || fail "/etc/fieldbridge/${entry#* } is $found"
    done
else
    echo "!! LEFT OUT: the user and the folders need root" >&2
fi

echo "== installed, upgraded, removed and purged" >&2
if unshare --mount true 2>/dev/null; then
    next=$(DEB_VERSION="$(dpkg-deb --field "$deb" Version)+next" packaging/pack.sh "$arch" "$program" "$work/next" 2>/dev/null)
    packaging/test-install.sh "$deb" "$next"
else
    echo "!! LEFT OUT: the installation needs root, and a mount namespace" >&2
fi
echo "the package is good: $(stat --format=%s "$deb") bytes"
