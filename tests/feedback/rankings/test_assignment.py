"""Who gets which task, and what becomes of what they submit. On SQLite and PostgreSQL."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from trivium.data.records import Message, Prompt
from trivium.feedback.rankings.record import Ranking, Response
from trivium.feedback.rankings.store import Assignment, NewTask, Store, StoreError
from trivium.streams import generator

ANSWERS = tuple(Response(text) for text in "abcd")


def prompt(number: int) -> Prompt:
    return Prompt(f"p{number}", (Message("user", f"Question {number}"),))


def add(store: Store, count: int, **values: Any) -> list[str]:
    return [store.add_task(prompt(number), ANSWERS, **values) for number in range(count)]


def given(store: Store, name: str, **values: Any) -> Assignment:
    work = store.assign(name, **values)
    assert work is not None
    return work


def refused(code: str, action: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        action()
    assert caught.value.code == code, caught.value
    return str(caught.value)


@pytest.fixture
def people(store: Store) -> Store:
    for name in ("ada", "eve", "kim"):
        store.add_annotator(name)
    return store


# ---- assigning -------------------------------------------------------------------------------------------------------


def test_the_open_assignment_comes_back_with_its_order_and_a_longer_lease(people: Store) -> None:
    add(people, 3)
    first = given(people, "ada", now=0.0)
    assert sorted(first.displayed) == [0, 1, 2, 3] and not first.expired
    assert (first.created, first.expires) == ("1970-01-01T00:00:00.000+00:00", "1970-01-01T00:30:00.000+00:00")
    again = given(people, "ada", now=1000.0)
    assert again == replace(first, expires="1970-01-01T00:46:40.000+00:00")
    assert people.assignment(first.id, "ada", now=1001.0) == again
    late = given(people, "ada", now=100_000.0)  # expired, and still wanted
    assert (late.id, late.displayed, late.expired) == (first.id, first.displayed, False)


def test_the_displayed_order_depends_on_seed_task_and_annotator(people: Store) -> None:
    (task,) = add(people, 1, wanted=3)
    orders = [given(people, name, seed=5).displayed for name in ("ada", "eve", "kim")]
    assert orders[0] == tuple(generator(5, "displayed", task, "ada").permutation(4))
    assert len(set(orders)) > 1


def test_a_task_goes_to_as_many_as_are_wanted(people: Store) -> None:
    (task,) = add(people, 1, wanted=2)
    first = given(people, "ada", now=0.0)
    assert given(people, "eve", now=0.0).task.id == task
    assert people.assign("kim", now=0.0) is None
    people.submit(first.id, "ada", "k", tiers=[0, 1, 1, 1], now=10.0)
    assert people.assign("kim", now=20.0) is None  # one ranking and one lease
    taken = given(people, "kim", now=2000.0)  # eve's lease has run out
    assert people.assign("eve", now=2000.0) is None
    people.submit(taken.id, "kim", "k", tiers=[0, 1, 1, 1], now=2001.0)
    assert people.task(task).status == "done"
    assert people.assign("ada", now=9000.0) is None and people.assign("eve", now=9000.0) is None


def test_nobody_gets_a_task_twice(people: Store) -> None:
    add(people, 2, wanted=3)
    work = given(people, "ada")
    people.submit(work.id, "ada", "k", tiers=[-1] * 4, skipped="no idea")
    second = given(people, "ada")
    assert second.task.id != work.task.id
    people.submit(second.id, "ada", "k2", tiers=[0, 1, 1, 1])
    assert people.assign("ada") is None


@pytest.mark.parametrize("why", ["done", "flagged", "closed"])
def test_a_task_that_needs_nobody_any_more_is_not_held(people: Store, why: str) -> None:
    first, second = add(people, 2)
    mine = given(people, "ada", now=0.0)
    assert mine.task.id == first
    if why == "closed":
        people.close_task(first)
    else:  # the lease runs out and eve gets the task; hers runs out and ada gets it back; then eve submits
        other = given(people, "eve", now=2000.0)
        assert other.task.id == first and given(people, "ada", now=4000.0).id == mine.id
        flags = ["odd"] if why == "flagged" else []
        people.submit(other.id, "eve", "k", tiers=[0, 1, 1, 1], flags=flags, now=4001.0)
    ours = given(people, "ada", now=4002.0)
    assert ours.task.id == second
    assert given(people, "ada", now=4003.0).id == ours.id
    late = people.submit(mine.id, "ada", "k", tiers=[0, 1, 1, 1], now=4004.0)
    assert late.metadata == {"late": True} and late in list(people.rankings())
    people.submit(ours.id, "ada", "k2", tiers=[0, 1, 1, 1], now=4005.0)
    assert people.assign("ada", now=4006.0) is None


def test_a_flagged_task_comes_back_when_it_is_reopened(people: Store) -> None:
    (task,) = add(people, 1, wanted=2)
    mine, other = given(people, "ada", now=0.0), given(people, "eve", now=0.0)
    people.submit(other.id, "eve", "k", tiers=[0, 1, 1, 1], flags=["odd"], now=1.0)
    assert people.assign("ada", now=2.0) is None
    people.reopen_task(task)
    again = given(people, "ada", now=3.0)
    assert (again.id, again.displayed, again.expired) == (mine.id, mine.displayed, False)


def test_a_gold_task_stays_in_hand_while_it_is_mixed_in(people: Store) -> None:
    add(people, 1, gold=[0, 1, 2, 3])
    mine, other = given(people, "ada", gold_share=1.0, now=0.0), given(people, "eve", gold_share=1.0, now=0.0)
    people.submit(other.id, "eve", "k", tiers=[0, 1, 2, 3], now=1.0)
    assert given(people, "ada", gold_share=1.0, now=2.0).id == mine.id
    assert people.assign("ada", now=3.0) is None  # without a share it is work like any other, and done


def test_slices_are_set_once(people: Store) -> None:
    first, second = add(people, 2)
    assert people.set_slices({first: "random"}) == 1
    assert people.set_slices({first: "active", second: "active"}) == 1
    assert [task.slice for task in people.tasks()] == ["random", "active"]
    third = people.add_task(prompt(7), ANSWERS)
    refused("unknown_task", lambda: people.set_slices({third: "random", "zzz": "random"}))
    refused("invalid", lambda: people.set_slices({third: "other"}))
    assert people.task(third).slice == ""


def test_by_priority_then_age(people: Store) -> None:
    tasks = add(people, 4)
    people.set_priorities({tasks[2]: 1.0})
    got = []
    for number in range(4):
        work = given(people, "ada", random_share=0.0)
        got.append(work.task.id)
        people.submit(work.id, "ada", f"k{number}", tiers=[0, 1, 1, 1])
    assert got == [tasks[2], tasks[0], tasks[1], tasks[3]]


def test_shares_of_the_random_slice_and_of_gold(people: Store) -> None:
    """The draws are those of the stream; the random slice comes in the order of hashes, and gold in neither."""
    kinds: list[dict[str, Any]] = [{"slice": "random", "priority": 9.0}, {"slice": "active"}, {"gold": [0, 1, 2, 3]}]
    people.add_tasks(NewTask(prompt(number), ANSWERS, **kinds[number % 3]) for number in range(60))
    drawn: Counter[str] = Counter()
    random_ids = []
    for number in range(20):
        work = given(people, "ada", gold_share=0.25, random_share=0.4, seed=3)
        kind = "gold" if work.task.gold else work.task.slice
        gold, uniform = generator(3, "assign", "ada", number).random(2)
        assert kind == ("gold" if gold < 0.25 else "random" if uniform < 0.4 else "active")
        drawn[kind] += 1
        if kind == "random":
            random_ids.append(work.task.id)
        people.submit(work.id, "ada", f"k{number}", tiers=[0, 1, 2, 3])
    assert set(drawn) == {"gold", "random", "active"}
    assert random_ids == sorted(random_ids)


def test_gold_goes_to_everybody_and_is_ordinary_without_a_share(people: Store) -> None:
    (task,) = add(people, 1, gold=[0, 1, 2, 3])
    for name in ("ada", "eve"):
        work = given(people, name, gold_share=1.0)
        people.submit(work.id, name, "k", tiers=[0, 1, 2, 3])
    assert people.task(task).done == 2
    assert people.assign("kim") is None
    other = people.add_task(prompt(7), ANSWERS, gold=[0, 1, 2, 3])
    assert given(people, "kim").task.id == other


def test_a_flagged_gold_task_waits_too(people: Store) -> None:
    (task,) = add(people, 1, gold=[0, 1, 2, 3])
    work = given(people, "ada", gold_share=1.0)
    people.submit(work.id, "ada", "k", tiers=[0, 1, 2, 3], flags=["holds a name"])
    assert people.assign("eve", gold_share=1.0) is None
    people.reopen_task(task)
    assert given(people, "eve", gold_share=1.0).task.id == task


def test_closed_tasks_are_given_to_nobody(people: Store) -> None:
    (task,) = add(people, 1)
    work = given(people, "ada")
    people.close_task(task)
    assert people.assign("ada") is None and people.assign("eve") is None
    people.submit(work.id, "ada", "k", tiers=[0, 1, 1, 1])  # who had it in hand is heard
    assert len(list(people.rankings())) == 1


def test_unknown_and_revoked_annotators_get_nothing(people: Store) -> None:
    add(people, 1)
    work = given(people, "ada")
    people.revoke("ada")
    refused("unknown_annotator", lambda: people.assign("nobody"))
    assert "revoked" in refused("unknown_annotator", lambda: people.assign("ada"))
    refused("unknown_annotator", lambda: people.submit(work.id, "ada", "k", tiers=[0, 1, 1, 1]))


def test_many_at_once_get_tasks_of_their_own(people: Store) -> None:
    """Threads that ask at the same moment never hold more leases on a task than are wanted."""
    names = [f"n{number}" for number in range(12)]
    for name in names:
        people.add_annotator(name)
    add(people, 5, wanted=2)
    got = at_once([lambda name=name: people.assign(name) for name in names])
    held = Counter(work.task.id for work in got if work is not None)
    assert sorted(held.values()) == [2, 2, 2, 2, 2]


def test_two_tabs_of_one_annotator_get_one_assignment(people: Store) -> None:
    add(people, 5)
    got = at_once([lambda: people.assign("ada")] * 6)
    assert len({work.id for work in got if work is not None}) == 1 and None not in got


def at_once(actions: list[Callable[[], Any]]) -> list[Any]:
    results: list[Any] = [None] * len(actions)
    start = threading.Barrier(len(actions))

    def act(number: int) -> None:
        start.wait()
        try:
            results[number] = actions[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=act, args=(number,)) for number in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# ---- submitting ------------------------------------------------------------------------------------------------------


def test_what_is_submitted_is_what_is_stored(people: Store) -> None:
    (task,) = add(people, 1, criterion="brief")
    work = given(people, "ada")
    said = people.submit(
        work.id,
        "ada",
        "key",
        tiers={1: 4, 3: 2},
        all_bad=True,
        flags=["rude"],
        strength=2,
        note="n\0te",
        edited="better",
        edited_from=0,
        seconds=3,
        now=60.0,
    )
    assert said == Ranking(
        prompt(0),
        ANSWERS,
        (-1, 1, -1, 0),
        "ada",
        criterion="brief",
        displayed=work.displayed,
        time="1970-01-01T00:01:00.000+00:00",
        id=said.id,
        all_bad=True,
        flags=("rude",),
        strength=2.0,
        note="n\0te",
        edited="better",
        edited_from=0,
        task=task,
        seconds=3.0,
    )
    assert list(people.rankings()) == [said]
    last = people.last_assignment("ada")
    assert last is not None and (last.id, last.ranking_id) == (work.id, said.id)
    assert people.last_assignment("eve") is None


def test_the_same_key_stores_one_ranking(people: Store) -> None:
    add(people, 3)
    work = given(people, "ada")
    first = people.submit(work.id, "ada", "key", tiers=[0, 1, 1, 1])
    assert people.submit(work.id, "ada", "key", tiers=[1, 0, 0, 0]) == first
    other = given(people, "ada")
    assert "key" in refused("conflict", lambda: people.submit(other.id, "ada", "key", tiers=[0, 1, 1, 1]))
    mine = given(people, "eve")
    assert people.submit(mine.id, "eve", "key", tiers=[0, 1, 1, 1]).annotator == "eve"  # keys are a person's own
    assert len(list(people.rankings(superseded=True))) == 2


def test_one_key_from_many_threads_stores_one_ranking(people: Store) -> None:
    (task,) = add(people, 1)
    work = given(people, "ada")
    got = at_once([lambda: people.submit(work.id, "ada", "key", tiers=[0, 1, 1, 1])] * 8)
    assert len(set(map(str, got))) == 1 and isinstance(got[0], Ranking)
    assert list(people.rankings(superseded=True)) == [got[0]]
    assert people.task(task).done == 1


def test_different_keys_from_many_threads_make_one_chain(people: Store) -> None:
    add(people, 1)
    work = given(people, "ada")
    got = at_once(
        [lambda number=number: people.submit(work.id, "ada", f"k{number}", tiers=[0, 1, 1, 1]) for number in range(6)]
    )
    stored = list(people.rankings(superseded=True))
    assert {item.id for item in stored} == {item.id for item in got}
    assert [item.supersedes for item in stored] == [None, *(item.id for item in stored[:-1])]
    assert list(people.rankings()) == stored[-1:]


def test_submits_of_many_annotators_are_all_counted(people: Store) -> None:
    names = [f"n{number}" for number in range(8)]
    for name in names:
        people.add_annotator(name)
    (task,) = add(people, 1, wanted=8)
    work = {name: given(people, name) for name in names}
    at_once([lambda name=name: people.submit(work[name].id, name, "k", tiers=[0, 1, 1, 1]) for name in names])
    assert (people.task(task).done, people.task(task).status) == (8, "done")


def test_a_second_submit_supersedes(people: Store) -> None:
    (task,) = add(people, 1)
    work = given(people, "ada")
    first = people.submit(work.id, "ada", "k1", tiers=[0, 1, 1, 1])
    second = people.submit(work.id, "ada", "k2", tiers=[1, 0, 0, 0])
    third = people.submit(work.id, "ada", "k3", tiers=[-1] * 4, skipped="on second thought")
    assert [first.supersedes, second.supersedes, third.supersedes] == [None, first.id, second.id]
    assert list(people.rankings(superseded=True)) == [first, second, third]
    assert list(people.rankings()) == [third]
    assert people.task(task).status == "open"  # a skip is no ranking
    assert people.submit(work.id, "ada", "k1", tiers=[0, 1, 1, 1]) == first  # a retry that was on its way


def test_a_late_submit_is_kept_and_told(people: Store) -> None:
    (task,) = add(people, 1)
    work = given(people, "ada", now=0.0)
    other = given(people, "eve", now=5000.0)
    people.submit(other.id, "eve", "k", tiers=[0, 1, 1, 1], now=5001.0)
    assert people.assignment(work.id, "ada", now=5002.0).expired
    late = people.submit(work.id, "ada", "k", tiers=[0, 1, 1, 1], now=5002.0)
    assert late.metadata == {"late": True}
    assert people.task(task).done == 2
    corrected = people.submit(other.id, "eve", "k2", tiers=[1, 0, 0, 0], now=9000.0)
    assert corrected.metadata == {}  # it was handed in on time


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("invalid", {"tiers": [-1] * 4}),
        ("invalid", {"tiers": [0, -1, -1, -1]}),
        ("invalid", {"tiers": [0, 1]}),
        ("invalid", {"tiers": [0, 1, 2, 0.5]}),
        ("invalid", {"tiers": ["0", "1", "2", "3"]}),
        ("invalid", {"tiers": [0, 1, 1, 1], "skipped": "why"}),
        ("invalid", {"tiers": [0, 1, 1, 1], "strength": 4}),
        ("invalid", {"tiers": [0, 1, 1, 1], "seconds": float("inf")}),
        ("invalid", {"tiers": [0, 1, 1, 1], "seconds": -1}),
        ("invalid", {"tiers": [0, 1, 1, 1], "edited": "  "}),
        ("unknown_response", {"tiers": [0, 1, 1, 1, 2]}),
        ("unknown_response", {"tiers": {0: 0, 4: 1}}),
        ("unknown_response", {"tiers": [0, 1, 1, 1], "edited": "x", "edited_from": 4}),
        ("unknown_response", {"tiers": [0, 1, 1, 1], "edited": "x", "edited_from": -1}),
    ],
)
def test_a_submit_that_is_not_valid_stores_nothing(people: Store, code: str, said: dict[str, Any]) -> None:
    (task,) = add(people, 1)
    work = given(people, "ada")
    refused(code, lambda: people.submit(work.id, "ada", "k", **said))
    assert list(people.rankings()) == [] and people.task(task).status == "open"
    assert people.assignment(work.id, "ada").ranking_id is None


def test_assignments_of_nobody_and_of_others(people: Store) -> None:
    add(people, 1)
    work = given(people, "ada")
    for name in ("x", "\0", "\ud800"):
        code = "unknown_assignment" if name == "x" else "invalid"
        refused(code, lambda name=name: people.submit(name, "ada", "k", tiers=[0, 1, 1, 1]))
        refused(code, lambda name=name: people.assignment(name, "ada"))
    refused("conflict", lambda: people.submit(work.id, "eve", "k", tiers=[0, 1, 1, 1]))
    refused("conflict", lambda: people.assignment(work.id, "eve"))
    refused("invalid", lambda: people.submit(work.id, "ada", "", tiers=[0, 1, 1, 1]))
    refused("invalid", lambda: people.submit(work.id, "ada", "k\0", tiers=[0, 1, 1, 1]))
    assert list(people.rankings()) == []


@pytest.mark.parametrize("said", [{"all_bad": True}, {"skipped": "no idea"}, {"skipped": ""}, {"edited": "better"}])
def test_all_unranked_says_something_with_a_reason(people: Store, said: dict[str, Any]) -> None:
    add(people, 1)
    work = given(people, "ada")
    assert list(people.rankings()) == [] and people.submit(work.id, "ada", "k", tiers=[-1] * 4, **said).pairs == []
