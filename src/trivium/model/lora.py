"""Low-rank adapters on a decoder: the layers of ``peft``, drawn from our own streams, switched off, and merged.

LoRA (Hu et al., 2021, arXiv 2106.09685): a matrix W of a block becomes W + s B A, with A (rank, in), B (out, rank) and
s = alpha / rank, or alpha / sqrt(rank) (rank-stabilised: Kalajdzievski, 2023, arXiv 2312.03732). B begins at zero, so
the decoder begins as it was. Only A and B learn; what was there is frozen and never written to.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trivium.errors import UserError
from trivium.model.decoder import Decoder, Head

if TYPE_CHECKING:  # types and no more: peft takes seconds to load, and the model knows nothing of recipes
    import peft
    from peft.tuners.lora import Linear as AdaptedLinear

    from trivium.config import LoRAConfig
    from trivium.model.attention import Attend

NAME = "default"  # what peft calls the only adapter of a model
INSTALL = "low-rank adapters need the package peft: pip install 'trivium[lora]'"


def import_peft() -> Any:
    """The package ``peft``; UserError where it is not installed."""
    try:
        import peft
    except ImportError:
        raise UserError(INSTALL) from None
    return peft


def add_adapters(decoder: Decoder, config: "LoRAConfig", generator: torch.Generator) -> Decoder:
    """Give ``decoder`` (changed in place, and returned) adapters, and freeze all else but scalar heads.

    ``generator`` (of the CPU) decides A: uniform within 1/sqrt(in), as ``peft`` draws it; so the numbers are the same
    on every device. B is zero. UserError without ``peft``.
    """
    peft = import_peft()
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        use_rslora=config.rank_stabilised,
        target_modules=list(config.targets),
    )
    _inject(decoder, settings)
    if decoder.score is not None:  # fresh heads, which nothing has taught yet
        decoder.score.requires_grad_(True)
    with torch.no_grad():
        for _, layer in adapted_layers(decoder):
            down = layer.lora_A[NAME].weight
            bound = down.shape[1] ** -0.5
            down.copy_(torch.empty(down.shape).uniform_(-bound, bound, generator=generator))
            layer.lora_B[NAME].weight.zero_()
    return decoder


def _inject(decoder: Decoder, settings: "peft.LoraConfig") -> None:
    device = decoder.embedding.weight.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # peft draws from hidden state
        import_peft().inject_adapter_in_model(settings, decoder, NAME)


def settings_of(decoder: Decoder) -> "peft.LoraConfig | None":
    """peft's settings of the adapters of ``decoder``; None where it has none."""
    return getattr(decoder, "peft_config", {}).get(NAME)


def adapted_layers(decoder: Decoder) -> "list[tuple[str, AdaptedLinear]]":
    """Names (``blocks.0.attention.q``) and layers that have an adapter, in their order; none without adapters."""
    if settings_of(decoder) is None:
        return []
    from peft.tuners.lora import LoraLayer

    return [(name, module) for name, module in decoder.named_modules() if isinstance(module, LoraLayer)]


def same_adapters(target: Decoder, source: Decoder) -> None:
    """Give ``target`` adapters of the shapes of those of ``source``, if it has any; their values are anything."""
    if (settings := settings_of(source)) is not None:
        _inject(target, settings)


def merged_state(decoder: Decoder) -> dict[str, Tensor]:
    """The weights of a decoder without adapters that computes the same, by name: W + s B A where there is one.

    New tensors for what an adapter changes, the decoder's own (detached) for all else; those of a decoder without
    adapters as they are. ``decoder`` stays as it is.
    """
    deltas = {f"{name}.weight": layer for name, layer in adapted_layers(decoder)}
    state = {}
    for name, parameter in decoder.named_parameters():
        if ".lora_" in name:
            continue
        plain, value = name.replace(".base_layer.", "."), parameter.detach()
        if layer := deltas.get(plain):
            with torch.no_grad():
                value = value + layer.get_delta_weight(NAME).to(value)
        state[plain] = value
    return state


@contextmanager
def adapters_off(decoder: Decoder) -> Iterator[Decoder]:
    """The decoder as it was before it had adapters, as long as the context lasts: a reference that takes no memory.

    For forward passes without a backward pass; those of ``peft`` do not learn meanwhile. Within another such context
    they stay off until that one ends. ValueError without adapters.
    """
    layers = adapted_layers(decoder)
    if not layers:
        raise ValueError("this decoder has no adapters to switch off")
    on = [layer for _, layer in layers if not layer.disable_adapters]
    try:
        for layer in on:
            layer.enable_adapters(False)
        yield decoder
    finally:
        for layer in on:
            layer.enable_adapters(True)


class WithoutAdapters:
    """Called as the decoder is, but computes without its adapters; no copy of any weight."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def __call__(self, tokens: Tensor, positions: Tensor, attend: "Attend", head: Head | None = None) -> Any:
        with torch.no_grad(), adapters_off(self.decoder) as decoder:
            return decoder(tokens, positions, attend, head)
