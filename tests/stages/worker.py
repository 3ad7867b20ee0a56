"""One rank of a distributed run: ``python -m tests.stages.worker STAGE FOLDER whole|cut|muon|… …``, as by torchrun.

``cut`` ends the stage after its fifth step, as a crash would; the checkpoint of the third is there by then. Anything
else is a file of overrides, as JSON; ``cut:FILE`` for both.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.stages.tiny import run_stage

from trivium.training.loop import Loop

MUON = {"pretrain.optimizer.name": "muon", "pretrain.steps": 4, "pretrain.checkpoint_every": 0}


class Cut(BaseException):
    pass


def cut_stage(folder: Path, stage: str, overrides: Mapping[str, Any] | None = None) -> None:
    """Run the stage up to its fifth step and break off."""
    log = Loop._log

    def stop(loop: Loop, step: int) -> None:
        log(loop, step)
        if step == 5:
            raise Cut

    with patch.object(Loop, "_log", stop):
        try:
            run_stage(folder, stage, overrides)
        except Cut:
            return
    raise AssertionError("the stage was not cut")


def main(arguments: list[str]) -> None:
    for stage, folder, how in zip(*[iter(arguments)] * 3, strict=True):
        cut, _, file = how.partition(":") if how.startswith("cut") else ("", "", how)
        overrides = MUON if how == "muon" else json.loads(Path(file).read_text()) if file.endswith(".json") else None
        if cut:
            cut_stage(Path(folder), stage, overrides)
        else:
            run_stage(Path(folder), stage, overrides)


if __name__ == "__main__":
    main(sys.argv[1:])
    import torch.distributed

    torch.distributed.destroy_process_group()
