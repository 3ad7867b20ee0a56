"""Evaluation of a model that answers badly at random: every number follows from the results that are kept."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

import trivium.evaluation.evaluate as evaluation
import trivium.evaluation.shares as shares
from trivium.config import RecipeConfig
from trivium.errors import UserError
from trivium.evaluation.evaluate import evaluate_stage
from trivium.evaluation.intervals import wilson
from trivium.feedback.verdict import Verdict
from trivium.model.decoder import Decoder
from trivium.model.huggingface import save_model
from trivium.model.sizes import derive
from trivium.progress import Progress
from trivium.stages import StageContext
from trivium.text.chat import prompt_ids
from trivium.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that spells its answers in a few letters."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.train_character(["abcdefgh 0123456789?"])
    shape, _ = derive(RecipeConfig.model_validate(recipe()).stages["sft"].model, tokenizer.vocabulary_size)  # type: ignore[union-attr]
    decoder = Decoder(shape)
    decoder.initialise(torch.Generator().manual_seed(0), 0.5)
    save_model(decoder, folder, tokenizer)
    return folder


def recipe(**task: Any) -> dict[str, Any]:
    """A stage that learns from one file, and a task on another; the model keys serve the fixture alone."""
    stage = {
        "kind": "pretrain",
        "data": [{"source": "primer"}],
        "model": {"size": None, "layers": 1, "hidden_size": 16, "heads": 2, "context_length": 64},
    }
    return {"name": "tiny", "device": "cpu", "stages": {"sft": stage}, "evaluation": {"quiz": task} if task else {}}


def evaluate(model: Path, folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    config = RecipeConfig.model_validate(values)
    context = StageContext("sft", config.stages["sft"], config, folder, {}, Progress())
    return evaluate_stage(context, model)["tasks"]["quiz"]  # type: ignore[no-any-return]


def questions(path: Path, count: int = 12) -> dict[str, Any]:
    rows = [{"prompt": f"{n}?", "answer": "abc"[n % 3], "task": f"kind{n % 2}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"source": str(path)}


SAMPLING = {"max_new_tokens": 6}


def test_the_numbers_follow_from_the_results(model: Path, tmp_path: Path) -> None:
    """A pattern as the verifier, so that about half of the answers are right."""
    task = {
        "prompts": [questions(tmp_path / "quiz.jsonl")],
        "verifier": {"kind": "regex", "options": {"pattern": "[abcd0-4]"}},
        "sampling": SAMPLING,
        "samples": 5,
        "sample_limit": 4,
        "references": True,
    }
    found = evaluate(model, tmp_path, recipe(**task))
    results = found["results"]
    assert found["n"] == len(results) == 12
    right = sum(result["score"] >= 1 for result in results)
    interval = wilson(right, 12)
    assert (found["accuracy"], found["low"], found["high"]) == (right / 12, interval.low, interval.high)
    assert found["score"] == pytest.approx(fmean(result["score"] for result in results))
    assert sum(found["status"].values()) == 12
    assert set(found["pass_at_k"]) == set(found["majority_at_k"]) == {"1", "2", "4"}
    assert found["pass_at_k"]["1"] == pytest.approx(found["sampled_accuracy"])
    assert found["pass_at_k"]["1"] <= found["pass_at_k"]["2"] <= found["pass_at_k"]["4"]
    assert found["bits_per_byte"] > 0
    assert 0 <= found["truncated_share"] <= 1 and 1 <= found["response_length"] <= 6
    assert sum(part["n"] for part in found["by_task"].values()) == 12 and set(found["by_task"]) == {"kind0", "kind1"}
    assert found["teacher"] is None and found["duplicates_dropped"] == 0
    assert json.loads(json.dumps(found)) == found
    again = evaluate(model, tmp_path, recipe(**task))
    assert again == found


def test_constant_baseline_and_tasks(model: Path, tmp_path: Path) -> None:
    task = {"prompts": [questions(tmp_path / "quiz.jsonl", 10)], "verifier": {"kind": "exact"}, "sampling": SAMPLING}
    found = evaluate(model, tmp_path, recipe(**task))
    assert found["baseline"] == {"chance": None, "constant": 0.4, "constant_answer": "a"}
    assert found["pass_at_k"] == found["majority_at_k"] == {} and found["sampled_accuracy"] is None
    assert evaluate(model, tmp_path, recipe(**task, baseline=False, limit=3))["n"] == 3


def test_votes_are_counted_by_value() -> None:
    votes = [shares._vote(Verdict(0.0, "ok", text), True) for text in ("1,000", "1000.0", "$1e3.", "7")]
    assert votes[0] == votes[1] == votes[2] != votes[3]
    assert shares._vote(Verdict(0.0, "unparseable", "a thousand"), True) is None
    assert shares._vote(Verdict(1.0, "ok", "a  b"), False) == "a b"


def test_a_reference_longer_than_the_context_is_left_out(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "1?", "answer": "abc"}, {"prompt": "2?", "answer": "abc" * 40}]
    found = []
    for kept in (rows[:1], rows, rows[1:]):
        path = tmp_path / f"{len(found)}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        task = {"prompts": [{"source": str(path)}], "verifier": {"kind": "exact"}, "sampling": SAMPLING}
        found.append(evaluate(model, tmp_path, recipe(**task, references=True))["bits_per_byte"])
    assert found[0] == found[1] is not None and found[2] is None


def test_what_was_trained_on_is_dropped_and_counted(model: Path, tmp_path: Path) -> None:
    """By the prompt, whatever its spaces and capitals; if nothing is left, one sentence."""
    values = recipe(prompts=[questions(tmp_path / "quiz.jsonl")], verifier={"kind": "exact"}, sampling=SAMPLING)
    seen = [{"prompt": f" {n}? ", "completion": "a"} for n in range(5)]
    (tmp_path / "seen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in seen))
    values["stages"]["tuned"] = {"kind": "sft", "init": "sft", "data": [{"source": str(tmp_path / "seen.jsonl")}]}
    found = evaluate(model, tmp_path, values)
    assert found["n"] == 7 and found["duplicates_dropped"] == 5
    assert {result["prompt"] for result in found["results"]} == {f"{n}?" for n in range(5, 12)}
    values["stages"]["tuned"]["data"] = [{"source": str(tmp_path / "quiz.jsonl"), "fields": {"completion": "answer"}}]
    with pytest.raises(UserError, match="quiz: all 12 prompts also occur in the training data"):
        evaluate(model, tmp_path, values)


@pytest.mark.parametrize("kind", ["labelled", "rankings", "reward"])
def test_what_answers_were_compared_or_labelled_for_is_dropped_too(model: Path, tmp_path: Path, kind: str) -> None:
    values = recipe(prompts=[questions(tmp_path / "quiz.jsonl")], verifier={"kind": "exact"}, sampling=SAMPLING)
    row = {"completion": "a", "label": True} if kind == "labelled" else {"chosen": "a", "rejected": "b"}
    seen = tmp_path / "seen.jsonl"
    seen.write_text("".join(json.dumps({"prompt": f"{n}?", **row}) + "\n" for n in range(3)))
    key = "labelled" if kind == "labelled" else "rankings"
    stage = {"kind": "reward" if kind == "reward" else "dpo", "init": "sft", key: [{"source": str(seen)}]}
    values["stages"]["learner"] = stage | ({"loss": "kto"} if kind == "labelled" else {})
    found = evaluate(model, tmp_path, values)
    assert found["n"] == 9 and found["duplicates_dropped"] == 3
    seen.unlink()  # nobody has judged yet: the stages before are evaluated all the same
    values["stages"]["learner"]["steps"] = 5  # or the records of before would be known still
    assert evaluate(model, tmp_path, values)["n"] == 12


def test_an_infrastructure_error_counts_in_no_share(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of twelve cannot be judged: n is 8, and accuracy is a share of those."""

    class Verifier:
        def __call__(self, prompt: Any, response: str) -> Verdict:
            number = int(prompt.messages[-1].content.rstrip("?"))
            if number % 3 == 0:
                return Verdict(0.0, "infra_error")
            return Verdict(float(number % 3 == 1), "ok", "x")

        def verdicts(self, items: Any) -> list[Verdict]:
            return [self(prompt, response) for prompt, response in items]

        def close(self) -> None: ...

    monkeypatch.setattr("trivium.evaluation.evaluate.build", lambda config: Verifier())
    values = recipe(
        prompts=[questions(tmp_path / "quiz.jsonl")], verifier={"kind": "exact"}, sampling=SAMPLING, samples=2
    )
    found = evaluate(model, tmp_path, values)
    assert found["n"] == 8 and found["accuracy"] == 0.5 and found["status"]["infra_error"] == 4
    assert found["score"] == 0.5
    assert found["sampled_accuracy"] == 0.5 and found["pass_at_k"] == {"1": 0.5, "2": 0.5}


def test_a_pre_trained_model_is_asked_in_plain_form(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No chat template, and the answer ends with the line."""
    calls: list[Any] = []
    sample = evaluation.sample_group_rollouts

    def record(*arguments: Any) -> Any:
        calls.append(arguments)
        return sample(*arguments)

    monkeypatch.setattr(evaluation, "sample_group_rollouts", record)
    task = {"prompts": [questions(tmp_path / "quiz.jsonl", 3)], "verifier": {"kind": "exact"}, "sampling": SAMPLING}
    assert evaluate(model, tmp_path, recipe(**task, plain_prompt="{prompt} a"))["asked"] == "plain"
    assert evaluate(model, tmp_path, recipe(**task))["asked"] == "chat"
    (_, tokenizer, plain, _, settings, *_), (_, _, chat, *_) = calls
    assert [tokenizer.decode(tokens) for _, tokens in plain] == ["0? a", "1? a", "2? a"]
    assert "\n" in settings.stop_strings
    assert [tokens for _, tokens in chat] == [prompt_ids(tokenizer, prompt.messages) for prompt, _ in chat]


def test_without_a_threshold_the_mean_score_is_all_there_is(model: Path, tmp_path: Path) -> None:
    task = {
        "prompts": [questions(tmp_path / "quiz.jsonl")],
        "verifier": {"kind": "length", "options": {"target": 3, "unit": "characters"}},
        "sampling": SAMPLING,
        "threshold": None,
    }
    found = evaluate(model, tmp_path, recipe(**task))
    assert found["accuracy"] is None and found["low"] is None and found["by_task"] == {} and found["teacher"] is None
    assert found["score"] == pytest.approx(fmean(result["score"] for result in found["results"]))
    assert found["score_low"] <= found["score"] <= found["score_high"]


class Scripted:
    """An environment that answers the first character with a result and a score, or fails by our fault."""

    stop = tuple("abcdefgh 0123456789?")
    start = None
    workers = 2

    def reset(self, prompt: Any, seed: int) -> "Scripted":
        episode = Scripted()
        episode.number, episode.told = int(prompt.messages[-1].content.rstrip("?")), False  # type: ignore[attr-defined]
        return episode

    def step(self, text: str, ended: bool) -> Any:
        from trivium.environments.base import Step

        if self.number == 3:  # type: ignore[attr-defined]
            raise RuntimeError("the tool broke")
        if self.told:  # type: ignore[has-type]
            return Step()
        self.told = True
        return Step(insert="777", outcome=float(self.number % 2))  # type: ignore[attr-defined]

    def close(self) -> None: ...


def test_a_task_with_an_environment(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its score judges, its words are told apart from the model's, and its failure is in no share."""
    monkeypatch.setattr("trivium.environments.build.build", lambda config: Scripted())
    task = {
        "prompts": [questions(tmp_path / "quiz.jsonl", 6)],
        "verifier": {"kind": "environment"},
        "environment": {"kind": "tools", "max_turns": 6},
        "sampling": {"max_new_tokens": 20},
    }
    found = evaluate(model, tmp_path, recipe(**task))
    rows = {row["prompt"]: row for row in found["results"]}
    assert rows["3?"]["status"] == "infra_error" and found["status"]["infra_error"] >= 1
    assert found["n"] == 6 - found["status"]["infra_error"] and found["turns"] >= 1
    judged = [row for row in found["results"] if row["status"] == "ok"]
    assert judged and all(row["score"] == int(row["prompt"][0]) % 2 for row in judged)
    told = [row for row in found["results"] if row.get("said")]
    assert any(["environment", "777"] in row["said"] for row in told)
    assert all("777" not in words for row in judged for who, words in row["said"] if who == "model")
    assert json.loads(json.dumps(found)) == found
