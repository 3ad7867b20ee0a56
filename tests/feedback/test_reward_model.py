"""A trained reward model as a scorer: alone, beside verifiers, and with what it cannot judge."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.generation.tiny import BASE

from trivium.config import VerifierConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.reward_model import Item, RewardModel
from trivium.feedback.rewards import RewardFunction
from trivium.model.attention import GridAttention
from trivium.model.decoder import Decoder, DecoderConfig
from trivium.model.huggingface import save_model
from trivium.model.layout import ragged_layout
from trivium.model.scalar import scalar_decoder
from trivium.text.chat import response_ids
from trivium.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train_character(["abcdefgh 0123456789"])
ASK = (Message("user", "abc"),)
ITEMS: list[Item] = [
    (ASK, "de", True),
    (ASK, "de", False),
    (ASK, "fedcba 123", True),
    (ASK, "", True),
    (ASK, "de", True),
]


def decoder_of(heads: int = 2) -> Decoder:
    config = DecoderConfig(**{**BASE, "qk_norm": "head", "vocabulary_size": TOKENIZER.vocabulary_size})
    decoder = Decoder(config)
    decoder.initialise(torch.Generator().manual_seed(3), std=0.4)
    return scalar_decoder(decoder, heads, generator=torch.Generator().manual_seed(4)) if heads else decoder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward") / "model"
    save_model(decoder_of(), folder, TOKENIZER)
    (folder / "reward.json").write_text(json.dumps({"mean": [0.5, -1.0], "std": [2.0, 0.5], "heads": 2}))
    return folder


def alone(decoder: Decoder, item: Item) -> torch.Tensor:
    """The scores at the last of the item's own tokens, in a forward pass of its own."""
    tokens = response_ids(TOKENIZER, *item)
    layout = ragged_layout([len(tokens)])
    with torch.no_grad():
        return decoder.logits(torch.tensor(tokens), layout.positions, GridAttention(layout))[-1]


@pytest.mark.parametrize("budget", [1, 40, 10**6])
def test_scores_are_read_at_the_last_real_token_whatever_the_batch(place: Path, budget: int) -> None:
    model = RewardModel.load(place, budget_tokens=budget)
    scores = model.score(ITEMS)
    assert scores.shape == (5, 2) and scores.dtype == torch.float32
    for item, found in zip(ITEMS, scores, strict=True):
        torch.testing.assert_close(found, alone(decoder_of(), item), rtol=1e-5, atol=1e-5)
    assert not torch.equal(scores[0], scores[1])  # the stop token belongs to a finished response alone
    assert torch.equal(scores[0], scores[4])  # to the last bit, so that equal responses tie


def test_normalised_scores_and_their_spread_over_heads(place: Path) -> None:
    model = RewardModel.load(place)
    standard = (model.score(ITEMS) - torch.tensor([0.5, -1.0])) / torch.tensor([2.0, 0.5])
    torch.testing.assert_close(model.normalised(ITEMS), standard.mean(1))
    torch.testing.assert_close(model.disagreement(ITEMS), (standard[:, 0] - standard[:, 1]).abs() / 2)
    one = RewardModel(decoder_of(1), TOKENIZER)
    assert not one.disagreement(ITEMS).any()
    torch.testing.assert_close(one.normalised(ITEMS), one.score(ITEMS)[:, 0])
    assert one.score([]).shape == (0, 1) and one.verdicts([]) == []


def test_what_it_cannot_judge_is_no_score(place: Path) -> None:
    """Too long for the model, or a score that is not a number: an infrastructure error, and the others are judged."""
    model = RewardModel.load(place)
    long: Item = (ASK, "a" * 60, True)
    with pytest.raises(UserError, match=r"more than the 48 that the reward model reads"):
        model.score([ITEMS[0], long])
    verdicts = model.verdicts([ITEMS[0], long, ITEMS[2]])
    assert [verdict.status for verdict in verdicts] == ["ok", "infra_error", "ok"]
    assert verdicts[0].score == pytest.approx(model.normalised(ITEMS[:1]).item(), abs=1e-5)
    model.mean[0] = float("nan")
    assert {verdict.status for verdict in model.verdicts(ITEMS)} == {"infra_error"}


def test_autocast_around_it_changes_no_score(place: Path) -> None:
    model = RewardModel.load(place)
    expected = model.score(ITEMS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.score(ITEMS), expected)


def test_what_is_no_reward_model_is_one_sentence(place: Path, tmp_path: Path) -> None:
    save_model(decoder_of(heads=0), tmp_path / "lm", TOKENIZER)
    with pytest.raises(UserError, match=r"lm is a language model without a scalar head.*stage of kind reward"):
        RewardModel.load(tmp_path / "lm")
    save_model(decoder_of(), tmp_path / "odd", TOKENIZER)
    assert RewardModel.load(tmp_path / "odd").std.tolist() == [1.0, 1.0]  # a foreign one has no statistics
    (tmp_path / "odd/reward.json").write_text('{"mean": [0.0], "std": [1.0]}')
    with pytest.raises(UserError, match="positive std for each of the 2 heads"):
        RewardModel.load(tmp_path / "odd")


# ---- as a part of a reward -------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Answer:
    text: str
    finish_reason: str


def part(**values: Any) -> VerifierConfig:
    return VerifierConfig.model_validate(values)


def test_a_reward_model_beside_a_verifier(place: Path) -> None:
    parts = {
        "learnt": part(kind="reward_model", weight=0.5, options={"model": "preferences"}),
        "raw": part(kind="reward_model", weight=0.0, options={"model": str(place), "normalise": False}),
        "brief": part(kind="length", weight=2.0, options={"target": 1}),
    }
    reward = RewardFunction(parts, {"preferences": place})
    prompt = Prompt("p", ASK)
    answers = [Answer("de fg", "stop"), Answer("de fg", "length"), Answer("a" * 60, "stop")]
    found = reward.score([(prompt, answer) for answer in answers])
    model = RewardModel.load(place)
    items: list[Item] = [(ASK, "de fg", True), (ASK, "de fg", False)]
    for one, value, raw in zip(
        found, model.normalised(items).tolist(), model.score(items).mean(1).tolist(), strict=False
    ):
        assert one.parts["learnt"] == pytest.approx(value, abs=1e-5)
        assert one.parts["raw"] == pytest.approx(raw, abs=1e-5)
        assert one.total == pytest.approx(0.5 * one.parts["learnt"] + 2.0 * one.parts["brief"])
    assert [one.valid for one in found] == [True, True, False]
    assert reward.failure.startswith("learnt: prompt and response have")
    assert reward(prompt, "de fg").total == pytest.approx(found[0].total, abs=1e-5)  # by itself: taken as finished


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "reward_model: model is missing; give a stage of kind reward"),
        ({"model": "x", "normalize": True}, "no option 'normalize' .did you mean 'normalise'"),
        ({"model": "nowhere/at/all"}, "nowhere/at/all does not exist"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        RewardFunction({"learnt": part(kind="reward_model", options=options)})
