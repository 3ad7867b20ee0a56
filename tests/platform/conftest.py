"""Fake stages: they count their calls and write what a real stage writes, so that a whole run takes milliseconds."""

import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml


@dataclass
class FakeStages:
    """``calls`` lists the stages that ran; ``interrupt`` names one that is cut once, after its first checkpoint."""

    calls: list[str] = field(default_factory=list)
    evaluations: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    interrupt: str | None = None
    fail: BaseException | None = None

    def stage(self, context: Any) -> dict[str, Any]:
        self.calls.append(context.name)
        checkpoints = context.directory / "checkpoints"
        context.progress.stage(context.name, context.config.steps, 0)
        if checkpoints.is_dir():
            self.resumed.append(context.name)
        checkpoints.mkdir(exist_ok=True)
        if self.interrupt == context.name:
            self.interrupt = None
            raise self.fail or KeyboardInterrupt
        context.progress.advance(context.config.steps, {"loss": 1.0})
        parent = context.models.get(context.config.init)
        text = context.config.model_dump_json(exclude={"checkpoint_every", "keep_checkpoints"}) + str(
            context.recipe.seed
        )
        text += (parent / "model.safetensors").read_text() if parent else ""
        model = context.directory / "model"
        model.mkdir(exist_ok=True)
        (model / "model.safetensors").write_text(hashlib.sha256(text.encode()).hexdigest())
        metric = {"name": "loss", "value": 0.5, "better": "lower"}
        return {"seconds": 1.5, "tokens": 12345, "steps": context.config.steps, "metric": metric}

    def evaluate(self, context: Any, model: Path) -> dict[str, Any]:
        self.evaluations.append(context.name)
        right = {"pretrain": 2, "sft": 4, "rl": 9}.get(context.name, 1)
        results = [
            {"id": str(i), "score": float(i < right), "status": "ok", "prompt": "p", "response": "r"} for i in range(10)
        ]
        task = {"n": 10, "accuracy": right / 10, "low": 0.1, "high": 0.95, "results": results}
        return {"stage": context.name, "tasks": dict.fromkeys(context.recipe.evaluation, task)}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeStages:
    """Fake stages, evaluation and report, in an empty working directory."""
    stages, evaluate, report = map(
        importlib.import_module, ("trivium.stages", "trivium.evaluation.evaluate", "trivium.report")
    )
    fake = FakeStages()
    monkeypatch.setattr(stages, "STAGES", dict.fromkeys(("pretrain", "sft", "rl"), fake.stage))
    monkeypatch.setattr(evaluate, "evaluate_stage", fake.evaluate)

    def build(directory: Path) -> Path:
        (directory / "report.html").write_text("<p>report")
        return directory / "report.html"

    monkeypatch.setattr(report, "build", build)
    monkeypatch.chdir(tmp_path)
    return fake


RECIPE: dict[str, Any] = {
    "name": "tiny",
    "stages": {
        "pretrain": {"data": [{"source": "text.txt"}], "steps": 5},
        "sft": {"data": [{"source": "primer"}], "steps": 4},
        "rl": {"prompts": [{"source": "primer"}], "rewards": {"right": {"kind": "primer"}}, "steps": 3},
    },
    "evaluation": {"problems": {"prompts": [{"source": "primer"}], "verifier": {"kind": "primer"}}},
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A recipe of three stages in a file; the first reads a text, the others the primer."""
    (tmp_path / "text.txt").write_text("once upon a time")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return path


@pytest.fixture
def read() -> Callable[[Path], Any]:
    return lambda path: json.loads(path.read_text())
