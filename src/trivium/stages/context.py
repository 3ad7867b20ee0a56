"""What a stage is given, and how every stage opens and closes a model."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.config import RecipeConfig
from trivium.progress import Progress
from trivium.streams import stream_key

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
    """Decoder and tokenizer of the earlier stage, directory or hub name ``init``; with adapters, under ``lora``."""
    from trivium.model.huggingface import load_language_model
    from trivium.text.tokenizer import Tokenizer

    source = context.place(init)
    return adapted(context, load_language_model(source, device=device)), Tokenizer.load(source)


def adapted(context: StageContext, decoder: "Decoder") -> "Decoder":
    """``decoder`` with fresh adapters where the stage's ``lora`` asks for them, else as it is."""
    if (config := getattr(context.config, "lora", None)) is None:
        return decoder
    import torch

    from trivium.model.lora import add_adapters

    drawn = torch.Generator().manual_seed(stream_key(context.recipe.seed, f"{context.name}/adapters"))
    return add_adapters(decoder, config, drawn)


def save_result(context: StageContext, decoder: "Decoder", tokenizer: "Tokenizer") -> None:
    """Write STAGE/model/, whole, from the main rank; adapters are merged into it, and apart in STAGE/adapter/."""
    from trivium.model.huggingface import save_model
    from trivium.training import distributed

    whole = distributed.full_copy(decoder)
    if distributed.is_main():
        save_own_adapter(context, whole, context.directory / "adapter")
        save_model(whole, context.directory / "model", tokenizer)
    distributed.barrier()


def save_own_adapter(context: StageContext, decoder: "Decoder", directory: Path) -> None:
    """Write the stage's adapter to ``directory``; one of an earlier run goes where the stage has none."""
    from trivium.model.lora import settings_of

    if settings_of(decoder) is None:
        shutil.rmtree(directory, ignore_errors=True)
        return
    from trivium.model.adapter_files import save_adapter

    base = context.place(context.config.init)
    save_adapter(decoder, directory, str(Path(base).resolve()) if Path(base).is_dir() else base)
