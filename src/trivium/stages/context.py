"""What a stage is given, and how every stage opens and closes a model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.config import RecipeConfig
from trivium.progress import Progress

if TYPE_CHECKING:
    import torch

    from trivium.model.decoder import Decoder
    from trivium.text.tokenizer import Tokenizer


@dataclass
class StageContext:
    """``directory`` is runs/NAME/STAGE, ``models`` the model directories of the finished stages before this one, and
    ``files`` what the others made: rankings, conversations, audits."""

    name: str
    config: Any
    recipe: RecipeConfig
    directory: Path
    models: dict[str, Path] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)  # a silent one
    files: dict[str, Path] = field(default_factory=dict)

    def place(self, name: str) -> str:
        """Where the model or the file of an earlier stage lies; what is no stage comes back as it is."""
        return str(self.models.get(name) or self.files.get(name) or name)


def load_start(context: StageContext, init: str, device: "torch.device") -> "tuple[Decoder, Tokenizer]":
    """Decoder and tokenizer of the earlier stage, directory or hub name ``init``."""
    from trivium.model.huggingface import load_language_model
    from trivium.text.tokenizer import Tokenizer

    source = context.place(init)
    return load_language_model(source, device=device), Tokenizer.load(source)


def save_result(context: StageContext, decoder: "Decoder", tokenizer: "Tokenizer") -> None:
    """Write STAGE/model/, whole, from the main rank."""
    from trivium.model.huggingface import save_model
    from trivium.training import distributed

    whole = distributed.full_copy(decoder)
    if distributed.is_main():
        save_model(whole, context.directory / "model", tokenizer)
    distributed.barrier()
