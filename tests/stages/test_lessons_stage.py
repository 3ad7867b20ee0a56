"""Lessons from rankings: what people said, as conversations that teach a judge; and rankings to test with."""

import json
from pathlib import Path

import pytest
import yaml

from trivium import run
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.judges import constitution
from trivium.feedback.judges.lessons import lessons_of
from trivium.feedback.rankings.formats.native import write_rankings
from trivium.feedback.rankings.record import Ranking, Response

LAWS = constitution.load("restaurant")
PROMPT = Prompt("p", (Message("user", "name[The Eagle]"),))


def ranking(tiers: tuple[int, ...], criterion: str = "quality", **more: str) -> Ranking:
    texts = ("The Eagle.", "An eagle is there.", "The Eagle.")
    return Ranking(PROMPT, tuple(Response(text) for text in texts), tiers, "ann", criterion=criterion, **more)


def told(given: Ranking) -> list[tuple[str, str, str]]:
    """(first shown, second shown, label) of each lesson."""
    found = []
    for lesson in lessons_of([given], LAWS):
        question, answer = (message["content"] for message in lesson.row["messages"])
        first, second = question.split("A<")[1].removesuffix(">").split("> B<")
        found.append((first, second, answer))
    return found


def test_a_pair_names_the_better_answer_in_both_orders() -> None:
    # the third answer has the words of the first, so those two are no pair; it is unranked anyway
    assert told(ranking((1, 0, -1))) == [
        ("The Eagle.", "An eagle is there.", "B"),
        ("An eagle is there.", "The Eagle.", "A"),
    ]


def test_a_tie_names_each_answer_once_in_either_order() -> None:
    assert [label for _, _, label in told(ranking((0, 0, -1)))] == ["A", "B", "A", "B"]


def test_a_criterion_goes_by_its_principle_or_by_all() -> None:
    def of(criterion: str) -> list[str]:
        return [lesson.principle for lesson in lessons_of([ranking((1, 0, -1), criterion)], LAWS)]

    assert of("naturalness") == ["naturalness"] * 2
    assert of("overall") == ["informativeness"] * 2 + ["naturalness"] * 2 + ["quality"] * 2


@pytest.mark.parametrize("given", [ranking((-1, -1, -1), skipped="no"), ranking((0, -1, 1))])
def test_nothing_to_learn_is_said(given: Ranking) -> None:
    with pytest.raises(UserError, match="nothing to learn"):
        list(lessons_of([given], LAWS))


def test_the_stage_makes_data_of_sft(tmp_path: Path) -> None:
    write_rankings(tmp_path / "people.jsonl", [ranking((1, 0, -1))])
    stages = {"lessons": {"rankings": [{"source": str(tmp_path / "people.jsonl")}], "constitution": "restaurant"}}
    recipe = tmp_path / "lessons.yaml"
    recipe.write_text(yaml.safe_dump({"name": "lessons", "device": "cpu", "stages": stages}))
    summary = run(str(recipe), directory=tmp_path / "run", quiet=True).summary
    assert summary["stages"]["lessons"]["conversations"] == 2
    rows = [json.loads(line) for line in (tmp_path / "run/lessons/conversations.jsonl").read_text().splitlines()]
    assert [row["messages"][-1] for row in rows] == [
        {"role": "assistant", "content": "B"},
        {"role": "assistant", "content": "A"},
    ]
    lineage = json.loads((tmp_path / "run/lineage.json").read_text())["artifacts"]["lessons"]
    assert "rankings" in [item["role"] for item in lineage["inputs"]]
