import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from trivium.data.records import Message, Prompt
from trivium.feedback.rankings.coefficients import tied_ranks
from trivium.feedback.rankings.consensus import consensus, consensus_by_task
from trivium.feedback.rankings.record import Ranking, Response, tiers_from_scores


def rankings(*tiers, **more) -> list[Ranking]:
    prompt = Prompt("p", (Message("user", "?"),))
    responses = tuple(Response(f"answer {number}") for number in range(len(tiers[0])))
    return [Ranking(prompt, responses, tuple(row), f"ann{number}", **more) for number, row in enumerate(tiers)]


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=5))
def test_complete_rankings_go_by_mean_rank(rows) -> None:
    means = np.mean([tied_ranks(row) for row in rows], axis=0)
    found = consensus(rankings(*rows))
    assert found.tiers == tiers_from_scores([round(-mean, 9) for mean in means])
    assert found.scores == pytest.approx([(4 - mean) / 3 for mean in means])


def test_a_circle_and_an_even_split_are_ties() -> None:
    assert consensus(rankings((0, 1, 2), (2, 0, 1), (1, 2, 0))).tiers == (0, 0, 0)
    assert consensus(rankings((0, 1), (1, 0))).tiers == (0, 0)
    assert consensus(rankings((0, 0), (0, 0))).tiers == (0, 0)


def test_weights() -> None:
    given_ = rankings((0, 1), (1, 0), (1, 0))
    assert consensus(given_).tiers == (1, 0)
    assert consensus(given_, {"ann0": 3.0}).tiers == (0, 1)
    assert consensus(given_, {"ann0": 2.0}).tiers == (0, 0)
    # 0.1 + 0.2 is not 0.3 in floats; the tie stands all the same.
    assert consensus(given_, {"ann0": 0.3, "ann1": 0.1, "ann2": 0.2}).tiers == (0, 0)
    assert consensus(given_, {"ann1": 0.0, "ann2": 0.0}).tiers == (0, 1)
    with pytest.raises(ValueError, match="not negative"):
        consensus(given_, {"ann0": -1.0})


def test_what_nobody_compared_stays_unranked() -> None:
    assert consensus(rankings((0, 1, -1), (0, 1, -1))).tiers == (0, 1, -1)
    # 0 over 1, and 2 over 3, but nobody says how the two pairs relate.
    assert consensus(rankings((0, 1, -1, -1), (-1, -1, 0, 1), (-1, -1, 0, 1))).tiers == (-1, -1, 0, 1)
    assert consensus(rankings((0, 1, -1, -1), (-1, -1, 0, 1))).tiers == (0, 1, -1, -1)
    assert consensus(rankings((0, 1, -1, -1), (-1, 0, 1, -1))).tiers == (0, 1, 2, -1)
    assert consensus(rankings((-1, -1), all_bad=True)).tiers == (-1, -1)


def test_all_bad_and_skipped() -> None:
    first, second = rankings((0, 1), (-1, -1), all_bad=True)
    third = rankings((-1, -1), skipped="unclear")[0]
    found = consensus([first, second, third])
    assert found.all_bad == 1.0 and found.tiers == (0, 1)


def test_nothing_is_changed_and_tasks_are_kept_apart() -> None:
    given_ = rankings((0, 1), (0, 1)) + rankings((1, 0), criterion="brief")
    before = list(given_)
    views = consensus_by_task(given_)
    assert [(len(group), view.tiers) for group, view in views] == [(2, (0, 1)), (1, (1, 0))]
    assert given_ == before
    with pytest.raises(ValueError, match="one ranking or more"):
        consensus([])
