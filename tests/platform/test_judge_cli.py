"""``trivium judge``: with the fake judge, which prefers the longer answer."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.platform.test_cli import call
from trivium.data.records import Message, Prompt
from trivium.feedback.judges import exchange
from trivium.feedback.judges.audit import Contradiction
from trivium.feedback.judges.base import Comparison
from trivium.feedback.judges.judge import Judge
from trivium.feedback.judges.pairs import Item
from trivium.feedback.rankings.contents import NewTask
from trivium.feedback.rankings.record import Ranking, Response
from trivium.feedback.rankings.store import Store

TEXTS = (
    "an answer that goes on and on, much longer than any of the others",
    "short",
    "an answer between the two others",
)
FAKE = ("-m", "stub", "--backend", "fake")
ESCAPE = "\x1b[2J\x9b31m\u202e"  # clears a terminal, colours it, turns the text round


def prompt(number: int) -> Prompt:
    return Prompt(f"p{number}", (Message("user", f"question {number} {ESCAPE}"),), answer="short")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Five tasks, two of which a person has ranked as the fake judge does."""
    place = tmp_path / "rankings.db"
    answers = tuple(Response(text) for text in TEXTS)
    with Store.open(place) as opened:
        names = opened.add_tasks(NewTask(prompt(number), answers) for number in range(5))
        opened.add_rankings(
            Ranking(prompt(number), answers, (0, 2, 1), "ann", task=names[number]) for number in range(2)
        )
    return place


def judged(place: Path) -> list[Ranking]:
    with Store.open(place) as store:
        return list(store.rankings(kinds=["ai"]))


def test_rank_goes_on_where_it_was(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("judge", "rank", str(store), *FAKE) == 0
    out = capsys.readouterr().out
    assert "judge:stub ranked 5 tasks; 0 were ranked before" in out
    assert "ai and human: agreement 1.000, kappa 1.000 (6 comparisons)" in out
    assert [ranking.tiers for ranking in judged(store)] == [(0, 2, 1)] * 5
    assert (store.parent / "judge.db").is_file()

    assert call("judge", "rank", str(store), *FAKE) == 0
    out = capsys.readouterr().out
    assert "ranked 0 tasks; 5 were ranked before" in out and "0 calls" in out

    # a judge that is asked otherwise takes back what it said
    assert call("judge", "rank", str(store), *FAKE, "-c", "restaurant") == 0
    assert "ranked 5 tasks, 5 of them anew" in capsys.readouterr().out
    assert len(judged(store)) == 5 and len({ranking.metadata["judge"] for ranking in judged(store)}) == 1


def test_a_run_that_is_cut_keeps_what_it_ranked(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exchange, "AT_ONCE", 2)
    whole = Judge.compare
    calls = []

    def cut(self: Judge, pairs: list[object]) -> list[Comparison]:
        calls.append(len(pairs))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, pairs)  # type: ignore[arg-type]

    monkeypatch.setattr(Judge, "compare", cut)
    assert call("judge", "rank", str(store), *FAKE) == 130
    assert "resumes" in capsys.readouterr().err
    assert len(judged(store)) == 2
    assert call("judge", "rank", str(store), *FAKE) == 0
    assert "ranked 3 tasks; 2 were ranked before" in capsys.readouterr().out


def test_audit_prints_a_table_and_a_verdict(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("judge", "audit", str(store), *FAKE) == 0
    out = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert lines["agreement with the reference"].endswith("1.000 [1.000, 1.000]")
    assert lines["pairs"].endswith(" 6")
    assert lines["position bias"].endswith("+0.000 [+0.000, +0.000]")
    assert "judge:stub agrees with the annotators on 100.0%" in out and "better than chance." in out

    gold = "{kind: length, options: {target: 0, unit: characters, penalty: 0.01}}"
    options = ("--gold", gold, "--json", "--ask", "both", "--out", str(tmp_path / "audit.json"))
    assert call("judge", "audit", str(store), *FAKE, *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "audit.json").read_text())
    assert report["reference"] == "gold" and report["chance"] and report["asked"]["score"]["n"] == 6


def test_contradictions_go_to_people(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A judge that takes the place shown first for the better one whenever the longer text is not twice as long."""

    def compare(self: Judge, pairs: list[object]) -> list[Comparison]:
        return [Comparison(0.55, 0.6 + number / 100, 0.5 - number / 100) for number, _ in enumerate(pairs)]

    monkeypatch.setattr(Judge, "compare", compare)
    people = tmp_path / "people.db"
    assert call("judge", "audit", str(store), *FAKE, "--to-humans", str(people)) == 0
    out = capsys.readouterr().out
    # the first of six pairs has 0.5 in one order, which contradicts nothing
    assert "5 contradictions" in out and "5 pairs on which the judge contradicts itself are now in" in out
    assert f"`trivium rank {people}` lets people rank them" in out
    with Store.open(people) as opened:
        tasks = list(opened.tasks())
        assert {(task.source, task.wanted, task.slice, len(task.responses)) for task in tasks} == {
            ("judge", 1, "active", 2)
        }
        opened.add_annotator("ben")
        first = opened.assign("ben", random_share=0.0)
        assert first is not None and first.task.priority == max(task.priority for task in tasks) == pytest.approx(0.2)
    assert call("judge", "audit", str(store), *FAKE, "--to-humans", str(people)) == 0
    assert "0 pairs on which the judge contradicts itself" in capsys.readouterr().out


def test_what_people_have_is_not_sent_twice(tmp_path: Path) -> None:
    pair = Item(prompt(0), (Response("a"), Response("b")), "overall", {})
    with Store.open(tmp_path / "s.db") as store:
        assert exchange.send_to_people(store, [Contradiction(pair, 0.5)]) == 1
        assert exchange.send_to_people(store, [Contradiction(pair, 0.5)]) == 0
        assert len(list(store.tasks())) == 1


def test_log_shows_what_was_said_and_drives_no_terminal(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("judge", "rank", str(store), *FAKE)
    path = store.parent / "judge.db"
    with sqlite3.connect(path) as connection:
        count = connection.execute("SELECT count(*) FROM calls").fetchone()[0]
        connection.execute("UPDATE calls SET missing = ? WHERE id = ?", (f"refused {ESCAPE}", count))
    connection.close()
    capsys.readouterr()
    assert call("judge", "log", str(store.parent), "--last", "2") == 0
    out = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in out)
    assert "\\x1b[2J\\x9b31m\\u202e" in out and "short" in out
    assert "verdict: A 0." in out and "no verdict: refused" in out
    assert f"2 of {count} calls, 1 without a verdict" in out


def test_constitutions(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call("judge", "constitutions") == 0
    assert any(line.startswith("general") and "helpful" in line for line in capsys.readouterr().out.splitlines())
    assert call("judge", "constitutions", "general") == 0
    mine = tmp_path / "mine.yaml"
    mine.write_text(capsys.readouterr().out)
    assert call("judge", "constitutions", str(mine)) == 0
    assert capsys.readouterr().out == mine.read_text()


@pytest.mark.parametrize("name", ["rank", "audit", "log", "constitutions"])
def test_every_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("judge", name, "--help") == 0
    out = capsys.readouterr().out
    assert "Example" in out and f"trivium judge {name}" in out.split("Example")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rank", "missing.db", *FAKE), "missing.db"),
        (("rank", "STORE", *FAKE, "--criterion", "taste"), "no tasks under the criterion 'taste'"),
        (("rank", "STORE", "-m", "nothing-here/at-all-0", "--set", "samples=2"), "samples is for a server"),
        (("rank", "STORE", *FAKE, "--set", "principle=all"), "did you mean 'principles'?"),
        (("rank", "STORE", *FAKE, "--set", "principles=some"), "must be one of all, random"),
        (("rank", "STORE", *FAKE, "--set", "model=x"), "--set model has an option of its own; give --model"),
        (("rank", "STORE", *FAKE, "-c", "missing"), "no constitution missing"),
        (("rank", "STORE", *FAKE, "--url", "http://x"), "url is for a server"),
        (("audit", "STORE", *FAKE, "--gold", "primmer"), "did you mean 'primer'"),
        (
            ("audit", "STORE", *FAKE, "--gold", "{kind: primer, option: 1}"),
            "a verifier has no key 'option' (did you mean",
        ),
        (("audit", "STORE", *FAKE, "--out", "."), "is a directory"),
        (("audit", "STORE", *FAKE, "--criterion", "taste"), "taste"),
        (("audit", "STORE", *FAKE, "--ask", "score", "--to-humans", "x.db"), "in both orders"),
        (("audit", "STORE", *FAKE, "--set", "both_orders=false", "--to-humans", "x.db"), "in both orders"),
        (("log", "missing.db"), "there is no file missing.db"),
        (("log", "STORE"), "a database of something else"),
        (("constitutions", "missing"), "no constitution missing"),
    ],
    ids=lambda value: "-".join(value[:6]) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_sentence(
    store: Path, arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("judge", *(str(store) if part == "STORE" else part for part in arguments)) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and words in err
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err
