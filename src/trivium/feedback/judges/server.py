"""A judge behind any server that speaks OpenAI's chat completions, through the official client.

A verdict is read off the log-probabilities of the answer's first token where the server gives them, else counted over
``samples`` drawn answers (verdicts.py). A call that fails in passing is repeated with growing pauses; one that cannot
work stops everything at once; an answer that is none is missing. What comes back is hostile text (replies.py).
"""

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from pydantic import SecretStr

from trivium.config import JudgeConfig
from trivium.errors import UserError
from trivium.feedback.judges.base import OnReply, Question, Reply
from trivium.feedback.judges.connection import Compressed, TooLarge, checked_url, open_client, read_key, retry_after
from trivium.feedback.judges.replies import (
    MAX_BODY,
    MAX_TEXT,
    Candidate,
    Completion,
    ErrorWords,
    NotACompletion,
    clean,
    error_words,
    read_completion,
)
from trivium.feedback.judges.verdicts import Verdict, count_samples, read_positions
from trivium.streams import generator

FIRST_PAUSE = 0.5  # seconds: the longest pause before the first repeat; it doubles with each
LONGEST_PAUSE = 30.0
VERDICT_TOKENS = 8  # tokens of a verdict whose first one is what counts
_SHORTEST_SECRET = 8  # a shorter key is a placeholder such as "none" or "EMPTY", and no secret
_TOO_LONG = re.compile(r"context.?(length|window|size)|prompt is too long|too many tokens")
_FILTERED = re.compile(r"content.?(filter|policy)|content management policy")


@dataclass(frozen=True)
class _Manner:
    """Which of the parameters that not all servers take are sent; learned from their refusals."""

    top_logprobs: int | None = 20
    limit: str = "max_tokens"
    many: bool = True  # several answers a call
    temperature: bool = True


class _Fault(Exception):
    """A call failed in a way that may pass; ``wait``: seconds the server asks for."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


class _Refused(Exception):
    """The server does not take the request as it is."""

    def __init__(self, words: ErrorWords, status: int) -> None:
        super().__init__(f"it refuses the request ({status}): {words.message}")
        self.words = words


class _Missing(Exception):
    """This question gets no answer, and asking again would not help."""


class _Stop(Exception):
    """No question will get an answer; the message says what and what to do."""


class ServerBackend:
    """``Backend`` over a server with OpenAI's API (``config.url``; none: OpenAI itself).

    The key is read from the environment variable ``config.key_variable``. A server on this machine needs none: where
    the variable is not set, it gets ``connection.PLACEHOLDER_KEY``.

    Raises:
        UserError: the client is not installed, the address is none, or the key is missing.
    """

    def __init__(self, config: JudgeConfig) -> None:
        try:
            import openai  # noqa: F401
        except ImportError:
            raise UserError(
                "a judge with backend openai needs the package openai, which is not installed; "
                "install it with: pip install 'trivium[judges]'"
            ) from None
        self.config = config
        self.url = checked_url(config.url)
        self.name = config.model
        self.identity = f"{self.url} {config.model}"
        self._key = SecretStr(read_key(config.key_variable, self.url))
        self.keyless = not os.environ.get(config.key_variable, "").strip()
        self._manner = _Manner()
        self._answered = False

    def __repr__(self) -> str:
        return f"ServerBackend({self.identity!r})"

    def close(self) -> None:
        """Nothing stays open between two calls of ``ask``."""

    def ask(self, questions: Sequence[Question], on_reply: OnReply) -> None:
        """Answer all questions, at most ``config.concurrency`` at a time, in an event loop of its own; ``on_reply`` is
        called from this thread. What it raises ends the work and is raised.

        Raises:
            UserError: the server is down or refuses to answer. Replies before that were handed over; calls under way
                are given up.
        """
        asyncio.run(self._ask(questions, on_reply))

    async def _ask(self, questions: Sequence[Question], on_reply: OnReply) -> None:
        todo = iter(enumerate(questions))
        kept = 0

        async def work(client: Any) -> None:
            nonlocal kept
            for index, question in todo:
                reply = await _Asking(self, client, question, index).reply()
                on_reply(index, reply)
                kept += 1

        try:
            key = self._key.get_secret_value()
            async with open_client(self.url, key, self.config.timeout) as client, asyncio.TaskGroup() as group:
                for _ in range(min(self.config.concurrency, len(questions))):
                    group.create_task(work(client))
        except BaseExceptionGroup as failures:
            # What on_reply raised, such as a budget that is spent, is the better reason than a server that went down.
            first = next((e for e in failures.exceptions if not isinstance(e, _Stop)), failures.exceptions[0])
            if not isinstance(first, _Stop):
                raise first from None
            raise UserError(
                f"judge {self.config.model} at {self.url}: {first}. {kept} of the {len(questions)} answers asked for "
                "just now came and are kept; the same command goes on from there"
            ) from None

    def _hide(self, text: str) -> str:
        key = self._key.get_secret_value()
        return text.replace(key, "[key]") if len(key) >= _SHORTEST_SECRET else text

    def _learn(self, before: _Manner, after: _Manner) -> None:
        """Remember what differs, and only that: calls side by side learn different things."""
        changed = {name: value for name, value in vars(after).items() if value != getattr(before, name)}
        self._manner = replace(self._manner, **changed)
        self._answered = True


class _Asking:
    """One question on its way: the calls it takes, their repeats and what they cost."""

    def __init__(self, backend: ServerBackend, client: Any, question: Question, index: int) -> None:
        self.backend = backend
        self.client = client
        self.question = question
        self.index = index
        self.config = backend.config
        self.failures = 0  # of the call under way
        self.pauses = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0

    async def reply(self) -> Reply:
        try:
            reply = await (self._verdict() if self.question.choices else self._text())
        except _Missing as missing:
            reply = Reply(missing=str(missing))
        return replace(reply, prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)

    async def _text(self) -> Reply:
        candidate = _only(await self._call())
        text = _without_thoughts(candidate.text)
        if not text:
            raise _Missing(f"an empty text{_cut(candidate)}")
        return Reply(text=text, cut=candidate.finish == "length")

    async def _verdict(self) -> Reply:
        verdict = await self._by_log_probabilities() if self.backend._manner.top_logprobs is not None else None
        if verdict is None or verdict.undecided:
            verdict = count_samples(await self._samples(), self.question.choices)
        return Reply(probabilities=verdict.probabilities, missing=verdict.missing)

    async def _by_log_probabilities(self) -> Verdict | None:
        """None where the server gives no log-probabilities."""
        candidate = _only(await self._call(log_probabilities=True))
        if candidate.positions is not None:
            return read_positions(candidate.positions, self.question.choices, candidate.text)
        if not candidate.text.strip():
            raise _Missing(f"an empty answer{_cut(candidate)}")
        # Refused (the call then went without) or ignored: no further verdict asks for them.
        self.backend._manner = replace(self.backend._manner, top_logprobs=None)
        return None

    async def _samples(self) -> list[str]:
        """The texts of ``config.samples`` answers; refusals and empty ones are empty."""
        wanted = self.config.samples
        found: list[Candidate] = []
        while len(found) < wanted:
            many = wanted - len(found) if self.backend._manner.many else 1
            candidates = (await self._call(many=many)).candidates
            if len(candidates) < many:  # a server that does not know the parameter gives one
                self.backend._manner = replace(self.backend._manner, many=False)
            # An empty list counts as a sample without a verdict: it must not be asked for without end.
            found += candidates or [Candidate("", "", "", None)]
        given = [candidate for candidate in found[:wanted] if not _is_refusal(candidate)]
        if not given:
            raise _Missing("it refuses to answer")
        return [_without_thoughts(candidate.text) for candidate in given]

    async def _call(self, log_probabilities: bool = False, many: int = 1) -> Completion:
        """One completion, however many calls it takes to get it."""
        start = manner = self.backend._manner
        self.failures = 0
        while True:
            try:
                completion = await self._send(manner, log_probabilities, many)
            except _Refused as refused:
                adapted = _adapt(manner, start, refused.words, self._sent(manner, log_probabilities, many))
                if adapted is not None:
                    manner = adapted
                elif self.backend._answered:
                    # It takes our requests, so it is this one that it does not like.
                    raise _Missing(str(refused)) from None
                else:
                    raise _Stop(f"{refused}; compare the recipe with what the server takes") from None
            except _Fault as fault:
                await self._pause_or_stop(fault)
            else:
                self.backend._learn(start, manner)
                self.prompt_tokens += completion.prompt_tokens
                self.completion_tokens += completion.completion_tokens
                return completion

    def _sent(self, manner: _Manner, log_probabilities: bool, many: int) -> dict[str, Any]:
        question = self.question
        # Log-probabilities are those at temperature 1, whatever is asked for; so is the token beside them.
        temperature = 1.0 if log_probabilities else question.temperature
        asks = log_probabilities and manner.top_logprobs is not None
        return {
            "model": self.config.model,
            "messages": [{"role": message.role, "content": message.content} for message in question.messages],
            manner.limit: min(VERDICT_TOKENS, question.max_new_tokens)
            if log_probabilities
            else question.max_new_tokens,
            **({"temperature": temperature} if manner.temperature or temperature != 1 else {}),
            **({"logprobs": True, "top_logprobs": manner.top_logprobs} if asks else {}),
            **({"n": many} if many > 1 and manner.many else {}),
        }

    async def _send(self, manner: _Manner, log_probabilities: bool, many: int) -> Completion:
        import openai

        options = self._sent(manner, log_probabilities, many)
        try:
            # The client's own limit is for each read; a server that trickles would hold a call for ever.
            async with asyncio.timeout(self.config.timeout):
                response = await self.client.chat.completions.with_raw_response.create(**options)
                return read_completion(response.content, self.backend._hide)
        except NotACompletion as problem:
            raise _Fault(str(problem)) from None
        except (TimeoutError, openai.APITimeoutError):
            raise _Fault(f"it gave no answer within {self.config.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            why = clean(str(error.__cause__ or error), self.backend._hide)[:200]
            raise _Fault(f"it cannot be reached ({why or type(error.__cause__).__name__})") from None
        except TooLarge:
            raise _Missing(f"an answer of more than {MAX_BODY} bytes") from None
        except Compressed:
            raise _Fault("it sends compressed answers though asked not to") from None
        except openai.APIStatusError as error:
            self._status(error.status_code, error.response)

    def _status(self, status: int, response: Any) -> NoReturn:
        """What an error status means for the question, or for all of them."""
        words = error_words(response.content, self.backend._hide)
        config, told = self.config, f"({status}: {words.message})"
        if status in (401, 403) and self.backend.keyless:
            raise _Stop(f"it wants a key {told}, and the environment variable {config.key_variable} is not set; set it")
        if status == 401:
            raise _Stop(f"it does not accept the key in {config.key_variable} {told}; set the right one")
        if status == 403:
            raise _Stop(f"it does not let the key in {config.key_variable} use this model {told}; ask for access")
        if status in (404, 405):
            raise _Stop(
                f"it knows no model {config.model!r}, or there is no such API at this address {told}; "
                "check model and url, which often ends in /v1"
            )
        if 300 <= status < 400:
            raise _Stop(f"it sends us to another address {told}; set url to that one if you trust it")
        if status == 429 and "insufficient_quota" in words.all:
            raise _Stop(f"the account has no credit left {told}; top it up")
        if status == 429:
            raise _Fault(f"it has too much to do {told}", retry_after(response.headers))
        if status in (408, 409, 425) or status >= 500:
            raise _Fault(f"it fails {told}", retry_after(response.headers))
        if status == 413 or _TOO_LONG.search(words.all):
            raise _Missing(f"the question is too long for the model {told}")
        if _FILTERED.search(words.all):
            raise _Missing(f"refused by a filter {told}")
        if status in (400, 422):
            raise _Refused(words, status)
        raise _Stop(f"it answered with status {status}: {words.message}; check url, model and key")

    async def _pause_or_stop(self, fault: _Fault) -> None:
        """Full jitter: a pause drawn from 0 to a limit that doubles (Brooker, Exponential Backoff and Jitter, 2015)."""
        self.failures += 1
        if self.failures > self.config.retries:
            times = "" if self.failures == 1 else f", {self.failures} times in a row"
            raise _Stop(f"{fault}{times}; it counts as down: check that it runs and what it logs") from None
        limit = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self.failures - 1, 30))
        self.pauses += 1
        draws = generator(0, "judge-server-pause", self.backend.identity, self.index, self.pauses)
        await asyncio.sleep(max(fault.wait, limit * float(draws.random())))


def _adapt(manner: _Manner, start: _Manner, words: ErrorWords, sent: dict[str, Any]) -> _Manner | None:
    """The next thing to try after a refusal: to leave out or rename what the server names; if it names nothing, each of
    the parameters that not all servers take, one after the other. None where nothing is left."""
    named = words.all
    steps: list[tuple[bool, _Manner]] = []
    if "top_logprobs" in sent:
        fewer = 5 if sent["top_logprobs"] > 5 else None
        steps.append((bool(re.search("log.?prob", named)), replace(manner, top_logprobs=fewer)))
    if "n" in sent:
        steps.append(
            (words.parameter == "n" or bool(re.search(r"['\"`]n['\"`]|\bn\b", named)), replace(manner, many=False))
        )
    if manner.limit == start.limit:
        other = "max_completion_tokens" if manner.limit == "max_tokens" else "max_tokens"
        steps.append(("max_tokens" in named or "max_completion_tokens" in named, replace(manner, limit=other)))
    if manner.temperature and sent.get("temperature") == 1:
        steps.append(("temperature" in named, replace(manner, temperature=False)))
    return next((step for hit, step in steps if hit), steps[0][1] if steps else None)


def _only(completion: Completion) -> Candidate:
    """The one answer of a call for one."""
    if not completion.candidates:
        raise _Missing("an empty list of answers")
    candidate = completion.candidates[0]
    if _is_refusal(candidate):
        raise _Missing(f"it refuses to answer: {candidate.refused or candidate.finish}")
    if len(candidate.text) > MAX_TEXT:
        raise _Missing(f"a text of more than {MAX_TEXT} characters")
    return candidate


def _is_refusal(candidate: Candidate) -> bool:
    return bool(candidate.refused) or candidate.finish == "content_filter"


def _cut(candidate: Candidate) -> str:
    return ", cut off at the limit of tokens (does the model think first?)" if candidate.finish == "length" else ""


def _without_thoughts(text: str) -> str:
    """The text after a block of reasoning that some servers leave in the answer; nothing where it does not end."""
    text = text.strip()
    return text.partition("</think>")[2].lstrip() if text.startswith("<think>") else text
