"""Adapters on the decoder: where they begin, what they leave alone, and that peft opens what is written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.generation.tiny import BASE, KINDS, decoder_of, plain_greedy, plain_logits
from torch import Tensor

from trivium.config import LoRAConfig, OptimizerConfig
from trivium.errors import UserError
from trivium.generation.engine import Engine
from trivium.generation.sampling import SamplingSettings
from trivium.generation.scheduler import Request
from trivium.model import lora
from trivium.model.adapter_files import save_adapter
from trivium.model.attention import GridAttention
from trivium.model.decoder import Decoder, DecoderConfig
from trivium.model.head import token_log_probs
from trivium.model.huggingface import load_model, save_model
from trivium.model.layout import ragged_layout
from trivium.model.lora import WithoutAdapters, adapted_layers, adapters_off, add_adapters, merged_state
from trivium.model.scalar import scalar_decoder
from trivium.training.optimizer import build_optimizers

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
    "olmo2": {"qk_norm": "full", "norm_position": "after"},
}


def adapted(decoder: Decoder, seed: int = 7, **settings: Any) -> Decoder:
    """With adapters that have learnt something: B is no longer zero."""
    drawn = torch.Generator().manual_seed(seed)
    add_adapters(decoder, LoRAConfig(**{"rank": 3, **settings}), drawn)
    with torch.no_grad():
        for _, layer in adapted_layers(decoder):
            layer.lora_B["default"].weight.normal_(0, 0.3, generator=drawn)
    return decoder


def frozen(decoder: Decoder) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in decoder.named_parameters() if ".lora_" not in name}


# ---- one decoder ----------------------------------------------------------------------------------------------------


def test_a_product_by_hand() -> None:
    """W = 0, A = [[1, 2]], B = [[3], [5]], alpha 4, rank 1: the matrix becomes 4 * B A = [[12, 24], [20, 40]]."""
    shape = {**BASE, "hidden_size": 2, "heads": 1, "kv_heads": 1, "head_dim": 2, "mlp_size": 2, "layers": 1}
    decoder = Decoder(DecoderConfig(**shape))
    with torch.no_grad():
        dict(decoder.named_parameters())["blocks.0.attention.q.weight"].zero_()
    add_adapters(decoder, LoRAConfig(rank=1, alpha=4, targets=["q"]), torch.Generator())
    ((name, layer),) = adapted_layers(decoder)
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.lora_B["default"].weight.copy_(torch.tensor([[3.0], [5.0]]))
    assert name == "blocks.0.attention.q"
    assert merged_state(decoder)["blocks.0.attention.q.weight"].tolist() == [[12.0, 24.0], [20.0, 40.0]]
    assert layer(torch.tensor([1.0, -1.0])).tolist() == [-12.0, -20.0]


def test_rank_stabilised_counts_by_the_root_of_the_rank() -> None:
    """Rank 4, alpha 8: 8 / 4 = 2, or 8 / sqrt(4) = 4."""
    for stabilised, scale in ((False, 2.0), (True, 4.0)):
        decoder = add_adapters(
            decoder_of(), LoRAConfig(rank=4, alpha=8, rank_stabilised=stabilised), torch.Generator().manual_seed(0)
        )
        layer = adapted_layers(decoder)[0][1]
        before = layer.get_base_layer().weight.detach()
        with torch.no_grad():
            layer.lora_B["default"].weight.fill_(1.0)
        product = torch.ones(before.shape[0], 4) @ layer.lora_A["default"].weight.detach()
        torch.testing.assert_close(merged_state(decoder)["blocks.0.attention.q.weight"], before + scale * product)


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_as_the_same_function_to_the_bit(kind: str) -> None:
    plain = plain_logits(decoder_of(kind), TOKENS)
    decoder = add_adapters(decoder_of(kind), LoRAConfig(rank=2), torch.Generator().manual_seed(0))
    assert torch.equal(plain_logits(decoder, TOKENS), plain)
    state, before = merged_state(decoder), decoder_of(kind).state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in state.items())


def test_what_is_drawn_is_the_generators_and_no_other_draw_moves() -> None:
    one = decoder_of()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    add_adapters(one, LoRAConfig(rank=2), torch.Generator().manual_seed(1))
    assert torch.equal(torch.rand(3), expected)
    again = add_adapters(decoder_of(), LoRAConfig(rank=2), torch.Generator().manual_seed(1))
    other = add_adapters(decoder_of(), LoRAConfig(rank=2), torch.Generator().manual_seed(2))
    name, down = "blocks.0.mlp.down", {}
    for key, decoder in (("one", one), ("again", again), ("other", other)):
        layer = dict(adapted_layers(decoder))[name]
        down[key] = layer.lora_A["default"].weight.detach()
        assert not layer.lora_B["default"].weight.any()
    assert torch.equal(down["one"], down["again"]) and not torch.equal(down["one"], down["other"])
    bound = BASE["mlp_size"] ** -0.5  # uniform: the deviation is bound / sqrt(3)
    assert down["one"].abs().max() <= bound
    assert float(down["one"].std()) == pytest.approx(bound / 3**0.5, rel=0.3)


def test_only_adapters_and_score_heads_learn() -> None:
    language = add_adapters(decoder_of(), LoRAConfig(rank=2, targets=["q", "down"]), torch.Generator())
    learns = [name for name, parameter in language.named_parameters() if parameter.requires_grad]
    parts = [f"lora_{part}.default.weight" for part in "AB"]
    assert learns == [f"blocks.{n}.{m}.{part}" for n in (0, 1) for m in ("attention.q", "mlp.down") for part in parts]
    scores = add_adapters(scalar_decoder(decoder_of(), heads=2), LoRAConfig(rank=2), torch.Generator())
    assert scores.score is not None and scores.score.weight.requires_grad
    assert not scores.embedding.weight.requires_grad and not scores.norm.weight.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_switched_off_it_is_the_decoder_from_before_and_then_itself_again(kind: str) -> None:
    before = plain_logits(decoder_of(kind), TOKENS)
    decoder = adapted(decoder_of(kind))
    learnt = plain_logits(decoder, TOKENS)
    assert (learnt - before).abs().max() > 0.1
    layout = ragged_layout([len(TOKENS)])
    given = (torch.tensor(TOKENS), layout.positions, GridAttention(layout), lambda hidden, weight: hidden @ weight.t())
    with adapters_off(decoder):
        assert torch.equal(plain_logits(decoder, TOKENS), before)
        assert torch.equal(WithoutAdapters(decoder)(*given), before)  # one within the other ...
        assert torch.equal(plain_logits(decoder, TOKENS), before)  # ... does not switch them on again
    with pytest.raises(ZeroDivisionError), adapters_off(decoder):
        _ = 1 / 0
    assert torch.equal(plain_logits(decoder, TOKENS), learnt)
    apart = WithoutAdapters(decoder)(*given)
    assert torch.equal(apart, before) and not apart.requires_grad
    decoder(*given).sum().backward()  # and it still learns
    assert all(layer.lora_A["default"].weight.grad is not None for _, layer in adapted_layers(decoder))
    with pytest.raises(ValueError, match="no adapters"), adapters_off(decoder_of(kind)):
        pass


def test_a_backward_pass_leaves_the_rest_without_gradients_and_a_frozen_head_changes_none() -> None:
    decoder = adapted(decoder_of())
    gradients = []
    targets, layout = torch.tensor(TOKENS).roll(-1), ragged_layout([len(TOKENS)])
    for learns in (False, True):  # the weights of the head, and with them half of its backward pass
        decoder.zero_grad()
        decoder.embedding.weight.requires_grad_(learns)
        assert decoder.head is not None
        decoder.head.weight.requires_grad_(learns)
        loss = decoder(
            torch.tensor(TOKENS),
            layout.positions,
            GridAttention(layout),
            lambda hidden, weight: token_log_probs(hidden, weight, targets)[0],
        )
        loss.sum().backward()
        assert (decoder.head.weight.grad is not None) == learns
        gradients.append(
            {n: p.grad.clone() for n, p in decoder.named_parameters() if ".lora_" in n and p.grad is not None}
        )
    assert len(gradients[0]) == 2 * 7 * 2 and gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items())


def test_checkpointed_blocks_give_the_same_gradients() -> None:
    found = []
    for checkpointed in (False, True):
        decoder = adapted(decoder_of())
        decoder.gradient_checkpointing = checkpointed
        layout = ragged_layout([len(TOKENS)])
        decoder.logits(torch.tensor(TOKENS), layout.positions, GridAttention(layout)).square().sum().backward()
        found.append([parameter.grad for parameter in decoder.parameters() if parameter.grad is not None])
    assert len(found[0]) == 28
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("kind", ["grouped-query", "tied"])
def test_the_engine_decodes_with_adapters(kind: str) -> None:
    decoder = adapted(decoder_of(kind))
    settings = SamplingSettings(0.0, 0, 1.0, 8, (), ())
    prompts = [TOKENS[:3], TOKENS[:6], TOKENS[:1]]
    requests = [Request(tuple(prompt), str(number), 1) for number, prompt in enumerate(prompts)]
    found = [one[0].tokens for one in Engine(decoder, slots=2).generate(requests, settings, 0)]
    assert found == [plain_greedy(decoder, prompt, 8) for prompt in prompts]
    assert found != [plain_greedy(decoder_of(kind), prompt, 8) for prompt in prompts]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_an_optimiser_moves_adapters_and_nothing_else(name: str) -> None:
    """Muon takes A and B as it takes every matrix of a block; weight decay, which it has, reaches nothing frozen."""
    decoder = adapted(decoder_of())
    before = frozen(decoder)
    optimizers = build_optimizers(decoder, OptimizerConfig(name=name, weight_decay=0.1, lr=1e-2))
    learnt = [parameter.detach().clone() for parameter in decoder.parameters() if parameter.requires_grad]
    layout = ragged_layout([len(TOKENS)])
    losses = []
    for _ in range(8):
        logits = decoder.logits(torch.tensor(TOKENS), layout.positions, GridAttention(layout))
        loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(TOKENS[1:]))
        loss.backward()
        losses.append(float(loss.detach()))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.1
    assert all(torch.equal(value, before[key]) for key, value in frozen(decoder).items())
    moved = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    assert not any(torch.equal(one, other) for one, other in zip(learnt, moved, strict=True))
    held = {id(parameter) for one in optimizers for group in one.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in moved}


def test_a_critic_made_of_it_is_whole_and_has_its_weights() -> None:
    decoder = adapted(decoder_of())
    critic = scalar_decoder(decoder, init="zero")
    assert not adapted_layers(critic) and all(parameter.requires_grad for parameter in critic.parameters())
    state = merged_state(decoder)
    assert all(torch.equal(value, state[name]) for name, value in critic.named_parameters() if name != "score.weight")


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'trivium\[lora\]'"):
        add_adapters(decoder_of(), LoRAConfig(), torch.Generator())
    assert lora.adapted_layers(decoder_of()) == []  # a decoder without adapters never asks for it


# ---- on disk --------------------------------------------------------------------------------------------------------


def family_of(family: str, **more: Any) -> Decoder:
    decoder = Decoder(DecoderConfig(**{**BASE, "kv_heads": 2, **FAMILIES[family], **more}, family=family))
    decoder.initialise(torch.Generator().manual_seed(3), std=0.2)
    return decoder


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_opens_it_on_the_model_of_transformers(family: str, tmp_path: Path) -> None:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    decoder = family_of(family)
    save_model(decoder, tmp_path / "base")
    adapted(decoder, targets=["q", "o", "up", "down"], rank_stabilised=True)
    ours = plain_logits(decoder, TOKENS)
    save_adapter(decoder, tmp_path / "adapter", str(tmp_path / "base"))
    save_model(decoder, tmp_path / "merged")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    tokens = torch.tensor([TOKENS])
    with torch.no_grad():
        assert (theirs(tokens).logits[0] - ours).abs().max() > 0.1
        opened = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter")
        torch.testing.assert_close(opened(tokens).logits[0], ours, atol=1e-5, rtol=0)
        by_itself = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
        torch.testing.assert_close(by_itself(tokens).logits[0], ours, atol=1e-5, rtol=0)
        merged = opened.merge_and_unload().state_dict()
    own = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    for name, value in merged.items():
        torch.testing.assert_close(own[name], value, atol=1e-6, rtol=0, msg=name)
    torch.testing.assert_close(plain_logits(load_model(tmp_path / "merged"), TOKENS), ours, atol=1e-5, rtol=0)


def test_peft_opens_a_reward_model_with_its_heads(tmp_path: Path) -> None:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    language = family_of("qwen3")
    save_model(language, tmp_path / "base", pad_token_id=0)
    scores = adapted(scalar_decoder(language, heads=2, generator=torch.Generator().manual_seed(1)))
    save_adapter(scores, tmp_path / "adapter", str(tmp_path / "base"))
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base", num_labels=2, dtype=torch.float32
    )
    opened = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    with torch.no_grad():
        theirs = opened(torch.tensor([TOKENS])).logits[0]
    torch.testing.assert_close(theirs, plain_logits(scores, TOKENS)[-1], atol=1e-5, rtol=0)


def test_the_files_are_the_same_for_the_same_adapter(tmp_path: Path) -> None:
    decoder = adapted(family_of("llama"))
    for name in ("one", "two"):
        save_adapter(decoder, tmp_path / name, "base")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    told = json.loads((tmp_path / "one/adapter_config.json").read_text())
    assert told["target_modules"] == sorted(told["target_modules"]) and len(told["target_modules"]) == 7
    assert told["r"] == 3 and told["base_model_name_or_path"] == "base" and told["task_type"] == "CAUSAL_LM"
    with pytest.raises(ValueError, match="no adapters"):
        save_adapter(family_of("llama"), tmp_path / "three", "base")
