"""Annotators who submit as fast as they can to a server that is killed under them, and what must hold afterwards."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from tests.web.serving import answers_of, prompt_of

from trivium.feedback.rankings.store import NewTask, Store
from trivium.streams import generator

HIDDEN = re.compile(r'<input type="hidden" name="(csrf|key|assignment)" value="([^"]*)">')
TIER = re.compile(r'name="tier-(\d+)"')


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Serving:
    """``trivium rank`` in a process of its own."""

    def __init__(self, place: str, port: int, log: Path, *options: str) -> None:
        script = "from trivium.web.commands import rank; rank()"
        self.command = [
            sys.executable,
            "-c",
            script,
            "serve",
            place,
            "--port",
            str(port),
            "--rate",
            "1000000",
            *options,
        ]
        self.port, self.log = port, log
        self.start()

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@dataclass
class Crowd:
    """Annotators in threads; ``acknowledged`` holds {id of the ranking: (annotator, key, tiers)}."""

    port: int
    tokens: dict[str, str]
    acknowledged: dict[str, tuple[str, str, tuple[int, ...]]] = field(default_factory=dict)
    retries: int = 0
    repeated: int = 0  # acknowledgements that came twice for one ranking: never
    lock: threading.Lock = field(default_factory=threading.Lock)
    failures: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self.threads = [threading.Thread(target=self._safely, args=item, daemon=True) for item in self.tokens.items()]
        for thread in self.threads:
            thread.start()

    @property
    def is_working(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def _safely(self, name: str, token: str) -> None:
        try:
            self._work(name, token)
        except BaseException as error:
            self.failures.append(f"{name}: {error!r}")

    def _work(self, name: str, token: str) -> None:
        browser = _Browser(self, token)
        count = 0
        while True:
            page = browser.ask("GET", "/rank")[1]
            hidden = dict(HIDDEN.findall(page))
            if "assignment" not in hidden:
                assert "rank yet" in page or "All done" in page, page
                return
            numbers = sorted(set(map(int, TIER.findall(page))))
            chance = generator(0, "crowd", name, count)
            tiers = chance.integers(1, 10, len(numbers)).tolist()
            form = {**hidden, **{f"tier-{n}": str(tier) for n, tier in zip(numbers, tiers, strict=True)}}
            answer = json.loads(browser.ask("POST", "/rank", urlencode(form))[1])
            assert answer["ok"], answer
            dense = {tier: place for place, tier in enumerate(sorted(set(tiers)))}
            with self.lock:
                self.repeated += answer["ranking"] in self.acknowledged
                self.acknowledged[answer["ranking"]] = (name, hidden["key"], tuple(dense[tier] for tier in tiers))
            count += 1


class _Browser:
    """One connection that is kept; a request that failed is sent again, the same, until it is answered."""

    def __init__(self, crowd: Crowd, token: str) -> None:
        self.crowd = crowd
        self.connection: http.client.HTTPConnection | None = None
        self.cookie = ""
        answer, _ = self.ask("GET", f"/enter/{token}")
        self.cookie = str(answer.getheader("Set-Cookie")).partition(";")[0]

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[http.client.HTTPResponse, str]:
        headers = {"Cookie": self.cookie, "Origin": f"http://127.0.0.1:{self.crowd.port}"}
        if body is not None:
            headers |= {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        deadline = time.monotonic() + 120
        while True:
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection("127.0.0.1", self.crowd.port, timeout=60)
                self.connection.request(method, path, body, headers)
                answer = self.connection.getresponse()
                text = answer.read().decode()
                if answer.status in (200, 303):
                    return answer, text
                assert answer.status in (429, 503), f"{answer.status}: {text}"
            except (OSError, http.client.HTTPException):
                self.connection = None
            assert time.monotonic() < deadline, f"{method} {path} was not answered"
            self.crowd.retries += 1
            time.sleep(0.05)


def submit_under_fire(place: str, folder: Path, annotators: int, rankings: int, kills: int) -> dict[str, float]:
    """``annotators`` submit ``rankings`` over three sets of tasks while the server is killed ``kills`` times. Checks
    that the store then holds exactly what was acknowledged, once, and returns the numbers."""
    wanted = max(1, annotators // 10)
    with Store.open(place) as store:
        store.add_tasks(
            NewTask(prompt_of(number), answers_of(number, 2 + number % 4), wanted=wanted, source=f"set {number % 3}")
            for number in range(rankings // wanted)
        )
        tokens = {f"annotator-{number}": store.add_annotator(f"annotator-{number}") for number in range(annotators)}
    serving = Serving(place, free_port(), folder / "server.log", "--gold-share", "0")
    crowd = Crowd(serving.port, tokens)
    begun = time.monotonic()
    crowd.start()
    down = 0.0
    try:
        for kill in range(1, kills + 1):
            while len(crowd.acknowledged) < rankings * kill / (kills + 1) and crowd.is_working:
                time.sleep(0.005)
            assert crowd.is_working, crowd.failures
            serving.kill()
            stopped = time.monotonic()
            serving.start()
            down += time.monotonic() - stopped
        for thread in crowd.threads:
            thread.join(1200)
        seconds = time.monotonic() - begun
        assert not crowd.is_working and not crowd.failures, crowd.failures
    finally:
        serving.kill()
    check(place, crowd, rankings)
    return {
        "rankings": len(crowd.acknowledged),
        "kills": kills,
        "retries": crowd.retries,
        "seconds": round(seconds, 1),
        "down": round(down, 1),
        "rankings_a_second": round(rankings / (seconds - down), 1),
    }


def check(place: str, crowd: Crowd, rankings: int) -> None:
    with Store.open(place, create=False) as store:
        stored = list(store.rankings(superseded=True))
        assert len({ranking.id for ranking in stored}) == len(stored)
        said = {}  # by the places that the answers were shown at, as the page sends them
        for ranking in stored:
            said[ranking.id] = (ranking.annotator, tuple(ranking.tiers[number] for number in ranking.displayed))
        for identity, (name, _, tiers) in crowd.acknowledged.items():
            assert said[identity] == (name, tiers)
        assert crowd.repeated == 0 and len(stored) == len(crowd.acknowledged) == rankings
        assert len({(ranking.annotator, ranking.task) for ranking in stored}) == len(stored)
        assert all(task.done == task.wanted for task in store.tasks())
