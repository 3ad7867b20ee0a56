"""Majority vote: hand-counted outcomes, how answers are read, and that reference answers cannot get in."""

import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.config import VerifierConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.majority import Majority, Vote, majority_options, vote
from trivium.feedback.rewards import RewardFunction
from trivium.feedback.verifiers import build

ASK = (Message("user", "27 + 58?"),)


@pytest.mark.parametrize(
    ("answers", "share", "votes", "outcome"),
    [
        (["85", "85", "75", "85"], 0.5, 2, Vote("85", 0.75, 3)),
        (["85", "85", None, None], 0.5, 2, Vote("85", 0.5, 2)),  # exactly the least share counts
        (["85", "85", None, None, None], 0.5, 2, Vote(None, 0.4, 2, "the most frequent answer has 2 of 5 votes")),
        (["85", "85", "75", "75", "1"], 0.0, 1, Vote(None, 0.4, 2, "2 answers share the first place")),
        (["1", "2", "3"], 0.0, 1, Vote(None, 1 / 3, 1, "3 answers share the first place")),
        (["1", None, None], 0.0, 1, Vote("1", 1 / 3, 1)),
        (["1", None, None], 0.0, 2, Vote(None, 1 / 3, 1, "the most frequent answer has 1 of 3 votes")),
        ([None, None], 0.0, 1, Vote(None, 0.0, 0, "no response has an answer")),
        ([], 0.0, 1, Vote(None, 0.0, 0, "no response has an answer")),
        (["a"] * 7 + ["b"] * 3, 0.7, 2, Vote("a", 0.7, 7)),
    ],
)
def test_votes_counted_by_hand(answers: list[str | None], share: float, votes: int, outcome: Vote) -> None:
    assert vote(answers, share, votes) == outcome


ANSWERS = st.lists(st.sampled_from(["1", "2", "3", None]), max_size=12)


@given(ANSWERS, st.randoms(use_true_random=False), st.sampled_from([0.0, 0.34, 0.5, 1.0]))
def test_the_order_of_the_answers_does_not_matter(
    answers: list[str | None], order: random.Random, share: float
) -> None:
    shuffled = list(answers)
    order.shuffle(shuffled)
    assert vote(shuffled, share) == vote(answers, share)


@given(ANSWERS, st.sampled_from([0.0, 0.34, 0.5, 1.0]))
def test_a_label_has_strictly_the_most_votes_and_silence_only_weakens_it(
    answers: list[str | None], share: float
) -> None:
    found = vote(answers, share)
    if found.label is not None:
        assert all(answers.count(other) < found.votes for other in set(answers) - {found.label, None})
        assert found.votes >= 2 and found.votes / len(answers) >= share
    weaker = vote([*answers, None], share)
    assert weaker.label in (found.label, None) and weaker.share <= found.share


# ---- reading answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "response", "answer"),
    [
        ({}, "27 + 58 = 85 #### 85", "85"),
        ({}, "#### 75, no: #### 85.0", "85"),  # the last marker
        ({}, "#### $1,000.00", "1000"),
        ({}, "#### 1e3", "1000"),
        ({}, "####: -0", "0"),
        ({}, "#### A  b\n c ", "a b c"),
        ({"ignore_case": False}, "#### A  b", "A b"),
        ({}, "#### ", None),
        ({}, "85", None),
        ({"marker": "The answer is"}, "the ANSWER is 85.", "85"),
        ({}, "#### " + "7" * 60, "7" * 60),  # no digit is rounded away
        ({}, "#### " + "7" * 59 + "8", "7" * 59 + "8"),
        ({"extract": "number"}, "27 + 58 = 85", "85"),
        ({"extract": "number"}, "x2 is 1,234.50, so 3 apples", "3"),
        ({"extract": "number"}, "12 - 5 is -7", "-7"),
        ({"extract": "number"}, "3-4", "4"),  # a minus between numbers is no sign
        ({"extract": "number"}, "no R2D2", None),
        ({"extract": "text"}, "  Yes,\n it is ", "yes, it is"),
        ({"extract": "text"}, "85.00", "85"),
        ({"extract": "text"}, " \n", None),
        ({"extract": "regex", "pattern": r"<a>(.*?)</a>"}, "<a>1</a> or <a> 2.0</a>", "2"),
        ({"extract": "regex", "pattern": r"[a-e]"}, "b, I think d", "d"),
        ({"extract": "regex", "pattern": r"q"}, "b", None),
        ({"extract": "regex", "pattern": r"(x+x+)+y"}, "x" * 5000, None),  # stopped after a second
        ({"extract": "text"}, "a" * 100_001, None),
    ],
)
def test_what_a_response_votes_for(options: dict[str, Any], response: str, answer: str | None) -> None:
    assert majority_options(VerifierConfig(kind="majority", options=options)).extracted(response) == answer


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"extract": "regex"}, "a pattern is needed with extract: regex"),
        ({"pattern": "x"}, "a pattern is needed with extract: regex, and with it alone"),
        ({"extract": "regex", "pattern": "("}, "majority: pattern: not a regular expression"),
        ({"extract": "text", "marker": "=>"}, "the marker is for extract: marked"),
        ({"minimum_shares": 0.5}, "no option 'minimum_shares' .did you mean 'minimum_share'"),
        ({"minimum_share": 1.5}, "minimum_share is 1.5, but should be less than or equal to 1"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        majority_options(VerifierConfig(kind="majority", options=options))


# ---- as a part of a reward ---------------------------------------------------------------------------------------


@dataclass
class Rollout:
    text: str
    group: int
    finish_reason: str = "stop"


class Sealed(Prompt):
    """A prompt whose reference answer and row nobody may read."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("answer", "metadata"):
            raise AssertionError(f"{name} was read")
        return super().__getattribute__(name)


def part(**values: Any) -> VerifierConfig:
    return VerifierConfig.model_validate(values)


def test_groups_vote_apart_and_their_prompts_are_never_read() -> None:
    reward = RewardFunction({"agreed": part(kind="majority", weight=2.0)})
    asked = Sealed("p", ASK, answer="75")
    first = [Rollout(f"#### {answer}", 4) for answer in ("85", "85.0", "75")]
    second = [Rollout(text, 5) for text in ("#### 75", "#### 75", "I do not know")]  # the same prompt once more
    weak = [Rollout(text, 6) for text in ("#### 1", "#### 2", "#### 2", "#### 1")]
    mixed = [first[0], second[0], weak[0], *first[1:], *second[1:], *weak[1:]]
    found = dict(zip(map(id, mixed), reward.score([(asked, one) for one in mixed]), strict=True))
    assert [found[id(one)].total for one in first] == [2.0, 2.0, 0.0]
    assert [found[id(one)].total for one in second] == [2.0, 2.0, 0.0]
    assert [found[id(one)].status for one in second] == ["ok", "ok", "unparseable"]
    assert [found[id(one)].extracted for one in first] == ["85", "85", "75"]
    assert [found[id(one)].total for one in weak] == [0.0] * 4
    assert {found[id(one)].status for one in weak} == {"ok"}
    votes = [found[id(of[0])].vote for of in (first, second, weak)]
    assert votes == [Vote("85", 2 / 3, 2), Vote("75", 2 / 3, 2), Vote(None, 0.5, 2, "2 answers share the first place")]
    with pytest.raises(AssertionError, match="answer was read"):  # the seal holds
        RewardFunction({"right": part(kind="numeric")}).score([(asked, first[0])])


def test_without_group_numbers_equal_prompts_vote_together() -> None:
    @dataclass
    class Answer:
        text: str
        finish_reason: str = "stop"

    reward = RewardFunction({"agreed": part(kind="majority", options={"extract": "number"})})
    asked = [Prompt("p", ASK), Prompt("q", ASK), Prompt("p", ASK), Prompt("q", ASK), Prompt("q", ASK)]
    answers = [Answer(text) for text in ("1", "2", "1", "2", "1")]
    assert [found.total for found in reward.score(list(zip(asked, answers, strict=True)))] == [1, 1, 1, 1, 0]


def test_a_single_answer_has_no_vote() -> None:
    mixed = RewardFunction({"agreed": part(kind="majority"), "short": part(kind="length", options={"target": 2})})
    found = mixed(Prompt("p", ASK), "#### 85")
    assert found.parts == {"short": 1.0} and found.total == 1.0 and not mixed.only_votes
    alone = RewardFunction({"agreed": part(kind="majority")})
    assert alone.only_votes and alone(Prompt("p", ASK), "#### 85").parts == {}


def test_it_is_no_verifier() -> None:
    for kind in ("majority", "judge"):
        with pytest.raises(UserError, match=r"rl's rewards.*use a verifier here"):
            build(VerifierConfig(kind=kind))


def test_extraction_knows_texts_alone() -> None:
    """By construction: nothing but texts and group keys go in."""
    texts, groups = ["#### 1", "#### 1", "#### 2"], ["g", "g", "g"]
    verdicts, votes = Majority().verdicts(texts, groups)
    assert [verdict.score for verdict in verdicts] == [1, 1, 0] and votes[0] == vote(["1", "1", "2"])
