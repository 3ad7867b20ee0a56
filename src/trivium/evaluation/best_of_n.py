"""Best-of-n: sample n responses, keep the one that the proxy likes best. The baseline that needs no training.

It also measures a reward model before anything is trained on it: as n grows, the proxy of the chosen response must
rise, and the curve of the gold score shows how far that can be trusted.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.evaluation.overoptimisation import compare
from trivium.streams import generator

RESAMPLES = 2_000


def kl_bound(n: int) -> float:
    """KL from the best-of-n policy to the one that sampled, in nats a response: ln n - (n - 1) / n.

    An upper bound, close where no single response is likely (Beirami et al., 2024, "Theoretical guarantees on the
    best-of-n alignment policy"); taken for the KL itself by Stiennon et al. (2020) and Gao, Schulman and Hilton (2022).

    >>> [round(kl_bound(n), 6) for n in (1, 2, 4, 16, 64)]
    [0.0, 0.193147, 0.636294, 1.835089, 3.174508]
    """
    if n < 1:
        raise ValueError(f"best-of-n needs n >= 1, not {n}")
    return math.log(n) - (n - 1) / n


def selection_weights(proxy: Sequence[float], n: int) -> NDArray[np.float64]:
    """[N] the chance that each of N samples is the best by ``proxy`` of n of them drawn without replacement.

    Of the C(N, n) subsets, C(i - 1, n - 1) have the sample of rank i (1 is worst) as their best. The chances are
    built from the top, n / N, downwards with the ratio of neighbours, (i - n + 1) / i: no binomial is ever formed, so
    thousands of samples are no trouble. Samples of equal proxy share their chances evenly, as if ties were broken
    by lot.
    """
    scores = np.asarray(proxy, dtype=np.float64)
    if scores.ndim != 1 or not 1 <= n <= scores.size:
        raise ValueError(f"best-of-n needs 1 <= n <= the number of samples, not n = {n} of {scores.size}")
    if not np.isfinite(scores).all():
        raise ValueError("best-of-n needs finite scores: leave out samples that have none before")
    ranks = np.arange(scores.size - 1, 0, -1)  # N-1 … 1
    ratios = np.maximum(ranks - n + 1, 0) / ranks
    by_rank = n / scores.size * np.concatenate([[1.0], np.cumprod(ratios)])[::-1]  # worst first
    _, tier, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    totals = np.add.reduceat(by_rank, ends - sizes)
    shared: NDArray[np.float64] = (totals / sizes)[tier]
    return shared


def unbiased_best_of_n(proxy: Sequence[float], gold: Sequence[float], n: int) -> float:
    """The expected gold score of best-of-n by proxy, over all ways to draw n of the N samples at hand.

    Unbiased for a fresh best-of-n (Nakano et al., 2021, "WebGPT", appendix), and it wastes no sample.

    >>> [round(unbiased_best_of_n([1, 2, 3, 4], [5, 1, 2, 7], n), 4) for n in (1, 2, 3, 4)]
    [3.75, 4.3333, 5.75, 7.0]
    """
    if len(proxy) != len(gold):
        raise ValueError(f"proxy and gold must be of the same samples, not {len(proxy)} and {len(gold)}")
    return float(selection_weights(proxy, n) @ np.asarray(gold, dtype=np.float64))


def curve(
    proxy: Sequence[Sequence[float]],
    gold: Sequence[Sequence[float]],
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Best-of-n for n = 1, 2, 4, … as far as the prompt with the fewest samples goes, averaged over prompts.

    ``proxy[i][j]`` and ``gold[i][j]`` are the scores of sample j of prompt i. Intervals are percentile bootstraps over
    prompts. ``gain`` is the gold score minus that of one sample, over the same prompts, so what makes a prompt easy
    or hard cancels. Returns plain data: ``n``, ``kl`` (the bound, nats), ``proxy``, ``gold``, ``gold_low``,
    ``gold_high``, ``gain``, ``gain_low``, ``gain_high`` (a value for each n), ``prompts``, and ``fit``, what
    :func:`trivium.evaluation.overoptimisation.compare` makes of the gains.

    Raises:
        ValueError: no prompts, a prompt without samples, scores that do not match or are not finite.
    """
    if not proxy or len(proxy) != len(gold) or not all(len(scores) for scores in proxy):
        raise ValueError("best-of-n needs the proxy and gold scores of at least one prompt with at least one sample")
    fewest = min(len(scores) for scores in proxy)
    sizes = [2**power for power in range(fewest.bit_length())]
    by_prompt = np.array(  # [2, prompts, sizes]
        [
            [[unbiased_best_of_n(p, scored, n) for n in sizes] for p, scored in zip(proxy, scores, strict=True)]
            for scores in (proxy, gold)
        ]
    )
    if not np.isfinite(by_prompt).all():
        raise ValueError("best-of-n needs finite scores: leave out samples that have none before")
    prompts = len(proxy)
    random = generator(seed, "best-of-n", prompts)
    draws = random.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples) / prompts  # [resamples, prompts]
    resampled = draws @ by_prompt[1]  # [resamples, sizes]
    gains = resampled - resampled[:, :1]
    tail = (1 - confidence) / 2
    (gold_low, gold_high), (gain_low, gain_high) = (
        np.quantile(a, [tail, 1 - tail], axis=0) for a in (resampled, gains)
    )
    mean_proxy, mean_gold = by_prompt.mean(axis=1)
    kl = [kl_bound(n) for n in sizes]
    gain = mean_gold - mean_gold[0]
    return {
        "n": sizes,
        "kl": kl,
        "proxy": mean_proxy.tolist(),
        "gold": mean_gold.tolist(),
        "gold_low": gold_low.tolist(),
        "gold_high": gold_high.tolist(),
        "gain": gain.tolist(),
        "gain_low": gain_low.tolist(),
        "gain_high": gain_high.tolist(),
        "prompts": prompts,
        "fit": compare(kl, gain.tolist(), seed=seed, resampled=gains, confidence=confidence),
    }
