"""The panel: the share of flipped pairs is the noise asked for, biases go where they should, draws are repeatable."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.config import AnnotatorConfig, PanelConfig, VerifierConfig
from trivium.data.records import Message, Prompt
from trivium.feedback.rankings.record import Response, problem_of
from trivium.feedback.rankings.simulated import Panel, mallows_dispersion, noisy_tiers
from trivium.streams import generator

PROMPT = Prompt("p", (Message("user", "2 + 2 = ?"),), answer="4")
RESPONSES = [Response("#### 4"), Response("#### 5"), Response("Gladly: #### 4"), Response("no idea")]
PARTS = {
    "right": VerifierConfig(kind="numeric"),
    "polite": VerifierConfig(kind="regex", weight=0.2, options={"pattern": "^Gladly"}),
}


def panel(annotator: AnnotatorConfig, parts: dict[str, VerifierConfig] | None = None, seed: int = 0) -> Panel:
    return Panel(PanelConfig(parts=parts or PARTS, annotators={"a": annotator}), seed)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("number", [2, 4, 9])
def test_share_of_flipped_pairs(number: int, noise: float) -> None:
    utilities = np.linspace(1, 0, number).tolist()
    orders = [noisy_tiers(utilities, noise, 0.0, generator(0, "test", turn)) for turn in range(800)]
    flipped = [t[i] > t[j] for t in orders for i in range(number) for j in range(i + 1, number)]
    # one order of two responses is one draw: three standard errors of the smallest case
    assert np.mean(flipped) == pytest.approx(noise, abs=3 * 0.5 / np.sqrt(800) if noise else 0)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9), st.floats(0, 0.5), st.floats(0, 1), st.integers(0, 99))
def test_always_an_ordered_partition(utilities: list[float], noise: float, margin: float, turn: int) -> None:
    tiers = noisy_tiers(utilities, noise, margin, generator(1, "test", turn))
    assert set(tiers) == set(range(max(tiers) + 1))
    if noise == 0 and margin == 0:
        assert all(
            (a > b) == (s < t)
            for a, s in zip(utilities, tiers, strict=True)
            for b, t in zip(utilities, tiers, strict=True)
        )


def test_dispersion_is_within_its_range() -> None:
    assert mallows_dispersion(5, 0.0) == 0.0
    assert mallows_dispersion(5, 0.5) == pytest.approx(1.0)


def test_taste_without_noise() -> None:
    judge = panel(AnnotatorConfig(noise=0.0))
    ranking = judge.rank("a", "task", PROMPT, RESPONSES)
    assert ranking.tiers == (1, 2, 0, 2)  # right and polite, right, wrong and unreadable alike
    assert ranking.kind == "simulated" and ranking.task == "task" and not problem_of(ranking)
    assert ranking == judge.rank("a", "task", PROMPT, RESPONSES)
    assert ranking.displayed != judge.rank("a", "another", PROMPT, RESPONSES).displayed


def test_weights_of_an_annotator_replace_those_of_the_parts() -> None:
    rude = panel(AnnotatorConfig(noise=0.0, weights={"polite": -0.5}))
    assert rude.rank("a", "task", PROMPT, RESPONSES).tiers == (0, 2, 1, 2)
    margin = panel(AnnotatorConfig(noise=0.0, tie_margin=0.3))
    assert margin.rank("a", "task", PROMPT, RESPONSES).tiers == (0, 1, 0, 1)


def test_biases() -> None:
    same = [Response("#### 4"), Response("#### 4 "), Response("#### 4  ")]
    first = panel(AnnotatorConfig(noise=0.0, position_bias=1.0))
    for task in "abcdef":
        ranking = first.rank("a", task, PROMPT, same)
        assert [ranking.tiers[number] for number in ranking.displayed] == [0, 1, 2]
    long = panel(AnnotatorConfig(noise=0.0, length_bias=1.0))
    assert long.rank("a", "task", PROMPT, same).tiers == (2, 1, 0)


def test_a_part_that_fails_is_a_skip_and_no_ranking() -> None:
    judge = panel(AnnotatorConfig(), {"slots": VerifierConfig(kind="slots")})
    ranking = judge.rank("a", "task", PROMPT, RESPONSES)
    assert ranking.tiers == (-1,) * 4
    assert ranking.skipped and ranking.skipped.startswith("slots: ")
    assert not problem_of(ranking)
    blind = panel(
        AnnotatorConfig(noise=0.0, weights={"slots": 0.0}),
        {"slots": VerifierConfig(kind="slots"), "brief": VerifierConfig(kind="length", options={"target": 0})},
    )
    assert blind.rank("a", "task", PROMPT, RESPONSES).skipped is None  # a part that is left out cannot fail
