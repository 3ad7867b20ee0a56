"""What is stored comes back as it was; people, tasks, rankings, gold, flags and progress. On SQLite and PostgreSQL."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivium.data.records import Message, Prompt
from trivium.feedback.rankings.record import Ranking, Response, dense_tiers, problem_of
from trivium.feedback.rankings.store import NewTask, Store, StoreError
from trivium.feedback.rankings.tables import metadata

PROMPT = Prompt("p", (Message("user", "Say hello."),))
ANSWERS = (Response("Hello."), Response("Hi!", model="sft", checkpoint="ab12"), Response("No."))


def ranking(*tiers: int, number: int = 0, **values: Any) -> Ranking:
    prompt = replace(PROMPT, id=f"p{number}")
    return Ranking(prompt, ANSWERS, tiers, **{"annotator": "panel", "kind": "simulated", **values})


def refused(code: str, action: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        action()
    assert caught.value.code == code, caught.value
    return str(caught.value)


# ---- the round trip --------------------------------------------------------------------------------------------------

texts = st.text(max_size=8) | st.sampled_from(["", "\0", "\ud800", "é\n\t'\"\\", "=1+1", "𝄞", "null", "<script>"])
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)
numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(texts, values, max_size=2)
prompts = st.builds(
    Prompt, texts, st.lists(st.builds(Message, texts, texts), max_size=3).map(tuple), values, texts, objects
)
responses = st.builds(Response, texts, texts, texts, objects, st.sampled_from(["stop", "length"]), objects)


def preferences_of(tiers: Sequence[int]) -> st.SearchStrategy[Any]:
    """Probabilities of some of the pairs of ranked responses."""
    ranked = [number for number, tier in enumerate(tiers) if tier >= 0]
    pairs = list(combinations(ranked, 2))
    chosen = st.lists(st.sampled_from(pairs), unique=True) if pairs else st.just([])
    return chosen.flatmap(
        lambda found: st.tuples(*(st.floats(0, 1).map(lambda p, pair=pair: (*pair, p)) for pair in found))
    )


@st.composite
def any_ranking(draw: st.DrawFn) -> Ranking:
    answers = tuple(draw(st.lists(responses, min_size=2, max_size=4)))
    count = len(answers)
    skipped = draw(st.none() | texts)
    tiers = dense_tiers(draw(st.lists(st.integers(-1, 3), min_size=count, max_size=count)))
    made = Ranking(
        draw(prompts),
        answers,
        (-1,) * count if skipped is not None else tiers,
        annotator=draw(names),
        kind="human",
        criterion=draw(names),
        displayed=draw(st.just(()) | st.permutations(range(count)).map(tuple)),
        time=draw(st.sampled_from(["", "2026-01-02T03:04:05+00:00"])),
        id=draw(st.just("") | names),
        all_bad=draw(st.booleans()),
        skipped=skipped,
        flags=tuple(draw(st.lists(texts, max_size=2))),
        strength=draw(st.none() | st.floats(0, 3)),
        note=draw(texts),
        edited=draw(st.none() | texts.filter(str.strip)),
        edited_from=draw(st.none() | st.integers(0, count - 1)),
        supersedes=draw(st.none() | st.just("somewhere else")),
        task=draw(names | st.just("")),
        seconds=draw(st.none() | st.floats(0, 1e6)),
        metadata=draw(objects),
        preferences=draw(preferences_of(tiers)) if skipped is None else (),
    )
    return made if not problem_of(made) else replace(made, all_bad=True)


@given(st.lists(any_ranking(), min_size=1, max_size=3))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rankings_come_back_as_they_were_given(store: Store, given: list[Ranking]) -> None:
    known = {item.id for item in store.rankings(superseded=True)}
    new = {item.with_id().id: item.with_id() for item in given if item.with_id().id not in known}
    assert store.add_rankings(new.values()) == len(new)
    assert [item for item in store.rankings(superseded=True) if item.id in new] == list(new.values())
    assert store.add_rankings(new.values()) == 0


def test_the_order_of_storing_over_pages(store: Store) -> None:
    many = [ranking(0, 1, -1, number=number).with_id() for number in range(1003)]
    assert store.add_rankings(many) == 1003
    assert list(store.rankings()) == many
    assert [task.prompt.id for task in store.tasks()] == [f"p{number}" for number in range(1003)]


def test_rankings_are_chosen(store: Store) -> None:
    mine = ranking(0, 1, 2, annotator="ada", kind="human").with_id()
    brief = ranking(0, 1, 1, criterion="brief").with_id()
    better = ranking(1, 0, 0, criterion="brief", supersedes=brief.id).with_id()
    store.add_rankings([mine, brief, better])
    assert list(store.rankings()) == [mine, better]
    assert list(store.rankings(superseded=True)) == [mine, brief, better]
    assert list(store.rankings(criterion="brief")) == [better]
    assert list(store.rankings(kinds=["human"])) == list(store.rankings(annotators=["ada"])) == [mine]
    assert list(store.rankings(kinds=[])) == []
    task = next(task for task in store.tasks() if task.criterion == "overall")
    assert list(store.rankings(task=task.id)) == [mine]
    assert store.ranking(brief.id) == brief and store.ranking("other") is None


def test_reading_shows_one_moment(store: Store) -> None:
    """What is added or corrected while somebody reads is not half seen."""
    many = [ranking(0, 1, -1, number=number).with_id() for number in range(1001)]
    store.add_rankings(many)
    reader = store.rankings()
    first = next(reader)
    store.add_rankings([ranking(1, 0, -1, number=1000, supersedes=many[1000].id)])
    assert [first, *reader] == many


def test_tasks_made_by_rankings_are_nobodys_work_until_added(store: Store) -> None:
    store.add_annotator("ada")
    store.add_rankings([ranking(0, 1, 2)])
    (task,) = store.tasks()
    assert (task.status, task.wanted, task.done, store.assign("ada")) == ("done", 0, 0, None)
    assert store.add_task(replace(PROMPT, id="p0"), ANSWERS, priority=2.0, source="answers.jsonl") == task.id
    (task,) = store.tasks()
    assert (task.status, task.wanted, task.priority, task.source) == ("open", 1, 2.0, "answers.jsonl")
    assert store.assign("ada") is not None


def test_people_count_towards_a_task_and_judges_do_not(store: Store) -> None:
    task = store.add_task(replace(PROMPT, id="p0"), ANSWERS, wanted=2)
    store.add_rankings([ranking(0, 1, 2), ranking(0, 1, 1, annotator="judge", kind="ai")])
    assert store.task(task).done == 0
    store.add_rankings([ranking(0, 1, 2, annotator="ada", kind="human")])
    store.add_rankings([ranking(-1, -1, -1, annotator="eve", kind="human", skipped="no idea")])
    assert (store.task(task).done, store.task(task).status) == (1, "open")


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (ranking(0), "1 tiers for 3 responses"),
        (ranking(-1, -1, -1), "fewer than two"),
        (ranking(0, 2, 3), "skip a number"),
        (ranking(0, 1, 2, annotator=""), "no annotator"),
        (ranking(0, 1, 2, annotator="a\0"), "cannot be stored"),
        (ranking(0, 1, 2, criterion="\ud800"), "cannot be stored"),
        (ranking(0, 1, 2, seconds=math.nan), "seconds"),
        (ranking(0, 1, 2, strength=math.nan), "strength"),
        (ranking(0, 1, 2, preferences=((0, 1, math.nan),)), "probability nan"),
        (ranking(0, 1, 2, id="x", supersedes="x"), "supersedes itself"),
        (ranking(0, 1, 2, id="x", metadata={"x": {1}}), "plain JSON"),
        (ranking(0, 1, 2, metadata={"x": {1}}), "plain JSON"),
        (replace(ranking(0), responses=ANSWERS[:1]), "at least 2"),
    ],
)
def test_a_ranking_that_is_not_valid_stores_nothing(store: Store, bad: Ranking, says: str) -> None:
    good = ranking(0, 1, 2, number=7)
    assert says in refused("invalid", lambda: store.add_rankings([good, bad]))
    assert list(store.rankings()) == [] and store.progress().tasks == 0


def test_rankings_that_supersede_each_other_are_refused(store: Store) -> None:
    ring = [ranking(0, 1, 2, id=a, supersedes=b) for a, b in ("xy", "yz", "zx")]
    assert "'x', 'y', 'z' supersede each other" in refused("invalid", lambda: store.add_rankings(ring))
    assert list(store.rankings(superseded=True)) == []
    store.add_rankings(ring[:2])  # z may be somewhere else …
    assert "supersede each other" in refused("invalid", lambda: store.add_rankings(ring[2:]))  # … and is not to come so
    store.add_rankings([ranking(1, 0, 2, id="z", supersedes="w"), ranking(1, 0, 2, id="v", supersedes="x")])
    assert [item.id for item in store.rankings()] == ["v"]


def test_a_ranking_of_another_is_not_superseded(store: Store) -> None:
    old, new = (
        ranking(0, 1, 2, id="old", annotator="ada"),
        ranking(1, 0, 2, id="new", supersedes="old", annotator="eve"),
    )
    says = refused("invalid", lambda: store.add_rankings([old, new]))
    assert "'new' of 'eve' supersedes 'old', which 'ada' gave" in says
    store.add_rankings([old])
    refused("invalid", lambda: store.add_rankings([new]))
    later = ranking(1, 0, 2, id="later", supersedes="to come", annotator="eve")
    store.add_rankings([later])
    refused("invalid", lambda: store.add_rankings([replace(old, id="to come")]))
    assert list(store.rankings()) == [old, later]
    store.add_rankings([replace(new, annotator="ada")])
    assert [item.id for item in store.rankings()] == ["later", "new"]


def test_one_id_names_one_ranking(store: Store) -> None:
    store.add_rankings([ranking(0, 1, 2, id="x"), ranking(0, 1, 2, id="x")])
    assert "'x'" in refused("conflict", lambda: store.add_rankings([ranking(1, 0, 2, id="x")]))
    refused("conflict", lambda: store.add_rankings([ranking(0, 1, 2, id="y"), ranking(1, 0, 2, id="y")]))
    assert len(list(store.rankings())) == 1


@pytest.mark.parametrize("metadata", [{"span": (1, 2)}, {"score": float("nan")}, {1: 2}])
def test_what_json_changes_is_known_again(store: Store, metadata: dict[Any, Any]) -> None:
    given = ranking(0, 1, 2, metadata=metadata)
    assert (store.add_rankings([given]), store.add_rankings([given])) == (1, 0)


def test_one_name_is_one_kind_of_annotator(store: Store) -> None:
    store.add_rankings([ranking(0, 1, 2, annotator="ada", kind="human")])
    assert "'ada'" in refused("conflict", lambda: store.add_rankings([ranking(0, 1, 2, annotator="ada", kind="ai")]))
    refused("conflict", lambda: store.add_annotator("ada", kind="ai"))


@pytest.mark.parametrize(
    "values",
    [
        {"responses": ANSWERS[:1]},
        {"wanted": -1},
        {"slice": "other"},
        {"gold": [0, 1]},
        {"gold": [0, 0, -1]},
        {"priority": math.nan},
        {"criterion": "\0"},
    ],
)
def test_a_task_that_cannot_be_ranked_is_refused(store: Store, values: dict[str, Any]) -> None:
    refused("invalid", lambda: store.add_tasks([NewTask(**{"prompt": PROMPT, "responses": ANSWERS, **values})]))
    assert list(store.tasks()) == []


@pytest.mark.parametrize("table", ["rankings", "prompts", "responses", "task_responses"])
def test_what_was_said_cannot_be_changed_or_removed(store: Store, table: str) -> None:
    store.add_rankings([ranking(0, 1, 2)])
    before = list(store.rankings())
    column = next(iter(metadata.tables[table].columns)).name
    statements = [f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}"]
    if store.path is None:
        statements.append(f"TRUNCATE {table} CASCADE")
    elif table == "rankings":
        names = ", ".join(item.name for item in metadata.tables[table].columns)
        statements.append(f"INSERT OR REPLACE INTO {table} ({names}) SELECT {names} FROM {table}")
    for statement in statements:
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), store._database.engine.begin() as connection:
            connection.execute(sa.text(statement))
    assert list(store.rankings()) == before


# ---- people ----------------------------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_only_its_hash_is_stored(store: Store) -> None:
    token = store.add_annotator("ada", role="admin")
    assert len(token) >= 40
    found = store.annotator_by_token(token)
    assert found is not None and (found.name, found.kind, found.role, found.active) == ("ada", "human", "admin", True)
    with store._database.reading() as connection:
        assert token not in str(connection.execute(sa.text("SELECT * FROM annotators")).all())
    for wrong in ("", token[:-1], token + "x", "\ud800"):
        assert store.annotator_by_token(wrong) is None


def test_access_is_ended_and_given_anew(store: Store) -> None:
    first = store.add_annotator("ada")
    store.revoke("ada")
    assert store.annotator_by_token(first) is None and not store.annotators()[0].active
    second = store.new_token("ada")
    assert store.annotator_by_token(first) is None and store.annotator_by_token(second) is not None
    refused("conflict", lambda: store.add_annotator("ada"))
    refused("unknown_annotator", lambda: store.revoke("eve"))
    refused("unknown_annotator", lambda: store.new_token("eve"))


def test_judges_and_simulated_annotators_get_no_token(store: Store) -> None:
    assert store.add_annotator("judge", kind="ai") == store.add_annotator("panel", kind="simulated") == ""
    assert store.annotator_by_token("") is None
    refused("unknown_annotator", lambda: store.new_token("judge"))


def test_one_whose_rankings_were_imported_is_let_in(store: Store) -> None:
    store.add_rankings([ranking(0, 1, 2, annotator="ada", kind="human")])
    assert store.annotator_by_token(store.add_annotator("ada")) is not None


@pytest.mark.parametrize("values", [{"name": " "}, {"name": "a\0"}, {"kind": "robot"}, {"role": "boss"}])
def test_an_annotator_that_cannot_be(store: Store, values: dict[str, str]) -> None:
    refused("invalid", lambda: store.add_annotator(**{"name": "ada", **values}))


# ---- tasks, gold, flags, progress ------------------------------------------------------------------------------------


def test_a_task_is_named_by_its_content(store: Store) -> None:
    task = store.add_task(PROMPT, ANSWERS, gold=[0, 0, 1], gold_note="the third is rude", slice="random")
    assert store.add_task(PROMPT, ANSWERS) == task
    assert store.add_task(PROMPT, ANSWERS, wanted=3) == task
    others = {store.add_task(PROMPT, ANSWERS[::-1]), store.add_task(PROMPT, ANSWERS, criterion="brief")}
    assert len(others | {task}) == len(list(store.tasks())) == 3
    found = store.task(task)
    assert (found.prompt, found.responses, found.wanted, found.slice) == (PROMPT, ANSWERS, 3, "random")
    assert (found.gold, found.gold_note) == ((0, 0, 1), "the third is rude")
    assert store.gold_tasks() == [found]
    store.set_gold(task, [5, 1, -1])
    assert store.task(task).gold == (1, 0, -1)
    refused("unknown_task", lambda: store.task("x"))
    refused("unknown_task", lambda: store.set_gold("x", [0, 1]))
    refused("unknown_task", lambda: store.set_priorities({task: 1.0, "x": 1.0}))
    assert store.task(task).priority == 0.0


def test_equal_responses_keep_their_numbers(store: Store) -> None:
    twice = (ANSWERS[0], ANSWERS[0], ANSWERS[1])
    assert store.task(store.add_task(PROMPT, twice)).responses == twice


def test_a_flag_holds_a_task_back_until_it_is_looked_at(store: Store) -> None:
    task = store.add_task(PROMPT, ANSWERS, wanted=2)
    for name in ("ada", "eve"):
        store.add_annotator(name)
    work = store.assign("ada")
    assert work is not None
    said = store.submit(work.id, "ada", "k", tiers=[0, 1, -1], flags=["rude", "wrong"])
    assert [(flag.ranking, flag.task, flag.annotator, flag.reason) for flag in store.flags()] == [
        (said.id, task, "ada", "rude"),
        (said.id, task, "ada", "wrong"),
    ]
    assert (store.task(task).status, store.assign("eve")) == ("flagged", None)
    store.reopen_task(task)
    assert store.task(task).status == "open" and all(flag.resolved for flag in store.flags())
    assert store.assign("eve") is not None
    store.submit(work.id, "ada", "k2", tiers=[0, 1, -1], flags=["rude"])
    assert store.task(task).status == "flagged"
    store.submit(work.id, "ada", "k3", tiers=[0, 1, -1])
    assert (store.task(task).status, store.flags()) == ("open", [])
    store.submit(work.id, "ada", "k4", tiers=[0, 1, -1], flags=["rude"])
    store.close_task(task)
    assert (store.task(task).status, store.task(task).closed) == ("done", True)
    assert all(flag.resolved for flag in store.flags())
    refused("unknown_task", lambda: store.close_task("x"))


def test_progress(store: Store) -> None:
    store.add_annotator("ada")
    store.add_annotator("judge", kind="ai")
    for number in range(4):
        gold = [0, 1, 2] if number == 0 else None
        store.add_task(replace(PROMPT, id=f"p{number}"), ANSWERS, gold=gold, priority=-number)
    assert store.progress_of("ada") == (0, 4, 4)
    for number, said in enumerate([{"tiers": [0, 0, 1]}, {"tiers": [0, 1, -1]}, {"tiers": [-1] * 3, "skipped": "?"}]):
        work = store.assign("ada", random_share=0, now=1000.0 + number)
        assert work is not None and work.task.prompt.id == f"p{number}"
        store.submit(work.id, "ada", f"k{number}", seconds=10.0 * (number + 1), now=1000.0 + number, **said)
    store.assign("ada", now=1010.0, lease_seconds=60)
    found = store.progress(now=1011.0)
    assert (found.tasks, found.done, found.open, found.flagged) == (4, 2, 2, 0)
    assert (found.rankings, found.live_leases) == (2, 1)
    assert store.progress(now=2000.0).live_leases == 0
    work_done = found.by_annotator["ada"]
    assert (work_done.rankings, work_done.skipped, work_done.median_seconds) == (2, 1, 15.0)
    assert (work_done.gold_right, work_done.gold_pairs) == (2.5, 3)
    assert work_done.last == "1970-01-01T00:16:42.000+00:00"
    assert found.by_annotator["judge"].rankings == 0
    assert store.progress_of("ada") == (3, 1, 4)
