"""Gold against proxy along the KL: the two published forms fitted seed by seed, and what follows over seeds."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trivium.evaluation.intervals import Evidence, over_seeds
from trivium.evaluation.overoptimisation import CLEAR, FORMS, fit, peak_of
from trivium.report.loading import mapping, number
from trivium.studies.paired import Values

Point = dict[str, float]  # kl (nats a response), proxy and gold (gains over the start; either may be missing)


@dataclass(frozen=True)
class CurveFit:
    """One curve of one label: its points by seed, and the fitted forms.

    ``alpha``, ``beta`` and ``aic`` are over seeds, by form; ``aic_difference`` is rl less best_of_n: above 0 speaks for
    best_of_n. ``better`` is the form that fits better, None where the data cannot tell. ``peak_kl`` is that of the
    form with mean parameters, ``peaks`` those of each seed.
    """

    label: str
    curve: str
    kind: str
    points: dict[Hashable, list[Point]]
    alpha: dict[str, Evidence]
    beta: dict[str, Evidence]
    aic_difference: Evidence | None
    better: str | None
    peaks: dict[Hashable, float]  # of each seed, the KL of the highest fitted gain within what was measured

    @property
    def fitted(self) -> int:
        """How many seeds have enough points."""
        return len(self.peaks)

    @property
    def inside(self) -> int:
        """In how many seeds the peak lies within the KL measured."""
        ends = {seed: max(point["kl"] for point in self.points[seed] if "gold" in point) for seed in self.peaks}
        return sum(peak < ends[seed] for seed, peak in self.peaks.items())

    @property
    def form(self) -> str:
        """The form to show: the better one, or where that is open the one of its kind."""
        return self.better or self.kind

    @property
    def largest_kl(self) -> float:
        return max((point["kl"] for points in self.points.values() for point in points), default=0.0)

    @property
    def peak_kl(self) -> float | None:
        """Where the shown form is highest; None where it never turns down, or nothing was fitted."""
        if self.form not in self.alpha:
            return None
        peak = peak_of(self.form, self.alpha[self.form].estimate, self.beta[self.form].estimate)
        return None if peak is None else min(peak, 1e150) ** 2


def fits_of(study: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[CurveFit]:
    """Every curve of every label, in the order of the rows; a curve that two labels share is taken once for each."""
    groups: dict[tuple[str, str], dict[Hashable, list[Point]]] = {}
    kinds = {name: str(mapping(config).get("kind")) for name, config in mapping(study.get("curves")).items()}
    for row in rows:
        for name, entry in mapping(row.get("curves")).items():
            kinds.setdefault(name, str(mapping(entry).get("kind")))
            points = [found for raw in mapping(entry).get("points") or [] if (found := _point(mapping(raw)))]
            if points:
                ordered = sorted(points, key=lambda point: point["kl"])
                groups.setdefault((str(row["label"]), name), {})[row["seed"]] = ordered
    return [_fit(label, name, kinds[name], points) for (label, name), points in groups.items()]


def _point(raw: Mapping[str, Any]) -> Point | None:
    kl, gold, proxy = (number(raw.get(key)) for key in ("kl", "gold", "proxy"))
    if kl is None or kl < 0:
        return None
    return {"kl": kl} | ({} if gold is None else {"gold": gold}) | ({} if proxy is None else {"proxy": proxy})


def _fit(label: str, name: str, kind: str, points: dict[Hashable, list[Point]]) -> CurveFit:
    alphas: dict[str, Values] = {form: {} for form in FORMS}
    betas: dict[str, Values] = {form: {} for form in FORMS}
    apart: Values = {}
    peaks: dict[str, dict[Hashable, float]] = {form: {} for form in FORMS}
    for seed, along in points.items():
        with_gold = [point for point in along if "gold" in point]
        kl, gold = ([point[key] for point in with_gold] for key in ("kl", "gold"))
        found = {form: fit(kl, gold, form) for form in FORMS}
        done = {form: value for form, value in found.items() if value is not None}
        if len(done) < len(FORMS):
            continue
        for form, value in done.items():
            alphas[form][seed], betas[form][seed] = value.alpha, value.beta
            peaks[form][seed] = max(kl) if value.peak is None else min(value.peak**2, max(kl))
        apart[seed] = done["rl"].aic - done["best_of_n"].aic
    fitted = {form: (over_seeds(alphas[form]), over_seeds(betas[form])) for form in FORMS if alphas[form]}
    difference = over_seeds(apart) if apart else None
    better = None
    # One seed has no interval: there the rule of thumb for a single fit stands alone.
    if difference is not None and abs(difference.estimate) >= CLEAR:
        low, high = difference.low, difference.high
        if low is None or high is None or low > 0 or high < 0:
            better = "best_of_n" if difference.estimate > 0 else "rl"
    return CurveFit(
        label=label,
        curve=name,
        kind=kind if kind in FORMS else "rl",
        points=points,
        alpha={form: pair[0] for form, pair in fitted.items()},
        beta={form: pair[1] for form, pair in fitted.items()},
        aic_difference=difference,
        better=better,
        peaks=peaks[better or (kind if kind in FORMS else "rl")],
    )


def _at_the_ends(curve: CurveFit) -> bool:
    def end(seed: Hashable) -> float:
        return max(point["kl"] for point in curve.points[seed] if "gold" in point)

    return all(peak <= 0 or peak >= end(seed) for seed, peak in curve.peaks.items())


def derived(fits: Iterable[CurveFit]) -> dict[str, tuple[str, str, dict[str, Values]]]:
    """Numbers of a curve that labels can be compared by: name -> (title, better, label -> seed -> number).

    ``CURVE/best`` is the highest gold gain measured, ``CURVE/last`` the gold gain at the largest KL, ``CURVE/gap`` the
    proxy less the gold gain there, ``CURVE/peak`` the KL of the highest fitted gain within what was measured; not where
    training's fits rise, or fall, from end to end in every seed: how far it went would be compared.
    """
    found: dict[str, tuple[str, str, dict[str, Values]]] = {}
    for curve in fits:
        best: Values = {}
        last: Values = {}
        gap: Values = {}
        peak: Values = {} if curve.kind == "rl" and _at_the_ends(curve) else {**curve.peaks}
        for seed, points in curve.points.items():
            golds = [point for point in points if "gold" in point]
            if not golds:
                continue
            best[seed] = max(0.0, *(point["gold"] for point in golds))
            last[seed] = golds[-1]["gold"]
            if "proxy" in golds[-1]:
                gap[seed] = golds[-1]["proxy"] - golds[-1]["gold"]
        for key, title, better, values in (
            ("best", "highest gold gain", "higher", best),
            ("last", "gold gain at the largest KL", "higher", last),
            ("gap", "proxy less gold at the largest KL", "lower", gap),
            ("peak", "KL of the highest fitted gold", "higher", peak),
        ):
            if values:
                entry = found.setdefault(f"{curve.curve}/{key}", (f"{title} ({curve.curve})", better, {}))
                entry[2][curve.label] = values
    return found
