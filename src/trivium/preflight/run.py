"""What is checked of a whole run before anything is spent on it or written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.errors import UserError
from trivium.preflight.prompts import check_labelled_answers, check_prompts
from trivium.preflight.sections import check_place, check_section
from trivium.preflight.stages import check_models, check_stage
from trivium.references import references
from trivium.schedule import stands_alone

if TYPE_CHECKING:
    from trivium.config import RecipeConfig
    from trivium.ledger import Ledger


def check_run(
    config: "RecipeConfig",
    directory: Path,
    ledger: "Ledger",
    stages: Sequence[str] | None,
    fresh: bool,
    trains: bool,
) -> None:
    """Refuse, with a UserError, what cannot run: ``stages`` (all: None) of ``config`` in ``directory``.

    ``fresh``: what lies there is moved away first. ``trains``: the stages are to run, else their models are only read.
    """
    from trivium.recipe import nearest

    for name in stages or ():
        if name not in config.stages:
            known = list(config.stages)
            raise UserError(
                f"recipe {config.name} has no stage {name!r}{nearest(name, known)}; it has {', '.join(known)}"
            )
    check_place(directory, None if fresh else config.name)
    if not fresh:
        ledger.read()
    chosen = {name: stage for name, stage in config.stages.items() if stages is None or name in stages}
    training = chosen if trains else {}
    for name, stage in training.items():
        check_stage(name, stage)
        check_models(name, stage, config.stages)
        _check_start(name, stage, list(chosen), config, directory, ledger)
    for section, parts in (("stages", training), ("evaluation", config.evaluation)):
        for name, part in parts.items():
            check_section(f"{section}.{name}", part, list(config.stages))
    for name, stage in training.items():
        if stage.kind == "rl":
            check_prompts(name, stage, config)
        if stage.kind == "dpo":
            check_labelled_answers(name, stage, config)
    if trains:
        check_parallel(config)


def check_parallel(config: "RecipeConfig") -> None:
    """``parallel`` has an effect: some two stages can run at a time."""
    if config.parallel > 1 and all(stands_alone(config, name) for name in config.stages):
        raise UserError(
            f"parallel is {config.parallel}, but each stage of {config.name} needs the one before it, so that no two "
            "can run at a time; leave parallel out"
        )


def _check_start(
    name: str, stage: Any, chosen: list[str], config: "RecipeConfig", directory: Path, ledger: "Ledger"
) -> None:
    """What a stage builds on has finished or runs before it."""
    for reference in references(stage.model_dump(mode="json")):
        other = reference.name
        if other not in config.stages or other in chosen[: chosen.index(name)] or other in ledger.made(name):
            continue
        starts = "starts from" if reference.key == "init" else "needs"
        raise UserError(f"stage {name} {starts} {other}, which has not finished in {directory}; run that stage first")
