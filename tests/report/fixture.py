"""A made-up run directory: plausible numbers, written by the rules of the run directory, hostile text included."""

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from trivium.evaluation.intervals import paired_bootstrap, wilson
from trivium.evaluation.metrics import pass_at_k
from trivium.streams import generator

HOSTILE = '<script>alert("x")</script> <img src=x onerror=alert(1)> \u202e{{ 7*7 }} \x00 & "quotes"'
STAGES = {"pretrain": 0.04, "sft": 0.56, "rl": 0.97}
SUBTASKS = {"add": 1.0, "sort": 0.96, "count": 1.02, "compare": 0.99, "reverse": 0.93}
PROBLEMS = 500


def write_run(directory: Path, stages: tuple[str, ...] = ("pretrain", "sft", "rl")) -> Path:
    """Write a whole run; ``stages`` are those that finished."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe(), sort_keys=False))
    evaluations = {stage: evaluation(stage) for stage in stages}
    for stage in stages:
        folder = directory / stage
        folder.mkdir(exist_ok=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics(stage)))
        (folder / "evaluation.json").write_text(json.dumps({"stage": stage, "tasks": evaluations[stage]}))
    (directory / "summary.json").write_text(json.dumps(summary(evaluations)))
    (directory / "lineage.json").write_text(json.dumps(lineage(stages)))
    return directory


def recipe() -> dict[str, Any]:
    return {
        "name": "primer",
        "description": "the embedded world: a teacher that forgets the carry, and a student that passes it",
        "seed": 0,
        "stages": {
            "pretrain": {"kind": "pretrain", "steps": 600, "data": [{"source": "primer", "part": "corpus"}]},
            "sft": {"kind": "sft", "steps": 300, "init": "pretrain"},
            "rl": {"kind": "rl", "steps": 60, "init": "sft", "preset": "grpo"},
        },
        "evaluation": {"problems": {"threshold": 1.0}, "larger numbers": {"threshold": 1.0}},
    }


def metrics(stage: str) -> list[dict[str, Any]]:
    random = generator(0, "fixture/metrics", stage)
    return _rl_metrics(random) if stage == "rl" else _language_metrics(stage, random)


def _language_metrics(stage: str, random: Any) -> list[dict[str, Any]]:
    steps, start, end = (600, 6.2, 1.1) if stage == "pretrain" else (300, 1.6, 0.35)
    lines: list[dict[str, Any]] = []
    for step in range(10 if stage == "sft" else 2, steps + 1, 10 if stage == "sft" else 2):
        loss = end + (start - end) * math.exp(-5 * step / steps) + random.normal() * 0.05
        line = {"step": step, "split": "train", "loss": loss, "learning_rate": 1e-3 * (1 - step / steps)}
        timing = {"seconds": step * 0.2, "tokens_per_second": 21000 + 300 * random.normal()}
        lines.append({**line, "gradient_norm": 0.8 + 0.1 * random.normal(), "tokens": step * 8192, "timing": timing})
        if step % 100 == 0:
            lines.append({"step": step, "split": "validation", "loss": loss + 0.04, "bits_per_byte": loss * 0.72})
    return lines


def _rl_metrics(random: Any) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(1, 61):
        reward = 0.58 + 0.39 * (1 - math.exp(-step / 14)) + random.normal() * 0.015
        line = {
            "step": step,
            "split": "train",
            "reward": reward,
            "reward/right": reward - 0.05,
            "reward/form": 0.05 + 0.001 * random.normal(),
            "groups_without_spread": min(1, 0.2 + step / 90),
            "kl": 0.004 * step + 0.004 * random.uniform(),
            "entropy": 0.9 * math.exp(-step / 40),
            "ratio_mean": 1.0 + 0.001 * random.normal(),
            "clip_share": 0.01 * random.uniform(),
            "response_length": 16 - step / 30 + random.normal() * 0.1,
            "truncated_share": 0.02 * math.exp(-step / 8),
            "status/ok": 0.99,
            "status/unparseable": 0.01,
            "loss": 0.01 * random.normal(),
            "gradient_norm": 0.3 + 0.02 * random.normal(),
            "learning_rate": 3e-4,
        }
        lines.append({**line, "timing": {"seconds": 1.1 * step, "tokens_per_second": 9000}})
        if step % 10 == 0:
            lines.append({"step": step, "split": "validation", "accuracy": min(0.99, reward + 0.02), "reward": reward})
    return lines


def evaluation(stage: str) -> dict[str, Any]:
    return {"problems": _task(stage, "problems", 1.0), "larger numbers": _task(stage, "larger numbers", 0.7)}


def _task(stage: str, task: str, factor: float) -> dict[str, Any]:
    rows = [_row(stage, task, i, factor) for i in range(PROBLEMS)]
    right = sum(row["score"] for row in rows)
    interval = wilson(int(right), PROBLEMS)
    by_task = {}
    for name in SUBTASKS:
        own = [row["score"] for row in rows if row["task"] == name]
        by_task[name] = {"n": len(own), **_accuracy(int(sum(own)), len(own))}
    sampled = int(16 * min(0.98, interval.estimate * 0.96 + 0.02))
    status = {"ok": PROBLEMS - 6, "unparseable": 6} if stage == "pretrain" else {"ok": PROBLEMS}
    return {
        "n": PROBLEMS,
        **_accuracy(int(right), PROBLEMS),
        "score": interval.estimate,
        "status": status,
        "response_length": 14.2,
        "truncated_share": 0.004,
        "duplicates_dropped": 3,
        "sampled_accuracy": sampled / 16,
        "pass_at_k": {str(k): pass_at_k(16, sampled, k) for k in (1, 2, 4, 8, 16)},
        "majority_at_k": {str(k): min(1.0, interval.estimate + 0.004 * k) for k in (1, 2, 4, 8, 16)},
        "bits_per_byte": {"pretrain": 0.81, "sft": 0.62, "rl": 0.66}[stage],
        "slot_error_rate": {"pretrain": 0.61, "sft": 0.18, "rl": 0.05}[stage],
        "baseline": {"chance": 0.01, "constant": 0.024, "constant_answer": "ninety"},
        "teacher": {"greedy": 0.55 * factor, "sampled": 0.61 * factor},
        "by_task": by_task,
        "results": rows,
    }


def _accuracy(right: int, n: int) -> dict[str, float]:
    interval = wilson(right, n)
    return {"accuracy": interval.estimate, "low": interval.low, "high": interval.high}


def _row(stage: str, task: str, i: int, factor: float) -> dict[str, Any]:
    random = generator(0, "fixture/problem", task, i)
    hard = random.uniform()
    subtask = list(SUBTASKS)[i % len(SUBTASKS)]
    score = float(hard < STAGES[stage] * SUBTASKS[subtask] * factor)
    a, b = (int(value) for value in random.integers(11, 99, size=2))
    answer = str(a + b if score else a + b - 10)
    response = f"{a} plus {b}: write {answer[-1]}, carry {int(bool(score))}. The answer is {answer}."
    if i % 37 == 0:
        response = HOSTILE
    return {
        "id": hashlib.blake2b(f"{task}{i}".encode(), digest_size=8).hexdigest(),
        "task": subtask,
        "prompt": f"What is {a} plus {b}?",
        "answer": str(a + b),
        "response": response,
        "score": score,
        "status": "unparseable" if stage == "pretrain" and i % 80 == 0 else "ok",
        "extracted": None if i % 37 == 0 else answer,
    }


def summary(evaluations: dict[str, Any]) -> dict[str, Any]:
    costs = {
        "pretrain": (128.4, 4_915_200, 600, "bits_per_byte", 0.79, "lower"),
        "sft": (61.0, 2_120_000, 300, "loss", 0.352, "lower"),
        "rl": (92.7, 1_450_000, 60, "accuracy", 0.97, "higher"),
    }
    stages, comparisons = {}, {}
    for stage, tasks in evaluations.items():
        seconds, tokens, steps, name, value, better = costs[stage]
        numbers = {t: {k: v for k, v in entry.items() if k != "results"} for t, entry in tasks.items()}
        metric = {"name": name, "value": value, "better": better}
        stages[stage] = {"seconds": seconds, "tokens": tokens, "steps": steps, "metric": metric, "skipped": 0}
        stages[stage]["evaluation"] = numbers
    names = list(evaluations)
    for task in ("problems", "larger numbers"):
        comparisons[task] = [
            {"from": first, "to": second, **_difference(evaluations[first][task], evaluations[second][task])}
            for first, second in pairwise(names)
        ]
    environment = {"python": "3.11.4", "torch": "2.13.0", "trivium": "0.1.0", "threads": 2, "platform": "Linux x86-64"}
    return {
        "recipe": "primer",
        "seed": 0,
        "stages": stages,
        "comparisons": comparisons,
        "seconds": 301.5,
        "environment": environment,
    }


def _difference(first: dict[str, Any], second: dict[str, Any]) -> dict[str, float]:
    scores = ([row["score"] for row in entry["results"]] for entry in (first, second))
    interval = paired_bootstrap(*scores, seed=0)
    return {"difference": interval.estimate, "low": interval.low, "high": interval.high}


def lineage(stages: tuple[str, ...]) -> dict[str, Any]:
    artifacts, before = {}, ""
    for stage in stages:
        inputs = [_file("data", "corpus.jsonl")] if not before else _model(before)
        artifacts[stage] = {
            "status": "finished",
            "parents": [before] if before else [],
            "config_hash": hashlib.sha256(f"config {stage}".encode()).hexdigest(),
            "fingerprint": hashlib.sha256(f"fingerprint {stage}".encode()).hexdigest(),
            "inputs": inputs,
            "outputs": _model(stage),
            "code": {"version": "0.1.0", "commit": hashlib.sha1(b"commit").hexdigest(), "modified": False},
        }
        before = stage
    return {"recipe": "primer", "seed": 0, "artifacts": artifacts}


def _model(stage: str) -> list[dict[str, Any]]:
    names = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    return [_file("model", f"runs/primer/{stage}/model/{name}") for name in names]


def _file(role: str, path: str) -> dict[str, Any]:
    return {"role": role, "path": path, "sha256": hashlib.sha256(path.encode()).hexdigest(), "bytes": 9, "modified": 1}
