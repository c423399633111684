#!/bin/sh
# Installs a package with dpkg, upgrades it to another, removes, installs again and purges it, in a throw-away overlay of
# this system in which no service manager runs. What systemd has to do with it is packaging/boot-test.sh's part.
# Usage: packaging/test-install.sh OLD.deb NEW.deb          as root, where Linux lets root mount an overlay
set -eu
old=$(realpath "$1") new=$(realpath "$2")

if [ -z "${OVERLAY-}" ]; then
    OVERLAY=$(mktemp -d)
    trap 'rmdir "$OVERLAY"' EXIT
    export OVERLAY
    # The mounts end with it.
    unshare --mount --propagation private "$0" "$old" "$new"
    exit
fi
export LC_ALL=C.UTF-8
base=$OVERLAY
mount -t tmpfs tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" overlay "$base/root"
root=$base/root
for folder in proc dev sys; do
    mount --rbind "/$folder" "$root/$folder"
done
# Neither a running systemd nor anything of an earlier installation is to be seen.
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
cp "$old" "$root/tmp/old.deb"
cp "$new" "$root/tmp/new.deb"

fail() {
    echo "packaging/test-install.sh: $1" >&2
    exit 1
}
inside() {
    chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@" </dev/null
}
quietly() { # what it prints is shown if it fails
    inside "$@" >"$base/said" 2>&1 || fail "$* failed: $(cat "$base/said")"
}
mode() {
    inside stat --format='%a %U:%G' "$1"
}
# Triggers are other packages' (man-db takes its time).
wants=/etc/systemd/system/multi-user.target.wants/fieldbridge.service
config=/etc/fieldbridge/fieldbridge.toml
enabled() { [ -L "$root$wants" ]; }

# Of what the package or systemd's helpers may make; dpkg keeps its own backups and logs.
everything() {
    inside find /etc /usr /var -xdev -not -path '/var/log/*' -not -path '/var/cache/*' -not -path '/var/backups/*' |
        grep -vE '^/(etc/(passwd|group|shadow|gshadow|subuid|subgid)-|var/lib/dpkg/[^/]*)$' | sort
}

[ ! -e "$root$config" ] || fail "fieldbridge is installed on this machine already"
everything >"$base/before"
quietly dpkg --no-triggers --install /tmp/old.deb
[ "$(inside id -nG fieldbridge)" = "fieldbridge dialout" ] || fail "the user is in $(inside id -nG fieldbridge)"
[ "$(mode /etc/fieldbridge) $(mode /etc/fieldbridge/keys)" = "750 root:fieldbridge 750 root:fieldbridge" ] || fail "folders"
enabled || fail "the service is not enabled"
grep -q usbserial "$root/usr/lib/modules-load.d/fieldbridge.conf" || fail "no drivers are loaded at boot"

# As its user would.
echo "# of my own" >>"$root$config"
mkdir -p "$root/var/lib/fieldbridge"
echo row >"$root/var/lib/fieldbridge/ledger.db"
echo key >"$root/etc/fieldbridge/keys/pump-7.key"
echo "# of my own" >"$root/etc/fieldbridge/conf.d/pump-7.toml"
inside chown -R fieldbridge:fieldbridge /var/lib/fieldbridge

quietly dpkg --no-triggers --force-confdef --force-confold --install /tmp/new.deb
version=$(inside dpkg-query --show --showformat='${Version}' fieldbridge)
[ "$version" = "$(dpkg-deb --field "$new" Version)" ] || fail "$version is installed"
grep -q "of my own" "$root$config" || fail "the upgrade has taken the configuration"
[ "$(mode /etc/fieldbridge/keys/pump-7.key)" = "640 root:fieldbridge" ] || fail "the service can't read the key"
enabled || fail "the service is not enabled any more"

# A service that a person has disabled stays so.
quietly systemctl disable fieldbridge.service
quietly dpkg --no-triggers --force-confold --install /tmp/old.deb
! enabled || fail "an installation has enabled the service against a person's will"
quietly systemctl enable fieldbridge.service

quietly dpkg --no-triggers --remove fieldbridge
[ ! -e "$root/usr/bin/fieldbridge" ] || fail "the program is there still"
for kept in "$config" /etc/fieldbridge/conf.d/pump-7.toml /etc/fieldbridge/keys/pump-7.key /var/lib/fieldbridge/ledger.db; do
    [ -e "$root$kept" ] || fail "remove has taken $kept"
done
inside id fieldbridge >/dev/null || fail "remove has taken the user, whose files are there still"

quietly dpkg --no-triggers --install /tmp/new.deb
grep -q "of my own" "$root$config" || fail "the second installation has taken the configuration"
enabled || fail "the service is not enabled after the second installation"
[ ! -e "$root/etc/systemd/system/fieldbridge.service" ] || fail "the service is masked after the second installation"

quietly dpkg --no-triggers --purge fieldbridge
everything >"$base/after"
left=$(comm -13 "$base/before" "$base/after")
[ -z "$left" ] || fail "purge has left $left"
for account in passwd group; do
    ! inside getent "$account" fieldbridge >/dev/null || fail "purge has left the $account entry"
done
[ "$(inside getent group dialout)" = "$(getent group dialout)" ] || fail "purge has left a member of dialout"
echo "installed, upgraded, disabled, removed, installed again and purged" >&2
