"""`python -m sdrun` and the console script `sdrun`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    try:
        from sdrun.cli.main import main as run

        code = run()
    except KeyboardInterrupt:  # while the program was being loaded
        from sdrun.cli.console import stopped

        code = stopped(sys.argv[1:])
    sys.exit(code)


if __name__ == "__main__":
    main()
