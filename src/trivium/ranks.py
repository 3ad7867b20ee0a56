"""Which of several processes this is, for what is decided before torch is there."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trivium.config import RecipeConfig


class Ranks:
    """Who writes: with ``torchrun`` the first process alone, while the others wait. One process needs no torch here."""

    def __init__(self) -> None:
        self.many = int(os.environ.get("WORLD_SIZE", "1")) > 1
        self.main = int(os.environ.get("RANK", "0")) == 0

    def join(self, recipe: "RecipeConfig") -> None:
        """Join the process group: a barrier before that would not wait."""
        if self.many:
            from trivium.training.device import choose_device

            choose_device(recipe)

    def barrier(self) -> None:
        if self.many:
            from trivium.training.distributed import barrier

            barrier()
