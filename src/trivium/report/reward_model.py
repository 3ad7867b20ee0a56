"""The reward models of a run: how well each orders held-out pairs, and what that is compared with."""

from typing import Any

from trivium.report.loading import Stage, mapping, number
from trivium.report.tables import Table
from trivium.report.wording import MISSING, clean, decimal, signed


def sentence(stage: Stage) -> str:
    """The claim of the section; it says only what the intervals carry."""
    pairs = mapping(stage.judging.get("pairs"))
    accuracy = number(pairs.get("accuracy"))
    if accuracy is None:
        return "The reward model has not been evaluated."
    text = (
        f"On {decimal(int(number(pairs.get('n')) or 0))} held-out pairs of answers it prefers the one that the "
        f"annotators preferred in {decimal(accuracy, 2)} of cases{_within(pairs, 'low', 'high')}"
    )
    difference, length = mapping(pairs.get("difference")), number(pairs.get("length_accuracy"))
    estimate, low, high = (number(difference.get(key)) for key in ("estimate", "low", "high"))
    if length is None or estimate is None or low is None or high is None:
        return f"{text}."
    claim = "better than" if low > 0 else "worse than" if high < 0 else "no clear difference from"
    return (
        f"{text}, {claim} a choice by length alone, which gets {decimal(length, 2)} "
        f"(difference {signed(estimate)}, 95% interval {signed(low)} to {signed(high)})."
    )


def _within(numbers: dict[str, Any], low: str, high: str) -> str:
    if number(numbers.get(low)) is None or number(numbers.get(high)) is None:
        return ""
    return f" (95% interval {decimal(numbers[low], 2)} to {decimal(numbers[high], 2)})"


def table(stage: Stage) -> Table | None:
    """All numbers on held-out pairs: a column for all of them, and one a criterion where there are several."""
    pairs = mapping(stage.judging.get("pairs"))
    if not pairs:
        return None
    criteria = {str(name): mapping(entry) for name, entry in mapping(stage.judging.get("by_criterion")).items()}
    ceilings = mapping(stage.judging.get("ceiling"))
    columns = [("All", pairs, _ceiling(ceilings, list(criteria)))]
    if len(criteria) > 1:
        columns += [(clean(name, 40), entry, mapping(ceilings.get(name))) for name, entry in criteria.items()]
    choice = stage.judging.get("baseline")
    length = f"By length alone (the {choice} wins)" if choice in ("longer", "shorter") else "By length alone"
    rows = [
        ["Pair accuracy (ties count half)", *(_estimate(entry) for _, entry, _ in columns)],
        [length, *(_estimate(e, "length_accuracy", "length_low", "length_high") for _, e, _ in columns)],
        ["Model less length", *(_difference(mapping(entry.get("difference"))) for _, entry, _ in columns)],
        ["One annotator against the others", *(_estimate(ceiling) for _, _, ceiling in columns)],
        ["Model on the same pairs", *(_estimate(mapping(ceiling.get("model"))) for _, _, ceiling in columns)],
        ["Model less annotator", *(_difference(mapping(ceiling.get("difference"))) for _, _, ceiling in columns)],
        ["Log-loss (nats; a coin has 0.693)", *(decimal(entry.get("log_loss")) for _, entry, _ in columns)],
        ["Calibration error (ECE)", *(decimal(entry.get("ece")) for _, entry, _ in columns)],
        ["Kendall’s τ-b per prompt", *(decimal(entry.get("tau_b")) for _, entry, _ in columns)],
        *(
            [name, *(decimal(_whole(entry.get(key))) for _, entry, _ in columns)]
            for name, key in (("Pairs", "n"), ("Rankings", "rankings"), ("Prompts", "prompts"))
        ),
    ]
    rows = [row for row in rows if any(cell != MISSING for cell in row[1:])]
    return Table("Held-out prompts, with 95% intervals over prompts", ["", *(name for name, _, _ in columns)], rows)


def _ceiling(ceilings: dict[str, Any], criteria: list[str]) -> dict[str, Any]:
    """The ceiling for all pairs: told as such, or that of the only criterion."""
    alone = criteria[0] if len(criteria) == 1 else next(iter(ceilings), "") if len(ceilings) == 1 else ""
    return mapping(ceilings.get("all") or ceilings.get(alone))


def under_policy(stage: Stage) -> str:
    """How the scores of a policy's answers vary, which is what a policy can learn from; empty where unknown."""
    policy = mapping(stage.judging.get("policy"))
    within, between = number(policy.get("std_within")), number(policy.get("std_between"))
    if within is None or between is None:
        return ""
    return (
        f"Scores of answers that the policy samples vary by {decimal(within, 2)} (standard deviation) among the "
        f"answers to one prompt, which is what it can learn from, and by {decimal(between, 2)} between prompts."
    )


def _whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _estimate(entry: dict[str, Any], key: str = "accuracy", low: str = "low", high: str = "high") -> str:
    if number(entry.get(key)) is None:
        return MISSING
    bounds = ""
    if number(entry.get(low)) is not None and number(entry.get(high)) is not None:
        bounds = f" ({decimal(entry[low])} to {decimal(entry[high])})"
    return decimal(entry[key]) + bounds


def _difference(entry: dict[str, Any]) -> str:
    if number(entry.get("estimate")) is None:
        return MISSING
    return f"{signed(entry['estimate'], 3)} ({signed(entry.get('low'), 3)} to {signed(entry.get('high'), 3)})"


def section_table(stage: Stage) -> Table | None:
    """Pair accuracy by section of the held-out prompts."""
    sections = {str(name): mapping(entry) for name, entry in mapping(stage.judging.get("sections")).items()}
    if len(sections) < 2:
        return None
    rows = [[clean(name, 60), decimal(_whole(e.get("n"))), _estimate(e)] for name, e in sections.items()]
    return Table("Pair accuracy by section of the held-out prompts", ["Section", "Pairs", "Accuracy"], rows)


def bins(stage: Stage, key: str, *needed: str) -> list[dict[str, Any]]:
    """The bins of ``reliability`` or ``by_margin`` that have pairs and all ``needed`` numbers."""
    entries = stage.judging.get(key)
    found = [mapping(entry) for entry in entries] if isinstance(entries, list) else []
    return [e for e in found if number(e.get("n")) and all(number(e.get(name)) is not None for name in needed)]


def best_of_n(stage: Stage) -> dict[str, Any] | None:
    """The best-of-n curve, if it is whole and has more than one n."""
    curve = mapping(stage.judging.get("best_of_n"))
    columns = [curve.get(key) for key in ("n", "kl", "proxy", "gold")]
    lengths = {len(column) if isinstance(column, list) else 0 for column in columns}
    if len(lengths) > 1 or min(lengths) < 2:
        return None
    whole = all(number(value) is not None for column in columns if isinstance(column, list) for value in column)
    return curve if whole else None
