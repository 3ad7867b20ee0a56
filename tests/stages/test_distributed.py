"""Two processes (gloo, FSDP2, DCP) give what one gives, and either resumes what the other began."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.stages.tiny import STAGES, metrics, run_stage, two_processes
from tests.stages.worker import MUON, cut_stage

from trivium.training import checkpoint, distributed

pytestmark = pytest.mark.timeout(600)  # on a machine that is busy with other things
ROOT = Path(__file__).resolve().parents[2]


def test_ranks_wait_for_as_long_as_a_judge_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank ranks, audits, revises by a judge, for hours where it is a server; torch gives up after 10 minutes."""
    given: dict[str, timedelta] = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **more: given.update(more))
    distributed.setup(torch.device("cpu"))
    assert given["timeout"] >= timedelta(days=1)


@pytest.fixture(scope="module")
def folders(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each stage, finished with the help of two processes: each stage cut and resumed in another way."""
    made = {}
    for stage in STAGES:
        made[stage] = tmp_path_factory.mktemp(stage)
        for earlier in STAGES[: STAGES.index(stage)]:
            shutil.copytree(finished / earlier / "model", made[stage] / earlier / "model")
    places = {stage: str(folder) for stage, folder in made.items()}
    made["muon"] = muon = tmp_path_factory.mktemp("muon")
    cut_stage(made["pretrain"], "pretrain")
    two_processes(
        *("pretrain", places["pretrain"], "whole"),
        *("sft", places["sft"], "cut", "sft", places["sft"], "whole"),
        *("rl", places["rl"], "cut", "pretrain", str(muon), "muon"),
    )
    assert checkpoint.latest_step(made["rl"] / "rl/checkpoints") == 3
    assert {path.suffix for path in made["rl"].glob("rl/checkpoints/*/*")} == {".safetensors", ".json"}
    run_stage(made["rl"], "rl")
    return made


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_give_the_losses_of_one(finished: Path, folders: dict[str, Path], stage: str) -> None:
    """Validation, a moving reference and several updates a step included; cut and resumed on the way."""
    one, two = metrics(finished / stage), metrics(folders[stage] / stage)
    assert len(one) == len(two)
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, abs=1e-5), stage
    whole, gathered = (load_file(folder / stage / "model/model.safetensors") for folder in (finished, folders[stage]))
    assert whole.keys() == gathered.keys()
    for name, value in whole.items():
        torch.testing.assert_close(gathered[name], value, rtol=0, atol=1e-5, msg=name)


def test_muon_sees_whole_matrices(folders: dict[str, Path], tmp_path: Path) -> None:
    """Orthogonalising each process's rows alone would be another optimiser. Its bfloat16 needs the tolerance."""
    run_stage(tmp_path, "pretrain", MUON)
    one, two = metrics(tmp_path / "pretrain"), metrics(folders["muon"] / "pretrain")
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=1e-3)
    assert one[-1]["loss"] < one[0]["loss"] - 0.1
