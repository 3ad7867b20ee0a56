"""What an RL stage did to the scores it did not train on, and how its majority votes went."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from trivium.report.canvas import GLYPHS
from trivium.report.curves import thin
from trivium.report.loading import Stage, number
from trivium.report.wording import clean, decimal

REWARD = 2  # the colour of what is trained on, as in the over-optimisation chart
_OTHERS = (3, 1, 4, 5, 0)
_CLEAR = 3.0  # standard errors
_LEAST = 6  # points from which a trend is told


@dataclass(frozen=True)
class Line:
    """A metric over steps: ``points`` of training and of ``held_out`` prompts; ``series`` is its colour and marker."""

    name: str
    points: list[tuple[float, float]]
    held_out: list[tuple[float, float]]
    series: int

    @property
    def told(self) -> list[tuple[float, float]]:
        """The points a trend is told by."""
        return self.points or self.held_out


@dataclass(frozen=True)
class Trend:
    """Means over the first and the last fifth of the points, and the standard error of their difference.

    The noise is estimated from the differences of successive points, which a trend hardly touches; that points of one
    run depend on each other is why a change counts as clear from three standard errors only.
    """

    start: float
    end: float
    error: float

    @property
    def direction(self) -> int:
        """1: rose, -1: fell, 0: no clear change."""
        change = self.end - self.start
        return 0 if abs(change) <= _CLEAR * self.error else 1 if change > 0 else -1

    @property
    def words(self) -> str:
        verb = {1: "rose", -1: "fell", 0: "did not clearly change,"}[self.direction]
        return f"{verb} from {decimal(self.start, 2)} to {decimal(self.end, 2)}"


def trend(points: list[tuple[float, float]]) -> Trend | None:
    """The trend of a line; None for fewer than six points."""
    values = [value for _, value in sorted(dict(points).items())]
    if len(values) < _LEAST:
        return None
    part = max(3, len(values) // 5)
    steps = [after - before for before, after in pairwise(values)]
    variance = sum(step * step for step in steps) / (2 * len(steps))
    return Trend(sum(values[:part]) / part, sum(values[-part:]) / part, math.sqrt(2 * variance / part))


def lines(stage: Stage) -> list[Line]:
    """The reward, and below it every monitor; empty where nothing was monitored."""
    metrics = list(dict.fromkeys(key for row in stage.metrics for key in row if str(key).startswith("monitor/")))
    monitors = [
        line
        for position, metric in enumerate(metrics)
        if (line := _line(stage, metric, metric.removeprefix("monitor/"), _OTHERS[position % len(_OTHERS)])).told
    ]
    reward = _line(stage, "reward", "Reward", REWARD)
    return [*([reward] if reward.told else []), *monitors] if monitors else []


def _line(stage: Stage, metric: str, name: str, series: int) -> Line:
    split: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for row in stage.metrics:
        step, value = number(row.get("step")), number(row.get(metric))
        if step is not None and value is not None:
            split[row.get("split", "train") == "train"].append((step, value))
    return Line(clean(name, 40), thin(split[True]), thin(split[False]), series)


def reading(stage: Stage) -> tuple[str, bool]:
    """What a reader must know of reward and monitors, and whether that is a warning: a reward that rises while a
    monitor falls."""
    drawn = lines(stage)
    if not drawn or drawn[0].series != REWARD:  # monitors without a reward beside them
        return "", False
    own, monitors = trend(drawn[0].told), drawn[1:]
    if own is None:
        return "There are too few steps to tell how the reward and the monitors moved.", False
    found = [(line.name, change) for line in monitors if (change := trend(line.told)) is not None]
    falling = [(name, change) for name, change in found if change.direction < 0]
    if own.direction > 0 and falling:
        told = " and ".join(f"“{name}” {change.words}" for name, change in falling)
        return f"The reward {own.words} while {told}: what is trained on and what is wanted part ways.", True
    told = "; ".join(f"“{name}” {change.words}" for name, change in found)
    return f"The reward {own.words}{'; ' + told if told else ''}.", False


def majority(stage: Stage) -> list[Line]:
    """Majority share, share of groups that abstained and accuracy of the labels by each monitor."""
    metrics = list(dict.fromkeys(key for row in stage.metrics for key in row if str(key).startswith("majority/")))
    known = {"majority/share": ("Majority share", 2), "majority/abstained": ("Abstained", 0)}
    prefix, found = "majority/label_accuracy/", []
    right = 0
    for metric in metrics:
        if metric in known:
            found.append(_line(stage, metric, *known[metric]))
        elif metric.startswith(prefix):
            found.append(
                _line(stage, metric, f"Labels right by {metric.removeprefix(prefix)}", (3, 1, 4, 5)[right % 4])
            )
            right += 1
    return [line for line in found if line.told]


def majority_sentence(stage: Stage) -> str:
    """The votes of a stage in words, with a warning where they grow surer and not righter."""
    found = majority(stage)
    if not found:
        return ""
    trends = {line.name: change for line in found if (change := trend(line.told)) is not None}
    if not trends:
        return "The answer that most of a group gave is the label. There are too few steps to tell how the votes moved."
    told = "; ".join(f"{name[0].lower()}{name[1:]} {change.words}" for name, change in trends.items())
    text = f"The answer that most of a group gave is the label, no other is used: {told}."
    share = trends.get("Majority share")
    labels = [change for name, change in trends.items() if name.startswith("Labels right")]
    if share is not None and share.direction > 0 and any(change.direction < 0 for change in labels):
        text += " The votes grew surer and the labels worse: the model agrees with itself on wrong answers."
    return text


def missing(stage: Stage) -> list[tuple[str, float]]:
    """(part of the reward, mean share of its judge's verdicts that were missing), over all steps of training."""
    shares: dict[str, list[float]] = {}
    for row in stage.metrics:
        for key, value in row.items():
            found = number(value)
            if str(key).startswith("judge/") and str(key).endswith("/missing") and found is not None:
                shares.setdefault(clean(str(key)[len("judge/") : -len("/missing")], 40), []).append(found)
    return [(name, sum(values) / len(values)) for name, values in shares.items()]


def missing_sentence(stage: Stage) -> str:
    """How often the judges of a reward gave no verdict; empty where no judge was part of it."""
    told = [f"“{name}” {100 * share:.1f}%" for name, share in missing(stage)]
    return f"Share of the judge’s verdicts that were missing, over all steps: {', '.join(told)}." if told else ""


def alt(found: list[Line], what: str) -> str:
    """The chart in words."""
    parts = [f"{line.name} from {decimal(line.told[0][1])} to {decimal(line.told[-1][1])}" for line in found]
    return f"Line chart of {what} over training steps: {'; '.join(parts)}."


def comparable(found: list[Line]) -> bool:
    """Whether all values lie within -1 and 1, so that one axis serves them all as they are."""
    return all(abs(value) <= 1.02 for line in found for _, value in [*line.points, *line.held_out])


def legend(found: list[Line]) -> list[dict[str, Any]]:
    """The keys of a chart of lines."""
    return [{"label": line.name, "series": line.series, "glyph": GLYPHS[line.series]} for line in found]
