"""Trivium's own stages and engine, as a recipe would run them.

The stages report each step to a ``Progress``; the one here ends a repetition there, so a repetition is a whole step,
with its metrics and, for rl, its rollout file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.job import (
    ALPHA,
    BETA,
    GROUP,
    LEARNING_RATE,
    PROMPTS,
    RANK,
    REWARD_PENALTY,
    REWARD_TARGET,
    Job,
    answer_lengths,
    new_tokens_limit,
)
from benchmarks.worker import Turn
from trivium.progress import Progress


class EachStep(Progress):
    def __init__(self, turn: Turn, tokens: int = 0) -> None:
        self.turn, self.tokens = turn, tokens

    def stage(self, name: str, total: int, start: int = 0) -> None:
        self.turn()  # set up: what follows is the first repetition

    def advance(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        if metrics is None:
            return
        if "response_length" in metrics:
            made = round(metrics["response_length"] * PROMPTS * GROUP)
            self.turn(samples=PROMPTS * GROUP, completion_tokens=made, prompt_tokens=self.tokens)
        else:
            self.turn(loss=metrics["loss"], tokens=self.tokens, computed=self.tokens)


def run_stage(job: Job, model: str, kind: str, stage: dict[str, Any], rows: list[Any], progress: Progress) -> None:
    from trivium.recipe import resolve
    from trivium.stages import STAGES
    from trivium.stages.context import StageContext

    directory = Path(job.directory) / f"trivium-{kind}-{Path(model).name}"
    directory.mkdir(parents=True, exist_ok=True)
    data = directory / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {
        "init": model,
        "steps": 10_000,  # more than anyone measures
        "optimizer": {"lr": LEARNING_RATE, "betas": [0.9, 0.999], "weight_decay": 0.0},
        "schedule": {"kind": "constant", "warmup": 0},
        "evaluate_every": 0,
        "checkpoint_every": 0,
        "log_every": 10,
    }
    source = [{"source": str(data)}]
    data_key = {{"rl": "prompts", "dpo": "rankings"}.get(kind, "data"): source}
    recipe = resolve({"name": "benchmark", "device": "cpu", "stages": {kind: {**shared, **stage, **data_key}}})
    STAGES[kind](StageContext(kind, recipe.stages[kind], recipe, directory, {}, progress))


def sft(job: Job, turn: Turn, **stage: Any) -> None:
    rows = [{"messages": one["messages"]} for one in job.conversations]
    progress = EachStep(turn, sum(len(one["tokens"]) for one in job.conversations))
    run_stage(job, job.model, "sft", {"batch_size": len(rows), **stage}, rows, progress)


def lora(job: Job, turn: Turn) -> None:
    sft(job, turn, lora={"rank": RANK, "alpha": ALPHA})


def dpo(job: Job, turn: Turn) -> None:
    rows = [
        {"prompt": pair["messages"][0]["content"], "chosen": pair["chosen"], "rejected": pair["rejected"]}
        for pair in job.pairs
    ]
    stage = {"batch_size": len(rows), "beta": BETA, "validation_share": 0.0}
    run_stage(job, job.model, "dpo", stage, rows, EachStep(turn, sum(whole for whole, _ in answer_lengths(job))))


def grpo(job: Job, turn: Turn, variant: str = "fixed") -> None:
    stage = {
        "preset": "grpo",
        "kl": "none",
        "reference": "none",
        "prompts_per_step": PROMPTS,
        "group_size": GROUP,
        "sampling": {"temperature": 1.0, "max_new_tokens": new_tokens_limit(variant)},
        "rewards": {
            "length": {
                "kind": "length",
                "options": {"target": REWARD_TARGET, "unit": "characters", "penalty": REWARD_PENALTY},
            }
        },
    }
    rows = [{"prompt": prompt["messages"][0]["content"], "answer": ""} for prompt in job.prompts]
    progress = EachStep(turn, GROUP * sum(len(prompt["tokens"]) for prompt in job.prompts))
    run_stage(job, job.model if variant == "fixed" else job.ragged_model, "rl", stage, rows, progress)


def grpo_ragged(job: Job, turn: Turn) -> None:
    grpo(job, turn, "ragged")


def decode(job: Job, turn: Turn) -> None:
    from trivium.generation.engine import Engine
    from trivium.generation.sampling import SamplingSettings
    from trivium.generation.scheduler import Request
    from trivium.model.huggingface import load_model

    engine = Engine(load_model(Path(job.model)))
    requests = [
        Request(tuple(one["tokens"]), str(index), max_new_tokens=one["new_tokens"])
        for index, one in enumerate(job.requests)
    ]
    settings = SamplingSettings(temperature=0.0)
    turn()
    while True:
        outputs = [completions[0].tokens for completions in engine.generate(requests, settings)]
        turn(tokens=sum(map(len, outputs)), outputs=outputs)
