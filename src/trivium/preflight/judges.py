"""What a judge's configuration has to be, wherever one is asked."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from trivium.errors import UserError
from trivium.preflight.common import default_of

if TYPE_CHECKING:
    from trivium.config import JudgeConfig

SERVER_KEYS = ("url", "key_variable", "concurrency", "timeout", "retries", "samples")


def check_judge(
    config: "JudgeConfig", where: str, *, policy_allowed: bool = False, unread: Collection[str] = ()
) -> None:
    """Settings of a judge that contradict each other, and such that nothing would read.

    ``policy_allowed``: the stage may judge by the policy that it trains. ``unread``: keys that matter to other stages
    alone.
    """
    from trivium.feedback.judges.connection import checked_url
    from trivium.feedback.judges.constitution import load

    if config.backend != "openai":
        for key in SERVER_KEYS:
            if getattr(config, key) != default_of(config, key):
                raise UserError(
                    f"{where}.{key} is for a server, but {where}.backend is {config.backend}; leave it out, or set the "
                    "backend to openai"
                )
    else:  # before the recipe is written down, for an address may hold a password
        try:
            checked_url(config.url)
        except UserError as error:
            raise UserError(str(error).replace("judge.url", f"{where}.url", 1)) from None
    for key in unread:
        if getattr(config, key) != default_of(config, key):
            raise UserError(f"{where}.{key} is set, but nothing here depends on it; leave it out")
    if config.backend == "local" and config.model == "policy" and not policy_allowed:
        raise UserError(
            f"{where}.model is policy, the model that learns, which cannot judge in this stage; name a stage, a "
            "directory or a model of the hub"
        )
    if config.budget_cost is not None and not (config.price_input or config.price_output):
        raise UserError(
            f"{where}.budget_cost is set, but without {where}.price_input and price_output nothing costs anything; "
            "set them, or use budget_tokens"
        )
    try:
        load(config.constitution)
    except UserError as error:
        raise UserError(f"{where}.constitution: {error}") from None
