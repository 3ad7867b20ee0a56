"""The size dial: what is derived, what is refused, and that every result can be saved."""

from typing import Any

import pytest
import torch

from trivium.config import ModelConfig
from trivium.errors import UserError
from trivium.model.decoder import Decoder
from trivium.model.families import config_json, decoder_config
from trivium.model.sizes import SIZES, derive, parameter_count, training_flops


@pytest.mark.parametrize(
    ("size", "vocabulary", "millions"),
    [("nano", 512, 0.87), ("micro", 1024, 1.97), ("mini", 8192, 29.5), ("small", 32000, 109.5)],
)
def test_sizes_have_the_parameters_they_promise(size: Any, vocabulary: int, millions: float) -> None:
    config, description = derive(ModelConfig(size=size), vocabulary)
    assert parameter_count(config) == pytest.approx(millions * 1e6, rel=0.003)
    assert f"{parameter_count(config):,} parameters" in description and f"model {size}" in description
    assert decoder_config(config_json(config)) == config


def test_parameter_count_is_that_of_the_real_decoder() -> None:
    for settings in ({"size": "nano"}, {"size": "nano", "tie_embeddings": False, "qk_norm": False, "kv_heads": 2}):
        config, _ = derive(ModelConfig(**settings), 300)
        assert parameter_count(config) == sum(parameter.numel() for parameter in Decoder(config).parameters())


def test_flops_by_torch_count() -> None:
    """torch counts matrix products; at short context attention is small beside them, so 6 a weight must show."""
    from torch.utils.flop_counter import FlopCounterMode

    from trivium.model.attention import GridAttention
    from trivium.model.layout import ragged_layout

    config, _ = derive(ModelConfig(size="nano", context_length=64), 512)
    decoder = Decoder(config)
    layout = ragged_layout([64])
    with FlopCounterMode(display=False) as counter:
        decoder.logits(torch.zeros(64, dtype=torch.long), layout.positions, GridAttention(layout)).sum().backward()
    # the last layer's input and the embedding need no further gradient, and torch counts attention without causality
    assert training_flops(config) == pytest.approx(counter.get_total_flops() / 64, rel=0.12)


def test_explicit_dimensions_win_and_the_rest_follows() -> None:
    config, description = derive(ModelConfig(size="nano", hidden_size=96, layers=2, kv_heads=1), 64)
    shape = (config.layers, config.hidden_size, config.heads, config.kv_heads, config.head_dim, config.mlp_size)
    assert shape == (2, 96, 3, 1, 32, 256)
    assert "given layers 2, hidden_size 96, kv_heads 1" in description
    assert "derived heads 3, head_dim 32, mlp_size 256" in description
    config, _ = derive(ModelConfig(size=None, hidden_size=64, layers=1, heads=4, head_dim=32, mlp_size=10), 64)
    assert (config.heads, config.head_dim, config.mlp_size) == (4, 32, 10)
    config, _ = derive(ModelConfig(size=None, hidden_size=80, layers=1), 64)
    assert (config.heads, config.head_dim) == (2, 40)


def test_family_follows_qk_norm() -> None:
    assert derive(ModelConfig(qk_norm=True), 64)[0].family == "qwen3"
    plain, _ = derive(ModelConfig(qk_norm=False), 64)
    assert plain.family == "llama" and plain.qk_norm == "none"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": None}, "give model.hidden_size and model.layers"),
        ({"size": None, "hidden_size": 64}, "give model.hidden_size and model.layers"),
        ({"heads": 3}, "hidden_size = 128 must be a multiple of model.heads = 3"),
        ({"heads": 3, "head_dim": 32}, "must be a multiple of model.heads = 3"),
        ({"head_dim": 48}, "head_dim = 48 must divide"),
        ({"hidden_size": 15, "heads": 5}, "head_dim = 3 must be even"),
        ({"hidden_size": 15}, "must be even"),
        ({"kv_heads": 3}, "must divide the 4 heads; try 1, 2, 4"),
    ],
)
def test_dimensions_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        derive(ModelConfig(**settings), 64)


def test_every_named_size_is_a_choice_of_the_configuration() -> None:
    told = ModelConfig.model_fields["size"].description or ""
    for name in SIZES:
        ModelConfig(size=name)  # type: ignore[arg-type]
    assert "nano 0.87M, micro 1.97M, mini 29.5M, small 109.5M (vocabulary 512; 1,024; 8,192; 32,000)" in told
