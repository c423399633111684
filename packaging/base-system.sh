#!/bin/sh
# Makes a small Debian for the tests that boot one, unless it is there, and prints its folder. It is kept between runs and
# only read. Usage: packaging/base-system.sh SUITE [ARCH]     as root; another ARCH than this machine's wants its programs to
# run here
#
#   FIELDBRIDGE_CACHE=DIR   keeps it there; ~/.cache/fieldbridge if not set
set -eu
suite=$1
own=$(dpkg --print-architecture)
arch=${2:-$own}
name=$suite
[ "$arch" = "$own" ] || name=$suite-$arch
base=${FIELDBRIDGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fieldbridge}/$name-1
if [ ! -d "$base" ]; then
    # Where this machine has its own packages from.
    mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk -v own="$(. /etc/os-release && echo "$VERSION_CODENAME")" '$1 == own { print $2; exit }')
    rm -rf "$base.part"
    mkdir -p "$base.part"
    echo "== the base system $name" >&2
    debootstrap --variant=minbase --arch="$arch" \
        --include=systemd,systemd-sysv,systemd-timesyncd,dbus,ca-certificates,openssl,python3 "$suite" "$base.part" "$mirror" \
        >"$base.log" 2>&1 || { tail -n 20 "$base.log" >&2; exit 1; }
    mv "$base.part" "$base"
fi
echo "$base"
