"""Several stages of a run at a time, each in a process of its own (``trivium.child``).

This side alone decides and writes down; a child trains or evaluates, tells how far it is and hands its numbers back. A
process that has done its stage may take another, as in a run of one process one stage follows another.
"""

import collections
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from trivium.errors import UserError
from trivium.progress import Progress
from trivium.references import references
from trivium.schedule import in_order, stage_needs, thread_share

if TYPE_CHECKING:
    from trivium.config import RecipeConfig

COMMAND = (sys.executable, "-P", "-m", "trivium.child")  # -P: a queue.py of the working directory is no part of it
_LAST_LINES = 20  # of what a child printed, kept for the sentence about its sudden end
_ON_THE_WAY = {"stage", "advance", "note", "finish"}  # messages after which more will come
_PATIENT = 2  # interrupts after which a child that has not ended is killed


class Crew:
    """The processes of one run; a context in which Ctrl-C goes to them.

    The first interrupt lets each stage end its step and save a checkpoint, the second ends it at once, the third kills.
    ``held``: the descriptor of the run's lock, which children hold too: while one lives, nobody else takes the run.
    """

    def __init__(self, config: "RecipeConfig", directory: Path, held: int | None = None) -> None:
        self.config, self.directory, self.held = config, directory, held
        self.interrupts = 0
        self.working: set[Process] = set()
        self.idle: list[Process] = []
        self._turn = threading.Lock()
        self._before: Any = None

    def __enter__(self) -> "Crew":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.idle:
            process.end()
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self.interrupt()

    def interrupt(self) -> None:
        """Have all stages save and end. Nothing is begun any more."""
        self.interrupts += 1
        for process in list(self.working):
            process.interrupt(self.interrupts > _PATIENT)

    def alone(self, name: str, work: Callable[["Child"], None], shown: Progress) -> None:
        """``work(child)`` for the stage ``name``. Raises what it raises."""
        if self.interrupts:
            raise KeyboardInterrupt
        with contextlib.closing(Child(self, name, shown.part())) as child:
            work(child)

    def all(self, names: Sequence[str], work: Callable[[str, "Child"], None], shown: Progress) -> None:
        """``work(name, child)`` for each stage of ``names``, after those that it needs, ``parallel`` of them at a time.

        After the first failure the others save and end, and it is raised; KeyboardInterrupt after an interrupt.
        """

        def one(name: str) -> None:
            try:
                self.alone(name, lambda child: work(name, child), shown)
            except BaseException:
                if not self.interrupts:
                    self.interrupt()
                raise

        needs = stage_needs(self.config)
        failed = in_order({name: needs[name] for name in names}, one, self.config.parallel)
        errors = {name: error for name, error in failed.items() if not isinstance(error, KeyboardInterrupt)}
        for name, error in list(errors.items())[1:]:
            shown.note(f"{name} failed too: {error}")
        for error in errors.values():
            raise error
        if self.interrupts:
            raise KeyboardInterrupt

    def take(self, threads: int) -> "Process":
        """A process of this many threads: one that has done its stage, which saves the imports, or a new one."""
        with self._turn:
            fitting = [process for process in self.idle if process.threads == threads and process.alive()]
            others = [process for process in self.idle if process not in fitting[:1]]
            self.idle = others if len(self.working) + len(others) < self.config.parallel else []
            for process in others if not self.idle else ():
                process.end()  # it would hold memory for stages of another kind
            process = fitting[0] if fitting else Process(self.directory, threads, self.held)
            self.working.add(process)
        if self.interrupts:  # since the start was decided
            process.interrupt()
        return process

    def give_back(self, process: "Process") -> None:
        """``process`` has done its stage, or has failed."""
        with self._turn:
            self.working.discard(process)
            if process.busy or not process.alive():
                process.end()
            else:
                self.idle.append(process)


class Child:
    """Work on one stage, in a process which the first order takes from the crew: see ``trivium.work.Work``."""

    def __init__(self, crew: Crew, name: str, shown: Progress) -> None:
        self.crew, self.name, self._shown = crew, name, shown
        self.threads = crew.config.threads
        if name in crew.config.stages:
            self.threads = thread_share(crew.config, name, _cores())
        self.process: Process | None = None

    @property
    def shown(self) -> Progress:
        return self._shown

    def train(self, name: str, made: Mapping[str, Path]) -> dict[str, Any]:
        """As ``Work.train``. UserError or RuntimeError: what ended the stage; KeyboardInterrupt: it was interrupted."""
        named = {item.name for item in references(self.crew.config.stages[name].model_dump(mode="json"))}
        # others may or may not have finished: what a stage is given must not depend on that
        places = {other: str(place) for other, place in made.items() if other in named}
        return self._do({"do": "train", "made": places})

    def evaluate(self, name: str, model: Path, made: Mapping[str, Path]) -> dict[str, Any]:
        """As ``Work.evaluate``; raises as ``train`` does."""
        return self._do({"do": "evaluate", "made": {}, "model": str(model)})

    def close(self) -> None:
        self.shown.close()
        if self.process is not None:
            self.crew.give_back(self.process)
            self.process = None

    def _do(self, order: dict[str, Any]) -> dict[str, Any]:
        if self.crew.interrupts:
            raise KeyboardInterrupt
        if self.process is None:
            self.process = self.crew.take(self.threads)
        for message in self.process.order({**order, "stage": self.name, "threads": self.threads}):
            if "done" in message:
                return message["done"]  # type: ignore[no-any-return]
            self._hear(message)
        raise self._ended(self.process)

    def _hear(self, message: Mapping[str, Any]) -> None:
        if "stage" in message:
            self.shown.stage(*message["stage"])
        elif "advance" in message:
            self.shown.advance(*message["advance"])
        elif "note" in message:
            text = message["note"]
            self.shown.note(text if text.startswith(self.name) else f"{self.name}: {text}")
        elif "finish" in message:
            self.shown.finish(message["finish"])
        elif "error" in message:
            raise UserError(message["error"])
        elif "bug" in message:
            raise RuntimeError(f"stage {self.name} failed in its process:\n{message['bug']}")
        elif "interrupted" in message:
            raise KeyboardInterrupt

    def _ended(self, process: "Process") -> BaseException:
        """What to raise when the process ended without a word."""
        if self.crew.interrupts:
            return KeyboardInterrupt()
        code = process.code()
        if code < 0:
            return UserError(
                f"the process of stage {self.name} was ended by signal {-code} ({_signal_name(-code)}), as the system "
                "does when memory runs out; the same command goes on from the stage's last checkpoint"
            )
        last = "\n".join(process.printed)
        return RuntimeError(f"the process of stage {self.name} ended with code {code}; the last it printed:\n{last}")


class Process:
    """``python -m trivium.child`` with ``threads`` CPU threads (0: as many as torch takes), which follows orders."""

    def __init__(self, directory: Path, threads: int, held: int | None) -> None:
        self.threads, self.busy, self.interrupted = threads, False, False
        self.printed: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # the same code, a notebook's too
        environment = {**os.environ, "PYTHONPATH": path}
        if threads:
            environment |= {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [*COMMAND, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            pass_fds=() if held is None or os.name != "posix" else (held,),
            start_new_session=True,  # Ctrl-C of the terminal comes through the crew, once
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._stdin, self._stdout, self._stderr = self._process.stdin, self._process.stdout, self._process.stderr
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def order(self, order: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Give an order; what is told of it, up to the word that it is done or has failed. It may end without one."""
        self.busy = True
        with contextlib.suppress(OSError):  # it has died, which its silence tells
            self._write(order)
        for line in self._stdout:
            if not line.endswith("\n"):
                return  # it was ended in the midst of a word
            message = json.loads(line)
            self.busy = message.keys() <= _ON_THE_WAY
            yield message
            if not self.busy:
                return

    def alive(self) -> bool:
        return self._process.poll() is None

    def code(self) -> int:
        """The exit code, once it has ended; negative: the signal that ended it."""
        code = self._process.wait()
        self._listener.join(timeout=1.0)  # what the child started may hold the pipe longer
        return code

    def interrupt(self, kill: bool = False) -> None:
        self.interrupted = True
        if self.alive():
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGINT)

    def end(self) -> None:
        """Let it go: by a last order, or in the midst of its work if nobody waits for that any more."""
        if self.busy:
            self._process.kill()
        with contextlib.suppress(OSError):
            self._write({"do": "end"})
        with contextlib.suppress(OSError):
            self._stdin.close()
        self.code()
        self._stdout.close()

    def _write(self, order: Mapping[str, Any]) -> None:
        self._stdin.write(json.dumps(order) + "\n")
        self._stdin.flush()

    def _listen(self) -> None:
        """What the child and its libraries print goes where ours does."""
        for line in self._stderr:
            self.printed.append(line.rstrip())
            if not self.interrupted:  # where in its imports it was is of no interest
                sys.stderr.write(line)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _cores() -> int:
    """CPU threads that torch would take of itself: what OMP_NUM_THREADS allows, or the cores this process may use."""
    told = re.match(r"\s*(\d+)", os.environ.get("OMP_NUM_THREADS", ""))
    if told and int(told[1]) > 0:
        return int(told[1])
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available is not None else os.cpu_count() or 1
