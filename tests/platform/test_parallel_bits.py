"""Stages at a time compute what stages one after the other compute, to the bit, also when they were cut."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.stages.test_resume import PATIENCE, wait_for_lines
from tests.stages.tiny import RECIPE, metrics, start_command, write_recipe

STAGES = ("pretrain", "sft", "rl", "other")  # three branches from one start
SHORT: dict[str, Any] = {"steps": 5, "checkpoint_every": 2, "evaluate_every": 0}
TASK = {
    "prompts": [{"source": "primer", "part": "problems", "split": "test"}],
    "verifier": {"kind": "primer"},
    "limit": 6,
    "plain_prompt": "{prompt}",
    "sampling": {"max_new_tokens": 8},
}
OVERRIDES = {f"{name}.{key}": value for name in ("pretrain", "sft", "rl") for key, value in SHORT.items()} | {
    "rl.init": "pretrain",
    "stages.other": RECIPE["stages"]["sft"] | SHORT | {"kind": "sft", "optimizer": {"lr": 5e-4}},
    "evaluation": {"problems": TASK},
}


def command(folder: Path, parallel: int) -> tuple[str, ...]:
    recipe = write_recipe(folder, OVERRIDES)
    # one thread for each stage, however the recipe is run
    return ("run", str(recipe), f"parallel={parallel}", "threads=1", "-d", str(folder / "run"))


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    finish(command(folder, 1))
    return folder / "run"


def finish(arguments: tuple[str, ...]) -> str:
    process = start_command(*arguments)
    output: str = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output
    return output


def assert_same(run: Path, other: Path) -> None:
    for name in STAGES:
        for file in ("model/model.safetensors", "evaluation.json"):
            assert (run / name / file).read_bytes() == (other / name / file).read_bytes(), (name, file)
        assert metrics(run / name) == metrics(other / name), name
    for rollouts in (other / "rl/rollouts").glob("*"):
        assert (run / "rl/rollouts" / rollouts.name).read_bytes() == rollouts.read_bytes()


@pytest.mark.slow
def test_two_at_a_time_are_one_after_the_other(one_by_one: Path, tmp_path: Path) -> None:
    finish(command(tmp_path, 2))
    assert_same(tmp_path / "run", one_by_one)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_cut_at_a_random_point_it_ends_in_the_same_bits(one_by_one: Path, tmp_path: Path, number: int) -> None:
    arguments = command(tmp_path, 2)
    process = start_command(*arguments)
    wait_for_lines(process, random.randint(1, 3), tmp_path / "run/sft/metrics.jsonl")
    time.sleep(random.random() * 0.03)
    process.send_signal(number)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), output
    assert not (tmp_path / "run/summary.json").exists() or not (tmp_path / "run/report.html").exists()
    finish(arguments)
    assert_same(tmp_path / "run", one_by_one)
