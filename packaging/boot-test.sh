#!/bin/sh
# The life of the package on a booted Debian with systemd as process 1: installed from a repository, configured, commanded,
# upgraded by it with commands in flight, kept from going back too far, reloaded, killed, stuck, removed, installed again,
# purged. One line a check. Status: 0, 1 if one failed,
# 77 if this machine can't boot the system, so that nothing was checked.
# Usage: packaging/boot-test.sh [PACKAGE]     as root; without a package that of `make deb`. `make boot-test` does both
#
#   SUITE=trixie            boots that Debian in place of bookworm
#   PREVIOUS=FILE.deb       begins with that package in place of the one that was built
#   FIELDBRIDGE_CACHE=DIR   keeps the base systems there; ~/.cache/fieldbridge if not set
#
# It boots in systemd-nspawn on an overlay of the base system, with a network of its own, in which the simulated hub and
# packaging/boot-peripherals.py are. It does not forbid to ask for the clock's state, which nspawn would by itself, so that
# it is seen who does. Not enforced there are DeviceAllow= and memory limits, which want a kernel of their own:
# packaging/vm-test.py.
set -eu
export LC_ALL=C.UTF-8
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
SUITE=${SUITE:-bookworm}
arch=$(dpkg --print-architecture)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
built=$(realpath "${1:-target/deb/fieldbridge_${version}_$arch.deb}")
previous=$(realpath "${PREVIOUS:-$built}")

# -- Outside: what is needed, and what must not stay behind.
if [ -z "${BOOT_TEST-}" ]; then
    [ "$(id -u)" = 0 ] || { echo "packaging/boot-test.sh needs root" >&2; exit 77; }
    unshare --mount true || exit 77
    scripts/setup.sh boot
    base=$(packaging/base-system.sh "$SUITE") || exit 77
    BOOT_TEST=$(mktemp -d)
    export BOOT_TEST
    # The control groups that the booted system makes stay below one of ours, and are removed with it.
    groups=""
    for top in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
        if [ -e "$top/cgroup.procs" ] && mkdir "$top/fieldbridge-boot-$$" 2>/dev/null; then
            groups="$groups $top/fieldbridge-boot-$$"
        fi
    done
    clean() {
        for group in $groups; do
            find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null | while read -r left; do
                kill -9 "$left" 2>/dev/null || true
            done
            # A process that was killed is gone a little later.
            for _ in 1 2 3 4 5 6 7 8 9 10; do
                find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
                [ -d "$group" ] || break
                sleep 0.2
            done
            [ ! -d "$group" ] || echo "packaging/boot-test.sh: $group stays behind" >&2
        done
        rm -rf "$BOOT_TEST"
    }
    trap clean EXIT
    trap 'exit 130' INT TERM
    status=0
    # shellcheck disable=SC2016
    BASE=$base sh -c 'for group in '"$groups"'; do echo $$ >"$group/cgroup.procs"; done
        exec unshare --mount --propagation private "$0" "$1"' "$here/boot-test.sh" "$built" </dev/null || status=$?
    exit "$status"
fi

# -- Inside the mount namespace: packages, tree, boot.
work=$BOOT_TEST
mkdir -p /run/systemd
mount -t tmpfs tmpfs "$work" && mount -t tmpfs tmpfs /run/systemd || exit 77
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay -o "lowerdir=$BASE,upperdir=$work/upper,workdir=$work/work" overlay "$work/root" || exit 77
root=$work/root
began=$(date +%s)
passed=0 failed=0

old_version=$(dpkg-deb --field "$previous" Version) new_version=$(dpkg-deb --field "$built" Version)+next
# What was built, under a newer number, and with another text in the file that its user edits.
dpkg-deb --raw-extract "$built" "$work/next"
sed -i "s/^Version: .*/Version: $new_version/" "$work/next/DEBIAN/control"
echo "# of version $new_version" >>"$work/next/etc/fieldbridge/fieldbridge.toml"
next=$root/root/fieldbridge_${new_version}_$arch.deb
dpkg-deb --root-owner-group -Znone --build "$work/next" "$next" >/dev/null
# And under an older one, as of a program that knows one version of the ledger less.
older_version=$(dpkg-deb --field "$built" Version)~older
sed -i "s/^Version: .*/Version: $older_version/" "$work/next/DEBIAN/control"
sed -i 's/^schema=\(.*\)$/schema=$((\1 - 1))/' "$work/next/DEBIAN/preinst"
dpkg-deb --root-owner-group -Znone --build "$work/next" "$work/older.deb" >/dev/null
# They come from a repository. What is published later is signed by the same key.
export REPO_URL=http://127.0.0.1:8099 GNUPGHOME="$work/gnupg" REPO_KEY=boot-test
mkdir -m 700 "$GNUPGHOME"
gpg --batch --quiet --passphrase '' --quick-generate-key "$REPO_KEY" ed25519 sign never 2>"$work/said" ||
    { cat "$work/said"; exit 1; }
publish() { packaging/repo.sh "$root/srv/repo" "$@"; }
publish "$previous" "$work/older.deb" >"$work/said" 2>&1 || { cat "$work/said"; exit 1; }
# Debian's own servers can't be reached from there.
mv "$root/etc/apt/sources.list" "$root/etc/apt/sources.list.away"
# The hub is the same program's and stays what it is when the package is upgraded or removed.
dpkg-deb --fsys-tarfile "$built" | tar --extract --to-stdout ./usr/bin/fieldbridge >"$root/srv/hub"
chmod 755 "$root/srv/hub"
cp packaging/boot-peripherals.py "$root/srv/peripherals"
echo fieldbridge-boot >"$root/etc/hostname"

SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --directory="$root" --boot --keep-unit --register=no \
    --private-network --system-call-filter=@clock --machine="fieldbridge-boot-$$" --console=pipe </dev/null >"$work/console" 2>&1 &
nspawn=$!
leader=""

inside() {
    nsenter -t "$leader" --mount --uts --ipc --net --pid --cgroup --root --wd \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive "$@"
}
at() { # a line of shell, as a person would type it there
    inside sh -c "cd /root && $1" </dev/null
}
eventually() { # seconds, command...; what it said last is shown
    end=$(($(date +%s) + $1))
    shift
    until "$@" >"$work/tried" 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || { cat "$work/tried"; return 1; }
        sleep 0.2
    done
}
check() { # what is true, command...
    what=$1
    shift
    if "$@" >"$work/said" 2>&1; then
        passed=$((passed + 1))
        echo "ok    $what"
    else
        failed=$((failed + 1))
        echo "FAIL  $what"
        sed 's/^/      | /' "$work/said"
        echo "      journal:"
        at "journalctl -u fieldbridge --no-pager --lines=25" 2>&1 | sed 's/^/      | /'
        # What comes later builds on it.
        [ "$failed" -lt 3 ] || exit 1
    fi
}
give_up() {
    echo "FAIL  $1"
    cat "$work/console"
    exit 1
}
end() {
    exec 3>&- 4<&- || true
    gpgconf --homedir "$GNUPGHOME" --kill all 2>/dev/null || true
    # Nothing in it is to be kept, so that it need not be shut down: with process 1 everything ends.
    [ -z "$leader" ] || kill -9 "$leader" 2>/dev/null || true
    eventually 10 gone "$nspawn" || kill -9 "$nspawn" || true
}
gone() { [ ! -e "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }
exec 3>/dev/null 4</dev/null
trap end EXIT
trap 'exit 130' INT TERM

has_booted() {
    leader=$(awk '{ print $1 }' "/proc/$nspawn/task/$nspawn/children" 2>/dev/null)
    [ -n "$leader" ] || return 1
    case "$(at "systemctl is-system-running" 2>/dev/null)" in
    running | degraded) ;;
    *) return 1 ;;
    esac
}
eventually 120 has_booted || { cat "$work/console"; echo "$SUITE does not boot here" >&2; exit 77; }
echo "== $(. "$BASE/etc/os-release" && echo "$PRETTY_NAME"), $(at "systemctl --version" | head -n 1), booted after $(($(date +%s) - began)) s"

# -- The site: a hub, and two peripherals that count.
hub_host=contoso.azure-devices.net
port=/dev/serial/by-id/usb-boot_test-if00-port0
mkfifo "$work/hub.in" "$work/hub.out"
inside /srv/hub demo hub --bind 127.0.0.1:8883 --host "$hub_host" --dir /srv <"$work/hub.in" >"$work/hub.out" 2>"$work/hub.err" &
exec 3>"$work/hub.in" 4<"$work/hub.out"
read -r answer <&4 || give_up "the hub starts: $(cat "$work/hub.err")"
hub() { # a command; its answer is in $answer
    echo "$1" >&3
    read -r answer <&4
    case "$answer" in
    *'"ok":true'*) ;;
    *) echo "$1: $answer"; return 1 ;;
    esac
}
key() { # of a new device
    hub "{\"op\":\"addDevice\",\"device\":\"$1\"}"
    echo "$answer" | sed 's/.*"key":"\([^"]*\)".*/\1/'
}
: >"$root/srv/effects"
inside python3 /srv/peripherals /srv/effects "$port" >"$work/peripherals" 2>&1 </dev/null &
inside python3 -m http.server --bind 127.0.0.1 --directory /srv/repo 8099 >"$work/served" 2>&1 </dev/null &
eventually 10 grep -q ready "$work/peripherals" || give_up "the peripherals start: $(cat "$work/peripherals")"
is_served() { inside python3 -c 'import socket; socket.create_connection(("127.0.0.1", 8099)).close()'; }
eventually 30 is_served || give_up "the repository is not served: $(cat "$work/served")"

# -- What can be asked.
property() { at "systemctl show --property=$1 --value fieldbridge"; }
is() { # property, value
    found=$(property "$1")
    [ "$found" = "$2" ] || { echo "$1 is $found and not $2"; return 1; }
}
journal_has() { # text; since the mark, if there is one
    at "journalctl -u fieldbridge --no-pager --output=cat" | tail -n "+${mark:-1}" | grep -qF -- "$1" ||
        { echo "the journal does not say: $1"; return 1; }
}
mark_journal() { mark=$(($(at "journalctl -u fieldbridge --no-pager --output=cat" | wc -l) + 1)); }
effects() { # how often a line was carried out
    grep -cx -- "$1" "$root/srv/effects" || true
}
is_connected() { # so many identities
    is ActiveState active && at "fieldbridge status --json" >"$work/status" &&
        grep -q "\"connected\":$1,.*\"identities\":$1\b" "$work/status" || { cat "$work/status"; return 1; }
}
send() { # device, id, command, value
    hub "{\"op\":\"send\",\"device\":\"$1\",\"messageId\":\"$2\",\"body\":{\"command\":\"$3\",\"value\":$4},\"ack\":\"full\"}"
}
sent=0
. packaging/boot-walk.sh

echo "== $passed ok, $failed failed, $(($(date +%s) - began)) s"
[ "$failed" = 0 ]
