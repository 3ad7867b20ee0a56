"""No text makes a verifier raise, hang, or pay out of range."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.config import VerifierConfig
from trivium.data.records import Prompt
from trivium.feedback.verifiers import Verifier, build

MR = "name[Aromi], eatType[pub], food[Italian], priceRange[cheap], area[riverside], familyFriendly[no], near[Avalon]"
VERIFIERS: list[tuple[Verifier, object, str]] = [
    (build(VerifierConfig(kind="numeric")), "85", ""),
    (build(VerifierConfig(kind="numeric", options={"tolerance": 1, "allow_words": True})), "85", ""),
    (build(VerifierConfig(kind="exact", options={"ignore_punctuation": True, "marker": "####"})), "85", ""),
    (build(VerifierConfig(kind="regex", options={"pattern": "(a|b)+c", "seconds": 0.5})), None, ""),
    (build(VerifierConfig(kind="choice")), "A", ""),
    (build(VerifierConfig(kind="length", options={"target": 5})), None, ""),
    (build(VerifierConfig(kind="slots")), {"mr": MR}, ""),
    (build(VerifierConfig(kind="primer")), "85", "add"),
    (build(VerifierConfig(kind="primer")), "a b", "sort"),
]
PIECES = [
    "####",
    "85",
    "1e999999999",
    "<answer>",
    "A",
    "</answer>",
    "-",
    ".",
    ",",
    " ",
    "a b",
    "٨",
    "\ud800",
    "\x00",
    "é",
    "£20",
]
RESPONSES = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
ANSWERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.text()),
)


@settings(deadline=None, max_examples=150)
@given(RESPONSES)
def test_no_response_makes_a_verifier_raise(response: str) -> None:
    for verifier, answer, task in VERIFIERS:
        verdict = verifier(Prompt("id", (), answer, task), response)
        assert 0.0 <= verdict.score <= 1.0 and verdict.status in ("ok", "unparseable", "timeout")
        assert verdict.extracted is None or len(verdict.extracted) <= 200


@settings(deadline=None, max_examples=150)
@given(ANSWERS, RESPONSES)
def test_no_reference_makes_a_verifier_raise(answer: object, response: str) -> None:
    for verifier, _, task in VERIFIERS:
        assert 0.0 <= verifier(Prompt("id", (), answer, task), response).score <= 1.0


@pytest.mark.parametrize(
    "piece",
    [
        "####",
        "9",
        "1,",
        "price is ",
        "not ",
        "family ",
        "low low ",
        "high customer ",
        "The ",
        "\u0301",
        "ﷺ",
        "20 to ",
        "rated ",
    ],
)
def test_long_responses_are_judged_quickly(piece: str) -> None:
    start = time.process_time()
    for verifier, answer, task in VERIFIERS:
        verifier(Prompt("id", (), answer, task), piece * (90_000 // len(piece)))
    assert time.process_time() - start < 5
