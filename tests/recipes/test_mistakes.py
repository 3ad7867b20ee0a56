"""Mistakes that only a whole run shows: each is one sentence."""

from pathlib import Path

import pytest

from trivium import files
from trivium.config import VerifierConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.rewards import RewardFunction


def test_a_directory_that_cannot_be_made_is_a_sentence() -> None:
    with pytest.raises(UserError, match="cannot be written"), files.lock(Path("/proc/trivium")):
        pass


def test_a_reward_keeps_the_first_reason_it_failed_for() -> None:
    reward = RewardFunction({"right": VerifierConfig(kind="slots")})
    assert reward(Prompt("1", (Message("user", "?"),), answer=5), "text").status == "infra_error"
    assert reward.failure.startswith("right: the reference is not a meaning representation")
