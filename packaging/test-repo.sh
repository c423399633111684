#!/bin/sh
# Makes a repository of a package and looks at it with tools that are not ours: the signature, the way from it to the
# package by hashes, what stays when a version is added, and the bill of materials against CycloneDX' own schema.
# Usage: packaging/test-repo.sh PACKAGE
set -eu
export LC_ALL=C
deb=$(realpath "$1")
cd "$(dirname "$0")/.."
scripts/setup.sh repo
python=${FIELDBRIDGE_PEERS:-$PWD/.cache/peers}/python/bin/python
work=$(mktemp -d)
GNUPGHOME=$work/gnupg
export GNUPGHOME REPO_KEY=test-repo
clean() {
    gpgconf --kill all 2>/dev/null || true
    rm -rf "$work"
}
trap clean EXIT
repo=$work/repo
release=$repo/dists/stable/Release

fail() {
    echo "packaging/test-repo.sh: $1" >&2
    exit 1
}
mkdir -m 700 "$GNUPGHOME"
gpg --batch --quiet --passphrase '' --quick-generate-key "$REPO_KEY" ed25519 sign never 2>"$work/said" || fail "$(cat "$work/said")"

echo "== without a key" >&2
! REPO_KEY="" packaging/repo.sh "$repo" "$deb" 2>"$work/said" || fail "it signs with no key"
grep -q "REPO_KEY is not set" "$work/said" || fail "it does not say what is missing: $(cat "$work/said")"

echo "== signed, and found by hashes" >&2
packaging/repo.sh "$repo" "$deb" >/dev/null
cp "$release" "$work/Release"
trusted() { gpgv --quiet --keyring "$repo/fieldbridge-archive-keyring.gpg" "$@" 2>"$work/said" || fail "$(cat "$work/said")"; }
trusted --output "$work/signed" "$repo/dists/stable/InRelease"
cmp "$work/signed" "$release"
trusted "$release.gpg" "$release"
trusted "$repo/SHA256SUMS.asc" "$repo/SHA256SUMS"
(cd "$repo" && sha256sum --quiet --strict --check SHA256SUMS)
grep -qx "Acquire-By-Hash: yes" "$release" || fail "no index by hash"
# Each line of the signed list is a file with that hash, by its name and by its hash.
sed -n '/^SHA256:/,/^[A-Z]/s/^ //p' "$release" >"$work/list"
[ "$(wc -l <"$work/list")" -ge 6 ] || fail "the list is short: $(cat "$work/list")"
while read -r hash _ name; do
    file=$repo/dists/stable/$name
    for one in "$file" "${file%/*}/by-hash/SHA256/$hash"; do
        [ "$(sha256sum <"$one")" = "$hash  -" ] || fail "$one is another"
    done
done <"$work/list"
arch=$(dpkg-deb --field "$deb" Architecture)
index=$repo/dists/stable/main/binary-$arch/Packages
path=$(sed -n 's/^Filename: //p' "$index")
[ "$(sed -n 's/^SHA256: //p' "$index")  -" = "$(sha256sum <"$repo/$path")" ] || fail "the index has another hash"
cmp "$deb" "$repo/$path"

echo "== made again, and with one more version" >&2
packaging/repo.sh "$repo" "$deb" >/dev/null
cmp "$work/Release" "$release"
dpkg-deb --raw-extract "$deb" "$work/next"
sed -i 's/^Version: .*/&+next/' "$work/next/DEBIAN/control"
dpkg-deb --root-owner-group -Znone --build "$work/next" "$work/next.deb" >/dev/null
packaging/repo.sh "$repo" "$work/next.deb" >/dev/null
[ "$(grep -c '^Filename: ' "$index")" = 2 ] || fail "the older version is gone: $(cat "$index")"
while read -r hash _ name; do
    [ -e "$repo/dists/stable/${name%/*}/by-hash/SHA256/$hash" ] || fail "what a gateway may just be reading is gone: $name"
done <"$work/list"
# The same number with other bytes.
echo >>"$work/next/usr/share/doc/fieldbridge/copyright"
dpkg-deb --root-owner-group -Znone --build "$work/next" "$work/next.deb" >/dev/null
! packaging/repo.sh "$repo" "$work/next.deb" 2>"$work/said" || fail "a version that was published was changed"
grep -q "with other bytes" "$work/said" || fail "$(cat "$work/said")"

echo "== what it is made of" >&2
bill=$(echo "$repo"/fieldbridge_*.cdx.json)
"$python" - "$bill" <<'END'
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(str(wrong) if wrong else 0)
END
# Cargo's own account of what is linked into the program for this machine. Macros take part in the build only.
cargo tree --quiet --locked --edges normal,no-proc-macro --prefix none --format '{p}' | sed 's/^\([^ ]*\) v\([^ ]*\).*/\1@\2/' | sort -u |
    grep -v '^fieldbridge@' >"$work/tree"
[ "$(wc -l <"$work/tree")" -gt 100 ] || fail "cargo tree has only $(wc -l <"$work/tree") crates"
sed -n 's/^ *"purl": "pkg:cargo\/\(.*\)",*$/\1/p' "$bill" | sort -u >"$work/billed"
left_out=$(comm -23 "$work/tree" "$work/billed")
[ -z "$left_out" ] || fail "the bill leaves out $left_out"
grep -q '"name": "sqlite"' "$bill" || fail "the bill leaves out SQLite"
echo "the repository is good: $(wc -l <"$work/billed") crates"
