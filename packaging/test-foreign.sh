#!/bin/sh
# Runs the program out of the package for another architecture under qemu-user: `check`, the demo (G1 to G4 and G7 as its
# books have them) and tests/faults/kill.rs (G2 to G7 against kill -9, with a simulated hub, slaves and a serial line).
# Usage: packaging/test-foreign.sh arm64|armhf      after `make deb ARCH=…`
#
# The demo starts itself, and Linux must know to run such a program by qemu: this needs root and binfmt_misc. Without them
# the demo is left out, and the script says so. qemu-user does not know how a serial port's settings are set nowadays:
# tests/foreign/termios2.c is preloaded for that.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=packaging/architecture.sh
. packaging/architecture.sh
architecture "$1"
[ "$ARCH" != "$(dpkg --print-architecture)" ] || { echo "$ARCH is this machine's own; nothing is to be emulated" >&2; exit 2; }
if [ "$(id -u)" = 0 ] && [ -z "${FIELDBRIDGE_TERMINALS-}" ]; then
    scripts/setup.sh foreign "$ARCH"
    # With terminals of its own. Their numbers are given out again at once, and a program of another test on this machine that
    # still knows one would open ours and take its answers. The mounts end with it.
    export FIELDBRIDGE_TERMINALS=own
    exec unshare --mount --propagation private "$0" "$ARCH"
fi
if [ "$(id -u)" = 0 ]; then
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts /dev/pts
    mount --bind /dev/pts/ptmx /dev/ptmx
else
    scripts/setup.sh foreign "$ARCH"
fi

work=$(mktemp -d)
binfmt=""
clean() {
    [ -z "$binfmt" ] || echo -1 >"$binfmt"
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
dpkg-deb --extract "target/deb/fieldbridge_${version}_$ARCH.deb" "$work/root"
program=$work/root/usr/bin/fieldbridge
libraries=/usr/$gnu_target
case "$ARCH" in
amd64) cpu=x86_64 ;;
arm64) cpu=aarch64 ;;
armhf) cpu=arm ;;
esac
"$gnu_target-gcc" -Wall -Wextra -Werror -O2 -shared -fPIC -o "$work/termios2.so" tests/foreign/termios2.c

# The program as if it were one of this machine.
cat >"$work/fieldbridge" <<END
#!/bin/sh
exec qemu-$cpu-static -L $libraries -E LD_PRELOAD=$work/termios2.so $program "\$@"
END
chmod +x "$work/fieldbridge"

echo "== $ARCH: $(file --brief "$program" | cut -d, -f1,2)" >&2
"$work/fieldbridge" --version

echo "== $ARCH: check" >&2
status=0
"$work/fieldbridge" check --config "$work/root/etc/fieldbridge/fieldbridge.toml" 2>"$work/said" || status=$?
cat "$work/said" >&2
[ "$status" = 78 ]
grep -q "hub.host: is not filled in yet" "$work/said"
mkdir -p "$work/site/keys"
cp config/examples/line-protocol.toml "$work/site/fieldbridge.toml"
(umask 077 && echo AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8= >"$work/site/keys/scale.key")
"$work/fieldbridge" check --config "$work/site/fieldbridge.toml"

echo "== $ARCH: demo" >&2
registry=/proc/sys/fs/binfmt_misc
if [ "$(id -u)" = 0 ] && { [ -e $registry/register ] || mount -t binfmt_misc binfmt_misc $registry; }; then
    # Under a name of its own, so that it disturbs no other user of qemu.
    name=fieldbridge-$cpu-$$
    sed "s/^:[^:]*:/:$name:/" "/usr/lib/binfmt.d/qemu-$cpu.conf" >$registry/register
    binfmt=$registry/$name
    QEMU_LD_PREFIX=$libraries QEMU_SET_ENV=LD_PRELOAD=$work/termios2.so "$program" demo
    echo -1 >"$binfmt"
    binfmt=""
else
    echo "!! LEFT OUT: the demo of $ARCH needs root and binfmt_misc" >&2
fi

echo "== $ARCH: kill -9" >&2
# A start takes much longer under an emulator.
FIELDBRIDGE_LIFE=5 FIELDBRIDGE_PROGRAM=$work/fieldbridge cargo test --test faults kill:: -- --nocapture --test-threads=1
echo "== $ARCH: done" >&2
