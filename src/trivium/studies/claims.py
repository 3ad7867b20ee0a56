"""What a study's claim comes down to, and whether the numbers bear it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trivium.evaluation.intervals import holm
from trivium.report.loading import mapping

if TYPE_CHECKING:
    from trivium.studies.analysis import Comparison, Label, Measure

CERTAIN = 0.05  # a difference is called certain where its corrected p-value is below
Outcome = Literal["supported", "contradicted", "open"]


@dataclass(frozen=True)
class Sides:
    """One comparison of the claim. ``pairs`` are labels (worse, better); several where whole series are compared.

    ``problem`` says why it cannot be made.
    """

    better: str
    worse: str
    measure: str
    pairs: list[tuple[str, str]]
    problem: str = ""


@dataclass(frozen=True)
class Verdict:
    """``parts`` has for each of the claim's comparisons its outcome and the numbers, None where there are none."""

    outcome: Outcome
    parts: list[tuple[Sides, Outcome, "Comparison | None"]]


def sides_of(study: Mapping[str, Any], labels: Sequence["Label"], main: str | None) -> list[Sides]:
    """The claim's comparisons (``holds_if`` of the study), with names turned into labels."""
    return [_sides(mapping(entry), labels, main or "") for entry in study.get("holds_if") or []]


def _sides(entry: Mapping[str, Any], labels: Sequence["Label"], main: str) -> Sides:
    better, worse, measure = str(entry.get("better")), str(entry.get("worse")), str(entry.get("measure") or main)
    found: dict[str, list[Label]] = {}
    for name in (better, worse):
        found[name] = _named(name, labels)
        if not found[name]:
            return Sides(better, worse, measure, [], f"no arm, label or model of the study is called {name!r}")
    highs, lows = found[better], found[worse]
    if len(highs) == len(lows) == 1:
        return Sides(better, worse, measure, [(lows[0].name, highs[0].name)])
    if 1 in (len(highs), len(lows)):
        one, many = (better, worse) if len(highs) == 1 else (worse, better)
        return Sides(better, worse, measure, [], f"{one!r} is one label, {many!r} several; name the like on both sides")
    by_arm = {label.arm: label.name for label in lows}
    pairs = [(by_arm[label.arm], label.name) for label in highs if label.arm in by_arm]
    problem = "" if pairs else f"{better!r} and {worse!r} have no arm in common"
    return Sides(better, worse, measure, pairs, problem)


def _named(name: str, labels: Sequence["Label"]) -> list["Label"]:
    """A label by its name; else an arm with one label; else a model at all arms that lie on the axis."""
    for found in (
        [label for label in labels if label.name == name],
        [label for label in labels if label.arm == name],
    ):
        if len(found) == 1:
            return found
    return [label for label in labels if label.model == name and label.x is not None]


def judge(sides: Sequence[Sides], measures: Mapping[str, "Measure"]) -> Verdict | None:
    """Supported where every comparison is certain as claimed, contradicted where one is certain the other way round,
    else open, as it is where arms are missing from a series. None where the study names no comparison.

    That *one* of several is the other way round happens by chance the more often the more there are, in whatever
    measures: for it the p-values of the claim's comparisons are corrected together too."""
    if not sides:
        return None
    parts: list[tuple[Sides, Outcome, Comparison | None]] = []
    all_found = [_comparison(side, measures.get(side.measure)) for side in sides]
    tested = [place for place, (found, _) in enumerate(all_found) if found is not None and found.evidence.p is not None]
    together = dict(zip(tested, holm([all_found[place][0].evidence.p for place in tested]), strict=True))  # type: ignore[union-attr, misc]
    for place, side in enumerate(sides):
        measure = measures.get(side.measure)
        found, sign = all_found[place]
        if found is None or measure is None or found.lost or not found.certain:
            parts.append((side, "open", found))
            continue
        sign = -sign if measure.better == "lower" else sign
        if sign * found.evidence.estimate > 0:
            parts.append((side, "supported", found))
        else:
            parts.append((side, "contradicted" if together[place] < CERTAIN else "open", found))
    outcomes = {outcome for _, outcome, _ in parts}
    worst: Outcome = "contradicted" if "contradicted" in outcomes else "open" if "open" in outcomes else "supported"
    return Verdict(worst, parts)


def _comparison(side: Sides, measure: "Measure | None") -> "tuple[Comparison | None, int]":
    """The comparison of a side among those of its measure, and whether it stands as claimed (1) or reversed (-1)."""
    first, second = names(side)
    for found in measure.comparisons if measure else ():
        if (found.first, found.second) == (first, second):
            return found, 1
        if (found.first, found.second) == (second, first):
            return found, -1
    return None, 1


def names(side: Sides) -> tuple[str, str]:
    """What the two sides (worse, better) are called in a comparison: their labels, or for series the claim's words."""
    return side.pairs[0] if len(side.pairs) == 1 else (f"{side.worse} (all)", f"{side.better} (all)")
