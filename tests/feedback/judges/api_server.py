"""A server on this machine that behaves like an OpenAI-compatible API, and misbehaves as it is told to."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trivium.config import JudgeConfig

MODEL = "judge-model"


@dataclass(frozen=True)
class Answer:
    """What goes over the wire; ``seconds`` of silence come first. ``hang_up``: the connection is cut in place of it."""

    content: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    hang_up: bool = False


@dataclass(frozen=True)
class Seen:
    """A request as it came: its number (from 0), path, headers (names in lower case) and body."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def asked(self) -> str:
        return str(self.body["messages"][-1]["content"])


Behaviour = Callable[[Seen], Answer]


def as_json(value: Any, status: int = 200, **more: Any) -> Answer:
    return Answer(
        json.dumps(value).encode(), status, {"Content-Type": "application/json"} | more.pop("headers", {}), **more
    )


def completion(
    *texts: str | None,
    tokens: Sequence[tuple[str, Mapping[str, float]]] | None = None,
    refusal: str | None = None,
    finish: str = "stop",
    usage: Any = {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},  # noqa: B006
    **more: Any,
) -> Answer:
    """A chat completion with a choice a text. ``tokens``: sampled tokens, each with log-probabilities."""
    logprobs = None
    if tokens is not None:
        entries = []
        for token, top in tokens:
            alternatives = [
                {"token": text, "logprob": value, "bytes": list(text.encode())} for text, value in top.items()
            ]
            entries.append(
                {"token": token, "logprob": top.get(token, -30.0), "bytes": None, "top_logprobs": alternatives}
            )
        logprobs = {"content": entries, "refusal": None}
    choices = [
        {
            "index": index,
            "finish_reason": finish,
            "logprobs": logprobs,
            "message": {"role": "assistant", "content": text, "refusal": refusal},
        }
        for index, text in enumerate(texts)
    ]
    value = {"id": "c-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": choices}
    return as_json(value | ({"usage": usage} if usage is not None else {}), **more)


def failure(status: int, message: str, code: str | None = None, param: str | None = None, **more: Any) -> Answer:
    return as_json({"error": {"message": message, "type": "error", "param": param, "code": code}}, status, **more)


def web_page(status: int = 200) -> Answer:
    return Answer(b"<!DOCTYPE html><html><body>Bad gateway</body></html>", status, {"Content-Type": "text/html"})


class ApiServer:
    """Answers POST /v1/chat/completions by ``behave``, keeps what it saw, and counts requests side by side."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.seen: list[Seen] = []
        self.parallel = 0
        self.most_parallel = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with server._lock:
                    seen = Seen(len(server.seen), self.path, headers, body)
                    server.seen.append(seen)
                    server.parallel += 1
                    server.most_parallel = max(server.most_parallel, server.parallel)
                try:
                    answer = server.behave(seen)
                    time.sleep(answer.seconds)
                finally:
                    with server._lock:
                        server.parallel -= 1
                try:
                    self._send(answer)
                except OSError:
                    self.close_connection = True  # whoever asked has gone

            def _send(self, answer: Answer) -> None:
                if answer.hang_up:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def config(self, **settings: Any) -> JudgeConfig:
        defaults = {
            "backend": "openai",
            "model": MODEL,
            "url": self.url,
            "key_variable": "TEST_JUDGE_KEY",
            "retries": 2,
        }
        return JudgeConfig(**(defaults | settings))


@contextmanager
def serving(behave: Behaviour | Sequence[Answer]) -> Any:
    """An ``ApiServer``: by a function, or by a list of answers, the last of which stays."""
    if not callable(behave):
        script = list(behave)

        def behave(seen: Seen) -> Answer:
            return script[min(seen.number, len(script) - 1)]

    server = ApiServer(behave)
    try:
        yield server
    finally:
        server.close()
