"""A run directory as data. Whatever is missing or was cut is noted and left out, never fatal."""

import json
import math
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
    "reward": "Reward model",
    "reward_model": "Reward model",
    "base": "Base",
}


@dataclass(frozen=True)
class Stage:
    """One stage of a run: ``summary`` is empty until it is finished, ``evaluation`` maps a task to its numbers."""

    name: str
    kind: str
    label: str
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return bool(self.summary)

    @property
    def last_step(self) -> int | None:
        steps = [step for line in self.metrics if (step := number(line.get("step"))) is not None]
        return int(max(steps)) if steps else None


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
        path.name
        for path in directory.iterdir()
        if path.is_dir() and any((path / name).exists() for name in ("metrics.jsonl", "evaluation.json"))
    )
    # What no recipe names is a model that was only evaluated, such as the base before any stage: it comes first.
    others = [name for name in dict.fromkeys([*on_disk, *summaries]) if name not in configs]
    names = [*others, *configs] if configs else list(dict.fromkeys([*summaries, *others]))
    return [_read_stage(directory / n, mapping(configs.get(n)), mapping(summaries.get(n)), notes) for n in names]


def _read_stage(path: Path, config: dict[str, Any], summary: dict[str, Any], notes: list[str]) -> Stage:
    kind = str(config.get("kind") or path.name)
    label = SHORT_LABELS.get(kind, kind) if kind == path.name else path.name
    tasks = mapping(mapping(_read_json(path / "evaluation.json", notes, optional=True)).get("tasks"))
    tasks = tasks or mapping(summary.get("evaluation"))
    evaluation = {str(task): numbers for task, numbers in tasks.items() if isinstance(numbers, dict)}
    return Stage(path.name, kind, label, config, summary, _read_metrics(path / "metrics.jsonl", notes), evaluation)


def _read_metrics(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The lines of a metrics file; a killed run may leave half a line, which is noted and left out."""
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
        if isinstance(entry, dict) and number(entry.get("step")) is not None:
            lines.append(entry)
        else:
            broken += 1
    if broken:
        notes.append(f"{path.parent.name}/metrics.jsonl: {broken} unreadable line(s) left out")
    return lines
