"""The pages of annotator and admin over a real store: what is given arrives as given, what is wrong is told."""

import csv
import io
import json
import os
import re
import sqlite3
from pathlib import Path

import pytest
from tests.web.serving import JSON, ORIGIN, TIERS, Person, answers_of, client_of, make_store, prompt_of

from trivium.data.records import Message, Prompt
from trivium.feedback.rankings.record import Response, from_row
from trivium.feedback.rankings.store import Store, StoreError
from trivium.web import views
from trivium.web.access import csrf_token
from trivium.web.settings import ServerSettings


def stored(place: Path, **options: object) -> list:
    with Store.open(place) as store:
        return list(store.rankings(**options))


def test_a_ranking_arrives_as_given(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        mira = Person(client, tokens["mira"])
        answer = mira.submit(
            _tier_0="3", _tier_1="", _tier_2="1", strength="2", note=" why\r\nso ", flag="odd", seconds="12.5"
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/rank")
    (ranking,) = stored(place)
    assert ranking.tiers == (1, -1, 0)
    assert (ranking.annotator, ranking.strength, ranking.note) == ("mira", 2.0, "why\nso")
    assert (ranking.flags, ranking.seconds) == (("odd",), 12.5)
    assert sorted(ranking.displayed) == [0, 1, 2]


def test_the_page_shows_answers_blind_in_the_order_that_is_stored(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path, tasks=1, answers=5)
    with client_of(place) as client:
        mira = Person(client, tokens["mira"])
        page = client.get("/rank").text
        assert page == re.sub("some-model", "", page), "the page tells which model answered"
        shown = [int(number) for number in re.findall(r"Answer (\d) to 0", page)]
        mira.submit(_tier_0="1", _tier_1="2")
    assert list(stored(place)[0].displayed) == list(dict.fromkeys(shown))


def test_no_page_tells_where_an_answer_stands_in_the_task(tmp_path: Path) -> None:
    """Two orders of one task give pages that differ in the texts alone: new, refused, and to be corrected."""
    place, tokens = make_store(tmp_path, tasks=0)
    answers = [Response(f"({letter})") for letter in "pqrs"]
    with Store.open(place) as store:
        store.add_task(prompt_of(0), answers, wanted=2)
    pages, orders = [], []
    with client_of(place, ServerSettings(seed=1)) as client:
        for name in ("mira", "tom"):
            client.cookies.clear()
            person = Person(client, tokens[name])
            hidden = person.form()
            seen = [client.get("/rank").text]
            orders.append(person.displayed(hidden["assignment"]))
            assert re.findall(r"\(([pqrs])\)", seen[0]) == [answers[number].text[1] for number in orders[-1]]
            wrong = {**hidden, **{f"tier-{at}": "x" for at in range(4)}, "tier-0": "4", "edited_from": "2"}
            seen.append(client.post("/rank", data=wrong, headers=ORIGIN).text)
            right = {"tier-0": "2", "tier-1": "1", "tier-3": "2", "edited": "better", "edited_from": "3"}
            assert client.post("/rank", data={**hidden, **right}, headers=JSON).json()["ok"]
            seen.append(client.get("/back").text)
            pages.append([_without_texts(page, name, hidden["assignment"]) for page in seen])
    assert orders[0] != orders[1] and list(range(4)) not in map(list, orders)
    assert pages[0] == pages[1]
    for ranking, displayed in zip(stored(place), orders, strict=True):
        assert ranking.displayed == displayed and ranking.edited_from == displayed[3]
        assert [ranking.tiers[number] for number in displayed] == [1, 0, -1, 1]


def _without_texts(page: str, name: str, assignment: str) -> str:
    page = re.sub(r'name="(csrf|key)" value="[^"]*"', "", page)
    return re.sub(r"\([pqrs]\)", "", page).replace(assignment, "").replace(name, "")


def test_ties_all_bad_and_skips(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        mira = Person(client, tokens["mira"])
        mira.submit(**TIERS)
        mira.submit(all_bad="on")
        answer = mira.submit(action="skip", reason="")
        assert answer.status_code == 400 and "why you skip" in answer.text
        mira.submit(action="skip", reason="not my language")
        assert "All done" in client.get("/rank").text
    tie, bad, skip = stored(place)
    assert tie.tiers == (0, 1, 1) and bad.all_bad and bad.tiers == (-1, -1, -1)
    assert skip.skipped == "not my language"


def test_an_edited_answer_is_kept_and_an_unchanged_one_is_none(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path, tasks=2)
    with client_of(place) as client:
        mira = Person(client, tokens["mira"])
        mira.submit(**TIERS, edited="Better\r\nso", edited_from="0")
        text = stored(place)[0].responses[1].text
        assert text
        other = re.search(r"Answer 1 to (\d)", client.get("/rank").text)
        assert other
        mira.submit(**TIERS, edited=other[0], edited_from="1")
    first, second = stored(place)
    assert (first.edited, first.edited_from) == ("Better\nso", 0)
    assert (second.edited, second.edited_from) == (None, None)


def test_a_repeated_submit_is_stored_once(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        form = {**Person(client, tokens["mira"]).form(), "tier-0": "1", "tier-1": "2"}
        answers = [client.post("/rank", data=form, headers=JSON).json() for _ in range(3)]
        assert len({answer["ranking"] for answer in answers}) == 1 and all(answer["ok"] for answer in answers)
    assert len(stored(place)) == 1


def test_a_key_with_other_values_is_told_and_corrects_when_sent_again(tmp_path: Path) -> None:
    """Without the page's script, a form whose answer was lost is changed and sent again under its old key."""
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        mira = Person(client, tokens["mira"])
        form = {**mira.form(), "tier-0": "1", "tier-1": "2"}
        displayed = mira.displayed(form["assignment"])
        assert client.post("/rank", data=form, headers=JSON).json()["ok"]
        assert client.post("/rank", data={**form, "seconds": "9"}, headers=JSON).json()["ok"]
        changed = {**form, "tier-0": "2", "tier-1": "1"}
        assert client.post("/rank", data=changed, headers=JSON).status_code == 409
        skipped = {**form, "action": "skip", "reason": "no"}
        assert client.post("/rank", data=skipped, headers=JSON).status_code == 409
        page = client.post("/rank", data=changed, headers=ORIGIN)
        assert page.status_code == 409 and re.search(r'name="tier-0" value="2"[^>]*checked', page.text)
        (key,) = re.findall(r'name="key" value="([^"]*)"', page.text)
        assert key != form["key"] and len(stored(place)) == 1
        assert client.post("/rank", data={**changed, "key": key}, headers=JSON).json()["ok"]
    assert [[ranking.tiers[number] for number in displayed] for ranking in stored(place)] == [[1, 0, -1]]


def test_going_back_supersedes(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        mira = Person(client, tokens["mira"])
        assert client.get("/back").status_code == 404
        mira.submit(**TIERS, note="first thought", strength="3", edited="Better", edited_from="1")
        page = client.get("/back").text
        assert "first thought" in page
        form = mira.by_place(mira.form("/back")["assignment"], {"tier-0": "1", "tier-1": "2", "edited_from": "1"})
        source = form.pop("edited_from")
        for name, rank in form.items():
            assert re.search(f'name="{name}" value="{rank}"[^>]*checked', page)
        assert re.search(f'<option value="{source}" selected>Answer {views.label(int(source))}<', page)
        mira.submit("/back", _tier_0="2", _tier_1="1")
    assert [ranking.tiers for ranking in stored(place)] == [(1, 0, -1)]
    assert [ranking.tiers for ranking in stored(place, superseded=True)] == [(0, 1, 1), (1, 0, -1)]


def test_an_expired_lease_is_stored_as_late(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        mira = Person(client, tokens["mira"])
        form = mira.form()
        with sqlite3.connect(place) as database:
            database.execute("UPDATE assignments SET expires = 1")
        answer = client.post("/rank", data={**form, "tier-0": "1", "tier-1": "2"}, headers=JSON)
        assert answer.json()["ok"]
    assert stored(place)[0].metadata == {"late": True}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"_tier_7": "1"}, "answer H"),
        ({"_tier_0": "10"}, "ranks go from 1 to 9"),
        ({"_tier_0": "-1"}, "ranks go from 1 to 9"),
        ({"_tier_0": "1"}, "fewer than two"),
        ({}, "fewer than two"),
        ({**TIERS, "strength": "9"}, "strength"),
        ({**TIERS, "extra": "x"}, "'extra'"),
        ({**TIERS, "all_bad": "maybe"}, "all_bad"),
        ({**TIERS, "seconds": "nan"}, "seconds"),
        ({**TIERS, "edited": "x", "edited_from": "5"}, "starts from an answer"),
        ({**TIERS, "note": "x" * 10_001}, "10,000"),
        ({**TIERS, "note": "a\x00b"}, "NUL"),
        ({**TIERS, "key": ""}, "key"),
        ({**TIERS, "action": "delete"}, "'delete'"),
    ],
)
def test_a_tampered_form_is_refused_and_keeps_its_values(tmp_path: Path, values: dict, said: str) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        mira = Person(client, tokens["mira"])
        answer = mira.submit(**{"note": "what I wrote", **values})
        assert answer.status_code == 400 and said in answer.text.replace("&#39;", "'")
        if "NUL" not in said and "10,000" not in said:
            assert "what I wrote" in answer.text
        as_json = mira.submit(**values, headers=JSON)
        assert as_json.status_code == 400 and said in as_json.json()["error"]
    assert stored(place) == []


def test_a_form_that_is_none(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        form = Person(client, tokens["mira"]).form()
        assert client.post("/rank", files={"a": b"b"}, headers=ORIGIN).status_code == 415
        kind = {**JSON, "Content-Type": "application/x-www-form-urlencoded"}
        for body in (b"\xff\xfe", b"note=%ff", "&".join(["a=1"] * 100).encode(), b"note=a&note=b"):
            assert client.post("/rank", content=body, headers=kind).status_code == 400
        unknown = client.post("/rank", data={**form, "assignment": "f" * 32, "tier-0": "1"}, headers=JSON)
        assert unknown.status_code == 404 and "no such assignment" in unknown.json()["error"]


def test_another_annotators_assignment_is_refused(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        form = Person(client, tokens["mira"]).form()
        client.cookies.clear()
        tom = Person(client, tokens["tom"])
        answer = tom.submit(**TIERS, assignment=form["assignment"], headers=JSON)
        assert answer.status_code == 409 and "another annotator" in answer.json()["error"]
    assert stored(place) == []


def test_half_of_a_surrogate_pair_in_the_origin_is_shown(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path, tasks=0)
    with Store.open(place) as store:
        prompt = Prompt("p", (Message("us\ud83der", "?"),))
        task = store.add_task(prompt, [Response("a", "m", "\ud83d"), Response("b")])
    with client_of(place) as client:
        Person(client, tokens["ada"])
        assert client.get(f"/admin/tasks/{task}").status_code == client.get("/rank").status_code == 200


def test_an_answer_that_a_field_cannot_hold_as_it_is_was_not_edited(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path, tasks=0)
    with Store.open(place) as store:
        store.add_task(prompt_of(0), [Response("one\rtwo \x00\ud83d"), Response("b")])
    with client_of(place) as client:
        text = views.visible("one\rtwo \x00\ud83d").replace("\r", "\r\n")  # as a browser sends it
        Person(client, tokens["mira"]).submit(_tier_0="1", _tier_1="2", edited=text, edited_from="0")
    assert stored(place)[0].edited is None


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    place = tmp_path / "rankings.db"
    hostile = "<script>alert(1)</script>\x00\ud800\"'><img src=x onerror=alert(1)>"
    with Store.open(place) as store:
        task = store.add_task(
            Prompt("p", (Message("user", hostile),)), [Response(hostile, "<b>model"), Response("other")], source="<b>"
        )
        token = store.add_annotator("ada", role="admin")
    with client_of(place) as client:
        ada = Person(client, token)
        pages = [client.get(path).text for path in ("/rank", "/admin", f"/admin/tasks/{task}")]
        ada.submit(_tier_0="1", _tier_1="2", note=hostile.replace("\x00", "").replace("\ud800", ""), flag="<b>")
        pages += [client.get(path).text for path in ("/back", "/admin", f"/admin/tasks/{task}")]
        for page in pages:
            assert "<script>alert" not in page and "<img" not in page and "<b>model" not in page
            assert "&lt;script&gt;" in page
        assert json.loads(client.get("/admin/export/rankings.jsonl").text)["responses"][0]["text"] == hostile


@pytest.mark.parametrize(("code", "status"), [("locked", 503), ("read_only", 503), ("invalid", 400), ("conflict", 409)])
def test_what_the_store_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, status: int
) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        mira = Person(client, tokens["mira"])
        form = mira.form()

        def refuse(*_: object, **__: object) -> None:
            raise StoreError(code, "the store says no")

        monkeypatch.setattr(Store, "submit", refuse)
        answer = client.post("/rank", data={**form, "tier-0": "1", "tier-1": "2"}, headers=JSON)
        assert answer.status_code == status and answer.json() == {"ok": False, "error": "the store says no"}
        monkeypatch.setattr(Store, "assign", refuse)
        page = client.get("/rank")
        assert page.status_code == status and "The store says no" in page.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_read_only_store_is_told_on_the_page(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    for path in (place, tmp_path):
        path.chmod(0o555)
    try:
        with client_of(place) as client:
            assert client.get(f"/enter/{tokens['mira']}", follow_redirects=False).status_code == 303
            assert client.get("/rank").status_code == 503
    finally:
        tmp_path.chmod(0o755)


def test_a_fault_of_our_own_is_a_500_with_the_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        Person(client, tokens["mira"])
        monkeypatch.setattr(views, "blind_answers", lambda _: 1 / 0)
        answer = client.get("/rank")
        assert answer.status_code == 500 and "ZeroDivision" not in answer.text
        assert "Content-Security-Policy" in answer.headers


# ---- admin -----------------------------------------------------------------------------------------------------------


def test_the_admin_sees_what_was_done(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path, tasks=1, wanted=2, gold=[0, 1, 2])
    with client_of(place) as client:
        for name, flag in (("mira", ""), ("tom", "broken prompt")):
            client.cookies.clear()
            Person(client, tokens[name]).submit(_tier_0="1", _tier_1="2", _tier_2="3", flag=flag)
            assert client.get("/admin").status_code == 403
        client.cookies.clear()
        Person(client, tokens["ada"])
        page = client.get("/admin").text
        assert "broken prompt" in page and "100%" in page and "mira" in page
        (task,) = set(re.findall(r"/admin/tasks/(\w+)", page))
        history = client.get(f"/admin/tasks/{task}").text
        assert "mira" in history and "some-model" in history
        assert client.get("/admin/tasks/none").status_code == 404


def test_a_flagged_task_is_reopened_by_the_admin_alone(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path, tasks=1, wanted=2)
    with client_of(place) as client:
        Person(client, tokens["mira"]).submit(**TIERS, flag="odd")
        with Store.open(place) as store:
            task = next(store.tasks())
            assert task.status == "flagged"
        assert client.post(f"/admin/tasks/{task.id}", data={"action": "reopen"}, headers=ORIGIN).status_code == 403
        client.cookies.clear()
        Person(client, tokens["ada"])
        form = {"csrf": csrf_token(tokens["ada"]), "action": "reopen"}
        assert client.post(f"/admin/tasks/{task.id}", data={"action": "reopen"}, headers=ORIGIN).status_code == 403
        assert client.post(f"/admin/tasks/{task.id}", data={**form, "action": "x"}, headers=ORIGIN).status_code == 400
        answer = client.post(f"/admin/tasks/{task.id}", data=form, headers=ORIGIN, follow_redirects=False)
        assert answer.status_code == 303
    with Store.open(place) as store:
        assert store.task(task.id).status == "open"


def test_the_admin_may_close_a_flagged_task(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path, tasks=1, wanted=2)
    with client_of(place) as client:
        Person(client, tokens["mira"]).submit(**TIERS, flag="odd")
        client.cookies.clear()
        Person(client, tokens["ada"])
        (task,) = set(re.findall(r"/admin/tasks/(\w+)", client.get("/admin").text))
        page = client.get(f"/admin/tasks/{task}").text
        assert 'value="close"' in page and 'value="reopen"' in page
        form = {"csrf": csrf_token(tokens["ada"]), "action": "close"}
        closed = client.post(f"/admin/tasks/{task}", data=form, headers=ORIGIN).text
        assert 'value="close"' not in closed and 'value="reopen"' in closed
        assert "odd" not in client.get("/admin").text  # it was looked at


def test_the_admins_agreement_follows_a_correction(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path, tasks=1, wanted=2)
    with client_of(place) as client:
        shown = []
        for name, path, tiers in (("tom", "/rank", "12"), ("mira", "/rank", "12"), ("mira", "/back", "21")):
            client.cookies.clear()
            Person(client, tokens[name]).submit(path, _tier_0=tiers[0], _tier_1=tiers[1])
            client.cookies.clear()
            Person(client, tokens["ada"])
            shown.append(re.findall(r'<td class="number">(\d+%)</td>', client.get("/admin").text)[:1])
        assert shown == [[], ["100%"], ["0%"]]


def test_exports_are_attachments_of_text(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with Store.open(place) as store:
        tokens["formula"] = store.add_annotator("=cmd|' /C calc'!A0")
    with client_of(place) as client:
        mira = Person(client, tokens["formula"])
        mira.submit(**TIERS, edited="A better one")
        mira.submit("/back", _tier_0="1", _tier_1="2", edited="A better one")
        client.cookies.clear()
        Person(client, tokens["ada"])
        for name in views.EXPORTS:
            answer = client.get(f"/admin/export/{name}")
            assert answer.status_code == 200, name
            assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
            assert answer.headers["content-type"].startswith(("text/plain", "text/csv"))
        rows = [json.loads(line) for line in client.get("/admin/export/rankings.jsonl").text.splitlines()]
        assert [from_row(row).tiers for row in rows] == [(0, 1, 1), (0, 1, -1)]
        pairs = client.get("/admin/export/pairs.jsonl").text.splitlines()
        assert len(pairs) == 1
        assert "A better one" in client.get("/admin/export/demonstrations.jsonl").text
        table = list(csv.reader(io.StringIO(client.get("/admin/export/annotators.csv").text)))
        assert "'=cmd|' /C calc'!A0" in [row[0] for row in table]
        assert client.get("/admin/export/secrets.txt").status_code == 404


# ---- the rest --------------------------------------------------------------------------------------------------------


def test_guidelines_are_text(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path)
    with client_of(place) as client:
        assert client.get("/guidelines").status_code == 403
        Person(client, tokens["mira"])
        assert "What counts" in client.get("/guidelines").text
    found = views.sections("intro\n\n## <b>Title</b>\n* one\n  more\n* two\n\ntext")
    assert found[1] == {
        "title": "<b>Title</b>",
        "blocks": [{"kind": "list", "items": ["one more", "two"]}, {"kind": "text", "text": "text"}],
    }


def test_progress_counts_what_is_left_for_the_annotator(tmp_path: Path) -> None:
    place, tokens = make_store(tmp_path, tasks=3, wanted=2)
    with client_of(place) as client:
        mira = Person(client, tokens["mira"])
        mira.submit(**TIERS)
        mira.submit("/back", _tier_0="1", _tier_1="2")
        mira.submit(action="skip", reason="no")
        with Store.open(place) as store:
            assert store.progress_of("mira") == (2, 1, 3)
            assert store.progress_of("tom") == (0, 3, 3)
            store.add_task(prompt_of(9), answers_of(9))
            assert store.progress_of("mira") == (2, 2, 4)


def test_health_needs_no_cookie(tmp_path: Path) -> None:
    place, _ = make_store(tmp_path)
    with client_of(place) as client:
        assert client.get("/health").json() == {"ok": True}
        assert client.get("/nowhere").status_code == 404
        assert client.delete("/rank", headers=ORIGIN).status_code == 405
