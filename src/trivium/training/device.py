"""The device a recipe asks for."""

import torch

from trivium.config import RecipeConfig
from trivium.errors import UserError
from trivium.training import distributed


def choose_device(recipe: RecipeConfig) -> torch.device:
    """The device of a recipe, threads set and the process group joined. A device that is not there is a UserError."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    name = recipe.device
    if name == "auto":
        name = f"cuda:{distributed.local_rank()}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device: {name!r} is no device; use auto, cpu, cuda or cuda:0") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: {name} is not there (torch sees no GPU); use device=cpu or device=auto")
    distributed.setup(device)
    return device
