"""RL on the model's own majority and on a judge's scores: what is learnt from, what is only logged, what is refused."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from tests.stages.tiny import link_models, metrics, run_stage, two_processes, write_recipe
from tests.stages.worker import cut_stage

from trivium.config import JudgeConfig, RLConfig
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.judges import prompts
from trivium.feedback.judges.base import Answer, Question, Reply
from trivium.feedback.judges.build import build_judge
from trivium.feedback.judges.fake import FakeBackend
from trivium.feedback.judges.judge import BudgetSpent
from trivium.feedback.majority import Majority
from trivium.model.decoder import Decoder
from trivium.model.huggingface import load_model, save_model
from trivium.recipe import load
from trivium.stages.sampler import Sampler
from trivium.text.tokenizer import Tokenizer

Overrides = dict[str, Any]
LAST = "checkpoints/step-00000006"
SHORT: Overrides = {"rl.steps": 6, "rl.checkpoint_every": 2, "rl.validation": [], "rl.minibatches": 1}
# the tiny model writes noise, whose first sign is often the same
VOTE: Overrides = {"kind": "majority", "options": {"extract": "regex", "pattern": r"^\s*(\S)", "minimum_share": 0.4}}
RIGHT = {"right": {"kind": "exact"}}
LAW = """
name: brief
scale: 5
principles:
  - {name: brief, weight: 1, question: Is it brief}
"""


def questions(path: Path, answer: Callable[[int], Any]) -> list[dict[str, str]]:
    rows = [{"prompt": f"Add {n} and {n % 7}.", "answer": answer(n)} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{"source": str(path)}]


def weights(stage: Path) -> bytes:
    return (stage / "model/model.safetensors").read_bytes()


def run(finished: Path, folder: Path, overrides: Overrides) -> dict[str, Any]:
    link_models(finished, folder, "rl")
    return run_stage(folder, "rl", SHORT | overrides)


# ---- majority ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def voted(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run on its own majority, with the true answers in its prompts and nothing that reads them."""
    folder = tmp_path_factory.mktemp("voted")
    asked = questions(folder / "true.jsonl", lambda n: str(n + n % 7))
    return folder / "rl", run(finished, folder, {"rl.prompts": asked, "rl.rewards": {"agreed": VOTE}})


@pytest.mark.parametrize("answers", ["garbage", "none"])
def test_the_answers_in_the_prompts_change_no_bit(
    finished: Path, voted: tuple[Path, dict[str, Any]], tmp_path: Path, answers: str
) -> None:
    asked = questions(tmp_path / "others.jsonl", lambda n: {"garbage": [n] * 3} if answers == "garbage" else None)
    run(finished, tmp_path, {"rl.prompts": asked, "rl.rewards": {"agreed": VOTE}})
    assert weights(tmp_path / "rl") == weights(voted[0])
    assert metrics(tmp_path / "rl") == metrics(voted[0])


def test_it_learns_and_abstains(finished: Path, voted: tuple[Path, dict[str, Any]]) -> None:
    """So that equal bits above are not those of a run in which nothing happened."""
    stage, summary = voted
    assert weights(stage) != weights(finished / "sft")
    lines = metrics(stage)
    assert any(0 < line["majority/abstained"] < 1 for line in lines)
    assert any(0 < line["reward/agreed"] < 1 and line["gradient_norm"] > 0 for line in lines)
    assert all(line["status/infra_error"] == 0 for line in lines)
    assert summary["metric"] == {"name": "majority/share", "value": lines[-1]["majority/share"], "better": "higher"}
    assert not any(name.startswith(("monitor/", "majority/label")) for line in lines for name in line)


@pytest.mark.parametrize("monitor", ["right", "broken"])
def test_a_monitor_changes_no_bit_and_is_logged(
    finished: Path, voted: tuple[Path, dict[str, Any]], tmp_path: Path, monitor: str
) -> None:
    """Also one that cannot judge a thing, and one beside validation."""
    right = {"kind": "regex", "options": {"pattern": "e"}} if monitor == "right" else {"kind": "slots"}
    asked = questions(tmp_path / "true.jsonl", lambda n: str(n + n % 7))
    held_out = [{"source": "primer", "part": "problems", "split": "validation", "limit": 4}]
    more = {"rl.monitor": {monitor: right}, "rl.validation": held_out, "rl.evaluate_every": 3}
    summary = run(finished, tmp_path, {"rl.prompts": asked, "rl.rewards": {"agreed": VOTE}, **more})
    assert weights(tmp_path / "rl") == weights(voted[0])
    added = {"monitor/right", "majority/label_accuracy/right"} if monitor == "right" else set()
    lines = metrics(tmp_path / "rl")
    validation = [line for line in lines if line["split"] == "validation"]
    train = [line for line in lines if line["split"] == "train"]
    for line, plain in zip(train, metrics(voted[0]), strict=True):
        assert set(line) - set(plain) <= added  # no label in a step, no accuracy of labels
        assert {name: value for name, value in line.items() if name in plain} == plain
    assert validation and all("reward" not in line for line in validation)
    assert summary["metric"]["name"] == f"monitor/{monitor}"
    if monitor == "right":
        assert all("monitor/right" in line for line in lines)
        assert summary["metric"]["value"] == validation[-1]["monitor/right"]
        assert "usage" not in summary


def test_the_numbers_of_a_step_by_hand(finished: Path, tmp_path: Path) -> None:
    """Share, abstention, the monitor's mean and what it thinks of the labels, counted again from the rollouts."""
    import pyarrow.parquet as pq

    asked = questions(tmp_path / "true.jsonl", str)
    monitor = {"round": {"kind": "regex", "options": {"pattern": "[eo]"}}}
    more = {"rl.steps": 2, "rl.monitor": monitor, "rl.group_size": 5}
    run(finished, tmp_path, {"rl.prompts": asked, "rl.rewards": {"agreed": VOTE}, **more})
    for step, line in enumerate(metrics(tmp_path / "rl"), 1):
        rows = pq.read_table(tmp_path / f"rl/rollouts/step-{step:08d}.parquet").to_pylist()
        groups = [[row for row in rows if row["group"] == number] for number in {row["group"] for row in rows}]
        shares, labels = [], []
        for group in groups:
            first = [row["text"].strip()[:1].casefold() for row in group]
            counts = sorted((first.count(sign) for sign in set(first) - {""}), reverse=True)
            shares.append(counts[0] / 5)
            agreed = counts[0] >= 2 and counts[1:2] != counts[:1]
            rewards = [dict(row["reward_parts"])["agreed"] for row in group]
            assert sum(rewards) == (counts[0] if agreed else 0)
            if agreed:
                text = group[rewards.index(1)]["text"]
                labels.append(float("e" in text or "o" in text))
        assert line["majority/share"] == pytest.approx(sum(shares) / len(shares))
        assert line["majority/abstained"] == pytest.approx(1 - len(labels) / len(groups))
        assert line["monitor/round"] == pytest.approx(sum("e" in r["text"] or "o" in r["text"] for r in rows) / 25)
        assert line.get("majority/label_accuracy/round", 0) == pytest.approx(sum(labels) / max(len(labels), 1))


# ---- a judge -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Overrides:
    """A local judge: the sft model's tokenizer, random weights, and room for the questions."""
    folder = tmp_path_factory.mktemp("judge")
    config = load_model(finished / "sft/model").config
    decoder = Decoder(type(config)(**{**config.__dict__, "context_length": 1024}))
    decoder.initialise(torch.Generator().manual_seed(3))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(4.0)  # opinions
    save_model(decoder, folder / "model", Tokenizer.load(finished / "sft/model"))
    (folder / "law.yaml").write_text(LAW)
    options = {"model": str(folder / "model"), "constitution": str(folder / "law.yaml")}
    return {"rl.rewards": {"liked": {"kind": "judge", "options": options}}, "rl.watch.enabled": False}


def calls(folder: Path) -> int:
    with sqlite3.connect(folder / "judge.db") as database:
        return int(database.execute("SELECT count(*) FROM calls").fetchone()[0])


@pytest.fixture(scope="module")
def judged(finished: Path, judge: Overrides, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("judged")
    return folder, run(finished, folder, judge)


def test_the_reward_is_the_rescaled_expected_score(judge: Overrides, judged: tuple[Path, dict[str, Any]]) -> None:
    import pyarrow.parquet as pq

    folder, summary = judged
    rows = pq.read_table(folder / "rl/rollouts/step-00000001.parquet").to_pylist()
    with build_judge(JudgeConfig(**judge["rl.rewards"]["liked"]["options"]), cache=folder / "judge.db") as opened:
        asked = {prompt.id: prompt for prompt in asked_of(folder)}
        scores = opened.score([Answer(asked[row["prompt_id"]], row["text"]) for row in rows])
        assert opened.usage.calls == 0  # all of them are in the run's cache
    assert [row["reward"] for row in rows] == [score.rescaled for score in scores]
    assert [2 * (score.value - 1) / 4 - 1 for score in scores if score.value] == [row["reward"] for row in rows]
    assert len({row["reward"] for row in rows}) > 5 and all(-1 <= row["reward"] <= 1 for row in rows)
    usage = summary["usage"]["liked"]
    assert usage["calls"] == calls(folder) > 0 and usage["prompt_tokens"] > 0 and usage["missing"] == 0
    assert {line["judge/liked/missing"] for line in metrics(folder / "rl")} == {0.0}


def asked_of(folder: Path) -> list[Prompt]:
    from trivium.data import sources

    recipe = load(str(write_recipe(folder / "again")))
    config = recipe.stages["rl"]
    assert isinstance(config, RLConfig)
    return [prompt for part in sources.prompts(config.prompts, recipe) for prompt in part]


def test_cut_and_resumed_it_ends_in_the_same_bits(
    finished: Path, judge: Overrides, judged: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    link_models(finished, tmp_path, "rl")
    cut_stage(tmp_path, "rl", SHORT | judge)
    before = calls(tmp_path)
    summary = run_stage(tmp_path, "rl", SHORT | judge)
    folder, whole = judged
    for path in ("model/model.safetensors", f"{LAST}/tensors.safetensors"):
        assert (tmp_path / "rl" / path).read_bytes() == (folder / "rl" / path).read_bytes(), path
    assert metrics(tmp_path / "rl") == metrics(folder / "rl")
    assert before < calls(tmp_path) == calls(folder)  # nothing was asked twice
    # the fifth step was judged after the last checkpoint: its calls come from the cache now
    usage = summary["usage"]["liked"]
    assert usage["calls"] < whole["usage"]["liked"]["calls"]
    assert usage["calls"] + usage["cached"] == sum(whole["usage"]["liked"][name] for name in ("calls", "cached"))


def test_a_spent_budget_loses_nothing(
    finished: Path, judge: Overrides, judged: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, whole = judged
    options = judge["rl.rewards"]["liked"]["options"] | {"budget_tokens": whole["usage"]["liked"]["prompt_tokens"] // 3}
    small = SHORT | judge | {"rl.rewards": {"liked": {"kind": "judge", "options": options}}}
    link_models(finished, tmp_path, "rl")
    spent = 0
    while not (tmp_path / "rl/model").exists() and spent < 9:
        with suppress(BudgetSpent):
            run_stage(tmp_path, "rl", small)
            break
        spent += 1
    assert 2 <= spent < 9
    assert calls(tmp_path) == calls(folder)
    # batches are cut otherwise under a budget, which may change the last bits of a judge's probabilities
    ours, theirs = load_model(tmp_path / "rl/model"), load_model(folder / "rl/model")
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)


FAKE: Overrides = {"rl.rewards": {"liked": {"kind": "judge", "options": {"backend": "fake", "model": "longer"}}}}


def test_missing_verdicts_are_left_out_and_counted(finished: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    longer = FakeBackend._longer

    def some(self: FakeBackend, question: Question) -> Reply:
        answer = prompts.materials(question.messages[-1].content, self.delimiters)[-1]
        return Reply(missing="it refused") if len(answer) % 2 else longer(self, question)

    with patch.object(FakeBackend, "_longer", some):
        run(finished, tmp_path, FAKE | {"rl.watch.enabled": False, "rl.steps": 2})
    for step, line in enumerate(metrics(tmp_path / "rl"), 1):
        rows = pq.read_table(tmp_path / f"rl/rollouts/step-{step:08d}.parquet").to_pylist()
        missing = [row for row in rows if row["status"] == "infra_error"]
        assert 0 < len(missing) < len(rows) and all(row["advantage"] == 0 for row in missing)
        assert line["judge/liked/missing"] == line["status/infra_error"] == pytest.approx(len(missing) / len(rows))
        valid = [row["reward"] for row in rows if row["status"] == "ok"]
        assert line["reward"] == pytest.approx(sum(valid) / len(valid))
    with (
        patch.object(FakeBackend, "_longer", lambda self, question: Reply(missing="it refused")),
        pytest.raises(UserError, match=r"could be judged \(liked: it refused\)"),
    ):
        run(finished, tmp_path / "none", FAKE | {"rl.watch.enabled": False})


def test_a_judge_is_watched_by_default(finished: Path, tmp_path: Path) -> None:
    """With another judge as the held-out scorer, and a vote beside it in the reward."""
    held_out = [{"source": "primer", "part": "problems", "split": "validation", "limit": 4}]
    rewards = FAKE["rl.rewards"] | {"agreed": VOTE}
    voters: list[int] = []
    verdicts = Majority.verdicts

    def counted(part: Majority, texts: Any, groups: Any) -> Any:
        voters.extend(Counter(groups).values())
        return verdicts(part, texts, groups)

    other = {"kind": "judge", "options": {"backend": "fake", "model": "another", "constitution": "primer"}}
    more = {"rl.validation": held_out, "rl.watch.held_out": other, "rl.watch.samples": 3, "rl.watch.stop": False}
    with patch.object(Majority, "verdicts", counted):
        summary = run(finished, tmp_path, {"rl.rewards": rewards, "rl.steps": 2, **more})
    watch = json.loads((tmp_path / "rl/watch.json").read_text())
    assert [one["step"] for one in watch["observations"]] == [0, 2] and watch["judge"] == "held_out"
    assert all({"proxy", "held_out", "reward"} <= set(one) for one in watch["observations"])
    assert set(summary["usage"]) == {"liked", "watch.held_out"} and summary["metric"]["name"] == "reward"
    greedy = [line for line in metrics(tmp_path / "rl") if line["split"] == "validation"]
    assert greedy and all(-1 <= line["reward"] <= 1 for line in greedy)
    assert set(voters) == {3}  # in steps and observations; a greedy answer would always agree with itself


def test_a_vote_can_be_watched(finished: Path, tmp_path: Path) -> None:
    """Agreement is the proxy then, and what it is worth is told by the gold score."""
    held_out = [{"source": "primer", "part": "problems", "split": "validation", "limit": 4}]
    more = {"rl.validation": held_out, "rl.watch.enabled": True, "rl.watch.samples": 3, "rl.steps": 2}
    monitor = {"rl.monitor": {"right": {"kind": "primer"}}, "rl.watch.gold": {"kind": "primer"}}
    validate, values = Sampler.validate, iter((0.25, 0.75))  # the tiny model's greedy answers never change

    def rising(sampler: Sampler, asked: Any) -> Any:
        return validate(sampler, asked) | {"monitor/right": next(values)}

    with patch.object(Sampler, "validate", rising):
        summary = run(finished, tmp_path, {"rl.rewards": {"agreed": VOTE}, **more, **monitor})
    watch = json.loads((tmp_path / "rl/watch.json").read_text())
    assert all({"proxy", "gold", "monitor/right"} <= set(one) for one in watch["observations"])
    assert summary["metric"]["name"] == "monitor/right"
    assert (summary["kept_step"], summary["metric"]["value"]) == (0, 0.25)  # of the model that was kept, not the last


# ---- several processes -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_vote_and_judge_as_one(finished: Path, tmp_path: Path) -> None:
    """Groups stay whole on a rank, and what is logged beside the reward comes together in their order."""
    rewards = FAKE["rl.rewards"] | {"agreed": VOTE}
    monitor = {"round": {"kind": "regex", "options": {"pattern": "[eo]"}}}
    held_out = [{"source": "primer", "part": "problems", "split": "validation", "limit": 3}]
    given = {"rl.rewards": rewards, "rl.monitor": monitor, "rl.validation": held_out, "rl.watch.enabled": False}
    (tmp_path / "overrides.json").write_text(json.dumps(SHORT | given))
    alone = run(finished, tmp_path / "one", given)
    two_processes("rl", str(link_models(finished, tmp_path / "two", "rl")), str(tmp_path / "overrides.json"))
    one, two = metrics(tmp_path / "one/rl"), metrics(tmp_path / "two/rl")
    assert len(one) == len(two) and any("majority/label_accuracy/round" in line for line in one)
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)
    usage = json.loads((tmp_path / f"two/rl/{LAST}/state.json").read_text())["stage"]["judges"]["usage"]["liked"]
    for name in ("calls", "prompt_tokens"):  # over both ranks; those that both asked at once are paid for twice
        assert alone["usage"]["liked"][name] <= usage[name] <= 1.1 * alone["usage"]["liked"][name]
