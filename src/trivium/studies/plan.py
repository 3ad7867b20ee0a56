"""What a study has to do: for each seed and arm the stages that what is measured goes back to, each of them once.

A stage of one seed is a *step*. Its key is a hash of all that its outcome depends on: the settings and input files that
``trivium.lineage`` goes by, the keys of the steps that it builds on, and whether the budget of the arms counts it. Arms
that have a stage in common therefore share its step, however they call the rest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trivium import lineage
from trivium.recipe import apply_overrides, read, resolve
from trivium.references import references
from trivium.studies.arms import closure, curves_of, models_of, others_of, roots_of, scorers_of
from trivium.studies.checks import (
    check_arm,
    check_axis,
    check_claim,
    check_given,
    check_labels,
    check_models_named,
    check_steps,
)

if TYPE_CHECKING:
    from trivium.config import ArmConfig, MeasureConfig, RecipeConfig, StudyConfig


@dataclass(frozen=True)
class Step:
    """A stage of one seed. ``parents``: by the name of a stage its step; ``before``: all steps that it goes back to."""

    key: str
    stage: str
    seed: int
    recipe: "RecipeConfig"
    parents: dict[str, str]
    before: frozenset[str]
    counted: bool  # whether it is part of the budget

    @property
    def section(self) -> dict[str, Any]:
        """The stage's configuration as plain data."""
        return self.recipe.stages[self.stage].model_dump(mode="json")


@dataclass(frozen=True)
class Measurement:
    """What is asked of one model: a job of its own. ``model``, ``kl_to`` and ``scorer`` are keys of steps."""

    key: str
    stage: str
    seed: int
    recipe: "RecipeConfig"
    measures: "dict[str, MeasureConfig]"
    model: str
    kl_to: dict[str, str]  # by measure
    best_of: dict[str, Any] | None  # plain data of BestOfConfig
    scorers: dict[str, str]  # steps of the stages that best_of names

    @property
    def needs(self) -> set[str]:
        return {self.model, *self.kl_to.values(), *self.scorers.values()}


@dataclass(frozen=True)
class Row:
    """An arm measured at one model, in one seed. ``paid``: the steps whose cost is its own, by stage."""

    arm: str
    model: str
    label: str
    seed: int
    x: float | None
    paid: dict[str, str]
    measurement: str | None
    curves: dict[str, str]  # steps, by the name of the curve


@dataclass
class Plan:
    """``steps`` and ``measurements`` by key, each after what it needs; ``rows`` in the order of arms and seeds."""

    study: "StudyConfig"
    seeds: list[int]
    steps: dict[str, Step] = field(default_factory=dict)
    measurements: dict[str, Measurement] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def needs(self) -> dict[str, set[str]]:
        """For each job the jobs that come before it: seed by seed, so that whole seeds are there early."""
        found: dict[str, set[str]] = {}
        for seed in self.seeds:
            for step in self.steps.values():
                if step.seed == seed:
                    found[step.key] = set(step.parents.values())
            for measurement in self.measurements.values():
                if measurement.seed == seed:
                    found[measurement.key] = measurement.needs
        return found

    def arms_of(self, key: str) -> list[str]:
        """The arms for whose sake a job is done."""
        return list(
            dict.fromkeys(
                row.arm
                for row in self.rows
                if key in (row.measurement, *row.paid.values(), *row.curves.values())
                or (row.measurement and key in self._behind(row.measurement))
            )
        )

    def _behind(self, measurement: str) -> set[str]:
        direct = self.measurements[measurement].needs
        return direct.union(*(self.steps[key].before for key in direct))


# ---- making one ------------------------------------------------------------------------------------------------------


def make_plan(
    study: "StudyConfig", seeds: Sequence[int] | None = None, of_recipe: Mapping[str, Any] | None = None
) -> Plan:
    """The plan of a study; UserError for anything in it that does not fit together, before anything is spent.

    ``seeds`` in place of the study's own; ``of_recipe``: overrides of the recipe that come after the study's and the
    arm's.
    """
    check_axis(study)
    check_given(study, of_recipe or {})
    plan = Plan(study, list(dict.fromkeys(study.seeds if seeds is None else seeds)))
    values, where = read(study.recipe)
    hasher = lineage.Hasher()
    recipes: dict[tuple[str, int], RecipeConfig] = {}
    for arm, config in study.arms.items():
        at = f"study {study.name}, arm {arm}"
        changed: dict[str, Any] = values
        for overrides in (study.overrides, config.overrides, of_recipe or {}):
            changed = apply_overrides(changed, overrides, f"{at}, {where}")
        for seed in plan.seeds:
            recipes[arm, seed] = resolve({**changed, "seed": seed, "threads": 1, "parallel": 1}, at)
        check_arm(study, arm, recipes[arm, plan.seeds[0]])
    check_models_named(study, [list(recipe.stages) for recipe in recipes.values()])
    needed = {
        stage
        for arm, config in study.arms.items()
        for stage in closure(recipes[arm, plan.seeds[0]], [*roots_of(study, config), *others_of(study, config)])
    }
    for arm, config in study.arms.items():
        for seed in plan.seeds:
            _add_arm(plan, arm, config, _pruned(recipes[arm, seed], needed), hasher)
    check_labels(plan)
    check_claim(plan)
    check_steps(plan)
    return plan


def _pruned(recipe: "RecipeConfig", needed: Iterable[str]) -> "RecipeConfig":
    """The recipe without stages that no arm needs: nothing of them is read. What is held out for the evaluation is
    then the same for all arms that share their data."""
    kept = {name: stage for name, stage in recipe.stages.items() if name in set(needed)}
    return recipe.model_copy(update={"stages": kept})


def _add_arm(plan: Plan, arm: str, config: "ArmConfig", recipe: "RecipeConfig", hasher: lineage.Hasher) -> None:
    study, seed = plan.study, recipe.seed
    keys: dict[str, str] = {}
    for name in closure(recipe, [*roots_of(study, config), *others_of(study, config)]):
        keys[name] = _add_step(plan, name, recipe, keys, hasher)
    models = models_of(study, config)
    curves = {name: study.curves[name].stage for name in curves_of(study, config)}
    for number, model in enumerate(models or [""]):
        own = {name: stage for name, stage in curves.items() if stage == model or (stage not in models and not number)}
        paid = closure(recipe, [*([model] if model else []), *scorers_of(config), *own.values()])
        plan.rows.append(
            Row(
                arm=arm,
                model=model,
                label=f"{arm} · {model}" if len(models) > 1 else arm,
                seed=seed,
                x=config.x,
                paid={name: keys[name] for name in paid},
                measurement=_add_measurement(plan, model, config, recipe, keys, hasher)
                if model and study.measures
                else None,
                curves={name: keys[stage] for name, stage in own.items()},
            )
        )


def _add_step(plan: Plan, name: str, recipe: "RecipeConfig", keys: dict[str, str], hasher: lineage.Hasher) -> str:
    section = recipe.stages[name].model_dump(mode="json")
    named = [item.name for item in references(section) if item.name in recipe.stages]
    parents = {other: keys[other] for other in dict.fromkeys(named)}
    counted = name not in plan.study.shared
    budget = plan.study.budget.model_dump() if counted else None
    key = f"{name}-{lineage.digest([identity(recipe, section, parents, hasher), counted, budget])[:12]}-{recipe.seed}"
    before = frozenset(parents.values()).union(*(plan.steps[parent].before for parent in parents.values()))
    plan.steps.setdefault(key, Step(key, name, recipe.seed, recipe, parents, before, counted))
    return key


def identity(
    recipe: "RecipeConfig", section: dict[str, Any], parents: Mapping[str, str], hasher: lineage.Hasher
) -> str:
    """A hash of what a stage's outcome depends on, where ``parents`` says for each stage that it names what it is."""
    placed = replaced(section, parents)
    inputs = lineage.inputs_of(placed, {}, hasher)
    return lineage.digest([lineage.relevant(recipe, placed), lineage.contents(inputs), recipe.device])


def replaced(section: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """``section`` with other names in place of the stages it refers to.

    >>> replaced({"kind": "rl", "init": "sft"}, {"sft": "runs/a/sft/model"})
    {'kind': 'rl', 'init': 'runs/a/sft/model'}
    """
    from trivium.studies.load import copied

    result: dict[str, Any] = copied(section)
    for reference in references(section):
        if reference.name in names:
            _put(result, reference.key.split("."), names[reference.name])
    return result


def _put(value: Any, path: list[str], new: str) -> None:
    """Set the value at ``path``; the name of a part of a reward may itself hold a dot."""
    if isinstance(value, list):
        _put(value[int(path[0])], path[1:], new)
        return
    for cut in range(1, len(path) + 1):
        key = ".".join(path[:cut])
        if key in value:
            if cut == len(path):
                value[key] = new
            else:
                _put(value[key], path[cut:], new)
            return
    raise KeyError(".".join(path))


def _add_measurement(
    plan: Plan, model: str, config: "ArmConfig", recipe: "RecipeConfig", keys: dict[str, str], hasher: lineage.Hasher
) -> str | None:
    study = plan.study
    asked = {name: measure for name, measure in study.measures.items() if measure.of is None}
    if not asked:
        return None
    best_of = None if config.best_of is None else config.best_of.model_dump(mode="json")
    kl_to = {name: keys[measure.kl_to] for name, measure in asked.items() if measure.kl_to is not None}
    scorers = {name: keys[name] for name in scorers_of(config)}
    tasks = {name: task.model_dump(mode="json") for name, task in recipe.evaluation.items()}
    what: list[Any] = [{name: measure.model_dump() for name, measure in asked.items()}, best_of, kl_to, scorers, tasks]
    what.append(lineage.contents(lineage.inputs_of([tasks, best_of], {}, hasher)))
    key = f"measure-{model}-{lineage.digest([keys[model], what])[:12]}-{recipe.seed}"
    made = Measurement(key, model, recipe.seed, recipe, asked, keys[model], kl_to, best_of, scorers)
    plan.measurements.setdefault(key, made)
    return key
