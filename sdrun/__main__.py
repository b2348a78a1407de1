"""`python -m sdrun` and the console script `sdrun`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    from sdrun.cli.main import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
