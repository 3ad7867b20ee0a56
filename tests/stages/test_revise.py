"""The revise stage on a tiny model: what it leaves, what is dropped, that nothing is asked twice; sft that reads it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.stages.test_reward_stage import WORLD, Cut
from tests.stages.tiny import RECIPE, write_recipe

import trivium.stages.revise as stage
from trivium.config import ReviseConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.judges import build, constitution
from trivium.feedback.judges.base import Answer, Question, Reply, Written
from trivium.feedback.judges.fake import FakeBackend
from trivium.feedback.judges.judge import Judge
from trivium.preflight import check_revise
from trivium.run import run
from trivium.stages import run_stage

SETTINGS: dict[str, Any] = {
    "prompts": [{"source": "primer", "part": "problems", "split": "train"}],
    "judge": {"backend": "fake", "model": "more"},
    "tasks": 12,
    "rounds": 2,
    "sampling": {"max_new_tokens": 6},
}
LONGER = {"kind": "length", "options": {"target": 40, "unit": "characters", "penalty": 0.02}}


def config(finished: Path, **changes: Any) -> ReviseConfig:
    return ReviseConfig(**(SETTINGS | {"init": str(finished / "sft/model")} | changes))


def lines(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.read_text().splitlines()]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Question], Reply]], list[FakeBackend]]:
    """Makes ``backend: fake`` answer by a function; what was made is in the list that comes back."""

    def use(answer: Callable[[Question], Reply]) -> list[FakeBackend]:
        made: list[FakeBackend] = []

        def backend(*_: Any) -> FakeBackend:
            made.append(FakeBackend(answer, name="told", identity="told"))
            return made[-1]

        monkeypatch.setattr(build, "_backend", backend)
        return made

    return use


def test_what_it_leaves(finished: Path, tmp_path: Path) -> None:
    """The fake judge writes "More:" and the critique, which is "More:" and the answer: twice a round."""
    summary = run_stage(config(finished), tmp_path / "revise", recipe=WORLD)
    revised, talks = (lines(tmp_path / f"revise/{name}.jsonl") for name in ("revisions", "conversations"))
    assert len(revised) == len(talks) == 12 == summary["tasks"] == summary["conversations"]
    assert summary["missing"] == 0 and summary["gold"] is None and summary["usage"]["calls"] == 48
    assert summary["told"] == "12 answers revised by judge:more, 12 conversations" and summary["seconds"] > 0
    known = {principle.name for principle in constitution.load("general").principles}
    for row, talk in zip(revised, talks, strict=True):
        assert row["kept"] and len(row["steps"]) == 2 and "gold_first" not in row and "missing" not in row
        texts = [row["first"], row["steps"][0]["revision"], row["steps"][1]["revision"]]
        assert all(step["critique"].startswith("More:") for step in row["steps"])
        assert texts[2].startswith("More: More: More: More:") and len(texts[2]) > len(texts[1]) > len(texts[0])
        assert {step["principle"] for step in row["steps"]} <= known
        assert talk == {"messages": [*row["prompt"]["messages"], {"role": "assistant", "content": texts[2]}]}
    # a principle is drawn anew for each answer and each round
    drawn = [tuple(step["principle"] for step in row["steps"]) for row in revised]
    assert len({name for pair in drawn for name in pair}) > 1 and any(first != second for first, second in drawn)


def test_it_revises_the_last_revision_by_its_critique(
    finished: Path, tmp_path: Path, answering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question of the second round shows the revision of the first; the judge is not told what is right."""

    def answer(question: Question) -> Reply:
        asked = question.messages[-1].content
        assert "secret" not in asked
        round_ = int(question.stream.rsplit("/", 1)[1])
        assert ("revision 0" in asked) == (round_ == 1)
        if question.stream.startswith("revise/"):
            assert f"critique {round_}" in asked
            return Reply(text=f"revision {round_}")
        return Reply(text=f"critique {round_}")

    critique = Judge.critique

    def unknowing(judge: Judge, answers: Sequence[Answer], round: int = 0) -> list[Written]:
        assert all(one.prompt.answer is None and not one.prompt.metadata for one in answers)
        return critique(judge, answers, round)

    monkeypatch.setattr(Judge, "critique", unknowing)
    made = answering(answer)
    (tmp_path / "asked.jsonl").write_text('{"prompt": "1 + 1 = ?", "answer": "secret"}\n')
    run_stage(config(finished, prompts=[{"source": str(tmp_path / "asked.jsonl")}]), tmp_path / "revise", recipe=WORLD)
    assert len(made) == 1 and len(made[0].asked) == 4
    (row,) = lines(tmp_path / "revise/revisions.jsonl")
    assert [step["revision"] for step in row["steps"]] == ["revision 0", "revision 1"]


def test_what_is_missing_is_dropped_with_what_it_had(finished: Path, tmp_path: Path, answering: Any) -> None:
    """Prompts that lose a critique, a revision of the second round, or get an empty text: no half revisions."""
    prompts = [f"say {name}" for name in ("fine", "nocritique", "norevision", "empty")]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts))

    def answer(question: Question) -> Reply:
        asked, (kind, _, number) = question.messages[-1].content, question.stream.split("/")
        if "nocritique" in asked and kind == "critique":
            return Reply(missing="it refuses")
        if "norevision" in asked and kind == "revise" and number == "1":
            return Reply(missing="it is down")
        return Reply(text=" " if "say empty" in asked and kind == "revise" else "better")

    answering(answer)
    asked = [{"source": str(tmp_path / "asked.jsonl")}]
    summary = run_stage(config(finished, prompts=asked), tmp_path / "revise", recipe=WORLD)
    assert (summary["tasks"], summary["conversations"], summary["missing"]) == (4, 1, 3)
    (talk,) = lines(tmp_path / "revise/conversations.jsonl")
    assert talk["messages"][0]["content"] == "say fine"
    rows = {row["prompt"]["messages"][0]["content"][4:]: row for row in lines(tmp_path / "revise/revisions.jsonl")}
    assert [rows[name]["kept"] for name in ("fine", "nocritique", "norevision", "empty")] == [True, False, False, False]
    assert "it refuses" in rows["nocritique"]["missing"] and rows["nocritique"]["steps"] == []
    assert "it is down" in rows["norevision"]["missing"] and len(rows["norevision"]["steps"]) == 1
    assert "empty" in rows["empty"]["missing"]


def test_nothing_revised_stops_with_the_commonest_reason(finished: Path, tmp_path: Path, answering: Any) -> None:
    answering(lambda question: Reply(missing="it refuses"))
    with pytest.raises(
        UserError, match=r"revise: judge:told revised none of 12 answers \(12 times: it refuses\); take"
    ):
        run_stage(config(finished), tmp_path / "revise", recipe=WORLD)
    assert not (tmp_path / "revise/conversations.jsonl").exists()


def test_only_what_the_judge_prefers_is_kept(finished: Path, tmp_path: Path, answering: Any) -> None:
    """Revisions that are shorter than the first answer lose, equal ones are 0.5, one comparison is missing."""
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps({"prompt": f"p{n}"}) + "\n" for n in range(4)))
    verdicts = {"p0": 0.9, "p1": 0.5, "p2": 0.2}

    def answer(question: Question) -> Reply:
        asked = question.messages[-1].content
        name = next(f"p{number}" for number in range(4) if f"p{number}" in asked)
        if not question.choices:
            return Reply(text="BETTER")
        if name not in verdicts:
            return Reply(missing="nonsense")
        shown_first = asked.index("BETTER") < asked.index("Answer B")
        probability = verdicts[name] if shown_first else 1 - verdicts[name]
        return Reply((probability, 1 - probability))

    answering(answer)
    chosen = config(finished, keep="preferred", prompts=[{"source": str(tmp_path / "asked.jsonl")}], rounds=1)
    summary = run_stage(chosen, tmp_path / "revise", recipe=WORLD)
    assert (summary["conversations"], summary["missing"]) == (1, 1)
    (talk,) = lines(tmp_path / "revise/conversations.jsonl")
    assert talk["messages"][0]["content"] == "p0" and talk["messages"][1]["content"] == "BETTER"
    verdicts["p0"] = 0.4
    with pytest.raises(UserError, match=r"prefers none of 4 revisions to the first answers \(1 are missing\)"):
        run_stage(chosen, tmp_path / "again", recipe=WORLD)


def test_the_gold_score_of_both(finished: Path, tmp_path: Path) -> None:
    """Characters count, and the fake judge adds them: every revision is better, the interval is above zero."""
    summary = run_stage(config(finished, gold=LONGER, rounds=1), tmp_path / "revise", recipe=WORLD)
    gold, rows = summary["gold"], lines(tmp_path / "revise/revisions.jsonl")
    first, revised = ([row[f"gold_{name}"] for row in rows] for name in ("first", "revised"))
    assert gold["n"] == 12 and all(one < other for one, other in zip(first, revised, strict=True))
    assert gold["first"]["estimate"] == pytest.approx(sum(first) / 12)
    assert gold["revised"]["estimate"] == pytest.approx(sum(revised) / 12)
    change = gold["difference"]
    assert change["estimate"] == pytest.approx((sum(revised) - sum(first)) / 12)
    assert 0 < change["low"] <= change["estimate"] <= change["high"]
    assert f"gold {gold['first']['estimate']:.3f} to {gold['revised']['estimate']:.3f}, +" in summary["told"]


def test_a_gold_score_that_can_judge_nothing_stops(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"revise.gold could judge none of 12 answers"):
        run_stage(config(finished, gold={"kind": "slots"}), tmp_path / "revise", recipe=WORLD)


def test_cut_in_the_middle_no_finished_call_is_made_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after the critiques of the second round: 36 calls are there, the same files come out of 12 more."""
    run_stage(config(finished), tmp_path / "whole/revise", recipe=WORLD)
    revise = Judge.revise

    def cut(judge: Judge, answers: Sequence[Answer], critiques: Sequence[Written], round: int = 0) -> list[Written]:
        if round == 1:
            raise Cut
        return revise(judge, answers, critiques, round)

    with monkeypatch.context() as patch:
        patch.setattr(Judge, "revise", cut)
        with pytest.raises(Cut):
            run_stage(config(finished), tmp_path / "cut/revise", recipe=WORLD)
    assert not (tmp_path / "cut/revise/conversations.jsonl").exists()
    summary = run_stage(config(finished), tmp_path / "cut/revise", recipe=WORLD)
    assert (summary["usage"]["calls"], summary["usage"]["cached"]) == (12, 36)
    for name in ("revisions.jsonl", "conversations.jsonl"):
        assert (tmp_path / "cut/revise" / name).read_bytes() == (tmp_path / "whole/revise" / name).read_bytes()
    assert (tmp_path / "cut/judge.db").is_file()


def test_hostile_texts_survive_the_files(tmp_path: Path) -> None:
    """Half a surrogate pair, line separators and quotes in an answer: one row, and it reads back."""
    text = 'a "quote" \u2028 \ud800 \n end'
    item = stage.Revised(Prompt("p", (Message("user", "?"),)), text, kept=True)
    item.steps.append((Written("bad", "p"), Written(text, "p")))
    context = stage.StageContext("revise", None, WORLD, tmp_path)
    stage.write(context, [item])
    written = (tmp_path / "conversations.jsonl").read_text()
    assert written.count("\n") == 1 and json.loads(written)["messages"][1]["content"] == text


def test_sft_reads_what_was_revised_and_the_lineage_knows(finished: Path, tmp_path: Path) -> None:
    """revise -> sft in one recipe: the conversations are an input, and other ones make sft run again."""
    start = str(finished / "sft/model")
    stages = {
        "revise": {"kind": "revise", **SETTINGS, "init": start},
        "sft": {**RECIPE["stages"]["sft"], "init": start, "data": [{"source": "revise"}], "validation": [], "steps": 3},
    }
    recipe = str(write_recipe(tmp_path, {"stages": stages}))
    result = run(recipe, [], tmp_path / "run", quiet=True)
    assert result.summary["stages"]["sft"]["conversations"] == 12
    lineage = json.loads((tmp_path / "run/lineage.json").read_text())["artifacts"]
    talks = tmp_path / "run/revise/conversations.jsonl"
    assert "revise" in lineage["sft"]["parents"]
    (given,) = [item for item in lineage["sft"]["inputs"] if item["role"] == "conversations"]
    assert given["path"].endswith("revise/conversations.jsonl") and given["bytes"] == talks.stat().st_size
    assert lineage["revise"]["outputs"][0]["sha256"] == given["sha256"]
    before = lineage["sft"]["fingerprint"]
    run(recipe, ["revise.rounds=1"], tmp_path / "run", quiet=True)
    after = json.loads((tmp_path / "run/lineage.json").read_text())["artifacts"]["sft"]
    assert after["status"] == "finished" and after["fingerprint"] != before
    assert (tmp_path / "run/old/sft-1").is_dir()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompts": []}, "prompts is empty"),
        ({"judge": {"model": "policy"}}, "judge.model is policy"),
        ({"judge": {**SETTINGS["judge"], "tie_margin": 0.2}}, "tie_margin is set, but nothing here"),
        ({"judge": {**SETTINGS["judge"], "both_orders": False}}, "both_orders is set, but nothing here"),
        ({"judge": {"backend": "openai", "model": "m", "samples": 3}}, "samples is set, but nothing here"),
        ({"gold": {**LONGER, "weight": 2.0}}, "gold.weight is 2.0"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_revise(config(Path("x"), **changes), "revise")


def test_what_is_read_when_comparing_is_not_refused() -> None:
    check_revise(config(Path("x"), keep="preferred", judge={**SETTINGS["judge"], "both_orders": False}), "revise")
