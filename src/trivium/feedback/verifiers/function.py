"""A verifier that calls a user's Python function, in a worker process that can be killed at any time."""

import contextlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import IO, Any

from pydantic import Field, PrivateAttr

from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.verdict import STATUSES, Verdict
from trivium.feedback.verifiers.base import Verifier, infra_error, shorten

_START_SECONDS = 120.0  # imports of a user's module may be slow


class Function(Verifier):
    """``path`` names a function ``(prompt: Prompt, response: str) -> float | dict | Verdict``.

    It runs in one persistent worker process, a call at a time (calls from several threads wait for each other). A call
    that takes longer than ``seconds`` gets status timeout, and the worker is killed and replaced; this works on any
    thread. An exception, a score that is not a finite number, or a dead worker is an infra_error with its detail.
    A dict has ``score`` and may have ``status``, ``extracted`` and ``detail``.
    """

    path: str = Field(pattern=r".+:[A-Za-z_]\w*$", description="'package.module:name' or 'file.py:name'")
    seconds: float = Field(10.0, gt=0, description="longest call")

    _worker: "_Worker | None" = PrivateAttr(None)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def model_post_init(self, context: Any, /) -> None:
        """Starts the worker, so that a function that does not load is refused before anything is computed."""
        worker = _Worker(self.path)
        failure = worker.receive(_START_SECONDS)
        if failure is None or "error" in failure:
            worker.kill()
            raise UserError(
                f"verifier function: cannot load {self.path!r}: {(failure or {}).get('error', 'it ended or hung')}."
            )
        self._worker = worker

    def judge(self, prompt: Prompt, response: str) -> Verdict:
        try:
            request = json.dumps({"prompt": asdict(prompt), "response": response})
        except (TypeError, ValueError, RecursionError) as error:
            return infra_error(f"the prompt cannot be sent to the worker as JSON: {error}")
        with self._lock:
            if self._worker is None:
                self._worker = _Worker(self.path)
                ready = self._worker.receive(_START_SECONDS)
                if ready is None or "error" in ready:
                    self._stop()
                    return infra_error(f"the worker did not start: {(ready or {}).get('error', 'it ended or hung')}")
            if not self._worker.send(request):
                self._stop()
                return infra_error("the worker had ended; a new one starts with the next call")
            reply = self._worker.receive(self.seconds)
            if reply is None:
                ended = self._worker.ended
                self._stop()
                if ended:
                    return infra_error("the function ended its process")
                return Verdict(0.0, "timeout", None, f"the function took longer than {self.seconds:g} s")
        return _verdict(reply)

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


def _verdict(reply: dict[str, Any]) -> Verdict:
    """What the worker sent, as a Verdict; anything odd is an infra_error."""
    if "error" in reply:
        return infra_error(str(reply["error"]))
    score, status = reply.get("score"), reply.get("status", "ok")
    if status not in STATUSES:
        return infra_error(f"the function returned the status {str(status)[:40]!r}")
    if status == "infra_error":
        return infra_error(str(reply.get("detail", "")))
    if isinstance(score, bool):
        score = float(score)
    if not isinstance(score, int | float) or not math.isfinite(score):
        return infra_error(f"the function returned {str(score)[:80]!r} where a finite number was expected")
    extracted = reply.get("extracted")
    return Verdict(
        float(score), status, None if extracted is None else shorten(str(extracted)), str(reply.get("detail", ""))
    )


class _Worker:
    """The process and a thread that reads its replies, one JSON object a line."""

    def __init__(self, path: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trivium.feedback.function_worker", path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin: IO[str] = self._process.stdin
        self._replies: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        self.ended = False

    def _read(self, stdout: IO[str]) -> None:
        with stdout:
            for line in stdout:
                self._replies.put(line)
        self._replies.put(None)

    def send(self, line: str) -> bool:
        try:
            self._stdin.write(line + "\n")
            self._stdin.flush()
        except OSError:
            return False
        return True

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next reply; None if there is none in time, or if the process ended (then ``ended`` is set)."""
        try:
            line = self._replies.get(timeout=seconds)
        except queue.Empty:
            return None
        if line is None:
            self.ended = True
            return None
        reply = json.loads(line)
        return reply if isinstance(reply, dict) else {"error": "the worker sent no object"}

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # unsent bytes for a process that is gone
            self._stdin.close()
