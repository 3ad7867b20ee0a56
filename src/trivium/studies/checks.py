"""What does not fit together in a study, told before anything is spent."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trivium.errors import UserError
from trivium.recipe import nearest
from trivium.references import MAKES
from trivium.studies.arms import curves_of, models_of, roots_of, scorers_of

if TYPE_CHECKING:
    from trivium.config import BestOfConfig, MeasureConfig, RecipeConfig, StudyConfig
    from trivium.studies.plan import Plan


def check_arm(study: "StudyConfig", arm: str, recipe: "RecipeConfig") -> None:
    """Stages, tasks and curves that an arm or the study names are there, and of the right kind."""
    config, at = study.arms[arm], f"study {study.name}, arm {arm}"

    def stage(name: str, key: str, kinds: Sequence[str]) -> None:
        if name not in recipe.stages:
            known = list(recipe.stages)
            raise UserError(f"{at}: {key} names {name!r}, which is no stage of the recipe{nearest(name, known)}")
        if recipe.stages[name].kind not in kinds:
            raise UserError(
                f"{at}: {key} names {name!r}, a stage of kind {recipe.stages[name].kind}; it needs one of kind "
                f"{' or '.join(kinds)}"
            )

    for name in models_of(study, config):
        stage(name, "models", MAKES["policy"])
    for name in curves_of(study, config):
        if name not in study.curves:
            raise UserError(f"{at}: curves names {name!r}{nearest(name, list(study.curves))}, which the study has not")
        _check_curve(study, at, name, recipe, stage)
    if not roots_of(study, config):
        raise UserError(f"{at}: nothing of it is measured; name models, of the arm or of the study, or curves")
    for name in study.shared:
        if name not in recipe.stages:
            raise UserError(f"{at}: shared names {name!r}, which is no stage{nearest(name, list(recipe.stages))}")
    for name, measure in study.measures.items():
        _check_measure(at, name, measure, recipe, stage)
    if config.best_of is not None and not models_of(study, config):
        raise UserError(f"{at}: best_of needs a model that answers; name it under models")
    for name in scorers_of(config):
        stage(name, "best_of.by.options.model", MAKES["scorer"])
    if config.best_of is not None:
        _check_best_of(at, config.best_of)


def check_models_named(study: "StudyConfig", stages: Sequence[Sequence[str]]) -> None:
    """The study's models are stages of some arm, also where all arms name their own; ``stages`` are those of each."""
    every = list(dict.fromkeys(name for own in stages for name in own))
    for name in study.models:
        if name not in every:
            raise UserError(
                f"study {study.name}: models names {name!r}, which is a stage of no arm{nearest(name, every)}"
            )


def check_given(study: "StudyConfig", of_recipe: Mapping[str, Any]) -> None:
    """Overrides of the recipe leave alone what a study decides: seeds, and one thread for each process."""
    for where, given in (
        ("overrides", study.overrides),
        *((f"arms.{name}.overrides", arm.overrides) for name, arm in study.arms.items()),
        ("the overrides that begin with recipe.", of_recipe),
    ):
        for key, instead in (("seed", "give the study its seeds"), ("threads", ""), ("parallel", "use --at-once")):
            if key in given:
                more = f", and {instead}" if instead else ": each process of a study has one thread"
                raise UserError(f"study {study.name}: {where} set {key}, which a study does; leave it out{more}")


def _check_best_of(at: str, config: "BestOfConfig") -> None:
    """What chooses among the samples can be made; a reward model is a part of its own, not of a ``weighted``."""
    from trivium.feedback.rewards import REWARD_MODEL
    from trivium.feedback.verifiers import build

    if config.by.kind == REWARD_MODEL:
        return
    try:
        build(config.by).close()
    except UserError as error:
        raise UserError(f"{at}: best_of.by: {error}") from None


def _check_curve(study: "StudyConfig", at: str, name: str, recipe: "RecipeConfig", stage: Any) -> None:
    curve = study.curves[name]
    stage(curve.stage, f"curves.{name}.stage", ["reward"] if curve.kind == "best_of_n" else ["rl"])
    config: Any = recipe.stages[curve.stage]
    if curve.kind == "best_of_n" and (config.gold is None or not config.prompts):
        raise UserError(f"{at}: curves.{name} needs gold and prompts of {curve.stage}; set both, or drop the curve")
    if curve.kind == "rl" and (config.watch.gold is None or not config.watch.enabled or not config.validation):
        raise UserError(
            f"{at}: curves.{name} needs {curve.stage}.watch with a gold score, and {curve.stage}.validation; set them, "
            "or drop the curve"
        )


def _check_measure(at: str, name: str, measure: "MeasureConfig", recipe: "RecipeConfig", stage: Any) -> None:
    key, tasks = f"measures.{name}", list(recipe.evaluation)
    if measure.of is not None and (measure.task is not None or measure.kl_to is not None):
        raise UserError(f"{at}: {key} has both of and another source; keep one of task, kl_to and of")
    if measure.of is None and measure.task is None and measure.kl_to is None:
        raise UserError(f"{at}: {key} says nothing of where it comes from; give it a task, kl_to or of")
    if measure.kl_to is None and measure.samples != type(measure).model_fields["samples"].default:
        raise UserError(f"{at}: {key}.samples is for kl_to; a task has samples of its own")
    if measure.task is None and measure.value != "accuracy":
        raise UserError(f"{at}: {key}.value is for a task, and {key}.task is not set; set it or drop value")
    if measure.task is not None and measure.task not in tasks:
        raise UserError(f"{at}: {key}.task is {measure.task!r}, which is no task{nearest(measure.task, tasks)}")
    if measure.kl_to is not None:
        stage(measure.kl_to, f"{key}.kl_to", MAKES["policy"])
        if not tasks:
            raise UserError(f"{at}: {key} samples answers to the prompts of a task, and the recipe has none; add one")
        return
    if measure.task is None:
        return
    task = recipe.evaluation[measure.task]
    if measure.value != "score" and task.threshold is None:
        raise UserError(f"{at}: {key} counts right answers, and {measure.task} has no threshold; use value: score")
    if measure.value == "sampled_accuracy" and not task.samples:
        raise UserError(f"{at}: {key} needs samples of {measure.task}; set {measure.task}.samples in overrides")


def check_axis(study: "StudyConfig") -> None:
    """All arms lie on the axis, or none: a line through some of them would hide the others."""
    without = [name for name, arm in study.arms.items() if arm.x is None]
    if without and len(without) < len(study.arms):
        raise UserError(
            f"study {study.name}: arms.{without[0]} has no x, and other arms have one; give each of them its place on "
            "the axis, or none"
        )
    placed: dict[float, str] = {}
    for name, arm in study.arms.items():
        if arm.x is not None and (other := placed.setdefault(arm.x, name)) != name:
            raise UserError(
                f"study {study.name}: arms.{other} and arms.{name} both lie at x = {arm.x:g}; give each a place of its "
                "own, or none of the arms an x"
            )


def check_labels(plan: "Plan") -> None:
    """No two rows of a seed are called alike, since their numbers would be taken for one another's."""
    taken: set[str] = set()
    for row in plan.rows:
        if row.seed == plan.seeds[0]:
            if row.label in taken:
                raise UserError(
                    f"study {plan.study.name}: {row.label!r} would stand for two rows of the table; name each model of "
                    "an arm once, and call the arms otherwise"
                )
            taken.add(row.label)


def check_claim(plan: "Plan") -> None:
    """Arms, models and measures that ``holds_if`` names are there."""
    from types import SimpleNamespace

    from trivium.studies.claims import sides_of

    study, at = plan.study, f"study {plan.study.name}: holds_if"
    rows: Any = {row.label: SimpleNamespace(name=row.label, arm=row.arm, model=row.model, x=row.x) for row in plan.rows}
    along = [f"{curve}/{key}" for curve in study.curves for key in ("best", "last", "gap", "peak")]
    known = [*study.measures, *along]
    for side in sides_of(study.model_dump(mode="json"), list(rows.values()), next(iter(known), None)):
        if side.measure not in known:
            raise UserError(
                f"{at} names the measure {side.measure!r}{nearest(side.measure, known)}, which the study has not"
            )
        if side.better == side.worse:
            raise UserError(f"{at} holds {side.better!r} against itself; name two")
        if side.problem:
            raise UserError(f"{at}: {side.problem}; there are {', '.join(rows)}")


def check_steps(plan: "Plan") -> None:
    """The stages themselves, as ``trivium run`` checks them; each once, of the first seed."""
    from trivium.preflight import check_models, check_section, check_stage

    for step in plan.steps.values():
        if step.seed == plan.seeds[0]:
            config, stages = step.recipe.stages[step.stage], step.recipe.stages
            try:
                check_stage(step.stage, config)
                check_models(step.stage, config, stages)
                check_section(f"stages.{step.stage}", config, list(stages))
            except UserError as error:
                arms = ", ".join(plan.arms_of(step.key))
                raise UserError(f"study {plan.study.name}, {arms}: {error}") from None
    for recipe in {id(item.recipe): item.recipe for item in plan.measurements.values()}.values():
        if recipe.seed == plan.seeds[0]:
            for name, task in recipe.evaluation.items():
                check_section(f"evaluation.{name}", task, list(recipe.stages))
