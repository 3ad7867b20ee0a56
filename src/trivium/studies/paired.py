"""Differences of two labels of a study over what both were measured on: the same seeds, the same prompts."""

from collections.abc import Hashable, Sequence

Values = dict[Hashable, float | dict[str, float]]  # seed -> the number, or the numbers of its items


def differences(first: Values, second: Values) -> Values:
    """Second less first: by item over common items where both have them, else by seed, over common seeds.

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

    Items that all pairs of a seed share keep their place: the mean over pairs is then taken item by item. Where there
    are none, there is one number for the seed.

    >>> pooled([{0: 0.25}, {0: 0.75, 1: 0.5}])
    {0: 0.5}
    """
    found: Values = {}
    for seed in each[0] if each else ():
        parts = [table[seed] for table in each if seed in table]
        if len(parts) < len(each):
            continue
        tables = [part for part in parts if isinstance(part, dict)]
        common = [item for item in tables[0] if all(item in table for table in tables)] if tables else []
        if common and len(tables) == len(parts):
            found[seed] = {item: sum(table[item] for table in tables) / len(tables) for item in common}
        else:
            found[seed] = sum(mean_of(part) for part in parts) / len(parts)
    return found


def mean_of(value: float | dict[str, float]) -> float:
    """The number of a seed: itself, or the mean over its items."""
    return sum(value.values()) / len(value) if isinstance(value, dict) else value
