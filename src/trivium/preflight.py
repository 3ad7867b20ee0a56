"""What is checked before anything is spent on a run: its directory, data, verifiers and choices."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.errors import UserError
from trivium.references import references

if TYPE_CHECKING:
    from pydantic import BaseModel

    from trivium.config import RankConfig, RewardConfig, RLConfig


def check_stage(name: str, config: Any) -> None:
    """Settings of a stage that do not go together: the dimensions of its model, the choices of its algorithm."""
    from trivium.config import PretrainConfig, RankConfig, RewardConfig, RLConfig

    if isinstance(config, RLConfig):
        check_rl(config, name)
    elif isinstance(config, RankConfig):
        check_rank(config, name)
    elif isinstance(config, RewardConfig):
        check_reward(config, name)
    elif isinstance(config, PretrainConfig) and config.init is None:
        from trivium.model.sizes import derive

        derive(config.model, config.tokenizer.vocabulary_size)


def check_models(name: str, config: Any, stages: Collection[str]) -> None:
    """Models that lie in directories: each is one of the kind that is needed, before anything is spent on the run."""
    for reference in references(config.model_dump(mode="json")):
        place = Path(reference.name).expanduser()
        place = place / "model" if (place / "model").is_dir() else place
        if reference.name in stages or reference.product == "rankings" or not (place / "config.json").is_file():
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
    """A panel that cannot rank, or answers that cannot differ."""
    if config.sampling.temperature == 0:
        raise UserError(f"{stage}.sampling.temperature is 0: the answers to a prompt are all alike; use 1.0, say")
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


def check_reward(config: "RewardConfig", stage: str) -> None:
    """Choices of the loss that contradict each other, and settings that nothing would read."""
    if not config.rankings:
        raise UserError(f"{stage}.rankings is empty; name at least one source of rankings")
    if config.validation_share + config.test_share >= 1:
        raise UserError(f"{stage}: validation_share and test_share leave no prompts to train on; lower them")
    if (config.fold + 1) * config.test_share > 1 + 1e-9:
        raise UserError(
            f"{stage}.fold is {config.fold}, but a test_share of {config.test_share} leaves folds 0 to "
            f"{int(1 / config.test_share + 1e-9) - 1}"
        )
    if config.ties == "rao_kupper" and config.tie_parameter <= 1:
        raise UserError(f"{stage}.tie_parameter is {config.tie_parameter}; rao_kupper needs a theta above 1")
    if config.loss == "plackett_luce":
        if config.ties not in ("soft", "ignore"):
            raise UserError(f"{stage}.ties is {config.ties}, which is for the pairwise loss; use soft or ignore")
        for key, neutral in (("margin", 0.0), ("label_smoothing", 0.0), ("reduction", "ranking")):
            if getattr(config, key) != neutral:
                raise UserError(f"{stage}.{key} is for the pairwise loss; leave it out under plackett_luce")
    if config.ties not in ("rao_kupper", "davidson") and config.tie_parameter != _default(config, "tie_parameter"):
        raise UserError(f"{stage}.tie_parameter is for rao_kupper and davidson, but {stage}.ties is {config.ties}")
    for key in ("gold", "policy", "prompt_limit", "samples", "sampling"):
        if getattr(config, key) != _default(config, key) and not config.prompts:
            raise UserError(f"{stage}.{key} is set, but {stage}.prompts is empty; name the prompts to answer")
    if config.prompts and config.sampling.temperature == 0:
        raise UserError(f"{stage}.sampling.temperature is 0: the answers to a prompt are all alike; use 1.0, say")


def _default(config: "BaseModel", key: str) -> Any:
    return type(config).model_fields[key].get_default(call_default_factory=True)


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


def _check_kl(config: "RLConfig", stage: str) -> None:
    """Settings of a KL that is not there."""
    if config.kl_target is None:
        if config.kl_horizon != _default(config, "kl_horizon"):
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
    """Whether the over-optimisation watch is on: as the recipe says, else where a reward model is in the reward."""
    if config.watch.enabled is not None:
        return config.watch.enabled
    return any(part.kind == "reward_model" for part in config.rewards.values())


def _check_watch(config: "RLConfig", stage: str) -> None:
    """A watch without prompts or without its KL, and settings of one that is off."""
    watch = config.watch
    if not watched(config):
        # switched off by hand it may keep its settings; where it is off by itself they would be ignored
        for key, value in type(watch)().model_dump().items():
            if watch.enabled is None and getattr(watch, key) != value:
                raise UserError(
                    f"{stage}.watch.{key} is set, but the watch is off (no reward model is part of the reward); "
                    f"set {stage}.watch.enabled to true, or leave the key out"
                )
        return
    if not config.validation:
        raise UserError(
            f"{stage}.watch observes the policy on held-out prompts; name some under {stage}.validation, or set "
            f"{stage}.watch.enabled to false"
        )
    if watch.judge is not None and getattr(watch, watch.judge) is None:
        raise UserError(f"{stage}.watch.judge is {watch.judge}, but {stage}.watch.{watch.judge} is not set; set it")
    if watch.patience != _default(watch, "patience") and not (watch.stop and (watch.held_out or watch.gold)):
        raise UserError(
            f"{stage}.watch.patience is set, but nothing waits for it: it needs {stage}.watch.stop and a judge, "
            f"{stage}.watch.held_out or gold"
        )
    if watch.kl_budget is not None and config.reference != "frozen":
        raise UserError(
            f"{stage}.watch.kl_budget needs the KL to where the stage began; set {stage}.reference to frozen"
        )


def check_section(where: str, config: Any, stages: Collection[str] = ()) -> None:
    """Files that are not there and verifiers that cannot be built are told before anything is spent on the run."""
    from trivium.config import RankingSourceConfig, SourceConfig, TaskConfig, VerifierConfig
    from trivium.data.files import data_files, looks_like_hub_name
    from trivium.feedback.verifiers import build

    for key, value in _configs(config, where):
        if isinstance(value, TaskConfig):
            if value.threshold is None and value.samples:
                raise UserError(f"{key}: samples are for pass@k, and without a threshold no answer is right; drop one")
        elif isinstance(value, RankingSourceConfig):
            low, high = value.portion
            if not 0 <= low < high <= 1:
                raise UserError(f"{key}.portion is [{low}, {high}]; it goes from one share to a larger, within 0 and 1")
            known = value.source in stages or "://" in value.source or looks_like_hub_name(value.source)
            if not known and not Path(value.source).expanduser().exists():
                raise UserError(
                    f"{key}.source: there is no stage, file or folder {value.source}; correct the path, "
                    f"which starts from {Path.cwd()}"
                )
        elif isinstance(value, SourceConfig):
            found = value.source == "primer" or Path(value.source).expanduser().exists()
            if not found and not looks_like_hub_name(value.source):
                raise UserError(
                    f"{key}.source: there is no file or folder {value.source}; correct the path, "
                    f"which starts from {Path.cwd()}"
                )
            if value.source != "primer" and value.adapter is None and Path(value.source).expanduser().exists():
                try:
                    data_files(Path(value.source).expanduser(), value.split)
                except UserError as error:
                    raise UserError(f"{key}: {error}") from None
        elif isinstance(value, VerifierConfig) and value.kind == "reward_model" and _may_be_a_model(key):
            if not isinstance(value.options.get("model"), str):
                raise UserError(
                    f"{key}.options.model is missing; name a reward stage or the directory of a reward model"
                )
        elif isinstance(value, VerifierConfig):
            try:
                build(value).close()
            except UserError as error:
                raise UserError(f"{key}: {error}") from None


def _may_be_a_model(key: str) -> bool:
    """Whether a reward model can judge at this key: parts of a reward, and the scorers of the watch."""
    parts = key.split(".")
    return parts[0] == "stages" and (parts[-2] == "rewards" or parts[-2:] in (["watch", "held_out"], ["watch", "gold"]))


def _configs(value: Any, where: str) -> "Iterator[tuple[str, BaseModel]]":
    """Every configuration object within ``value``, with the path of its keys."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        yield where, value
        for name in type(value).model_fields:
            yield from _configs(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list | dict):
        pairs: Iterable[tuple[object, object]] = value.items() if isinstance(value, dict) else enumerate(value)
        for position, item in pairs:
            yield from _configs(item, f"{where}.{position}")


def holds_run(directory: Path) -> bool:
    return (directory / "recipe.yaml").is_file() or (directory / "lineage.json").is_file()


def check_place(directory: Path, name: str | None) -> None:
    """A run directory is new, empty, or holds a run; with a ``name``, a run of that recipe."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file and cannot hold a run; choose another directory with -d")
    if not holds_run(directory):
        if directory.is_dir() and any(not path.name.startswith(".") for path in directory.iterdir()):
            raise UserError(f"{directory} is not empty and holds no run; choose another directory with -d")
        return
    if name is None or not (directory / "recipe.yaml").is_file():
        return
    from trivium.recipe import read

    held = read(directory)[0].get("name")
    if held != name:
        raise UserError(
            f"{directory} holds a run of recipe {held}, not {name}; choose another directory with -d, or move that run "
            "aside with --fresh"
        )
