"""What the watch of an RL stage saw: the scores on a common scale, and what may be said of them in a sentence."""

import math
from dataclasses import dataclass
from typing import Any

from trivium.evaluation.overoptimisation import compare
from trivium.report.loading import Stage, mapping, number
from trivium.report.tables import Table
from trivium.report.wording import clean, decimal, signed

NAMES = {"proxy": "Proxy", "held_out": "Held-out score", "gold": "Gold score"}
IN_TEXT = {"proxy": "proxy", "held_out": "held-out score", "gold": "gold score"}
COLOURS = {"proxy": 2, "held_out": 1, "gold": 3}  # index of the series
FIT_NAMES = {"rl": "d\u00a0(α\u00a0−\u00a0β\u00a0ln\u00a0d)", "best_of_n": "d\u00a0(α\u00a0−\u00a0β\u00a0d)"}


@dataclass(frozen=True)
class Score:
    """One score through training: ``points`` are (step, change since the first observation, error), on ``unit``."""

    key: str
    points: list[tuple[float, float, float]]

    @property
    def name(self) -> str:
        return NAMES[self.key]


@dataclass(frozen=True)
class Watched:
    """A watch as the charts need it. ``in_deviations``: changes are in standard deviations of the first observation's
    responses; otherwise each score is divided by its own largest change."""

    scores: list[Score]
    in_deviations: bool
    kl: list[tuple[float, float]]
    length: list[tuple[float, float]]
    judge: str | None
    best: int | None
    kept: int | None
    stopped: str
    last: int


def watched(stage: Stage) -> Watched | None:
    """The watch of a stage; None where it observed nothing or less than two steps."""
    rows = observations(stage)
    if len(rows) < 2:
        return None
    keys = [key for key in NAMES if sum(number(row.get(key)) is not None for row in rows) > 1]
    if not keys:
        return None
    firsts = {key: next(row for row in rows if number(row.get(key)) is not None) for key in keys}
    deviations = {key: number(first.get(f"{key}_std")) or 0.0 for key, first in firsts.items()}
    in_deviations = all(value > 0 for value in deviations.values())
    scores = []
    for key in keys:
        start = firsts[key][key]
        changes = [(row["step"], row[key] - start, row) for row in rows if number(row.get(key)) is not None]
        unit = deviations[key] if in_deviations else max(abs(change) for _, change, _ in changes) or 1.0
        scores.append(
            Score(key, [(step, c / unit, (number(row.get(f"{key}_se")) or 0.0) / unit) for step, c, row in changes])
        )
    best, kept = number(stage.watch.get("best_step")), number(stage.watch.get("kept_step"))
    return Watched(
        scores=scores,
        in_deviations=in_deviations,
        kl=_series(rows, "kl"),
        length=_series(rows, "length"),
        judge=_judge(stage, rows),
        best=None if best is None else int(best),
        kept=None if kept is None else int(kept),
        stopped=clean(stage.watch.get("stopped") or "", 300),
        last=int(rows[-1]["step"]),
    )


def observations(stage: Stage) -> list[dict[str, Any]]:
    rows = stage.watch.get("observations")
    return [row for row in rows if number(mapping(row).get("step")) is not None] if isinstance(rows, list) else []


def _series(rows: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(row["step"], value) for row in rows if (value := number(row.get(key))) is not None]


def _judge(stage: Stage, rows: list[dict[str, Any]]) -> str | None:
    named = stage.watch.get("judge")
    if named in ("held_out", "gold"):
        return str(named)
    return next((key for key in ("held_out", "gold") if any(number(row.get(key)) is not None for row in rows)), None)


FALL = "below its best"  # in the reason of a watch that stopped for a fall
LAST = 3  # observations at the end that must all say that a score fell


@dataclass(frozen=True)
class Reading:
    """A score at its best and at the end, both beside the proxy of that moment.

    ``fell``: it ends below its best by more than twice the noise, and the last three observations lie below it by more
    than the noise. The best of many noisy values lies above their mean, so less than that would be seen by chance.
    """

    best: dict[str, Any]
    last: dict[str, Any]
    fall: float
    fell: bool

    @property
    def diverged(self) -> bool:
        return self.fell and self.last["proxy"] > self.best["proxy"]


def reading(rows: list[dict[str, Any]], key: str) -> Reading | None:
    """Compares the end with the best of what was observed."""
    known = [row for row in rows if number(row.get(key)) is not None and number(row.get("proxy")) is not None]
    if len(known) < 2:
        return None
    best, last = max(known, key=lambda row: (row[key], -row["step"])), known[-1]
    fall = best[key] - last[key]
    lower = [best[key] - row[key] > _noise(best, row, key) for row in known[-LAST:]]
    return Reading(best, last, fall, all(lower) and fall > 2 * _noise(best, last, key))


def _noise(first: dict[str, Any], second: dict[str, Any], key: str) -> float:
    """One standard error of the difference of two observed scores."""
    return math.hypot(*(number(row.get(f"{key}_se")) or 0.0 for row in (first, second)))


def sentences(stage: Stage) -> list[str]:
    """Whether the stage over-optimised, why it stopped, and how the gold score fared; the first one is the answer."""
    rows = observations(stage)
    judge = _judge(stage, rows)
    found = reading(rows, judge) if judge else None
    kept, stopped = number(stage.watch.get("kept_step")), stage.watch.get("stopped")
    if judge is None or found is None:
        said = ["Nothing but the proxy was observed, so whether it was over-optimised cannot be seen here."]
    else:
        said = [_answer(found, judge, None if kept is None else int(kept), FALL in str(stopped))]
    if stopped and found is not None and FALL in str(stopped):
        said.append("The watch ended the stage there.")  # the answer has said why
    elif stopped:
        said.append(f"The watch ended the stage: {clean(stopped, 300)}.")
    if judge == "held_out" and (gold := reading(rows, "gold")):
        said.append(_gold(gold, rows, kept))
    return said


def _answer(found: Reading, judge: str, kept: int | None, ended: bool) -> str:
    """``ended``: the watch ended the stage for a fall of the judge."""
    name, best, last = IN_TEXT[judge], found.best, found.last
    proxy = f"from {decimal(best['proxy'])} to {decimal(last['proxy'])}"
    peak = f"peaked at step {best['step']:.0f}" if best["step"] else "never rose above its start"
    keep = f": the checkpoint of step {kept} was kept" if kept is not None else ""
    if ended and not found.fell:
        return (
            f"Perhaps over-optimised: the {name} {peak} ({decimal(best[judge])}) and ended {decimal(found.fall)} "
            f"lower, which is less than twice its noise, while the proxy rose {proxy}{keep}."
        )
    if found.diverged:
        return (
            f"Over-optimised: the {name} {peak} ({decimal(best[judge])}) and fell by {decimal(found.fall)} until step "
            f"{last['step']:.0f}, while the proxy rose {proxy}{keep}."
        )
    if found.fell:
        return (
            f"No over-optimisation, but training that lost ground: the {name} fell by {decimal(found.fall)} from its "
            f"best at step {best['step']:.0f}, and the proxy with it, {proxy}."
        )
    if last is best:
        end = f"ended at its best ({decimal(best[judge])})"
    else:
        top = f"{decimal(best[judge])} at step {best['step']:.0f}"
        end = f"ended at {decimal(last[judge])}, no clear fall from its best ({top})"
    return f"No clear sign of over-optimisation: the {name} {end}."


def _gold(found: Reading, rows: list[dict[str, Any]], kept: float | None) -> str:
    best = found.best
    text = (
        f"The gold score, which took no part in the decision, was highest at step {best['step']:.0f} "
        f"({decimal(best['gold'])})"
    )
    at_kept = next((row for row in rows if row["step"] == kept and number(row.get("gold")) is not None), None)
    if at_kept is None or at_kept is best:
        return text + (" and is the one that was kept." if at_kept is best else ".")
    gap = best["gold"] - at_kept["gold"]
    much = "within its noise" if gap <= _noise(best, at_kept, "gold") else signed(-gap, 3)
    return f"{text}; the kept step {at_kept['step']:.0f} has {decimal(at_kept['gold'])} ({much})."


@dataclass(frozen=True)
class AgainstKL:
    """A true score and the proxy against d = sqrt(KL), as (d, change) on the scale of the chart above; and the fit."""

    key: str
    points: dict[str, list[tuple[float, float]]]
    fit: dict[str, Any] | None
    form: str  # whose line is drawn

    @property
    def sentence(self) -> str:
        """What the fit says."""
        return fit_sentence(self.fit, IN_TEXT[self.key], self.form)


def against_kl(found: Watched, seed: int) -> AgainstKL | None:
    """The gold score (or the held-out one, where there is no gold) against the KL; None without either or a KL."""
    kl = dict(found.kl)
    by_key = {score.key: score for score in found.scores}
    key = next((name for name in ("gold", "held_out") if name in by_key), None)
    if key is None or len(kl) < 3:
        return None
    points = {
        name: [(math.sqrt(max(0.0, kl[step])), change) for step, change, _ in by_key[name].points if step in kl]
        for name in (key, "proxy")
        if name in by_key
    }
    fit = compare([d * d for d, _ in points[key]], [change for _, change in points[key]], seed=seed)
    form = "rl" if fit is None or fit["better"] is None else str(fit["better"])
    return AgainstKL(key, points, fit, form)


def fit_sentence(fit: dict[str, Any] | None, name: str, form: str) -> str:
    """What the fitted forms say, and what they cannot."""
    if fit is None:
        return "There are too few points with different KL for a fit."
    own = mapping(fit.get(form))
    peak = mapping(own.get("peak_kl"))
    falls = fit.get("falls")
    if falls is True:
        head = f"By the fit the {name} turns down within the measured KL, with its peak near {_nats(peak)}"
    elif falls is False:
        head = f"By the fit the {name} does not turn down within the measured KL"
    else:
        head = f"Whether the {name} turns down within the measured KL cannot be told from these points"
    if fit.get("better") is None:
        better = "The two known forms fit alike"
    else:
        better = f"{FIT_NAMES[str(fit['better'])]} fits better than the other known form"
    narrow = (
        " Its intervals come from points of one run, which depend on each other: they are too narrow."
        if fit.get("resampled") == "points"
        else ""
    )
    return f"{head}. {better} (R² {decimal(own.get('r2'), 2)}).{narrow}"


def fit_table(fit: dict[str, Any]) -> Table:
    """The parameters of both forms with their intervals."""
    rows = []
    for form, words in FIT_NAMES.items():
        own = mapping(fit.get(form))
        alpha, beta = (_with_bounds(mapping(own.get(key))) for key in ("alpha", "beta"))
        rows.append([words, alpha, beta, decimal(own.get("r2"), 2), decimal(own.get("aic"), 1)])
    return Table("Gain as a function of d = √KL (Gao, Schulman and Hilton, 2022)", ["", "α", "β", "R²", "AIC"], rows)


def _with_bounds(entry: dict[str, Any]) -> str:
    return f"{decimal(entry.get('estimate'), 2)}\n({decimal(entry.get('low'), 2)} to {decimal(entry.get('high'), 2)})"


def _nats(peak: dict[str, Any]) -> str:
    low, high = (number(peak.get(key)) for key in ("low", "high"))
    upper = decimal(high, 2) if high is not None else "∞"
    return f"{decimal(peak.get('estimate'), 2)} nats (95% interval {decimal(low, 2)} to {upper})"
