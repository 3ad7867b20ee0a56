"""Whether probabilities that one of two answers is better come true.

All functions take the probability that was given to the answer which turned out to be the better one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BINS = 10


def reliability_bins(probability: Sequence[float]) -> list[dict[str, float]]:
    """How often the preferred answer is the better one (``observed``), by how sure the preference was: the bins of
    [0.5, 1] that hold pairs. A probability of exactly 0.5 prefers neither and is half right.

    >>> reliability_bins([0.9, 0.92, 0.08])  # three pairs at odds of about 9 to 1, of which two came true
    [{'low': 0.9, 'high': 0.95, 'n': 3, 'predicted': 0.9133333333333334, 'observed': 0.6666666666666666}]
    """
    if not probability:
        return []
    given = np.asarray(probability, dtype=np.float64)
    sure = np.maximum(given, 1 - given)
    right = np.where(given == 0.5, 0.5, given > 0.5)
    edges = np.linspace(0.5, 1.0, BINS + 1)
    place = np.minimum(np.searchsorted(edges, sure, side="right") - 1, BINS - 1)
    return [
        {
            "low": float(edges[number]),
            "high": float(edges[number + 1]),
            "n": int((place == number).sum()),
            "predicted": float(sure[place == number].mean()),
            "observed": float(right[place == number].mean()),
        }
        for number in range(BINS)
        if (place == number).any()
    ]


def calibration_error(bins: Sequence[Mapping[str, Any]]) -> float | None:
    """The expected calibration error: the bins' mean distance from the diagonal, by size (Naeini et al., 2015)."""
    total = sum(entry["n"] for entry in bins)
    return sum(entry["n"] * abs(entry["predicted"] - entry["observed"]) for entry in bins) / total if total else None


def log_loss(probability: Sequence[float], least: float = 1e-300) -> float | None:
    """The mean of -log(probability), in nats; what is below ``least`` counts as that. None for no pairs."""
    return -float(np.mean(np.log(np.maximum(probability, least)))) if len(probability) else None
