"""A recipe from its first stage to its report, and the evaluation of what a run, or anybody, has trained.

Nothing heavy is imported here: ``import trivium`` and ``trivium --help`` come through this module.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.errors import UserError

if TYPE_CHECKING:
    from trivium.config import RecipeConfig
    from trivium.evaluation.apart import Options
    from trivium.recipe import Overrides


@dataclass(frozen=True)
class RunResult:
    """A finished run: where it lies, its numbers (the content of ``summary.json``) and its report."""

    directory: Path
    summary: dict[str, Any]
    report: Path | None


def run(
    recipe: "str | Path | RecipeConfig" = "primer",
    overrides: "Overrides" = None,
    directory: str | Path | None = None,
    *,
    stages: Sequence[str] | None = None,
    fresh: bool = False,
    quiet: bool = False,
) -> RunResult:
    """Run a recipe's stages in order (with ``parallel``, several at a time), evaluate each and build the report.

    A stage that finished and whose settings and inputs are as they were is skipped; one that was cut is resumed; one
    that has changed is run again, and its old files are moved into ``old/`` of the run directory.

    Args:
        recipe: a shipped recipe, a YAML file, a run directory, or a configuration object.
        overrides: ``{"rl.steps": 50}``, or ``["rl.steps=50"]`` as on the command line.
        directory: where the run lies; ``runs/NAME`` unless told, or the run directory given as ``recipe``.
        stages: run only these stages (names), each from the finished ones before it.
        fresh: move a run that lies there aside (``NAME.old-N``) and begin anew.
        quiet: only notes and the line at the end of a stage are printed.

    Raises:
        UserError: one sentence that says what is wrong, where, and what to do.

    >>> result = trivium.run("primer", {"rl.steps": 50})  # doctest: +SKIP
    >>> result.summary["stages"]["rl"]["evaluation"]["problems"]["accuracy"]  # doctest: +SKIP
    0.97
    """
    from trivium.pipeline import Pipeline

    config = _configure(recipe, overrides)
    place = _place(recipe, config, directory)
    with Pipeline.open(config, place, fresh, quiet, stages) as pipeline:
        pipeline.run(stages)
        return RunResult(place, *pipeline.result())


def stages_of_kind(recipe: "str | Path | RecipeConfig", kind: str, overrides: "Overrides" = None) -> list[str]:
    """Names of the stages of one kind; a recipe without one is a UserError."""
    config = _configure(recipe, overrides)
    found = [name for name, stage in config.stages.items() if stage.kind == kind]
    if not found:
        kinds = ", ".join(f"{name} ({stage.kind})" for name, stage in config.stages.items())
        raise UserError(f"recipe {config.name} has no stage of kind {kind}; its stages are {kinds}")
    return found


def evaluate(
    place: str | Path,
    overrides: "Overrides" = None,
    recipe: "str | Path | RecipeConfig | None" = None,
    directory: str | Path | None = None,
    *,
    stages: Sequence[str] | None = None,
    tasks: Sequence[str] = (),
    options: "Options | None" = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate the models of a run again, or a model directory on the tasks of ``recipe``; or either on ``tasks``.

    Returns the tasks' numbers without single answers, by stage; a model directory counts as one stage. The whole is in
    ``evaluation.json``: of the stage, or for a model in ``directory`` (``runs/evaluations/NAME`` unless told). With
    ``overrides`` that change something, the run keeps its evaluation and the new one is in ``evaluations/STAGE`` of it.

    ``tasks`` are other tasks than the recipe's: a YAML file of ``{NAME: task}``, ``humaneval=FILE``, ``mbpp=FILE``,
    ``ifeval=FILE``, ``lm_eval:TASK``, or the name of one task of the recipe. Each has its file in
    ``evaluations/STAGE`` of the run, or in ``directory``; ``options`` are theirs. See docs/evaluation.md.
    """
    if options is not None and not tasks:
        raise UserError(
            "limit and the options of lm-eval are for tasks that are named; add --tasks, or set TASK.limit=N"
        )
    if (Path(place) / "recipe.yaml").is_file():
        if recipe is not None:
            raise UserError(
                f"{place} is a run and has its own recipe; leave --recipe out, or name a model directory in it"
            )
        if tasks:
            from trivium.evaluation.apart import Options, evaluate_run

            chosen = options or Options()
            return evaluate_run(Path(place), tasks, overrides, stages=stages, options=chosen, quiet=quiet)
        return _evaluate_run(Path(place), overrides, stages, quiet)
    if recipe is None and not tasks:
        from trivium.files import no_model

        raise UserError(
            no_model(Path(place))
            or f"{place} is no run directory; to evaluate a model, name the recipe with the tasks: --recipe NAME, "
            "or the tasks: --tasks FILE"
        )
    if tasks:
        from trivium.config import RecipeConfig
        from trivium.evaluation.apart import Options, evaluate_directory

        config = RecipeConfig(name="tasks", stages={}) if recipe is None else _configure(recipe, None)
        chosen = options or Options()
        return evaluate_directory(Path(place), tasks, config, overrides, directory, options=chosen, quiet=quiet)
    assert recipe is not None
    from trivium import files, progress, summary
    from trivium.files import disk_errors
    from trivium.ranks import Ranks
    from trivium.work import evaluate_model

    config = _configure(recipe, overrides)
    name = files.model_name(Path(str(place)))
    folder = Path(directory) if directory is not None else Path("runs") / "evaluations" / name
    ranks = Ranks()
    shown = progress.make(quiet) if ranks.main else progress.Progress()
    try:
        with disk_errors():
            evaluation = evaluate_model(config, name, None, folder, {}, Path(place), shown)
            if ranks.main:
                files.write_json(folder / "evaluation.json", evaluation)
    finally:
        shown.close()
    return {name: summary.without_results(evaluation)}


def _evaluate_run(place: Path, overrides: "Overrides", stages: Sequence[str] | None, quiet: bool) -> dict[str, Any]:
    from trivium.lineage import changed
    from trivium.pipeline import Pipeline
    from trivium.recipe import load
    from trivium.stages import ANSWERS

    config, before = load(place, overrides), load(place)
    touched = changed(before.model_dump(mode="json"), config.model_dump(mode="json"))
    if other := [line for line in touched if not line.startswith("evaluation.")]:
        raise UserError(
            f"`trivium eval` of a run changes only its evaluation, not {other[0]}; use `trivium run` for that"
        )
    with Pipeline.open(config, place, fresh=False, quiet=quiet, stages=stages, trains=False) as pipeline:
        answering = [name for name in pipeline.models() if config.stages[name].kind in ANSWERS]
        chosen = [name for name in stages or config.stages if name in answering]
        if not chosen:
            raise UserError(f"{place} has no finished stage that answers; `trivium run {place}` finishes it")
        if touched:
            pipeline.shown.note(
                f"the evaluation differs from the run's ({', '.join(touched)}), which stays as it is: the new one is "
                f"in {place / 'evaluations'}; `trivium run {place}` with the same keys changes the run's own"
            )
            return {name: pipeline.evaluate_apart(name) for name in chosen}
        for name in chosen:
            pipeline.evaluate(name, pipeline.here(), again=True)
        numbers, _ = pipeline.result()
    return {name: numbers["stages"][name].get("evaluation", {}) for name in chosen}


def _configure(recipe: "str | Path | RecipeConfig", overrides: "Overrides") -> "RecipeConfig":
    from trivium.recipe import apply_overrides, load, resolve, to_dict

    if isinstance(recipe, str | Path):
        return load(recipe, overrides)
    return resolve(apply_overrides(to_dict(recipe), overrides, recipe.name), recipe.name)


def _place(recipe: "str | Path | RecipeConfig", config: "RecipeConfig", directory: str | Path | None) -> Path:
    if directory is not None:
        return Path(directory)
    if isinstance(recipe, str | Path) and (Path(recipe) / "recipe.yaml").is_file():
        return Path(recipe)
    return Path("runs") / config.name
