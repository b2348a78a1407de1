"""`python -m sdrun` and the console script `sdrun`."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line and ends the process with its exit code."""
    leave(run())


def run() -> int:
    """Runs the command line; its exit code."""
    try:
        from sdrun.cli.main import main as program

        return program()
    except KeyboardInterrupt:  # while the program was being loaded
        from sdrun.cli.console import stopped

        return stopped(sys.argv[1:])


def leave(code: int) -> NoReturn:
    """Ends the process at once. To take the interpreter apart first, module by module, costs 0.02 to 0.04 s and gives back
    nothing that the end of the process does not. What was registered for the end is done, and both streams are flushed.
    Python's own way is taken where a thread is to be waited for, where a stream takes nothing more, and under a profiler."""
    import atexit
    import os
    import threading

    waited_for = [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
    if waited_for or _is_watched():
        sys.exit(code)
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        sys.exit(code)
    os._exit(code)


def _is_watched() -> bool:
    """True under a debugger, a profiler or a measurement of coverage, which may have something to write at the very end."""
    if sys.gettrace() is not None or sys.getprofile() is not None:
        return True
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12 and later; they need not set the other two there
    return monitoring is not None and any(monitoring.get_tool(tool) is not None for tool in range(6))


if __name__ == "__main__":
    main()
