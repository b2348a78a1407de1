.venv/bin/python tools/bump.py > bump.md
