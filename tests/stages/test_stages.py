"""Each stage as the pipeline calls it, on a tiny model: what it leaves, what it logs, what it refuses."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tests.stages.tiny import STAGES, link_models, metrics, run_stage

import trivium.stages.rl as rl
from trivium.errors import UserError
from trivium.generation.rollouts import Rollout
from trivium.model.decoder import Decoder
from trivium.model.huggingface import load_model
from trivium.objectives.presets import PRESETS
from trivium.text.tokenizer import Tokenizer
from trivium.training.loop import Loop
from trivium.training.policy import Update

QUICK = {"rl.steps": 2, "rl.checkpoint_every": 0, "rl.evaluate_every": 0}


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    """A folder in which pretrain and sft are done."""
    return link_models(finished, tmp_path, "rl")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_leaves_what_the_design_names(finished: Path, stage: str) -> None:
    folder = finished / stage
    assert {"model", "checkpoints", "metrics.jsonl"} <= {path.name for path in folder.iterdir()}
    lines = metrics(folder)
    train = [line for line in lines if line["split"] == "train"]
    validation = [line for line in lines if line["split"] == "validation"]
    assert [line["step"] for line in train] == list(range(1, 9))
    assert [line["step"] for line in validation] == [4, 8]
    common = {"step", "split", "loss", "gradient_norm", "learning_rate", "tokens", "skipped"}
    assert all(common <= line.keys() for line in train)
    assert all(math.isfinite(value) for line in lines for value in line.values() if isinstance(value, int | float))
    assert load_model(folder / "model").config == load_model(finished / "sft/model").config
    assert Tokenizer.load(folder / "model").stop_token_ids == Tokenizer.load(finished / "sft/model").stop_token_ids


def test_imitation_learns(finished: Path) -> None:
    for stage in ("pretrain", "sft"):
        losses = [line["loss"] for line in metrics(finished / stage) if line["split"] == "validation"]
        assert losses[1] < losses[0]


def test_rl_logs_what_it_did(finished: Path) -> None:
    line = metrics(finished / "rl")[0]
    assert {
        *("reward", "reward/short", "reward_std", "groups_without_spread", "kl", "entropy", "ratio_mean", "clip_share"),
        *("response_length", "truncated_share", "status/ok", "status/infra_error", "ratio_deviation"),
    } <= line.keys()
    assert line["kl"] == pytest.approx(0.0, abs=1e-6)  # the reference is the policy at first
    assert metrics(finished / "rl")[-2]["kl"] > 1e-6
    assert line["sampler_difference"] < 1e-5


def test_rollouts_are_kept_with_what_was_made_of_them(finished: Path) -> None:
    files = sorted((finished / "rl/rollouts").glob("*.parquet"))
    assert [path.name for path in files] == [f"step-{step:08d}.parquet" for step in range(1, 9)]
    rows = [Rollout(**row | {"reward_parts": dict(row["reward_parts"])}) for row in pq.read_table(files[3]).to_pylist()]
    assert len(rows) == 15 and {row.weight_version for row in rows} == {6}  # two updates a step
    assert [row.group for row in rows] == [number for number in range(5) for _ in range(3)]
    logged = next(line for line in metrics(finished / "rl") if line["step"] == 4)
    assert sum(row.reward for row in rows) / 15 == pytest.approx(logged["reward"])
    assert sum(row.length for row in rows) / 15 == pytest.approx(logged["response_length"])
    for row in rows:
        assert row.reward == row.reward_parts["short"] and len(row.log_probs) == row.length
        ended = row.completion_tokens[-1] in Tokenizer.load(finished / "rl/model").stop_token_ids
        assert ended == (row.finish_reason == "stop")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs(place: Path, preset: str) -> None:
    window = {"rl.overlong_window": 4} if preset == "dapo" else {}
    summary = run_stage(place, "rl", QUICK | window | {"rl.preset": preset, "rl.reference": "frozen"})
    train = [line for line in metrics(place / "rl") if line["split"] == "train"]
    assert summary["steps"] == 2 and len(train) == 2
    assert all(math.isfinite(line["loss"]) and line["gradient_norm"] > 0 for line in train)
    assert all(line["ratio_mean"] == pytest.approx(1.0, abs=0.1) for line in train)


@pytest.mark.parametrize("stage", STAGES)
def test_bfloat16(finished: Path, tmp_path: Path, stage: str) -> None:
    link_models(finished, tmp_path, stage)
    run_stage(tmp_path, stage, {f"{stage}.precision": "bfloat16"})
    pairs = zip(metrics(tmp_path / stage), metrics(finished / stage), strict=True)
    for rough, exact in pairs:
        assert rough.keys() == exact.keys()
        assert math.isfinite(rough.get("loss", 0.0))
        if stage != "rl":
            assert rough["loss"] == pytest.approx(exact["loss"], abs=0.05)
    assert {value.dtype for value in load_model(tmp_path / stage / "model").parameters()} == {torch.float32}


# ---- rl --------------------------------------------------------------------------------------------------------------


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """The metrics of every update, not of windows."""
    results: list[dict[str, float]] = []
    update = Loop.update

    def record(*arguments: Any, **named: Any) -> dict[str, float]:
        results.append(update(*arguments, **named))
        return results[-1]

    monkeypatch.setattr(Loop, "update", record)
    return results


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("minibatches", "epochs"), [(1, 1), (2, 1), (2, 2)])
def test_the_first_update_of_a_step_has_ratio_one(
    place: Path, monkeypatch: pytest.MonkeyPatch, minibatches: int, epochs: int, precision: str
) -> None:
    results = recorded(monkeypatch)
    choice = {"rl.minibatches": minibatches, "rl.epochs": epochs, "rl.optimizer.lr": 3e-3, "rl.precision": precision}
    run_stage(place, "rl", QUICK | choice)
    updates = minibatches * epochs
    assert len(results) == 2 * updates
    for number, result in enumerate(results):
        if number % updates == 0:
            assert result["ratio_deviation"] <= 1e-6
            assert result["sampler_difference"] < (1e-5 if precision == "float32" else 0.2)
        else:  # the weights have moved since the rollouts were sampled
            assert 1e-6 < result["ratio_deviation"] < 2


def test_every_group_is_used_once_an_epoch(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    before = Update.__init__

    def record(update: Update, groups: Any, *arguments: Any) -> None:
        seen.append([group[0].group for group in groups])
        before(update, groups, *arguments)

    monkeypatch.setattr(Update, "__init__", record)
    run_stage(place, "rl", QUICK | {"rl.minibatches": 2, "rl.epochs": 2})
    assert [len(part) for part in seen] == [3, 2] * 4
    for first in range(0, 8, 2):
        assert sorted(seen[first] + seen[first + 1]) == list(range(5))
    assert seen[0] + seen[1] != seen[2] + seen[3]  # each epoch in an order of its own


def test_the_reference_is_a_copy_of_what_came_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen one keeps its weights and gets no gradient; a moving one follows by 1 - decay."""
    kept: list[Decoder] = []
    before = Loop.__init__

    def record(loop: Loop, *arguments: Any, **named: Any) -> None:
        kept[:] = [arguments[1], named["reference"]]
        before(loop, *arguments, **named)

    monkeypatch.setattr(Loop, "__init__", record)
    start = load_model(place / "sft/model")
    run_stage(place, "rl", QUICK | {"rl.reference": "frozen"})
    policy, reference = kept
    assert policy is not reference and not reference.training
    for one, other, moved in zip(start.parameters(), reference.parameters(), policy.parameters(), strict=True):
        assert torch.equal(one, other) and not other.requires_grad and other.grad is None
        assert not torch.equal(one, moved)
    (place / "again").mkdir()
    link_models(place, place / "again", "rl")
    run_stage(place / "again", "rl", QUICK | {"rl.steps": 1, "rl.reference": "moving", "rl.reference_decay": 0.75})
    policy, reference = kept
    for one, other, moved in zip(start.parameters(), reference.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(other, 0.75 * one + 0.25 * moved.detach())


def test_resampling_replaces_groups_without_spread(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded: with a reward that never differs, two more rounds are sampled and the step goes on."""
    flat = {"rl.rewards": {"same": {"kind": "regex", "options": {"pattern": "never said"}}}}
    rounds: list[int] = []
    sample = rl.Sampler.rollouts

    def count(sampler: rl.Sampler, asked: Any, stream: str, first: int, size: int) -> Any:
        rounds.append(first)
        return sample(sampler, asked, stream, first, size)

    monkeypatch.setattr(rl.Sampler, "rollouts", count)
    run_stage(place, "rl", QUICK | flat | {"rl.resample": 2, "rl.steps": 1})
    assert rounds == [0, 5, 10]
    line = metrics(place / "rl")[0]
    assert line["groups_without_spread"] == 1.0
    rows = pq.read_table(next((place / "rl/rollouts").glob("*"))).to_pylist()
    assert {row["group"] for row in rows} == set(range(5)) and {row["advantage"] for row in rows} == {0.0}


def test_a_verifier_that_breaks_is_no_zero(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rollouts of a group broken but one: it goes on, with nothing learnt from them, and counts them."""
    score = rl.Sampler.score

    def broken(sampler: rl.Sampler, prompts: Any, groups: Any, votes: bool = True) -> Any:
        notes = score(sampler, prompts, groups, votes)
        for rollout in (rollout for group in groups for rollout in group[1:]):
            rollout.reward, rollout.status = 0.0, "infra_error"
        return notes

    monkeypatch.setattr(rl.Sampler, "score", broken)
    run_stage(place, "rl", QUICK | {"rl.preset": "dr_grpo", "rl.optimizer.weight_decay": 0.0})
    lines = [line for line in metrics(place / "rl") if line["split"] == "train"]
    assert all(line["status/infra_error"] > 0.5 and line["gradient_norm"] == 0.0 for line in lines)
    for one, other in zip(
        load_model(place / "sft/model").parameters(), load_model(place / "rl/model").parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_a_verifier_that_breaks_on_everything_stops_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(sampler: rl.Sampler, prompts: Any, groups: Any, votes: bool = True) -> list[Any]:
        for rollout in (rollout for group in groups for rollout in group):
            rollout.status = "infra_error"
        return []

    monkeypatch.setattr(rl.Sampler, "score", broken)
    with pytest.raises(UserError, match="no rollout of step 1 could be judged"):
        run_stage(place, "rl", QUICK)


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"rl.sampling.temperature": 0}, r"temperature is 0.*use 1.0"),
        ({"rl.reference": "none"}, "rl.kl is k3 but rl.reference is none"),
        ({"rl.group_size": 1}, "group_size is 1"),
        ({"rl.minibatches": 6}, "minibatches is larger than rl.prompts_per_step"),
    ],
)
def test_contradictory_choices_are_refused(place: Path, choice: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        run_stage(place, "rl", QUICK | choice)


def long_rows(folder: Path, write: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    (folder / "long.jsonl").write_text(json.dumps(write("word " * 300)) + "\n")
    return {"source": str(folder / "long.jsonl")}


def test_a_prompt_longer_than_the_context_is_one_sentence(place: Path) -> None:
    source = long_rows(place, lambda text: {"prompt": text, "answer": "1"})
    with pytest.raises(UserError, match=r"has \d+ tokens, the model's context is 96"):
        run_stage(place, "rl", QUICK | {"rl.prompts": [source]})


def test_conversations_longer_than_the_context_are_dropped_and_counted(place: Path) -> None:
    source = long_rows(place, lambda text: {"prompt": "say", "completion": text})
    with pytest.raises(UserError, match="every conversation is longer than the model's context of 96 tokens"):
        run_stage(place, "sft", {"sft.data": [source]})
    with (place / "long.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "hi", "completion": "yo"}) + "\n")
    summary = run_stage(place, "sft", {"sft.data": [source], "sft.steps": 1})
    assert summary["too_long"] == 1 and summary["conversations"] == 1


def test_pretraining_may_continue_a_model(place: Path) -> None:
    """From another stage's weights and with its tokenizer, on blocks cut from the joined text."""
    choice = {"pretrain.init": str(place / "sft/model"), "pretrain.steps": 1, "pretrain.packing": "blocks"}
    (place / "more").mkdir()
    run_stage(place / "more", "pretrain", choice)
    first = metrics(place / "more/pretrain")[0]["loss"]
    assert first < 5.6 and not (place / "more/pretrain/tokenizer").exists()


def test_sampling_and_validation_use_the_present_weights(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes sample from a gathered copy; taken before the update, it would validate an older policy."""
    policies: list[Decoder] = []
    start, sample, validate = Loop.__init__, rl.Sampler.sample, rl.Sampler.validate
    compared: list[bool] = []

    def remember(loop: Loop, *arguments: Any, **named: Any) -> None:
        policies.append(arguments[1])
        start(loop, *arguments, **named)

    def present(sampler: rl.Sampler) -> None:
        pairs = zip(sampler.engine.decoder.parameters(), policies[0].parameters(), strict=True)
        compared.append(sampler.engine.decoder is not policies[0] and all(torch.equal(*pair) for pair in pairs))

    monkeypatch.setattr(rl.distributed, "full_copy", copy.deepcopy)
    monkeypatch.setattr(Loop, "__init__", remember)
    monkeypatch.setattr(rl.Sampler, "sample", lambda sampler, step: (present(sampler), sample(sampler, step))[1])
    monkeypatch.setattr(rl.Sampler, "validate", lambda sampler, asked: (present(sampler), validate(sampler, asked))[1])
    run_stage(place, "rl", QUICK | {"rl.evaluate_every": 1})
    assert compared == [True] * 4


def test_the_kl_that_only_the_log_wants_is_there_after_the_last_step(finished: Path, tmp_path: Path) -> None:
    """Where no loss needs it, it is measured when it is logged, and a stage may be shorter than log_every."""
    plain = {"rl.kl": "none", "rl.reference": "frozen"}
    run_stage(link_models(finished, tmp_path, "rl"), "rl", plain | {"rl.steps": 2, "rl.log_every": 100})
    (line,) = [line for line in metrics(tmp_path / "rl") if line["split"] == "train"]
    assert line["kl_response"] >= 0 and line["step"] == 2
