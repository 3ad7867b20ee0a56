"""A judge as an annotator: what it says of pairs becomes rankings, whole or with gaps."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.data.records import Message, Prompt
from trivium.feedback.judges.base import Question, Reply
from trivium.feedback.judges.constitution import Constitution, Principle, load
from trivium.feedback.judges.fake import FakeBackend
from trivium.feedback.judges.judge import Judge
from trivium.feedback.judges.prompts import DELIMITERS, materials
from trivium.feedback.judges.ranking import rank, summary_tiers
from trivium.feedback.rankings.agreement import agreement_report
from trivium.feedback.rankings.record import Ranking, Response, problem_of
from trivium.feedback.rankings.store import Store
from trivium.training.reward import group_tasks

ONE = Constitution("one", (Principle("good", "Which is better?"),))


@dataclass(frozen=True)
class Asked:
    id: str
    prompt: Prompt
    responses: tuple[Response, ...]
    criterion: str = "overall"


def task(*texts: str, number: int = 0) -> Asked:
    return Asked(f"t{number}", Prompt(f"p{number}", (Message("user", f"Say {number}."),)), tuple(map(Response, texts)))


@dataclass
class Says:
    """A backend's answers: P(first shown is better) of two texts; pairs that are not known get no verdict."""

    shown: dict[tuple[str, str], float]

    def __call__(self, question: Question) -> Reply:
        first, second = materials(question.messages[-1].content, DELIMITERS)[-2:]
        if (first, second) not in self.shown:
            return Reply(missing=f"it will not say of {first} and {second}")
        return Reply(probabilities=(self.shown[first, second], 1 - self.shown[first, second]))


def judge(shown: dict[tuple[str, str], float], **options: Any) -> Judge:
    return Judge(FakeBackend(Says(shown), name="fake"), ONE, **options)


def both(pairs: dict[str, float]) -> dict[tuple[str, str], float]:
    """The same in both orders: {"ab": 0.9} says 0.9 for a in either place."""
    return {key: p for (a, b), said in pairs.items() for key, p in (((a, b), said), ((b, a), 1 - said))}


def test_all_pairs_become_one_ranking_with_their_probabilities() -> None:
    """a is shown first: 0.8; second: 0.7 for what is first, so 0.3 for a; together 0.55."""
    shown = both({"ac": 0.9, "bc": 0.8}) | {("a", "b"): 0.8, ("b", "a"): 0.7}
    (found,) = rank(judge(shown), [task("a", "b", "c")])
    assert [said[:2] for said in found.preferences] == [(0, 1), (0, 2), (1, 2)]
    assert [said[2] for said in found.preferences] == pytest.approx([0.55, 0.9, 0.8])
    assert found.tiers == (0, 0, 1)  # 0.55 is within 0.05 of 0.5
    assert rank(judge(shown), [task("a", "b", "c")], 0.04)[0].tiers == (0, 1, 2)
    assert (found.annotator, found.kind, found.task, found.criterion) == ("judge:fake", "ai", "t0", "overall")
    assert found.metadata == {"judge": judge(shown).identity, "constitution": "one"}
    assert problem_of(found) == "" and found.displayed == () and found.skipped is None
    # in one order alone, the lower number was shown first
    (single,) = rank(judge(shown, both_orders=False), [task("a", "b", "c")])
    assert single.preferences[0][2] == 0.8 and single.displayed == (0, 1, 2)


def test_all_tasks_are_asked_about_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = judge(both({"ab": 0.9, "xy": 0.2, "xz": 0.6, "yz": 0.7}))
    calls = []
    compare = asked.compare
    monkeypatch.setattr(asked, "compare", lambda pairs: calls.append(len(pairs)) or compare(pairs))
    first, second = rank(asked, [task("a", "b"), task("x", "y", "z", number=1)])
    assert calls == [4]
    assert first.tiers == (0, 1) and second.prompt.id == "p1"
    assert [round(p, 6) for _, _, p in second.preferences] == [0.2, 0.6, 0.7] and second.tiers == (1, 0, 2)


def test_what_has_no_verdict_is_left_out() -> None:
    some = both({"ab": 0.9, "ad": 0.8, "bd": 0.3})
    three, none, two = rank(
        judge(some | both({"xy": 0.1})), [task("a", "b", "c", "d"), task("b", "c", number=1), task("x", "y", number=2)]
    )
    assert three.tiers == (0, 2, -1, 1) and [said[:2] for said in three.preferences] == [(0, 1), (0, 3), (1, 3)]
    assert none.skipped == "it will not say of b and c" and none.tiers == (-1, -1) and none.preferences == ()
    assert two.tiers == (1, 0)
    assert not any(map(problem_of, (three, none, two)))
    # one order without a verdict is none: a single order would be biased by the place
    (half,) = rank(judge({("a", "b"): 0.9}), [task("a", "b")])
    assert half.skipped == "it will not say of b and a"


def test_verdicts_that_fall_apart_order_nothing_across() -> None:
    apart = both({"ab": 0.9, "cd": 0.9})
    (found,) = rank(judge(apart), [task("a", "b", "c", "d")])
    assert found.skipped == "the verdicts do not connect the responses" and problem_of(found) == ""
    (found,) = rank(judge(apart | both({"be": 0.9})), [task("a", "b", "c", "d", "e")])
    assert found.tiers == (0, 1, -1, -1, 2) and [said[:2] for said in found.preferences] == [(0, 1), (1, 4)]
    assert problem_of(found) == ""


@pytest.mark.parametrize(
    ("said", "margin", "expected"),
    [
        ({(0, 1): 0.9, (0, 2): 0.9, (1, 2): 0.9}, 0.05, (0, 1, 2)),
        ({(0, 1): 0.55, (0, 2): 0.9, (1, 2): 0.45}, 0.05, (0, 0, 0)),  # by means 0.725, 0.45, 0.325
        ({(0, 1): 0.55, (0, 2): 0.9, (1, 2): 0.55}, 0.05, (0, 0, 0)),  # a chain: the ends are far apart
        ({(0, 1): 0.55, (0, 2): 0.9, (1, 2): 0.9}, 0.05, (0, 0, 1)),
        ({(0, 1): 0.551, (0, 2): 0.9, (1, 2): 0.9}, 0.05, (0, 1, 2)),
        ({(0, 1): 0.9, (1, 2): 0.9, (0, 2): 0.1}, 0.05, (0, 0, 0)),  # a circle is a tie
        ({(0, 1): 0.4, (0, 2): 1.0, (1, 2): 0.6}, 0.05, (0, 1, 2)),  # the mean decides, not the pair
        ({(0, 1): 0.5}, 0.0, (0, 0)),
        ({(0, 1): 0.501}, 0.0, (0, 1)),
        ({(0, 2): 0.9, (1, 2): 0.9}, 0.05, (0, 0, 1)),  # equal means
        ({(0, 2): 0.9, (1, 2): 0.8}, 0.5, (0, 1, 1)),  # 0 and 1 were not compared, 1 and 2 are within 0.5
        ({}, 0.05, (-1, -1)),
    ],
)
def test_tiers_of_probabilities(said: dict, margin: float, expected: tuple[int, ...]) -> None:
    assert summary_tiers([(*pair, p) for pair, p in said.items()], len(expected), margin) == expected


GRID = st.integers(0, 20).map(lambda number: number / 20) | st.floats(0, 1)


@given(
    st.integers(2, 5).flatmap(
        lambda n: st.tuples(
            st.just(n), st.lists(st.none() | GRID, min_size=n * (n - 1) // 2, max_size=n * (n - 1) // 2)
        )
    ),
    st.sampled_from([0.0, 0.05, 0.1, 0.3]),
    st.integers(0, 2**32),
)
def test_tiers_are_an_order_that_does_not_depend_on_the_numbers(given_: Any, margin: float, seed: int) -> None:
    number, probabilities = given_
    pairs = list(itertools.combinations(range(number), 2))
    said = [(i, j, p) for (i, j), p in zip(pairs, probabilities, strict=True) if p is not None]
    tiers = summary_tiers(said, number, margin)
    ranked = {tier for tier in tiers if tier >= 0}
    assert ranked == set(range(len(ranked)))
    place = list(range(number))
    Random(seed).shuffle(place)
    moved = [(place[i], place[j], p) if place[i] < place[j] else (place[j], place[i], 1 - p) for i, j, p in said]
    Random(seed).shuffle(moved)
    turned = summary_tiers(moved, number, margin)
    assert [turned[place[item]] for item in range(number)] == list(tiers)


# ---- beside people ---------------------------------------------------------------------------------------------------


def test_a_judge_is_compared_with_people_and_learned_from_beside_them(tmp_path: Path) -> None:
    tasks = [task("long answer", "short", number=number) for number in range(4)]
    longer = Judge(FakeBackend(), load("general"))
    ranked = rank(longer, tasks)
    people = [
        Ranking(item.prompt, item.responses, (0, 1) if number < 3 else (1, 0), "ann", task=item.id)
        for number, item in enumerate(tasks)
    ]
    with Store.open(tmp_path / "rankings.db") as store:
        assert store.add_rankings([*people, *ranked]) == 8
        assert store.add_rankings(rank(longer, tasks)) == 0  # it says the same again
        stored = list(store.rankings())
    (between,) = agreement_report(stored)["between_kinds"]
    assert set(between["kinds"]) == {"human", "ai"} and between["agreement"] == 0.75 and between["kappa"] is not None
    assert [ranking.preferences for ranking in stored if ranking.kind == "ai"] == [
        ranking.preferences for ranking in ranked
    ]
    together = group_tasks(stored)
    assert [len(item.rankings) for item in together] == [2] * 4
