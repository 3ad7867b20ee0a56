"""The rank stage: a panel ranks what the model answered; people are waited for; nothing is sampled or stored twice."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.stages.tiny import run_stage

from trivium.errors import UserError
from trivium.feedback.rankings.record import Ranking, from_row
from trivium.feedback.rankings.store import Store

PANEL = {
    "parts": {"short": {"kind": "length", "options": {"target": 0, "unit": "characters", "penalty": 0.01}}},
    "annotators": {"a": {"noise": 0.0}, "b": {"noise": 0.25}, "c": {"noise": 0.5}},
}
STAGE: dict[str, Any] = {
    "init": "sft",
    "prompts": [{"source": "primer", "part": "problems", "split": "train"}],
    "tasks": 12,
    "responses": 3,
    "rankings_per_task": 2,
    "sampling": {"max_new_tokens": 8},
}


def rank(finished: Path, folder: Path, **changes: Any) -> tuple[dict[str, Any], list[Ranking]]:
    stage = {**STAGE, "panel": PANEL, **changes, "init": str(finished / "sft" / "model")}
    numbers = run_stage(folder, "rank", {"stages.rank": stage})
    return numbers, [from_row(json.loads(line)) for line in (folder / "rank" / "rankings.jsonl").open()]


def test_panel(finished: Path, tmp_path: Path) -> None:
    numbers, rankings = rank(finished, tmp_path)
    assert numbers["tasks"] + numbers["alike"] == 12
    assert numbers["rankings"] == len(rankings) == 2 * numbers["tasks"]
    assert numbers["annotators"] == 3 and numbers["kinds"] == ["simulated"]
    for ranking in rankings:
        lengths = [len(response.text) for response in ranking.responses]
        assert len({response.text for response in ranking.responses}) == len(lengths) >= 2
        assert all(response.checkpoint and response.sampling["max_new_tokens"] == 8 for response in ranking.responses)
        if ranking.annotator == "a":
            assert all(lengths[better] < lengths[worse] for better, worse in ranking.pairs)
    with Store.open(tmp_path / "rankings.db") as store:
        assert sorted(ranking.id for ranking in store.rankings()) == sorted(ranking.id for ranking in rankings)


def test_again_gives_the_same_file_and_stores_nothing_twice(finished: Path, tmp_path: Path) -> None:
    rank(finished, tmp_path)
    first = (tmp_path / "rank" / "rankings.jsonl").read_bytes()
    (tmp_path / "rank" / "tasks.json").unlink()  # as if it had been cut before
    rank(finished, tmp_path)
    assert (tmp_path / "rank" / "rankings.jsonl").read_bytes() == first
    with Store.open(tmp_path / "rankings.db") as store:
        assert len(list(store.rankings())) == first.count(b"\n")


def test_another_panel_does_not_mix_with_the_first(finished: Path, tmp_path: Path) -> None:
    rank(finished, tmp_path)
    _, rankings = rank(
        finished, tmp_path, panel={**PANEL, "annotators": {"other": {"noise": 0.0}}}, rankings_per_task=1
    )
    assert {ranking.annotator for ranking in rankings} == {"other"}


def test_people_are_waited_for(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"0 of \d+ prompts are ranked; `trivium rank "):
        rank(finished, tmp_path, panel=None, rankings_per_task=1)
    with Store.open(tmp_path / "rankings.db") as store:
        store.add_annotator("ann")
        while (assignment := store.assign("ann")) is not None:
            number = len(assignment.task.responses)
            store.submit(assignment.id, "ann", assignment.id, tiers=list(range(number)))
    numbers, rankings = rank(finished, tmp_path, panel=None, rankings_per_task=1)
    assert numbers["kinds"] == ["human"] and len(rankings) == numbers["tasks"]


def test_a_panel_that_can_rank_nothing_stops(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the panel could rank nothing"):
        rank(finished, tmp_path, panel={"parts": {"slots": {"kind": "slots"}}})
