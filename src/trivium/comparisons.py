"""Stages of a run against the ones they go back to, problem by problem: what got better, and what got worse."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.files import read_json

if TYPE_CHECKING:
    from trivium.config import RecipeConfig

Comparisons = dict[str, list[dict[str, Any]]]


def ancestor(recipe: "RecipeConfig", name: str, evaluated: Sequence[str]) -> str | None:
    """The nearest of the ``evaluated`` stages that ``name`` goes back to by ``init``; ``base`` is the model from
    elsewhere that the first stage, and others perhaps, start from."""
    base = getattr(next(iter(recipe.stages.values()), None), "init", None)
    while name in recipe.stages and (start := getattr(recipe.stages[name], "init", None)) is not None:
        if start not in recipe.stages:
            start = "base" if start == base else start
        if start in evaluated:
            return start
        name = start
    return None


def ancestors(recipe: "RecipeConfig", name: str, evaluated: Sequence[str]) -> list[str]:
    """All ``evaluated`` stages that ``name`` goes back to, the nearest first."""
    found: list[str] = []
    before = ancestor(recipe, name, evaluated)
    while before is not None and before not in found:
        found.append(before)
        before = ancestor(recipe, before, evaluated)
    return found


def between_stages(
    recipe: "RecipeConfig", evaluations: Mapping[str, Mapping[str, Any]], tasks: Iterable[str] | None = None
) -> Comparisons:
    """Per task, each stage against every evaluated one it goes back to, the nearest first.

    ``evaluations`` maps stages to the contents of their ``evaluation.json``; ``tasks`` are those of the recipe unless
    told. An entry has ``from``, ``to``, ``n``, ``difference`` (accuracy of greedy answers, or without a threshold the
    mean score), ``low`` and ``high`` of its paired bootstrap interval (95%), ``measure``, and where both were sampled
    ``sampled_n``, ``sampled_difference``, ``sampled_low``, ``sampled_high``: the same of sampled accuracy, over the
    prompts, each with the share of its samples that are right.
    """
    present = [name for name in evaluations if "tasks" in evaluations[name]]
    pairs = [(before, name) for name in present for before in ancestors(recipe, name, present)]
    chosen = list(recipe.evaluation) if tasks is None else list(tasks)
    return {
        task: [found for pair in pairs if (found := _compare(recipe, task, pair, evaluations)) is not None]
        for task in chosen
    }


def with_predecessor(recipe: "RecipeConfig", compared: Comparisons) -> Comparisons:
    """Of ``between_stages``, each stage against the nearest one alone."""
    nearest: Comparisons = {}
    for task, entries in compared.items():
        first: dict[str, dict[str, Any]] = {}
        for entry in entries:
            first.setdefault(entry["to"], entry)
        nearest[task] = list(first.values())
    return nearest


def regressions(compared: Comparisons) -> list[dict[str, Any]]:
    """Where a stage is certainly worse than one it goes back to: the whole 95% interval lies below zero.

    An entry has ``task``, ``stage``, ``than``, ``how`` ("greedy" or "sampled"), ``measure``, ``n``, ``difference``,
    ``low``, ``high``.
    """
    found = []
    for task, entries in compared.items():
        for entry in entries:
            for how, prefix in (("greedy", ""), ("sampled", "sampled_")):
                high = entry.get(f"{prefix}high")
                if high is None or high >= 0:
                    continue
                numbers = {key: entry[f"{prefix}{key}"] for key in ("n", "difference", "low", "high")}
                told = {"task": task, "stage": entry["to"], "than": entry["from"], "how": how}
                found.append({**told, "measure": entry["measure"], **numbers})
    return found


def sentences(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each stage and task of ``regressions``, which names all stages it fell behind.

    >>> sentences([{"task": "sums", "stage": "rl", "than": "sft", "how": "greedy", "measure": "accuracy", "n": 200,
    ...     "difference": -0.1, "low": -0.15, "high": -0.05}])
    ['rl is worse than sft on sums: greedy accuracy -10.0 points (95% interval -15.0 to -5.0, 200 problems)']
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in found:
        groups.setdefault((entry["stage"], entry["task"]), []).append(entry)
    told = []
    for (stage, task), entries in groups.items():
        worst = min(entries, key=lambda entry: entry["difference"])
        size, unit = (1, "") if worst["measure"] == "mean score" else (100, " points")
        digits = 3 if size == 1 else 1
        change, low, high = (f"{size * worst[key]:+.{digits}f}" for key in ("difference", "low", "high"))
        others = [name for name in dict.fromkeys(entry["than"] for entry in entries) if name != worst["than"]]
        also = f", and worse than {' and '.join(others)}" if others else ""
        told.append(
            f"{stage} is worse than {worst['than']} on {task}: {worst['how']} {worst['measure']} {change}{unit} "
            f"(95% interval {low} to {high}, {worst['n']} problems){also}"
        )
    return told


def fell_behind(directory: Path, stage: str) -> list[str]:
    """The sentences of the run in ``directory`` about one stage, from its ``summary.json``."""
    found = (read_json(directory / "summary.json") or {}).get("regressions", [])
    return sentences(entry for entry in found if entry["stage"] == stage)


def _compare(
    recipe: "RecipeConfig", task: str, names: tuple[str, str], evaluations: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    threshold = recipe.evaluation[task].threshold if task in recipe.evaluation else None
    before, after = (_rows(evaluations[name], task) for name in names)
    greedy = _difference(_scores(before, threshold), _scores(after, threshold), recipe.seed)
    if greedy is None:
        return None
    sampled = None if threshold is None else _difference(_sampled(before), _sampled(after), recipe.seed)
    return {
        "from": names[0],
        "to": names[1],
        **greedy,
        "measure": "mean score" if threshold is None else "accuracy",
        **({} if sampled is None else {f"sampled_{key}": value for key, value in sampled.items()}),
    }


def _difference(first: Mapping[str, float], second: Mapping[str, float], seed: int) -> dict[str, Any] | None:
    """Second less first over the problems of both."""
    from trivium.evaluation.intervals import paired_bootstrap

    shared = [item for item in first if item in second]
    if not shared:
        return None
    found = paired_bootstrap([first[item] for item in shared], [second[item] for item in shared], seed)
    return {"n": len(shared), "difference": found.estimate, "low": found.low, "high": found.high}


def _rows(evaluation: Mapping[str, Any], task: str) -> list[dict[str, Any]]:
    return evaluation.get("tasks", {}).get(task, {}).get("results", [])  # type: ignore[no-any-return]


def _scores(rows: Sequence[Mapping[str, Any]], threshold: float | None) -> dict[str, float]:
    """1.0 or 0.0 per prompt, or without a threshold the score; one that could not be judged (``infra_error``) is left
    out, it is no wrong answer."""
    return {
        item["id"]: item["score"] if threshold is None else float(item["score"] >= threshold)
        for item in rows
        if item.get("status", "infra_error") != "infra_error"
    }


def _sampled(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {item["id"]: item["sampled_right"] for item in rows if item.get("sampled_right") is not None}
