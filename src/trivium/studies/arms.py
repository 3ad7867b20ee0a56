"""What an arm of a study is about: the stages that are measured, those that measuring needs, and all behind them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from trivium.references import references

if TYPE_CHECKING:
    from trivium.config import ArmConfig, RecipeConfig, StudyConfig


def closure(recipe: "RecipeConfig", stages: Iterable[str]) -> list[str]:
    """The stages and all that they go back to, in the order of the recipe."""
    found: set[str] = set()
    waiting = list(stages)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        named = references(recipe.stages[name].model_dump(mode="json"))
        waiting += [item.name for item in named if item.name in recipe.stages]
    return [name for name in recipe.stages if name in found]


def models_of(study: "StudyConfig", config: "ArmConfig") -> list[str]:
    return study.models if config.models is None else config.models


def curves_of(study: "StudyConfig", config: "ArmConfig") -> list[str]:
    return list(study.curves) if config.curves is None else config.curves


def roots_of(study: "StudyConfig", config: "ArmConfig") -> list[str]:
    """What an arm is about: its models and the stages of its curves."""
    return [*models_of(study, config), *(study.curves[name].stage for name in curves_of(study, config))]


def others_of(study: "StudyConfig", config: "ArmConfig") -> list[str]:
    """What measuring an arm needs beside its models."""
    to = [measure.kl_to for measure in study.measures.values() if measure.kl_to is not None]
    return [*(to if models_of(study, config) else []), *scorers_of(config)]


def scorers_of(config: "ArmConfig") -> list[str]:
    """The stages that choose among the samples of an arm."""
    if config.best_of is None or config.best_of.by.kind != "reward_model":
        return []
    name = str(config.best_of.by.options.get("model", ""))
    return [name] if "/" not in name else []
