"""E2E restaurants (Novikova et al. 2017): representations such as "name[The Mill], area[riverside]" and references.

The published files share few restaurant names, so a model trained on one has never seen most names of the other. This
adapter pools what it is given and splits anew: train, validation and test by meaning representation, and the split
"unseen_names" for representations with a restaurant of a fixed held-out set, whose names occur nowhere else.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trivium.config import SourceConfig
from trivium.data import files
from trivium.data.fields import apply_map, message_hash
from trivium.data.files import Row
from trivium.data.records import Conversation, Document, Message, Prompt
from trivium.errors import UserError

SPLITS = ("train", "validation", "test", "unseen_names")
OPTIONS = {"files": ["e2e_train.jsonl", "e2e_test.jsonl"], "validation": 0.1, "test": 0.1, "unseen": 0.15}

_SLOT = re.compile(r"\s*([^\[\],]+?)\s*\[([^\[\]]*)\]\s*(?:,|$)")
# What the data set calls its fields on the hub.
_HUB_FIELDS = {"mr": "meaning_representation", "ref": "human_reference"}


def parse(text: str) -> dict[str, str]:
    """The slots of a meaning representation, in order. Raises ValueError where it is not one.

    >>> parse("name[The Mill], customer rating[5 out of 5]")
    {'name': 'The Mill', 'customer rating': '5 out of 5'}
    """
    slots: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _SLOT.match(text, position)
        if match is None or match[1] in slots:
            raise ValueError(text)
        slots[match[1]] = match[2].strip()
        position = match.end()
    if not slots:
        raise ValueError(text)
    return slots


def share(text: str, salt: str) -> float:
    """A number in [0, 1) that depends on the text alone: what splits go by."""
    digest = hashlib.blake2b(f"e2e {salt} {text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def held_out_names(names: set[str], unseen: float) -> set[str]:
    """The share ``unseen`` of all names (rounded up) whose hash is smallest."""
    ordered = sorted(names, key=lambda name: (share(name, "held-out name"), name))
    return set(ordered[: math.ceil(unseen * len(ordered))])


def split_of(slots: Mapping[str, str], held_out: set[str], validation: float, test: float) -> str:
    """The split of a representation; those that differ in ``name`` and ``near`` alone go together."""
    if {slots.get("name"), slots.get("near")} & held_out:
        return "unseen_names"
    delexicalised = sorted((slot, "" if slot in ("name", "near") else value) for slot, value in slots.items())
    position = share(repr(delexicalised), "split")
    if position < validation:
        return "validation"
    return "test" if position < validation + test else "train"


def documents(config: SourceConfig, path: Path | None) -> Iterator[Document]:
    """The representation and a reference, a line each."""
    for _, row in _selected(config, path):
        yield Document(f"{row['mr']}\n{row['ref']}")


def conversations(config: SourceConfig, path: Path | None) -> Iterator[Conversation]:
    """The user gives a representation, the assistant answers with a reference."""
    for _, row in _selected(config, path):
        yield Conversation((Message("user", row["mr"]), Message("assistant", row["ref"])))


def prompts(config: SourceConfig, path: Path | None) -> Iterator[Prompt]:
    """One prompt a representation; its answer is ``{"mr": slots, "references": [texts]}``."""
    answers: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    texts: dict[tuple[tuple[str, str], ...], str] = {}
    for slots, row in _selected(config, path):
        key = tuple(sorted(slots.items()))
        texts.setdefault(key, row["mr"])
        answers.setdefault(key, {"mr": slots, "references": []})["references"].append(row["ref"])
    for key, answer in answers.items():
        messages = (Message("user", texts[key]),)
        yield Prompt(id=message_hash(messages), messages=messages, answer=answer)


def _selected(config: SourceConfig, path: Path | None) -> list[tuple[dict[str, str], Row]]:
    """Slots and row of everything in the split of the source."""
    options = _options(config)
    split = config.split or "train"
    if split not in SPLITS:
        raise UserError(f"{config.source}: the splits of e2e are {', '.join(SPLITS)}, not {split!r}: choose one")
    pool = [(_slots(row), row) for row in _pool(config, path, options["files"])]
    names = {slots["name"] for slots, _ in pool if "name" in slots}
    held_out = held_out_names(names, options["unseen"])
    chosen = [
        (slots, row)
        for slots, row in pool
        if split_of(slots, held_out, options["validation"], options["test"]) == split
    ]
    if split == "unseen_names" or not held_out:
        return chosen
    # A few references name another restaurant than their representation does.
    pattern = re.compile("|".join(map(re.escape, sorted(held_out))), re.IGNORECASE)
    return [(slots, row) for slots, row in chosen if not pattern.search(row["ref"])]


def _options(config: SourceConfig) -> dict[str, Any]:
    unknown = set(config.options) - set(OPTIONS)
    if unknown:
        raise UserError(f"e2e has no option {min(unknown)!r}: the options are {', '.join(OPTIONS)}")
    options = {**OPTIONS, **config.options}
    shares = [options[name] for name in ("validation", "test", "unseen")]
    if not all(isinstance(value, int | float) and 0 <= value < 1 for value in shares) or sum(shares[:2]) >= 1:
        raise UserError("e2e: validation, test and unseen are shares from 0 to 1, and train needs what is left")
    if not isinstance(options["files"], list):
        raise UserError("e2e: the option files is a list of file names in the folder")
    return options


def _pool(config: SourceConfig, path: Path | None, names: list[str]) -> Iterator[Row]:
    """All rows of all published splits, with our field names."""
    rows: Iterator[Row]
    if path is None:
        hub, part = files.hub_name_and_part(config.source, config.part)
        rows = (row for split in ("train", "validation", "test") for row in files.read_hub(hub, part, split))
    elif path.is_dir():
        absent = [name for name in names if not (path / name).is_file()]
        if absent:
            raise UserError(f"{path} has no {' and no '.join(absent)}: name the files with options: {{files: [...]}}")
        rows = (row for name in names for row in files.read_file(path / name))
    else:
        rows = files.read_path(path)
    for row in rows:
        mapping = config.fields or (_HUB_FIELDS if "mr" not in row and "meaning_representation" in row else {})
        row = apply_map(row, mapping, ours=("mr", "ref"))
        for name in ("mr", "ref"):
            if not isinstance(row.get(name), str):
                raise UserError(
                    f"{row.where}: no text in field {name!r}; the fields are {', '.join(row)}: say which it is with a "
                    f"field map, such as fields: {{{name}: {next(iter(row), 'FIELD')}}}"
                )
        yield row


def _slots(row: Row) -> dict[str, str]:
    try:
        return parse(row["mr"])
    except ValueError:
        raise UserError(
            f"{row.where}: expected a meaning representation such as 'name[The Mill], area[riverside]', found "
            f"{row['mr'][:60]!r}: repair the row"
        ) from None
