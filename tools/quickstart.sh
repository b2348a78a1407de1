#!/usr/bin/env bash
# From a bare machine to a picture: environment, container runtime, engine image, picture; the time of each, then the path.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv
begin=$EPOCHREALTIME
report=()

# seconds since $1 with one decimal; bash has no fractions, so in microseconds
since() { local us=$((${EPOCHREALTIME/./} - ${1/./})); printf '%d.%d' $((us / 1000000)) $((us / 100000 % 10)); }
stage() {
  local name=$1 start=$EPOCHREALTIME
  shift
  "$@"
  report+=("$(printf '  %-20s %8s s' "$name" "$(since "$start")")")
}

environment() {
  [ "$venv/.run" -nt pyproject.toml ] && return
  tools/environment.sh "$venv"
  touch "$venv/.run"
}

stage "environment" environment
stage "container runtime" tools/container-runtime.sh
stage "base image" "$venv/bin/sdrun" build cpu --base-only
stage "engine image" "$venv/bin/sdrun" build cpu
stage "picture" "$venv/bin/sdrun" generate -p "a red circle left of a blue square" --allow-cpu -o out/quickstart.png
printf '%s\n' "${report[@]}"
printf '  %-20s %8s s\n' "all" "$(since "$begin")"
