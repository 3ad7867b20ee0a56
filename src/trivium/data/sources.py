"""From a recipe's sources to records: documents, conversations, prompts.

A source is made by rule ("primer", the embedded world; "procedural"; "reasoning_gym"), or it is a file, a folder, or
the name of a hub data set; the same fields are read from each. Rows become records by field names, by an explicit
field map, or by a named adapter.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from trivium.config import RecipeConfig, SourceConfig
from trivium.data import choices, code, e2e, equations, fields, files, ifeval
from trivium.data.files import Row
from trivium.data.records import Conversation, Document, LabelledAnswer, Prompt
from trivium.errors import UserError

Record = TypeVar("Record", Document, Conversation, Prompt, LabelledAnswer)

ADAPTERS: dict[str, Any] = {
    "choice": choices,
    "e2e": e2e,
    "equations": equations,
    "ifeval": ifeval,
    "humaneval": code.HumanEval(),
    "mbpp": code.MBPP(),
}
# Sources that are made by rule: no file is read, and they have options of their own.
MADE = ("primer", "procedural", "reasoning_gym")
# Content is hashed up to this size; larger files are known by size and time of change.
_HASHED_BYTES = 64 * 2**20


def read_rows(
    config: SourceConfig, base: Path | None = None, recipe: RecipeConfig | None = None, part: str = "corpus"
) -> Iterator[Row]:
    """Raw rows of a source, streamed, at most ``config.limit`` of them.

    ``base`` is what relative paths start from (default: the working directory); ``recipe`` gives the primer its seed
    and settings; ``part`` is the primer's part where the source names none.
    """
    return islice(_rows(config, base, recipe, part), config.limit)


def documents(configs: Sequence[SourceConfig], recipe: RecipeConfig, base: Path | None = None) -> Iterator[Document]:
    """Documents of all sources, one source after the other, streamed. UserError at the end of one without any."""
    for config in configs:
        for document in _records(config, recipe, base, "corpus", fields.document, "documents"):
            yield document if config.portion is None else _portion(document, config)


def _portion(document: Document, config: SourceConfig) -> Document:
    """The part of the document's characters that the source keeps, such as [0.0, 0.9]: the first nine tenths."""
    start, end = config.portion or (0.0, 1.0)
    if not 0 <= start < end <= 1:
        raise UserError(
            f"{config.source}: portion is [{start}, {end}]; it goes from one share to a larger, within 0 and 1"
        )
    size = len(document.text)
    return Document(document.text[int(size * start) : int(size * end)])


def conversations(
    configs: Sequence[SourceConfig], recipe: RecipeConfig, base: Path | None = None
) -> list[list[Conversation]]:
    """Conversations, one list a source (see ``mixture.batch_indices``). UserError for a source without any."""
    return [
        list(_records(config, recipe, base, "demonstrations", fields.conversation, "conversations"))
        for config in configs
    ]


def prompts(configs: Sequence[SourceConfig], recipe: RecipeConfig, base: Path | None = None) -> list[list[Prompt]]:
    """Prompts, one list a source (see ``mixture.batch_indices``). UserError for a source without any."""
    return [list(_records(config, recipe, base, "problems", fields.prompt, "prompts")) for config in configs]


def labelled(configs: Sequence[SourceConfig], recipe: RecipeConfig, base: Path | None = None) -> list[LabelledAnswer]:
    """Answers with a label, of all sources. UserError for a source without any, see ``check_labelled`` too."""
    found: list[LabelledAnswer] = []
    for config in configs:
        check_labelled(config)
        found += _records(config, recipe, base, "labelled", fields.labelled, "labelled answers")
    return found


def check_labelled(config: SourceConfig) -> None:
    """UserError for an adapter, and for a source that is made by rule: none makes labelled answers."""
    if config.adapter is not None:
        raise UserError(
            f"{config.source}: the adapter {config.adapter} makes no labelled answers; leave it out, and name "
            "prompt, completion and label with a field map"
        )
    if config.source in MADE:
        raise UserError(
            f"{config.source} makes no labelled answers; name a file, a folder or a data set whose rows have a prompt, "
            "a completion and a label"
        )


def fingerprint(configs: Sequence[SourceConfig], recipe: RecipeConfig, base: Path | None = None) -> str:
    """Changes when the sources or what they read changes (a hub data set is known by its name alone)."""
    digest = hashlib.blake2b(digest_size=16)
    for config in configs:
        digest.update(config.model_dump_json().encode())
        if config.source in MADE:
            digest.update(_made_state(config.source, recipe).encode())
            continue
        path = _local(config, base)
        # An adapter may read more than the files of the split.
        chosen = [] if path is None else files.data_files(path, None if config.adapter else config.split)[0]
        for file in chosen:
            digest.update(_file_state(file).encode())
    return digest.hexdigest()


def _made_state(source: str, recipe: RecipeConfig) -> str:
    """What rows made by rule depend on, besides the configuration of the source."""
    if source == "primer":
        return f"{recipe.seed} {recipe.primer.model_dump_json()}"
    if source == "procedural":
        from trivium import procedural

        return f"{recipe.seed} {procedural.VERSION}"
    from trivium.procedural import gym

    return f"{recipe.seed} {gym.version()}"


def _file_state(path: Path) -> str:
    status = path.stat()
    if status.st_size > _HASHED_BYTES:
        return json.dumps([path.name, status.st_size, status.st_mtime_ns])
    return json.dumps([path.name, hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()])


def _records(
    config: SourceConfig,
    recipe: RecipeConfig,
    base: Path | None,
    part: str,
    convert: Callable[[Row, dict[str, str]], Record],
    what: str,
) -> Iterator[Record]:
    """Records of one source, limited, and never none."""
    if config.portion is not None and what != "documents":
        raise UserError(f"{config.source}: portion cuts the documents of a corpus, and these are {what}: remove it")
    if config.adapter is None:
        if config.options and config.source not in MADE:
            raise UserError(f"{config.source}: options are for an adapter, and none is named: name one or remove them")
        records: Iterator[Record] = (convert(row, config.fields) for row in _rows(config, base, recipe, part))
    elif config.adapter in ADAPTERS:
        path = _local(config, base)
        records = getattr(ADAPTERS[config.adapter], what)(config, path)
    else:
        raise UserError(f"{config.source}: no adapter {config.adapter!r}; there is {', '.join(ADAPTERS)}")
    count = 0
    for record in islice(records, config.limit):
        count += 1
        yield record
    if not count:
        split = f" (split {config.split})" if config.split else ""
        raise UserError(f"{config.source}{split} holds no {what}: check the source, its split and its files")


def _rows(config: SourceConfig, base: Path | None, recipe: RecipeConfig | None, part: str) -> Iterator[Row]:
    """All raw rows of a source."""
    if config.source in MADE:
        if recipe is None:
            raise ValueError(f"{config.source} needs the recipe for its seed and settings")
        yield from _made(config, recipe, part)
        return
    path = _local(config, base)
    if path is None:
        name, hub_part = files.hub_name_and_part(config.source, config.part)
        yield from files.read_hub(name, hub_part, config.split or "train")
        return
    if config.part is not None:
        raise UserError(
            f"{config.source}: part is for what is made by rule and for the hub, not for files: remove part"
        )
    yield from files.read_path(path, config.split)


def check_made(config: SourceConfig) -> None:
    """UserError for a part, split, option or map that a source made by rule cannot have, or a package it lacks."""
    if config.source == "primer":
        from trivium import primer
        from trivium.config import PrimerConfig

        primer.settings(PrimerConfig(), config.options)
        return
    if config.fields or config.adapter:
        name = "fields" if config.fields else "adapter"
        raise UserError(f"{config.source}: its rows have the right fields; remove {name}")
    from trivium import procedural

    if config.split is not None and config.split not in procedural.SPLITS:
        raise UserError(
            f"{config.source}: there is no split {config.split!r}; choose from {', '.join(procedural.SPLITS)}"
        )
    if config.source == "procedural":
        procedural.settings(config.part, config.options)
        return
    from trivium.procedural import gym

    gym.settings(config.part, config.options)


def _made(config: SourceConfig, recipe: RecipeConfig, part: str) -> Iterator[Row]:
    """Rows made by rule; ``part`` says what for (corpus, demonstrations, problems)."""
    split = config.split or "train"
    told = config.part or part
    rows: Iterator[dict[str, Any]]
    if config.source == "primer":
        from trivium import primer

        rows = primer.rows(told, split, primer.settings(recipe.primer, config.options), recipe.seed)
    elif config.source == "procedural":
        from trivium import procedural

        rows = procedural.rows(part, split, procedural.settings(config.part, config.options), recipe.seed)
    else:
        from trivium.procedural import gym

        rows = gym.rows(part, split, gym.settings(config.part, config.options), recipe.seed)
    for number, row in enumerate(rows, 1):
        yield Row(row, f"{config.source} {told} ({split}), row {number}")


def _local(config: SourceConfig, base: Path | None) -> Path | None:
    """The file or folder that a source names; None if it can only be a hub data set."""
    path = (base or Path()) / Path(config.source).expanduser()
    if path.exists():
        return path
    if files.looks_like_hub_name(config.source):
        return None
    raise UserError(f"{config.source}: there is no such file or folder: check the path (it starts from {path.parent})")
