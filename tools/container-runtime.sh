#!/usr/bin/env bash
# Makes sure that a container runtime answers: uses a running Docker or Podman, starts an installed one, or, as root on Debian
# or Ubuntu, installs docker.io and starts it. Says what it did. Exit 6 with the remedy when nothing can be done.
set -euo pipefail

say() { echo "container runtime: $*" >&2; }
give_up() { say "$*"; exit 6; }
docker_answers() { docker version --format '{{.Server.Version}}' 2>/dev/null; }
podman_socket=${XDG_RUNTIME_DIR:-/run}/podman/podman.sock
[ "$(id -u)" != 0 ] || podman_socket=/run/podman/podman.sock

if version=$(docker_answers); then
  say "using the running Docker $version"
  exit 0
fi
if command -v podman >/dev/null && podman info >/dev/null 2>&1; then
  if [ ! -S "$podman_socket" ]; then
    mkdir -p "$(dirname "$podman_socket")"
    setsid podman system service --time=0 "unix://$podman_socket" </dev/null >/dev/null 2>&1 &
    for _ in $(seq 50); do [ -S "$podman_socket" ] && break; sleep 0.1; done
    say "started Podman's service on $podman_socket"
  else
    say "using Podman's service on $podman_socket"
  fi
  exit 0
fi

[ "$(id -u)" = 0 ] || give_up "none answers; install Docker or Podman, or let me in: sudo usermod -aG docker $USER"
if ! command -v dockerd >/dev/null; then
  command -v apt-get >/dev/null || give_up "none is installed; install Docker (or Podman) with this system's package manager"
  say "none is installed: installing Debian's docker.io"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables >/dev/null
fi
if [ -d /run/systemd/system ]; then
  systemctl start docker
elif ! docker_answers >/dev/null; then
  log=${TMPDIR:-/tmp}/sdrun-dockerd.log
  say "starting dockerd (log: $log)"
  setsid dockerd </dev/null >"$log" 2>&1 &
fi
for _ in $(seq 150); do
  if version=$(docker_answers); then
    say "Docker $version is up"
    exit 0
  fi
  sleep 0.2
done
tail -n 5 "${log:-/dev/null}" >&2
give_up "dockerd did not come up within 30 seconds"
