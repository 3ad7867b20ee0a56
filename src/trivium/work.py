"""What is done for a stage, in this process: its training, and the evaluation of its model."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trivium import files, progress, summary

if TYPE_CHECKING:
    from trivium.config import RecipeConfig


class Work(Protocol):
    """Who does the work of a stage: this process (``Here``), or one of its own (``trivium.parallel.Child``)."""

    @property
    def shown(self) -> progress.Progress:
        """Where it is told how far the work is."""

    def train(self, name: str, made: Mapping[str, Path]) -> dict[str, Any]:
        """Run the stage; ``made``: what the finished stages before it made, a model directory or a file each.

        Returns its numbers, as in ``summary.json``; its product is in STAGE/."""

    def evaluate(self, name: str, model: Path, made: Mapping[str, Path]) -> dict[str, Any]:
        """Evaluate ``model`` on the recipe's tasks and write STAGE/evaluation.json; returns it without the answers."""


class Here:
    """Work in this process. ``writes``: it is the main rank, or the only one."""

    def __init__(self, config: "RecipeConfig", directory: Path, shown: progress.Progress, writes: bool = True) -> None:
        self.config, self.directory, self._shown, self.writes = config, directory, shown, writes

    @property
    def shown(self) -> progress.Progress:
        return self._shown

    def train(self, name: str, made: Mapping[str, Path]) -> dict[str, Any]:
        """As ``Work.train``; a stage that ends without its product is a RuntimeError."""
        from trivium.stages import PRODUCTS, STAGES, StageContext

        stage, folder = self.config.stages[name], self.directory / name
        folder.mkdir(parents=True, exist_ok=True)
        models = {other: place for other, place in made.items() if place.name == "model"}
        others = {other: place for other, place in made.items() if other not in models}
        context = StageContext(name, stage, self.config, folder, models=models, files=others, progress=self.shown)
        numbers = STAGES[stage.kind](context)
        if self.writes and not (folder / PRODUCTS[stage.kind]).exists():
            raise RuntimeError(f"stage {name} ended without writing {folder / PRODUCTS[stage.kind]}")
        return numbers

    def evaluate(self, name: str, model: Path, made: Mapping[str, Path]) -> dict[str, Any]:
        """As ``Work.evaluate``. What is no stage is a model from elsewhere, asked as the first stage's is."""
        stage = self.config.stages.get(name) or next(iter(self.config.stages.values()))
        folder = self.directory / name
        evaluation = evaluate_model(self.config, name, stage, folder, made, model, self.shown)
        if self.writes:
            files.write_json(folder / "evaluation.json", evaluation)
        return summary.without_results(evaluation)


def evaluate_model(
    config: "RecipeConfig",
    name: str,
    stage: Any,
    folder: Path,
    models: Mapping[str, Path],
    model: Path,
    shown: progress.Progress,
) -> dict[str, Any]:
    """The content of ``evaluation.json`` for one model directory."""
    from trivium.evaluation.evaluate import evaluate_stage
    from trivium.stages import StageContext

    folder.mkdir(parents=True, exist_ok=True)
    context = StageContext(
        name=name, config=stage, recipe=config, directory=folder, models=dict(models), progress=shown
    )
    return evaluate_stage(context, model)
