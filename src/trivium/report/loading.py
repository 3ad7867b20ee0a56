"""A run directory as data. Whatever is missing or was cut is noted and left out, never fatal."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trivium.errors import UserError

SHORT_LABELS = {
    "pretrain": "Pre-training",
    "sft": "SFT",
    "rl": "RL",
    "dpo": "DPO",
    "rank": "Rankings",
    "audit": "Audit",
    "revise": "Revisions",
    "reward": "Reward model",
    "base": "Base",
}
ACRONYMS = {name.lower(): name for name in ("PPO", "GRPO", "RLHF", "RLAIF", "RLVR", "DPO", "KTO", "ORPO")}  # of stages

MAKE_FILES = ("rank", "audit", "revise")  # kinds of stages that train nothing
SILENT = (*MAKE_FILES, "reward")  # kinds of stages whose product answers no problems
# What tells that a folder is a stage's.
_FILES = ("metrics.jsonl", "evaluation.json", "rankings.jsonl", "audit.json", "revisions.jsonl", "iterations.jsonl")


@dataclass(frozen=True)
class Stage:
    """One stage of a run: ``summary`` is empty until it is finished, ``evaluation`` maps a task to its numbers.

    ``judging`` is the evaluation of a reward model, ``watch`` what ``watch.json`` says, ``audit`` that of a judge;
    ``iterations`` are the rounds of an iterated DPO, ``revisions`` answers with critiques, ``alarms`` what was said of
    a reward that is being hacked, ``apart`` tasks evaluated beside the run's own. All are empty elsewhere.
    """

    name: str
    kind: str
    label: str
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, dict[str, Any]] = field(default_factory=dict)
    judging: dict[str, Any] = field(default_factory=dict)
    watch: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    iterations: list[dict[str, Any]] = field(default_factory=list)
    revisions: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    apart: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return bool(self.summary)

    @property
    def last_step(self) -> int | None:
        steps = [step for line in self.metrics if (step := number(line.get("step"))) is not None]
        return int(max(steps)) if steps else None

    @property
    def state(self) -> str:
        """How far an unfinished stage has come; empty for a finished one."""
        planned = number(self.config.get("steps"))
        if self.finished:
            return ""
        if self.last_step is not None:
            return f"cut at step {self.last_step}" + (f" of {planned:.0f}" if planned else "")
        return "evaluated only" if self.evaluation else "not run yet"

    @property
    def ended(self) -> str:
        """Why a finished stage ended before its last step (its budget, or what watched it); empty otherwise."""
        return str(self.summary.get("stopped") or "")


@dataclass(frozen=True)
class Run:
    directory: Path
    name: str
    recipe: dict[str, Any]
    recipe_text: str
    summary: dict[str, Any]
    lineage: Any
    stages: list[Stage]
    notes: list[str]

    @property
    def tasks(self) -> list[str]:
        """Task names, in the order of the recipe; the first is the main one."""
        found = [task for stage in self.stages for task in stage.evaluation]
        return [task for task in dict.fromkeys([*mapping(self.recipe.get("evaluation")), *found]) if task in found]

    def evaluated(self, task: str) -> list[Stage]:
        return [stage for stage in self.stages if number(stage.evaluation.get(task, {}).get("accuracy")) is not None]

    def before(self, stage: Stage, task: str | None = None) -> Stage | None:
        """The stage that ``stage`` goes back to by ``init``: the nearest one that was evaluated on ``task``, if given.

        Stages need form no chain: two may start from the same one. A model from elsewhere, evaluated as it came, is
        what the stages that start from it go back to. Without a recipe the order of the stages has to do.
        """
        configs = {known.name for known in self.stages if known.config}
        known = {other.name: other for other in (self.stages if task is None else self.evaluated(task))}
        name, seen = stage.name, {stage.name}
        while name in configs:
            name = str(next(other for other in self.stages if other.name == name).config.get("init"))
            if name in seen:
                return None
            seen.add(name)
            if name in known and name in configs:
                return known[name]
        earlier = self.stages[: self.stages.index(stage)]
        base = mapping(mapping(mapping(self.lineage).get("artifacts")).get("base")).get("path")
        if configs and base is not None and base != name:
            return None  # it starts from another model
        outside = [other for other in earlier if other.name in known and not (configs and other.name in configs)]
        return outside[-1] if outside else None

    def leaves(self, task: str) -> list[Stage]:
        """The evaluated stages from which no other one goes on: the ends of the branches, the main one first.

        A model fine-tuned to judge others comes last: how well it answers itself is not what the run is about.
        """
        stages = self.evaluated(task)
        inner = {before.name for stage in stages if (before := self.before(stage, task))}
        ends = [stage for stage in stages if stage.name not in inner]
        return sorted(ends, key=lambda stage: stage.kind == "sft" and stage.name in self.judges)

    def sources(self, stage: Stage) -> list[Stage]:
        """The stages that a stage's configuration names: a model to start from, data, a judge, models in its reward."""
        named = set(_named(stage.config, ""))
        return [other for other in self.stages if other.name in named and other is not stage]

    @property
    def judges(self) -> set[str]:
        """Names of the models that judge in this run."""
        return set(_judges(self.recipe.get("stages")))

    def scored(self, task: str) -> bool:
        """Whether a task is told by its mean score, having no right and wrong."""
        return any(stage.evaluation.get(task, {}).get("scored") for stage in self.stages)

    def measure(self, task: str) -> str:
        return "mean score" if self.scored(task) else "accuracy"

    def series(self, stage: Stage) -> int:
        """The number of a stage's colour and marker: those that answer problems take the first ones."""
        ordered = sorted(self.stages, key=lambda other: other.kind in SILENT)
        return ordered.index(stage)

    def threshold(self, task: str) -> float:
        """The score from which an answer counts as right."""
        value = number(mapping(mapping(self.recipe.get("evaluation")).get(task)).get("threshold"))
        return 1.0 if value is None else value

    def first_of(self, task: str, key: str) -> dict[str, Any]:
        """What belongs to the task and not to a model (``teacher``, ``baseline``): the first stage that tells."""
        for stage in self.stages:
            if isinstance(found := stage.evaluation.get(task, {}).get(key), dict):
                return found
        return {}


def number(value: Any) -> float | None:
    """A finite number, or None for everything else (booleans too)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def load(directory: Path) -> Run:
    """Read everything the report shows. Raises :class:`UserError` where ``directory`` is no run."""
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"There is no run directory {directory}: give the folder that `trivium run` wrote.")
    notes: list[str] = []
    recipe, recipe_text = _read_recipe(directory / "recipe.yaml", notes)
    summary = mapping(_read_json(directory / "summary.json", notes))
    stages = _read_stages(directory, recipe, summary, notes)
    if not (recipe or summary or stages):
        raise UserError(f"{directory} holds no run: no recipe.yaml, summary.json or stage folder with metrics.")
    lineage = _read_json(directory / "lineage.json", notes)
    for name, entry in mapping(mapping(lineage).get("artifacts")).items():
        if mapping(entry).get("status") == "outdated":
            stages = [stage for stage in stages if stage.name != name]
            notes.append(f"{name} is left out: the settings or inputs it was made from have changed since")
    name = str(recipe.get("name") or summary.get("recipe") or directory.resolve().name)
    return Run(directory, name, recipe, recipe_text, summary, lineage, stages, notes)


def _read_recipe(path: Path, notes: list[str]) -> tuple[dict[str, Any], str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        return mapping(yaml.safe_load(text)), text
    except OSError:
        notes.append("recipe.yaml is missing")
    except yaml.YAMLError:
        notes.append("recipe.yaml cannot be read as YAML")
    return {}, ""


def _read_json(path: Path, notes: list[str], optional: bool = False) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        if not optional:
            notes.append(f"{path.name} is missing")
    except ValueError:
        notes.append(f"{path.parent.name + '/' if optional else ''}{path.name} cannot be read as JSON")
    return None


def _read_stages(directory: Path, recipe: dict[str, Any], summary: dict[str, Any], notes: list[str]) -> list[Stage]:
    configs, summaries = mapping(recipe.get("stages")), mapping(summary.get("stages"))
    on_disk = sorted(
        path.name for path in directory.iterdir() if path.is_dir() and any((path / name).exists() for name in _FILES)
    )
    # What no recipe names is a model that was only evaluated, such as the base before any stage: it comes first.
    others = [name for name in dict.fromkeys([*on_disk, *summaries]) if name not in configs]
    names = [*others, *configs] if configs else list(dict.fromkeys([*summaries, *others]))
    return [_read_stage(directory / n, mapping(configs.get(n)), mapping(summaries.get(n)), notes) for n in names]


def _read_stage(path: Path, config: dict[str, Any], summary: dict[str, Any], notes: list[str]) -> Stage:
    kind = str(config.get("kind") or path.name)
    label = SHORT_LABELS.get(kind, kind) if kind == path.name else ACRONYMS.get(path.name, path.name)
    written = mapping(_read_json(path / "evaluation.json", notes, optional=True))
    judging = written if written.get("kind") == "reward" else {}
    tasks = {} if kind in SILENT or judging else mapping(written.get("tasks")) or mapping(summary.get("evaluation"))
    evaluation = {str(task): _measured(numbers) for task, numbers in tasks.items() if isinstance(numbers, dict)}
    watch, audit = (mapping(_read_json(path / f"{file}.json", notes, optional=True)) for file in ("watch", "audit"))
    metrics = _read_lines(path / "metrics.jsonl", "step", notes)
    told = summary.get("iterations")
    iterations = _read_lines(path / "iterations.jsonl", "iteration", notes) or [
        row for row in (told if isinstance(told, list) else []) if number(mapping(row).get("iteration")) is not None
    ]
    revisions = _read_lines(path / "revisions.jsonl", None, notes)
    return Stage(
        path.name,
        kind,
        label,
        config,
        summary,
        metrics,
        evaluation,
        judging,
        watch,
        audit,
        iterations,
        revisions,
        _read_alarms(path, summary, notes),
        _read_apart(path.parent / "evaluations" / path.name, notes),
    )


def _read_alarms(path: Path, summary: dict[str, Any], notes: list[str]) -> list[dict[str, Any]]:
    """What ``alarm.json`` says, or the sentences of the summary."""
    found = _read_json(path / "alarm.json", notes, optional=True)
    told = found if isinstance(found, list) else [{"sentence": text} for text in summary.get("alarms") or []]
    return [entry for entry in told if isinstance(entry, dict) and isinstance(entry.get("sentence"), str)]


def _read_apart(path: Path, notes: list[str]) -> dict[str, dict[str, Any]]:
    """The tasks of ``evaluations/STAGE``, a file each."""
    tasks: dict[str, dict[str, Any]] = {}
    for file in sorted(path.glob("*.json")):
        found = mapping(mapping(_read_json(file, notes, optional=True)).get("tasks"))
        tasks |= {str(task): numbers for task, numbers in found.items() if isinstance(numbers, dict)}
    return tasks


def _measured(numbers: dict[str, Any]) -> dict[str, Any]:
    """A task without right and wrong is told by its mean score in the place of the accuracy, and marked ``scored``."""
    if number(numbers.get("accuracy")) is not None or number(numbers.get("score")) is None:
        return numbers
    others = {key: value for key, value in numbers.items() if key not in ("score", "score_low", "score_high")}
    told = {"accuracy": numbers["score"], "low": numbers.get("score_low"), "high": numbers.get("score_high")}
    return {**others, **told, "scored": True}


def _read_lines(path: Path, counter: str | None, notes: list[str]) -> list[dict[str, Any]]:
    """The lines of a JSONL file, each with a number as its ``counter`` if that is given; a killed run may leave half a
    line, which is noted and left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines, broken = [], 0
    for line in filter(str.strip, text.split("\n")):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict) and (counter is None or number(entry.get(counter)) is not None):
            lines.append(entry)
        else:
            broken += 1
    if broken:
        notes.append(f"{path.parent.name}/{path.name}: {broken} unreadable line(s) left out")
    return lines


def _judges(value: Any) -> Iterator[str]:
    """The names of the models that judge, anywhere in a recipe's stages."""
    if isinstance(value, dict):
        options = value.get("options") if value.get("kind") == "judge" else value if "constitution" in value else None
        if isinstance(options, dict) and isinstance(options.get("model"), str):
            yield options["model"]
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _judges(item)


def _named(value: Any, key: str) -> Iterator[str]:
    """Everything that a configuration names under a key that may name a stage."""
    if isinstance(value, dict):
        elsewhere = value.get("backend", "local") != "local"  # a server's model is no stage of that name
        for inner, item in value.items():
            if not (elsewhere and inner == "model"):
                yield from _named(item, str(inner))
    elif isinstance(value, list):
        for item in value:
            yield from _named(item, key)
    elif isinstance(value, str) and key in ("init", "policy", "source", "model", "audit"):
        yield value
