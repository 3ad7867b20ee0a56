"""The file of calls: cache and log at once, for several processes, through kills, faults and other versions."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.data.records import Message
from trivium.errors import UserError
from trivium.feedback.judges.base import OnReply, Question, Reply
from trivium.feedback.judges.calls import Calls
from trivium.feedback.judges.fake import FakeBackend
from trivium.feedback.judges.usage import Budget, BudgetSpent, Usage

# What a killed, and then another, process does: 200 questions to a judge that takes 5 ms for each.
CHILD = """
import sys
from trivium.data.records import Message
from trivium.feedback.judges.base import Question, Reply
from trivium.feedback.judges.calls import Calls
from trivium.feedback.judges.fake import FakeBackend

backend = FakeBackend(lambda question: Reply(text=question.messages[0].content.upper()), seconds=0.005)
calls = Calls(backend, sys.argv[1])
print("ready", flush=True)
replies = calls.ask([Question((Message("user", f"question {number}"),)) for number in range(200)])
assert [reply.text for reply in replies] == [f"QUESTION {number}" for number in range(200)]
print(calls.usage.calls, calls.usage.cached, flush=True)
"""


def question(number: int | str, choices: tuple[str, ...] = ("A", "B")) -> Question:
    return Question((Message("user", f"question {number}"),), choices)


def certain(first: float = 0.8) -> FakeBackend:
    return FakeBackend(lambda _: Reply((first, 1 - first), "", "", 10, 1))


def test_a_question_is_asked_once_in_this_process_and_the_next(tmp_path: Path) -> None:
    asked = [question(number % 7) for number in range(20)]
    for turn in range(3):
        backend = certain()
        calls = Calls(backend, tmp_path / "deep" / "judge.db")
        assert calls.ask(asked) == calls.ask(asked)
        assert len(backend.asked) == (7 if turn == 0 else 0)
        assert calls.usage.calls == len(backend.asked)
        assert calls.usage.cached == 40 - len(backend.asked)
        assert calls.usage.tokens == 11 * len(backend.asked)
        assert calls.count() == 7
        calls.close()


def test_without_a_file_calls_are_kept_while_the_judge_lives() -> None:
    backend = certain()
    calls = Calls(backend)
    calls.ask([question(1), question(2)])
    calls.ask([question(2), question(1)])
    assert len(backend.asked) == calls.count() == 2


@given(
    st.floats(0, 1),
    st.text(),
    st.lists(st.tuples(st.sampled_from(["system", "user"]), st.text()), min_size=1, max_size=3),
)
def test_what_is_read_back_is_what_was_answered(probability: float, text: str, messages: list[tuple[str, str]]) -> None:
    asked = Question(tuple(Message(role, content) for role, content in messages), ("A", "B"))
    calls = Calls(FakeBackend(lambda _: Reply((probability, 1 - probability), text)))
    (first,), (again,) = calls.ask([asked]), calls.ask([asked])
    assert first == again == Reply((probability, 1 - probability), text)
    assert next(calls.rows())["request"]["messages"] == [list(message) for message in messages]


def test_everything_that_is_asked_makes_another_call() -> None:
    message = (Message("user", "a"),)
    asked = [
        Question(message),
        Question((Message("system", "a"),)),
        Question((*message, *message)),
        Question(message, ("A", "B")),
        Question(message, ("B", "A")),
        Question(message, temperature=0.5),
        Question(message, max_new_tokens=7),
        Question(message, stream="1"),
    ]
    calls = Calls(FakeBackend(lambda _: Reply(text="x")))
    keys = {calls.key(one) for one in asked} | {Calls(FakeBackend(identity="other")).key(asked[0])}
    assert len(keys) == len(asked) + 1


def test_a_missing_reply_counts_once_and_another_process_asks_again(tmp_path: Path) -> None:
    failing = FakeBackend(lambda _: Reply(missing="the server said 500", prompt_tokens=5))
    calls = Calls(failing, tmp_path / "judge.db")
    assert (
        calls.ask([question(1)]) == calls.ask([question(1)]) == [Reply(missing="the server said 500", prompt_tokens=5)]
    )
    assert (len(failing.asked), calls.usage.missing, calls.usage.calls, calls.count()) == (1, 1, 1, 1)
    calls.close()
    calls = Calls(certain(), tmp_path / "judge.db")
    assert calls.ask([question(1)])[0].probabilities == (0.8, pytest.approx(0.2))
    assert [row["missing"] for row in calls.rows()] == ["the server said 500", ""]


def test_of_two_answers_to_one_question_the_first_counts(tmp_path: Path) -> None:
    class Slow(FakeBackend):
        """While it is asked, another process asks the same and is answered first."""

        def ask(self, questions: Sequence[Question], on_reply: OnReply) -> None:
            other = Calls(certain(0.25), tmp_path / "judge.db")
            other.ask(questions)
            other.close()
            super().ask(questions, on_reply)

    calls = Calls(Slow(lambda _: Reply((0.75, 0.25))), tmp_path / "judge.db")
    calls.ask([question(1)])
    assert calls.count() == 2  # both were paid for
    calls.close()
    assert Calls(certain(), tmp_path / "judge.db").ask([question(1)])[0].probabilities[0] == 0.25


def test_the_log_is_oldest_first_and_its_end_can_be_asked_for(tmp_path: Path) -> None:
    calls = Calls(certain(), tmp_path / "judge.db")
    calls.ask([question(number) for number in range(5)])
    texts = [row["request"]["messages"][0][1] for row in calls.rows()]
    assert texts == [f"question {number}" for number in range(5)]
    (last,) = calls.rows(1)
    assert last["request"]["messages"] == [["user", "question 4"]]
    assert (last["judge"], last["prompt_tokens"], last["reply"]["probabilities"][0]) == ("fake", 10, 0.8)


def test_more_keys_than_a_statement_takes() -> None:
    calls = Calls(certain())
    asked = [question(number) for number in range(1201)]
    calls.ask(asked)
    assert [len(calls.ask(asked)), calls.usage.cached, calls.usage.calls] == [1201, 1201, 1201]
    assert [row["id"] for row in calls.rows()] == list(range(1, 1202))
    assert [row["id"] for row in calls.rows(700)] == list(range(502, 1202))
    assert not list(calls.rows(0))
    assert not list(Calls(certain()).rows(3))


def test_a_backend_that_gives_up_keeps_what_came_before(tmp_path: Path) -> None:
    def answer(asked: Question) -> Reply:
        if asked.messages[0].content == "question 3":
            raise UserError("the server is down")
        return Reply((0.5, 0.5))

    calls = Calls(FakeBackend(answer), tmp_path / "judge.db")
    with pytest.raises(UserError, match="the server is down"):
        calls.ask([question(number) for number in range(5)])
    assert calls.count() == 3


class Together(FakeBackend):
    """Answers two questions at a time, longest number last; fails at the batch that holds the question ``broken``."""

    broken = -1

    def batches(self, questions: Sequence[Question]) -> list[list[int]]:
        order = sorted(range(len(questions)), key=lambda i: questions[i].messages[0].content)
        return [order[start : start + 2] for start in range(0, len(order), 2)]

    def ask(self, questions: Sequence[Question], on_reply: OnReply) -> None:
        if f"question {self.broken}" in [asked.messages[0].content for asked in questions]:
            raise UserError("no power")
        super().ask(questions, on_reply)


def test_batches_are_written_together_and_cut_again_the_same(tmp_path: Path) -> None:
    asked = [question(number) for number in (4, 2, 0, 5, 1, 3)]
    first = Together(lambda _: Reply((0.5, 0.5)))
    first.broken = 3
    calls = Calls(first, tmp_path / "judge.db")
    with pytest.raises(UserError, match="no power"):
        calls.ask(asked)
    assert calls.count() == 2
    calls.close()
    second = Together(lambda _: Reply((0.5, 0.5)))
    Calls(second, tmp_path / "judge.db").ask(asked)
    said = [asked.messages[0].content[-1] for asked in first.asked + second.asked]
    assert said == ["0", "1", "2", "3", "4", "5"]


def test_an_unanswered_question_is_a_fault_of_the_backend() -> None:
    class Silent(FakeBackend):
        def ask(self, questions: Sequence[Question], on_reply: OnReply) -> None:
            pass

    with pytest.raises(RuntimeError, match="left 1 questions without a reply"):
        Calls(Silent()).ask([question(1)])


def test_a_budget_holds_for_batches_and_no_call_is_made_once_it_is_spent() -> None:
    backend = Together(lambda _: Reply((0.5, 0.5), "", "", 10, 1))
    calls = Calls(backend, budget=Budget(tokens=60))
    with pytest.raises(BudgetSpent, match="55 of budget_tokens 60"):
        calls.ask([question(number) for number in range(9)])
    with pytest.raises(BudgetSpent):
        calls.ask([question("another")])
    assert len(backend.asked) == 5


def test_a_first_call_that_costs_nothing_does_not_open_the_budget() -> None:
    """A filtered question is billed nothing, and tells nothing of what the next ones cost."""
    for budget in (Budget(tokens=1000), Budget(price_output=1e6, cost=3.0)):
        backend = FakeBackend(
            lambda asked: Reply(missing="filtered") if "q 0" in str(asked) else Reply((1.0, 0.0), "", "", 500, 1)
        )
        calls = Calls(backend, budget=budget)
        with pytest.raises(BudgetSpent):
            calls.ask([Question((Message("user", f"q {number} end"),), ("A", "B")) for number in range(300)])
        assert len(backend.asked) <= 4, budget


def test_what_a_budget_counts() -> None:
    budget = Budget(2.0, 10.0, tokens=100, cost=0.01)
    dearest = Reply(prompt_tokens=8, completion_tokens=2)  # 10 tokens, 36 millionths of a dollar
    assert budget.price(dearest) == pytest.approx(36e-6)
    assert budget.room(Usage(prompt_tokens=35), dearest) == 6
    assert budget.room(Usage(cost=0.01 - 80e-6), dearest) == 2
    assert budget.room(Usage(prompt_tokens=101), dearest) == 0
    assert Budget(cost=1.0).room(Usage(), dearest) > 1000
    assert not Budget(price_input=1.0).limited


def test_a_killed_process_loses_no_finished_call(tmp_path: Path) -> None:
    path = tmp_path / "judge.db"
    first = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "ready\n"
    while not kept(path) >= 20:
        time.sleep(0.002)
    time.sleep(random.Random(1).random() * 0.2)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    finished = kept(path)
    assert 20 <= finished < 200
    second = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True)
    assert second.stdout == f"ready\n{200 - finished} {finished}\n"
    assert kept(path) == 200


def kept(path: Path) -> int:
    """Rows that another process sees."""
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM calls").fetchone()[0])
    finally:
        connection.close()


def test_several_judges_open_and_share_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "judge.db"

    def work(first: int) -> int:
        calls = Calls(certain(), path)
        for number in range(first, first + 25):
            calls.ask([question(number)])
        calls.close()
        return calls.usage.calls

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(work, [0, 25, 50, 75]))
    assert made == [25] * 4
    assert kept(path) == 100


def test_another_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "judge.db"
    Calls(certain(), path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(
        UserError, match=r"judge.db was written by another version of Trivium \(layout 7, this one reads 1"
    ):
        Calls(certain(), path)
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rankings.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE rankings (id)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"rankings.db is a database of something else"):
        Calls(certain(), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database at all, only text\n" * 50, b"SQLite format 3\x00" + b"\x07" * 4000])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "judge.db"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"judge.db is no SQLite file, or is damaged"):
        Calls(certain(), path)


def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"judge.db cannot be made"):
        Calls(certain(), tmp_path / "file" / "judge.db")
    with pytest.raises(UserError, match="cannot be used as the file of a judge's calls"):
        Calls(certain(), tmp_path)


def test_a_file_that_cannot_be_written_and_a_full_disk(tmp_path: Path) -> None:
    calls = Calls(certain(), tmp_path / "judge.db")
    calls._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(UserError, match="readonly"):
        calls.ask([question(1)])
    calls.close()
    calls = Calls(certain(), tmp_path / "judge.db")
    pages = calls._connection.execute("PRAGMA page_count").fetchone()[0]
    calls._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UserError, match=r"the disk is full while writing .*judge.db: make room"):
        calls.ask([question("long" * 5000)])


def test_a_locked_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "judge.db"
    Calls(certain(), path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("trivium.feedback.judges.calls.PATIENCE", 0.05)
    with pytest.raises(UserError, match=r"judge.db is held by another process; wait for it"):
        Calls(certain(), path)
    holder.close()


def test_a_row_that_cannot_be_read(tmp_path: Path) -> None:
    calls = Calls(certain(), tmp_path / "judge.db")
    calls.ask([question(1)])
    calls._connection.execute("UPDATE calls SET reply = '{\"probabilities\": 3}'")
    with pytest.raises(UserError, match=r"judge.db holds a call that cannot be read"):
        calls.ask([question(1)])
