"""What a judge's word is worth, measured before anything learns from it; ``measures.py`` says how."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trivium.config import JudgeConfig
from trivium.errors import UserError
from trivium.feedback.judges.base import Answer, Comparison, Score
from trivium.feedback.judges.measures import (
    comparison_measures,
    people_measures,
    score_measures,
    score_verdict,
    verdict,
)
from trivium.feedback.judges.pairs import Item

if TYPE_CHECKING:
    from trivium.feedback.judges.judge import Judge

AT_ONCE = 100  # pairs asked about at a time, so that a user sees how far it is


@dataclass(frozen=True)
class Contradiction:
    """A pair of which the judge prefers the one answer in one order and the other in the other. ``size`` in (0, 1]: how
    far the probabilities of the two orders are apart."""

    item: Item
    size: float


def contradictions(items: Sequence[Item], comparisons: Sequence[Comparison]) -> list[Contradiction]:
    """Those of ``comparisons`` whose orders name different answers, the worst first."""
    found = [
        Contradiction(item, abs(answer.forward - answer.backward))
        for item, answer in zip(items, comparisons, strict=True)
        if answer.probability is not None
        and answer.forward is not None
        and answer.backward is not None
        and verdict(answer.forward, 0.0) * verdict(answer.backward, 0.0) < 0
    ]
    return sorted(found, key=lambda contradiction: -contradiction.size)


def audit(
    judge: "Judge",
    items: Sequence[Item],
    config: JudgeConfig,
    ask: Sequence[str] = ("compare",),
    seed: int = 0,
    on_asked: Callable[[int], None] = lambda number: None,
) -> tuple[dict[str, Any], list[Contradiction]]:
    """Ask ``judge`` about ``items``. The content of ``audit.json``, and where the judge contradicts itself.

    ``on_asked`` is told the number of pairs asked about so far, in each way.

    Raises:
        UserError: it gave no verdict at all; BudgetSpent where its budget ends, the finished calls kept.
    """
    asked: dict[str, Any] = {}
    said: list[int | None] = []
    found: list[Contradiction] = []
    if "compare" in ask:
        comparisons: list[Comparison] = []
        for part in _parts(items):
            comparisons += judge.compare([item.pair for item in part])
            on_asked(len(comparisons))
        _refuse_silence(judge, [comparison.missing for comparison in comparisons])
        asked["compare"] = comparison_measures(items, comparisons, tie_margin=config.tie_margin, seed=seed)
        found = contradictions(items, comparisons)
        said = [None if c.probability is None else verdict(c.probability, config.tie_margin) for c in comparisons]
    if "score" in ask:
        scores: list[tuple[Score, Score]] = []
        for part in _parts(items):
            flat = judge.score([Answer(item.prompt, response.text) for item in part for response in item.responses])
            scores += zip(flat[::2], flat[1::2], strict=True)
            on_asked(len(items) * len(asked) + len(scores))
        _refuse_silence(judge, [one.missing or other.missing for one, other in scores])
        asked["score"] = score_measures(items, scores, seed=seed)
        said = said or [score_verdict(one, other) for one, other in scores]
    answered = [number for number, own in enumerate(said) if own is not None]
    people = people_measures([items[n] for n in answered], [own for own in said if own is not None], seed)
    reference = "rankings" if all(item.gold is None for item in items) else "gold"
    chance = no_better_than_chance(asked)
    report = {
        "judge": {
            "name": judge.name,
            "identity": judge.identity,
            "constitution": judge.constitution.name,
            "principles": config.principles,
            "both_orders": config.both_orders,
        },
        "reference": reference,
        "asked": asked,
        "annotators": people,
        "usage": judge.usage.as_dict(),
        "contradictions": len(found),
        "chance": chance,
    }
    return report | {"told": told(report)}, found


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]


def _refuse_silence(judge: "Judge", reasons: Sequence[str]) -> None:
    if reasons and all(reasons):
        common = Counter(reasons).most_common(1)[0][0]
        raise UserError(
            f"{judge.name} gave no verdict on any of {len(reasons)} pairs ({common}); `trivium judge log` shows "
            "what it was asked and answered; name another model, or another constitution"
        )


def no_better_than_chance(asked: Mapping[str, Any]) -> bool:
    """Whether nothing shows that the judge is better than chance: its interval of kappa reaches 0, or there is none."""
    kappa = (asked.get("compare") or asked["score"])["kappa"]
    return kappa is None or kappa["low"] is None or kappa["low"] <= 0


def told(report: Mapping[str, Any]) -> str:
    """The verdict as one sentence."""
    measured = report["asked"].get("compare") or report["asked"]["score"]
    whom = "the gold scores" if report["reference"] == "gold" else "the annotators"
    agreement, kappa = measured["agreement"], measured["kappa"]
    if agreement is None or kappa is None:
        return f"{report['judge']['name']} cannot be measured on {measured['n']} pairs, of which {whom} order too few."
    sentence = (
        f"{report['judge']['name']} agrees with {whom} on {agreement['estimate']:.1%} of what they order "
        f"({measured['n']} pairs), kappa {interval_text(kappa)}: "
    )
    people = report["annotators"]
    if report["chance"]:
        return sentence + "no better than chance, so that nothing should learn from it."
    if people["kappa"] and people["judge"]["kappa"]:
        beside = f"; annotators reach {interval_text(people['kappa'])} among themselves, and it "
        beside += f"{interval_text(people['judge']['kappa'])} with them"
    else:
        beside = ""
    return f"{sentence}better than chance{beside}."


def clause(report: Mapping[str, Any]) -> str:
    """The same for the line that ends a stage."""
    measured = report["asked"].get("compare") or report["asked"]["score"]
    better = "no better than chance" if report["chance"] else "better than chance"
    name = report["judge"]["name"]
    return f"{measured['n']} pairs judged by {name} (kappa {interval_text(measured['kappa'])}, {better})"


def interval_text(value: Mapping[str, float | None] | None, sign: str = "") -> str:
    """
    >>> interval_text({"estimate": 0.5, "low": 0.25, "high": 0.75})
    '0.500 [0.250, 0.750]'
    """
    if value is None:
        return "-"
    numbers = [
        f"{number:{sign}.3f}" for number in (value["estimate"], value["low"], value["high"]) if number is not None
    ]
    return numbers[0] + (f" [{numbers[1]}, {numbers[2]}]" if len(numbers) == 3 else "")
