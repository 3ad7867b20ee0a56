"""Lineage: what each artifact of a run was made from: what is still valid, and what led where.

``lineage.json`` holds one entry per stage. Its ``fingerprint`` is a hash of everything the stage's weights depend on:
the keys of its configuration that matter, the seed, the primer's settings if it reads the primer, and the content of
its inputs. Equal fingerprints mean that the stage need not run again.
"""

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.files import sha256
from trivium.references import references

if TYPE_CHECKING:
    from trivium.config import RecipeConfig

# Keys that change how a stage is saved and shown, never its weights or metrics.
WITHOUT_EFFECT = ("checkpoint_every", "keep_checkpoints")
# Keys of a judge that change what it costs and how patiently it is asked, never what it answers.
JUDGES_UPKEEP = (
    "budget_tokens",
    "budget_cost",
    "price_input",
    "price_output",
    "concurrency",
    "timeout",
    "retries",
    "key_variable",
    "cache",
)


@dataclass(frozen=True)
class Input:
    """One file that went into an artifact: ``modified`` (ns) and ``bytes`` tell cheaply that it is still the same;
    ``name``: its path in the folder that the configuration names. Or the rankings of a store: ``bytes`` as JSONL,
    ``modified`` 0."""

    role: str  # "model", "rankings", "conversations", "audit", "data" or "code"
    path: str
    sha256: str
    bytes: int
    modified: int
    name: str = ""


class Hasher:
    """Content hashes of input files; one whose size and time of change are as recorded before is not read again."""

    def __init__(self, lineage: Mapping[str, Any] | None = None):
        artifacts = (lineage or {}).get("artifacts", {}).values()
        self.known: dict[tuple[str, int, int], str] = {
            (item["path"], item["bytes"], item["modified"]): item["sha256"]
            for artifact in artifacts
            for item in [*artifact.get("inputs", []), *artifact.get("outputs", [])]
        }

    def files(self, role: str, place: Path) -> list[Input]:
        """The file ``place``, or all files below the folder ``place`` (hidden ones left out), sorted by path."""
        if place.is_file():
            return [self._file(role, place)]
        found = sorted(path for path in place.rglob("*") if path.is_file() and not _hidden(path.relative_to(place)))
        return [self._file(role, path, path.relative_to(place).as_posix()) for path in found]

    def _file(self, role: str, path: Path, name: str = "") -> Input:
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns)
        if key not in self.known:
            self.known[key] = sha256(path)
        return Input(role, str(path), self.known[key], status.st_size, status.st_mtime_ns, name)


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def inputs_of(section: Any, made: Mapping[str, Path], hasher: Hasher) -> list[Input]:
    """Every local file that a stage's configuration (plain data) reads: models and rankings it builds on, its sources,
    a user's code. ``made``: what the earlier stages made, by name. In the order of the keys that name them."""
    found: list[Input] = []
    stores: set[str] = set()
    of_stages: set[int] = set()  # the sources that are stages, whatever folders are called alike
    for reference in sorted(references(section), key=lambda one: one.key) if "kind" in section else ():
        if reference.product == "rankings" and reference.name not in made and (stored := _stored(reference.name)):
            stores.add(reference.name)
            found.append(stored)
            continue
        if reference.product == "conversations" and reference.name not in made:
            continue  # no stage: read below, as every source is
        if reference.name in made and reference.key.endswith(".source"):
            key, number, _ = reference.key.split(".")
            of_stages.add(id(section[key][int(number)]))
        place = made.get(reference.name, Path(reference.name).expanduser())
        place = place / "model" if (place / "model").is_dir() else place
        if place.exists() and reference.product in ("rankings", "conversations", "audit"):
            found += hasher.files(reference.product, place)
        elif place.exists():
            found += [
                item for item in hasher.files("model", place) if item.path.endswith((".safetensors", ".json", ".jinja"))
            ]
    for mapping in _mappings(section):
        source = mapping.get("source") or (mapping.get("path") if "vocabulary_size" in mapping else None)
        if source in stores or id(mapping) in of_stages:
            continue
        if isinstance(source, str) and source != "primer" and (place := Path(source).expanduser()).exists():
            found += hasher.files("data", place)
        laws = mapping.get("constitution")
        if isinstance(laws, str) and (place := Path(laws).expanduser()).is_file():
            found += hasher.files("data", place)
        options = mapping.get("options")
        options = options if isinstance(options, Mapping) else {}
        passages = options.get("documents")
        if mapping.get("kind") == "tools" and isinstance(passages, str) and Path(passages).expanduser().exists():
            found += hasher.files("data", Path(passages).expanduser())
        if mapping.get("kind") == "function":
            code = str(options.get("path", "")).rpartition(":")[0]
            found += [
                item
                for place in _with_helpers(_code_places(code))
                for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))
                for item in hasher.files("code", path)
            ]
    return list(dict.fromkeys(found))


def _stored(source: str) -> Input | None:
    """The rankings in a store, where ``source`` is one: by what they say, not by the bytes of its file. Those change
    with every login and lease, what is still in its journal is not in them, and a server has no file."""
    from trivium.feedback.rankings.sources import shown, store_place

    place = store_place(source)
    if place is None or (isinstance(place, Path) and not place.exists()):
        return None
    from trivium.feedback.rankings.formats.native import line
    from trivium.feedback.rankings.store import Store  # heavy: the database library

    content, size = hashlib.sha256(), 0
    with Store.open(place, create=False) as store:
        for ranking in store.rankings(superseded=True):
            text = f"{line(ranking)}\n".encode()
            content.update(text)
            size += len(text)
    return Input("rankings", shown(source), content.hexdigest(), size, modified=0)


def _code_places(code: str) -> list[Path]:
    """The file or package folder of a user's code (``package.module`` or ``file.py``); nothing of it is imported."""
    if not code:
        return []
    if code.endswith(".py"):
        return [Path(code)] if Path(code).is_file() else []
    top = code.partition(".")[0]
    for folder in [os.getcwd(), *sys.path]:
        for place in (Path(folder) / f"{top}.py", Path(folder) / top):
            if place.is_file() or (place / "__init__.py").is_file():
                return [place]
    return []


def _with_helpers(places: list[Path]) -> list[Path]:
    """``places`` and the files and packages beside them that they import, and those that these do, by their text. What
    is installed is not looked into: beside it lies all else that is."""
    found = list(places)
    if any(part in ("site-packages", "dist-packages") for place in places for part in place.resolve().parts):
        return found
    for place in found:  # grows on the way
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError, OSError):
                continue  # building the verifier says so
            for node in ast.walk(tree):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
                for name in names:
                    top = place.parent / name.partition(".")[0]
                    beside = [one for one in (top.with_suffix(".py"), top) if one.is_file() or any(one.glob("*.py"))]
                    found += [one for one in beside[:1] if one not in found]
    return found


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for key in sorted(value, key=str):
            yield from _mappings(value[key])
    elif isinstance(value, list):
        for item in value:
            yield from _mappings(item)


def relevant(recipe: "RecipeConfig", section: dict[str, Any]) -> dict[str, Any]:
    """The configuration that the outcome of ``section`` (a stage, or the evaluation) depends on, as plain data."""
    values: dict[str, Any] = {
        "seed": recipe.seed,
        "config": _effective({key: v for key, v in section.items() if key not in WITHOUT_EFFECT}),
    }
    if any("primer" in (mapping.get("source"), mapping.get("kind")) for mapping in _mappings(section)):
        values["primer"] = recipe.primer.model_dump(mode="json")
    return values


def _effective(value: Any, judge: bool = False) -> Any:
    """``value`` without what a judge's answers do not depend on: what it may cost, and how patiently it is asked."""
    if isinstance(value, Mapping):
        judge = judge or ("constitution" in value and "model" in value)
        kept = {key: item for key, item in value.items() if not (judge and key in JUDGES_UPKEEP)}
        return {key: _effective(item, key == "options" and value.get("kind") == "judge") for key, item in kept.items()}
    return [_effective(item) for item in value] if isinstance(value, list) else value


def digest(value: Any) -> str:
    """The hash of plain data: equal values give equal hashes whatever the order of their keys."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    ).hexdigest()


def contents(inputs: list[Input]) -> list[tuple[str, str, str]]:
    """What tells ``inputs_of`` one configuration from those of another time: which file has which content. Where a
    folder lies does not matter."""
    return [(item.role, item.name, item.sha256) for item in inputs]


def fingerprint(settings: dict[str, Any], inputs: list[Input]) -> str:
    """One hash for ``relevant`` settings and the ``contents`` of what they name."""
    return digest([settings, contents(inputs)])


def changed(before: Any, after: Any, path: str = "") -> list[str]:
    """What differs between two settings, as ``key: old -> new``.

    >>> changed({"lr": 1, "data": [{"limit": 5}]}, {"lr": 2, "data": [{"limit": 5}]})
    ['lr: 1 -> 2']
    """
    if isinstance(before, dict) and isinstance(after, dict):
        keys = list(dict.fromkeys([*before, *after]))
        return [
            line
            for key in keys
            for line in changed(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for index, (old, new) in pairs for line in changed(old, new, f"{path}.{index}")]
    return [] if before == after else [f"{path}: {before} -> {after}"]


def reason(entry: Mapping[str, Any], settings: dict[str, Any], inputs: list[Input]) -> str:
    """Why a stage with the lineage ``entry`` runs again: a clause for the note that says so."""
    if not entry:
        return "since nothing tells how its files were made"
    differences = changed(entry["settings"], settings)
    if differences:
        more = f" and {len(differences) - 2} more" if len(differences) > 2 else ""
        told = ", ".join(textwrap.shorten(line, 120, placeholder=" …") for line in differences[:2])
        return f"since its settings have changed ({told}{more})"
    known = {item["sha256"] for item in entry["inputs"]}
    fresh = [item.path for item in inputs if item.sha256 not in known]
    return f"since its inputs have changed ({', '.join(fresh[:2]) or 'one is gone, or has another name'})"


def records(inputs: list[Input]) -> list[dict[str, Any]]:
    return [asdict(item) for item in inputs]


# ---- code and machine ------------------------------------------------------------------------------------------------


def code_version() -> dict[str, Any]:
    """The version of the package, and of the git work tree it stands in, if any."""
    folder = Path(__file__).resolve().parent
    commit = _git(folder, "rev-parse", "HEAD")
    dirty = bool(_git(folder, "status", "--porcelain", "--", ".")) if commit else None
    return {"version": _version("trivium"), "commit": commit, "modified": dirty}


def _git(folder: Path, *arguments: str) -> str | None:
    # A package in a site-packages folder inside somebody's repository is not that repository's code.
    if "site-packages" in folder.parts:
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def environment() -> dict[str, Any]:
    """The machine and the versions a reader of the report wants to know."""
    packages = ("torch", "numpy", "tokenizers", "safetensors", "datasets")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "trivium": code_version(),
        "packages": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
