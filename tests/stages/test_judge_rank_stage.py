"""The rank stage with a judge: rankings with probabilities in the store, once, however often the stage was cut."""

import json
from math import comb
from pathlib import Path
from typing import Any

import pytest
from tests.stages.tiny import run_stage

import trivium.stages.rank as stage
from trivium.config import JudgeConfig, RankConfig
from trivium.errors import UserError
from trivium.feedback.judges.base import Question, Reply
from trivium.feedback.judges.constitution import load
from trivium.feedback.judges.fake import FakeBackend
from trivium.feedback.rankings.record import Ranking, from_row
from trivium.feedback.rankings.store import Store
from trivium.preflight import check_judge, check_rank

JUDGE: dict[str, Any] = {"backend": "fake", "model": "long", "constitution": "general"}
STAGE: dict[str, Any] = {
    "kind": "rank",
    "prompts": [{"source": "primer", "part": "problems", "split": "train"}],
    "tasks": 8,
    "responses": 3,
    "sampling": {"max_new_tokens": 8},
}


def rank(finished: Path, folder: Path, **changes: Any) -> tuple[dict[str, Any], list[Ranking]]:
    values = {**STAGE, "judge": JUDGE, **changes, "init": str(finished / "sft" / "model")}
    numbers = run_stage(folder, "rank", {"stages.rank": values})
    return numbers, [from_row(json.loads(line)) for line in (folder / "rank" / "rankings.jsonl").open()]


def stored(folder: Path) -> list[Ranking]:
    with Store.open(folder / "rankings.db") as store:
        assert all((task.wanted, task.status) == (0, "done") for task in store.tasks())  # nobody waits for people
        return list(store.rankings())


def test_a_judge_ranks_all_tasks(finished: Path, tmp_path: Path) -> None:
    numbers, rankings = rank(finished, tmp_path)
    assert numbers["rankings"] == len(rankings) == numbers["tasks"] and numbers["tasks"] + numbers["alike"] == 8
    assert numbers["kinds"] == ["ai"] and numbers["annotators"] == 1 and numbers["missing"] == 0
    assert numbers["usage"]["calls"] > 0 and numbers["usage"]["prompt_tokens"] > 0 and numbers["usage"]["missing"] == 0
    for ranking in rankings:
        assert ranking.annotator == "judge:long" and ranking.metadata["judge"]
        for first, second, probability in ranking.preferences:  # it prefers the longer one
            lengths = [len(ranking.responses[number].text) for number in (first, second)]
            assert (probability > 0.5) == (lengths[0] > lengths[1]) or lengths[0] == lengths[1]
    assert stored(tmp_path) == rankings
    assert (tmp_path / "judge.db").is_file()


@pytest.mark.parametrize("where", ["add_rankings", "write_rankings"])
def test_cut_and_repeated_it_stores_nothing_twice_and_pays_nothing_twice(
    finished: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(BaseException):
        pass

    def cut(*_: Any) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(*((Store, where) if where == "add_rankings" else (stage, where)), cut)
        with pytest.raises(Cut):
            rank(finished, tmp_path)
    held = stored(tmp_path)
    assert bool(held) == (where == "write_rankings")
    numbers, rankings = rank(finished, tmp_path)
    assert numbers["usage"]["calls"] == 0 and stored(tmp_path) == rankings and (not held or held == rankings)
    # the judge's calls are lost, and it would say something else now: what it said stands
    (tmp_path / "judge.db").unlink()
    monkeypatch.setattr(FakeBackend, "_longer", lambda *_: Reply(probabilities=(0.5, 0.5)))
    assert rank(finished, tmp_path)[1] == rankings == stored(tmp_path)
    # another judge, here one who goes by other principles, is another matter
    _, others = rank(finished, tmp_path, judge={**JUDGE, "both_orders": False})
    assert len(stored(tmp_path)) == len(rankings) + len(others) and all(one.displayed for one in others)


def test_verdicts_that_are_missing_are_counted_and_asked_for_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_task = 3 * 2 * len(load("general").principles)  # calls: pairs, orders, principles
    asked: list[Question] = []
    longer = FakeBackend._longer

    def some(backend: FakeBackend, question: Question) -> Reply:
        asked.append(question)
        silent = len(asked) <= first_task or len(asked) % 31 == 0
        return Reply(missing="it will not say") if silent else longer(backend, question)

    with monkeypatch.context() as patch:
        patch.setattr(FakeBackend, "_longer", some)
        numbers, rankings = rank(finished, tmp_path)
    pairs = sum(comb(len(ranking.responses), 2) for ranking in rankings)
    assert sum(len(ranking.preferences) for ranking in rankings) + numbers["missing"] == pairs
    skipped = [ranking for ranking in rankings if ranking.skipped is not None]
    assert numbers["skipped_rankings"] == len(skipped) > 0 and numbers["missing"] > 3 * len(skipped)
    again, mended = rank(finished, tmp_path)
    assert again["skipped_rankings"] == 0 and again["usage"]["calls"] >= len(skipped)
    assert len(stored(tmp_path)) == len(rankings) + len(skipped)  # what was skipped then is kept too
    assert [one for one, two in zip(rankings, mended, strict=True) if one.skipped is None and one != two] == []


def test_a_judge_who_says_nothing_stops_the_stage(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeBackend, "_longer", lambda *_: Reply(missing="it will not say"))
    with pytest.raises(UserError, match=r"rank: the judge could rank nothing \(it will not say\)"):
        rank(finished, tmp_path)
    assert stored(tmp_path) == []


# ---- what is refused before anything is spent ------------------------------------------------------------------------

PANEL = {"parts": {"short": {"kind": "length"}}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"panel": PANEL}, "rank.panel and rank.judge are both set"),
        ({"rankings_per_task": 2}, "rankings_per_task is 2, but a judge asked again says the same"),
        ({"judge": {"model": "policy"}}, "rank.judge.model is policy"),
        ({"judge": {"model": "sft", "temperature": 0.5}}, "rank.judge.temperature is set, but nothing here depends"),
        ({"judge": {"model": "sft", "max_new_tokens": 5}}, "rank.judge.max_new_tokens is set"),
        ({"judge": {**JUDGE, "url": "http://x/v1"}}, "judge.url is for a server, but rank.judge.backend is fake"),
    ],
)
def test_a_rank_stage_that_cannot_be(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_rank(RankConfig(**{**STAGE, "judge": JUDGE, **changes}), "rank")
    check_rank(RankConfig(**STAGE, judge=JudgeConfig(**JUDGE)), "rank")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        *(({key: value}, f"here.{key} is for a server, but here.backend is local") for key, value in [
            ("url", "http://127.0.0.1/v1"), ("key_variable", "KEY"), ("concurrency", 2), ("timeout", 1.0),
            ("retries", 0), ("samples", 9)
        ]),
        ({"budget_cost": 1.0}, "here.budget_cost is set, but without here.price_input"),
        ({"constitution": "nowhere.yaml"}, "here.constitution: "),
        ({"model": "policy"}, "here.model is policy"),
        ({"tie_margin": 0.1}, "here.tie_margin is set, but nothing here depends on it"),
    ],
)  # fmt: skip
def test_a_judge_that_cannot_be(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_judge(JudgeConfig(**{"model": "sft", **changes}), "here", unread=("tie_margin",))


def test_settings_of_a_judge_that_go_together() -> None:
    check_judge(JudgeConfig(model="policy"), "here", policy_allowed=True)
    server = JudgeConfig(backend="openai", model="policy", url="http://x/v1", samples=3, retries=0)
    check_judge(server, "here")  # a server's model may be called anything
    check_judge(JudgeConfig(model="sft", budget_cost=1.0, price_output=2.0, tie_margin=0.1), "here")
