"""Choices of preference optimisation that contradict each other, and keys that its loss or its source does not read."""

from typing import TYPE_CHECKING

from trivium.errors import UserError
from trivium.preflight.common import check_weight, default_of
from trivium.preflight.judges import check_judge
from trivium.preflight.rl import check_scorers

if TYPE_CHECKING:
    from trivium.config import DPOConfig

ITERATED_KEYS = ("iterations", "prompts", "tasks", "responses", "pairs", "monitor")
SAMPLED_KEYS = ("temperature", "top_k", "top_p")  # nothing of these holds where the KL is measured
# by key, the losses that read it
READ_BY = {
    "label_smoothing": ("sigmoid", "robust"),
    "target_margin": ("simpo",),
    "labelled": ("kto",),
    "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
    "kto_baseline": ("kto",),
    "ties": ("sigmoid", "plackett_luce"),
}
WITHOUT_REFERENCE = ("simpo", "orpo")


def check_dpo(config: "DPOConfig", stage: str) -> None:
    """One source of feedback and what belongs to it, a loss and what it reads; rounds that cannot work."""
    given = {
        "rankings": bool(config.rankings or config.labelled),
        "judge": config.judge is not None,
        "rewards": bool(config.rewards),
    }
    chosen = [name for name, there in given.items() if there]
    if chosen and config.labelled and not config.rankings:
        chosen[0] = "labelled"
    if len(chosen) != 1:
        keys = " and ".join(f"{stage}.{name}" for name in chosen)
        how_many = "both" if len(chosen) == 2 else "all"
        problem = f"{keys} are {how_many} set" if chosen else f"{stage} has nothing to learn from"
        raise UserError(
            f"{problem}; set one of them: {stage}.rankings to learn from what is there (kto: or labelled), "
            f"{stage}.judge or {stage}.rewards to learn from the policy's own answers"
        )
    _check_loss(config, stage)
    _check_reference(config, stage)
    _check_ties(config, stage)
    _check_divergence(config, stage)
    if config.iterated:
        _check_rounds(config, stage)
        return
    for key in ITERATED_KEYS:
        if getattr(config, key) != default_of(config, key):
            raise UserError(
                f"{stage}.{key} is for rounds, but neither {stage}.judge nor {stage}.rewards is set; leave it out"
            )
    _check_labelled(config, stage)


def _check_loss(config: "DPOConfig", stage: str) -> None:
    for key, losses in READ_BY.items():
        if config.loss not in losses and getattr(config, key) != default_of(config, key):
            raise UserError(
                f"{stage}.{key} is for the loss {' or '.join(losses)}, but {stage}.loss is {config.loss}; leave it out"
            )
    if config.preferences is not None and config.iterated:
        raise UserError(f"{stage}.preferences is {config.preferences}, but rounds learn from scores; leave it out")
    if config.preferences == "soft" and config.loss != "sigmoid":
        raise UserError(
            f"{stage}.preferences is soft, but the loss {config.loss} learns from tiers alone; leave it out"
        )
    if config.length_normalised is False and config.loss in WITHOUT_REFERENCE:
        raise UserError(f"{stage}.length_normalised is false, but {config.loss} takes means; leave it out")
    if config.length_normalised and config.loss == "kto":
        raise UserError(f"{stage}.length_normalised is true, but kto measures rewards from a KL of sums; leave it out")


def _check_labelled(config: "DPOConfig", stage: str) -> None:
    from trivium.data.sources import check_labelled

    for number, source in enumerate(config.labelled):
        if source.weight != 1:
            raise UserError(
                f"{stage}.labelled.{number}.weight is {source.weight}, but labelled answers are not mixed; leave it "
                f"out, or use {stage}.desirable_weight and undesirable_weight"
            )
        try:
            check_labelled(source)
        except UserError as error:
            raise UserError(f"{stage}.labelled.{number}: {error}") from None


def _check_reference(config: "DPOConfig", stage: str) -> None:
    if config.reference == "start" and config.loss in WITHOUT_REFERENCE:
        raise UserError(f"{stage}.reference is start, but {config.loss} knows no reference; leave it out")
    if config.loss == "kto" and not config.compared and config.kto_baseline != "none":
        raise UserError(
            f"{stage}.reference is none, but {stage}.kto_baseline is a KL to the reference; set kto_baseline to none"
        )


def _check_ties(config: "DPOConfig", stage: str) -> None:
    if config.loss == "plackett_luce" and config.ties not in ("ignore", "soft"):
        raise UserError(f"{stage}.ties is {config.ties}, which is for pairs; use soft or ignore with plackett_luce")
    if config.ties == "rao_kupper" and config.tie_parameter <= 1:
        raise UserError(f"{stage}.tie_parameter is {config.tie_parameter}; rao_kupper needs a theta above 1")
    if config.ties not in ("rao_kupper", "davidson") and config.tie_parameter != default_of(config, "tie_parameter"):
        raise UserError(f"{stage}.tie_parameter is for rao_kupper and davidson, but {stage}.ties is {config.ties}")


def _check_divergence(config: "DPOConfig", stage: str) -> None:
    """Where the KL is measured, and what samples."""
    if config.kl_prompts and not config.validation_share:
        raise UserError(
            f"{stage}.kl_prompts takes prompts that are held out, and {stage}.validation_share is 0; raise it, or set "
            "kl_prompts to 0"
        )
    if config.iterated:
        return
    if not config.kl_prompts:
        for key in ("sampling", "slots"):
            if getattr(config, key) != default_of(config, key):
                raise UserError(
                    f"{stage}.{key} is for rounds and for kl_prompts, but neither {stage}.judge, {stage}.rewards nor "
                    f"{stage}.kl_prompts is set; leave it out"
                )
    for key in SAMPLED_KEYS:
        if getattr(config.sampling, key) != default_of(config.sampling, key):
            raise UserError(
                f"{stage}.sampling.{key} is for rounds; the KL is that of the policy at temperature 1; leave it out"
            )


def _check_rounds(config: "DPOConfig", stage: str) -> None:
    if config.judge is not None:
        unread = ["both_orders", "tie_margin"]
        if config.judge.backend != "openai":
            unread += ["temperature", "max_new_tokens"]
        check_judge(config.judge, f"{stage}.judge", policy_allowed=True, unread=unread)
    if not config.prompts:
        raise UserError(f"{stage}.prompts is empty; name the prompts that the policy answers")
    if config.sampling.temperature == 0:
        raise UserError(f"{stage}.sampling.temperature is 0: the answers to a prompt are all alike; use 1.0, say")
    if config.steps < config.iterations:
        raise UserError(f"{stage}.iterations is {config.iterations}, but there are {config.steps} steps; raise steps")
    if config.pairs == "best_worst" and config.ties == "soft":
        raise UserError(
            f"{stage}.ties is soft, but {stage}.pairs is best_worst, which leaves no ties; set pairs to all, or leave "
            "ties out"
        )
    _check_rewards(config, stage)
    for name, part in config.monitor.items():
        check_weight(part, f"{stage}.monitor.{name}")


def _check_rewards(config: "DPOConfig", stage: str) -> None:
    from trivium.feedback.majority import MINIMUM_GROUP

    check_scorers({f"{stage}.rewards.{name}": part for name, part in config.rewards.items()})
    if config.rewards and not any(part.weight for part in config.rewards.values()):
        raise UserError(f"{stage}.rewards: all weights are 0, so all answers score alike; give one of them a weight")
    for name, part in config.rewards.items():
        where = f"{stage}.rewards.{name}"
        if part.kind == "environment":
            raise UserError(f"{where} is an environment's score, but the answers here have no environment; take rl")
        if part.kind == "majority" and config.responses < MINIMUM_GROUP:
            raise UserError(
                f"{stage}.responses is {config.responses}, but {where} is a majority vote, which needs at least "
                f"{MINIMUM_GROUP} answers; raise it"
            )
