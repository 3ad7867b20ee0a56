"""A child of a run with stages that take no time, and that do what a file in the working directory says.

``STAGE.do`` holds one word: ``fail`` (a user's mistake), ``bug``, ``die`` (kill -9 of itself) or ``wait`` (until it is
interrupted, then save a checkpoint); ``times.txt`` gets a line when a stage begins and when it ends.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.platform.conftest import FakeStages
from trivium import child, stages
from trivium.errors import UserError

fake = FakeStages()


def stage(context: Any) -> dict[str, Any]:
    context.directory.mkdir(parents=True, exist_ok=True)
    place = Path(f"{context.name}.do")
    word = place.read_text() if place.exists() else ""
    try:
        tell(f"begin {context.name} {os.getpid()} {os.environ.get('OMP_NUM_THREADS')} {sorted(context.models)}")
        if word == "wait":
            time.sleep(60)
    except KeyboardInterrupt:
        (context.directory / "checkpoints").mkdir()
        raise
    print("a library prints")
    if word == "fail":
        await_line("begin", 3)
        raise UserError("the text is empty; write one")
    if word == "bug":
        raise ValueError("a bug of ours")
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "meet":  # two stages that run at a time, or this takes half a minute
        await_line("begin", 3)
    context.progress.note("a sentence")
    numbers = fake.stage(context)
    tell(f"end {context.name}")
    return numbers


def tell(line: str) -> None:
    with open("times.txt", "a", encoding="utf-8") as file:
        file.write(line + "\n")


def await_line(word: str, times: int) -> None:
    end = time.monotonic() + 30
    while Path("times.txt").read_text().count(word) < times and time.monotonic() < end:
        time.sleep(0.01)


stages.STAGES.update(dict.fromkeys(("pretrain", "sft", "rl"), stage))
# in place of the real one, which would import torch
sys.modules["trivium.evaluation.evaluate"] = SimpleNamespace(evaluate_stage=fake.evaluate)  # type: ignore[assignment]
if __name__ == "__main__":
    sys.exit(child.main())
