#!/usr/bin/env bash
# Makes the virtual environment DIR and installs sdrun into it, editable.
# usage: tools/environment.sh DIR [EXTRA]     EXTRA: an extra of pyproject.toml, such as dev
# On a bare Debian or Ubuntu, python3's venv module is a package of its own; as root it is installed, saying so.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$1
extra=${2:-}
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "environment: Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.12 ..." >&2
  exit 6
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "environment: installing python3-venv" >&2
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
  else
    echo "environment: $python has no venv module; install it: sudo apt-get install python3-venv" >&2
    exit 6
  fi
fi
[ -x "$dir/bin/python" ] || "$python" -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check --editable ".${extra:+[$extra]}"
