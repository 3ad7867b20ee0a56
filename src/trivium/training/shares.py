"""Which part of a batch a rank works on, and in which micro-batches."""

from collections.abc import Sequence

from trivium.data.ragged import micro_batches
from trivium.training import distributed


def own_micro_batches(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """The items of this rank (every world-size-th), cut into micro-batches of at most ``budget`` tokens.

    Every rank gets equally many and at least one, the last ones possibly empty: sharded layers talk to each other in
    every forward pass, so a rank that ran fewer would leave the others waiting. All ranks know all ``sizes``, so
    nothing is sent.
    """
    world = distributed.world_size()
    shares = []
    for rank in range(world):
        items = list(range(rank, len(sizes), world))
        cut = micro_batches([sizes[item] for item in items], budget)
        shares.append([[items[place] for place in part] for part in cut])
    most = max(1, *map(len, shares))
    own = shares[distributed.rank()]
    return own + [[] for _ in range(most - len(own))]
