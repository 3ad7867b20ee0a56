"""What becomes of a process when the one that started it dies."""

import contextlib
import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def on_death(number: signal.Signals) -> None:
    """Have the system send this process the signal when its parent dies, however it dies (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
