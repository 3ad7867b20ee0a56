"""A judge server that is down, slow, broken or hostile: what the user is told, what is kept, and that it goes on."""

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from tests.feedback.judges.api_server import Answer, as_json, completion, failure, serving, web_page

from trivium.config import JudgeConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.judges import connection, replies, server
from trivium.feedback.judges.base import Pair, Question, Reply
from trivium.feedback.judges.build import build_judge
from trivium.feedback.judges.calls import Calls
from trivium.feedback.judges.server import ServerBackend

FINE = completion("fine")
JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def pauses(monkeypatch) -> list[float]:
    """The pauses that were made, which here take no time."""
    made: list[float] = []
    really_sleep = asyncio.sleep

    async def sleep(seconds: float, *rest: object) -> None:
        if seconds > 0:
            made.append(seconds)
        await really_sleep(0)

    monkeypatch.setattr(server.asyncio, "sleep", sleep)
    monkeypatch.setenv("TEST_JUDGE_KEY", "sk-secret-0123456789")
    return made


def question(text="Which?", choices=()) -> Question:
    return Question((Message("user", text),), choices)


def ask(backend, *questions) -> list[Reply]:
    found: dict[int, Reply] = {}
    backend.ask(questions, lambda index, reply: found.__setitem__(index, reply))
    return [found[index] for index in range(len(questions))]


# -- faults that pass --------------------------------------------------------------------------------------------

PASSING = {
    "429": (failure(429, "Rate limit reached"), r"it has too much to do \(429: Rate limit reached\)"),
    "500": (failure(500, "The server had an error"), r"it fails \(500: The server had an error\)"),
    "502 with a page": (web_page(502), r"it fails \(502: a web page\)"),
    "503": (failure(503, "overloaded"), r"it fails \(503: overloaded\)"),
    "a page": (web_page(), "it answered with a web page in place of JSON"),
    "half of it": (Answer(FINE.content[:40], 200, JSON), "it answered with something else in place of JSON"),
    "nothing": (Answer(b"", 200, JSON), "it answered with nothing in place of JSON"),
    "deep": (Answer(b"[" * 200_000, 200, JSON), "it answered with something else in place of JSON"),
    "a list": (as_json([1, 2]), "it answered with JSON that is no chat completion"),
    "an error as success": (as_json({"error": {"message": "no GPU"}}), "it answered with an error: no GPU"),
    "a cut connection": (Answer(b"", hang_up=True), r"it cannot be reached \(Server disconnected"),
    "compressed": (Answer(b"x", 200, JSON | {"Content-Encoding": "gzip"}), "compressed answers though asked not to"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_repeated(fault, pauses):
    bad, _ = PASSING[fault]
    with serving([bad, bad, FINE]) as api:
        assert ask(ServerBackend(api.config(retries=2)), question()) == [Reply((), "fine", "", 20, 3)]
    assert len(api.seen) == 3 and api.seen[0].body == api.seen[2].body
    assert len(pauses) == 2 and pauses[0] < 0.5 and pauses[1] < 1.0


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_stays_stops_the_run_with_a_sentence(fault):
    bad, words = PASSING[fault]
    with serving([FINE, bad]) as api:
        backend = ServerBackend(api.config(retries=2, concurrency=1))
        kept: list[int] = []
        with pytest.raises(UserError, match=words) as error:
            backend.ask([question(str(n)) for n in range(5)], lambda index, reply: kept.append(index))
    assert kept == [0] and len(api.seen) == 4
    sentence = str(error.value)
    assert sentence.startswith(f"judge judge-model at {api.url}: it ")
    assert ", 3 times in a row; it counts as down: check that it runs and what it logs. " in sentence
    assert sentence.endswith(
        "1 of the 5 answers asked for just now came and are kept; the same command goes on from there"
    )


def test_nobody_is_there(pauses):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    backend = ServerBackend(JudgeConfig(backend="openai", model="m", url=url, retries=1, key_variable="TEST_JUDGE_KEY"))
    with pytest.raises(
        UserError, match=r"it cannot be reached \(.+\), 2 times in a row; it counts as down.* 0 of the 1"
    ):
        ask(backend, question())
    assert len(pauses) == 1


def test_a_server_that_is_slow():
    answers = [completion("late", seconds=1.0), FINE]
    with serving(answers) as api:
        (reply,) = ask(ServerBackend(api.config(timeout=0.3, retries=1)), question())
    assert reply.text == "fine"
    with (
        serving(answers[:1]) as api,
        pytest.raises(UserError, match=r"it gave no answer within 0.3 seconds; it counts as down"),
    ):
        ask(ServerBackend(api.config(timeout=0.3, retries=0)), question())


def test_a_server_that_trickles():
    """Each byte comes in time, the answer never."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script = (
            "import socket, sys, time\n"
            "listener = socket.socket(fileno=int(sys.argv[1])); connection, _ = listener.accept()\n"
            "connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 1000\\r\\n\\r\\n')\n"
            "while True: connection.sendall(b' '); time.sleep(0.05)\n"
        )
        trickling = subprocess.Popen(
            [sys.executable, "-c", script, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            config = JudgeConfig(
                backend="openai", model="m", url=url, retries=0, timeout=0.5, key_variable="TEST_JUDGE_KEY"
            )
            with pytest.raises(UserError, match=r"no answer within 0.5 seconds"):
                ask(ServerBackend(config), question())
        finally:
            trickling.kill()
            trickling.wait()


def test_pauses_grow_up_to_a_bound_and_are_drawn_the_same_way_again(pauses):
    bad = failure(503, "overloaded")
    for _ in range(2):
        with serving([bad] * 12 + [FINE]) as api:
            backend = ServerBackend(api.config(retries=12))
            backend.identity = "the same"  # the port differs
            ask(backend, question())
    first, second = pauses[:12], pauses[12:]
    assert first == second and len(set(first)) == 12
    bounds = [min(server.LONGEST_PAUSE, server.FIRST_PAUSE * 2**n) for n in range(12)]
    assert all(0 <= pause <= bound for pause, bound in zip(first, bounds, strict=True))
    assert max(first) > 4, "they grow"
    assert sum(first) / sum(bounds) == pytest.approx(0.5, abs=0.25), "drawn from the whole of it"


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7, 7),
        ("0.5", 0.5, 0.5),
        ("99999999", connection.LONGEST_RETRY_AFTER, connection.LONGEST_RETRY_AFTER),
        ("a date", 20, 100),
        ("soon", 0, 0.5),
        ("-5", 0, 0.5),
        ("nan", 0, 0.5),
        ("inf", connection.LONGEST_RETRY_AFTER, connection.LONGEST_RETRY_AFTER),
    ],
)
def test_retry_after_is_honoured(value, low, high, pauses):
    if value == "a date":  # made here: between collecting the tests and this one may lie minutes
        value = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    with serving([failure(429, "slow down", headers={"Retry-After": value}), FINE]) as api:
        ask(ServerBackend(api.config()), question())
    assert len(pauses) == 1 and low <= pauses[0] <= high


# -- faults that stay --------------------------------------------------------------------------------------------

STAYING = {
    "wrong key": (
        failure(401, "Incorrect API key"),
        r"does not accept the key in TEST_JUDGE_KEY \(401: Incorrect API key\); set",
    ),
    "forbidden": (
        failure(403, "no access"),
        r"does not let the key in TEST_JUDGE_KEY use this model \(403: no access\)",
    ),
    "no such model": (failure(404, "The model does not exist"), r"knows no model 'judge-model'.*\(404: The model does"),
    "no such address": (web_page(404), r"no such API at this address \(404: a web page\); check model and url"),
    "moved": (Answer(b"", 307, {"Location": "http://127.0.0.1:1/"}), "it sends us to another address"),
    "no credit": (failure(429, "You exceeded your quota", "insufficient_quota"), "no credit left .*; top it up"),
    "refused": (failure(400, "bad messages"), r"refuses the request \(400\): bad messages; compare the recipe"),
    "teapot": (failure(418, "short and stout"), "answered with status 418: short and stout"),
}


@pytest.mark.parametrize("fault", STAYING)
def test_what_cannot_work_stops_at_once(fault, pauses):
    bad, words = STAYING[fault]
    with serving([bad]) as api, pytest.raises(UserError, match=words):
        ask(ServerBackend(api.config(concurrency=1)), question("a"), question("b"))
    assert not pauses
    # A refusal is tried the other way round (the other name of the limit, no temperature), but no more than that.
    assert len(api.seen) == (3 if fault == "refused" else 1)


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_here_that_wants_a_key_after_all(status, pauses, monkeypatch):
    monkeypatch.delenv("TEST_JUDGE_KEY")
    words = rf"it wants a key \({status}: no\), and the environment variable TEST_JUDGE_KEY is not set; set it"
    with serving([failure(status, "no")]) as api, pytest.raises(UserError, match=words):
        ask(ServerBackend(api.config(concurrency=1)), question())


# -- answers that are none ---------------------------------------------------------------------------------------

NONE = {
    "an empty list": (completion(), "an empty list of answers"),
    "an empty text": (completion("  \n"), "an empty text"),
    "no text": (completion(None), "an empty text"),
    "a number": (completion(7), "an empty text"),
    "cut in thought": (completion("<think>hm", finish="length"), r"an empty text, cut off at the limit of tokens"),
    "a refusal": (completion(None, refusal="I can't help\nwith that"), "refuses to answer: I can't help with that"),
    "a filter": (completion("some", finish="content_filter"), "refuses to answer: content_filter"),
    "a filter's 400": (failure(400, "blocked", "content_filter"), r"refused by a filter \(400: blocked\)"),
    "too long": (
        failure(400, "This model's maximum context length is 4096 tokens", "context_length_exceeded"),
        r"too long for the model \(400: This model's maximum context length is 4096 tokens\)",
    ),
    "too long for the way": (failure(413, "payload too large"), "too long for the model"),
    "endless": (completion("x" * (replies.MAX_TEXT + 1)), f"a text of more than {replies.MAX_TEXT} characters"),
    "huge": (Answer(b"[" + b"1," * (replies.MAX_BODY // 2) + b"1]", 200, JSON), f"more than {replies.MAX_BODY} bytes"),
    "a huge error": (Answer(b"x" * (replies.MAX_BODY + 1), 500, JSON), f"more than {replies.MAX_BODY} bytes"),
    "strange shapes": (as_json({"choices": [3]}), "an empty text"),
}


@pytest.mark.parametrize("kind", NONE)
def test_an_answer_that_is_none_is_missing_and_the_others_go_on(kind, pauses):
    bad, words = NONE[kind]
    with serving(lambda seen: bad if seen.asked == "bad" else FINE) as api:
        first, second, third = ask(ServerBackend(api.config()), question("a"), question("bad"), question("c"))
    assert first.text == third.text == "fine" and not second.text
    assert re.search(words, second.missing)
    assert len(api.seen) == 3 and not pauses


@pytest.mark.parametrize("kind", ["an empty list", "no text", "a refusal", "a filter"])
@pytest.mark.parametrize("sampled", [False, True])
def test_a_verdict_that_is_none_is_missing(kind, sampled):
    def behave(seen):
        return completion("A") if sampled and "logprobs" in seen.body else NONE[kind][0]

    with serving(behave) as api:
        (reply,) = ask(ServerBackend(api.config(samples=3)), question(choices=("A", "B")))
    assert reply.missing and not reply.probabilities
    assert len(api.seen) <= 4, "it does not ask without end"


def test_samples_that_cannot_be_read_are_left_out():
    with serving(
        lambda seen: completion("A") if "logprobs" in seen.body else completion("A", "both", "B", "", "A")
    ) as api:
        (reply,) = ask(ServerBackend(api.config()), question(choices=("A", "B")))
    assert reply.probabilities == pytest.approx((2 / 3, 1 / 3))


def test_hostile_texts_are_made_harmless():
    body = json.loads(FINE.content)
    body["choices"][0]["message"]["content"] = "BAD\x1b]0;title\x07 half \ud800 end"
    raw = json.dumps(body).encode().replace(b"BAD", b"\xff\xfe")
    with serving([Answer(raw, 200, JSON)]) as api:
        (reply,) = ask(ServerBackend(api.config()), question())
    assert reply.text == "��]0;title half  end"
    reply.text.encode()


@pytest.mark.parametrize("usage", [None, 7, {"prompt_tokens": -1, "completion_tokens": "9"}, {"prompt_tokens": 10**40}])
def test_token_counts_that_are_none_count_nothing(usage):
    with serving([completion("fine", usage=usage)]) as api:
        assert ask(ServerBackend(api.config()), question()) == [Reply(text="fine")]


@pytest.mark.parametrize(
    "logprobs",
    [
        [],
        {"content": "x"},
        {"content": [7]},
        {"content": [{"token": "A", "logprob": 5, "top_logprobs": [{"token": "A", "logprob": float("nan")}]}]},
        {"content": [{"token": "A", "logprob": None, "top_logprobs": [{"token": "A", "logprob": 10**300}]}]},
    ],
)
def test_log_probabilities_that_are_none_mean_samples(logprobs):
    def behave(seen):
        if "logprobs" not in seen.body:
            return completion(*["B"] * seen.body["n"])
        body = json.loads(FINE.content)
        body["choices"][0]["logprobs"] = logprobs
        return as_json(body)

    with serving(behave) as api:
        (reply,) = ask(ServerBackend(api.config()), question(choices=("A", "B")))
    assert reply.probabilities == (0.0, 1.0)


def test_a_log_probability_below_every_float():
    body = json.loads(completion("A", tokens=[("A", {"A": -0.1, "B": -9999.0})]).content)
    raw = json.dumps(body).replace("-9999.0", "-1" + "0" * 400).encode()
    with serving([Answer(raw, 200, JSON)]) as api:
        (reply,) = ask(ServerBackend(api.config()), question(choices=("A", "B")))
    assert reply.probabilities == (1.0, 0.0)


# -- partial work ------------------------------------------------------------------------------------------------

PAIRS = [Pair(Prompt(str(n), (Message("user", f"prompt {n}"),)), f"first {n}", f"second {n}") for n in range(6)]
VERDICT = completion("A", tokens=[("A", {"A": -0.3, "B": -1.5})])


def constitution(tmp_path) -> str:
    path = tmp_path / "one.yaml"
    path.write_text(
        'name: one\nprinciples:\n  - {name: right, question: "Is it right?", weight: 1}\n', encoding="utf-8"
    )
    return str(path)


def test_a_server_that_goes_down_in_the_middle_costs_no_finished_call(tmp_path):
    """Judge and calls end to end: six pairs in two orders are twelve calls, of which seven come."""
    cache = tmp_path / "judge.db"
    with serving(lambda seen: VERDICT if seen.number < 7 else failure(500, "out of memory")) as api:
        config = api.config(constitution=constitution(tmp_path), concurrency=1, retries=1)
        with (
            build_judge(config, cache=cache) as judge,
            pytest.raises(UserError, match=r"500: out of memory\), 2 times in a row.* 7 of the 12 answers"),
        ):
            judge.compare(PAIRS)
        finished = [seen.asked for seen in api.seen[:7]]
        api.seen.clear()
        api.behave = lambda seen: VERDICT
        with build_judge(config, cache=cache) as judge:
            comparisons = judge.compare(PAIRS)
            assert (judge.usage.calls, judge.usage.cached) == (5, 7)
    asked = [seen.asked for seen in api.seen]
    assert len(asked) == 5 and not set(asked) & set(finished)
    assert [comparison.probability for comparison in comparisons] == pytest.approx([0.5] * 6)
    assert comparisons[0].forward > 0.7 and b"sk-secret" not in cache.read_bytes()


def test_missing_answers_are_asked_again_by_the_next_run(tmp_path):
    cache = tmp_path / "judge.db"
    with serving(lambda seen: completion(None, refusal="no") if seen.number == 0 else VERDICT) as api:
        config = api.config(constitution=constitution(tmp_path), concurrency=1)
        with build_judge(config, cache=cache) as judge:
            (first,) = judge.compare(PAIRS[:1])
        with build_judge(config, cache=cache) as judge:
            (second,) = judge.compare(PAIRS[:1])
            assert (judge.usage.calls, judge.usage.cached) == (1, 1)
    assert first.probability is None and "refuses to answer: no" in first.missing
    assert second.probability == pytest.approx(0.5)


def test_a_budget_ends_the_calls_and_a_larger_one_goes_on(tmp_path):
    cache = tmp_path / "judge.db"
    with serving([VERDICT]) as api:
        settings = {"constitution": constitution(tmp_path), "price_input": 1000.0, "price_output": 10_000.0}
        # 20 and 3 tokens a call cost 0.02 and 0.03 dollars: 0.26 pays for five
        with (
            build_judge(api.config(**settings, budget_cost=0.26), cache=cache) as judge,
            pytest.raises(UserError, match="budget"),
        ):
            judge.compare(PAIRS)
        assert judge.usage.calls == len(api.seen) == 5 and judge.usage.cost == pytest.approx(0.25)
        with build_judge(api.config(**settings), cache=cache) as judge:
            judge.compare(PAIRS)
    assert len(api.seen) == 12


JUDGING = """
import sys
from trivium.config import JudgeConfig
from trivium.data.records import Message
from trivium.feedback.judges.base import Question
from trivium.feedback.judges.calls import Calls
from trivium.feedback.judges.server import ServerBackend

config = JudgeConfig(
    backend="openai", model="judge-model", url=sys.argv[1], key_variable="TEST_JUDGE_KEY", concurrency=3
)
questions = [Question((Message("user", f"question {n}"),), ("A", "B")) for n in range(40)]
Calls(ServerBackend(config), sys.argv[2]).ask(questions)
"""


def test_killed_in_the_middle_no_finished_call_is_asked_again(tmp_path):
    """Real processes and SIGKILL: what is in the file is never asked again; at most ``concurrency`` calls are lost."""
    cache = tmp_path / "judge.db"
    program = [sys.executable, "-c", textwrap.dedent(JUDGING)]
    slow = Answer(VERDICT.content, 200, JSON, seconds=0.1)
    with serving(lambda seen: slow) as api:
        first = subprocess.Popen([*program, api.url, str(cache)])
        try:
            while len(api.seen) < 15:
                assert first.poll() is None, "it ended before it could be killed"
                time.sleep(0.01)
        finally:
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
        with sqlite3.connect(cache) as connection:
            rows = connection.execute("SELECT request FROM calls").fetchall()
        finished = {json.loads(request)["messages"][-1][1] for (request,) in rows}
        before = [seen.asked for seen in api.seen]
        assert len(before) - 3 <= len(finished) < 40
        api.seen.clear()
        subprocess.run([*program, api.url, str(cache)], check=True)
        after = [seen.asked for seen in api.seen]
    assert not finished & set(after)
    assert sorted(after) == sorted({f"question {n}" for n in range(40)} - finished)
    calls = Calls(ServerBackend(api.config()), cache)
    assert calls.count() == 40
    calls.close()
