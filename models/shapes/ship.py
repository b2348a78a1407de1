"""Takes the exported files into the project: `weights/` beside this file, their sizes and sha256 into images/models.yaml.

    python -m models.shapes.ship FOLDER

FOLDER is what export.py wrote. The row of the catalogue must be there. The recorded pictures of the self-test belong to the
files that were there before, so record them anew: python bench/selftest.py record.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from sdrun.models.gguf import write_atomically

HERE = Path(__file__).resolve().parent
CATALOGUE = HERE.parent.parent / "images" / "models.yaml"
LIMIT = 25_000_000  # bytes of all files together


def pinned(text: str, name: str, data: bytes) -> str:
    """The catalogue's text with the size and sha256 of this file. Raises ValueError where it has no such file, or two."""
    row = re.compile(rf'(file: {re.escape(name)}\n +bytes: )[0-9]+(\n +sha256: )"[0-9a-f]*"')
    changed, count = row.subn(rf'\g<1>{len(data)}\g<2>"{hashlib.sha256(data).hexdigest()}"', text)
    if count != 1:
        raise ValueError(f"{CATALOGUE} has {count} files {name} with bytes and sha256")
    return changed


def main(folder: Path) -> None:
    """Copies and pins."""
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("shapes-*.gguf"))}
    if len(files) != 3 or sum(map(len, files.values())) > LIMIT:
        sys.exit(f"{folder} holds {len(files)} files of {sum(map(len, files.values()))} bytes; 3 below {LIMIT} are wanted")
    text = CATALOGUE.read_text(encoding="utf-8")
    for name, data in files.items():
        text = pinned(text, name, data)
    (HERE / "weights").mkdir(exist_ok=True)
    for name, data in files.items():
        write_atomically(HERE / "weights" / name, data)
    write_atomically(CATALOGUE, text.encode())
    print(f"{sum(map(len, files.values()))} bytes in {HERE / 'weights'}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
