"""A made-up run with a branch of rankings: sft → rank → reward → ppo beside sft → rl; the policy over-optimises."""

import json
import math
from pathlib import Path
from typing import Any

import yaml
from fixture import _difference, _file, _language_metrics, _model, _rl_metrics, evaluation, write_run

from trivium.config import WatchConfig
from trivium.evaluation.best_of_n import curve
from trivium.streams import generator
from trivium.training.watch import Watch


def write_feedback_run(directory: Path, watch: bool = True, finished: bool = True) -> Path:
    """Write the whole run; ``finished`` False: the last stage was cut before its first checkpoint was chosen."""
    write_run(directory)
    recipe = yaml.safe_load((directory / "recipe.yaml").read_text())
    recipe["stages"] |= stages()
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    for name in ("rank", "reward", "ppo"):
        (directory / name).mkdir()
    (directory / "rank" / "rankings.jsonl").write_text("{}\n")
    random = generator(0, "fixture/feedback")
    put(directory / "reward" / "metrics.jsonl", *_language_metrics("sft", random))
    put(directory / "reward" / "evaluation.json", reward_evaluation())
    put(directory / "ppo" / "metrics.jsonl", *(line | {"value_loss": 0.2} for line in _rl_metrics(random)))
    summary = json.loads((directory / "summary.json").read_text())
    summary["stages"]["rank"] = {"seconds": 21.0, "tasks": 400, "alike": 3, "rankings": 1600, "annotators": 4}
    summary["stages"]["rank"] |= {"kinds": ["simulated"], "pairwise_agreement": 0.742, "alpha": 0.51}
    metric = {"name": "pair_accuracy", "value": 0.731, "better": "higher"}
    summary["stages"]["reward"] = {"seconds": 48.0, "tokens": 900_000, "steps": 90, "metric": metric}
    if finished:
        answers = evaluation("rl")
        put(directory / "ppo" / "evaluation.json", {"stage": "ppo", "tasks": answers})
        metric = {"name": "reward", "value": 1.4, "better": "higher"}
        summary["stages"]["ppo"] = {"seconds": 120.0, "tokens": 1_900_000, "steps": 60, "metric": metric}
        for task, numbers in answers.items():
            before = json.loads((directory / "sft" / "evaluation.json").read_text())["tasks"][task]
            summary["comparisons"][task].append({"from": "sft", "to": "ppo", **_difference(before, numbers)})
    put(directory / "summary.json", summary)
    if watch:
        seen = over_optimised()
        seen.write(directory / "ppo" / "watch.json", kept_step=seen.best_step if finished else None)
    lineage = json.loads((directory / "lineage.json").read_text())
    lineage["artifacts"] |= artifacts()
    put(directory / "lineage.json", lineage)
    return directory


def put(path: Path, *values: Any) -> None:
    path.write_text("".join(json.dumps(value, allow_nan=False) + "\n" for value in values))


def stages() -> dict[str, Any]:
    scorer = {"kind": "reward_model", "options": {"model": "reward"}}
    return {
        "rank": {"kind": "rank", "init": "sft", "tasks": 400},
        "reward": {"kind": "reward", "init": "sft", "steps": 90, "rankings": [{"source": "rank"}]},
        "ppo": {"kind": "rl", "init": "sft", "steps": 60, "preset": "ppo", "rewards": {"learned": scorer}},
    }


def over_optimised() -> Watch:
    """The proxy rises on; the held-out score and, later, gold turn down, which stops the stage."""
    random = generator(0, "fixture/watch")
    watch = Watch(WatchConfig(patience=6), "held_out")
    for step in range(0, 121, 5):
        d = 3.2 * math.sqrt(step / 60)
        observed = {
            "proxy": 0.05 + 0.7 * d + 0.03 * random.normal(),
            "proxy_std": 0.9,
            "held_out": 0.02 + d * (0.75 - 0.62 * math.log(max(d, 1e-9))) * 0.6 + 0.03 * random.normal(),
            "held_out_std": 0.95,
            "gold": 0.52 + 0.45 * d * (0.62 - 0.16 * d) * 0.7 + 0.008 * random.normal(),
            "gold_std": 0.41,
            "kl": d * d * (1 + 0.05 * random.normal()),
            "length": 14 + 0.15 * step,
        }
        errors = {f"{name}_se": observed[f"{name}_std"] / 22 for name in ("proxy", "held_out", "gold")}
        watch.observe(step, observed | errors)
        if watch.reason:
            break
    return watch


def reward_evaluation() -> dict[str, Any]:
    random = generator(0, "fixture/reward")
    gold = random.normal(size=(40, 16))
    proxy = gold + random.normal(size=gold.shape)
    predicted = [0.55, 0.65, 0.75, 0.85, 0.95]
    pairs = {
        "n": 1860,
        "rankings": 320,
        "prompts": 80,
        "accuracy": 0.731,
        "low": 0.704,
        "high": 0.757,
        "log_loss": 0.561,
        "ece": 0.034,
        "length_accuracy": 0.58,
        "length_low": 0.551,
        "length_high": 0.609,
        "difference": {"estimate": 0.151, "low": 0.118, "high": 0.184},
        "tau_b": 0.47,
    }
    ceiling = {
        "n": 700,
        "accuracy": 0.79,
        "low": 0.76,
        "high": 0.82,
        "model": {"accuracy": 0.75, "low": 0.72, "high": 0.78},
        "difference": {"estimate": -0.04, "low": -0.07, "high": -0.01},
    }
    return {
        "stage": "reward",
        "kind": "reward",
        "pairs": pairs,
        "reliability": [
            {"low": p - 0.05, "high": p + 0.05, "n": 500 - 80 * i, "predicted": p, "observed": p - 0.02 * i + 0.03}
            for i, p in enumerate(predicted)
        ],
        "by_margin": [
            {"low": low, "high": low + 0.5 if low < 2 else None, "n": 500 - 90 * i, "accuracy": 0.56 + 0.09 * i}
            for i, low in enumerate([0.0, 0.5, 1.0, 1.5, 2.0])
        ],
        "by_criterion": {"quality": pairs, "naturalness": pairs | {"accuracy": 0.68, "low": 0.65, "high": 0.71}},
        "sections": {"add": {"n": 300, "accuracy": 0.74, "low": 0.68, "high": 0.8}, "sort": {"n": 10, "accuracy": 0.7}},
        "ceiling": {"quality": ceiling, "naturalness": None},
        "baseline": "longer",
        "policy": {"prompts": 40, "samples": 16, "mean": 0.1, "std_within": 0.8, "std_between": 1.1, "std": 1.4},
        "best_of_n": curve(proxy.tolist(), gold.tolist()),
        "normalisation": {"mean": [0.1], "std": [1.4]},
    }


def artifacts() -> dict[str, Any]:
    ranked = _file("rankings", "runs/primer/rank/rankings.jsonl")
    return {
        "rank": artifact(["sft"], _model("sft"), [ranked]),
        "reward": artifact(["sft", "rank"], [*_model("sft"), ranked], _model("reward")),
        "ppo": artifact(["sft", "reward"], [*_model("sft"), *_model("reward")], _model("ppo")),
    }


def artifact(parents: list[str], inputs: list[Any], outputs: list[Any]) -> dict[str, Any]:
    return {"status": "finished", "parents": parents, "inputs": inputs, "outputs": outputs}
