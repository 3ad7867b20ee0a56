"""What is written down about a run: ``lineage.json`` and ``summary.json``, and what they say about each stage.

A stage is named ``started`` before it runs and ``finished`` after its numbers are in ``summary.json``, so a process
that dies anywhere leaves a directory from which the next one goes on.
"""

import shutil
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium import files, lineage, summary
from trivium.references import references

if TYPE_CHECKING:
    from trivium.config import RecipeConfig

Note = Callable[[str], None]


class Ledger:
    """The records of one run directory. Each public method may be called from any thread, one at a time does its work.

    ``artifacts`` are the entries of ``lineage.json`` by stage, ``summaries`` the numbers of the finished stages.
    """

    def __init__(self, config: "RecipeConfig", directory: Path) -> None:
        self.config, self.directory = config, directory
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.summaries: dict[str, dict[str, Any]] = {}
        self.hasher = lineage.Hasher()
        # by stage what it had made before, and its records: see ``put_back``
        self._aside: dict[str, tuple[Path, dict[str, Any], dict[str, Any] | None]] = {}
        self._turn = threading.RLock()

    def read(self) -> None:
        """Take what the files say; UserError where one is damaged."""
        with self._turn:
            recorded = files.read_json(self.directory / "lineage.json") or {}
            self.artifacts = recorded.get("artifacts", {})
            self.hasher = lineage.Hasher(recorded)
            known = (files.read_json(self.directory / "summary.json") or {}).get("stages", {})
            self.summaries = {name: known[name] for name in ("base", *self.config.stages) if name in known}

    # ---- what is there ---------------------------------------------------------------------------------------------

    def made(self, before: str | None = None) -> dict[str, Path]:
        """What the finished stages ahead of ``before`` (all: None) made, in order, a model directory or a file."""
        from trivium.stages import PRODUCTS

        found: dict[str, Path] = {}
        with self._turn:
            for name, stage in self.config.stages.items():
                if name == before:
                    break
                product = self.directory / name / PRODUCTS[stage.kind]
                if self.artifacts.get(name, {}).get("status") == "finished" and product.exists():
                    found[name] = product
        return found

    def finished(self, name: str) -> bool:
        return bool(self.artifacts[name]["status"] == "finished")

    def settings(self, name: str) -> tuple[dict[str, Any], list[lineage.Input]]:
        """What the outcome of a stage depends on: its settings, and its input files."""
        section = self.config.stages[name].model_dump(mode="json")
        inputs = lineage.inputs_of(section, self.made(name), self.hasher)
        return lineage.relevant(self.config, section), inputs

    # ---- a stage ---------------------------------------------------------------------------------------------------

    def prepare(self, name: str, note: Note) -> bool:
        """Decide by the lineage what happens to a stage, and write it down. Returns whether it is finished as it is."""
        with self._turn:
            folder, entry = self.directory / name, self.artifacts.get(name, {})
            settings, inputs = self.settings(name)
            fingerprint = lineage.fingerprint(settings, inputs)
            same = entry.get("fingerprint") == fingerprint
            self._restore(name, fingerprint)
            if same and name in self.made() and name in self.summaries:
                self.write_summary()
                self.write_lineage()
                return True
            if not same and folder.is_dir() and any(folder.iterdir()):
                target = files.set_aside(folder, self.directory / "old" / name)
                self._aside[name] = (target, entry, self.summaries.get(name))
                why = lineage.reason(entry, settings, inputs)
                note(f"{name} runs again, {why}; what it had made is in {target}")
            elif same and (folder / "checkpoints").is_dir():
                note(f"{name} was cut and is resumed")
            self.summaries.pop(name, None)
            self.artifacts[name] = self._begun(name, settings, inputs)
            if same and entry.get("started"):
                self.artifacts[name]["started"] = entry["started"]
            self.write_lineage()
            return False

    def put_back(self, name: str, note: Note) -> None:
        """Other settings were refused before the stage had written anything: what it had made before comes back."""
        with self._turn:
            folder = self.directory / name
            wrote = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
            if name not in self._aside or any(wrote):
                return
            place, entry, numbers = self._aside.pop(name)
            shutil.rmtree(folder, ignore_errors=True)
            place.rename(folder)
            if entry.get("status") == "finished":
                entry = entry | {"status": "outdated"} | ({"summary": numbers} if numbers else {})
            self.artifacts[name] = entry
            if not entry:
                del self.artifacts[name]
            self.write_summary()
            self.write_lineage()
            note(f"{name}: what it had made before is back in {folder}")

    def _begun(self, name: str, settings: dict[str, Any], inputs: list[lineage.Input]) -> dict[str, Any]:
        from trivium.stages import PRODUCTS

        stage = self.config.stages[name]
        return {
            "kind": stage.kind,
            "status": "started",
            "path": f"{name}/{PRODUCTS[stage.kind]}",
            "parents": self._parents(stage),
            "config_hash": lineage.digest(settings),
            "fingerprint": lineage.fingerprint(settings, inputs),
            "settings": settings,
            "inputs": lineage.records(inputs),
            "outputs": [],
            "code": lineage.code_version(),
            "started": _now(),
        }

    def _parents(self, stage: Any) -> list[str]:
        """What the stage names: earlier stages, and models or rankings made elsewhere; data are among its inputs."""
        named = references(stage.model_dump(mode="json"))
        return list(
            dict.fromkeys(
                item.name for item in named if item.product != "conversations" or item.name in self.config.stages
            )
        )

    def finish(self, name: str, numbers: dict[str, Any]) -> None:
        """A stage has run and ``numbers`` are its summary."""
        from trivium.stages import PRODUCTS

        with self._turn:
            # The summary comes first: a stage counts as finished by its lineage, and then its numbers must be there.
            self.summaries[name] = numbers
            self.write_summary()
            product = PRODUCTS[self.config.stages[name].kind]
            outputs = self.hasher.files(Path(product).stem, self.directory / name / product)
            self.artifacts[name] |= {"status": "finished", "outputs": lineage.records(outputs), "finished": _now()}
            self.write_lineage()

    def drop_outdated(self, stages: Sequence[str], note: Note) -> None:
        """After ``stages`` alone have run: later ones that were made from something else leave the summary.

        Their folders stay until the stage runs again; in the lineage they are ``outdated``, with their numbers.
        """
        names = list(self.config.stages)
        first = min((names.index(name) for name in stages), default=len(names))
        for name in names[first:]:
            entry = self.artifacts.get(name, {})
            if name in stages or entry.get("status") not in ("finished", "outdated"):
                continue
            self._restore(name, lineage.fingerprint(*self.settings(name)))
            if entry["fingerprint"] != lineage.fingerprint(*self.settings(name)):
                entry["status"] = "outdated"
                if name in self.summaries:
                    entry["summary"] = self.summaries.pop(name)
                note(
                    f"{name} was made from other settings or inputs than the run has now: its numbers leave the "
                    "summary and the report until it runs again"
                )
        self.write_summary()
        self.write_lineage()

    def _restore(self, name: str, fingerprint: str) -> None:
        """An outdated stage counts again once its settings and inputs are back to what it was made from."""
        entry = self.artifacts.get(name, {})
        if entry.get("status") == "outdated" and entry["fingerprint"] == fingerprint and "summary" in entry:
            entry["status"] = "finished"
            self.summaries[name] = entry.pop("summary")

    # ---- its evaluation --------------------------------------------------------------------------------------------

    def name_base(self, name: str, kind: str, init: str, weights: Path) -> None:
        """The model from elsewhere that the first stage starts from is an artifact of its own."""
        with self._turn:
            inputs = lineage.inputs_of({"kind": kind, "init": str(weights)}, {}, self.hasher)
            made = {"kind": name, "status": "finished", "path": init, "parents": [], "inputs": []}
            self.artifacts[name] = {**self.artifacts.get(name, {}), **made, "outputs": lineage.records(inputs)}
            self.summaries.setdefault(name, {"seconds": 0.0})
            self.write_lineage()

    def evaluated(self, name: str) -> bool:
        return "evaluation_fingerprint" in self.artifacts[name]

    def check_evaluation(self, name: str, again: bool) -> str:
        """The evaluation of a stage counts no more where its tasks or its model have changed, or it is done again.

        Returns the hash of what it depends on."""
        with self._turn:
            entry, place = self.artifacts[name], self.directory / name / "evaluation.json"
            fingerprint = self._evaluation_fingerprint(name)
            current = place.is_file() and entry.get("evaluation_fingerprint") == fingerprint
            if (again or not current) and entry.pop("evaluation_fingerprint", None) is not None:
                self.write_lineage()
            return fingerprint

    def finish_evaluation(self, name: str, fingerprint: str, tasks: dict[str, Any], seconds: float) -> None:
        """``evaluation.json`` of a stage is written; ``tasks`` are its numbers without single answers."""
        with self._turn:
            self.summaries[name]["evaluation_seconds"] = seconds
            self.summaries[name]["evaluation"] = tasks
            self.write_summary()
            self.artifacts[name]["evaluation_fingerprint"] = fingerprint
            self.write_lineage()

    def _evaluation_fingerprint(self, name: str) -> str:
        tasks = {task: config.model_dump(mode="json") for task, config in self.config.evaluation.items()}
        inputs = lineage.inputs_of(tasks, {}, self.hasher)
        weights = sorted(item["sha256"] for item in self.artifacts[name]["outputs"])
        return lineage.digest([lineage.fingerprint(lineage.relevant(self.config, tasks), inputs), weights])

    # ---- what is written -------------------------------------------------------------------------------------------

    def write_lineage(self) -> None:
        with self._turn:
            value = {"recipe": self.config.name, "seed": self.config.seed, "artifacts": self._ordered(self.artifacts)}
            files.write_json(self.directory / "lineage.json", value)

    def write_summary(self) -> dict[str, Any]:
        with self._turn:
            stages = {name: item for name, item in self._ordered(self.summaries).items() if name in self._names()}
            value = summary.summarise(self.config, self.directory, stages, lineage.environment())
            files.write_json(self.directory / "summary.json", value)
            return value

    def _names(self) -> list[str]:
        return ["base", *self.config.stages]

    def _ordered(self, entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """In the order of the recipe, whatever finished first; then what an earlier recipe of the run has left."""
        known = [name for name in self._names() if name in entries]
        return {name: entries[name] for name in dict.fromkeys([*known, *entries])}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
