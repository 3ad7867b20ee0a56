"""A judge from its configuration: constitution, backend, cache and budget put together."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trivium.config import JudgeConfig
from trivium.errors import UserError
from trivium.feedback.judges import constitution
from trivium.feedback.judges.base import Backend
from trivium.feedback.judges.judge import Judge
from trivium.feedback.judges.usage import Budget

if TYPE_CHECKING:
    import torch

    from trivium.model.decoder import Decoder
    from trivium.text.tokenizer import Tokenizer


def build_judge(
    config: JudgeConfig,
    *,
    place: Callable[[str], str] = str,
    cache: str | Path | None = None,
    seed: int = 0,
    device: "torch.device | str" = "cpu",
    policy: "tuple[Decoder, Tokenizer, str] | None" = None,
) -> Judge:
    """The judge that ``config`` describes.

    ``place`` gives the directory of a stage's model; ``cache`` is the file of calls where the configuration names none
    (None: calls are kept in memory). ``policy`` (decoder, tokenizer, a hash of the weights) answers where the
    configuration says ``model: policy``. Raises UserError for a constitution, model or server that cannot be used.
    """
    law = constitution.load(config.constitution)
    backend = _backend(config, law, place, device, policy)
    try:
        return Judge(
            backend,
            law,
            principles=config.principles,
            both_orders=config.both_orders,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            seed=seed,
            cache=config.cache or cache,
            budget=Budget(config.price_input, config.price_output, config.budget_tokens, config.budget_cost),
        )
    except BaseException:
        backend.close()
        raise


def _backend(
    config: JudgeConfig,
    law: constitution.Constitution,
    place: Callable[[str], str],
    device: "torch.device | str",
    policy: "tuple[Decoder, Tokenizer, str] | None",
) -> Backend:
    if config.backend == "fake":
        from trivium.feedback.judges.fake import FakeBackend

        return FakeBackend(name=config.model, identity=f"fake {config.model}", delimiters=law.delimiters)
    if config.backend == "openai":
        from trivium.feedback.judges.server import ServerBackend

        return ServerBackend(config)
    from trivium.feedback.judges.local import LocalBackend

    if config.model != "policy":
        return LocalBackend.load(place(config.model), config.model, device)
    if policy is None:
        raise UserError(
            "judge.model is policy, but no model learns here: name a stage, a directory or a hub name; policy is for "
            "the stage dpo"
        )
    decoder, tokenizer, identity = policy
    return LocalBackend(decoder, tokenizer, "policy", identity, device)
