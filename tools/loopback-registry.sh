#!/usr/bin/env bash
# Puts the programs docker-registry and cosign into the folder BIN for the tests that need a real registry and real signatures.
# usage: tools/loopback-registry.sh BIN
# They come from Debian's packages, unpacked and not installed: no service is started, and no root is needed. Debian 12 has no
# cosign; there it is taken from Debian 13, from the archive that this machine's apt uses anyway. A program that cannot be had is
# said, and its tests are skipped.
set -euo pipefail
bin=$1
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "loopback registry: $*" >&2; }
missing=()
for program in docker-registry cosign; do
  [ -x "$bin/$program" ] || command -v "$program" >/dev/null || missing+=("$program")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  say "${missing[*]} cannot be had without Debian's apt; the tests that need them are skipped"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{sources,lists/partial,cache/archives/partial,debs}
own=(-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o "APT::Sandbox::User=" -o "Debug::NoLocking=1")

fetch() { # fetch PROGRAM APT-OPTIONS...: unpacks Debian's package of that name; 1 where it has none
  local program=$1
  shift
  (cd "$work/debs" && apt-get "$@" download -qq "$program" 2>"$work/errors") || return 1
  dpkg-deb -x "$work/debs/$program"_*.deb "$work/$program"
  install -m 0755 "$work/$program/usr/bin/$program" "$bin/$program"
  say "$program unpacked from Debian's package"
}

newer() { # newer: writes apt sources that name Debian 13 at this machine's archive
  local site
  site=$(apt-get indextargets --format '$(SITE) $(ORIGIN)' | awk '$2 == "Debian" { print $1; exit }')
  [ -n "$site" ] || site=$(apt-get indextargets --format '$(SITE)' | awk 'NR == 1')
  [ -n "$site" ] && [ -e "$keyring" ] || return 1
  printf 'Types: deb\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: %s\n' "$site" "$keyring" >"$work/sources/trixie.sources"
}

apt-get "${own[@]}" update -qq 2>"$work/errors" || true
for program in "${missing[@]}"; do
  if fetch "$program" "${own[@]}"; then continue; fi
  if newer; then
    rm -rf "$work"/lists/* "$work"/cache/*.bin
    mkdir -p "$work/lists/partial"
    only=("${own[@]}" -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$work/sources")
    if apt-get "${only[@]}" update -qq 2>"$work/errors" && fetch "$program" "${only[@]}"; then continue; fi
  fi
  say "$program cannot be had here ($(tail -n 1 "$work/errors")); the tests that need it are skipped"
done
