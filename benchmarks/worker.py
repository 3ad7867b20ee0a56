"""The child process of one contender: keeps its model alive and does one repetition each time it is told to.

``python -m benchmarks.worker JOB_DIRECTORY CONTENDER THREADS`` speaks JSON lines: "ready" after the set-up, then one
line for every "go" it reads, until its input says "stop". What the libraries print goes to standard error, so that
nothing disturbs the protocol.
"""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Turn = Callable[..., None]  # turn(result...) ends a repetition and returns when the next one is to begin


class Finished(BaseException):
    """No further repetition is wanted. Not an Exception, so that no library on the way swallows it."""


def peak_memory() -> float:
    """The most resident memory this process has had, in MiB, by the kernel's books.

    ``VmHWM`` where there is /proc: ``ru_maxrss`` also counts what the process was before it became this program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class Session:
    """The clock and the pipe. The clock runs from the moment a repetition is asked for until its result is known, so
    that loading data, logging and bookkeeping between two steps count, as they do for a user."""

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self.start = (0.0, 0.0)

    def turn(self, **result: Any) -> None:
        clocks = time.perf_counter(), time.process_time()  # the second counts the work of all threads
        seconds, cpu = (now - then for now, then in zip(clocks, self.start, strict=True))
        answer = {"seconds": seconds, "cpu_seconds": cpu, "peak": peak_memory(), **result}
        self.answers.write(json.dumps(answer) + "\n")
        if sys.stdin.readline().strip() != "go":
            raise Finished
        self.start = time.perf_counter(), time.process_time()


def main() -> None:
    directory, contender, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    session = Session()
    import torch

    from benchmarks.job import Job

    torch.set_num_threads(threads)
    module, _, function = contender.partition(":")
    try:
        getattr(importlib.import_module(f"benchmarks.contenders.{module}"), function)(Job.load(directory), session.turn)
    except Finished:
        os._exit(0)  # nothing to save, and some libraries take seconds to say goodbye


if __name__ == "__main__":
    main()
