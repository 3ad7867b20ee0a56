"""Live tasks: answers are sampled from a checkpoint while people rank, a few tasks ahead of them."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.record import Response
from trivium.feedback.rankings.store import NewTask, Store
from trivium.web.tasks import FEWEST, add_tasks, checkpoint_hash, distinct

LOG = logging.getLogger("trivium.web")
_PATIENCE = 5  # times that a locked database is waited for, in a row
Judge = Callable[[Sequence[NewTask]], list[NewTask]]


@dataclass(frozen=True)
class LiveSettings:
    """``responses`` answers a prompt, ``ahead`` open tasks at least; ``batch`` prompts are sampled at a time."""

    model: str
    responses: int = 4
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    criterion: str = "overall"
    wanted: int = 1
    ahead: int = 8
    batch: int = 4
    seed: int = 0
    seconds: float = 1.0  # between two looks at the store


@dataclass
class LiveStatus:
    """``state``: ``sampling``, ``waiting`` (enough tasks are open), ``finished`` (every prompt was asked) or
    ``failed``. ``left``: prompts not asked yet; ``left_out``: prompts that are too long for the model, or whose answers
    were all equal."""

    state: str = "waiting"
    added: int = 0
    left: int = 0
    left_out: int = 0
    failure: str = ""


@dataclass
class LiveSampler:
    """A thread that keeps ``settings.ahead`` tasks open for everybody. What goes wrong stops it and is in ``status``
    and in the log.

    ``judge`` sets priorities and slices (see ``selection``). Prompts of which the store has a task are not asked again.
    """

    store: Store
    prompts: Sequence[Prompt]
    settings: LiveSettings
    judge: Judge | None = None
    status: LiveStatus = field(default_factory=LiveStatus)

    def __post_init__(self) -> None:
        self.source = f"live {self.settings.model}"
        self.ending = threading.Event()
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, name="live sampling", daemon=True)
        self.thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """Ask the thread to end after the batch at work, and wait for it that long."""
        self.ending.set()
        if self.thread is not None:
            self.thread.join(seconds)

    @property
    def is_working(self) -> bool:
        return self.status.state in ("sampling", "waiting") and self.status.left > 0

    def _run(self) -> None:
        try:
            self._keep_ahead()
        except UserError as error:
            LOG.error("live sampling stopped: %s", error)
            self._fail(str(error))
        except Exception as error:
            LOG.exception("live sampling stopped")
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, sentence: str) -> None:
        self.status.failure, self.status.state = sentence, "failed"

    def _keep_ahead(self) -> None:
        asked = {task.prompt.id for task in self.store.tasks() if task.source == self.source}
        waiting = [prompt for prompt in self.prompts if prompt.id not in asked]
        self.status.left = len(waiting)
        sampler = Answers(self.settings) if waiting else None
        refused = 0
        while waiting and sampler is not None:
            self.status.state = "waiting"
            try:
                enough = self._open() >= self.settings.ahead
                if not enough:
                    self.status.state = "sampling"
                    batch = waiting[: self.settings.batch]
                    self._add(batch, sampler.tasks(batch, self.source))
                    waiting = waiting[len(batch) :]
                    self.status.left = len(waiting)
                refused = 0
            except UserError as error:
                refused += 1
                if getattr(error, "code", "") != "locked" or refused > _PATIENCE:
                    raise
                LOG.warning("live sampling waits: %s", error)
                enough = True
            if self.ending.wait(self.settings.seconds if enough else 0):
                return
        self.status.state = "finished"

    def _open(self) -> int:
        """Open tasks that are left for the annotator who has the fewest."""
        people = [person.name for person in self.store.annotators() if person.kind == "human" and person.active]
        return min((self.store.progress_of(name)[1] for name in people), default=self.store.progress().open)

    def _add(self, asked: Sequence[Prompt], tasks: list[NewTask]) -> None:
        fit = [task for task in tasks if len(task.responses) >= FEWEST]
        self.status.left_out += len(asked) - len(fit)
        self.status.added += add_tasks(self.store, self.judge(fit) if self.judge and fit else fit)


class Answers:
    """A checkpoint with its engine, from which answers are sampled."""

    def __init__(self, settings: LiveSettings) -> None:
        """Raises UserError where the model cannot be loaded."""
        import torch

        from trivium.generation.engine import Engine
        from trivium.model.huggingface import load_model
        from trivium.text.tokenizer import Tokenizer

        self.settings = settings
        self.tokenizer = Tokenizer.load(settings.model)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.engine = Engine(load_model(settings.model, device=device).eval(), decode=self.tokenizer.decode)
        self.checkpoint = checkpoint_hash(Path(settings.model))

    @property
    def sampling(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_new_tokens": settings.max_new_tokens,
            "seed": settings.seed,
        }

    def tasks(self, prompts: Sequence[Prompt], source: str) -> list[NewTask]:
        """A task for each prompt that leaves room for an answer; draws depend on (seed, prompt) alone. Equal answers
        stand once in it, so it may have a single one."""
        from trivium.generation.sampling import SamplingSettings
        from trivium.generation.scheduler import Request
        from trivium.text.chat import prompt_ids

        settings = self.settings
        drawn = SamplingSettings(
            settings.temperature,
            0,
            settings.top_p,
            settings.max_new_tokens,
            tuple(self.tokenizer.stop_token_ids),
        )
        asked = [(prompt, tuple(prompt_ids(self.tokenizer, prompt.messages))) for prompt in prompts]
        fit = [(prompt, tokens) for prompt, tokens in asked if len(tokens) < self.engine.decoder.config.context_length]
        if len(fit) < len(asked):
            LOG.warning("%d prompts are longer than the model's context and were left out", len(asked) - len(fit))
        requests = [Request(tokens, f"live/{prompt.id}", settings.responses) for prompt, tokens in fit]
        completed = self.engine.generate(requests, drawn, settings.seed) if requests else []
        tasks = []
        for (prompt, _), completions in zip(fit, completed, strict=True):
            answers = [
                Response(
                    self.tokenizer.decode(completion.tokens),
                    settings.model,
                    self.checkpoint,
                    self.sampling,
                    completion.finish_reason,
                )
                for completion in completions
            ]
            tasks.append(NewTask(prompt, distinct(answers), settings.criterion, settings.wanted, source=source))
        return tasks
