"""Low-rank adapters that cannot work, before anything is spent."""

from importlib.util import find_spec
from typing import Any

from trivium.errors import UserError


def check_lora(config: Any, stage: str) -> None:
    """Adapters without the package, on nothing or twice on the same matrices; with a reference that needs a copy."""
    lora = getattr(config, "lora", None)
    if lora is None:
        return
    if find_spec("peft") is None:
        raise UserError(f"{stage}.lora needs the package peft: pip install 'trivium[lora]'")
    if not lora.targets or len(set(lora.targets)) < len(lora.targets):
        raise UserError(f"{stage}.lora.targets is {lora.targets}; name at least one matrix, each once")
    if getattr(config, "reference", None) == "moving":
        raise UserError(
            f"{stage}.reference is moving, which needs a copy of all weights that {stage}.lora does without: with "
            "adapters the reference is the model they were put on; set the reference to frozen or none"
        )
