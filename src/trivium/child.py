"""A process for the stages of a run: ``python -m trivium.child RUN``, started by ``trivium.parallel``.

Orders come as JSON lines on standard input, ``{"do": "train" | "evaluate" | "end", …}``, and what is to be shown or
handed back goes as JSON lines to what was standard output; all else that is printed goes to standard error. Of the
run's files this process writes only those in STAGE/ of the stage at work. It ends with its parent, however that ends.
"""

import contextlib
import gc
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from trivium.errors import UserError
from trivium.parent import on_death
from trivium.progress import SHOWN_METRICS, Progress

ADVANCE_SECONDS = 0.2  # between two messages about how far it is


class Told(Progress):
    """Shown by the parent. Safe for several threads."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.said, self._turn = file, 0.0, threading.Lock()

    def tell(self, **message: Any) -> None:
        with self._turn:
            self.file.write(json.dumps(message) + "\n")
            self.file.flush()

    def stage(self, name: str, total: int, start: int = 0) -> None:
        self.said = 0.0
        self.tell(stage=[name, total, start])

    def advance(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        now = time.monotonic()
        if now - self.said >= ADVANCE_SECONDS:
            self.said = now
            numbers = {key: value for key, value in (metrics or {}).items() if isinstance(value, int | float)}
            self.tell(advance=[step, dict(list(numbers.items())[:SHOWN_METRICS])])

    def note(self, text: str) -> None:
        self.tell(note=text)

    def finish(self, line: str) -> None:
        self.tell(finish=line)


def main() -> int:
    """Follow orders until the last; the exit code: 0, 1 after an error, 130 after an interrupt."""
    on_death(signal.SIGKILL)  # in the midst of whatever it computes
    told = Told(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    orders: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    try:
        while (order := orders.get())["do"] != "end":
            told.tell(done=_follow(order, Path(sys.argv[1]), told))
    except KeyboardInterrupt:
        told.tell(interrupted=True)
        return 130
    except UserError as error:
        told.tell(error=str(error))
        return 1
    except Exception:
        told.tell(bug=traceback.format_exc())
        return 1
    return 0


def _follow(order: Mapping[str, Any], directory: Path, told: Told) -> dict[str, Any]:
    from trivium.files import disk_errors
    from trivium.recipe import load
    from trivium.work import Here

    config = load(directory).model_copy(update={"threads": order["threads"]})
    work = Here(config, directory, told)
    made = {other: Path(place) for other, place in order["made"].items()}
    try:
        with disk_errors():
            if order["do"] == "train":
                return work.train(order["stage"], made)
            return work.evaluate(order["stage"], Path(order["model"]), made)
    finally:
        _free_memory()


def _free_memory() -> None:
    """What the last order used is for whoever works next, perhaps in another process."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _listen(orders: "queue.Queue[dict[str, Any]]") -> None:
    """Hear the parent; when its end of the pipe closes without a last order, it is gone."""
    with contextlib.suppress(OSError, ValueError):
        for line in sys.stdin:
            order = json.loads(line)
            orders.put(order)
            if order["do"] == "end":
                return
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
