"""Nodes: the run directories in which the steps of studies are made, one stage each, found again by what made them.

A node's *identity* is the hash of all that its outcome depends on. A budget is part of it only where it has ended the
stage: a stage that came to its end by itself is the same with any larger budget, and with none.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trivium import files, lineage
from trivium.recipe import dump
from trivium.studies.plan import Step, identity, replaced
from trivium.studies.processes import Processes, last_words

COSTS = ("tokens", "generated", "seconds")
SPENT = "the budget of"  # how the loop begins to say that its budget ended the stage
Cost = dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: "finished", "ended_by_budget", "out_of_budget", "failed" or "missing" (not done, or cut).

    ``identity`` and ``product`` (the model directory, or the file that the stage makes) are of those that came to an
    end, ``reason`` of the others."""

    status: str
    reason: str = ""
    folder: Path | None = None
    product: Path | None = None
    identity: str = ""
    cost: Cost = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    inherited: bool = False  # that of a job that was needed and was not made
    was_there: bool = False  # made before, by this study or another
    code: str = ""  # the version of Trivium that made it

    @property
    def made(self) -> bool:
        return self.status in ("finished", "ended_by_budget")


class Nodes:
    """The nodes below ``directory``, which several studies may use at a time."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        self.directory, self.processes = directory, processes
        self.hasher = lineage.Hasher()

    def run(self, step: Step, parents: Mapping[str, Outcome], budget: Mapping[str, float]) -> Outcome:
        """The outcome of a step whose ``parents`` (by stage) are made; ``budget``: what is left for it, all above 0.

        A node that is there is taken; one that was cut goes on.
        """
        if not getattr(step.recipe.stages[step.stage], "samples_in_steps", False):
            budget = {key: left for key, left in budget.items() if key != "generated"}  # it would end nothing
        # twins of other names draw other random numbers
        identities = {name: f"{name} {outcome.identity}" for name, outcome in parents.items()}
        own = identity(step.recipe, step.section, identities, self.hasher)
        name = f"{step.stage}-{own[:12]}"
        for folder in sorted(self.directory.glob(f"{name}*")):
            found = outcome_of(step, folder, own)
            if found.status == "finished" and all(found.cost[key] < limit for key, limit in budget.items()):
                return replace(found, was_there=True)
        section = replaced(step.section, {other: str(outcome.product) for other, outcome in parents.items()})
        limited = own
        if budget and "budget" in section:
            section["budget"] = least(section["budget"], budget)
            limited = lineage.digest([own, section["budget"]])
            name = f"{name}-{limited[:8]}"
        folder = self.directory / name
        with self._held(folder):
            found = outcome_of(step, folder, own, limited)
            return replace(found, was_there=True) if found.made else self._make(step, folder, section, own, limited)

    def _make(self, step: Step, folder: Path, section: dict[str, Any], own: str, limited: str) -> Outcome:
        recipe = alone(step, section)
        files.write_text(folder / "recipe.yaml", dump(recipe))
        log = folder / "log.txt"
        code = self.processes.run(["run", str(folder), "--quiet"], log)
        found = outcome_of(step, folder, own, limited)
        if found.made:
            return found
        if self.processes.stopped:
            return Outcome("missing", "it was cut; the same command goes on with it", folder)
        words = last_words(log, code).removeprefix(f"{step.stage}: ")
        return Outcome("failed", f"{step.stage}: {words}", folder)

    @contextmanager
    def _held(self, folder: Path) -> Iterator[None]:
        """Wait until no other study works on the same node, nor what a killed one has left behind."""
        with self._locked(self.directory / ".locks" / folder.name):
            with self._locked(folder):
                pass
            yield

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        while True:
            lock = files.lock(folder)
            try:
                lock.__enter__()
                break
            except files.InUse:
                time.sleep(0.5)
                if self.processes.stopped:
                    raise KeyboardInterrupt from None
        try:
            yield
        finally:
            lock.__exit__(None, None, None)


def alone(step: Step, section: dict[str, Any]) -> Any:
    """The recipe of a node: the one stage, under its name and seed, since random streams depend on both."""
    from trivium.recipe import resolve, to_dict

    values = {**to_dict(step.recipe), "stages": {step.stage: section}, "evaluation": {}}
    return resolve(values, f"stage {step.stage} of the study")


def outcome_of(step: Step, folder: Path, own: str, limited: str = "") -> Outcome:
    """What lies in a node: a made stage, or "missing". ``limited``: the identity if its budget has ended it."""
    from trivium.stages import PRODUCTS

    artifacts = (files.read_json(folder / "lineage.json") or {}).get("artifacts", {})
    summary = (files.read_json(folder / "summary.json") or {}).get("stages", {}).get(step.stage)
    product = (folder / step.stage / PRODUCTS[step.recipe.stages[step.stage].kind]).resolve()
    if artifacts.get(step.stage, {}).get("status") != "finished" or summary is None or not product.exists():
        return Outcome("missing", "it was not run yet", folder)
    cost = {key: float(summary.get(key) or 0) for key in COSTS}
    code = code_name(artifacts[step.stage].get("code") or {})
    stopped = str(summary.get("stopped") or "")
    if stopped.startswith(SPENT):
        reason = f"{step.stage}: {stopped}"
        return Outcome("ended_by_budget", reason, folder, product, limited, cost, summary, code=code)
    return Outcome("finished", "", folder, product, own, cost, summary, code=code)


def code_name(code: Mapping[str, Any]) -> str:
    """What a version of Trivium is called: its commit where there is one, marked where files had been changed.

    >>> code_name({"version": "0.1.0", "commit": "d92b8aa7f0", "modified": True}), code_name({"version": "0.1.0"})
    ('d92b8aa (modified)', '0.1.0')
    """
    commit = str(code.get("commit") or "")[:7]
    return f"{commit} (modified)" if commit and code.get("modified") else commit or str(code.get("version") or "")


def least(own: Mapping[str, float | None] | None, left: Mapping[str, float]) -> dict[str, float | None]:
    """The smaller of a stage's own budget and what is left for it, key by key.

    >>> least({"tokens": 500, "generated": None, "seconds": None}, {"tokens": 800.0, "generated": 90.0})
    {'tokens': 500, 'generated': 90, 'seconds': None}
    """
    result: dict[str, float | None] = {}
    for key in COSTS:
        limits = [limit for limit in ((own or {}).get(key), left.get(key)) if limit is not None]
        smallest = min(limits, default=None)
        result[key] = smallest if smallest is None or key == "seconds" else int(smallest)
    return result
