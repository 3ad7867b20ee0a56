"""A study at work: its jobs in order, several at a time, each in a process; ``results.json`` after every one.

A job that fails fails the arms that need it, with its reason, and the others go on. What is finished is skipped, here
and in any other study that needs the same.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from trivium import files, lineage, progress
from trivium.errors import UserError
from trivium.progress import clock
from trivium.recipe import to_dict
from trivium.schedule import in_order
from trivium.studies import analysis, results
from trivium.studies.load import load
from trivium.studies.nodes import Nodes, Outcome
from trivium.studies.plan import Measurement, Plan, Step, make_plan, replaced
from trivium.studies.processes import Processes, last_words

HELD_OUT = ("data", "rankings")  # what a stage learns from by prompts that it has seen


def run_study(
    name_or_path: str | Path,
    overrides: Sequence[str] | Mapping[str, Any] | None = None,
    directory: str | Path | None = None,
    *,
    seeds: Sequence[int] | None = None,
    at_once: int | None = None,
    nodes: str | Path | None = None,
    quiet: bool = False,
) -> Path:
    """Run a study, or go on with one that was cut; returns its report.

    Args:
        name_or_path: a shipped study, or a YAML file.
        overrides: of the study (``budget.tokens=5000``), or of its recipe (``recipe.rl.steps=5``).
        directory: where ``results.json`` and the report go; ``runs/studies/NAME`` unless told.
        seeds: in place of the study's own.
        at_once: processes at a time, of one thread each; as many as there are cores unless told.
        nodes: where trained stages lie, for all studies; ``nodes`` beside ``directory`` unless told.
        quiet: only notes and the line at the end of a job are printed.

    Raises:
        UserError: a study that cannot be run as it is; KeyboardInterrupt after a Ctrl-C, with all that runs saved.
    """
    study, of_recipe = load(name_or_path, overrides)
    place = Path(directory) if directory is not None else Path("runs/studies") / study.name
    known = results_of(place, study.name)
    plan = make_plan(study, seeds, of_recipe)
    with ExitStack() as stack:
        stack.enter_context(files.disk_errors())
        stack.enter_context(files.lock(place))
        shown = progress.make(quiet)
        stack.callback(shown.close)
        workers = at_once or cores()
        home = Path(nodes) if nodes is not None else place.parent / "nodes"
        home.mkdir(parents=True, exist_ok=True)
        given = [str(name_or_path), *written(overrides)]
        asked_alike = known.get("study") == study.model_dump(mode="json") and known.get("given", given) == given
        same = asked_alike and not results.other_origin(plan, known["rows"])
        if known and not same:
            kept = set_aside(place)
            shown.note(f"{place} held results of other settings, data or code; they are in {kept}")
        before = known if same else {}
        Runner(plan, place, home.resolve(), workers, before, shown, given).run()
    return report(place)


def results_of(place: Path, name: str) -> dict[str, Any]:
    """What ``place`` holds of earlier runs, empty where there is nothing. UserError where that is of another study."""
    if not (place / "results.json").exists():
        return {}
    known = analysis.load(place)
    if (held := known["study"].get("name")) != name:
        raise UserError(f"{place} holds the study {held}; choose another directory with -d")
    return known


def set_aside(place: Path) -> Path:
    """Move the results and the report of ``place`` to a folder below it, old/1, old/2 and so on; returns it."""
    folder = next(path for number in count(1) if not (path := place / "old" / str(number)).exists())
    folder.mkdir(parents=True)
    for path in sorted(place.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            path.rename(folder / path.name)
    return folder


def report(directory: Path) -> Path:
    """Build the report of what ``results.json`` says."""
    from trivium.studies.page import build

    return build(directory)


def written(overrides: Sequence[str] | Mapping[str, Any] | None) -> list[str]:
    """Overrides as they are typed.

    >>> written({"budget.tokens": 5000, "shared": ["sft"]})
    ['budget.tokens=5000', 'shared=["sft"]']
    """
    if isinstance(overrides, Mapping):
        return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in overrides.items()]
    return list(overrides or ())


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Runner:
    """The jobs of a plan and what became of each. ``before``: what ``results.json`` says of earlier runs of the same
    study; ``given``: the name of the study and the overrides."""

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        home: Path,
        at_once: int,
        before: Mapping[str, Any],
        shown: progress.Progress,
        given: Sequence[str] = (),
    ) -> None:
        self.given = list(given)
        self.plan, self.directory, self.home, self.at_once = plan, directory, home, at_once
        self.shown, self.before, self.began = shown, before, time.monotonic()
        self.processes = Processes()
        self.nodes = Nodes(home, self.processes)
        self.outcomes: dict[str, Outcome] = {}
        self.lock = threading.Lock()  # of outcomes, results.json and what is shown
        self.environment = lineage.environment()
        self.needs = plan.needs()

    def run(self) -> None:
        """All jobs; raises what a job raised that is no failure of its arm, after the others have ended."""
        with self._interrupts():
            self.write()
            self.shown.stage(self.plan.study.name, len(self.needs), 0)
            raised = in_order(self.needs, self.work, self.at_once, stop_on_failure=False)
        for error in raised.values():
            raise error

    def work(self, key: str) -> None:
        """One job, and its line. Its outcome says whether it went well; it raises for a mistake of ours alone."""
        began = time.monotonic()
        step, measurement = self.plan.steps.get(key), self.plan.measurements.get(key)
        try:
            if step is not None:
                outcome = self.train(step)
            else:
                assert measurement is not None
                outcome = self.measure(measurement)
        except UserError as error:
            outcome = Outcome("failed", f"{key}: {error}")
        with self.lock:
            self.outcomes[key] = outcome
            self.write()
            self.tell(key, outcome, time.monotonic() - began)

    # ---- jobs ------------------------------------------------------------------------------------------------------

    def train(self, step: Step) -> Outcome:
        """A step, within what the budget leaves after the steps that it goes back to."""
        parents = {name: self.outcomes[key] for name, key in step.parents.items()}
        if not all(outcome.made for outcome in parents.values()):
            return broken(list(parents.values()))
        left = self.left(step) if step.counted else {}
        gone = [name for name, value in left.items() if value <= 0]
        if gone:
            total = getattr(self.plan.study.budget, gone[0])
            return Outcome("out_of_budget", f"the budget of {total:,} {gone[0]} was spent before {step.stage} began")
        return self.nodes.run(step, parents, left)

    def left(self, step: Step) -> dict[str, float]:
        """What is left of the budget, for each of its keys that is set."""
        used = results.spent(self.plan, self.outcomes, step.before)
        budget = self.plan.study.budget.model_dump()
        return {name: limit - used[name] for name, limit in budget.items() if limit is not None}

    def measure(self, asked: Measurement) -> Outcome:
        """A measurement, or what an earlier one of the same model by the same measures has found."""
        needed = [self.outcomes[key] for key in sorted(asked.needs)]
        if not all(outcome.made for outcome in needed):
            return broken(needed)
        request, folder = self.request(asked)
        result = folder / "result.json"
        if not (was_there := result.is_file()):
            files.write_json(folder / "request.json", request)
            code = self.processes.run(["measure", str(folder / "request.json")], folder / "log.txt")
            if code and self.processes.stopped:
                return Outcome("missing", "it was cut; the same command goes on with it", folder)
            if code or not result.is_file():
                return Outcome("failed", f"measuring {asked.stage}: {last_words(folder / 'log.txt', code)}", folder)
        summary = files.read_json(result)
        return Outcome("finished", "", folder, result, summary=summary, was_there=was_there)

    def request(self, asked: Measurement) -> tuple[dict[str, Any], Path]:
        """What the process is asked, and the folder for it, named by all that the answer depends on."""
        recipe = to_dict(asked.recipe)
        best_of = asked.best_of
        identities: list[Any] = [self.known_as(asked.model)]
        if best_of is not None and asked.scorers:
            (scorer,) = asked.scorers.values()
            options = {**best_of["by"]["options"], "model": str(self.outcomes[scorer].product)}
            best_of = {**best_of, "by": {**best_of["by"], "options": options}}
            identities.append(self.known_as(scorer))
        measures = {name: config.model_dump(mode="json") for name, config in asked.measures.items()}
        kl_to = {name: str(self.outcomes[key].product) for name, key in asked.kl_to.items()}
        identities.append({name: self.known_as(key) for name, key in asked.kl_to.items()})
        named = {name: {**value, "label": "", "unit": "", "better": ""} for name, value in measures.items()}
        tasks = recipe["evaluation"]
        held_out = [lineage.relevant(asked.recipe, recipe["stages"]), lineage.relevant(asked.recipe, tasks)]
        inputs: list[Any] = lineage.contents(lineage.inputs_of([tasks, asked.best_of], {}, self.nodes.hasher))
        inputs += self.training_data(asked.recipe)  # what also occurs in it is left out
        own = lineage.digest([asked.stage, identities, named, asked.best_of, held_out, inputs, recipe["device"]])
        request = {
            "recipe": recipe,
            "stage": asked.stage,
            "model": str(self.outcomes[asked.model].product),
            "measures": measures,
            "kl_to": kl_to,
            "best_of": best_of,
        }
        return request, self.home / "measures" / f"{asked.stage}-{own[:12]}"

    def known_as(self, key: str) -> str:
        """A made step: its name, which its random streams depend on, and its identity."""
        return f"{self.plan.steps[key].stage} {self.outcomes[key].identity}"

    def training_data(self, recipe: Any) -> list[str]:
        """What is in the files that the stages of a recipe learn from."""
        elsewhere = {name: lineage.digest(name) for name in recipe.stages}  # or a folder called like a stage were data
        found: set[str] = set()
        for stage in recipe.stages.values():
            section = replaced(stage.model_dump(mode="json"), elsewhere)
            found |= {i.sha256 for i in lineage.inputs_of(section, {}, self.nodes.hasher) if i.role in HELD_OUT}
        return sorted(found)

    # ---- what is shown and written ---------------------------------------------------------------------------------

    def write(self) -> None:
        seconds = float(self.before.get("wall_seconds", 0.0)) + time.monotonic() - self.began
        asked = {"at_once": self.at_once, "given": self.given}
        earlier = self.before.get("rows", ())
        results.write(self.plan, self.outcomes, self.directory, asked, seconds, self.environment, earlier)

    def tell(self, key: str, outcome: Outcome, seconds: float) -> None:
        if self.processes.stopped or outcome.inherited:
            return
        job = self.plan.steps.get(key) or self.plan.measurements[key]
        what = job.stage if key in self.plan.steps else f"measuring {job.stage}"
        words = "was there" if outcome.was_there else f"{outcome.status.replace('_', ' ')} in {clock(seconds)}"
        more = f": {outcome.reason}" if outcome.reason and outcome.status != "ended_by_budget" else ""
        done = f"{len(self.outcomes)} of {len(self.needs)}"
        arms = ", ".join(self.plan.arms_of(key))
        self.shown.finish(f"{done}: seed {job.seed}, {what} (for {arms}): {words}{more}")
        self.shown.stage(self.plan.study.name, len(self.needs), len(self.outcomes))

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """A Ctrl-C reaches what runs: the first has it save and end, the second end at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(*_: Any) -> None:
            self.processes.interrupt()
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def broken(needed: Sequence[Outcome]) -> Outcome:
    """The outcome of a job one of whose needs was not made: that of the need, which is not done again."""
    status, reason = results.status_of([outcome for outcome in needed if not outcome.made])
    return Outcome(status, reason, inherited=True)
