"""``trivium eval … --tasks``: models on tasks that are not their recipe's, with results beside the run.

Every task has a file of its own, ``evaluations/STAGE/TASK.json`` of a run, in the form of ``evaluation.json``, so that
tasks evaluated one after the other stand side by side. The run's own evaluation, summary and lineage stay.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium import comparisons, files, summary
from trivium.errors import UserError
from trivium.evaluation.lm_eval import Through, check_installed, evaluate_tasks
from trivium.evaluation.tasks import Chosen, choose
from trivium.preflight import check_section

if TYPE_CHECKING:
    from trivium.config import RecipeConfig
    from trivium.pipeline import Pipeline
    from trivium.progress import Progress
    from trivium.recipe import Overrides

COMPARED = "comparisons.json"  # of a run's `evaluations`


@dataclass(frozen=True)
class Options:
    """``limit``: most prompts of each task. The others are for tasks of lm-eval: a folder of local task files, which
    code computes, whether the chat template is applied, how many solved examples are shown."""

    limit: int | None = None
    include_path: Path | None = None
    through: Through = "trivium"
    chat: bool = False
    fewshot: int | None = None


def prepare(
    named: Sequence[str], recipe: "RecipeConfig", overrides: "Overrides", options: Options
) -> "tuple[RecipeConfig, list[str]]":
    """The recipe with the tasks that ``named`` means in place of its own, and the tasks of lm-eval.

    ``overrides`` may change these tasks and nothing else. What cannot be evaluated is refused here.
    """
    from trivium.lineage import changed
    from trivium.recipe import apply_overrides, resolve, to_dict

    chosen = choose(named, recipe, options.limit)
    _check_unused(chosen, options)
    before = {**to_dict(recipe), "evaluation": chosen.own}
    values = apply_overrides(before, overrides, "the tasks")
    if other := [line for line in changed(before, values) if not line.startswith("evaluation.")]:
        raise UserError(f"`trivium eval --tasks` changes only these tasks, not {other[0]}; leave it out")
    # a recipe without stages holds the tasks of a model directory
    config = resolve(values, "--tasks") if values["stages"] else type(recipe).model_validate(values)
    for name, task in config.evaluation.items():
        check_section(f"evaluation.{name}", task, list(config.stages))
    return config, chosen.lm_eval


def _check_unused(chosen: Chosen, options: Options) -> None:
    if chosen.lm_eval:
        check_installed()
        return
    for option, default in (("include_path", None), ("through", "trivium"), ("chat", False), ("fewshot", None)):
        if getattr(options, option) != default:
            shown = option.replace("_", "-")
            raise UserError(
                f"--{shown} is for tasks of lm-eval, and none is named; add --tasks lm_eval:TASK or drop it"
            )


def evaluate_run(
    place: Path,
    named: Sequence[str],
    overrides: "Overrides" = None,
    *,
    stages: Sequence[str] | None = None,
    options: Options = Options(),
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate the models of a run that answer (``stages``: only these) on other tasks than the run's.

    Returns the numbers without single answers, by stage and task.
    """
    from trivium.pipeline import Pipeline
    from trivium.recipe import load

    config, lm_tasks = prepare(named, load(place), overrides, options)
    with Pipeline.open(config, place, fresh=False, quiet=quiet, stages=stages, trains=False) as pipeline:
        models = _models(pipeline, stages)
        numbers = {}
        for name, model in models.items():
            folder = place / "evaluations" / name
            numbers[name] = _evaluate(config, name, folder, model, lm_tasks, options, pipeline)
        if pipeline.ranks.main:
            compared = _compare(config, place, [*config.evaluation, *lm_tasks])
            tell(pipeline.shown, numbers, compared)
            pipeline.shown.note(f"the numbers and every answer are in {place / 'evaluations'}; the run stays as it is")
    return numbers


def _models(pipeline: "Pipeline", stages: Sequence[str] | None) -> dict[str, Path]:
    """The models that answer: those of the stages asked for, and the base where the run evaluated one."""
    from trivium.stages import ANSWERS

    config, made = pipeline.config, pipeline.models()
    answering = {name: place for name, place in made.items() if config.stages[name].kind in ANSWERS}
    if stages is None:
        start = pipeline.artifacts.get("base", {}).get("path")
        base = {}
        if start is not None and "base" not in config.stages:
            from trivium.model.huggingface import resolve_directory

            base = {"base": Path(resolve_directory(start))}
        answering = {**base, **answering}
    else:
        answering = {name: answering[name] for name in stages if name in answering}
    if not answering:
        place = pipeline.directory
        raise UserError(f"{place} has no finished stage that answers; `trivium run {place}` finishes it")
    return answering


def _evaluate(
    config: "RecipeConfig",
    name: str,
    folder: Path,
    model: Path,
    lm_tasks: Sequence[str],
    options: Options,
    pipeline: "Pipeline",
) -> dict[str, Any]:
    from trivium.work import evaluate_model

    first = next(iter(config.stages.values()))
    stage = config.stages.get(name, first)  # the base is asked as the stage that starts from it
    found: dict[str, Any] = {}
    if config.evaluation:
        found = evaluate_model(config, name, stage, folder, pipeline.models(name), model, pipeline.shown)["tasks"]
    if pipeline.ranks.main:
        found |= on_lm_eval(config, model, lm_tasks, options)
        write(folder, name, found)
    pipeline.ranks.barrier()
    return summary.without_results({"tasks": found})


def on_lm_eval(
    config: "RecipeConfig", model: Path, tasks: Sequence[str], options: Options
) -> dict[str, dict[str, Any]]:
    """The numbers of tasks of lm-eval for one model, by task."""
    if not tasks:
        return {}
    from trivium.model.huggingface import resolve_directory
    from trivium.training.device import choose_device

    return evaluate_tasks(
        Path(resolve_directory(str(model))),
        tasks,
        limit=options.limit,
        include_path=options.include_path,
        through=options.through,
        device=str(choose_device(config)),
        chat=options.chat,
        fewshot=options.fewshot,
        seed=config.seed,
    )


def write(folder: Path, stage: str, tasks: Mapping[str, Any]) -> None:
    """One file a task, in the form of ``evaluation.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, numbers in tasks.items():
        safe = re.sub(r"[^A-Za-z0-9 ._-]", "_", task)
        files.write_json(folder / f"{safe}.json", {"stage": stage, "tasks": {task: numbers}})


def read(folder: Path) -> dict[str, Any]:
    """All tasks of ``evaluations/STAGE``, joined in the form of ``evaluation.json``; without any: an empty mapping."""
    tasks: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        tasks |= (files.read_json(path) or {}).get("tasks", {})
    return {"stage": folder.name, "tasks": tasks} if tasks else {}


def _compare(config: "RecipeConfig", place: Path, tasks: Sequence[str]) -> comparisons.Comparisons:
    """Stage against stage on these tasks, also those evaluated earlier; written for the report."""
    known = {name: read(place / "evaluations" / name) for name in ("base", *config.stages)}
    compared = comparisons.between_stages(config, {name: found for name, found in known.items() if found}, tasks)
    path = place / "evaluations" / COMPARED
    before = files.read_json(path) or {}
    kept = [entry for entry in before.get("regressions", []) if entry["task"] not in compared]
    value = {
        "comparisons": {**before.get("comparisons", {}), **comparisons.with_predecessor(config, compared)},
        "regressions": [*kept, *comparisons.regressions(compared)],
    }
    files.write_json(path, value)
    return compared


def evaluate_directory(
    place: Path,
    named: Sequence[str],
    recipe: "RecipeConfig",
    overrides: "Overrides" = None,
    directory: str | Path | None = None,
    *,
    options: Options = Options(),
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate a model directory on tasks; a file a task in ``directory`` (``runs/evaluations/NAME`` unless told)."""
    from trivium import progress
    from trivium.ranks import Ranks
    from trivium.work import evaluate_model

    config, lm_tasks = prepare(named, recipe, overrides, options)
    name = files.model_name(place)
    folder = Path(directory) if directory is not None else Path("runs") / "evaluations" / name
    ranks = Ranks()
    shown = progress.make(quiet) if ranks.main else progress.Progress()
    try:
        with files.disk_errors():
            found: dict[str, Any] = {}
            if config.evaluation:
                found = evaluate_model(config, name, None, folder, {}, place, shown)["tasks"]
            if ranks.main:
                found |= on_lm_eval(config, place, lm_tasks, options)
                write(folder, name, found)
        numbers = {name: summary.without_results({"tasks": found})}
        if ranks.main:
            tell(shown, numbers, {})
            shown.note(f"the numbers and every answer are in {folder}")
    finally:
        shown.close()
    return numbers


def tell(shown: "Progress", numbers: Mapping[str, Mapping[str, Any]], compared: comparisons.Comparisons) -> None:
    """The table on the terminal, and a sentence for everything that got worse."""
    from trivium.evaluation.table import lines

    for line in lines(numbers, compared):
        shown.finish(line)
    for sentence in comparisons.sentences(comparisons.regressions(compared)):
        shown.note(sentence)
