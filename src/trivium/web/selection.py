"""Active selection: what reward models disagree on is ranked first; a random slice is kept apart for measurement.

Where people look is then no fair sample of the prompts, so a share of them, drawn by a hash of their ids before any
model has scored them, is worked through in an order that no model decides. What is measured (agreement, accuracy of a
reward model) should be measured there. Ensembles for this: Lakshminarayanan et al. 2017, "Simple and scalable
predictive uncertainty estimation using deep ensembles".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.record import Response
from trivium.feedback.rankings.store import NewTask, Store
from trivium.streams import generator

RANDOM, ACTIVE = "random", "active"


@dataclass
class Selection:
    """Priorities by the disagreement of ``models``: the heads of one, or several models with one another."""

    models: Sequence[Any]
    random_share: float = 0.2
    seed: int = 0

    @classmethod
    def load(cls, directories: Sequence[Path], random_share: float = 0.2, seed: int = 0) -> "Selection":
        """Raises UserError for what is no reward model, and for a single model with one head, which has no opinion
        to differ from."""
        import torch

        from trivium.feedback.reward_model import RewardModel

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        models = [RewardModel.load(directory, device) for directory in directories]
        if sum(model.heads for model in models) < 2:
            raise UserError(
                f"{directories[0]} has one head, so it never disagrees with itself: train a reward model with more "
                "(reward.heads=4), or give several with --reward-model"
            )
        return cls(models, random_share, seed)

    def disagreement(self, tasks: Sequence[tuple[Prompt, Sequence[Response]]]) -> list[list[float]]:
        """For each task, for each answer: the standard deviation of its normalised score over heads or models."""
        import torch

        items = [_item(prompt, response) for prompt, responses in tasks for response in responses]
        if len(self.models) == 1:
            spread = self.models[0].disagreement(items)
        else:
            spread = torch.stack([model.normalised(items) for model in self.models]).std(0, correction=0)
        values = iter(spread.tolist())
        return [[next(values) for _ in responses] for _, responses in tasks]

    def priorities(self, tasks: Sequence[tuple[Prompt, Sequence[Response]]]) -> list[float]:
        """The mean disagreement over the answers of each task; 0 where the models cannot read one to its end."""
        fit = [number for number, (prompt, responses) in enumerate(tasks) if self._fits(prompt, responses)]
        values = dict(zip(fit, self.disagreement([tasks[number] for number in fit]), strict=True)) if fit else {}
        return [sum(values[number]) / len(values[number]) if number in values else 0.0 for number in range(len(tasks))]

    def _fits(self, prompt: Prompt, responses: Sequence[Response]) -> bool:
        items = [_item(prompt, response) for response in responses]
        return all(len(tokens) <= model.context_length for model in self.models for tokens in model.tokens(items))

    def sliced(self, tasks: Sequence[NewTask]) -> list[NewTask]:
        """New tasks in their slices; gold tasks are in none, since they measure people."""
        return [task if task.gold is not None else replace(task, slice=self.slice_of(task.prompt.id)) for task in tasks]

    def judge(self, tasks: Sequence[NewTask]) -> list[NewTask]:
        """New tasks in their slices, with their priorities."""
        priorities = self.priorities([(task.prompt, task.responses) for task in tasks])
        return [replace(task, priority=value) for task, value in zip(self.sliced(tasks), priorities, strict=True)]

    def slice_of(self, prompt_id: str) -> str:
        """``random`` for a share of all prompts, ``active`` for the rest; depends on (seed, prompt) alone."""
        return RANDOM if generator(self.seed, "slice", prompt_id).random() < self.random_share else ACTIVE

    def slice_store(self, store: Store) -> int:
        """Put the tasks that were added before there was a model into slices, as new ones are; how many. What is done
        already stays as it is, and so does a slice once set: another share or seed moves no task."""
        waiting = [task for task in store.tasks() if task.status != "done" and not task.slice and task.gold is None]
        return store.set_slices({task.id: self.slice_of(task.prompt.id) for task in waiting})

    def judge_store(self, store: Store, portion: int = 64) -> int:
        """Set the priorities of all open tasks; how many. Those that were added without a slice are put into one."""
        self.slice_store(store)
        tasks = [task for task in store.tasks() if task.status == "open"]
        for start in range(0, len(tasks), portion):
            part = tasks[start : start + portion]
            values = self.priorities([(task.prompt, task.responses) for task in part])
            store.set_priorities({task.id: value for task, value in zip(part, values, strict=True)})
        return len(tasks)


def _item(prompt: Prompt, response: Response) -> tuple[Any, str, bool]:
    return prompt.messages, response.text, response.finish_reason == "stop"
