"""What a study measures of one model: tasks by prompt, the best of several samples, the KL by sampling."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.stages.tiny import RECIPE, run_stage
from trivium import files
from trivium.config import MeasureConfig
from trivium.errors import UserError
from trivium.evaluation.best_of_n import kl_bound
from trivium.recipe import apply_overrides, resolve
from trivium.studies import measure

TASK = {
    "prompts": [{"source": "primer", "part": "problems", "split": "test"}],
    "limit": 6,
    "samples": 2,
    "sample_limit": 4,
    "sampling": {"max_new_tokens": 6, "top_k": 5},
}
RECIPE_OF_TASKS = {
    **RECIPE,
    "evaluation": {
        "short": {**TASK, "verifier": {"kind": "length", "options": {"target": 5}}, "threshold": None, "samples": 0},
        "problems": {**TASK, "verifier": {"kind": "primer"}, "plain_prompt": "{prompt}"},
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model, and the same after some fine-tuning."""
    folder = tmp_path_factory.mktemp("models")
    run_stage(folder, "pretrain", {"pretrain.steps": 2, "pretrain.evaluate_every": 0})
    run_stage(folder, "sft", {"sft.steps": 4, "sft.evaluate_every": 0})
    return {name: folder / name / "model" for name in ("pretrain", "sft")}


def result(folder: Path, models: dict[str, Path], measures: dict[str, Any], **more: Any) -> dict[str, Any]:
    recipe = resolve(apply_overrides(RECIPE_OF_TASKS, more.pop("overrides", None)))
    request = {
        "recipe": recipe.model_dump(mode="json"),
        "stage": "sft",
        "model": str(models["sft"]),
        "measures": {name: MeasureConfig(**value).model_dump() for name, value in measures.items()},
        "kl_to": {name: str(models[value["kl_to"]]) for name, value in measures.items() if "kl_to" in value},
        "best_of": None,
        **more,
    }
    files.write_json(folder / "request.json", request)
    measure.measure(folder / "request.json")
    found: dict[str, Any] = files.read_json(folder / "result.json")
    return found


def test_numbers_by_prompt_and_in_all(models: dict[str, Path], tmp_path: Path) -> None:
    wanted = {
        "score": {"task": "short", "value": "score"},
        "right": {"task": "problems"},
        "sampled": {"task": "problems", "value": "sampled_accuracy"},
    }
    found = result(tmp_path, models, wanted)["measures"]
    assert [len(found[name]["items"]) for name in wanted] == [6, 6, 4]
    for value in found.values():
        assert value["value"] == pytest.approx(math.fsum(value["items"].values()) / len(value["items"]))


def test_the_kl_to_itself_is_zero_and_to_another_is_not(models: dict[str, Path], tmp_path: Path) -> None:
    wanted = {"own": {"kl_to": "sft"}, "far": {"kl_to": "pretrain", "samples": 4}}
    found = result(tmp_path, models, wanted)["measures"]
    assert found["own"]["value"] == pytest.approx(0.0, abs=1e-4)
    assert len(found["far"]["items"]) == 6
    assert found["far"]["value"] > 0.01
    # two models that were never taught the same; the mean over four answers to each of six prompts
    assert math.isfinite(found["far"]["value"])


def test_log_ratios_are_those_of_a_plain_forward_pass(models: dict[str, Path], tmp_path: Path) -> None:
    """Each answer by itself through the decoder, position by position, in float64 sums."""
    recipe = resolve(RECIPE_OF_TASKS)
    examiner = measure.open_examiner(recipe, "sft", str(models["sft"]), None)
    task = recipe.evaluation["problems"]
    task.sampling = task.sampling.model_copy(update={"top_k": 0})
    prompts, _, _ = examiner._prompts("problems", task)
    groups = examiner._sample(prompts, task, 2)
    other = measure.open_examiner(recipe, "sft", str(models["pretrain"]), None).engine.decoder
    found = measure.log_ratios(other, groups, examiner, task)
    from trivium.data.ragged import batch_groups
    from trivium.model.attention import GridAttention

    rollout = groups[3][1]
    batch = batch_groups([(rollout.prompt_tokens, [rollout.completion_tokens])])
    with torch.no_grad():
        logits = other(
            batch.tokens, batch.layout.positions, GridAttention(batch.layout), lambda hidden, weight: hidden @ weight.T
        )
    by_hand = torch.log_softmax(logits[batch.sources].double(), -1).gather(1, batch.targets[:, None]).sum()
    assert found[3][1] == pytest.approx(sum(rollout.log_probs) - float(by_hand), abs=1e-4)


def test_best_of_takes_what_the_scorer_likes_best(models: dict[str, Path], tmp_path: Path) -> None:
    """With the task's own verifier as the scorer, no prompt can do worse than its first sample, and a larger n no
    worse than a smaller one (its samples begin with the same)."""
    by = {"kind": "length", "options": {"target": 5}}
    wanted = {"score": {"task": "short", "value": "score"}, "kl": {"kl_to": "sft"}, "far": {"kl_to": "pretrain"}}
    few, many = (
        result(tmp_path / str(n), models, wanted, best_of={"n": n, "by": {**by, "weight": 1.0}}) for n in (2, 6)
    )
    for prompt, score in few["measures"]["score"]["items"].items():
        assert many["measures"]["score"]["items"][prompt] >= score
    assert many["measures"]["score"]["value"] > few["measures"]["score"]["value"]
    assert many["measures"]["kl"] == {"value": kl_bound(6), "items": {}}
    assert many["measures"]["far"]["value"] is None
    assert many["answer_tokens"] > 2 * few["answer_tokens"]


def test_a_scorer_that_can_score_nothing_is_a_sentence(models: dict[str, Path], tmp_path: Path) -> None:
    code = tmp_path / "broken.py"
    code.write_text("def score(prompt, response):\n    raise RuntimeError('no')\n")
    by = {"kind": "function", "weight": 1.0, "options": {"path": f"{code}:score"}}
    with pytest.raises(UserError, match=r"best_of: .*choose another scorer"):
        result(tmp_path, models, {"right": {"task": "short", "value": "score"}}, best_of={"n": 2, "by": by})


def test_what_could_not_be_judged_is_in_no_number() -> None:
    rows = [
        {"id": "a", "score": 1.0, "status": "ok", "sampled_right": 0.25},
        {"id": "b", "score": 0.0, "status": "infra_error"},
        {"id": "a", "score": 1.0, "status": "unparseable"},
    ]
    answers = {"results": rows, "threshold": 1.0}
    right = measure.of_task(MeasureConfig(task="t"), answers)
    assert right == {"value": 0.5, "items": {"a": 1.0, "a#2": 0.0}}
    assert measure.of_task(MeasureConfig(task="t", value="sampled_accuracy"), answers)["items"] == {"a": 0.25}
    assert measure.of_task(MeasureConfig(task="t", value="sampled_accuracy"), answers, chosen=True)["value"] is None
    empty = measure.of_task(MeasureConfig(task="t"), {"results": [], "threshold": 1.0})
    assert empty == {"value": None, "items": {}}


def test_equal_rollouts_replaced(models: dict[str, Path]) -> None:
    """Answers of other lengths in one batch do not touch one another's ratios."""
    recipe = resolve(RECIPE_OF_TASKS)
    examiner = measure.open_examiner(recipe, "sft", str(models["sft"]), None)
    task = recipe.evaluation["problems"]
    prompts, _, _ = examiner._prompts("problems", task)
    groups = examiner._sample(prompts, task, 2)
    whole = measure.log_ratios(examiner.engine.decoder, groups, examiner, task)
    alone = measure.log_ratios(examiner.engine.decoder, [[replace(groups[2][0])]], examiner, task)
    assert alone[0][0] == pytest.approx(whole[2][0], abs=1e-5)


def test_of_two_prompts_of_one_name_each_keeps_its_own_when_the_other_could_not_be_judged() -> None:
    both = [{"id": "a", "score": 1.0, "status": "ok"}, {"id": "a", "score": 0.0, "status": "ok"}]
    lost = [{**both[0], "status": "infra_error"}, both[1]]
    found = [measure.of_task(MeasureConfig(task="t"), {"results": rows, "threshold": 1.0}) for rows in (both, lost)]
    assert [one["items"] for one in found] == [{"a": 1.0, "a#2": 0.0}, {"a#2": 0.0}]
