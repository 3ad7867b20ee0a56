"""Studies as YAML: the shipped ones and a user's, with overrides of the study and of its recipe."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.errors import UserError
from trivium.recipe import nearest, parse_overrides
from trivium.strict_yaml import noun, parse_yaml

if TYPE_CHECKING:
    from trivium.config import StudyConfig

NAMED = {"arms": "arm", "measures": "measure", "curves": "curve"}
RECIPE = "recipe."  # overrides that begin so are of the recipe


def names() -> list[str]:
    """Names of the shipped studies."""
    folder = resources.files("trivium.studies")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read(name_or_path: str | Path) -> tuple[dict[str, Any], str]:
    """The plain mapping of a study, and a word for where it came from; UserError where there is none."""
    name = str(name_or_path)
    if name in names():
        text, where = (resources.files("trivium.studies") / f"{name}.yaml").read_text(encoding="utf-8"), f"study {name}"
    elif Path(name).is_file():
        try:
            text, where = Path(name).read_text(encoding="utf-8"), name
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{name} cannot be read as a study: {error}") from None
    else:
        if name.endswith((".yaml", ".yml")) or "/" in name:
            raise UserError(f"{name} does not exist; give the YAML file of a study, or one of {', '.join(names())}")
        raise UserError(
            f"unknown study {name!r}{nearest(name, names())}; there are {', '.join(names())}, or give a YAML file"
        )
    values = parse_yaml(text, where)
    if not isinstance(values, dict):
        raise UserError(f"{where}: a study is a mapping with a name, a recipe and arms, this is {noun(values)}")
    return values, where


def load(
    name_or_path: str | Path, overrides: Sequence[str] | Mapping[str, Any] | None = None
) -> "tuple[StudyConfig, dict[str, Any]]":
    """A checked study, and the overrides of its recipe that were given beside it.

    ``budget.tokens=5000`` is of the study; ``recipe.rl.steps=5`` is of the recipe, for all arms, and comes last.

    Raises:
        UserError: no such study, an unknown key, a value of the wrong type.
    """
    values, where = read(name_or_path)
    parsed = parse_overrides(overrides)
    of_recipe = {key.removeprefix(RECIPE): value for key, value in parsed.items() if key.startswith(RECIPE)}
    of_study = {key: value for key, value in parsed.items() if not key.startswith(RECIPE)}
    return check(_put_in(values, of_study, where), where), of_recipe


def check(values: Mapping[str, Any], where: str) -> "StudyConfig":
    """``values`` (plain data) as a study, or a sentence about the first mistake."""
    from pydantic import ValidationError

    from trivium.config import StudyConfig
    from trivium.schema import explain

    try:
        return StudyConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, StudyConfig, 'the study')}") from None


def _put_in(values: dict[str, Any], overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``values`` with ``{"budget.tokens": 5}`` put in.

    What follows ``overrides`` is one key: ``arms.a.overrides.rl.steps`` is the key ``rl.steps`` of these.
    """
    from trivium.config import StudyConfig

    result = copied(values)
    for key, value in overrides.items():
        path = key.split(".")
        if path[0] not in StudyConfig.model_fields:
            known = list(StudyConfig.model_fields)
            raise UserError(
                f"override {key}: {where} has no key {path[0]!r}{nearest(path[0], known)}; "
                f"keys of its recipe begin with {RECIPE}, such as {RECIPE}{key}"
            )
        named = values.get(path[0])
        if path[0] in NAMED and len(path) > 2 and isinstance(named, Mapping) and path[1] not in named:
            raise UserError(
                f"override {key}: {where} has no {NAMED[path[0]]} {path[1]!r}{nearest(path[1], list(named))}; a new "
                f"one is given as a whole, as {path[0]}.{path[1]}={{…}}"
            )
        if "overrides" in path[:-1]:
            cut = path.index("overrides") + 1
            path = [*path[:cut], ".".join(path[cut:])]
        here = result
        for depth, segment in enumerate(path[:-1]):
            if here.get(segment) is None:
                here[segment] = {}
            here = here[segment]
            if not isinstance(here, dict):
                raise UserError(f"override {key}: {'.'.join(path[: depth + 1])} is {noun(here)} and has no keys below")
        here[path[-1]] = value
    return result


def copied(value: Any) -> Any:
    """A copy of plain data in which nothing is shared with ``value``."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value
