"""One run directory at work: what is skipped, resumed or run. The decisions go by its records (``ledger.py``)."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium import comparisons, files, progress, summary
from trivium.errors import UserError
from trivium.ledger import Ledger
from trivium.preflight import check_run, holds_run
from trivium.ranks import Ranks
from trivium.work import Here, Work, evaluate_model

if TYPE_CHECKING:
    from trivium.config import RecipeConfig


@dataclass
class Pipeline:
    """One run directory at work. Files of the run itself are written by the main rank alone.

    ``held``: the descriptor of the directory's lock, on the main rank.
    """

    config: "RecipeConfig"
    directory: Path
    shown: progress.Progress
    ranks: Ranks
    ledger: Ledger
    held: int | None = None

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        config: "RecipeConfig",
        directory: Path,
        fresh: bool,
        quiet: bool,
        stages: Sequence[str] | None = None,
        trains: bool = True,
    ) -> "Iterator[Pipeline]":
        """The pipeline with the directory locked; a full disk becomes a sentence, and the terminal is left clean.

        A recipe that cannot run is refused before anything is written. ``trains``: ``stages`` (all: None) are to run,
        and the run's ``recipe.yaml`` is from now on that of ``config``; else the run's models are only read.
        """
        ranks = Ranks()
        shown = progress.make(quiet) if ranks.main else progress.Progress()
        pipeline = cls(config, directory, shown, ranks, Ledger(config, directory))
        with contextlib.ExitStack() as stack:
            ranks.join(config)
            stack.callback(shown.close)
            stack.enter_context(files.disk_errors())
            if ranks.main:
                check_run(config, directory, pipeline.ledger, stages, fresh, trains)
                pipeline._enter_directory(stack, fresh, trains)
            ranks.barrier()
            pipeline.ledger.read()
            yield pipeline

    def _enter_directory(self, stack: contextlib.ExitStack, fresh: bool, trains: bool) -> None:
        with contextlib.ExitStack() as held:
            self.held = held.enter_context(files.lock(self.directory))
            if fresh and holds_run(self.directory):
                old = files.set_aside(self.directory, self.directory.with_name(f"{self.directory.name}.old"))
                self.shown.note(f"the run that was in {self.directory} is now in {old}")
                held.close()
                self.held = held.enter_context(files.lock(self.directory))
            stack.push(held.pop_all())
        if not trains:
            return
        from trivium.recipe import dump

        files.write_text(self.directory / "recipe.yaml", dump(self.config))

    # ---- what is there ---------------------------------------------------------------------------------------------

    @property
    def artifacts(self) -> dict[str, dict[str, Any]]:
        return self.ledger.artifacts

    def models(self, before: str | None = None) -> dict[str, Path]:
        """Model directories of the finished stages, in order; those that come ahead of ``before`` if it is given."""
        return {name: place for name, place in self.ledger.made(before).items() if place.name == "model"}

    def _agree(self) -> None:
        """Wait for all ranks; then those that write nothing read what the first has written."""
        self.ranks.barrier()
        if not self.ranks.main:
            self.ledger.read()

    # ---- stages ----------------------------------------------------------------------------------------------------

    def run(self, stages: Sequence[str] | None) -> None:
        """Bring ``stages`` (all: None) up to date, one after the other or, with ``parallel``, several at a time."""
        names = [name for name in self.config.stages if stages is None or name in stages]
        if self.config.parallel > 1 and not self.ranks.many:
            from trivium.parallel import Crew

            with Crew(self.config, self.directory, self.held) as crew:
                if stages is None:
                    crew.alone("base", lambda work: self.evaluate_base(work), self.shown)
                crew.all(names, self.advance, self.shown)
        else:
            if self.config.parallel > 1 and self.ranks.main:
                self.shown.note(
                    f"parallel={self.config.parallel} is for one process: the ranks of torchrun share each stage"
                )
            if stages is None:
                self.evaluate_base(self.here())
            for name in names:
                self.advance(name, self.here())
        if stages is not None and self.ranks.main:
            self.ledger.drop_outdated(stages, self.shown.note)

    def here(self) -> Here:
        """Work in this process."""
        return Here(self.config, self.directory, self.shown, self.ranks.main)

    def advance(self, name: str, work: Work) -> None:
        """Skip, resume or run one stage and evaluate its model; afterwards both are there and written down.

        With a ``work`` of its own for each, several stages may be advanced at a time, in threads."""
        from trivium.stages import ANSWERS

        ledger, shown = self.ledger, work.shown
        if self.ranks.main and ledger.prepare(name, shown.note):
            shown.finish(f"{name}: finished before, nothing it depends on has changed")
        self._agree()
        if ran := not ledger.finished(name):
            try:
                numbers = work.train(name, ledger.made(name))
            except UserError:
                if self.ranks.main:
                    ledger.put_back(name, shown.note)
                raise
            self.ranks.barrier()
            if self.ranks.main:
                ledger.finish(name, numbers)
            self._agree()
        again = "evaluation" in ledger.summaries[name]
        evaluated = self.config.stages[name].kind in ANSWERS and self.evaluate(name, work)
        if self.ranks.main and (ran or evaluated):
            ancestor = comparisons.ancestor(
                self.config, name, [other for other in list(ledger.summaries) if other != name]
            )
            before = (ancestor, ledger.summaries[ancestor]) if ancestor else None
            done = None if ran else "evaluated again" if again else "evaluated"
            shown.finish(summary.stage_line(name, ledger.summaries[name], before, done))
            for sentence in comparisons.fell_behind(self.directory, name):
                shown.note(sentence)

    # ---- evaluation ------------------------------------------------------------------------------------------------

    def evaluate(self, name: str, work: Work, again: bool = False) -> bool:
        """Evaluate a finished stage's model unless that was done with these tasks on this model; ``again``: anyway.

        Returns whether it was done.
        """
        return self._evaluate(name, self.directory / name / "model", work, again)

    def evaluate_base(self, work: Work, name: str = "base") -> None:
        """Where the first stage starts from a model made elsewhere, that model's numbers are what to compare with."""
        stage = next(iter(self.config.stages.values()))
        init = getattr(stage, "init", None)  # an audit starts from none
        if init is None or not self.config.evaluation or name in self.config.stages:
            return
        from trivium.model.huggingface import resolve_directory

        if self.ranks.main:
            self.ledger.name_base(name, stage.kind, init, resolve_directory(init))
        self._agree()
        if self._evaluate(name, resolve_directory(init), work, again=False) and self.ranks.main:
            work.shown.finish(summary.stage_line(name, self.ledger.summaries[name]))

    def evaluate_apart(self, name: str) -> dict[str, Any]:
        """Evaluate a finished stage's model on other tasks than the run's; in ``evaluations/STAGE`` of the run.

        Returns the tasks' numbers without single answers. The run's own evaluation, summary and report stay.
        """
        folder, stage = self.directory / "evaluations" / name, self.config.stages[name]
        model = self.directory / name / "model"
        evaluation = evaluate_model(self.config, name, stage, folder, self.models(name), model, self.shown)
        if self.ranks.main:
            files.write_json(folder / "evaluation.json", evaluation)
        self.ranks.barrier()
        return summary.without_results(evaluation)

    def _evaluate(self, name: str, model: Path, work: Work, again: bool) -> bool:
        """All ranks take part; the first one decides whether, by taking the old fingerprint out of the lineage."""
        if not self.config.evaluation:
            self.ledger.summaries.get(name, {}).pop("evaluation", None)
            return False
        start, fingerprint = time.monotonic(), ""
        if self.ranks.main:
            fingerprint = self.ledger.check_evaluation(name, again)
        self._agree()
        if self.ledger.evaluated(name):
            return False
        tasks = work.evaluate(name, model, self.models(name))
        if self.ranks.main:
            self.ledger.finish_evaluation(name, fingerprint, tasks, time.monotonic() - start)
        self._agree()
        return True

    def result(self) -> tuple[dict[str, Any], Path | None]:
        """Write ``summary.json`` and the report; the content of the one and the place of the other."""
        if self.ranks.main:
            self.ledger.write_summary()
            from trivium.report import build

            build(self.directory)
        self.ranks.barrier()
        report = self.directory / "report.html"
        return files.read_json(self.directory / "summary.json"), report if report.is_file() else None
