"""Settings of a stage that do not go together, or that nothing would read."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.errors import UserError
from trivium.files import no_model
from trivium.preflight.adapters import check_lora
from trivium.preflight.common import check_weight, default_of
from trivium.preflight.dpo import check_dpo
from trivium.preflight.judges import check_judge
from trivium.preflight.rl import check_rl
from trivium.references import references

if TYPE_CHECKING:
    from trivium.config import AuditConfig, LessonsConfig, RankConfig, ReviseConfig, RewardConfig


def check_stage(name: str, config: Any) -> None:
    """Settings of a stage that do not go together: the dimensions of its model, the choices of its algorithm."""
    check_lora(config, name)
    _check_unread(config, name)
    budget = getattr(config, "budget", None)
    if budget is not None and budget.generated is not None and not config.samples_in_steps:
        raise UserError(
            f"{name}.budget.generated is {budget.generated:,}, but the steps of this {config.kind} stage generate "
            "nothing, so it would never end by that; leave it out, or limit tokens or seconds"
        )
    if check := CHECKS.get(config.kind):
        check(config, name)
    elif config.kind == "pretrain" and config.init is None:
        from trivium.model.sizes import derive

        derive(config.model, config.tokenizer.vocabulary_size)


def _check_unread(config: Any, name: str) -> None:
    """Keys of the optimiser and the schedule that another choice beside them leaves unread."""
    if getattr(config, "optimizer", None) is None:
        return
    unread = [("optimizer.muon_lr", "name", "muon"), ("optimizer.muon_momentum", "name", "muon")]
    for key, choice, reads in (*unread, ("schedule.decay", "kind", "wsd")):
        section, own = key.split(".")
        part = getattr(config, section)
        if getattr(part, choice) != reads and getattr(part, own) != default_of(part, own):
            raise UserError(
                f"{name}.{key} is for {section}.{choice}: {reads}, but that is {getattr(part, choice)}; leave it out, "
                f"or at {default_of(part, own)}"
            )
    if config.schedule.kind == "constant" and config.schedule.final != default_of(config.schedule, "final"):
        standard = default_of(config.schedule, "final")
        raise UserError(
            f"{name}.schedule.final is {config.schedule.final}, but a constant rate stays where it is; leave it out, "
            f"or at {standard}"
        )


def check_models(name: str, config: Any, stages: Collection[str]) -> None:
    """Models that lie in directories: each is one of the kind that is needed, before anything is spent on the run."""
    for reference in references(config.model_dump(mode="json")):
        place = Path(reference.name).expanduser()
        place = place / "model" if (place / "model").is_dir() else place
        models = reference.product in ("policy", "scorer", "model")
        if reference.name in stages or not models:
            continue
        if told := no_model(place):
            raise UserError(f"stages.{name}.{reference.key}: {told}")
        if not (place / "config.json").is_file():
            continue
        from trivium.model.huggingface import read_config
        from trivium.model.scalar import refuse_scores

        model = read_config(place)
        if reference.product == "policy":
            refuse_scores(model, f"stages.{name}.{reference.key}: {place}")
        elif reference.product == "scorer" and not model.scalar_heads:
            raise UserError(
                f"stages.{name}.{reference.key}: {place} is a language model and gives no scores; name the model of a "
                "reward stage, or another sequence classification"
            )


def check_rank(config: "RankConfig", stage: str) -> None:
    """A panel that cannot rank, a judge beside it, nothing to answer, or answers that cannot differ."""
    if not config.prompts:
        raise UserError(f"{stage}.prompts is empty; name the prompts to answer")
    if config.sampling.temperature == 0:
        raise UserError(f"{stage}.sampling.temperature is 0: the answers to a prompt are all alike; use 1.0, say")
    if config.judge is not None:
        if config.panel is not None:
            raise UserError(f"{stage}.panel and {stage}.judge are both set, but one of them ranks; leave one out")
        if config.rankings_per_task > 1:
            raise UserError(
                f"{stage}.rankings_per_task is {config.rankings_per_task}, but a judge asked again says the same; "
                "leave it out, or add a rank stage with another judge on the same store"
            )
        sampled = config.judge.backend == "openai"  # where a server gives no log-probabilities
        check_judge(config.judge, f"{stage}.judge", unread=() if sampled else ("temperature", "max_new_tokens"))
        return
    if config.panel is None:
        return
    number = len(config.panel.annotators)
    if not config.panel.parts:
        raise UserError(f"{stage}.panel.parts is empty; name at least one part that the annotators look at")
    if number < config.rankings_per_task:
        raise UserError(
            f"{stage}.rankings_per_task is {config.rankings_per_task}, but the panel has {number} "
            f"annotator{'s' * (number != 1)}; name more of them under {stage}.panel.annotators"
        )
    for name, annotator in config.panel.annotators.items():
        for part in annotator.weights:
            if part not in config.panel.parts:
                raise UserError(
                    f"{stage}.panel.annotators.{name}.weights names {part!r}, which is none of the panel's parts: "
                    f"{', '.join(config.panel.parts)}"
                )


def check_lessons(config: "LessonsConfig", stage: str) -> None:
    """Rankings to make lessons of, and a constitution that asks."""
    from trivium.feedback.judges import constitution

    if not config.rankings:
        raise UserError(f"{stage}.rankings is empty; name at least one source of rankings to make lessons of")
    try:
        constitution.load(config.constitution)
    except UserError as error:
        raise UserError(f"{stage}.constitution: {error}") from None


def check_audit(config: "AuditConfig", stage: str) -> None:
    """An audit that has nothing to compare with, or asks nothing; settings of the judge that it would not read."""
    if not config.rankings:
        raise UserError(f"{stage}.rankings is empty; name at least one source of rankings, whose answers are judged")
    if not config.ask or len(set(config.ask)) < len(config.ask):
        raise UserError(f"{stage}.ask is {config.ask}; name compare, score or both, each once")
    unread = [] if config.judge.backend == "openai" else ["temperature", "max_new_tokens"]
    if "compare" not in config.ask:
        unread.append("tie_margin")
    check_judge(config.judge, f"{stage}.judge", unread=unread)


def check_reward(config: "RewardConfig", stage: str) -> None:
    """Choices of the loss that contradict each other, and settings that nothing would read."""
    if not config.rankings:
        raise UserError(f"{stage}.rankings is empty; name at least one source of rankings")
    if config.validation_share + (0 if config.test else config.test_share) >= 1:
        raise UserError(f"{stage}: validation_share and test_share leave no prompts to train on; lower them")
    if (config.fold + 1) * config.test_share > 1 + 1e-9:
        raise UserError(
            f"{stage}.fold is {config.fold}, but a test_share of {config.test_share} leaves folds 0 to "
            f"{int(1 / config.test_share + 1e-9) - 1}"
        )
    for key in ("test_share", "fold"):
        if config.test and getattr(config, key) != default_of(config, key):
            raise UserError(f"{stage}.{key} is for a share of the prompts, but {stage}.test names what to test with")
    if config.ties == "rao_kupper" and config.tie_parameter <= 1:
        raise UserError(f"{stage}.tie_parameter is {config.tie_parameter}; rao_kupper needs a theta above 1")
    if config.loss == "plackett_luce":
        if config.ties not in ("soft", "ignore"):
            raise UserError(f"{stage}.ties is {config.ties}, which is for the pairwise loss; use soft or ignore")
        for key, neutral in (("margin", 0.0), ("label_smoothing", 0.0), ("reduction", "ranking")):
            if getattr(config, key) != neutral:
                raise UserError(f"{stage}.{key} is for the pairwise loss; leave it out under plackett_luce")
    if config.ties not in ("rao_kupper", "davidson") and config.tie_parameter != default_of(config, "tie_parameter"):
        raise UserError(f"{stage}.tie_parameter is for rao_kupper and davidson, but {stage}.ties is {config.ties}")
    for key in ("gold", "policy", "prompt_limit", "samples", "sampling"):
        if getattr(config, key) != default_of(config, key) and not config.prompts:
            raise UserError(f"{stage}.{key} is set, but {stage}.prompts is empty; name the prompts to answer")
    if config.prompts and config.sampling.temperature == 0:
        raise UserError(f"{stage}.sampling.temperature is 0: the answers to a prompt are all alike; use 1.0, say")


def check_revise(config: "ReviseConfig", stage: str) -> None:
    """Prompts to answer, and settings of the judge that nothing would read."""
    if not config.prompts:
        raise UserError(f"{stage}.prompts is empty; name the prompts to answer")
    unread = ["tie_margin"]
    if config.keep == "all":  # nothing is compared
        unread += ["both_orders", "samples"] if config.judge.backend == "openai" else ["both_orders"]
    check_judge(config.judge, f"{stage}.judge", unread=unread)
    if config.gold is not None:
        check_weight(config.gold, f"{stage}.gold")


CHECKS: dict[str, Callable[[Any, str], None]] = {
    "rank": check_rank,
    "lessons": check_lessons,
    "audit": check_audit,
    "revise": check_revise,
    "reward": check_reward,
    "dpo": check_dpo,
    "rl": check_rl,
}
