"""A run that is killed anywhere ends in the same bits as one that was not."""

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.stages.tiny import STAGES, metrics, run_stage, start_command, write_recipe

import trivium.stages.pretrain
import trivium.stages.rl
import trivium.stages.sft
from trivium.training import checkpoint

STAGE_MODULES = {name: getattr(trivium.stages, name) for name in STAGES}
PATIENCE = 250  # seconds; a shared machine may give a process a tenth of a core
pytestmark = pytest.mark.timeout(3 * PATIENCE)
LAST = "checkpoints/step-00000008"


def command(finished: Path, folder: Path, stage: str) -> tuple[Path, list[str]]:
    """Run directory and arguments of ``trivium STAGE`` from the finished model of the stage before."""
    arguments = [stage, str(write_recipe(folder)), "-d", str(folder / "run"), "-q"]
    if stage != STAGES[0]:
        model = finished / STAGES[STAGES.index(stage) - 1] / "model"
        arguments.append(f"{stage}.init={model}")
    return folder / "run", arguments


def state(stage: Path) -> dict[str, Any]:
    counters: dict[str, Any] = json.loads((stage / LAST / "state.json").read_text())["counters"]
    return {name: value for name, value in counters.items() if name != "seconds"}


def assert_same_bits(stage: Path, other: Path) -> None:
    for path in ("model/model.safetensors", f"{LAST}/tensors.safetensors"):
        assert (stage / path).read_bytes() == (other / path).read_bytes(), path
    assert metrics(stage) == metrics(other)
    assert state(stage) == state(other)
    for rollouts in (other / "rollouts").glob("*"):
        assert (stage / "rollouts" / rollouts.name).read_bytes() == rollouts.read_bytes()


def wait_for_lines(process: "subprocess.Popen[str]", lines: int, file: Path) -> None:
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        if file.exists() and file.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.002)


def kill_after(process: "subprocess.Popen[str]", lines: int, file: Path) -> None:
    """kill -9 a moment after ``file`` has ``lines`` lines: the moment is chance, the stage is at work for sure."""
    wait_for_lines(process, lines, file)
    time.sleep(random.random() * 0.03)
    process.kill()
    process.wait()


def kill_and_repeat(arguments: Sequence[str], stage: Path, most: int) -> None:
    """The command, killed after 1 to ``most`` steps of ``stage``, so before there is a model; then given again."""
    process = start_command(*arguments)
    kill_after(process, random.randint(1, most), stage / "metrics.jsonl")
    assert process.stdout is not None
    assert process.returncode == -signal.SIGKILL, process.stdout.read()
    assert not (stage / "model").exists()
    again = start_command(*arguments)
    output = again.communicate(timeout=PATIENCE)[0]
    assert again.returncode == 0, output


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_a_random_point_the_command_ends_in_the_same_bits(finished: Path, tmp_path: Path, stage: str) -> None:
    """Weights, optimiser moments, metrics and rollouts of the real command, killed and given again."""
    run, arguments = command(finished, tmp_path, stage)
    kill_and_repeat(arguments, run / stage, 6)
    assert_same_bits(run / stage, finished / stage)


def test_ctrl_c_leaves_a_checkpoint_and_resumes(finished: Path, tmp_path: Path) -> None:
    run, arguments = command(finished, tmp_path, "sft")
    process = start_command(*arguments, "sft.checkpoint_every=0")
    wait_for_lines(process, 2, run / "sft/metrics.jsonl")
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 130, output
    assert "resumes" in output and "Traceback" not in output
    done = checkpoint.latest_step(run / "sft/checkpoints")
    assert done is not None and 2 <= done < 8
    again = start_command(*arguments, "sft.checkpoint_every=0")
    output = again.communicate(timeout=PATIENCE)[0]
    assert again.returncode == 0 and "resumed" in output, output
    assert_same_bits(run / "sft", finished / "sft")


@pytest.mark.parametrize("stage", STAGES)
def test_cut_after_any_step_the_stage_ends_in_the_same_bits(
    finished: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut three times in one stage: before the first checkpoint, while one is written, and after the last one."""
    for earlier in STAGES[: STAGES.index(stage)]:
        shutil.copytree(finished / earlier / "model", tmp_path / earlier / "model")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write_tensors", cut)
        with pytest.raises(Cut):
            run_stage(tmp_path, stage)
    assert checkpoint.latest_step(tmp_path / stage / "checkpoints") is None
    with monkeypatch.context() as patch:
        write = checkpoint._write_tensors
        patch.setattr(checkpoint, "_write_tensors", lambda *given: cut() if saved(tmp_path / stage) else write(*given))
        with pytest.raises(Cut):
            run_stage(tmp_path, stage)
    assert saved(tmp_path / stage) == 3
    with monkeypatch.context() as patch:
        patch.setattr(STAGE_MODULES[stage], "save_result", cut)
        with pytest.raises(Cut):
            run_stage(tmp_path, stage)
    assert saved(tmp_path / stage) == 8
    run_stage(tmp_path, stage)
    assert_same_bits(tmp_path / stage, finished / stage)


class Cut(BaseException):
    """As sudden as it gets inside one process."""


def cut(*_: Any) -> None:
    raise Cut


def saved(stage: Path) -> int | None:
    return checkpoint.latest_step(stage / "checkpoints")
