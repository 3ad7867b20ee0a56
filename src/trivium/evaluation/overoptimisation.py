"""How the gold score falls off as the proxy is optimised: the two functional forms of Gao, Schulman and Hilton.

"Scaling Laws for Reward Model Overoptimization" (2022, arXiv 2210.10760) finds, with d the square root of the KL to the
policy at the start, a gold gain of d (alpha - beta d) for best-of-n and of d (alpha - beta ln d) for RL. Both are
linear in alpha and beta, so least squares has a closed form and a bootstrap of thousands costs nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.streams import generator

FORMS = ("best_of_n", "rl")
MIN_POINTS = 4  # two parameters are fitted, and fewer points than this would follow any curve
CLEAR = 2.0  # a difference in AIC below this is no evidence (Burnham and Anderson, 2002)
RESAMPLES = 2_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """One form fitted to points (d, gain): its parameters, how well it fits and where its peak lies."""

    form: str
    alpha: float
    beta: float
    residual: float  # sum of squares
    r2: float  # 1 - residual / spread around the mean; below 0 where the mean itself fits better
    aic: float  # points * ln(residual / points) + 2 * 3 (alpha, beta, the noise)
    peak: float | None  # the d of the highest gain; None where the form never turns down
    peak_gain: float | None


def basis(d: Floats, form: str) -> Floats:
    """[points, 2] the columns that alpha and beta multiply; 0 at d = 0, where both forms have their limit."""
    if form == "best_of_n":
        return np.stack([d, -d * d], axis=-1)
    if form == "rl":
        return np.stack([d, -d * np.log(np.where(d > 0, d, 1.0))], axis=-1)
    raise ValueError(f"the form is one of {FORMS}, not {form!r}")


def value(form: str, alpha: float, beta: float, d: Sequence[float]) -> list[float]:
    """The gain that a form gives at each d = sqrt(KL)."""
    gains: list[float] = (basis(np.asarray(d, dtype=np.float64), form) @ np.array([alpha, beta])).tolist()
    return gains


def peak_of(form: str, alpha: float, beta: float) -> float | None:
    """The d at which a form is highest (0 where it only falls); None where it has no highest point.

    >>> peak_of("best_of_n", 2.0, 0.5), round(peak_of("rl", 1.0, 1.0), 6)
    (2.0, 1.0)
    """
    if beta <= 0:
        return None
    if form == "best_of_n":
        return max(0.0, alpha / (2 * beta))
    exponent = alpha / beta - 1  # the slope is alpha - beta ln d - beta
    return math.exp(exponent) if exponent < 300 else None


def fit(kl: Sequence[float] | Floats, gain: Sequence[float] | Floats, form: str) -> Fit | None:
    """Least squares of ``form`` to the gains over KL = 0 at each ``kl`` (nats); None where the points do not fix it.

    Points at KL 0 say nothing (both forms are 0 there) and are left out. The others must have at least ``MIN_POINTS``
    distinct KL.
    """
    d, gains = _points(kl, gain)
    if np.unique(d).size < MIN_POINTS:
        return None
    columns = basis(d, form)
    solution, _, rank, _ = np.linalg.lstsq(columns, gains, rcond=None)
    if rank < 2:
        return None
    alpha, beta = (float(parameter) for parameter in solution)
    residual = float(np.sum((gains - columns @ solution) ** 2))
    spread = float(np.sum((gains - gains.mean()) ** 2))
    peak = peak_of(form, alpha, beta)
    # The floor stands for a fit that is exact up to rounding, which has no logarithm.
    floor = max(float(np.finfo(np.float64).eps ** 2 * np.sum(gains**2)), 1e-300)
    return Fit(
        form=form,
        alpha=alpha,
        beta=beta,
        residual=residual,
        r2=1 - residual / spread if spread > 0 else 0.0,
        aic=d.size * math.log(max(residual, floor) / d.size) + 2 * 3,
        peak=peak,
        peak_gain=None if peak is None else value(form, alpha, beta, [peak])[0],
    )


def _points(kl: Sequence[float] | Floats, gain: Sequence[float] | Floats) -> tuple[Floats, Floats]:
    """d = sqrt(KL) and gains of the points that have both and a KL above 0."""
    kls, gains = np.asarray(kl, dtype=np.float64), np.asarray(gain, dtype=np.float64)
    if kls.shape != gains.shape or kls.ndim != 1:
        raise ValueError("every gain needs its KL")
    kept = np.isfinite(kls) & np.isfinite(gains) & (kls > 0)
    return np.sqrt(kls[kept]), gains[kept]


def compare(
    kl: Sequence[float],
    gain: Sequence[float],
    seed: int = 0,
    resampled: Floats | None = None,
    confidence: float = 0.95,
) -> dict[str, Any] | None:
    """Both forms fitted to the same points, with bootstrap intervals, and what may be said of them. Plain data.

    ``resampled`` [resamples, points] holds the gains at the same KL in resamples of the prompts, which is the honest
    bootstrap. Without it the points themselves are resampled; along one training run they depend on each other, so
    those intervals are too narrow, and the result says ``"resampled": "points"``.

    For each form the result has ``alpha`` and ``beta`` (each with ``estimate``, ``low``, ``high``), ``r2``, ``aic``,
    ``peak_kl`` (``estimate``, ``low``, ``high``; null stands for a form, or a bound, that never turns down),
    ``peak_inside`` (whether the fitted peak lies within the measured KL) and ``falling_share`` (of the resamples, how
    many fall at the largest measured KL).

    ``better`` is the form with the lower AIC, or null where the two are within 2 of each other. ``falls`` says whether
    the gain has turned down within the measured KL, by every form that ``better`` leaves: True where all but the tail
    of the resamples (2.5% of them at 95% confidence) say so, False where no more than the tail does, else null: the
    data cannot tell. The whole result is None where the points are too few for a fit.
    """
    all_kl, all_gains = np.asarray(kl, dtype=np.float64), np.asarray(gain, dtype=np.float64)
    d, gains = _points(all_kl, all_gains)
    tail = (1 - confidence) / 2
    found: dict[str, Any] = {}
    for form in FORMS:
        fitted = fit(all_kl, all_gains, form)
        if fitted is None:
            return None
        if resampled is None:
            draws = _resample_points(d, gains, form, seed)
        else:
            # Least squares is linear in the gains: one matrix solves every resample.
            kept = np.isfinite(all_kl) & np.isfinite(all_gains) & (all_kl > 0)
            draws = np.asarray(resampled, dtype=np.float64)[:, kept] @ np.linalg.pinv(basis(d, form)).T
        found[form] = _with_intervals(fitted, draws, float(d.max()), tail)
    difference = found["rl"]["aic"] - found["best_of_n"]["aic"]
    better = None if abs(difference) < CLEAR else ("best_of_n" if difference > 0 else "rl")
    shares = [found[form]["falling_share"] for form in FORMS if better in (None, form)]
    return {
        **found,
        "points": int(d.size),
        "largest_kl": float(d.max() ** 2),
        "better": better,
        "aic_difference": difference,  # rl minus best_of_n: above 0 speaks for best_of_n
        "falls": True if min(shares) >= 1 - tail else False if max(shares) <= tail else None,
        "resampled": "points" if resampled is None else "prompts",
    }


def _resample_points(d: Floats, gains: Floats, form: str, seed: int) -> Floats:
    """[resamples, 2] alpha and beta fitted to points drawn with replacement; draws that fix no fit are left out."""
    columns = basis(d, form)
    random = generator(seed, "overoptimisation/points", d.size)
    counts = random.multinomial(d.size, np.full(d.size, 1 / d.size), size=RESAMPLES).astype(np.float64)
    # The normal equations of each draw, two by two: [aa ab; ab bb] (alpha, beta) = (ay, by).
    a, b = columns[:, 0], columns[:, 1]
    aa, ab, bb, ay, by = (counts @ product for product in (a * a, a * b, b * b, a * gains, b * gains))
    determinant = aa * bb - ab * ab
    usable = determinant > 1e-9 * aa * bb
    if not usable.any():
        return np.empty((0, 2))
    alpha = (bb * ay - ab * by)[usable] / determinant[usable]
    beta = (aa * by - ab * ay)[usable] / determinant[usable]
    return np.stack([alpha, beta], axis=-1)


def _with_intervals(fitted: Fit, draws: Floats, largest: float, tail: float) -> dict[str, Any]:
    """One form as plain data; ``draws`` [resamples, 2], ``largest`` the greatest measured d."""
    peaks = [peak_of(fitted.form, alpha, beta) for alpha, beta in draws.tolist()]
    squares = np.array([math.inf if peak is None else min(peak, 1e150) ** 2 for peak in peaks])
    alpha, beta = draws[:, 0], draws[:, 1]
    at_end = alpha - 2 * beta * largest if fitted.form == "best_of_n" else alpha - beta * (math.log(largest) + 1)
    return {
        "alpha": _interval(fitted.alpha, alpha, tail),
        "beta": _interval(fitted.beta, beta, tail),
        "r2": fitted.r2,
        "aic": fitted.aic,
        "peak_kl": _interval(None if fitted.peak is None else min(fitted.peak, 1e150) ** 2, squares, tail),
        "peak_gain": fitted.peak_gain,
        "peak_inside": fitted.peak is not None and fitted.peak <= largest,
        "falling_share": float(np.mean(at_end < 0)) if draws.size else 0.5,
    }


def _interval(estimate: float | None, draws: Floats, tail: float) -> dict[str, float | None]:
    """Estimate and percentile bounds; an infinite bound, which JSON does not know, is None."""
    if not draws.size:
        return {"estimate": estimate, "low": None, "high": None}
    # "inverted_cdf" takes values as they stand: between a number and infinity there is nothing to interpolate.
    bounds = np.quantile(draws, [tail, 1 - tail], method="inverted_cdf")
    low, high = (float(bound) if math.isfinite(bound) else None for bound in bounds)
    return {"estimate": estimate, "low": low, "high": high}
