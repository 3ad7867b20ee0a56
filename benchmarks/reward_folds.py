"""Cross-validation of a reward stage: every prompt is held out once, and the held-out rankings are judged together.

    python -m benchmarks.reward_folds restaurant reward --init runs/restaurant/sft/model \\
        paths.restaurants=FOLDER reward.rankings.0.portion=[0,1] reward.validation_share=0.05

Prints the table of docs/lab-notebook.md and, as the last line, everything as JSON.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

import trivium
from trivium.config import RewardConfig
from trivium.evaluation.reward_model import Scored, evaluate, longer_wins
from trivium.feedback.reward_model import RewardModel
from trivium.recipe import load
from trivium.stages import StageContext
from trivium.stages.reward import ranked_tasks, scored, win_of
from trivium.text.tokenizer import Tokenizer
from trivium.training.reward import split_tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("stage")
    parser.add_argument("--init", required=True, help="model directory that every fold starts from")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    given = [*arguments.overrides, f"{arguments.stage}.init={os.path.abspath(arguments.init)}"]
    with tempfile.TemporaryDirectory() as folder:
        held_out, votes = [], []
        stage: RewardConfig = load(arguments.recipe, given).stages[arguments.stage]  # type: ignore[assignment]
        folds = round(1 / stage.test_share)
        for fold in range(folds):
            overrides = [*given, f"{arguments.stage}.fold={fold}"]
            place = Path(folder) / f"fold-{fold}"
            trivium.run(arguments.recipe, overrides, place, stages=[arguments.stage], quiet=True)
            part, longer = judged(arguments.recipe, overrides, arguments.stage, place)
            held_out += part
            votes.append(longer)
    assert len(set(votes)) == 1, "the folds disagree on whether longer is better: judge them one by one"
    result = {"folds": folds, **evaluate(held_out, win_of(stage), votes[0], 0)}
    for name, numbers in {"all": result["pairs"], **result["by_criterion"]}.items():
        print(row(name, numbers, result["ceiling"].get(name)))
    print(json.dumps(result))


def judged(recipe: str, overrides: list[str], stage: str, place: Path) -> tuple[list[Scored], bool]:
    """The fold's test tasks with the scores of its model, and the direction of its length-only baseline."""
    loaded = load(recipe, overrides)
    config: RewardConfig = loaded.stages[stage]  # type: ignore[assignment]
    context = StageContext(stage, config, loaded, place / stage)
    model = RewardModel.load(place / stage / "model", torch.device("cpu"))
    tasks, _ = ranked_tasks(context, Tokenizer.load(place / stage / "model"), model.context_length)
    train, _, test = split_tasks(tasks, config.validation_share, config.test_share, config.fold)
    return scored(model, test), longer_wins(train)


def row(name: str, numbers: dict[str, Any], ceiling: dict[str, Any] | None) -> str:
    def interval(low: float, high: float) -> str:
        return f"[{low:.3f}, {high:.3f}]"

    difference = numbers["difference"]
    cells = [
        name,
        str(numbers["n"]),
        f"{numbers['accuracy']:.3f} {interval(numbers['low'], numbers['high'])}",
        f"{numbers['length_accuracy']:.3f}",
        f"{difference['estimate']:+.3f} {interval(difference['low'], difference['high'])}",
        "" if not ceiling else f"{ceiling['accuracy']:.3f} (model there {ceiling['model']['accuracy']:.3f})",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
