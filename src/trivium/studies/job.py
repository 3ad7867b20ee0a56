"""What a process of a study runs: ``python -m trivium.studies.job PARENT run …`` or ``… PARENT measure REQUEST``."""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with(parent: int) -> None:
    """Have the system interrupt this process when ``parent`` dies, however it dies (Linux; elsewhere it goes on)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before
        sys.exit(130)


def main(parent: str, kind: str, *arguments: str) -> None:
    # who starts a study in the background of a script hands down that SIGINT is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end_with(int(parent))
    if kind == "run":
        from trivium.cli import main as command_line

        command_line(["run", *arguments])
        return
    from trivium.errors import UserError
    from trivium.studies.measure import measure

    try:
        measure(Path(arguments[0]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
