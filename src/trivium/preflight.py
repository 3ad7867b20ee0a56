"""What is checked before anything is spent on a run: its directory, data, verifiers and choices."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from trivium.config import RLConfig


def check_stage(name: str, config: Any) -> None:
    """Settings of a stage that do not go together: the dimensions of its model, the choices of its algorithm."""
    from trivium.config import PretrainConfig, RLConfig

    if isinstance(config, RLConfig):
        check_rl(config, name)
    elif isinstance(config, PretrainConfig) and config.init is None:
        from trivium.model.sizes import derive

        derive(config.model, config.tokenizer.vocabulary_size)


def check_rl(config: "RLConfig", stage: str) -> None:
    """Choices that contradict each other are refused before anything is sampled."""
    if config.sampling.temperature == 0:
        raise UserError(f"{stage}.sampling.temperature is 0: greedy rollouts of a group are all alike; use 1.0, say")
    if config.kl != "none" and config.reference == "none":
        raise UserError(
            f"{stage}.kl is {config.kl} but {stage}.reference is none; set the reference to frozen or moving"
        )
    if config.group_size == 1 and config.advantage != "batch_zscore":
        raise UserError(f"{stage}.group_size is 1, which leaves {config.advantage} nothing to compare; use 2 or more")
    if config.minibatches > config.prompts_per_step:
        raise UserError(f"{stage}.minibatches is larger than {stage}.prompts_per_step; each update needs a prompt")
    if config.overlong == "penalty" and config.overlong_window >= config.sampling.max_new_tokens:
        raise UserError(
            f"{stage}.overlong_window is {config.overlong_window}, but a response has at most "
            f"{config.sampling.max_new_tokens} tokens; make the window shorter, so that short answers cost nothing"
        )


def check_section(where: str, config: Any) -> None:
    """Files that are not there and verifiers that cannot be built are told before anything is spent on the run."""
    from trivium.config import SourceConfig, VerifierConfig
    from trivium.data.files import data_files, looks_like_hub_name
    from trivium.feedback.verifiers import build

    for key, value in _configs(config, where):
        if isinstance(value, SourceConfig):
            found = value.source == "primer" or Path(value.source).expanduser().exists()
            if not found and not looks_like_hub_name(value.source):
                raise UserError(
                    f"{key}.source: there is no file or folder {value.source}; correct the path, "
                    f"which starts from {Path.cwd()}"
                )
            if value.source != "primer" and value.adapter is None and Path(value.source).expanduser().exists():
                try:
                    data_files(Path(value.source).expanduser(), value.split)
                except UserError as error:
                    raise UserError(f"{key}: {error}") from None
        elif isinstance(value, VerifierConfig):
            try:
                build(value).close()
            except UserError as error:
                raise UserError(f"{key}: {error}") from None


def _configs(value: Any, where: str) -> "Iterator[tuple[str, BaseModel]]":
    """Every configuration object within ``value``, with the path of its keys."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        yield where, value
        for name in type(value).model_fields:
            yield from _configs(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list | dict):
        pairs: Iterable[tuple[object, object]] = value.items() if isinstance(value, dict) else enumerate(value)
        for position, item in pairs:
            yield from _configs(item, f"{where}.{position}")


def holds_run(directory: Path) -> bool:
    return (directory / "recipe.yaml").is_file() or (directory / "lineage.json").is_file()


def check_place(directory: Path, name: str | None) -> None:
    """A run directory is new, empty, or holds a run; with a ``name``, a run of that recipe."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file and cannot hold a run; choose another directory with -d")
    if not holds_run(directory):
        if directory.is_dir() and any(not path.name.startswith(".") for path in directory.iterdir()):
            raise UserError(f"{directory} is not empty and holds no run; choose another directory with -d")
        return
    if name is None or not (directory / "recipe.yaml").is_file():
        return
    from trivium.recipe import read

    held = read(directory)[0].get("name")
    if held != name:
        raise UserError(
            f"{directory} holds a run of recipe {held}, not {name}; choose another directory with -d, or move that run "
            "aside with --fresh"
        )
