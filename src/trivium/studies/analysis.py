"""The numbers of a study: means, paired differences, corrected for their number, from ``results.json`` alone.

``analyse`` is a pure function of that file's contents. Nothing here trains, and nothing is drawn.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from trivium.errors import UserError
from trivium.evaluation.intervals import Evidence, holm, over_seeds, wilson
from trivium.files import read_json
from trivium.report.loading import mapping, number
from trivium.studies.claims import CERTAIN, Sides, Verdict, judge, names, sides_of
from trivium.studies.fits import CurveFit, derived, fits_of
from trivium.studies.paired import Values, differences, mean_of, pooled

DONE = ("finished", "ended_by_budget")


@dataclass(frozen=True)
class Label:
    """What one row of a table is about: an arm, measured at one model. ``states`` counts its seeds by status."""

    name: str
    arm: str
    model: str
    x: float | None
    about: str
    states: dict[str, int]
    reasons: list[str]

    @property
    def missing(self) -> int:
        """How many seeds came to no number."""
        return sum(count for state, count in self.states.items() if state not in DONE)


@dataclass(frozen=True)
class Comparison:
    """``second`` less ``first`` over common seeds and items; ``p`` is corrected for the family, None with one seed.
    ``lost``: how many pairs of two series had no seed in common and are not in it."""

    first: str
    second: str
    evidence: Evidence
    p: float | None = None
    lost: int = 0

    @property
    def certain(self) -> bool:
        return self.p is not None and self.p < CERTAIN


@dataclass(frozen=True)
class Measure:
    """One measure of all labels. ``better`` is higher, lower or neither; ``derived`` from a curve, not of a model."""

    name: str
    title: str
    better: str
    values: dict[str, Values]  # by label
    means: dict[str, Evidence]
    comparisons: list[Comparison]
    derived: bool = False

    def of_seed(self, label: str, seed: Hashable) -> float | None:
        """The mean of one seed."""
        value = self.values.get(label, {}).get(seed)
        return None if value is None else mean_of(value)


@dataclass(frozen=True)
class Analysis:
    """All that figures, findings and page are made of."""

    study: dict[str, Any]
    results: dict[str, Any]
    seeds: list[int]
    labels: list[Label]
    measures: list[Measure]
    costs: dict[str, dict[str, float]]  # by label: tokens, generated, seconds, shared_seconds, means over seeds
    fits: list[CurveFit] = field(default_factory=list)
    verdict: Verdict | None = None

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(label.model for label in self.labels))

    @property
    def on_axis(self) -> list[Label]:
        """The labels of arms that lie on an axis, from left to right, model by model."""
        found = [label for label in self.labels if label.x is not None]
        return sorted(found, key=lambda label: (self.models.index(label.model), label.x or 0.0))


def load(directory: Path) -> dict[str, Any]:
    """``results.json`` of a study. Raises :class:`UserError` where there is none."""
    found = read_json(directory / "results.json")
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list) or not mapping(found.get("study")):
        raise UserError(f"{directory} holds no results of a study; run `trivium study NAME -d {directory}` first")
    return found


def analyse(results: Mapping[str, Any]) -> Analysis:
    """Everything that can be said of ``results`` (the contents of ``results.json``)."""
    study = dict(mapping(results["study"]))
    rows = [row for row in results["rows"] if isinstance(row, dict)]
    labels = _labels(study, rows)
    fits = fits_of(study, [row for row in rows if row.get("status") in DONE])
    tables = {
        name: (_title(name, mapping(config)), str(mapping(config).get("better", "higher")), _values(rows, name), False)
        for name, config in mapping(study.get("measures")).items()
    }
    for name, (title, better, values) in derived(fits).items():
        tables[name] = (title, better, values, True)
    sides = sides_of(study, labels, next(iter(tables), None))
    measures = []
    for name, (title, better, values, is_derived) in tables.items():
        asked = [side for side in sides if side.measure == name]
        compared = _compare(_pairs(study, labels), asked, values)
        means = {label: over_seeds(found) for label, found in values.items() if found}
        if is_share(mapping(mapping(study.get("measures")).get(name))):
            means = {label: of_share(found) for label, found in means.items()}
        measures.append(Measure(name, title, better, values, means, compared, is_derived))
    return Analysis(
        study=study,
        results=dict(results),
        seeds=[seed for seed in results.get("seeds", []) if isinstance(seed, int)],
        labels=labels,
        measures=measures,
        costs=_costs(rows),
        fits=fits,
        verdict=judge(sides, {measure.name: measure for measure in measures}),
    )


def is_share(measure: Mapping[str, Any]) -> bool:
    """Whether its values lie between 0 and 1: right answers to a task."""
    return bool(measure.get("task")) and not measure.get("kl_to") and measure.get("value") != "score"


def of_share(found: Evidence) -> Evidence:
    """``found``, its interval cut to where a share can lie, which costs it no coverage. Of a share that is 0 or 1
    throughout, the interval is Wilson's for the distinct items: that no item of a few was right does not make it 0."""
    if found.low is not None and found.high is not None and found.low < found.high:
        return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))
    if found.items and found.estimate in (0.0, 1.0):
        _, low, high = wilson(round(found.estimate * found.items), found.items)
        return found._replace(low=low, high=high)
    return found


def _title(name: str, config: Mapping[str, Any]) -> str:
    label, unit = config.get("label") or name.replace("_", " "), config.get("unit")
    return f"{label} ({unit})" if unit else str(label)


def _labels(study: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[Label]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row["label"]), []).append(row)
    found = []
    for name, group in groups.items():
        states: dict[str, int] = {}
        for row in group:
            states[str(row.get("status"))] = states.get(str(row.get("status")), 0) + 1
        about = mapping(mapping(study.get("arms")).get(group[0]["arm"])).get("about", "")
        found.append(
            Label(
                name=name,
                arm=str(group[0]["arm"]),
                model=str(group[0]["model"]),
                x=number(group[0].get("x")),
                about=str(about),
                states=states,
                reasons=list(dict.fromkeys(str(row["reason"]) for row in group if row.get("reason"))),
            )
        )
    order = list(mapping(study.get("arms")))
    return sorted(found, key=lambda label: order.index(label.arm) if label.arm in order else len(order))


def _values(rows: Iterable[Mapping[str, Any]], measure: str) -> dict[str, Values]:
    """label -> seed -> the number, or the numbers of its items where there are any."""
    found: dict[str, Values] = {}
    for row in rows:
        entry = mapping(mapping(row.get("measures")).get(measure))
        items = {key: value for key, raw in mapping(entry.get("items")).items() if (value := number(raw)) is not None}
        value = number(entry.get("value"))
        if row.get("status") in DONE and (items or value is not None):
            found.setdefault(str(row["label"]), {})[row["seed"]] = items or value  # type: ignore[assignment]
    return found


def _pairs(study: Mapping[str, Any], labels: list[Label]) -> list[tuple[str, str]]:
    """Which labels are compared. Models of different arms meet where they are the same, or an arm has but one."""
    size = {label.arm: sum(other.arm == label.arm for other in labels) for label in labels}
    how = study.get("compare", "all")
    found = []
    for first, second in combinations(labels, 2):
        if how == "models":
            wanted = first.arm == second.arm
        else:
            alike = first.model == second.model or 1 in (size[first.arm], size[second.arm])
            wanted = first.arm != second.arm and alike and (how == "all" or first.arm == labels[0].arm)
        if wanted:
            found.append((first.name, second.name))
    return found


def _compare(pairs: list[tuple[str, str]], asked: list[Sides], values: Mapping[str, Values]) -> list[Comparison]:
    """The differences of all pairs and of the claim's own, with p-values corrected for their number together."""
    found = {pair: differences(values.get(pair[0], {}), values.get(pair[1], {})) for pair in pairs}
    lost: dict[tuple[str, str], int] = {}
    for side in asked:
        pair = names(side)
        if side.pairs and pair not in found and pair[::-1] not in found:
            each = [differences(values.get(worse, {}), values.get(better, {})) for worse, better in side.pairs]
            found[pair], lost[pair] = pooled([one for one in each if one]), sum(not one for one in each)
    evidence = {pair: over_seeds(by_seed) for pair, by_seed in found.items() if by_seed}
    tested = {pair: one.p for pair, one in evidence.items() if one.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [Comparison(*pair, one, adjusted.get(pair), lost.get(pair, 0)) for pair, one in evidence.items()]


def _costs(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """What each label cost, means over the seeds that came to a number."""
    sums: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row.get("status") not in DONE:
            continue
        for key, raw in mapping(row.get("cost")).items():
            value = number(raw)
            if value is not None:
                sums.setdefault(str(row["label"]), {}).setdefault(key, []).append(value)
    return {label: {key: sum(each) / len(each) for key, each in found.items()} for label, found in sums.items()}
