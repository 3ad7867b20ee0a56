"""Mistakes that only a whole run shows: each is one sentence."""

from pathlib import Path

import pytest
import torch

import trivium
from trivium import files
from trivium.cli import main
from trivium.config import ModelConfig, VerifierConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.rewards import RewardFunction
from trivium.model.decoder import Decoder
from trivium.model.huggingface import save_model
from trivium.model.sizes import derive
from trivium.text.tokenizer import Tokenizer


def test_a_directory_that_cannot_be_made_is_a_sentence() -> None:
    with pytest.raises(UserError, match="cannot be written"), files.lock(Path("/proc/trivium")):
        pass


def test_a_reward_keeps_the_first_reason_it_failed_for() -> None:
    reward = RewardFunction({"right": VerifierConfig(kind="slots")})
    assert reward(Prompt("1", (Message("user", "?"),), answer=5), "text").status == "infra_error"
    assert reward.failure.startswith("right: the reference is not a meaning representation")


def test_a_bare_model_directory_is_evaluated(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train_bpe(["Add 12 and 34. #### 46"] * 4, 300)
    model = ModelConfig(size=None, layers=1, hidden_size=16, heads=2, context_length=128)
    decoder = Decoder(derive(model, tokenizer.vocabulary_size)[0])
    decoder.initialise(torch.Generator().manual_seed(0))
    save_model(decoder, tmp_path / "model", tokenizer)
    few = {"problems.limit": 4, "problems.samples": 0, "problems.sampling.max_new_tokens": 4, "primer.problems": 200}
    found = trivium.evaluate(tmp_path / "model", few, recipe="primer", directory=tmp_path / "out", quiet=True)
    (tasks,) = found.values()
    assert tasks["problems"]["n"] == 4 and tasks["problems"]["asked"] == "chat"


def test_a_temperature_below_zero_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["generate", "nowhere", "--prompt", "x", "--temperature", "-1"])
    assert stopped.value.code == 1 and "x>=0" in capsys.readouterr().err
