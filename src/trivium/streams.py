"""Named random streams: every random number of a run is a function of (seed, name, counters).

Nothing random is drawn from a hidden global state, so a checkpoint holds counters only and a resumed run draws the
numbers the uninterrupted run would have drawn.
"""

import hashlib

import numpy as np


def stream_key(seed: int, name: str, *counters: int | str) -> int:
    """A 63-bit key for the stream ``name`` at ``counters``: equal arguments give equal keys, on any machine."""
    text = "\x1f".join([str(seed), name, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, name: str, *counters: int | str) -> np.random.Generator:
    """A numpy generator (Philox, counter based) for the stream ``name`` at ``counters``."""
    return np.random.Generator(np.random.Philox(key=stream_key(seed, name, *counters)))
