"""Results of three made-up studies with known differences: arms, arms on an axis, curves of gold against proxy."""

import math
from collections.abc import Sequence
from typing import Any

from trivium.streams import generator

SEEDS = (0, 1, 2, 3, 4)
ENVIRONMENT = {"python": "3.12.1", "platform": "Linux", "processor": "x86_64", "cores": 2, "trivium": {"version": "1"}}


def measure(seed: int, arm: str, share: float, items: int = 120, spread: float = 0.02) -> dict[str, Any]:
    """Right-or-wrong items with about ``share`` right; arms of a seed share the difficulty of their items."""
    hard = generator(seed, "fixture/items").random(items)
    shifted = share + spread * float(generator(seed, "fixture/arm", *arm.encode()).standard_normal())
    found = {f"p{seed}-{i}": float(value < shifted) for i, value in enumerate(hard.tolist())}
    return {"value": sum(found.values()) / items, "items": found}


def row(arm: str, model: str, seed: int, measures: dict[str, Any], **other: Any) -> dict[str, Any]:
    cost = {"tokens": 50_000 + 100 * seed, "generated": 20_000, "seconds": 61.5, "shared_seconds": 240.0}
    found: dict[str, Any] = {"arm": arm, "model": model, "label": arm, "seed": seed, "x": None, "status": "finished"}
    return {**found, "reason": "", "measures": measures, "cost": cost, "curves": {}, **other}


def results(study: dict[str, Any], rows: list[dict[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    found = {"study": study, "seeds": list(seeds), "at_once": 2, "wall_seconds": 812.0}
    return {**found, "environment": ENVIRONMENT, "rows": rows}


def of_arms(seeds: Sequence[int] = SEEDS, **study: Any) -> dict[str, Any]:
    """rl far above sft, dpo about as good as sft; rlhf runs out of its budget, and rlaif fails in one seed."""
    shares = {"sft": 0.6, "dpo": 0.62, "rl": 0.9, "rlaif": 0.75}
    rows = [
        row(arm, arm, seed, {"accuracy": measure(seed, arm, share), "kl": {"value": 10 * share - 6, "items": {}}})
        for arm, share in shares.items()
        for seed in seeds
    ]
    rows += [row("rlhf", "ppo", seed, {}, status="out_of_budget", cost={}, reason="no tokens left") for seed in seeds]
    for entry in rows:
        if entry["arm"] == "rlaif" and entry["seed"] == 1:
            entry.update(status="failed", measures={}, cost={}, reason="the judge <b>gave</b> no verdict")
        if entry["arm"] == "dpo" and entry["seed"] == 0:
            entry.update(status="ended_by_budget")
    config = {
        "name": "arms",
        "title": "What each kind of feedback is worth",
        "question": "Which arm is best?",
        "claim": "RL beats SFT.",
        "holds_if": [{"better": "rl", "worse": "sft", "measure": None}],
        "compare": "all",
        "shared": ["pretrain", "sft"],
        "budget": {"tokens": 50_000, "generated": 20_000, "seconds": None},
        "measures": {
            "accuracy": {"better": "higher", "label": "right answers", "unit": ""},
            "kl": {"better": "neither", "label": "KL to SFT", "unit": "nats a response"},
        },
        "arms": {arm: {"about": f"about {arm}", "x": None} for arm in [*shares, "rlhf"]},
    }
    return results({**config, **study}, rows, seeds)


def on_axis(seeds: Sequence[int] = SEEDS, **study: Any) -> dict[str, Any]:
    """sft falls with the teacher's errors, rl does not: they part from 0.4 on."""
    rows = []
    for x in (0.0, 0.2, 0.4, 0.8):
        for model, share in (("sft", 0.9 - 0.7 * x), ("rl", 0.91 - 0.05 * x)):
            for seed in seeds:
                found = {"accuracy": measure(seed, f"{model}{x}", share)}
                rows.append(row(f"e{x}", model, seed, found, label=f"e{x} · {model}", x=x))
    config = {
        "name": "axis",
        "title": "Where imitation stops",
        "question": "Where does imitation stop?",
        "claim": "RL goes on.",
        "holds_if": [{"better": "rl", "worse": "sft", "measure": "accuracy"}],
        "compare": "models",
        "shared": ["pretrain"],
        "budget": {"tokens": None, "generated": None, "seconds": None},
        "measures": {"accuracy": {"better": "higher", "label": "right answers", "unit": "greedy"}},
        "axis": "the teacher's error rate",
        "arms": {f"e{x}": {"about": "", "x": x} for x in (0.0, 0.2, 0.4, 0.8)},
    }
    return results({**config, **study}, rows, seeds)


def of_curves(seeds: Sequence[int] = SEEDS, noise: float = 0.005, **study: Any) -> dict[str, Any]:
    """Best-of-n gold is d (0.5 - b d): it peaks at d = 1 for the small model (b = 0.25), at 2.5 for the large."""
    rows = []
    for arm, beta in (("large", 0.1), ("small", 0.25)):
        for seed in seeds:
            random = generator(seed, "fixture/curve", len(arm))
            points = []
            for n in (1, 2, 4, 8, 16, 32, 64):
                kl = math.log(n) - (n - 1) / n
                d = math.sqrt(kl)
                gold = d * (0.5 - beta * d) + noise * float(random.standard_normal()) * (n > 1)
                points.append({"kl": kl, "proxy": 0.6 * d, "gold": gold})
            curves = {"bon": {"kind": "best_of_n", "points": points}}
            rows.append(row(arm, "rl", seed, {"accuracy": measure(seed, arm, 0.7)}, curves=curves))
    config = {
        "name": "curves",
        "title": "Over-optimisation",
        "question": "How far can the reward be followed?",
        "claim": "A larger reward model reaches more gold.",
        "holds_if": [{"better": "large", "worse": "small", "measure": "bon/best"}],
        "compare": "first",
        "shared": ["pretrain"],
        "budget": {"tokens": None, "generated": None, "seconds": None},
        "measures": {"accuracy": {"better": "higher", "label": "right answers", "unit": ""}},
        "curves": {"bon": {"stage": "reward", "kind": "best_of_n"}},
        "arms": {arm: {"about": f"{arm} body", "x": None} for arm in ("large", "small")},
    }
    return results({**config, **study}, rows, seeds)
