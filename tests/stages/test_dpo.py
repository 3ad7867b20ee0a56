"""The dpo stage on a tiny model, on rankings and in rounds of its own: what it leaves, that cuts change nothing."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.stages.test_resume import PATIENCE, kill_and_repeat
from tests.stages.test_reward_stage import WORLD, Cut, rankings
from tests.stages.tiny import metrics, two_processes, write_recipe

import trivium.stages.dpo as stage
import trivium.stages.lesson as lesson
import trivium.stages.round_scores as round_scores
import trivium.stages.rounds as rounds
from trivium.config import DPOConfig, JudgeConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.judges.base import Answer, Score
from trivium.feedback.judges.judge import Judge
from trivium.feedback.rankings.formats.native import write_rankings
from trivium.feedback.rankings.record import Ranking, Response, from_row
from trivium.generation.rollouts import Rollout
from trivium.model.huggingface import load_model
from trivium.preflight import check_dpo
from trivium.stages import run_stage
from trivium.text.tokenizer import Tokenizer
from trivium.training import checkpoint
from trivium.training.loop import Loop
from trivium.training.optimizer import schedule_factor
from trivium.training.preference import held_out, paired_tasks
from trivium.training.preference_update import answer_log_probs

pytestmark = pytest.mark.timeout(3 * PATIENCE)
LN_2 = 0.693147
SETTINGS: dict[str, Any] = {
    "steps": 8,
    "checkpoint_every": 3,
    "evaluate_every": 4,
    "log_every": 1,
    "schedule": {"warmup": 2},
    "batch_size": 6,
    "micro_batch_tokens": 200,
    "validation_share": 0.2,
    "optimizer": {"lr": 3e-3},
}
ROUNDS: dict[str, Any] = {
    "judge": {"backend": "fake", "model": "longer"},
    "iterations": 3,  # they begin with the steps 0, 2 and 5
    "prompts": [{"source": "primer", "part": "problems", "split": "train"}],
    "tasks": 8,
    "responses": 3,
    "sampling": {"max_new_tokens": 6},
    "monitor": {"short": {"kind": "length", "options": {"target": 3}}},
}
CONSTITUTION = """
name: short
system: ""
delimiters: ["[", "]"]
prompts: {score: "{question} {open}{answer}{close} 1-{scale}?"}
scale: 3
principles: [{name: good, question: "good?"}]
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rankings") / "rankings.jsonl"
    write_rankings(path, rankings())
    return path


def offline(finished: Path, source: Path, **changes: Any) -> DPOConfig:
    values = SETTINGS | {"init": str(finished / "sft/model"), "rankings": [{"source": str(source)}]} | changes
    return DPOConfig(**values)


def iterated(finished: Path, **changes: Any) -> DPOConfig:
    return DPOConfig(**(SETTINGS | ROUNDS | {"init": str(finished / "sft/model")} | changes))


@pytest.fixture(scope="module")
def learned(finished: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage on rankings, without a break."""
    place = tmp_path_factory.mktemp("offline") / "dpo"
    run_stage(offline(finished, source), place, recipe=WORLD)
    return place


@pytest.fixture(scope="module")
def repeated(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The stage in three rounds, without a break."""
    place = tmp_path_factory.mktemp("iterated") / "dpo"
    return place, run_stage(iterated(finished), place, recipe=WORLD)


def train(place: Path) -> list[dict[str, Any]]:
    return [line for line in metrics(place) if line["split"] == "train"]


# ---- on rankings ----------------------------------------------------------------------------------------------------


def test_it_learns_from_rankings(finished: Path, source: Path, tmp_path: Path) -> None:
    summary = run_stage(offline(finished, source, steps=40), tmp_path / "dpo", recipe=WORLD)
    first, last = train(tmp_path / "dpo")[0], summary["validation"]
    assert first["loss"] == pytest.approx(LN_2, abs=1e-5) and first["accuracy"] == pytest.approx(0.5)
    assert last["loss"] < 0.6 and last["accuracy"] > 0.7
    assert last["margin"] == pytest.approx(last["chosen_reward"] - last["rejected_reward"], abs=1e-6)
    assert summary["rankings"] == 80 and summary["tasks"] == 40 and summary["too_long"] == 0
    assert summary["metric"] == {"name": "loss", "value": last["loss"], "better": "lower"}


def test_what_it_leaves(learned: Path) -> None:
    lines = metrics(learned)
    assert [line["step"] for line in lines if line["split"] == "validation"] == [4, 8]
    names = {"loss", "accuracy", "margin", "chosen_reward", "rejected_reward", "chosen_log_prob", "rejected_log_prob"}
    names |= {"chosen_length", "rejected_length"}
    assert all(names <= line.keys() for line in lines)
    assert (learned / "model/model.safetensors").is_file() and not (learned / "iterations.jsonl").exists()


def test_the_rewards_are_those_of_the_model_it_began_with(finished: Path, source: Path, learned: Path) -> None:
    """The validation of the last step, computed anew from both models on disk."""
    config = offline(finished, source)
    tokenizer = Tokenizer.load(learned / "model")
    tasks, _ = paired_tasks(rankings(), tokenizer, 96, config)
    tasks = [task for task in tasks if held_out(task, config.validation_share)]
    now, before = (
        answer_log_probs(load_model(place), tasks, torch.device("cpu")).detach()
        for place in (learned / "model", finished / "sft/model")
    )
    rewards, place, total = 0.0, 0, sum(task.weight for task in tasks)
    for task in tasks:
        for (chosen, _), weight in task.pairs.items():
            rewards += weight / total * config.beta * float(now[place + chosen] - before[place + chosen])
        place += len(task.answers)
    assert metrics(learned)[-1]["chosen_reward"] == pytest.approx(rewards, abs=1e-5)


def test_no_prompt_is_trained_and_validated_on(finished: Path, source: Path) -> None:
    context = stage.StageContext("dpo", offline(finished, source), WORLD, Path("nowhere"))
    train, validation, _ = lesson.stated_tasks(context, Tokenizer.load(finished / "sft/model"), 96)
    prompts = [{task.task.prompt.messages for task in part} for part in (train, validation)]
    assert all(prompts) and not prompts[0] & prompts[1] and len(train) + len(validation) == 40


# ---- in rounds ------------------------------------------------------------------------------------------------------


def pairs(place: Path, number: int) -> list[Ranking]:
    return [from_row(json.loads(line)) for line in (place / f"iterations/{number:03d}.jsonl").open()]


def rows(place: Path) -> list[dict[str, Any]]:
    """iterations.jsonl without what it cost, which is another number after a cut."""
    found = [json.loads(line) for line in (place / "iterations.jsonl").open()]
    return [{name: value for name, value in row.items() if name != "usage"} for row in found]


@pytest.mark.parametrize(("steps", "many"), [(8, 3), (7, 7), (10, 1), (100, 7)])
def test_steps_are_shared_out_evenly(steps: int, many: int) -> None:
    numbers = [rounds.round_of(step, steps, many) for step in range(steps)]
    counts = [numbers.count(number) for number in range(many)]
    assert numbers == sorted(numbers) and sum(counts) == steps and max(counts) - min(counts) <= 1
    firsts = [numbers.index(number) for number in range(many)]
    assert firsts == [number * steps // many for number in range(many)]


def test_what_rounds_leave(repeated: tuple[Path, dict[str, Any]]) -> None:
    place, summary = repeated
    told = [json.loads(line) for line in (place / "iterations.jsonl").open()]
    assert summary["iterations"] == told and [row["iteration"] for row in told] == [1, 2, 3]
    for row in told:
        found = pairs(place, row["iteration"])
        assert row["tasks"] == 8 == row["pairs"] + row["equal"] and row["missing"] == 0 and len(found) == row["pairs"]
        gaps = [one.responses[0].metadata["score"] - one.responses[1].metadata["score"] for one in found]
        assert min(gaps) > 1e-6 and row["gap"] == pytest.approx(sum(gaps) / len(gaps))
        assert row["usage"]["calls"] > 0 and 0 < row["monitor"]["short"] <= 1 and row["chosen_length"] > 0
        for one in found:
            assert (one.kind, one.annotator, one.tiers) == ("ai", "judge:longer", (0, 1))
            # the fake judge likes the longer text
            assert len(one.responses[0].text) > len(one.responses[1].text)
    assert summary["pairs"] == sum(row["pairs"] for row in told) and summary["after"]["tasks"] == 8
    # every prompt is asked before one is asked again
    assert len({one.prompt.id for number in (1, 2, 3) for one in pairs(place, number)}) == summary["pairs"]


def test_the_reference_of_a_round_is_the_policy_at_its_beginning(repeated: tuple[Path, dict[str, Any]]) -> None:
    """ln 2 at the first step of each round, and away from it at the others."""
    place, _ = repeated
    margins = [abs(line["margin"]) for line in train(place)]
    assert [step for step, margin in enumerate(margins) if margin < 1e-5] == [0, 2, 5]
    assert all(train(place)[step]["loss"] == pytest.approx(LN_2, abs=1e-5) for step in (0, 2, 5))
    checkpoints = {one.responses[0].checkpoint for number in (1, 2, 3) for one in pairs(place, number)}
    assert len(checkpoints) == 3


def test_what_the_judge_likes_grows(finished: Path, tmp_path: Path) -> None:
    """Longer answers in characters: over rounds the policy writes more of what the fake judge prefers."""
    config = iterated(finished, steps=30, iterations=3, tasks=40, optimizer={"lr": 5e-3}, batch_size=16, beta=0.3)
    run_stage(config, tmp_path / "dpo", recipe=WORLD)
    scores = [row["score"] for row in rows(tmp_path / "dpo")]
    assert scores[2] > scores[0] + 0.02


def test_a_policy_judges_itself(finished: Path, tmp_path: Path) -> None:
    """Each round by its own weights: other identities, other verdicts, and calls of its own in the cache."""
    (tmp_path / "short.yaml").write_text(CONSTITUTION)
    judge = {"backend": "local", "model": "policy", "constitution": str(tmp_path / "short.yaml")}
    run_stage(iterated(finished, judge=judge, iterations=2), tmp_path / "dpo", recipe=WORLD)
    told = [json.loads(line) for line in (tmp_path / "dpo/iterations.jsonl").open()]
    judges = [{one.metadata["judge"] for one in pairs(tmp_path / "dpo", number)} for number in (1, 2)]
    assert all(len(found) == 1 for found in judges) and judges[0] != judges[1]
    assert {one.annotator for one in pairs(tmp_path / "dpo", 1)} == {"judge:policy"}
    assert [row["missing"] for row in told] == [0, 0] and all(row["usage"]["cached"] == 0 for row in told)


def group(*texts: str) -> list[Rollout]:
    return [Rollout("p", 0, [1], [2] * len(text), [0.0], "stop", 0, text) for text in texts]


def test_best_against_worst() -> None:
    answers = group("a", "bb", "ccc", "dddd")
    found = round_scores.preferred(answers, [2.0, 7.5, None, 1.0], "best_worst")
    assert found is not None and (found.chosen.text, found.rejected.text, found.gap) == ("bb", "dddd", 6.5)
    assert [one.text for one in found.rollouts] == ["bb", "dddd"] and found.tiers == (0, 1)
    # of equal scores the first
    found = round_scores.preferred(answers, [1.0, 3.0, 3.0, 1.0], "best_worst")
    assert found is not None and (found.chosen.text, found.rejected.text) == ("bb", "a")
    alike = round_scores.preferred(group("a"), [4.0], "best_worst")
    assert alike is not None and alike.gap == 0.0
    assert round_scores.preferred(group("a", "b"), [4.0, None], "best_worst") is None
    assert round_scores.preferred(group("a"), [None], "best_worst") is None
    assert [one.text for one in round_scores.distinct(group("b", "a", "b"))] == ["b", "a"]


def test_all_in_their_order() -> None:
    """Scores 2, 7.5, none, 1 and 2 but for rounding: three tiers of four answers, two of them tied, five pairs."""
    answers = group("a", "bb", "ccc", "dddd", "eeeee")
    found = round_scores.preferred(answers, [2.0, 7.5, None, 1.0, 2.0 + 1e-9], "all")
    assert found is not None and [one.text for one in found.rollouts] == ["a", "bb", "dddd", "eeeee"]
    assert (found.tiers, found.pairs) == ((1, 0, 2, 1), 5)
    assert (found.chosen.text, found.rejected.text, found.gap) == ("bb", "dddd", 6.5)


def test_equal_and_missing_scores_are_counted_and_give_no_pair(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first prompt's answers are scored alike to 1e-6, the second's not at all, one answer of the third is lost."""
    seen: list[str] = []

    def score(_: Judge, answers: list[Answer]) -> list[Score]:
        assert all(answer.prompt.answer is None and not answer.prompt.metadata for answer in answers)
        order = list(dict.fromkeys(answer.prompt.id for answer in answers))
        seen.extend(answer.prompt.id for answer in answers)
        found = []
        for place, answer in enumerate(answers):
            number = order.index(answer.prompt.id)
            first = answers[place - 1].prompt.id != answer.prompt.id
            value = [5 + 1e-7 * place, None, None if first else place / 100][number] if number < 3 else place / 100
            found.append(Score(value, missing="" if value is not None else "no answer"))
        return found

    monkeypatch.setattr(Judge, "score", score)
    run_stage(iterated(finished, iterations=1, steps=1), tmp_path / "dpo", recipe=WORLD)
    (row,) = rows(tmp_path / "dpo")
    assert (row["tasks"], row["pairs"], row["equal"], row["missing"]) == (8, 6, 1, 4)
    assert len(pairs(tmp_path / "dpo", 1)) == 6 and len(seen) == 24


def test_a_round_without_any_pair_stops(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Judge, "score", lambda _, answers: [Score(5.0) for _ in answers])
        with pytest.raises(UserError, match=r"iteration 1 gave no pair .* of 8 prompts, 8 have answers of equal score"):
            run_stage(iterated(finished), tmp_path / "dpo", recipe=WORLD)
        patch.setattr(Judge, "score", lambda _, answers: [Score(None, missing="down") for _ in answers])
        with pytest.raises(
            UserError, match=r"and 24 of 24 answers have no score \(down\); raise dpo.sampling.temperature"
        ):
            run_stage(iterated(finished), tmp_path / "dpo", recipe=WORLD)
    assert not (tmp_path / "dpo/iterations").exists()
    with pytest.raises(UserError, match=r"iteration 1 leaves no pair to learn from: of \d+, \d+ are held out"):
        run_stage(iterated(finished, validation_share=0.99999), tmp_path / "dpo", recipe=WORLD)


@pytest.mark.parametrize("loss", ["sigmoid", "kto"])
def test_a_later_round_without_any_pair_is_left_out(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """All answers are alike in the second round: nothing is learned in its steps, and the third goes on; cut or not."""
    score, asked = Judge.score, [0]

    def alike_in_the_second(judge: Judge, answers: Any) -> list[Score]:
        asked[0] += 1
        return [Score(5.0) for _ in answers] if asked[0] == 2 else score(judge, answers)

    monkeypatch.setattr(Judge, "score", alike_in_the_second)
    for name in ("whole", "cut"):
        asked[0] = 0
        place = tmp_path / name / "dpo"
        if name == "cut":
            with monkeypatch.context() as patch:
                patch.setattr(stage, "update", cut_second(stage.update))
                with pytest.raises(Cut):
                    run_stage(iterated(finished, loss=loss), place, recipe=WORLD)
        found = run_stage(iterated(finished, loss=loss), place, recipe=WORLD)
        assert [row["pairs"] > 0 for row in rows(place)] == [True, False, True]
        assert found["steps"] == 8 and (place / "iterations/002.jsonl").read_text() == ""
        schedule = iterated(finished, loss=loss).schedule  # one for all rounds, that left out too
        rates = [line["learning_rate"] for line in metrics(place) if line["split"] == "train"]
        assert rates[-1] == pytest.approx(iterated(finished).optimizer.lr * schedule_factor(7, 8, schedule))
    assert_same_bits(tmp_path / "cut/dpo", tmp_path / "whole/dpo")


def test_a_monitor_that_can_judge_nothing_stops(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dpo.monitor.slots could judge none of 24 answers"):
        run_stage(iterated(finished, monitor={"slots": {"kind": "slots"}}), tmp_path / "dpo", recipe=WORLD)


# ---- the same bits, however it went ---------------------------------------------------------------------------------


def assert_same_bits(place: Path, other: Path) -> None:
    for path in ("model/model.safetensors", f"checkpoints/step-{8:08d}/tensors.safetensors"):
        assert (place / path).read_bytes() == (other / path).read_bytes(), path
    assert metrics(place) == metrics(other)
    if (other / "iterations").exists():
        assert rows(place) == rows(other)
        for number in (1, 2, 3):
            name = f"iterations/{number:03d}.jsonl"
            assert (place / name).read_bytes() == (other / name).read_bytes(), name


def cut(*_: Any, **__: Any) -> None:
    raise Cut


def cut_second(function: Callable[..., Any]) -> Callable[..., Any]:
    calls: list[int] = []

    def called(*given: Any, **named: Any) -> Any:
        calls.append(0)
        return cut() if len(calls) == 2 else function(*given, **named)

    return called


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["offline", "iterated"])
def test_killed_at_a_random_point_the_command_ends_in_the_same_bits(
    finished: Path, source: Path, learned: Path, repeated: tuple[Path, dict[str, Any]], tmp_path: Path, kind: str
) -> None:
    own = {"rankings": [{"source": str(source)}]} if kind == "offline" else ROUNDS
    recipe = write_recipe(tmp_path, {"stages.dpo": SETTINGS | own | {"init": str(finished / "sft/model")}})
    arguments, place = ["dpo", str(recipe), "-d", str(tmp_path / "run"), "-q"], tmp_path / "run/dpo"
    kill_and_repeat(arguments, place, 6)
    assert_same_bits(place, learned if kind == "offline" else repeated[0])


@pytest.mark.parametrize("where", ["first checkpoint", "fifth step", "model"])
def test_cut_anywhere_it_ends_in_the_same_bits_on_rankings(
    finished: Path, source: Path, learned: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cut(offline(finished, source), tmp_path / "dpo", where, monkeypatch)
    run_stage(offline(finished, source), tmp_path / "dpo", recipe=WORLD)
    assert_same_bits(tmp_path / "dpo", learned)


@pytest.mark.parametrize(
    "where", ["first checkpoint", "fifth step", "model", "judging", "row", "pairs", "answers after the rounds"]
)
def test_cut_anywhere_it_ends_in_the_same_bits_in_rounds(
    finished: Path, repeated: tuple[Path, dict[str, Any]], tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the second round: while it is judged, before and after its row, before its pairs are written."""
    _cut(iterated(finished), tmp_path / "dpo", where, monkeypatch)
    summary = run_stage(iterated(finished), tmp_path / "dpo", recipe=WORLD)
    assert_same_bits(tmp_path / "dpo", repeated[0])
    assert summary["after"] == repeated[1]["after"]


def _cut(config: DPOConfig, place: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Loop._log

    def after_five(loop: Loop, step: int) -> None:
        log(loop, step)
        if step == 5:
            cut()

    places: dict[str, tuple[Any, str, Any]] = {
        "first checkpoint": (checkpoint, "_write_tensors", cut),
        "fifth step": (Loop, "_log", after_five),
        "model": (stage, "save_result", cut),
        "judging": (Judge, "score", cut_second(Judge.score)),
        "row": (rounds.files, "write_text", cut_second(rounds.files.write_text)),
        "pairs": (rounds, "write_rankings", cut_second(rounds.write_rankings)),
        "answers after the rounds": (rounds.Rounds, "after", cut),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*places[where])
        with pytest.raises(Cut):
            run_stage(config, place, recipe=WORLD)


def test_a_round_that_is_there_is_neither_sampled_nor_judged_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cut(iterated(finished), tmp_path / "dpo", "fifth step", monkeypatch)
    made: list[int] = []
    make = rounds.Rounds._make
    monkeypatch.setattr(
        rounds.Rounds, "_make", lambda self, number, *rest: (made.append(number), make(self, number, *rest))
    )
    run_stage(iterated(finished), tmp_path / "dpo", recipe=WORLD)
    assert made == [2]


def test_a_budget_is_for_all_rounds_and_the_stage_goes_on_with_a_larger_one(
    finished: Path, repeated: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Enough for one round and a half: the second one stops, and what it had asked is not asked again."""
    used = [row["usage"] for row in repeated[1]["iterations"]]
    tokens = [usage["prompt_tokens"] + usage["completion_tokens"] for usage in used]
    judge = {**ROUNDS["judge"], "budget_tokens": tokens[0] + tokens[1] // 2}
    with pytest.raises(UserError, match=r"budget is spent .* give the same command again with a larger budget"):
        run_stage(iterated(finished, judge=judge), tmp_path / "dpo", recipe=WORLD)
    assert [row["iteration"] for row in rows(tmp_path / "dpo")] == [1]
    summary = run_stage(iterated(finished), tmp_path / "dpo", recipe=WORLD)
    found = [row["usage"] for row in summary["iterations"]]
    assert found[1]["calls"] < used[1]["calls"] and found[1]["cached"] > used[1]["cached"]
    assert found[1]["calls"] + found[1]["cached"] == used[1]["calls"] + used[1]["cached"]
    assert_same_bits(tmp_path / "dpo", repeated[0])


def test_pairs_that_are_gone_or_changed_are_told(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after the fifth step, the stage resumes from the checkpoint of the third, within the second round."""
    _cut(iterated(finished), tmp_path / "dpo", "fifth step", monkeypatch)
    second = tmp_path / "dpo/iterations/002.jsonl"
    whole = second.read_text()
    second.write_text(whole.replace(rounds.REFERENCE, "something"))
    with pytest.raises(UserError, match=r"002.jsonl: the ranking .* has no reference_log_probs"):
        run_stage(iterated(finished), tmp_path / "dpo", recipe=WORLD)
    second.unlink()
    with pytest.raises(UserError, match=r"002.jsonl is gone, and the policy has moved on"):
        run_stage(iterated(finished), tmp_path / "dpo", recipe=WORLD)
    second.write_text(whole)
    run_stage(iterated(finished), tmp_path / "dpo", recipe=WORLD)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["offline", "iterated"])
def test_two_processes_give_the_numbers_of_one(
    finished: Path, source: Path, learned: Path, repeated: tuple[Path, dict[str, Any]], tmp_path: Path, kind: str
) -> None:
    """Training, validation, the reference, sampling and judging, shared by two ranks."""
    two_processes(kind, str(finished), str(source), str(tmp_path), module="tests.stages.test_dpo")
    whole = learned if kind == "offline" else repeated[0]
    for expected, found in zip(metrics(whole), metrics(tmp_path / "dpo"), strict=True):
        assert found == pytest.approx(expected, abs=1e-4)
    if kind == "iterated":
        texts = [[one.responses[0].text for one in pairs(place, 3)] for place in (whole, tmp_path / "dpo")]
        assert texts[0] == texts[1]


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rankings": []}, "dpo has nothing to learn from; set one of them: dpo.rankings"),
        ({"judge": ROUNDS["judge"]}, "dpo.rankings and dpo.judge are both set; set one of them"),
        ({"rewards": {"a": {"kind": "length"}}}, "dpo.rankings and dpo.rewards are both set"),
        ({"iterations": 2}, "iterations is for rounds, but neither dpo.judge nor dpo.rewards is set"),
        ({"monitor": ROUNDS["monitor"]}, "monitor is for rounds"),
        ({"pairs": "all"}, "pairs is for rounds"),
        ({"sampling": {"temperature": 0.5}}, "sampling is for rounds and for kl_prompts"),
        ({"sampling": {"temperature": 0.5}, "kl_prompts": 2}, "sampling.temperature is for rounds"),
    ],
)
def test_settings_of_rounds_are_refused_without_a_judge(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_dpo(offline(Path("x"), Path("y.jsonl"), **changes), "dpo")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompts": []}, "prompts is empty"),
        ({"sampling": {"temperature": 0}}, "sampling.temperature is 0"),
        ({"steps": 2}, "iterations is 3, but there are 2 steps"),
        ({"judge": {**ROUNDS["judge"], "both_orders": False}}, "dpo.judge.both_orders is set, but nothing here"),
        ({"judge": {**ROUNDS["judge"], "tie_margin": 0.2}}, "dpo.judge.tie_margin is set, but nothing here"),
        ({"judge": {**ROUNDS["judge"], "url": "http://x"}}, "dpo.judge.url is for a server"),
        ({"monitor": {"a": {"kind": "length", "weight": 2.0}}}, "monitor.a.weight is 2.0"),
        ({"ties": "soft"}, "pairs is best_worst, which leaves no ties; set pairs to all"),
        ({"preferences": "tiers"}, "preferences is tiers, but rounds learn from scores"),
        ({"judge": None, "rewards": {"a": {"kind": "primer", "weight": 0.0}}}, "all weights are 0"),
    ],
)
def test_rounds_that_cannot_work_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_dpo(iterated(Path("x"), **changes), "dpo")


def test_a_judge_may_be_the_policy() -> None:
    check_dpo(iterated(Path("x"), judge=JudgeConfig(model="policy").model_dump()), "dpo")


def test_rankings_that_give_no_pair_are_told(finished: Path, tmp_path: Path) -> None:
    prompt = Prompt("p", (Message("user", "?"),))
    tied = Ranking(prompt, (Response("a"), Response("b")), (0, 0), "ann")
    write_rankings(tmp_path / "tied.jsonl", [tied])
    with pytest.raises(UserError, match=r"none of 1 rankings gives a pair to learn from \(0 prompts are held out\)"):
        run_stage(offline(finished, tmp_path / "tied.jsonl"), tmp_path / "dpo", recipe=WORLD)
    long = Ranking(prompt, (Response("a"), Response("b" * 500)), (0, 1), "ann")
    write_rankings(tmp_path / "long.jsonl", [long])
    with pytest.raises(UserError, match=r"\(1 responses are longer than the model's context of 96 tokens, 0 prompts"):
        run_stage(offline(finished, tmp_path / "long.jsonl"), tmp_path / "dpo", recipe=WORLD)


if __name__ == "__main__":
    which, chain, file, folder = sys.argv[1:]
    chosen = offline(Path(chain), Path(file)) if which == "offline" else iterated(Path(chain))
    run_stage(chosen, Path(folder) / "dpo", recipe=WORLD)
    import torch.distributed

    torch.distributed.destroy_process_group()
