"""The contract with an OpenAI-compatible server: what is sent, and what is read from its answers."""

import logging
import math
import re
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.feedback.judges.api_server import MODEL, completion, failure, serving

from trivium.config import JudgeConfig
from trivium.data.records import Message
from trivium.errors import UserError
from trivium.feedback.judges import connection, server
from trivium.feedback.judges.base import Question, Reply
from trivium.feedback.judges.server import ServerBackend
from trivium.feedback.judges.verdicts import Position, count_samples, read_positions

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("TEST_JUDGE_KEY", KEY)
    monkeypatch.setattr(server, "FIRST_PAUSE", 0.001)


def question(text="Which?", choices=("A", "B"), **more) -> Question:
    return Question((Message("system", "You judge."), Message("user", text)), choices, **more)


def ask(backend, *questions) -> list[Reply]:
    replies: dict[int, Reply] = {}
    backend.ask(questions, lambda index, reply: replies.__setitem__(index, reply))
    return [replies[index] for index in range(len(questions))]


def top(**probabilities: float) -> dict[str, float]:
    return {token: math.log(p) for token, p in probabilities.items()}


AB = [("A", top(A=0.6, B=0.2))]


# -- what is sent ------------------------------------------------------------------------------------------------


def test_a_verdict_sends_what_the_api_documents():
    with serving([completion("A", tokens=AB)]) as api:
        ask(ServerBackend(api.config(max_new_tokens=300)), question(temperature=0.3, max_new_tokens=300))
    (seen,) = api.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.body == {
        "model": MODEL,
        "messages": [{"role": "system", "content": "You judge."}, {"role": "user", "content": "Which?"}],
        "max_tokens": server.VERDICT_TOKENS,
        "temperature": 1.0,
        "logprobs": True,
        "top_logprobs": 20,
    }


def test_a_text_sends_its_own_limit_and_temperature():
    with serving([completion(" Better: x\r\n\x1b[31my\x00 ")]) as api:
        (reply,) = ask(ServerBackend(api.config()), question(choices=(), temperature=0.3, max_new_tokens=77))
    body = api.seen[0].body
    assert body["max_tokens"] == 77 and body["temperature"] == 0.3
    assert not {"logprobs", "top_logprobs", "n"} & set(body)
    assert reply == Reply(text="Better: x\n[31my", prompt_tokens=20, completion_tokens=3)


def test_without_a_url_it_is_openai_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    backend = ServerBackend(JudgeConfig(backend="openai", model="m", key_variable="TEST_JUDGE_KEY"))
    assert backend.identity == "https://api.openai.com/v1 m"
    assert backend.name == "m"
    client = connection.open_client(backend.url, KEY, 1.0)
    assert str(client.base_url) == "https://api.openai.com/v1/" and client.max_retries == 0


# -- what is read ------------------------------------------------------------------------------------------------


def test_log_probabilities_are_summed_and_scaled_over_the_choices():
    tokens = [("A", {**top(A=0.3, B=0.1), " a": math.log(0.2), "**B": math.log(0.1), "Neither": math.log(0.2)})]
    with serving([completion("A", tokens=tokens)]) as api:
        (reply,) = ask(ServerBackend(api.config()), question())
    assert reply.probabilities == pytest.approx((0.5 / 0.7, 0.2 / 0.7), abs=1e-12)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.missing) == (20, 3, "")


def test_a_sampled_token_outside_the_list_counts():
    with serving([completion("B", tokens=[("B", top(A=0.9))])]) as api:
        (reply,) = ask(ServerBackend(api.config()), question())
    assert reply.probabilities[1] == pytest.approx(math.exp(-30) / (0.9 + math.exp(-30)))


@pytest.mark.parametrize(
    ("tokens", "text", "words"),
    [
        (
            [("I", top(I=0.9, A=0.05, B=0.04))],
            "I cannot compare people",
            "hold 0.09 of the probability; .*'I cannot comp",
        ),
        ([("A", top(A=0.8, B=0.1)), ("nswer", top(nswer=1.0))], "Answer: both", "hold 0.10"),
        ([("\n", {"\n": -0.1})], "\n", "no verdict"),
    ],
)
def test_nonsense_is_missing(tokens, text, words):
    with serving([completion(text, tokens=tokens)]) as api:
        (reply,) = ask(ServerBackend(api.config()), question())
    assert reply.probabilities == () and re.search(words, reply.missing)
    assert reply.prompt_tokens == 20, "it was paid for all the same"


def test_the_share_below_which_a_verdict_is_missing():
    def verdict(mass):
        return read_positions([Position("A", (("A", mass), ("x", 1 - mass)))], ["A", "B"])

    assert verdict(0.51).probabilities == (1.0, 0.0)
    assert verdict(0.49).missing


def test_marks_before_the_verdict_are_skipped():
    tokens = [("**", {"**": -0.1, "A": -3.0}), ("B", top(B=0.75, A=0.25))]
    with serving([completion("**B**", tokens=tokens)]) as api:
        (reply,) = ask(ServerBackend(api.config()), question())
    assert reply.probabilities == pytest.approx((0.25, 0.75))


SCORES = tuple(map(str, range(1, 11)))


def test_one_against_ten_where_ten_is_a_token():
    positions = [Position("1", (("1", 0.5), ("10", 0.25), ("9", 0.25)))]
    verdict = read_positions(positions, SCORES)
    assert verdict.probabilities == pytest.approx((0.5, 0, 0, 0, 0, 0, 0, 0, 0.25, 0.25))


def test_one_against_ten_by_the_next_token():
    positions = [Position("1", (("1", 0.8), ("9", 0.2))), Position("0", (("0", 0.75), ("\n", 0.2), ("5", 0.05)))]
    verdict = read_positions(positions, SCORES)
    expected = [0.16, 0, 0, 0, 0, 0, 0, 0, 0.2, 0.6]  # 15 is no choice
    assert verdict.probabilities == pytest.approx([p / 0.96 for p in expected])


@pytest.mark.parametrize("stop", ["", "<|im_end|>"])
def test_a_stop_token_ends_the_shorter_choice(stop):
    positions = [Position("1", (("1", 1.0),)), Position(stop, ((stop, 0.75), ("0", 0.25)))]
    verdict = read_positions(positions, SCORES)
    assert verdict.probabilities == pytest.approx((0.75, 0, 0, 0, 0, 0, 0, 0, 0, 0.25))


@pytest.mark.parametrize("share", [0.04, 0.06])
def test_one_against_ten_where_the_path_does_not_show_it(share):
    verdict = read_positions([Position("9", (("9", 1 - share), ("1", share)))], SCORES)
    assert verdict.undecided == (share > 0.05)
    if not verdict.undecided:
        assert verdict.probabilities[0] == pytest.approx(share)


def test_an_undecided_verdict_is_sampled():
    def behave(seen):
        if "logprobs" in seen.body:
            return completion("1", tokens=[("1", top(**{"1": 0.7, "9": 0.3}))])
        assert seen.body["n"] == 4 and seen.body["temperature"] == 0.5 and seen.body["max_tokens"] == 64
        return completion("10", "1", "10/10", "nine")

    with serving(behave) as api:
        backend = ServerBackend(api.config(samples=4))
        (reply,) = ask(backend, question(choices=SCORES, temperature=0.5, max_new_tokens=64))
        assert reply.probabilities == pytest.approx((1 / 3, 0, 0, 0, 0, 0, 0, 0, 0, 2 / 3))
        assert reply.prompt_tokens == 40, "both calls are paid for"
        ask(backend, question(choices=SCORES, temperature=0.5, max_new_tokens=64))
    assert ["logprobs" in seen.body for seen in api.seen] == [True, False, True, False]


def test_prefixes_of_words():
    choices = ["first", "second"]
    positions = [Position("fir", (("fir", 0.5), ("sec", 0.3), ("f", 0.1), ("x", 0.1))), Position("st", (("st", 1.0),))]
    assert read_positions(positions, choices).probabilities == pytest.approx((0.6 / 0.9, 0.3 / 0.9))
    wrong = [Position("f", (("f", 0.5), ("second", 0.5))), Position("ine", (("ine", 1.0),))]
    assert read_positions(wrong, choices).probabilities == (0.0, 1.0)
    # "answer " begins both: it is no one's, and too much to leave out
    both = [Position("answer ", (("answer ", 0.9), ("answer A", 0.1)))]
    assert read_positions(both, ["answer A", "answer B"]).undecided


@given(
    st.lists(st.tuples(st.text(max_size=4), st.floats(0, 1)), min_size=1, max_size=6),
    st.lists(st.sampled_from(["A", "B", "1", "10", "0", "", " ", "nswer", "."]), min_size=1, max_size=4),
)
def test_whatever_comes_a_verdict_adds_up_or_is_none(alternatives, path):
    positions = [Position(token, (*alternatives, (token, 0.5), ("1", 0.3))) for token in path]
    for choices in (["A", "B"], ["1", "10"]):
        verdict = read_positions(positions, choices, "".join(path))
        assert (bool(verdict.probabilities), bool(verdict.missing), verdict.undecided).count(True) == 1
        if verdict.probabilities:
            assert sum(verdict.probabilities) == pytest.approx(1.0) and min(verdict.probabilities) >= 0


@pytest.mark.parametrize(
    ("text", "vote"),
    [
        ("A", 0),
        (" b.", 1),
        ("**A** is better", 0),
        ("(B)", 1),
        ("Answer A", None),
        ("A_B", 0),
        ("", None),
        ("AB", None),
        ("a", 0),
        ("a, since it is short", 0),
        ("A is better", 0),
        ("a good answer would be B", None),  # an article, not a vote
    ],
)
def test_what_a_sampled_answer_votes_for(text, vote):
    verdict = count_samples([text], ["A", "B"])
    assert verdict.probabilities == (() if vote is None else (1.0 - vote, float(vote)))


@pytest.mark.parametrize(
    ("text", "score"),
    [("7", 7), ("10", 10), ("7.5", None), ("7,", 7), ("10/10", 10), ("15", None), ("-1", None), ("7-8", None)],
)
def test_numbers_are_whole(text, score):
    verdict = count_samples([text], SCORES)
    assert verdict.probabilities == (tuple(float(score == value) for value in range(1, 11)) if score else ())


def test_choices_that_differ_by_case_alone_are_told_apart():
    assert count_samples(["a", "A", "a"], ["a", "A"]).probabilities == (2 / 3, 1 / 3)


# -- what servers do not take ------------------------------------------------------------------------------------


def test_fewer_log_probabilities_are_asked_for_and_remembered():
    def behave(seen):
        if seen.body.get("top_logprobs", 0) > 5:
            return failure(400, "Invalid value for 'top_logprobs': at most 5", param="top_logprobs")
        return completion("A", tokens=AB)

    with serving(behave) as api:
        backend = ServerBackend(api.config(concurrency=1))
        assert ask(backend, question("x"), question("y"))[1].probabilities == pytest.approx((0.75, 0.25))
    assert [seen.body["top_logprobs"] for seen in api.seen] == [20, 5, 5]


def test_no_log_probabilities_at_all_means_samples():
    def behave(seen):
        if "logprobs" in seen.body:
            return failure(400, "logprobs are not supported with this model")
        return completion(*["A", "B", "A", "hm"][: seen.body.get("n", 1)])

    with serving(behave) as api:
        backend = ServerBackend(api.config(concurrency=1, samples=4))
        for reply in ask(backend, question("x"), question("y")):
            assert reply.probabilities == pytest.approx((2 / 3, 1 / 3))
    # The first verdict learns it; the call that went through without is one of the lost ones.
    assert [seen.body.get("top_logprobs") for seen in api.seen] == [20, 5, None, None, None]
    assert api.seen[-1].body["n"] == 4


def test_log_probabilities_that_are_ignored_mean_samples_one_by_one():
    votes = iter(["A", "A", "B", "A", "B", "B", "B"])
    with serving(lambda seen: completion(next(votes))) as api:
        backend = ServerBackend(api.config(concurrency=1, samples=3))
        first, second = ask(backend, question("x"), question("y"))
    assert first.probabilities == pytest.approx((2 / 3, 1 / 3))  # A, B, A after the call that asked for more
    assert second.probabilities == pytest.approx((0.0, 1.0))
    assert [seen.body.get("n") for seen in api.seen] == [None, 3, None, None, None, None, None]
    assert ["logprobs" in seen.body for seen in api.seen] == [True] + [False] * 6


def test_samples_are_single_calls_where_n_is_refused():
    def behave(seen):
        if seen.body.get("logprobs"):
            return completion("A")
        if "n" in seen.body:
            return failure(422, "only one completion is supported", param="n")
        return completion("B")

    with serving(behave) as api:
        (reply,) = ask(ServerBackend(api.config(samples=3)), question())
    assert reply.probabilities == (0.0, 1.0)
    assert [seen.body.get("n") for seen in api.seen] == [None, 3, None, None, None]


def test_the_other_name_of_the_limit():
    def behave(seen):
        if "max_tokens" in seen.body:
            return failure(
                400,
                "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                "unsupported_parameter",
                "max_tokens",
            )
        return completion("fine")

    with serving(behave) as api:
        backend = ServerBackend(api.config(concurrency=1))
        ask(backend, question("x", choices=()))
        ask(backend, question("y", choices=()))
    assert ["max_tokens" in seen.body for seen in api.seen] == [True, False, False]
    assert api.seen[1].body["max_completion_tokens"] == 256


def test_a_temperature_that_is_the_default_may_be_left_out_and_another_not():
    def behave(seen):
        return failure(400, "temperature: unsupported") if "temperature" in seen.body else completion("fine")

    with serving(behave) as api:
        assert ask(ServerBackend(api.config()), question(choices=()))[0].text == "fine"
        with pytest.raises(UserError, match=r"refuses the request \(400\): temperature: unsupported"):
            ask(ServerBackend(api.config()), question(choices=(), temperature=0.5))


def test_nothing_is_learned_from_a_refusal_that_nothing_cured():
    bad = failure(400, "this text is not welcome")
    with serving(lambda seen: bad if seen.asked == "bad" else completion("A", tokens=AB)) as api:
        backend = ServerBackend(api.config(concurrency=1))
        good, refused, again = ask(backend, question("good"), question("bad"), question("again"))
    assert good.probabilities == again.probabilities == pytest.approx((0.75, 0.25))
    assert "not welcome" in refused.missing
    assert api.seen[-1].body["top_logprobs"] == 20 and "max_tokens" in api.seen[-1].body


# -- many at a time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
def test_concurrency_is_bounded_and_used(concurrency):
    with serving(lambda seen: completion(f"to {seen.asked}", seconds=0.05)) as api:
        questions = [question(str(number), choices=()) for number in range(9)]
        replies = ask(ServerBackend(api.config(concurrency=concurrency)), *questions)
    assert api.most_parallel == concurrency
    assert [reply.text for reply in replies] == [f"to {number}" for number in range(9)]


def test_replies_come_as_they_finish_from_the_thread_that_asked_and_again():
    with serving(lambda seen: completion("x", seconds=0.3 if seen.asked == "slow" else 0.0)) as api:
        backend = ServerBackend(api.config())
        order: list[tuple[int, int]] = []

        def work():
            for _ in range(2):
                backend.ask(
                    [question("slow", choices=()), question("fast", choices=())],
                    lambda index, reply: order.append((index, threading.get_ident())),
                )

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        backend.ask([], lambda index, reply: None)
        backend.close()
    assert [index for index, _ in order] == [1, 0, 1, 0]
    assert {ident for _, ident in order} == {thread.ident}


def test_what_on_reply_raises_ends_the_work_and_is_raised():
    with serving(lambda seen: completion("x", seconds=0.0 if seen.asked == "0" else 5.0)) as api:

        def on_reply(index, reply):
            raise UserError("the budget is spent")

        with pytest.raises(UserError, match=r"^the budget is spent$"):
            ServerBackend(api.config(concurrency=2)).ask([question(str(i), choices=()) for i in range(9)], on_reply)
    assert len(api.seen) <= 2


# -- keys and addresses ------------------------------------------------------------------------------------------


def test_the_key_shows_up_nowhere(caplog):
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []

    def behave(seen):
        if seen.asked == "echo":
            return completion(f"your key is {KEY}, in pieces sk-secret-\x000123456789")
        if seen.asked == "verdict":
            return completion(f"{KEY} is nonsense", tokens=[(KEY, {KEY: -0.01})])
        return failure(401, f"wrong key {KEY}")

    with serving(behave) as api:
        backend = ServerBackend(api.config(retries=0))
        echo, verdict = ask(backend, question("echo", choices=()), question("verdict"))
        with pytest.raises(UserError) as error:
            ask(backend, question("refuse", choices=()))
    texts += [echo.text, verdict.missing, str(error.value), repr(error.value), repr(backend), backend.identity]
    texts += [str(vars(backend)), caplog.text]
    assert "[key]" in echo.text and "[key]" in verdict.missing and "[key]" in str(error.value)
    assert caplog.text, "something was logged, or this proves nothing"
    assert not [text for text in texts if KEY in text]
    assert error.value.__cause__ is None and error.value.__suppress_context__


def test_a_missing_key_is_said_before_any_call(monkeypatch):
    monkeypatch.delenv("TEST_JUDGE_KEY")
    config = JudgeConfig(backend="openai", model="m", key_variable="TEST_JUDGE_KEY", url="https://judge.example/v1")
    with pytest.raises(UserError, match=r"TEST_JUDGE_KEY is not set; set it \(export TEST_JUDGE_KEY="):
        ServerBackend(config)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://[::1]:1/v1"])
def test_a_server_on_this_machine_needs_no_key(monkeypatch, url):
    monkeypatch.delenv("TEST_JUDGE_KEY")
    assert ServerBackend(JudgeConfig(backend="openai", model="m", key_variable="TEST_JUDGE_KEY", url=url)).url == url


def test_the_placeholder_is_sent_and_not_looked_for_in_texts(monkeypatch):
    monkeypatch.delenv("TEST_JUDGE_KEY")
    with serving([completion("there is none")]) as api:
        assert ask(ServerBackend(api.config()), question(choices=()))[0].text == "there is none"
    assert api.seen[0].headers["authorization"] == "Bearer none"


def test_a_proxy_has_no_business_on_this_machine(monkeypatch):
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving([completion("fine")]) as api:
        assert ask(ServerBackend(api.config(retries=0)), question(choices=()))[0].text == "fine"


@pytest.mark.parametrize("key", ["two words", "kéy", "line\nbreak"])
def test_a_key_that_cannot_be_sent_is_refused_unseen(monkeypatch, key):
    monkeypatch.setenv("TEST_JUDGE_KEY", key)
    with pytest.raises(UserError, match="holds characters that no key has") as error:
        ServerBackend(JudgeConfig(backend="openai", model="m", key_variable="TEST_JUDGE_KEY"))
    assert key not in str(error.value)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "ftp://x/v1", "http://", "http://x:notaport/v1", "http://x:99999"]
)
def test_an_address_that_is_none(url):
    with pytest.raises(UserError, match="is no address of a server"):
        ServerBackend(JudgeConfig(backend="openai", model="m", key_variable="TEST_JUDGE_KEY", url=url))


@pytest.mark.parametrize("url", ["https://me:word@judge.example/v1", "https://judge.example/v1?key=word"])
def test_secrets_in_the_address_are_refused_unseen(url):
    with pytest.raises(UserError, match="holds a password or a query") as error:
        ServerBackend(JudgeConfig(backend="openai", model="m", key_variable="TEST_JUDGE_KEY", url=url))
    assert "word@" not in str(error.value) and "=word" not in str(error.value)


def test_without_the_client_the_user_is_told_what_to_install():
    script = (
        "import sys; sys.modules['openai'] = None\n"
        "from trivium.config import JudgeConfig\n"
        "from trivium.feedback.judges.server import ServerBackend\n"
        "ServerBackend(JudgeConfig(backend='openai', model='m', url='http://127.0.0.1:1/v1'))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "UserError" in run.stderr and "pip install 'trivium[judges]'" in run.stderr
