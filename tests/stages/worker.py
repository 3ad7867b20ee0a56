"""One rank of a distributed run: ``python -m tests.stages.worker STAGE FOLDER whole|cut|muon …``, as by torchrun.

``cut`` ends the stage after its fifth step, as a crash would; the checkpoint of the third is there by then.
"""

import sys
from pathlib import Path
from unittest.mock import patch

from tests.stages.tiny import run_stage

from trivium.training.loop import Loop

MUON = {"pretrain.optimizer.name": "muon", "pretrain.steps": 4, "pretrain.checkpoint_every": 0}


class Cut(BaseException):
    pass


def cut_stage(folder: Path, stage: str) -> None:
    """Run the stage up to its fifth step and break off."""
    log = Loop._log

    def stop(loop: Loop, step: int) -> None:
        log(loop, step)
        if step == 5:
            raise Cut

    with patch.object(Loop, "_log", stop):
        try:
            run_stage(folder, stage)
        except Cut:
            return
    raise AssertionError("the stage was not cut")


def main(arguments: list[str]) -> None:
    for stage, folder, how in zip(*[iter(arguments)] * 3, strict=True):
        if how == "cut":
            cut_stage(Path(folder), stage)
        else:
            run_stage(Path(folder), stage, MUON if how == "muon" else None)


if __name__ == "__main__":
    main(sys.argv[1:])
    import torch.distributed

    torch.distributed.destroy_process_group()
