"""What is put in order when sdrun itself is killed by a signal that no program can catch (SIGKILL, the kernel's memory killer).

The daemon removes a container at its own end, which may be many minutes of GPU time away, and one that was made and not yet
started never. So a second process stands beside each run and waits on a pipe that only sdrun holds open: while sdrun lives it
does nothing, and it is ended with the run; when the pipe breaks it removes the container and the run's own folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A bare interpreter waits (10 ms of processor time) and becomes this module only when it is needed.
_WAIT = "import os, sys; os.read(0, 1); os.execv(sys.argv[1], sys.argv[1:])"
_TRIES, _PAUSE = 8, 0.5  # seconds between two looks for a container whose creation was still under way


@contextmanager
def cared_for(runtime: str, container: str, scratch: Path | None) -> Iterator[None]:
    """Within it the container of that name, and the folder `scratch`, do not outlive this process by more than a few seconds.
    `runtime`: what `connect` is to be given. Where no second process can be had the run goes on without."""
    # -P: modules come from where sdrun is installed, never from the folder the user happens to be in.
    later = [sys.executable, "-P", "-m", __name__, runtime, container, *([str(scratch)] if scratch is not None else [])]
    argv = [sys.executable, "-I", "-S", "-c", _WAIT, *later]
    try:
        # In a session of its own, so that Ctrl-C and a closed terminal are left to sdrun.
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:
        yield
        return
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def clear_up(runtime: str, container: str, scratch: Path | None) -> None:
    """Removes the container, also one that appears only now, and then the folder."""
    from sdrun.errors import SdrunError
    from sdrun.runtime.connection import connect

    try:
        api = connect(runtime)
        for _ in range(_TRIES):
            if api.remove(container):
                break
            time.sleep(_PAUSE)
    except SdrunError:  # the daemon is gone as well; there is nobody to tell
        pass
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)


def main(arguments: list[str]) -> None:
    """Clears up after the run whose process has gone."""
    runtime, container, *scratch = arguments
    clear_up(runtime, container, Path(scratch[0]) if scratch else None)


if __name__ == "__main__":
    main(sys.argv[1:])
