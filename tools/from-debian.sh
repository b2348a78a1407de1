#!/usr/bin/env bash
# Puts each FILE of a Debian package into DIR, without installing the package: for tests that need a program whose package would
# change this machine, start a service, or that this release of Debian does not have. Debian 13's are taken, from the mirror that
# this machine's apt uses anyway. No root is needed.
# usage: tools/from-debian.sh DIR PACKAGE=FILE...     FILE as in the package: podman=usr/libexec/podman/quadlet
# What cannot be had is said, and that is no failure: the tests that need it are skipped.
set -euo pipefail
dir=$1
shift
keys=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "from Debian: $*" >&2; }
missing=()
for wanted in "$@"; do
  file=${wanted#*=}
  [ -x "/$file" ] || [ -x "$dir/${file##*/}" ] || missing+=("$wanted")
done
without() { say "${missing[*]%%=*} cannot be had: $*; the tests that need that will be skipped"; exit 0; }
[ ${#missing[@]} -gt 0 ] || exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || without "there is no apt here"
mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Identifier: Packages' | sed -n 's/ main$//p' | head -n 1)
[ -n "$mirror" ] && [ -s $keys ] || without "no Debian mirror to ask"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{etc/preferences.d,lists/partial,cache/archives/partial}
echo "deb [signed-by=$keys] $mirror trixie main" >"$work/etc/sources.list"
touch "$work/status"
options=(-o Debug::NoLocking=1)
for setting in Dir::Etc="$work/etc" Dir::Etc::sourceparts=/nonexistent Dir::State::lists="$work/lists" \
  Dir::State::status="$work/status" Dir::Cache="$work/cache"; do
  options+=(-o "$setting")
done
[ "$(id -u)" != 0 ] || options+=(-o APT::Sandbox::User=root)
apt-get "${options[@]}" update -qq || without "the mirror $mirror has no Debian 13"
for wanted in "${missing[@]}"; do
  package=${wanted%%=*} file=${wanted#*=}
  if ! (cd "$work" && apt-get "${options[@]}" download -qq "$package"); then
    say "package $package cannot be had; the tests that need it will be skipped"
    continue
  fi
  dpkg-deb -x "$work/$package"_*.deb "$work/$package"
  install -m 755 "$work/$package/$file" "$dir/${file##*/}"
  say "${file##*/} of package $package"
done
