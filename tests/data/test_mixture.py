from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.data.mixture import batch_indices

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@given(seed=st.integers(0, 5), sizes=SIZES, size=st.integers(1, 30), data=st.data())
def test_every_source_goes_through_all_its_examples_each_epoch(seed, sizes, size, data) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 5), min_size=len(sizes), max_size=len(sizes)))
    steps = [batch_indices(seed, "sft", step, size, sizes, weights) for step in range(20)]
    draws = [pair for step in steps for pair in step]
    assert len(draws) == 20 * size
    for source, count in enumerate(sizes):
        mine = [example for drawn, example in draws if drawn == source]
        for begin in range(0, len(mine), count):
            epoch = mine[begin : begin + count]
            assert len(set(epoch)) == len(epoch) and max(epoch) < count
    # Any step alone, in any order, is the same.
    for step in (19, 3, 11):
        assert batch_indices(seed, "sft", step, size, sizes, weights) == steps[step]


def test_epochs_stay_whole_over_many_rounds_of_turns() -> None:
    sizes = [701, 13]
    draws = [pair for step in range(80) for pair in batch_indices(0, "sft", step, 64, sizes, [1, 3])]
    for source, count in enumerate(sizes):
        mine = [example for drawn, example in draws if drawn == source]
        for begin in range(0, len(mine) - count, count):
            assert sorted(mine[begin : begin + count]) == list(range(count))


def test_weights_are_shares() -> None:
    pairs = [pair for step in range(64) for pair in batch_indices(0, "sft", step, 32, [10, 1000, 7], [1, 2, 1])]
    assert Counter(source for source, _ in pairs) == {0: 512, 1: 1024, 2: 512}


def test_light_source_is_drawn_and_epochs_differ() -> None:
    pairs = [pair for step in range(32) for pair in batch_indices(0, "sft", step, 32, [5, 5], [1, 1e-9])]
    assert Counter(source for source, _ in pairs) == {0: 1023, 1: 1}
    one, two = (batch_indices(0, "sft", step, 50, [50]) for step in range(2))
    assert one != two and sorted(one) == sorted(two)
    assert one != batch_indices(1, "sft", 0, 50, [50])
    assert one != batch_indices(0, "rl", 0, 50, [50])


def test_empty_source_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        batch_indices(0, "sft", 0, 4, [3, 0])
