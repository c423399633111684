#!/bin/sh
# Packs a program that was built into a Debian package, and prints the path of it.
# Usage: packaging/pack.sh amd64|arm64|armhf PROGRAM [FOLDER]
#
# The same program and the same commit give the same bytes: names sorted, owners root, times those of the commit.
# DEB_VERSION replaces the version that Cargo.toml says, as for a package of one's own changes.
set -eu
umask 022
export LC_ALL=C
program=$(realpath "$2")
output=$(realpath -m "${3:-$(dirname "$0")/../target/deb}")
cd "$(dirname "$0")/.."
# shellcheck source=packaging/architecture.sh
. packaging/architecture.sh
architecture "$1"

# The newest glibc that the program may ask for: that of Debian 12.
libc_max=2.36
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH-$(packaging/epoch.sh)}"
export SOURCE_DATE_EPOCH
version=${DEB_VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
root=$tree/root

put() { # mode, source, place in the package
    install -D -m "$1" "$2" "$root/$3"
}

compressed() { # source, place in the package without .gz
    put 644 "$1" "$2"
    gzip -9n "$root/$2"
}

put 755 "$program" usr/bin/fieldbridge
"$gnu_target-strip" --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/fieldbridge"

put 644 config/fieldbridge.toml etc/fieldbridge/fieldbridge.toml
put 644 systemd/fieldbridge.service usr/lib/systemd/system/fieldbridge.service
for dropin in notify-reload kernel-clock; do
    put 644 "systemd/$dropin.conf" "usr/share/fieldbridge/$dropin.conf"
done
put 644 packaging/fieldbridge.catalog usr/lib/systemd/catalog/fieldbridge.catalog
put 644 packaging/fieldbridge.schema.json usr/share/fieldbridge/fieldbridge.schema.json
for kind in sysusers tmpfiles modules-load; do
    put 644 "packaging/fieldbridge.$kind.conf" "usr/lib/$kind.d/fieldbridge.conf"
done

compressed packaging/man/fieldbridge.1 usr/share/man/man1/fieldbridge.1
compressed packaging/man/fieldbridge.toml.5 usr/share/man/man5/fieldbridge.toml.5
put 644 packaging/completions/fieldbridge.bash usr/share/bash-completion/completions/fieldbridge
put 644 packaging/completions/_fieldbridge usr/share/zsh/vendor-completions/_fieldbridge
put 644 packaging/completions/fieldbridge.fish usr/share/fish/vendor_completions.d/fieldbridge.fish

put 644 packaging/copyright usr/share/doc/fieldbridge/copyright
packaging/changelog.sh "$version" >"$tree/changelog"
compressed "$tree/changelog" usr/share/doc/fieldbridge/changelog
for page in README.md ARCHITECTURE.md docs/*.md; do
    # All of them lie in one folder here.
    sed -e 's|](docs/|](|g' -e 's|](\.\./|](|g' -e 's|](CHANGELOG\.md|](changelog.gz|g' "$page" >"$tree/page"
    put 644 "$tree/page" "usr/share/doc/fieldbridge/$(basename "$page")"
done
for picture in docs/pictures/*; do
    put 644 "$picture" "usr/share/doc/fieldbridge/pictures/$(basename "$picture")"
done
put 644 config/fieldbridge.reference.toml usr/share/doc/fieldbridge/fieldbridge.reference.toml
for example in config/examples/*.toml; do
    put 644 "$example" "usr/share/doc/fieldbridge/examples/$(basename "$example")"
done
for profile in config/profiles/*.toml; do
    put 644 "$profile" "usr/share/fieldbridge/profiles/$(basename "$profile")"
done
for file in prometheus-rules.yml grafana-dashboard.json; do
    put 644 "packaging/monitoring/$file" "usr/share/fieldbridge/$file"
done
if [ -e packaging/lintian-overrides ]; then
    put 644 packaging/lintian-overrides usr/share/lintian/overrides/fieldbridge
fi

# What the ledger of this program is, as its package has to know.
schema=$(sed -n 's/^const MIGRATIONS: \[&str; \([0-9]*\)\] = .*/\1/p' src/ledger/schema.rs)
[ -n "$schema" ] || { echo "src/ledger/schema.rs does not say how many versions of the ledger there are" >&2; exit 1; }

# Depends is written by hand, and checked here: what the program asks for, and nothing else.
"$gnu_target-objdump" -p "$root/usr/bin/fieldbridge" >"$tree/headers"
libc=$(sed -n 's/.* GLIBC_\([0-9.]*\)$/\1/p' "$tree/headers" | sort -V | tail -n 1)
if [ "$(printf '%s\n' "$libc" "$libc_max" | sort -V | tail -n 1)" != "$libc_max" ]; then
    echo "the program asks for glibc $libc, which is newer than $libc_max of Debian 12" >&2
    exit 1
fi
for library in $(sed -n 's/^ *NEEDED *//p' "$tree/headers"); do
    case "$library" in
    libc.so.6 | libm.so.6 | libgcc_s.so.1 | ld-linux*) ;;
    *) echo "the program asks for $library, and packaging/control does not" >&2; exit 1 ;;
    esac
done

mkdir "$root/DEBIAN"
# As deb-substvars(5) says: each file by whole KiB, everything else as 1 KiB.
size=$(cd "$root" && find . -path ./DEBIAN -prune -o -mindepth 1 -printf '%y %s\n' |
    awk '{ size += $1 == "f" ? int(($2 + 1023) / 1024) : 1 } END { print size }')
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$ARCH/" -e "s/@SIZE@/$size/" -e "s/@LIBC@/$libc/" \
    packaging/control >"$root/DEBIAN/control"
(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
for script in preinst postinst prerm postrm; do
    sed -e "s/@SCHEMA@/$schema/" "packaging/$script" >"$root/DEBIAN/$script"
    chmod 755 "$root/DEBIAN/$script"
done
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

mkdir -p "$output"
deb=$output/fieldbridge_${version}_$ARCH.deb
# The number of threads would show in the bytes.
dpkg-deb --root-owner-group --threads-max=1 -Zxz --build "$root" "$deb" >&2
echo "$deb"
