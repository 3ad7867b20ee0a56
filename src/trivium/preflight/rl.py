"""Choices of reinforcement learning that contradict each other, before anything is sampled."""

from typing import TYPE_CHECKING

from trivium.errors import UserError
from trivium.preflight.common import default_of
from trivium.preflight.judges import check_judge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trivium.config import RLConfig, VerifierConfig


def check_rl(config: "RLConfig", stage: str) -> None:
    """Choices that contradict each other are refused before anything is sampled."""
    if config.sampling.temperature == 0:
        raise UserError(f"{stage}.sampling.temperature is 0: greedy rollouts of a group are all alike; use 1.0, say")
    if config.kl != "none" and config.reference == "none":
        raise UserError(
            f"{stage}.kl is {config.kl} but {stage}.reference is none; set the reference to frozen or moving"
        )
    if config.group_size == 1 and config.advantage not in ("batch_zscore", "gae"):
        raise UserError(f"{stage}.group_size is 1, which leaves {config.advantage} nothing to compare; use 2 or more")
    if config.minibatches > config.prompts_per_step:
        raise UserError(f"{stage}.minibatches is larger than {stage}.prompts_per_step; each update needs a prompt")
    if config.overlong == "penalty" and config.overlong_window >= config.sampling.max_new_tokens:
        raise UserError(
            f"{stage}.overlong_window is {config.overlong_window}, but a response has at most "
            f"{config.sampling.max_new_tokens} tokens; make the window shorter, so that short answers cost nothing"
        )
    _check_ppo(config, stage)
    _check_kl(config, stage)
    _check_watch(config, stage)
    _check_rewards(config, stage)
    _check_environment(config, stage)
    _check_curriculum(config, stage)
    _check_alarm(config, stage)
    _check_unread(config, stage)


def _check_ppo(config: "RLConfig", stage: str) -> None:
    """The critic and the scale of the rewards."""
    if config.critic is not None and config.advantage != "gae":
        raise UserError(
            f"{stage}.critic is set, but {config.advantage} advantages need none; leave it out, or use the preset ppo"
        )
    if config.advantage == "gae" and config.resample:
        raise UserError(
            f"{stage}.resample replaces groups whose rewards are alike, but gae compares with a critic; set it to 0"
        )
    if config.critic is not None and config.critic.warmup >= config.steps:
        raise UserError(f"{stage}.critic.warmup leaves none of the {config.steps} steps to the policy; make it shorter")
    scaled_anyway = config.advantage in ("group_zscore", "batch_zscore")
    matters = config.kl == "reward" or config.overlong == "penalty" or config.missing_stop_penalty > 0
    if config.reward_normalisation not in (None, "none") and scaled_anyway and not matters:
        raise UserError(
            f"{stage}.reward_normalisation changes nothing, since {config.advantage} scales the rewards itself; "
            "set it to none"
        )
    if not config.rewards:
        raise UserError(f"{stage}.rewards is empty; name at least one part of the reward")


def check_scorers(scorers: "Mapping[str, VerifierConfig]") -> None:
    """Options of the judges and votes among ``scorers``, which are named by their place in the recipe."""
    from trivium.feedback.judge_reward import judge_options
    from trivium.feedback.majority import majority_options

    for where, part in scorers.items():
        if part.kind not in ("judge", "majority"):
            continue
        try:
            if part.kind == "majority":
                majority_options(part)
                continue
            options = judge_options(part)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        sampled = options.backend == "openai"  # where a server gives no log-probabilities
        unread = ("tie_margin",) if sampled else ("tie_margin", "temperature", "max_new_tokens")
        check_judge(options, f"{where}.options", unread=unread)


def _check_rewards(config: "RLConfig", stage: str) -> None:
    """Options of judges and votes, and monitors."""
    scorers = {f"{stage}.rewards.{name}": part for name, part in config.rewards.items()}
    if config.watch.held_out is not None:
        scorers[f"{stage}.watch.held_out"] = config.watch.held_out
    check_scorers(scorers)
    _check_votes(config, stage)
    for name, part in config.monitor.items():
        if part.weight != 1:
            raise UserError(
                f"{stage}.monitor.{name}.weight is {part.weight}, but monitors are not summed; leave the weight out"
            )


def _check_votes(config: "RLConfig", stage: str) -> None:
    """A vote without voters, or with a baseline under which a group that abstains would be punished."""
    from trivium.feedback.majority import MINIMUM_GROUP

    parts = [name for name, part in config.rewards.items() if part.kind == "majority"]
    if not parts:
        return
    where = f"{stage}.rewards.{parts[0]}"
    if len(parts) > 1:
        raise UserError(f"{stage}.rewards.{parts[1]} is a second majority vote beside {where}; leave one out")
    if config.group_size < MINIMUM_GROUP:
        raise UserError(
            f"{stage}.group_size is {config.group_size}, but {where} is a majority vote, which needs at least "
            f"{MINIMUM_GROUP} answers; make it larger"
        )
    if config.advantage in ("batch_zscore", "gae"):
        raise UserError(
            f"{where} gives 0 to a whole group that has no majority, which {stage}.advantage {config.advantage} would "
            "take for bad answers; compare within groups: group_mean, group_zscore or leave_one_out"
        )
    if watched(config) and config.watch.samples < MINIMUM_GROUP:
        raise UserError(
            f"{stage}.watch.samples is {config.watch.samples}, but {where} is a majority vote, which needs at least "
            f"{MINIMUM_GROUP} answers; make it larger, or set {stage}.watch.enabled to false"
        )


def _check_environment(config: "RLConfig", stage: str) -> None:
    """The score of an environment that is not there."""
    for name, part in config.rewards.items():
        if part.kind == "environment" and config.environment is None:
            raise UserError(
                f"{stage}.rewards.{name} is the environment's score, but {stage}.environment is not set; name one"
            )


def _check_curriculum(config: "RLConfig", stage: str) -> None:
    """A curriculum that would choose nothing, and settings of levels where there are none."""
    curriculum = config.curriculum
    if curriculum is None:
        return
    where = f"{stage}.curriculum"
    if curriculum.level is None:
        if not curriculum.drop_after and not curriculum.postpone:
            raise UserError(f"{where} drops nothing, postpones nothing and has no level; leave it out, or set one")
        for key in ("start", "raise_at", "window", "review"):
            if getattr(curriculum, key) != default_of(curriculum, key):
                raise UserError(f"{where}.{key} is set, but {where}.level is not; name the metadata that holds levels")
    elif curriculum.start < 1:
        raise UserError(f"{where}.start is {curriculum.start}; at least one level is open at first")


def _check_alarm(config: "RLConfig", stage: str) -> None:
    """Settings of an alarm that could not be raised; one switched off by hand may keep its settings."""
    alarm, where = config.alarm, f"{stage}.alarm"
    if not alarm.enabled:
        return
    compared = bool(config.monitor) or len(config.rewards) > 1
    if alarm.monitor_drop != default_of(alarm, "monitor_drop") and not compared:
        raise UserError(
            f"{where}.monitor_drop is set, but there is neither a verifier under {stage}.monitor nor a second part of "
            "the reward to fall; add one, or leave the key out"
        )
    asked = alarm.stop or alarm.window != default_of(alarm, "window")
    if asked and 2 * alarm.window > config.steps:
        raise UserError(
            f"{where}.window is {alarm.window}, but {config.steps} steps hold no two such windows to compare; make it "
            f"{max(2, config.steps // 2)} or less, or set {where}.enabled to false"
        )


def _check_unread(config: "RLConfig", stage: str) -> None:
    """Keys that the choice beside them does not read, where they say something else than preset and default."""
    from trivium.objectives.presets import PRESETS

    preset = PRESETS.get(config.preset or "", {})
    unclipped, capped = config.clipping == "none", config.clipping == "capped_weight"
    unread = {
        "kl_coefficient": (config.kl == "none", "kl", config.kl),
        "reference_decay": (config.reference != "moving", "reference", config.reference),
        "clip_low": (unclipped or capped, "clipping", config.clipping),
        "clip_high": (unclipped, "clipping", config.clipping),
        "overlong_window": (config.overlong != "penalty", "overlong", config.overlong),
    }
    for key, (ignored, choice, chosen) in unread.items():
        value, neutral = getattr(config, key), (None, 0.0, preset.get(key), default_of(config, key))
        if ignored and value not in neutral:
            raise UserError(
                f"{stage}.{key} is {value}, but nothing reads it while {stage}.{choice} is {chosen}; leave it out, or "
                f"change {stage}.{choice}"
            )


def _check_kl(config: "RLConfig", stage: str) -> None:
    """Settings of a KL that is not there."""
    if config.kl_target is None:
        if config.kl_horizon != default_of(config, "kl_horizon"):
            raise UserError(f"{stage}.kl_horizon is set, but {stage}.kl_target is not; set both or neither")
        return
    if config.kl == "none":
        raise UserError(f"{stage}.kl_target is set, but {stage}.kl is none; put the KL into the reward or the loss")
    if not config.kl_coefficient:
        raise UserError(
            f"{stage}.kl_target adapts {stage}.kl_coefficient by factors, and it begins at 0; set it above 0"
        )
    rollouts = config.prompts_per_step * config.group_size
    if config.kl_horizon <= 0.2 * rollouts:  # one step may change the coefficient by 20% of rollouts / horizon
        raise UserError(
            f"{stage}.kl_horizon is {config.kl_horizon}, so that one step of {rollouts} rollouts could turn the KL's "
            f"sign; make it at least {rollouts}"
        )


def watched(config: "RLConfig") -> bool:
    """Whether the over-optimisation watch is on: as the recipe says, else where a reward model or a judge is in the
    reward."""
    if config.watch.enabled is not None:
        return config.watch.enabled
    return any(part.kind in ("reward_model", "judge") for part in config.rewards.values())


def _check_watch(config: "RLConfig", stage: str) -> None:
    """A watch without prompts or without its KL, and settings of one that is off."""
    watch = config.watch
    if not watched(config):
        # switched off by hand it may keep its settings; where it is off by itself they would be ignored
        for key, value in type(watch)().model_dump().items():
            if watch.enabled is None and getattr(watch, key) != value:
                raise UserError(
                    f"{stage}.watch.{key} is set, but the watch is off (neither a reward model nor a judge is part "
                    f"of the reward); set {stage}.watch.enabled to true, or leave the key out"
                )
        return
    if not config.validation:
        raise UserError(
            f"{stage}.watch observes the policy on held-out prompts; name some under {stage}.validation, or set "
            f"{stage}.watch.enabled to false"
        )
    if watch.judge is not None and getattr(watch, watch.judge) is None:
        raise UserError(f"{stage}.watch.judge is {watch.judge}, but {stage}.watch.{watch.judge} is not set; set it")
    if watch.patience != default_of(watch, "patience") and not (watch.stop and (watch.held_out or watch.gold)):
        raise UserError(
            f"{stage}.watch.patience is set, but nothing waits for it: it needs {stage}.watch.stop and a judge, "
            f"{stage}.watch.held_out or gold"
        )
    if watch.kl_budget is not None and config.reference != "frozen":
        raise UserError(
            f"{stage}.watch.kl_budget needs the KL to where the stage began; set {stage}.reference to frozen"
        )
