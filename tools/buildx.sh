#!/usr/bin/env bash
# Puts the buildx plugin at DIR/docker-buildx, for the test that has it read our bake file (`bake --print` needs no daemon).
# usage: tools/buildx.sh DIR
# The distribution's package is unpacked and not installed: an installed plugin would change what `docker build` is here. Debian 12
# has no such package; Debian 13's is taken from the same mirror. Without any, says so and succeeds: the test is skipped.
set -euo pipefail
dir=$1

say() { echo "buildx: $*" >&2; }
without() { say "$*; its test will be skipped"; exit 0; }

for folder in "$HOME/.docker/cli-plugins" /usr/local/{libexec,lib}/docker/cli-plugins /usr/{libexec,lib}/docker/cli-plugins; do
  [ ! -x "$folder/docker-buildx" ] || exit 0
done
[ ! -x "$dir/docker-buildx" ] || exit 0
command -v apt-get >/dev/null || without "not installed, and there is no apt-get to get it with"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
options=()
if ! apt-cache show docker-buildx >/dev/null 2>&1; then
  keys=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Identifier: Packages' | sed -n 's/ main$//p' | head -n 1)
  [ -n "$mirror" ] && [ -s $keys ] || without "no package docker-buildx here, and no Debian mirror to ask"
  mkdir -p "$work"/{etc/preferences.d,lists/partial,cache/archives/partial}
  echo "deb [signed-by=$keys] $mirror trixie main" >"$work/etc/sources.list"
  touch "$work/status"
  for setting in Dir::Etc="$work/etc" Dir::Etc::sourceparts=/nonexistent Dir::State::lists="$work/lists" \
    Dir::State::status="$work/status" Dir::Cache="$work/cache"; do
    options+=(-o "$setting")
  done
  [ "$(id -u)" != 0 ] || options+=(-o APT::Sandbox::User=root)
  apt-get "${options[@]}" update -qq || without "the mirror $mirror has no Debian 13"
fi
(cd "$work" && apt-get ${options[@]+"${options[@]}"} download -qq docker-buildx) || without "package docker-buildx cannot be had"
dpkg-deb -x "$work"/docker-buildx_*.deb "$work/tree"
install -m 755 "$work/tree/usr/libexec/docker/cli-plugins/docker-buildx" "$dir/docker-buildx"
say "$("$dir/docker-buildx" version)"
