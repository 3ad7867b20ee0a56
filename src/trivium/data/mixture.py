"""Which examples a step takes: a pure function of (seed, name, step), so that resuming needs no state.

Every source goes through its examples in epochs, each in an order of its own; sources take turns by weight.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from trivium.streams import generator

# Turns are dealt in rounds of this many: weights are met exactly up to one part in this.
_ROUND = 1024


def batch_indices(
    seed: int, name: str, step: int, size: int, sizes: Sequence[int], weights: Sequence[float] | None = None
) -> list[tuple[int, int]]:
    """``size`` pairs (source, example) for ``step`` (from 0) of the stage ``name``.

    ``sizes`` are the numbers of examples of the sources, ``weights`` their shares of the draws (default: equal). The
    draws of one source, in the order of the steps, go through a permutation of all its examples, then through another:
    two steps of 3 from one source of 4 take, say, (2 0 3) and (1 | 0 3), where | is the border of the epochs. Whoever
    asks for step 7 alone gets what step 7 of a whole run gets.

    Raises ValueError for an empty source.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError("every source needs at least one example")
    quotas = _quotas(tuple(weights) if weights is not None else (1.0,) * len(sizes))
    pairs = []
    for slot in range(step * size, (step + 1) * size):
        turn, place = divmod(slot, _ROUND)
        order, earlier = _round(seed, name, turn, quotas)
        source = int(order[place])
        draw = turn * quotas[source] + int(earlier[place])
        epoch, position = divmod(draw, sizes[source])
        pairs.append((source, int(permutation(seed, f"{name}/order", source, epoch, sizes[source])[position])))
    return pairs


@lru_cache(maxsize=16)
def permutation(seed: int, name: str, source: int, epoch: int, size: int) -> np.ndarray:
    """The order of one source's ``size`` examples in one epoch (read-only, int64)."""
    order = generator(seed, name, source, epoch).permutation(size)
    order.setflags(write=False)
    return order


@lru_cache(maxsize=64)
def _quotas(weights: tuple[float, ...]) -> tuple[int, ...]:
    """Turns of each source in a round: largest remainders, and at least one each."""
    if min(weights) <= 0:
        raise ValueError("weights are positive")
    exact = np.array(weights) / sum(weights) * _ROUND
    quotas = np.maximum(np.floor(exact).astype(int), 1)
    # Sources in the order of what rounding took from them; those raised to one turn come last.
    order = np.argsort(-(exact - quotas), kind="stable")
    missing = _ROUND - int(quotas.sum())
    if missing < 0:
        quotas[int(np.argmax(quotas))] += missing
    else:
        quotas[order[:missing]] += 1
    return tuple(int(quota) for quota in quotas)


@lru_cache(maxsize=16)
def _round(seed: int, name: str, turn: int, quotas: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A round: which source has each turn, and how many turns of this round it had before."""
    order = generator(seed, f"{name}/turns", turn).permutation(np.repeat(np.arange(len(quotas)), quotas))
    earlier = np.zeros(_ROUND, dtype=np.int64)
    for source in range(len(quotas)):
        places = np.flatnonzero(order == source)
        earlier[places] = np.arange(len(places))
    return order, earlier
