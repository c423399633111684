#!/bin/sh
# Makes a folder that is an apt repository, signed, of packages for any of the three architectures; or adds packages to one.
# Beside them lie the list of what the program is made of (CycloneDX), checksums, the public key, and what a gateway needs
# to know of the repository. docs/INSTALLATION.md says how to serve it.
# Usage: REPO_KEY=KEY packaging/repo.sh FOLDER PACKAGE...
#
#   REPO_KEY=KEY      the key to sign with, by its fingerprint or address, in the keyring of whoever calls
#                     (GNUPGHOME); "throw-away" makes one that is gone at the end, for tests
#   REPO_URL=URL      where the folder will be served; else the file for gateways says https://packages.example/fieldbridge
#
# Packages that are there already stay, so that a gateway can go back. An index is also found by its hash, and stays so for
# the last few runs: a gateway that reads while the folder is copied gets the old state or the new one, never half of each.
set -eu
umask 022
export LC_ALL=C
suite=stable component=main architectures="amd64 arm64 armhf"
hashes_kept=3
url=${REPO_URL:-https://packages.example/fieldbridge}

fail() {
    echo "packaging/repo.sh: $1" >&2
    exit 1
}
[ $# -ge 2 ] || fail "name a folder and at least one package"
[ -n "${REPO_KEY-}" ] || fail "REPO_KEY is not set: name the key to sign with (gpg --list-secret-keys shows yours)"
folder=$(realpath -m "$1")
shift
mkdir -p "$folder"
for deb; do
    version=$(dpkg-deb --field "$deb" Version)
    arch=$(dpkg-deb --field "$deb" Architecture)
    place=$folder/pool/$component/f/fieldbridge/fieldbridge_${version}_$arch.deb
    mkdir -p "${place%/*}"
    # Whoever has installed it under this name and number has these bytes.
    if [ -e "$place" ] && ! cmp -s "$deb" "$place"; then
        fail "${place##*/} is there already, with other bytes: a version that was published is not changed; build it under a new number"
    fi
    [ -e "$place" ] || cp "$deb" "$place"
done
cd "$(dirname "$0")/.."
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH-$(packaging/epoch.sh)}"
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
clean() {
    [ "$REPO_KEY" != throw-away ] || gpgconf --homedir "$GNUPGHOME" --kill all 2>/dev/null || true
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM
if [ "$REPO_KEY" = throw-away ]; then
    export GNUPGHOME="$work/gnupg"
    mkdir -m 700 "$GNUPGHOME"
    gpg --batch --quiet --passphrase '' --quick-generate-key "fieldbridge, for tests only <throw-away>" ed25519 sign never 2>"$work/said" ||
        fail "no key can be made: $(cat "$work/said")"
    key=$(gpg --batch --with-colons --list-secret-keys | awk -F: '$1 == "fpr" { print $10; exit }')
else
    key=$REPO_KEY
fi
sign() { gpg --batch --yes --quiet --local-user "$key" --digest-algo SHA512 "$@"; }

# -- What the program is made of. Of the sources that are here, so of this version.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
packaging/sbom.py >"$folder/fieldbridge_$version.cdx.json"

# -- The indexes.
cd "$folder"
base=dists/$suite
for arch in $architectures; do
    index=$base/$component/binary-$arch
    mkdir -p "$index"
    apt-ftparchive --arch "$arch" packages pool >"$index/Packages"
    xz -9 --keep --force --stdout --threads=1 "$index/Packages" >"$index/Packages.xz"
done
rm -f "$base/Release" "$base/InRelease" "$base/Release.gpg"
# Without "Valid-Until": a gateway that was off for a year, or whose clock is wrong, can still be upgraded.
now=$(date --utc --date="@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')
apt-ftparchive -o APT::FTPArchive::DoByHash=true -o APT::FTPArchive::MD5=false -o APT::FTPArchive::SHA1=false \
    -o APT::FTPArchive::Release::Origin=fieldbridge -o APT::FTPArchive::Release::Label=fieldbridge \
    -o APT::FTPArchive::Release::Suite="$suite" -o APT::FTPArchive::Release::Codename="$suite" \
    -o APT::FTPArchive::Release::Architectures="$architectures" -o APT::FTPArchive::Release::Components="$component" \
    release "$base" | sed "s/^Date: .*/Date: $now/" >"$work/Release"
mv "$work/Release" "$base/Release"
# What an earlier state was found by, but for the last few.
find "$base" -type d -path '*/by-hash/*' | while read -r hashes; do
    # Four files a state: the index, and packed.
    find "$hashes" -type f -printf '%T@ %p\n' | sort -rn | tail -n "+$((hashes_kept * 2 + 1))" | cut -d' ' -f2- |
        while read -r old; do
            grep -q "${old##*/}" "$base/Release" || rm -f "$old"
        done
done
sign --armor --detach-sign --output "$base/Release.gpg" "$base/Release"
sign --clear-sign --output "$base/InRelease" "$base/Release"

# -- What a gateway needs, and checksums for whoever takes a file by hand.
gpg --batch --quiet --export "$key" >fieldbridge-archive-keyring.gpg
cat >fieldbridge.sources <<END
Types: deb
URIs: $url
Suites: $suite
Components: $component
Signed-By: /usr/share/keyrings/fieldbridge-archive-keyring.gpg
END
find pool ./*.json -type f -print0 | sort -z | xargs -0 sha256sum | sed 's|  \./|  |' >SHA256SUMS
sign --armor --detach-sign --output SHA256SUMS.asc SHA256SUMS
echo "$folder"
