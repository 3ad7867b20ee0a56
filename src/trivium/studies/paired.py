"""Differences of two labels of a study over what both were measured on: the same seeds, the same prompts."""

from collections.abc import Hashable, Sequence

Values = dict[Hashable, float | dict[str, float]]  # seed -> the number, or the numbers of its items


def differences(first: Values, second: Values) -> Values:
    """Second less first: by item over common items where both have them, by seed where neither has, over common seeds.
    What one has by item and the other has not is another kind of number, such as a bound beside a measurement.

    >>> differences({0: {"a": 0.0, "b": 1.0}, 1: 0.5}, {0: {"b": 0.0, "c": 1.0}, 1: 0.75, 2: 1.0})
    {0: {'b': -1.0}, 1: 0.25}
    """
    found: Values = {}
    for seed, before in first.items():
        after = second.get(seed)
        if isinstance(before, dict) and isinstance(after, dict):
            common = {item: after[item] - value for item, value in before.items() if item in after}
            if common:
                found[seed] = common
        elif after is not None and not isinstance(before, dict) and not isinstance(after, dict):
            found[seed] = after - before
    return found


def pooled(each: Sequence[Values]) -> Values:
    """The mean of the ``differences`` of several pairs of labels, over seeds that have all of them.

    Each pair counts alike, however many items it has. Where all have items, the seed has them too: numbers whose mean
    is that of the pairs, and whose distances from it are what each item moves it by. Of items that all pairs share
    these are the means over pairs. An item that only some pairs have moves it by those.

    >>> pooled([{0: 0.25}, {0: 0.75, 1: 0.5}])
    {0: 0.5}
    >>> pooled([{0: {"a": 0.0, "b": 1.0}}, {0: {"a": 1.0, "b": 1.0}}])
    {0: {'a': 0.5, 'b': 1.0}}
    >>> pooled([{0: {"a": 0.0, "b": 1.0}}, {0: {"c": -1.0, "d": -2.0}}])  # means 0.5 and -1.5
    {0: {'a': -1.0, 'b': 0.0, 'c': 0.0, 'd': -1.0}}
    """
    found: Values = {}
    for seed in each[0] if each else ():
        parts = [table[seed] for table in each if seed in table]
        if len(parts) < len(each):
            continue
        mean = sum(mean_of(part) for part in parts) / len(parts)
        tables = [part for part in parts if isinstance(part, dict)]
        if len(tables) < len(parts):
            found[seed] = mean
            continue
        every = list(dict.fromkeys(item for table in tables for item in table))
        moved = dict.fromkeys(every, 0.0)
        for table in tables:
            own = mean_of(table)
            for item, value in table.items():
                moved[item] += (value - own) / (len(table) * len(tables))
        found[seed] = {item: mean + len(every) * moved[item] for item in every}
    return found


def mean_of(value: float | dict[str, float]) -> float:
    """The number of a seed: itself, or the mean over its items."""
    return sum(value.values()) / len(value) if isinstance(value, dict) else value
