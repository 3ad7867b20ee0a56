"""What the first prompts of an RL stage tell before anything is trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from trivium.errors import UserError
from trivium.preflight import check_prompts
from trivium.preflight.prompts import check_labelled_answers
from trivium.recipe import resolve


def stage(**values: Any) -> Any:
    recipe = resolve(
        {
            "name": "first",
            "stages": {"rl": {"init": "owner/model", "rewards": {"right": {"kind": "numeric"}}, **values}},
        }
    )
    return recipe.stages["rl"], recipe


def check(**values: Any) -> None:
    config, recipe = stage(**values)
    check_prompts("rl", config, recipe)


def test_a_level_that_prompts_do_not_have_is_told_with_the_nearest() -> None:
    prompts = [{"source": "procedural", "part": "sorting", "options": {"rows": 20}}]
    check(prompts=prompts, curriculum={"level": "level"})
    with pytest.raises(UserError, match=r"stages.rl.curriculum.level is 'levl'.*prompts\.0.*did you mean 'level'"):
        check(prompts=prompts, curriculum={"level": "levl"})


def test_prompts_without_tests_are_refused_before_training(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "Add 1 and 2.", "answer": "3"}) + "\n")
    rewards = {"passes": {"kind": "code", "options": {"sandbox": {"tier": "subprocess"}}}}
    with pytest.raises(UserError, match=r"stages.rl.rewards.passes: no program can be graded.*prompts\.0"):
        check(prompts=[{"source": str(path)}], rewards=rewards)


def test_hub_data_are_not_looked_at() -> None:
    check(prompts=[{"source": "someone/something"}], curriculum={"level": "level"})


def test_a_labelled_file_without_labels_is_refused_before_training(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = {"question": "Add 1 and 2.", "answer": "3"}
    path.write_text(json.dumps(rows) + "\n")
    labelled = [{"source": str(path), "fields": {"prompt": "question", "completion": "answer"}}]
    stages = {"dpo": {"init": "owner/model", "loss": "kto", "labelled": labelled}}
    recipe = resolve({"name": "first", "stages": stages})
    with pytest.raises(UserError, match=r"stages\.dpo\.labelled\.0: .*rows\.jsonl.*label"):
        check_labelled_answers("dpo", recipe.stages["dpo"], recipe)
    path.write_text(json.dumps({**rows, "label": True}) + "\n")
    check_labelled_answers("dpo", recipe.stages["dpo"], recipe)
