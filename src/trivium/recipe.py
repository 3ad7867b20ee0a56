"""Recipes: strict YAML, overrides, presets and the text ``trivium recipes show`` prints.

The way of a recipe: YAML text -> plain mapping -> overrides -> ``$name`` paths -> schema (config.py) -> RL presets.
Every mistake on this way is one sentence that names the key, the nearest valid one and where it stood.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.errors import UserError
from trivium.references import MAKES, Reference, references
from trivium.strict_yaml import noun, parse_yaml, write_yaml

if TYPE_CHECKING:
    from trivium.config import RecipeConfig

Overrides = Sequence[str] | Mapping[str, Any] | None

# Where a "$name" of the recipe's `paths` may stand.
PATH_KEYS = ("source", "init", "path")


def nearest(word: str, words: Sequence[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest of ``words``, or an empty string."""
    close = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def names() -> list[str]:
    """Names of the shipped recipes."""
    folder = resources.files("trivium.recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read(name_or_path: str | Path) -> tuple[dict[str, Any], str]:
    """The plain mapping of a recipe, and a word for where it came from.

    A name without a slash and without ``.yaml`` is a shipped recipe; anything else is a file, or a run directory (its
    ``recipe.yaml``).

    Raises:
        UserError: no such recipe or file, broken YAML, or YAML that is no mapping.
    """
    text, where = _read_text(str(name_or_path))
    values = parse_yaml(text, where)
    if not isinstance(values, dict):
        raise UserError(f"{where}: a recipe is a mapping with a name and stages, this is {noun(values)}")
    return values, where


def _read_text(name: str) -> tuple[str, str]:
    if name in names():
        return (resources.files("trivium.recipes") / f"{name}.yaml").read_text(encoding="utf-8"), f"recipe {name}"
    path = Path(name)
    if path.is_dir() and (path / "recipe.yaml").is_file():
        path = path / "recipe.yaml"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as a recipe: {error}") from None
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise UserError(
            f"there is no recipe file {name}; `trivium recipes` lists the shipped ones: {', '.join(names())}"
        )
    raise UserError(
        f"unknown recipe {name!r}{nearest(name, names())}; there are {', '.join(names())}, or give a YAML file"
    )


# ---- overrides -------------------------------------------------------------------------------------------------------


def parse_overrides(overrides: Overrides) -> dict[str, Any]:
    """``["rl.steps=50"]`` or ``{"rl.steps": 50}`` as a mapping of dotted paths to values.

    >>> parse_overrides(["rl.steps=50", "pretrain.data.0.source=a.txt", "rl.optimizer.lr=1e-3"])
    {'rl.steps': 50, 'pretrain.data.0.source': 'a.txt', 'rl.optimizer.lr': 0.001}
    """
    if overrides is None:
        return {}
    if isinstance(overrides, Mapping):
        return dict(overrides)
    parsed: dict[str, Any] = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"override {item!r} is not of the form key=value, such as rl.steps=50")
        key = key.strip()
        if key in parsed:
            raise UserError(f"override {key} is given twice; keep one")
        parsed[key] = parse_yaml(text, f"override {item}")
    return parsed


def apply_overrides(values: dict[str, Any], overrides: Overrides, where: str = "recipe") -> dict[str, Any]:
    """``values`` with the overrides put in; neither argument is changed.

    A first segment that is no key of a recipe is the name of a stage, or else of an evaluation task:
    ``rl.steps`` is ``stages.rl.steps``.
    """
    result = _copy(values)
    for key, value in parse_overrides(overrides).items():
        path = _full_path(key, result, where)
        if path[0] == "stages" and path[2:] == ["preset"]:
            _forget_preset(result["stages"].get(path[1]))
        _put(result, path, value, key)
    return result


def _full_path(key: str, values: dict[str, Any], where: str) -> list[str]:
    from trivium.config import RecipeConfig

    path = key.split(".")
    if path[0] in RecipeConfig.model_fields:
        return path
    sections = {section: list(values.get(section) or {}) for section in ("stages", "evaluation")}
    for section, members in sections.items():
        if path[0] in members:
            return [section, *path]
    known = [*sections["stages"], *sections["evaluation"], *RecipeConfig.model_fields]
    raise UserError(
        f"override {key}: {where} has no key, stage or task {path[0]!r}{nearest(path[0], known)}; "
        f"its stages are {', '.join(sections['stages'])}"
    )


def _put(values: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    """Set ``value`` at ``path``, with mappings made where none stand; a number steps into a list, or appends to it."""
    here: Any = values
    for depth, segment in enumerate(path):
        last = depth == len(path) - 1
        following: Any = {} if last or not path[depth + 1].isdigit() else []
        if isinstance(here, list):
            if not segment.isdigit() or int(segment) > len(here):
                at = ".".join(path[:depth])
                raise UserError(
                    f"override {key}: {at} is a list of {len(here)}, so {segment!r} is no position in it; count from 0"
                )
            index = int(segment)
            if index == len(here):
                here.append(following)
            slot: Any = index
        elif isinstance(here, dict):
            slot = segment
            if not last and here.get(slot) is None:
                here[slot] = following
        else:
            raise UserError(f"override {key}: {'.'.join(path[:depth])} is {noun(here)} and has no keys below it")
        if last:
            here[slot] = value
        else:
            here = here[slot]


def _forget_preset(stage: Any) -> None:
    """Before another preset is put in: forget what the old one had filled in (a resolved recipe spells it out)."""
    if isinstance(stage, dict):
        for key, value in _presets().get(stage.get("preset", "grpo"), {}).items():
            if stage.get(key) == value:
                stage.pop(key, None)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


# ---- paths and presets -----------------------------------------------------------------------------------------------


def substitute_paths(values: dict[str, Any], where: str = "recipe", needed: Sequence[str] = ()) -> dict[str, Any]:
    """Replace ``$name`` and ``$name/rest`` under the keys ``source``, ``init`` and ``path`` by ``paths[name]``.

    The result holds no ``paths`` any more: its sources are the places themselves. ``needed`` names the paths that must
    be used somewhere (those a user has overridden: a value that is accepted and ignored would be a trap).

    >>> substitute_paths({"paths": {"text": "a"}, "stages": {"s": {"data": [{"source": "$text/b.txt"}]}}})
    {'stages': {'s': {'data': [{'source': 'a/b.txt'}]}}}
    """
    paths = values.get("paths") or {}
    if not isinstance(paths, dict):
        raise UserError(f"{where}: paths must be a mapping of names to places, this is {noun(paths)}")
    used: set[str] = set()

    def replace(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: replace(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [replace(item, key) for item in value]
        if key in PATH_KEYS and isinstance(value, str) and value.startswith("$"):
            name, slash, rest = value[1:].partition("/")
            if name not in paths:
                raise UserError(f"{where}: {key} is {value!r}, but paths has no {name!r}{nearest(name, list(paths))}")
            used.add(name)
            return f"{str(paths[name]).rstrip('/') or '/'}{slash}{rest}" if slash else str(paths[name])
        return value

    result: dict[str, Any] = replace({key: value for key, value in values.items() if key != "paths"})
    for name in needed:
        if name not in used:
            hint = nearest(name, sorted(used))
            raise UserError(
                f"{where}: paths.{name} is used by nothing, no source is '${name}'{hint}; override the source itself"
            )
    return result


def _presets() -> Mapping[str, Mapping[str, Any]]:
    from trivium.objectives.presets import PRESETS

    return PRESETS


def _fill_presets(recipe: "RecipeConfig", where: str) -> None:
    """Put the preset's value under every key of an RL stage that the recipe leaves at null."""
    from trivium.config import RLConfig

    for name, stage in recipe.stages.items():
        if not isinstance(stage, RLConfig):
            continue
        for key, value in (_presets()[stage.preset] if stage.preset else {}).items():
            if getattr(stage, key) is None:
                setattr(stage, key, value)
        empty = [
            key
            for key in ("advantage", "ratio", "clipping", "aggregation", "kl", "reference")
            if getattr(stage, key) is None
        ]
        if empty:
            raise UserError(
                f"{where}: stages.{name} has no preset and leaves {', '.join(empty)} at null; name a preset or set them"
            )


# ---- loading ---------------------------------------------------------------------------------------------------------


def load(name_or_path: str | Path, overrides: Overrides = None) -> "RecipeConfig":
    """A resolved recipe: overrides put in, paths replaced, presets filled, every value checked.

    Args:
        name_or_path: a shipped recipe, a YAML file, or a run directory.
        overrides: ``["rl.steps=50"]`` with values in YAML, or ``{"rl.steps": 50}`` with values as they are.

    Raises:
        UserError: an unknown recipe or key, a value of the wrong type, a stage that starts from one that is not there.
    """
    values, where = read(name_or_path)
    parsed = parse_overrides(overrides)
    needed = [key.removeprefix("paths.") for key in parsed if key.startswith("paths.")]
    return resolve(apply_overrides(values, parsed, where), where, needed)


def resolve(
    values: "dict[str, Any] | RecipeConfig", where: str = "recipe", needed: Sequence[str] = ()
) -> "RecipeConfig":
    """A resolved recipe from plain data, or from a configuration object built in Python (which is not changed).

    ``needed``: see ``substitute_paths``.
    """
    plain = values if isinstance(values, dict) else to_dict(values)
    recipe = _validate(substitute_paths(plain, where, needed), where)
    _fill_presets(recipe, where)
    _check_chain(recipe, where)
    return recipe


def _validate(values: dict[str, Any], where: str) -> "RecipeConfig":
    from pydantic import ValidationError

    from trivium.config import RecipeConfig

    try:
        return RecipeConfig.model_validate(_copy(values))
    except ValidationError as error:
        from trivium.schema import explain

        raise UserError(f"{where}: {explain(error)}") from None


def _check_chain(recipe: "RecipeConfig", where: str) -> None:
    """What a stage builds on is an earlier stage that makes it, or lies elsewhere: a directory, a file, a hub name."""
    if not recipe.stages:
        raise UserError(f"{where}: stages is empty; a recipe needs at least one")
    earlier: list[str] = []
    for name, stage in recipe.stages.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise UserError(f"{where}: the stage name {name!r} becomes a folder; use letters, digits, - and _")
        for reference in references(stage.model_dump(mode="json")):
            _check_reference(recipe, reference, f"{where}: stages.{name}.{reference.key}", earlier)
        earlier.append(name)


def _check_reference(recipe: "RecipeConfig", reference: Reference, key: str, earlier: list[str]) -> None:
    name = reference.name
    kinds = MAKES[reference.product]
    if name in earlier:
        kind = recipe.stages[name].kind
        if kind not in kinds:
            raise UserError(f"{key} is {name!r}, a stage of kind {kind}; it needs one of kind {' or '.join(kinds)}")
        return
    if "/" in name or Path(name).exists() or (reference.product in ("rankings", "audit") and "." in name):
        return
    if reference.product == "conversations" and name not in recipe.stages:
        return  # the primer, a file or a hub data set, which has a check of its own
    fitting = [other for other in earlier if recipe.stages[other].kind in kinds]
    problem = "comes later" if name in recipe.stages else f"is no earlier stage{nearest(name, fitting)}"
    others = {"rankings": "a file, a folder or a store", "conversations": "a file", "audit": "a file"}
    instead = others.get(reference.product, "a directory or a hub model")
    raise UserError(f"{key} is {name!r}, which {problem}; name an earlier stage, {instead}")


# ---- writing ---------------------------------------------------------------------------------------------------------


def to_dict(recipe: "RecipeConfig") -> dict[str, Any]:
    """The recipe as plain data, every value in it, in the order of the schema."""
    return recipe.model_dump(mode="json")


def dump(recipe: "RecipeConfig") -> str:
    """The recipe as YAML. Equal recipes give equal text, and the text loads back to an equal recipe."""
    return write_yaml(to_dict(recipe))


def show(name_or_path: str | Path, overrides: Overrides = None) -> str:
    """Every key of a recipe with its value and what it means, as YAML that loads back to the same recipe."""
    from trivium.schema import annotated

    values, where = read(name_or_path)
    values = apply_overrides(values, overrides, where)
    resolve(values, where)  # what cannot run is not shown
    recipe = _validate(values, where)  # with `$name` and `paths` as they were written
    _fill_presets(recipe, where)
    return annotated(recipe)
