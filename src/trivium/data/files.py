"""Rows out of files, folders and hub data sets, one at a time, each knowing where it came from.

.txt is one document a file; .jsonl (and .jsonl.gz) one object a line; .json a list of objects, or an object with one
under "data"; .parquet and .csv one row each. Only .txt and .json are read whole.
"""

import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from trivium.errors import UserError

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv")

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
# Words of a file name that count shards, as in train-00000-of-00002.parquet.
_SHARD_WORDS = {"of", "part", "shard", "chunk"}
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?")


class Row(dict[str, Any]):
    """A mapping of fields that remembers its place (``where``) for messages to the user."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        super().__init__(values)
        self.where = where


def split_names(split: str) -> tuple[str, ...]:
    """The names under which a split goes: "validation" is also valid, val and dev."""
    return next((names for names in _SPLIT_NAMES.values() if split in names), (split,))


def data_files(path: Path, split: str | None = None) -> tuple[list[Path], bool]:
    """The files that ``path`` (a file or a folder, searched through) means, and whether their names chose the split.

    Where file names hold split names (``gsm8k_train.jsonl``), ``split`` chooses among the files of a folder, and a
    single file is taken whole if its name says the split; otherwise the rows' own ``split`` field has to choose.
    Several files of a split must be shards of one data set; UserError where their names say otherwise.
    """
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise UserError(f"{path}: this kind of file is not known; the kinds are {', '.join(SUFFIXES)}")
        return [path], split is not None and bool(_words(path.name) & set(split_names(split)))
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
    if not files:
        raise UserError(f"{path} holds no data file; the kinds are {', '.join(SUFFIXES)}")
    if split is None:
        return files, False
    words = {file: _words(str(file.relative_to(path))) for file in files}
    chosen = [file for file in files if words[file] & set(split_names(split))]
    if chosen:
        _check_one_data_set(path, chosen, split)
        return chosen, True
    every = {name for names in _SPLIT_NAMES.values() for name in names}
    if any(words[file] & every for file in files):
        listing = ", ".join(file.name for file in files[:8])
        raise UserError(f"{path} has no file whose name says {split!r}: it holds {listing}; choose another split")
    return files, False


def _check_one_data_set(folder: Path, files: list[Path], split: str) -> None:
    """UserError if files of a split belong to several data sets, as gsm8k_train.jsonl and mawps_train.jsonl do."""
    by_name = {_data_set_name(file.relative_to(folder), split): str(file.relative_to(folder)) for file in files}
    if len(by_name) > 1:
        raise UserError(
            f"{folder}: split {split!r} matches files of {len(by_name)} data sets "
            f"({', '.join(list(by_name.values())[:4])}): name one file as the source, or one source for each"
        )


def _data_set_name(path: Path, split: str) -> tuple[str, ...]:
    """What is left of a path without its split and shard numbers; what lies below a folder of the split is its own.

    >>> _data_set_name(Path("gsm8k_train-00000-of-00002.parquet"), "train")
    ('gsm k', '.parquet')
    >>> _data_set_name(Path("train/moby-dick.txt"), "train")
    ('',)
    """
    names = set(split_names(split))
    last = max(place for place, part in enumerate(path.parts) if _words(part) & names)
    suffix = next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(suffix))
    parts = [part.removesuffix(suffix) if part == path.name else part for part in path.parts[: last + 1]]
    split_words = [re.findall("[a-z]+", part.lower()) for part in parts]
    key = tuple(" ".join(word for word in words if word not in names | _SHARD_WORDS) for words in split_words)
    return (*key, suffix) if last == len(path.parts) - 1 else key


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def read_path(path: Path, split: str | None = None) -> Iterator[Row]:
    """Rows of a file or a folder, those of ``split`` only. Raises UserError where the split cannot be told."""
    files, chosen = data_files(path, split)
    for file in files:
        for row in read_file(file):
            if split is not None and not chosen:
                if "split" not in row:
                    raise UserError(
                        f"{row.where}: split {split!r} was asked for, but there is no field 'split' to choose by: "
                        "leave split out, or name one file a split in a folder (train.jsonl, test.jsonl)"
                    )
                if row["split"] not in split_names(split):
                    continue
            yield row


def read_file(path: Path) -> Iterator[Row]:
    """Rows of one file. Raises UserError with the file and, where there is one, the line of what is wrong."""
    readers = {".txt": _text, ".jsonl": _jsonl, ".json": _json, ".parquet": _parquet, ".csv": _csv}
    name = path.name.removesuffix(".gz")
    reader = readers[name[name.rindex(".") :]]
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the text is not UTF-8 ({error.reason} at byte {error.start}): convert it") from None
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}): check that it is whole and readable") from None


def _open(path: Path) -> IO[str]:
    if path.name.endswith(".gz"):
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig")
    return open(path, encoding="utf-8-sig", newline="" if path.suffix == ".csv" else None)


def _text(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        yield Row({"text": file.read()}, str(path))


def _jsonl(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _object(line, f"{path}, line {number}")


def _object(line: str, where: str) -> Row:
    excerpt = line.strip() if len(line) <= 60 else line.strip()[:60] + "…"
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deep")
        raise UserError(f"{where}: expected one JSON object a line, found {excerpt!r} ({reason}): repair it") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object with fields, found {excerpt!r}: repair the line")
    return Row(value, where)


def _json(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        try:
            value = json.load(file)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}, line {error.lineno}: expected a JSON list of objects ({error.msg}): repair it, or name the "
                "file .jsonl if it holds one object a line"
            ) from None
    if isinstance(value, dict):
        value = value.get("data")
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise UserError(f"{path}: expected a JSON list of objects (or one under 'data'): bring it into that form")
    for number, entry in enumerate(value, 1):
        yield Row(entry, f"{path}, row {number}")


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{path}, row {number}")
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path} is not a parquet file that can be read ({error}): check that it is whole") from None


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses fields of 128 KiB
    with _open(path) as file:
        reader = csv.DictReader(file)
        try:
            for values in reader:
                where = f"{path}, line {reader.line_num}"
                if None in values or None in values.values():
                    columns = len(reader.fieldnames or ())
                    raise UserError(f"{where}: expected {columns} columns as in the header: repair the line")
                yield Row(values, where)
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: expected a line of CSV ({error}): repair it") from None


def looks_like_hub_name(source: str) -> bool:
    """Whether a source that is no file here may be a hub data set: NAME, OWNER/NAME or OWNER/NAME:PART, no suffix."""
    return bool(_HUB_NAME.fullmatch(source)) and not source.endswith(SUFFIXES)


def hub_name_and_part(source: str, part: str | None) -> tuple[str, str | None]:
    """The data set and its part; ``part`` wins over one that the source names.

    >>> hub_name_and_part("openai/gsm8k:main", None)
    ('openai/gsm8k', 'main')
    """
    name, _, own = source.partition(":")
    return name, part or own or None


def read_hub(name: str, part: str | None, split: str) -> Iterator[Row]:
    """Rows of a hub data set, streamed. Raises UserError where the hub cannot be reached or lacks it."""
    try:
        for number, values in enumerate(_stream(name, part, split), 1):
            yield Row(values, f"{name} ({split}), row {number}")
    except UserError:
        raise
    except Exception as error:  # network, authorisation, unknown names: one remedy for all
        reason = str(error).strip().split("\n")[0][:200]
        raise UserError(
            f"{name} is no file or folder here, and as a hub data set (part {part}, split {split}) it cannot be read "
            f"({type(error).__name__}: {reason}); check name, part, split and connection, or give a local path"
        ) from None


def _stream(name: str, part: str | None, split: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, part, split=split, streaming=True)
    except (RuntimeError, ValueError) as error:
        # Data sets that came as a script: the hub keeps a converted copy beside them.
        if "script" not in str(error):
            raise
        return datasets.load_dataset(name, part, split=split, streaming=True, revision="refs/convert/parquet")
