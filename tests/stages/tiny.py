"""The whole chain in seconds: a recipe of a tiny model, and the ways to run it."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trivium.progress import Progress
from trivium.recipe import apply_overrides, load
from trivium.stages import STAGES as STAGE_FUNCTIONS
from trivium.stages import StageContext

STAGES = ("pretrain", "sft", "rl")
_EVERY = {"steps": 8, "checkpoint_every": 3, "evaluate_every": 4, "log_every": 1, "schedule": {"warmup": 2}}
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "device": "cpu",
    "threads": 1,
    "primer": {"documents": 120, "demonstrations": 60, "problems": 200, "digits": 1},
    "stages": {
        "pretrain": {
            **_EVERY,
            "data": [{"source": "primer", "part": "corpus", "split": "train"}],
            "validation": [{"source": "primer", "part": "corpus", "split": "validation", "limit": 4}],
            "model": {
                "size": None,
                "layers": 2,
                "hidden_size": 32,
                "heads": 2,
                "kv_heads": 1,
                "context_length": 96,
            },
            "tokenizer": {"vocabulary_size": 300},
            "batch_tokens": 400,
            "micro_batch_tokens": 250,
            "optimizer": {"lr": 3e-3},
        },
        "sft": {
            **_EVERY,
            "init": "pretrain",
            "data": [{"source": "primer", "part": "demonstrations", "split": "train"}],
            "validation": [{"source": "primer", "part": "demonstrations", "split": "validation", "limit": 5}],
            "batch_size": 7,
            "micro_batch_tokens": 120,
        },
        "rl": {
            **_EVERY,
            "init": "sft",
            "prompts": [{"source": "primer", "part": "problems", "split": "train"}],
            "validation": [{"source": "primer", "part": "problems", "split": "validation", "limit": 5}],
            "rewards": {"short": {"kind": "length", "options": {"target": 5}}},
            "preset": "grpo",
            "reference": "moving",
            "prompts_per_step": 5,
            "group_size": 3,
            "minibatches": 2,
            "micro_batch_tokens": 150,
            "sampling": {"max_new_tokens": 10},
            "optimizer": {"lr": 3e-3},
        },
    },
}


def write_recipe(folder: Path, overrides: Mapping[str, Any] | None = None) -> Path:
    """tiny.yaml in ``folder``, with ``{"rl.steps": 2}`` put in."""
    values = apply_overrides(RECIPE, overrides or {})
    path = folder / "tiny.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def run_stage(folder: Path, name: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One stage of the tiny recipe in FOLDER/NAME, called as the pipeline calls it, from the models that lie there."""
    rank = os.environ.get("RANK", "0")  # ranks must not write one file at the same time
    recipe = load(str(write_recipe(folder / f"rank-{rank}", overrides)))
    models = {other: folder / other / "model" for other in STAGES if (folder / other / "model").is_dir()}
    place = folder / name
    place.mkdir(exist_ok=True)
    return STAGE_FUNCTIONS[recipe.stages[name].kind](
        StageContext(name, recipe.stages[name], recipe, place, models, Progress())
    )


def link_models(finished: Path, folder: Path, stage: str) -> Path:
    """Make the models of the stages before ``stage`` appear in ``folder``."""
    for earlier in STAGES[: STAGES.index(stage)]:
        (folder / earlier).mkdir(parents=True, exist_ok=True)
        (folder / earlier / "model").symlink_to(finished / earlier / "model")
    return folder


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of FOLDER/metrics.jsonl without their timing."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "timing"} for line in lines]


def start_command(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
    """A real ``trivium`` process, with its own environment variables added."""
    return subprocess.Popen(
        [sys.executable, "-m", "trivium", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def two_processes(*arguments: str, module: str = "tests.stages.worker") -> None:
    """``python -m module ARGUMENTS`` as ranks 0 and 1, ended together; a failure shows what they printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=Path(__file__).resolve().parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    end = time.monotonic() + 270
    while time.monotonic() < end and not any(rank.poll() for rank in ranks) and None in [rank.poll() for rank in ranks]:
        time.sleep(0.05)
    codes = [rank.poll() for rank in ranks]
    for rank in ranks:
        rank.kill()
    assert codes == [0, 0], "\n".join(rank.communicate()[0] for rank in ranks)
