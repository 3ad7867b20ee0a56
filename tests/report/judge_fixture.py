"""A made-up run with every kind of AI feedback: audits, a judge's rankings, majority votes, DPO, revisions."""

import json
import math
from pathlib import Path
from typing import Any

import yaml
from feedback_fixture import artifact, put
from fixture import HOSTILE, _difference, _file, _model, evaluation, write_run

from trivium.streams import generator

NEW = ("audit", "coin", "rank", "revise", "dpo", "vote", "judged")
TRAINED = {"dpo": "sft", "vote": "sft", "judged": "sft"}


def write_judge_run(directory: Path, whole: bool = True) -> Path:
    """Write the run: the judge of ``audit`` is good, that of ``coin`` is not, and ``judged`` games its reward.

    ``whole`` False: without what other kinds of stages leave behind, metrics and evaluations included, whose charts
    take long to draw.
    """
    if whole:
        write_run(directory)
    recipe = yaml.safe_load((directory / "recipe.yaml").read_text()) if whole else {"name": "bare", "stages": {}}
    recipe["stages"] |= stages()
    for name in NEW:
        (directory / name).mkdir(parents=True)
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    put(directory / "audit" / "audit.json", audit())
    put(directory / "coin" / "audit.json", audit(chance=True))
    put(directory / "rank" / "rankings.jsonl", {})
    put(directory / "revise" / "conversations.jsonl", {"messages": []})
    put(directory / "revise" / "revisions.jsonl", *revisions())
    put(directory / "dpo" / "iterations.jsonl", *iterations())
    ranked = _file("rankings", "runs/primer/rank/rankings.jsonl")
    made = {
        "audit": artifact(["sft"], _model("sft"), [_file("audit", "runs/primer/audit/audit.json")]),
        "rank": artifact(["sft"], _model("sft"), [ranked]),
        "dpo": artifact(["sft", "rank"], [*_model("sft"), ranked], _model("dpo")),
    }
    if not whole:
        put(directory / "summary.json", {"stages": summaries()})
        put(directory / "lineage.json", {"artifacts": made})
        return directory
    lineage = json.loads((directory / "lineage.json").read_text())
    lineage["artifacts"] |= made
    put(directory / "lineage.json", lineage)
    summary = json.loads((directory / "summary.json").read_text())
    summary["stages"] |= summaries()
    _write_models(directory, summary)
    put(directory / "summary.json", summary)
    return directory


def _write_models(directory: Path, summary: dict[str, Any]) -> None:
    """Metrics and evaluations of the stages that train, and what they are compared with."""
    put(directory / "dpo" / "metrics.jsonl", *dpo_metrics())
    put(directory / "vote" / "metrics.jsonl", *rl_metrics("vote"))
    put(directory / "judged" / "metrics.jsonl", *rl_metrics("judged"))
    for name, before in TRAINED.items():
        answers = evaluation("rl" if name == "vote" else "sft")
        put(directory / name / "evaluation.json", {"stage": name, "tasks": answers})
        for task, numbers in answers.items():
            earlier = json.loads((directory / before / "evaluation.json").read_text())["tasks"][task]
            summary["comparisons"][task].append({"from": before, "to": name, **_difference(earlier, numbers)})


def stages() -> dict[str, Any]:
    judge = {"backend": "local", "model": "sft", "constitution": "primer"}
    rankings = [{"source": "rank"}]
    server = judge | {"backend": "openai", "model": "rl"}  # a server's model that is called as a stage is
    part = {"kind": "judge", "options": {"model": "sft", "audit": "audit"}}
    return {
        "rank": {"kind": "rank", "init": "sft", "tasks": 300, "judge": judge},
        "audit": {"kind": "audit", "judge": judge, "rankings": rankings},
        "coin": {"kind": "audit", "judge": server, "rankings": rankings},
        "revise": {"kind": "revise", "init": "sft", "judge": judge, "tasks": 200},
        "dpo": {"kind": "dpo", "init": "sft", "steps": 40, "rankings": rankings, "judge": judge, "iterations": 3},
        "vote": {"kind": "rl", "init": "sft", "steps": 80, "rewards": {"vote": {"kind": "majority"}}},
        "judged": {"kind": "rl", "init": "sft", "steps": 60, "rewards": {"likes": part}},
    }


def summaries() -> dict[str, Any]:
    metric = {"name": "reward", "value": 0.8, "better": "higher"}
    change = {"estimate": 0.12, "low": 0.05, "high": 0.19}
    gold = {"n": 190, "first": spread(0.41, 0.05), "revised": spread(0.53, 0.05), "difference": change}
    return {
        "rank": {
            "seconds": 31.0, "tasks": 300, "alike": 4, "rankings": 300, "skipped_rankings": 6, "annotators": 1,
            "kinds": ["ai"], "pairwise_agreement": None, "alpha": None, "usage": usage(3600, 120), "missing": 31,
        },
        "audit": {"seconds": 12.0, "told": "500 pairs asked", "usage": usage(1000)},
        "coin": {"seconds": 3.0, "told": "500 pairs asked"},
        "revise": {
            "seconds": 55.0, "told": "200 answers revised", "tasks": 200, "conversations": 190, "missing": 10,
            "usage": usage(400, cost=0.0), "gold": gold,
        },
        "dpo": {
            "seconds": 70.0, "tokens": 300_000, "steps": 40, "metric": metric | {"name": "loss", "value": 0.61},
            "after": {"tasks": 200, "monitor": {"gold": 0.63, "<u>form</u>": 0.9}},
        },
        "vote": {"seconds": 90.0, "tokens": 900_000, "steps": 80, "metric": metric},
        "judged": {
            "seconds": 80.0, "tokens": 700_000, "steps": 60, "metric": metric,
            "usage": {"likes": usage(7680, cost=1.27)},
        },
    }  # fmt: skip


def usage(calls: int, cached: int = 0, cost: float = 0.42) -> dict[str, float]:
    tokens = {"prompt_tokens": 310 * calls, "completion_tokens": calls}
    return {"calls": calls, "cached": cached, "missing": calls // 50, **tokens, "cost": cost, "seconds": 0.01 * calls}


def spread(estimate: float, half: float) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - half, "high": estimate + half}


def audit(chance: bool = False) -> dict[str, Any]:
    kappa = spread(0.01, 0.08) if chance else spread(0.42, 0.07)
    asked = {
        "n": 488, "missing": 12, "agreement": spread(0.505 if chance else 0.71, 0.04), "kappa": kappa,
        "position": {"first": spread(0.58, 0.03), "bias": spread(0.07, 0.02)},
        "consistency": spread(0.83, 0.03),
        "length": {"judge": spread(0.62, 0.04), "reference": spread(0.55, 0.04), "bias": spread(0.07, 0.05)},
        "calibration": {
            "ece": 0.061, "log_loss": 0.588,
            "bins": [
                {"low": p - 0.05, "high": p + 0.05, "n": 200 - 40 * i, "predicted": p, "observed": p - 0.03 * i}
                for i, p in enumerate((0.55, 0.65, 0.75, 0.85, 0.95))
            ],
        },
        "principles": {"harmless": spread(0.6, 0.1), "<b>honest</b>": spread(0.7, 0.1), "silent": None},
    }  # fmt: skip
    scored = {"n": 500, "missing": 0, "agreement": spread(0.66, 0.04), "kappa": spread(0.31, 0.07), "position": None}
    people = {"n": 210, "agreement": spread(0.78, 0.04), "kappa": spread(0.55, 0.06)}
    people["judge"] = {"agreement": spread(0.7, 0.04), "kappa": spread(0.4, 0.06)}
    claim = "no better than chance, so that nothing should learn from it" if chance else "better than chance"
    who = {"name": "judge:<i>rl</i>" if chance else "judge:sft", "identity": "00ff", "both_orders": True}
    return {
        "judge": who,
        "reference": "rankings",
        "asked": {"compare": asked, "score": scored | {"consistency": None, "length": None, "calibration": None}},
        "annotators": {"n": 0, "kappa": None, "agreement": None} if chance else people,
        "usage": usage(1000),
        "contradictions": 81,
        "chance": chance,
        "told": f"{who['name']} agrees with the annotators on 71.0%, kappa 0.420: {claim}.",
    }


def revisions() -> list[dict[str, Any]]:
    rows = []
    for i in range(8):
        step = {"principle": "harmless", "critique": f"Too short ({i}).", "revision": f"Better {i}, and longer."}
        steps = [step, {"principle": HOSTILE, "critique": HOSTILE, "revision": HOSTILE}]
        prompt: Any = (
            f"{HOSTILE} {i}" if i % 2 else {"id": str(i), "messages": [{"role": "user", "content": f"What is {i}?"}]}
        )
        row = {"prompt": prompt, "first": f"{HOSTILE} {i}", "steps": steps, "kept": i % 2 == 0}
        rows.append(row | ({"gold_first": 0.25, "gold_revised": 0.5} if i else {}))
    rows.append({"prompt": "nothing came", "first": "x", "steps": [], "kept": False})
    return rows


def dpo_metrics() -> list[dict[str, Any]]:
    random = generator(0, "fixture/dpo")
    lines = []
    for step in range(1, 41):
        chosen, rejected = -0.01 * step + 0.02 * random.normal(), -0.03 * step + 0.02 * random.normal()
        line = {"step": step, "split": "train", "loss": 0.69 - 0.004 * step, "accuracy": 0.5 + 0.007 * step}
        line |= {"margin": chosen - rejected, "chosen_reward": chosen, "rejected_reward": rejected}
        lines.append(line | {"chosen_log_prob": -20 + 10 * chosen, "rejected_log_prob": -21 + 10 * rejected})
        if step % 10 == 0:
            lines.append({"step": step, "split": "validation", "loss": 0.69 - 0.003 * step, "accuracy": 0.6})
    return lines


def iterations() -> list[dict[str, Any]]:
    return [
        {
            "iteration": i, "tasks": 200, "pairs": 170 - 20 * i, "equal": 25 + 20 * i, "missing": 5,
            "gap": 2.1 - 0.4 * i, "chosen_length": 40 + 8 * i, "rejected_length": 38 + 2 * i,
            "monitor": {"gold": 0.41 + 0.05 * i, "<u>form</u>": 0.9}, "usage": usage(800),
        }
        for i in range(1, 4)
    ]  # fmt: skip


def rl_metrics(name: str) -> list[dict[str, Any]]:
    random = generator(0, "fixture/rl", name)
    lines = []
    for step in range(1, 81 if name == "vote" else 61):
        rise = 1 - math.exp(-step / 15)
        line: dict[str, Any] = {"step": step, "split": "train", "kl": 0.01 * step, "loss": 0.01 * random.normal()}
        if name == "vote":
            line |= {"reward": 0.5 + 0.4 * rise + 0.02 * random.normal(), "reward/vote": 0.5 + 0.4 * rise}
            line |= {"majority/share": 0.55 + 0.4 * rise, "majority/abstained": 0.3 - 0.25 * rise}
            line |= {"majority/label_accuracy/gold": 0.66 + 0.2 * rise + 0.02 * random.normal()}
            line |= {"monitor/gold": 0.5 + 0.3 * rise + 0.02 * random.normal()}
        else:
            line |= {"reward": 2.1 + 1.5 * rise + 0.05 * random.normal(), "judge/likes/missing": 0.02}
            line |= {"monitor/gold": 0.6 - 0.3 * rise + 0.02 * random.normal(), "monitor/<s>form</s>": 0.9}
        lines.append(line)
        if step % 20 == 0:
            held_out = {key: value for key, value in line.items() if key == "reward" or key.startswith("monitor/")}
            lines.append({"step": step, "split": "validation", **held_out})
    return lines
