"""The weighted sum of verifiers: scores add up, an infrastructure error is never a zero, bad parts are refused."""

import pytest

from trivium.config import VerifierConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.verifiers import build

PROMPT = Prompt("p", (Message("user", "2 + 2 = ?"),), answer="4")


def weighted(**parts: dict[str, object]) -> VerifierConfig:
    return VerifierConfig(kind="weighted", options={"parts": parts})


def test_scores_add_up_by_weight() -> None:
    judge = build(
        weighted(right={"kind": "numeric"}, brief={"kind": "length", "weight": 0.5, "options": {"target": 2}})
    )
    assert judge(PROMPT, "#### 4").score == pytest.approx(1.5)
    verdict = judge(PROMPT, "no idea")
    assert (verdict.score, verdict.status) == (pytest.approx(0.5), "unparseable")


def test_a_part_that_cannot_judge_leaves_no_score() -> None:
    verdict = build(weighted(right={"kind": "numeric"}, slots={"kind": "slots"}))(PROMPT, "#### 4")
    assert verdict.status == "infra_error" and verdict.detail.startswith("slots: ")


@pytest.mark.parametrize(
    "parts", [{}, {"a": {"kind": "numric"}}, {"a": {"knd": "numeric"}}, {"a": {"kind": "reward_model"}}]
)
def test_bad_parts_are_refused(parts: dict[str, dict[str, object]]) -> None:
    with pytest.raises(UserError):
        build(weighted(**parts))
