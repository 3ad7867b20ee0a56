"""The stages: one file each, that reads top to bottom as a straight line through the picture in architecture.md."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.references import MAKES
from trivium.stages.context import StageContext

if TYPE_CHECKING:
    from trivium.config import RecipeConfig, StageConfig
    from trivium.progress import Progress

__all__ = ["ANSWERS", "PRODUCTS", "STAGES", "StageContext", "run_stage"]


def _pretrain(context: StageContext) -> dict[str, Any]:
    from trivium.stages.pretrain import main

    return main(_with_directory(context))


def _sft(context: StageContext) -> dict[str, Any]:
    from trivium.stages.sft import main

    return main(_with_directory(context))


def _rank(context: StageContext) -> dict[str, Any]:
    from trivium.stages.rank import main

    return main(_with_directory(context))


def _lessons(context: StageContext) -> dict[str, Any]:
    from trivium.stages.lessons import main

    return main(_with_directory(context))


def _audit(context: StageContext) -> dict[str, Any]:
    from trivium.stages.audit import main

    return main(_with_directory(context))


def _revise(context: StageContext) -> dict[str, Any]:
    from trivium.stages.revise import main

    return main(_with_directory(context))


def _dpo(context: StageContext) -> dict[str, Any]:
    from trivium.stages.dpo import main

    return main(_with_directory(context))


def _reward(context: StageContext) -> dict[str, Any]:
    from trivium.stages.reward import main

    return main(_with_directory(context))


def _rl(context: StageContext) -> dict[str, Any]:
    from trivium.stages.rl import main

    return main(_with_directory(context))


def _with_directory(context: StageContext) -> StageContext:
    context.directory.mkdir(parents=True, exist_ok=True)
    return context


STAGES: dict[str, Callable[[StageContext], dict[str, Any]]] = {
    "pretrain": _pretrain,
    "sft": _sft,
    "rank": _rank,
    "lessons": _lessons,
    "audit": _audit,
    "revise": _revise,
    "reward": _reward,
    "dpo": _dpo,
    "rl": _rl,
}
# What each kind of stage makes, in its directory; an evaluation on the recipe's tasks is for the models that answer.
PRODUCTS = dict.fromkeys(STAGES, "model") | {
    "rank": "rankings.jsonl",
    "audit": "audit.json",
    "lessons": "conversations.jsonl",
    "revise": "conversations.jsonl",
}
ANSWERS = MAKES["policy"]


def run_stage(
    config: "StageConfig",
    directory: str | Path,
    *,
    recipe: "RecipeConfig | None" = None,
    progress: "Progress | None" = None,
) -> dict[str, Any]:
    """Run one stage by its configuration object, without a run directory: no lineage, no evaluation, no report.

    Args:
        config: the stage; its ``init`` is a model directory or the name of a hub model. An RL preset is filled in.
        directory: where ``model/``, ``metrics.jsonl`` and ``checkpoints/`` go; it is made, and a stage that was cut
            there is resumed. Its name is the stage's name, which the random streams depend on.
        recipe: gives seed, device, threads and the primer's settings; the defaults unless told.
        progress: what shows how far it is; nothing unless told.

    Returns:
        The stage's numbers, as in ``summary.json``.

    Raises:
        UserError: one sentence that says what is wrong, where, and what to do.

    >>> run_stage(SFTConfig(init="runs/a/model", data=[SourceConfig(source="talks.jsonl")]), "runs/b")  # doctest: +SKIP
    """
    from trivium.preflight import check_stage
    from trivium.recipe import resolve, to_dict

    place = Path(directory)
    name = place.resolve().name
    values: dict[str, Any] = to_dict(recipe) if recipe is not None else {"name": name}
    filled = resolve({**values, "stages": {name: config.model_dump(mode="json")}, "evaluation": {}, "paths": {}}, name)
    check_stage(name, filled.stages[name])
    context = StageContext(name, filled.stages[name], filled, place)
    if progress is not None:
        context.progress = progress
    return STAGES[config.kind](context)
