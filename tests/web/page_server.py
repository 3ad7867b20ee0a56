"""A ranking server with a few tasks, and a browser before it, for the tests of the page."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from trivium.data.records import Message, Prompt
from trivium.feedback.rankings.record import Ranking, Response
from trivium.feedback.rankings.store import Store
from trivium.web.ranking import create_app
from trivium.web.settings import ServerSettings

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "Gravity. <script>window.broken = true; alert(1)</script><img src=x onerror=alert(2)> </div>\u202eabc"
ANSWERS = (
    "A tide is the slow rise and fall of the sea. The moon pulls on the ocean, and the water on the side that faces it "
    "bulges out. The earth turns under this bulge, so most coasts see two high tides a day.\n\nWhen sun and moon pull "
    "along one line, at new and full moon, the tides are larger. These are spring tides.",
    "Tides happen because of the moon. It pulls the water. That is why the sea goes up and down twice a day.",
    "A tide is the slow rise and fall of the sea. The sun heats the ocean, and the warm water on the side that faces "
    "it swells. The earth turns under this bulge, so most coasts see two high tides a day.",
    HOSTILE,
)


@dataclass
class Site:
    """A running server and its store."""

    url: str
    store: Store

    def rankings(self, annotator: str) -> list[Ranking]:
        return list(self.store.rankings(annotators=[annotator]))

    def person(self, name: str, role: str = "annotator") -> str:
        """Somebody new, with nothing done yet. Returns the link that lets them in."""
        return f"{self.url}/enter/{self.store.add_annotator(name, role=role)}"


def add_task(store: Store, question: str, answers: tuple[str, ...] = ANSWERS, priority: float = 0.0) -> str:
    messages = (Message("system", "You are a patient teacher. Answer in a few sentences."), Message("user", question))
    responses = [
        Response(text, model="sft", finish_reason="length" if at == 2 else "stop") for at, text in enumerate(answers)
    ]
    return store.add_task(Prompt(id=question, messages=messages), responses, wanted=100, priority=priority)


@contextmanager
def site(directory: Path) -> Iterator[Site]:
    """The server on a free port, in a thread of this process."""
    store = Store.open(directory)
    questions = (
        "Why does the sea go up and down at the beach? My daughter (8) asks me.",
        "What is a tide?",
        "Why twice a day?",
    )
    for question in questions:
        add_task(store, question)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = ServerSettings(port=port, gold_share=0.0, random_share=0.0)
    server = uvicorn.Server(uvicorn.Config(create_app(directory, settings), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for _ in range(600):
        if server.started:
            break
        time.sleep(0.05)
    else:
        raise TimeoutError("the ranking server did not start within 30 s")
    yield Site(f"http://127.0.0.1:{port}", store)
    server.should_exit = True
    thread.join(20)
    store.close()


def need_chromium() -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"needs Debian's chromium at {CHROMIUM}", allow_module_level=True)
    pytest.importorskip("playwright")
