"""Decoders with scalar heads: what reward models and critics are, made from any decoder."""

from dataclasses import replace
from typing import Literal

import torch

from trivium.errors import UserError
from trivium.model.decoder import Decoder, DecoderConfig
from trivium.model.lora import merged_state


def scalar_decoder(
    decoder: Decoder,
    heads: int = 1,
    init: Literal["normal", "zero"] = "normal",
    generator: torch.Generator | None = None,
) -> Decoder:
    """A copy of ``decoder``'s body under ``heads`` fresh scalar heads, (heads, hidden_size), on the same device.

    The decoder may be a language model or have scalar heads already; it stays as it is, and its head is not taken over;
    adapters are merged into the copy.
    ``init``: ``normal`` draws each head on its own with deviation 1/sqrt(hidden_size + 1), so that the scores of
    normalised states begin with a deviation near 1 (Stiennon et al., 2020, appendix B); ``zero`` makes every first
    score 0. ``generator`` (of the CPU) decides what is drawn: the same numbers on every device. ValueError for fewer
    heads than one or another ``init``.
    """
    if heads < 1 or init not in ("normal", "zero"):
        raise ValueError(f"{heads} scalar heads with init {init!r}: give at least 1, and normal or zero")
    weight = decoder.embedding.weight
    score = torch.zeros(heads, decoder.config.hidden_size)
    if init == "normal":
        score.normal_(0.0, (decoder.config.hidden_size + 1) ** -0.5, generator=generator)
    with torch.device("meta"):
        copy = Decoder(replace(decoder.config, scalar_heads=heads))
    body = {
        name: parameter.clone()
        for name, parameter in merged_state(decoder).items()
        if not name.startswith(("head.", "score."))
    }
    copy.load_state_dict(body | {"score.weight": score.to(weight)}, strict=True, assign=True)
    copy.reset_rope()
    copy.gradient_checkpointing = decoder.gradient_checkpointing
    return copy.requires_grad_(True).train(decoder.training)


def refuse_scores(config: DecoderConfig, source: object) -> None:
    """UserError where the model ``source`` has scalar heads and is asked for text."""
    if config.scalar_heads:
        raise UserError(
            f"{source} is a reward model (sequence classification): it scores answers and cannot write them; "
            "name the model that it was trained from, or another that generates text"
        )
