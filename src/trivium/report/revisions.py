"""Critique and revise: whether the revisions are better than the first answers, and three of them to read."""

from dataclasses import dataclass
from typing import Any

from trivium.report.judges import interval
from trivium.report.loading import Stage, mapping, number
from trivium.report.samples import prompt_text
from trivium.report.tables import Table
from trivium.report.wording import clean, decimal, signed
from trivium.streams import stream_key

SHOWN = 3  # examples
_ROUNDS = 3  # of an example


@dataclass(frozen=True)
class Step:
    """One critique and what came of it; texts are cleaned and still have to be escaped."""

    principle: str
    critique: str
    revision: str


@dataclass(frozen=True)
class Example:
    prompt: str
    first: str
    steps: list[Step]
    kept: bool
    scores: str


def sentence(stage: Stage) -> str:
    """What was made, and whether it is better by the gold score as far as the interval carries it."""
    told = {key: number(stage.summary.get(key)) for key in ("tasks", "conversations", "missing")}
    parts = []
    if told["conversations"] is not None:
        of = f" of {decimal(int(told['tasks']))} answers" if told["tasks"] is not None else ""
        parts.append(f"{decimal(int(told['conversations']))} conversations were made{of}")
    if told["missing"]:
        parts.append(f"{decimal(int(told['missing']))} had no critique or no revision")
    text = f"{'; '.join(parts)}." if parts else "No revisions yet."
    gold = _gold(stage)
    change = mapping(gold.get("difference"))
    low, high = number(change.get("low")), number(change.get("high"))
    if number(change.get("estimate")) is None or low is None or high is None:
        return text
    claim = "score higher than" if low > 0 else "score lower than" if high < 0 else "cannot be told apart from"
    return (
        f"{text} By the gold score the revisions {claim} the first answers: {signed(change['estimate'], 3)} "
        f"(95% interval {signed(low, 3)} to {signed(high, 3)})."
    )


def _gold(stage: Stage) -> dict[str, Any]:
    return mapping(stage.summary.get("gold"))


def better(stage: Stage) -> bool | None:
    """Whether the interval of the difference lies above or below 0; None where it does neither or is unknown."""
    change = mapping(_gold(stage).get("difference"))
    low, high = number(change.get("low")), number(change.get("high"))
    if low is None or high is None:
        return None
    return True if low > 0 else False if high < 0 else None


def table(stage: Stage) -> Table | None:
    """First answers against revisions under the gold scorer."""
    gold = _gold(stage)
    if number(mapping(gold.get("revised")).get("estimate")) is None:
        return None
    n = number(gold.get("n"))
    rows = [
        ["First answers", interval(gold.get("first"))],
        ["Revisions", interval(gold.get("revised"))],
        ["Revisions less first answers", interval(gold.get("difference"), sign=True)],
    ]
    of = f" of {decimal(int(n))} answers" if n is not None else ""
    return Table(f"Mean gold score{of} before and after, with 95% intervals", ["", "Gold score"], rows)


def examples(stage: Stage) -> list[Example]:
    """Three answers with their critiques and revisions, in the order of a hash of the prompt, so no one picked them."""
    whole = [(row, steps) for row in stage.revisions if (steps := _steps(row))]
    whole.sort(key=lambda found: stream_key(0, "report/revisions", clean(found[0].get("prompt"))))
    return [
        Example(
            prompt_text(row.get("prompt")), _text(row.get("first")), steps, row.get("kept") is not False, _scores(row)
        )
        for row, steps in whole[:SHOWN]
    ]


def _steps(row: dict[str, Any]) -> list[Step]:
    steps = row.get("steps")
    found = [mapping(step) for step in steps] if isinstance(steps, list) else []
    return [
        Step(clean(step.get("principle") or "", 80), _text(step.get("critique")), _text(step.get("revision")))
        for step in found
        if step.get("critique") or step.get("revision")
    ][:_ROUNDS]


def _text(value: Any) -> str:
    return "" if value is None else clean(value)


def _scores(row: dict[str, Any]) -> str:
    first, revised = number(row.get("gold_first")), number(row.get("gold_revised"))
    return "" if first is None or revised is None else f"gold {decimal(first, 2)} → {decimal(revised, 2)}"
