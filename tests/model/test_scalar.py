"""Scalar heads: the same scores as transformers in both directions, and what only scores is not asked to write."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.model.test_huggingface import CASES, LENGTHS, TINY, randomised, texts, theirs_for
from torch import Tensor

from trivium.errors import UserError
from trivium.generation.console import generate
from trivium.model.attention import GridAttention
from trivium.model.decoder import Decoder
from trivium.model.families import FAMILIES, config_json
from trivium.model.huggingface import load_language_model, load_model, save_model
from trivium.model.layout import ragged_layout
from trivium.model.scalar import scalar_decoder
from trivium.text.tokenizer import Tokenizer
from trivium.training import distributed

transformers = pytest.importorskip("transformers")
PAD = 0


def classifier(case: str, labels: int) -> Any:
    name, settings = CASES[case]
    merged = json.loads(json.dumps(TINY | settings | {"pad_token_id": PAD, "num_labels": labels}))
    config = transformers.AutoConfig.for_model(name, **merged)
    return randomised(transformers.AutoModelForSequenceClassification.from_config(config))


def opened(directory: Path) -> Any:
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(directory, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval()


@torch.no_grad()
def their_scores(model: Any) -> Tensor:
    """One batch padded on the right: transformers takes the last token that is not padding."""
    batch = torch.nn.utils.rnn.pad_sequence(texts(), batch_first=True, padding_value=PAD)
    mask = torch.arange(batch.shape[1])[None] < torch.tensor(LENGTHS)[:, None]
    return model(input_ids=batch, attention_mask=mask.long()).logits  # type: ignore[no-any-return]


@torch.no_grad()
def our_scores(decoder: Decoder) -> Tensor:
    layout = ragged_layout(LENGTHS)
    last = torch.tensor(LENGTHS).cumsum(0) - 1
    return decoder.logits(torch.cat(texts()), layout.positions, GridAttention(layout))[last]


@pytest.mark.parametrize("labels", [1, 2, 3])
@pytest.mark.parametrize("case", ["llama-tied", "mistral-window", "qwen2", "qwen3", "smollm3", "olmo2"])
def test_same_scores_as_transformers_both_ways(case: str, labels: int, tmp_path: Path) -> None:
    """Two labels are the default of transformers, which it leaves out of config.json."""
    theirs = classifier(case, labels)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    expected = their_scores(theirs)
    assert ours.config.scalar_heads == labels and expected.shape == (len(LENGTHS), labels) and expected.std() > 0.1
    assert (our_scores(ours) - expected).abs().max() <= 1e-5

    save_model(ours, tmp_path / "ours", stop_token_ids=[2], pad_token_id=PAD)
    assert (their_scores(opened(tmp_path / "ours")) - expected).abs().max() <= 1e-5
    again = load_model(tmp_path / "ours")
    assert config_json(again.config) == config_json(ours.config)
    assert torch.equal(our_scores(again), our_scores(ours))


def language_decoder(tmp_path: Path, case: str = "qwen3") -> Decoder:
    theirs_for(case).save_pretrained(tmp_path / "language")
    return load_model(tmp_path / "language")


@pytest.mark.parametrize("case", ["qwen3", "llama"])  # tied to the embedding and not
def test_a_scalar_decoder_has_the_body_of_another(case: str, tmp_path: Path) -> None:
    source = language_decoder(tmp_path, case)
    before = {name: value.clone() for name, value in source.state_dict().items()}
    made = scalar_decoder(source, 3, generator=torch.Generator().manual_seed(1))
    assert made.head is None and made.score is not None and made.head_weight is made.score.weight
    names = [name for name, _ in made.named_parameters()]
    assert names[-1] == "score.weight" and set(names[:-1]) == set(before) - {"head.weight"}
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items() if name in before)
    hidden = source(texts()[0], torch.arange(LENGTHS[0]), GridAttention(ragged_layout([LENGTHS[0]])))
    assert torch.equal(made(texts()[0], torch.arange(LENGTHS[0]), GridAttention(ragged_layout([LENGTHS[0]]))), hidden)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())
    assert made.config == dataclasses.replace(source.config, scalar_heads=3)
    assert distributed.full_copy(made) is made


def test_heads_are_drawn_apart_and_by_the_generator_alone(tmp_path: Path) -> None:
    source = language_decoder(tmp_path)
    draw = lambda seed: scalar_decoder(source, 400, generator=torch.Generator().manual_seed(seed)).head_weight  # noqa: E731
    weight = draw(1)
    assert torch.equal(weight, draw(1)) and not torch.equal(weight, draw(2))
    assert float(weight.detach().std()) == pytest.approx((TINY["hidden_size"] + 1) ** -0.5, rel=0.02)
    assert not torch.equal(weight[0], weight[1])
    assert not scalar_decoder(source, 2, "zero").head_weight.any()
    with pytest.raises(ValueError, match="0 scalar heads"):
        scalar_decoder(source, 0)


def test_a_new_head_on_a_reward_model(tmp_path: Path) -> None:
    """As a critic begins: the body of the reward model, and zeros as first values."""
    reward = scalar_decoder(language_decoder(tmp_path), 2, generator=torch.Generator().manual_seed(5))
    critic = scalar_decoder(reward, 1, "zero")
    assert critic.head_weight.shape == (1, TINY["hidden_size"]) and not our_scores(critic).any()
    assert torch.equal(critic.blocks[0].mlp.gate.weight, reward.blocks[0].mlp.gate.weight)  # type: ignore[union-attr]


def test_what_scores_is_not_asked_to_write(tmp_path: Path) -> None:
    """Told by config.json alone: no weights are read for it."""
    source = language_decoder(tmp_path)
    assert load_language_model(tmp_path / "language").config == source.config
    save_model(scalar_decoder(source), tmp_path / "reward", Tokenizer.train_character("abc"))
    (tmp_path / "reward/model.safetensors").unlink()
    with pytest.raises(UserError, match=r"reward is a reward model .* cannot write"):
        load_language_model(tmp_path / "reward")
    with pytest.raises(UserError, match=r"reward is a reward model .* cannot write"):
        generate(tmp_path / "reward", ["hi"])


def test_weights_and_config_json_belong_together(tmp_path: Path) -> None:
    """No head is guessed: a language model's weights under a classifier's config.json, and a wrong number of labels."""
    made = scalar_decoder(language_decoder(tmp_path), 2)
    place = tmp_path / "made"
    save_model(made, place, pad_token_id=PAD)
    config = json.loads((place / "config.json").read_text())
    for changes in ({"id2label": {"0": "good"}}, {"id2label": None, "num_labels": 5}):
        (place / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(UserError, match=r"score\.weight is 2x32"):
            load_model(place)
    (place / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen3ForCausalLM"]}))
    with pytest.raises(UserError, match=r"unknown: score\.weight"):
        load_model(place)
    (place / "config.json").write_text(json.dumps(config))
    weights = load_file(place / "model.safetensors")
    save_file(weights | {"lm_head.weight": torch.zeros(61, 32)}, place / "model.safetensors")
    with pytest.raises(UserError, match=r"unknown: lm_head\.weight"):
        load_model(place)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_names_its_classifier_as_transformers_does(family: str) -> None:
    assert hasattr(transformers, FAMILIES[family].classifier)
