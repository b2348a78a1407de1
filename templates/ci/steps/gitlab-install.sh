apt-get update -q
apt-get install --yes --quiet --no-install-recommends @{ packages }@
python3 -m venv .venv
.venv/bin/pip install --quiet .
export PATH="$PWD/.venv/bin:$PATH"
