#!/usr/bin/env bash
# Puts FILE of the Debian package PACKAGE into DIR, without installing the package: for tests that need a program whose package
# would change this machine, or that this release of Debian does not have. Then Debian 13's is taken from the same mirror.
# usage: tools/from-debian.sh DIR PACKAGE FILE     FILE as in the package: usr/libexec/podman/quadlet
# Where it cannot be had, says so and succeeds: the tests that need it are skipped.
set -euo pipefail
dir=$1 package=$2 file=$3
name=${file##*/}

say() { echo "$name: $*" >&2; }
without() { say "$*; its tests will be skipped"; exit 0; }

[ ! -x "/$file" ] && [ ! -x "$dir/$name" ] || exit 0
command -v apt-get >/dev/null || without "not installed, and there is no apt-get to get it with"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Identifier: Packages' | sed -n 's/ main$//p' | head -n 1)
[ -n "$mirror" ] && [ -s $keys ] || without "no Debian mirror to ask"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{etc/preferences.d,lists/partial,cache/archives/partial}
echo "deb [signed-by=$keys] $mirror trixie main" >"$work/etc/sources.list"
touch "$work/status"
options=()
for setting in Dir::Etc="$work/etc" Dir::Etc::sourceparts=/nonexistent Dir::State::lists="$work/lists" \
  Dir::State::status="$work/status" Dir::Cache="$work/cache"; do
  options+=(-o "$setting")
done
[ "$(id -u)" != 0 ] || options+=(-o APT::Sandbox::User=root)
apt-get "${options[@]}" update -qq || without "the mirror $mirror has no Debian 13"
(cd "$work" && apt-get "${options[@]}" download -qq "$package") || without "package $package cannot be had"
dpkg-deb -x "$work/$package"_*.deb "$work/tree"
install -m 755 "$work/tree/$file" "$dir/$name"
say "from Debian's package $package"
