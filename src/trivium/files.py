"""Files that are whole or not there: atomic writes, content hashes, the lock of a run directory, a full disk."""

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from trivium.errors import UserError


class InUse(UserError):
    """Another process holds the directory."""


_DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def write_text(path: Path, text: str) -> None:
    """Write ``path`` so that a reader, or a crash at any moment, sees the old text or the new, never a part.

    The text goes into a file beside ``path``, is flushed to the disk and then renamed over it.

    Raises:
        UserError: the disk is full; the old file stands as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        if is_disk_full(error):
            raise disk_full(path) from error
        raise
    with contextlib.suppress(OSError):  # file systems that cannot sync a folder are left alone
        sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """``write_text`` of ``value`` as JSON with two spaces of indent."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in ``path``, or None where there is no such file; broken JSON is a UserError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); move it away, or start in another directory") from None


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error`` says that the disk is full. Libraries in other languages say so only in their message."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return True
    text = str(error)
    return "No space left on device" in text or f"os error {errno.ENOSPC}" in text


def disk_full(path: Path | str | None) -> UserError:
    at = f" while writing {path}" if path else ""
    return UserError(f"the disk is full{at}: make room and give the same command again; what was saved before is whole")


def set_aside(path: Path, base: Path) -> Path:
    """Rename ``path`` to the first free ``BASE-N`` (N from 1) and return the new place. Nothing is deleted.

    >>> set_aside(Path("runs/primer/sft"), Path("runs/primer/old/sft"))  # doctest: +SKIP
    PosixPath('runs/primer/old/sft-1')
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while (target := base.with_name(f"{base.name}-{number}")).exists():
        number += 1
    path.rename(target)
    return target


def sha256(path: Path) -> str:
    """The content hash of one file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[int]:
    """Hold ``directory`` against other processes; the system frees it when the process ends, however it ends.

    Yields the descriptor that holds it: a child that is given it holds the directory too, until both have ended.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        opened = open(directory / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        if is_disk_full(error):
            raise
        raise UserError(f"{directory} cannot be written ({error.strerror}); choose another directory with -d") from None
    with opened as file:
        _take(file, directory)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def _take(file: TextIO, directory: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such lock on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip()
        who = f"process {holder}" if holder else "another process"
        raise InUse(
            f"{directory} is in use by {who}; wait for it to end, or choose another directory with -d"
        ) from None


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder (which makes a rename durable), to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """A full disk, in whatever words a library says it, is one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise disk_full(getattr(error, "filename", None)) from error
        raise


def model_name(place: Path) -> str:
    """What a model directory is called: its own name, or that of its run and stage, RUN-STAGE, where it is ``model``.

    >>> model_name(Path("/runs/primer/rl/model")), model_name(Path("/models/qwen"))
    ('primer-rl', 'qwen')
    """
    place = place.resolve()
    return "-".join(place.parts[-3:-1]) if place.name == "model" and len(place.parts) > 3 else place.name


def no_model(place: Path) -> str | None:
    """What a folder given as a model is instead, where that is known: an adapter, or a whole run."""
    if (place / "config.json").is_file():
        return None
    if (place / "adapter_config.json").is_file():
        merged = place.parent / "model"
        where = f" ({merged})" if (merged / "config.json").is_file() else ""
        return (
            f"{place} holds an adapter, not a whole model; name the model that it was merged into{where}, or open it "
            "with peft"
        )
    if (place / "recipe.yaml").is_file():
        models = sorted(str(found.parent) for found in place.glob("*/model/config.json"))
        instead = f"name one of its models: {', '.join(models)}" if models else "none of its stages has a model yet"
        return f"{place} is a run; {instead}"
    return None
