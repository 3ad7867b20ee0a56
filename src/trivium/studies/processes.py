"""The processes a study starts: a stage or a measurement each, in a session of its own, with its words in a log."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path


class Processes:
    """Those that run now. ``interrupt`` asks all of them to save and end; ``stopped`` tells that this has happened."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a second Ctrl-C may come while the first is handled
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def run(self, arguments: Sequence[str], log: Path) -> int:
        """Run ``python -m trivium.studies.job ARGUMENTS`` on one thread to its end; its return code.

        What it says goes to the end of ``log``. A Ctrl-C on the terminal does not reach it but through ``interrupt``,
        once; should this process die, it is told to save and end (on Linux).
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        # -P: a queue.py in the working directory is no part of it
        command = [sys.executable, "-P", "-m", "trivium.studies.job", str(os.getpid()), *arguments]
        with open(log, "ab") as file:
            with self.lock:
                if self.stopped:
                    return -signal.SIGINT
                process = subprocess.Popen(
                    command,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self.running.add(process)
            try:
                return process.wait()
            finally:
                with self.lock:
                    self.running.discard(process)

    def interrupt(self) -> None:
        """What a Ctrl-C is to each of them: the first one saves a checkpoint, a second one stops at once."""
        with self.lock:  # one that is just being started is among those that run before this goes on
            self.stopped = True
            for process in list(self.running):
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)


def last_words(log: Path, code: int) -> str:
    """Why a process ended: the last line that it said, without ``error:``, or the signal that ended it."""
    if code < 0:
        return f"it was ended by signal {-code} ({signal.Signals(-code).name})"
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else f"it ended with exit code {code} and said nothing"
