/usr/bin/python3 -m venv .venv
.venv/bin/pip install --quiet .
printf '%s\n' "$PWD/.venv/bin" >> "$GITHUB_PATH"
