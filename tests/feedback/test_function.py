"""The user's function: right scores, and a crash, a hang or a death that is a status and not a zero."""

import threading
import time
from pathlib import Path

import pytest

from trivium.config import VerifierConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.verdict import Verdict
from trivium.feedback.verifiers import build
from trivium.feedback.verifiers.function import Function

CODE = """
import os, sys, time
from trivium.feedback.verdict import Verdict

def score(prompt, response):
    print("noise that must not be taken for a reply", file=sys.stdout, flush=True)
    match response:
        case "crash": raise ValueError("broken")
        case "exit": sys.exit(3)
        case "die": os._exit(3)
        case "hang":
            while True: time.sleep(0.1)
        case "nan": return float("nan")
        case "word": return "good"
        case "none": return None
        case "dict": return {"score": 0.5, "status": "unparseable", "extracted": 7, "detail": "d"}
        case "odd": return {"score": 0.5, "status": "great"}
        case "verdict": return Verdict(0.25, "ok", "x", "y")
        case "infra": return {"score": 0, "status": "infra_error", "detail": "no network"}
    return prompt.messages[0].content == response and prompt.answer == {"a": 1}

number = 5
"""
PROMPT = Prompt("id", (Message("user", "hello \ud800"),), {"a": 1}, "task", {"k": [1]})


@pytest.fixture(scope="module")
def function(tmp_path_factory: pytest.TempPathFactory) -> Function:
    file = tmp_path_factory.mktemp("user") / "rewards.py"
    file.write_text(CODE)
    verifier = build(VerifierConfig(kind="function", options={"path": f"{file}:score", "seconds": 3.0}))
    assert isinstance(verifier, Function)
    return verifier


def test_results_of_every_form(function: Function) -> None:
    assert function(PROMPT, "hello \ud800") == Verdict(1.0)
    assert function(PROMPT, "other") == Verdict(0.0)
    assert function(PROMPT, "dict") == Verdict(0.5, "unparseable", "7", "d")
    assert function(PROMPT, "verdict") == Verdict(0.25, "ok", "x", "y")
    assert function(PROMPT, "infra") == Verdict(0.0, "infra_error", None, "no network")


@pytest.mark.parametrize(
    ("response", "detail"),
    [
        ("crash", "broken"),
        ("exit", "SystemExit"),
        ("die", "ended"),
        ("nan", "nan"),
        ("word", "good"),
        ("none", "NoneType"),
        ("odd", "great"),
    ],
)
def test_failures_are_infra_errors_with_their_detail_and_the_next_call_works(
    function: Function, response: str, detail: str
) -> None:
    verdict = function(PROMPT, response)
    assert verdict.status == "infra_error" and detail in verdict.detail
    assert function(PROMPT, "hello \ud800").score == 1.0


def test_a_hang_is_a_timeout_off_the_main_thread_too_and_the_worker_is_replaced(function: Function) -> None:
    verdicts: list[Verdict] = []
    start = time.monotonic()
    thread = threading.Thread(target=lambda: verdicts.append(function(PROMPT, "hang")))
    thread.start()
    thread.join()
    assert verdicts[0].status == "timeout" and time.monotonic() - start < 30
    assert function(PROMPT, "hello \ud800").score == 1.0


def test_prompts_that_are_no_json_are_infra_errors(function: Function) -> None:
    assert function(Prompt("id", (), object()), "x").status == "infra_error"


def test_close_ends_the_worker_and_a_later_call_starts_another(function: Function) -> None:
    function.close()
    function.close()
    assert function(PROMPT, "hello \ud800").score == 1.0
    function.close()


@pytest.mark.parametrize(
    "path", ["nowhere.py:score", "no.such.module:score", "math:no_such_name", "math:pi", "math", "{file}:number"]
)
def test_functions_that_do_not_load_are_refused_at_the_start(path: str, tmp_path: Path) -> None:
    file = tmp_path / "rewards.py"
    file.write_text(CODE)
    with pytest.raises(UserError, match="function"):
        build(VerifierConfig(kind="function", options={"path": path.format(file=file)}))


def test_a_function_of_an_importable_module() -> None:
    verifier = build(VerifierConfig(kind="function", options={"path": "operator:eq"}))
    assert verifier(PROMPT, "x") == Verdict(0.0)
    verifier.close()
