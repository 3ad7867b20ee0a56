"""Plans: which stages a study needs, which of them arms share, and what it refuses before anything is spent."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from trivium.errors import UserError
from trivium.studies import load as studies
from trivium.studies.arms import closure
from trivium.studies.load import check, load
from trivium.studies.plan import Plan, make_plan, replaced

STUDY: dict[str, Any] = {
    "name": "small",
    "question": "which is better?",
    "recipe": "primer",
    "shared": ["pretrain", "sft"],
    "seeds": [0, 1],
    "models": ["rl"],
    "measures": {"accuracy": {"task": "problems"}, "kl": {"kl_to": "sft", "better": "neither"}},
    "arms": {"a": {"overrides": {"rl.preset": "grpo"}}, "b": {"overrides": {"rl.preset": "rloo"}}},
}


def plan_of(changes: dict[str, Any] | None = None, **arguments: Any) -> Plan:
    return make_plan(check({**STUDY, **(changes or {})}, "study small"), **arguments)


def stages(plan: Plan, seed: int = 0) -> list[str]:
    return sorted(step.stage for step in plan.steps.values() if step.seed == seed)


def test_arms_share_what_they_have_in_common_and_nothing_else_is_run() -> None:
    plan = plan_of()
    assert stages(plan) == ["pretrain", "rl", "rl", "sft"] == stages(plan, 1)
    first, second = (row for row in plan.rows if row.seed == 0)
    assert first.paid["sft"] == second.paid["sft"]
    assert first.paid["rl"] != second.paid["rl"]
    assert len(plan.measurements) == 4


def test_another_seed_is_another_step() -> None:
    plan = plan_of()
    assert {row.paid["pretrain"] for row in plan.rows if row.seed == 0}.isdisjoint(
        row.paid["pretrain"] for row in plan.rows if row.seed == 1
    )


def test_arms_that_come_to_the_same_share_everything() -> None:
    same = {"a": {"overrides": {"rl.steps": 7}}, "b": {"overrides": {"rl.steps": 7}}}
    plan = plan_of({"arms": same, "seeds": [0]})
    assert stages(plan) == ["pretrain", "rl", "sft"]
    assert len(plan.measurements) == 1


def test_what_changes_a_stage_changes_those_after_it() -> None:
    """The settings of a stage go into its own key and, through it, into the keys of what builds on it."""
    before, after = plan_of(), plan_of(of_recipe={"sft.steps": 9})
    keys = [{name: row.paid[name] for name in ("pretrain", "sft", "rl")} for row in (before.rows[0], after.rows[0])]
    assert keys[0]["pretrain"] == keys[1]["pretrain"]
    assert keys[0]["sft"] != keys[1]["sft"]
    assert keys[0]["rl"] != keys[1]["rl"]


def test_how_often_checkpoints_are_saved_changes_nothing() -> None:
    assert plan_of().steps.keys() == plan_of(of_recipe={"rl.checkpoint_every": 3}).steps.keys()


def test_the_recipes_own_overrides_come_last() -> None:
    plan = plan_of({"arms": {"a": {"overrides": {"rl.steps": 7}}}}, of_recipe={"rl.steps": 3})
    assert plan.steps[plan.rows[0].paid["rl"]].recipe.stages["rl"].steps == 3


def test_every_process_has_one_thread() -> None:
    recipe = next(iter(plan_of().steps.values())).recipe
    assert (recipe.threads, recipe.parallel) == (1, 1)


def test_jobs_come_after_what_they_need() -> None:
    plan = plan_of()
    needs = plan.needs()
    assert needs.keys() == plan.steps.keys() | plan.measurements.keys()
    row = plan.rows[0]
    assert needs[row.paid["rl"]] == {row.paid["sft"]}
    assert row.measurement is not None
    assert needs[row.measurement] == {row.paid["rl"], row.paid["sft"]}  # the KL is to sft


def test_best_of_pays_for_its_scorer() -> None:
    best_of = {"n": 4, "by": {"kind": "reward_model", "options": {"model": "reward"}}}
    plan = plan_of({"arms": {"best": {"models": ["sft"], "best_of": best_of}}, "seeds": [0]})
    assert set(plan.rows[0].paid) == {"pretrain", "sft", "rank", "reward"}
    counted = {plan.steps[key].stage for key in plan.rows[0].paid.values() if plan.steps[key].counted}
    assert counted == {"rank", "reward"}


def test_a_model_that_is_compared_with_is_run_but_paid_by_nobody() -> None:
    measures = {"kl": {"kl_to": "sft"}}
    plan = plan_of({"arms": {"base": {"models": ["pretrain"]}}, "measures": measures, "seeds": [0]})
    assert set(plan.rows[0].paid) == {"pretrain"}
    assert stages(plan) == ["pretrain", "sft"]


def test_labels_name_the_model_where_an_arm_has_several() -> None:
    plan = plan_of({"arms": {"a": {"models": ["sft", "rl"]}, "b": {}}, "seeds": [0]})
    assert [row.label for row in plan.rows] == ["a · sft", "a · rl", "b"]


def test_a_curve_needs_no_model() -> None:
    changes = {"models": [], "measures": {}, "curves": {"bon": {"stage": "reward", "kind": "best_of_n"}}}
    plan = plan_of({**changes, "arms": {"a": {}, "b": {"overrides": {"reward.steps": 3}}}, "seeds": [0]})
    assert stages(plan) == ["pretrain", "rank", "reward", "reward", "sft"]
    assert [(row.model, list(row.curves), row.measurement) for row in plan.rows] == [("", ["bon"], None)] * 2


def test_an_arm_may_do_without_a_curve() -> None:
    curves = {"bon": {"stage": "reward", "kind": "best_of_n"}}
    plan = plan_of({"curves": curves, "arms": {"a": {}, "b": {"curves": []}}, "seeds": [0]})
    assert [list(row.curves) for row in plan.rows] == [["bon"], []]


def test_names_are_replaced_wherever_a_stage_refers_to_another() -> None:
    section = {
        "kind": "rl",
        "init": "sft",
        "rewards": {"a.b": {"kind": "reward_model", "options": {"model": "reward"}}, "sft": {"kind": "primer"}},
    }
    placed = replaced(section, {"sft": "X", "reward": "Y"})
    assert placed["init"] == "X"
    assert placed["rewards"]["a.b"]["options"]["model"] == "Y"
    assert placed["rewards"]["sft"] == {"kind": "primer"}
    assert section["init"] == "sft"  # the original stays


def test_a_closure_is_in_the_order_of_the_recipe() -> None:
    recipe = next(iter(plan_of().steps.values())).recipe
    assert closure(recipe, ["rl"]) == ["pretrain", "sft", "rl"]


@pytest.mark.parametrize("name", studies.names())
def test_the_shipped_studies_can_be_planned(name: str) -> None:
    plan = make_plan(load(name)[0], seeds=[0])
    assert {row.arm for row in plan.rows} == set(plan.study.arms)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ["rlx"]}, "models names 'rlx', which is no stage of the recipe (did you mean 'rl'?)"),
        ({"models": ["reward"]}, "a stage of kind reward; it needs one of kind pretrain"),
        ({"models": []}, "nothing of it is measured"),
        ({"models": ["rlx"], "arms": {"a": {"models": ["rl"]}}}, "models names 'rlx', which is a stage of no arm"),
        ({"shared": ["stf"]}, "shared names 'stf'"),
        ({"measures": {"a": {"task": "problem"}}}, "which is no task (did you mean 'problems'?)"),
        ({"arms": {"a": {"x": 0.5}, "b": {}}}, "arms.b has no x, and other arms have one"),
        ({"measures": {"a": {}}}, "says nothing of where it comes from"),
        ({"measures": {"a": {"task": "taste"}}}, "no threshold; use value: score"),
        ({"measures": {"a": {"of": "x", "task": "problems"}}}, "keep one of"),
        ({"measures": {"a": {"of": "x", "value": "score"}}}, "value is for a task"),
        ({"measures": {"a": {"task": "problems", "samples": 3}}}, "samples is for kl_to"),
        ({"measures": {"a": {"kl_to": "reward"}}}, "a stage of kind reward"),
        ({"curves": {"c": {"stage": "rl", "kind": "rl"}}}, "watch with a gold score"),
        ({"curves": {"c": {"stage": "rl", "kind": "best_of_n"}}}, "a stage of kind rl; it needs one of kind reward"),
        ({"arms": {"a": {"curves": ["x"]}}}, "curves names 'x'"),
        ({"arms": {"a": {"overrides": {"rl.stepz": 3}}}}, "stages.rl has no key 'stepz'"),
        ({"arms": {"a": {"overrides": {"rl.group_size": 1}}}}, "study small, a: "),
        ({"arms": {"a": {"x": 0.5}, "b": {"x": 0.5}}}, "arms.a and arms.b both lie at x = 0.5"),
        ({"arms": {"a": {"overrides": {"seed": 7}}}}, "arms.a.overrides set seed, which a study does"),
        ({"arms": {"a": {"best_of": {"by": {"kind": "numerics"}}}}}, "best_of.by: "),
        ({"holds_if": [{"better": "a", "worse": "a"}]}, "holds 'a' against itself"),
        ({"name": "../outside"}, "name is '../outside', but should be a name of letters"),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        plan_of(changes)
    assert words in str(caught.value)


@pytest.mark.parametrize("key", ["seed", "threads", "parallel"])
def test_what_a_study_decides_is_no_override(key: str) -> None:
    with pytest.raises(UserError, match=rf"that begin with recipe\. set {key}, which a study does"):
        plan_of(of_recipe={key: 2})


def test_samples_are_asked_for_where_they_are_measured() -> None:
    measures = {"a": {"task": "problems", "value": "sampled_accuracy"}}
    with pytest.raises(UserError, match="needs samples of problems"):
        plan_of({"measures": measures, "overrides": {"problems.samples": 0}})


# ---- loading ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


def test_overrides_are_of_the_study_or_of_its_recipe(written: Path) -> None:
    given = ["budget.tokens=5", "arms.a.overrides.rl.steps=4", "recipe.rl.steps=6"]
    study, of_recipe = load(written, given)
    assert study.budget.tokens == 5
    assert study.arms["a"].overrides == {"rl.preset": "grpo", "rl.steps": 4}
    assert of_recipe == {"rl.steps": 6}


def test_an_override_of_the_recipe_without_its_prefix_is_told_so(written: Path) -> None:
    with pytest.raises(UserError, match=r"such as recipe\.rl\.steps"):
        load(written, ["rl.steps=6"])


def test_an_unknown_study_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown study 'feedbak'.*did you mean 'feedback'"):
        load("feedbak")


def test_an_unknown_key_of_a_study_is_refused(written: Path) -> None:
    with pytest.raises(UserError, match="has no key 'seed'"):
        load(written, ["seed=3"])
    with pytest.raises(UserError, match="no key 'overides'"):
        check({**STUDY, "overides": {}}, "study small")


def test_values_of_a_study_that_are_no_good_are_told_in_plain_words() -> None:
    with pytest.raises(UserError, match=r"arms is \{\}, but should hold at least 1 entry"):
        check({**STUDY, "arms": {}}, "study small")
    with pytest.raises(UserError, match=r"curves.a.kind is missing; give best_of_n \(.*\) or rl \("):
        check({**STUDY, "curves": {"a": {"stage": "rl"}}}, "study small")


def test_a_claim_about_what_is_not_there_is_refused_before_anything_is_spent() -> None:
    good = {"better": "b", "worse": "a"}
    assert plan_of({"holds_if": [good]}).rows
    with pytest.raises(UserError, match=r"measure 'acuracy' .did you mean 'accuracy'"):
        plan_of({"holds_if": [{**good, "measure": "acuracy"}]})
    with pytest.raises(UserError, match="no arm, label or model of the study is called 'c'; there are a, b"):
        plan_of({"holds_if": [{"better": "c", "worse": "a"}]})


def test_two_rows_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="'a · rl' would stand for two rows"):
        plan_of({"arms": {"a": {"models": ["sft", "rl"]}, "a · rl": {"models": ["rl"]}}})
    with pytest.raises(UserError, match="'a · rl' would stand for two rows"):
        plan_of({"arms": {"a": {"models": ["rl", "rl"]}}})
