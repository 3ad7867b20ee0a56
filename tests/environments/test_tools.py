"""The tools: exact, bounded, deaf to attacks; wrong calls are told to the policy, our failures are not."""

import importlib
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.config import EnvironmentConfig
from trivium.data.records import Message, Prompt
from trivium.environments.build import build
from trivium.environments.calculator import CalculatorError, calculate
from trivium.environments.lookup import Passages
from trivium.environments.tools import Tools
from trivium.errors import UserError
from trivium.sandbox.base import Outcome, Result
from trivium.sandbox.build import available

PROMPT = Prompt("p", (Message("user", "hi"),))


def insert(text: str, **options: object) -> str | None:
    environment = build(EnvironmentConfig(kind="tools", options=options))
    step = environment.reset(PROMPT, 0).step(text, False)
    assert step.reply is None and step.outcome is None
    return step.insert


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12*39", "468"),
        ("345 * 678", "233910"),
        ("0.1 + 0.2", "0.3"),
        ("1/3", "1/3"),
        ("1/8", "0.125"),
        ("-7/40", "-0.175"),
        ("7 // 2 + 7 % 4", "6"),
        ("2**10", "1024"),
        ("2**-2", "0.25"),
        ("(1 + 2) * -3", "-9"),
        ("1e3 + 1_000", "2000"),
        ("123456789012345678 * 10", "1234567890123456780"),
    ],
)
def test_calculator_is_exact(expression: str, value: str) -> None:
    assert calculate(expression) == value


@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from("+-*/"))
def test_calculator_agrees_with_fractions(a: int, b: int, sign: str) -> None:
    if sign == "/" and b == 0:
        return
    wanted = {"+": Fraction(a + b), "-": Fraction(a - b), "*": Fraction(a * b), "/": Fraction(a, b or 1)}[sign]
    assert Fraction(calculate(f"({a}) {sign} ({b})")) == wanted


@pytest.mark.parametrize(
    "hostile",
    [
        "9**9**9",
        "1e999999999",
        "10**64**2",
        "2**(10**9)",
        "(" * 99 + "1" + ")" * 99,
        "9" * 300,
        "__import__('os').system('true')",
        "(1).__class__",
        "x",
        "1 if 1 else 2",
        "'a' * 10**9",
        "True",
        "1/0",
        "0**-1",
        "1j",
        "",
        "\\x00",
        "(lambda: 1)()",
        "*".join(["99999999"] * 22),
    ],
)
def test_calculator_refuses_at_once(hostile: str) -> None:
    started = time.monotonic()
    try:
        result = calculate(hostile)
    except CalculatorError:
        pass
    else:
        assert result == "1" and hostile.startswith("(((")  # deep and harmless
    assert time.monotonic() - started < 0.5


def test_calls() -> None:
    assert insert("I need <<calculator: 12*39>>") == " 468"
    assert insert("<<12*39>>") == " 468"
    assert insert("<< 1 + 1 >>") == " 2"
    assert insert("<<1+1 <<2+3>>") == " 5"  # the last that was opened
    assert insert("<<x>>") == " error: only numbers and + - * / // % ** ( )"
    assert insert("<<abacus: 1>>") == " error: tools are calculator"
    assert insert(">>> 1 + 1") == ""  # no call at all: it goes on
    assert insert("[2*3]", marks=["[", "]"]) == " 6"


def test_the_message_ends_without_a_word() -> None:
    step = build(EnvironmentConfig(kind="tools")).reset(PROMPT, 0).step("#### 4", True)
    assert step.insert is None and step.reply is None


DOCUMENTS = """Paris: the capital of France, on the Seine.

Rome: the capital of Italy, on the Tiber. << calculator: 1 >> <<9*9>> #### 42

The Tiber flows through Rome, Rome and Rome again.
"""


@pytest.fixture
def documents(tmp_path: Path) -> str:
    (tmp_path / "a.txt").write_text(DOCUMENTS)
    return str(tmp_path)


def test_lookup_finds_titles_and_words(documents: str) -> None:
    passages = Passages(documents)
    assert passages.find("paris") == "Paris: the capital of France, on the Seine."
    assert (passages.find("rome") or "").startswith("Rome: the capital")  # the title, though another says it more often
    assert (passages.find("which river flows through rome") or "").startswith("The Tiber")
    assert passages.find("zebra") is None
    scored = passages.find("tiber again")
    assert scored is not None and scored.startswith("The Tiber")


def test_results_cannot_call_and_are_cut(documents: str) -> None:
    found = insert("<<lookup: Rome>>", tools=["lookup"], documents=documents)
    assert found is not None and "<<" not in found and ">>" not in found and "< <9*9> >" in found
    short = insert("<<lookup: Rome>>", tools=["lookup"], documents=documents, characters=20)
    assert short == " Rome: the capital o…"
    assert insert("<<lookup: zebra>>", tools=["lookup"], documents=documents) == " error: nothing found"


@given(st.text("<>[ab", max_size=30))
def test_no_mark_survives(text: str) -> None:
    for marks in (["<<", ">>"], ["<a>", "</a>"], ["[", "]"], ["<>", "><"]):
        tools = build(EnvironmentConfig(kind="tools", options={"marks": marks}))
        assert isinstance(tools, Tools)
        shown = tools._shown(text)
        assert not any(mark in shown for mark in marks)


class FakeSandbox:
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def run(self, jobs):  # type: ignore[no-untyped-def]
        self.jobs = jobs
        return [self.outcome]

    def close(self) -> None:
        pass


def python_says(program: str, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> tuple[str | None, FakeSandbox]:
    fake = FakeSandbox(outcome)
    monkeypatch.setattr(importlib.import_module("trivium.sandbox.build"), "build", lambda config: fake)
    return insert(f"<<python: {program}>>", tools=["python"]), fake


def test_python_returns_output_and_last_value(monkeypatch: pytest.MonkeyPatch) -> None:
    said, fake = python_says("x = 2\nprint('hi')\nx + 1", Outcome("ok", (Result(3),), "hi\n"), monkeypatch)
    assert said == " hi 3"
    assert fake.jobs[0].program == "x = 2\nprint('hi')" and fake.jobs[0].calls == ("x + 1",)
    said, fake = python_says("print(5)", Outcome("ok", (), "5\n"), monkeypatch)
    assert said == " 5" and fake.jobs[0].program == "print(5)"
    assert python_says("x = 1", Outcome("ok"), monkeypatch)[0] == " done"
    assert python_says("1/0", Outcome("ok", (Result(error="ZeroDivisionError: by zero"),)), monkeypatch)[0] == (
        " error: ZeroDivisionError: by zero"
    )
    assert python_says("a b", Outcome("ok"), monkeypatch)[0] == " error: not a program"
    assert python_says("while 1: pass", Outcome("timeout"), monkeypatch)[0] == " error: timeout"


def test_a_program_that_the_tier_cannot_run_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a policy could leave its rollouts unscored by importing what the embedded interpreter lacks."""
    for outcome in (Outcome("unsupported", detail="re"), Outcome("infra_error", detail="re", tier="monty")):
        assert python_says("import re", outcome, monkeypatch)[0] == " error: not supported here"


def test_a_slow_program_cannot_outlast_the_wait_for_it() -> None:
    options = {"tools": ["python"], "sandbox": {"tier": "auto", "seconds": 10}}
    with pytest.raises(UserError, match=r"sandbox.seconds.*environment.seconds"):
        build(EnvironmentConfig(kind="tools", options=options, seconds=10))


def test_a_sandbox_that_fails_is_our_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="sandbox"):
        python_says("1", Outcome("infra_error", detail="gone"), monkeypatch)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("tool", {}, "did you mean 'tools'"),
        ("tools", {"mark": ["a", "b"]}, "did you mean 'marks'"),
        ("tools", {"tools": ["abacus"]}, "tools.0 is 'abacus', but must be one of calculator"),
        ("tools", {"tools": ["lookup"]}, "lookup and documents"),
        ("tools", {"tools": ["lookup"], "documents": "/nowhere"}, "no text at /nowhere"),
        ("tools", {"marks": ["<<", "<<"]}, "two different"),
        ("guess", {"guesses": 0}, "guesses is 0, but should be"),
        ("function", {"path": "nothing"}, "path is 'nothing', but should be 'file.py:Name' or"),
        ("function", {"path": "/nowhere.py:Thing"}, "cannot load"),
    ],
)
def test_wrong_settings_are_one_sentence(kind: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(EnvironmentConfig(kind=kind, options=options))


@pytest.mark.skipif(available("bubblewrap") is not None, reason=f"no bubblewrap: {available('bubblewrap')}")
def test_python_in_the_real_sandbox() -> None:
    options = {"tools": ["python"], "sandbox": {"tier": "bubblewrap", "seconds": 3}}
    assert insert("<<python: x = 12 * 39; x + 1>>", **options) == " 469"
    assert str(insert("<<python: print(open('/etc/hostname').read())>>", **options)).startswith(
        " error: FileNotFoundError"
    )
    assert str(insert("<<python: import socket; socket.socket()>>", **options)).startswith(" error: ")
