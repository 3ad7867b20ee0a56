"""Options that a recipe gives to a part of it, such as a verifier: checked against their model, or one sentence."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trivium.errors import UserError
from trivium.recipe import nearest
from trivium.schema import explain

Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], options: Mapping[str, Any], what: str) -> Model:
    """``options`` as ``model``; UserError that begins with ``what`` and names the first wrong one."""
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        for mistake in error.errors():
            if mistake["type"] == "extra_forbidden" and len(mistake["loc"]) == 1:
                name = str(mistake["loc"][0])
                raise UserError(f"{what}: there is no option {name!r}{hint(name, list(model.model_fields))}") from None
        raise UserError(f"{what}: {explain(error, model, 'the options')}") from None


def hint(name: str, names: Sequence[str]) -> str:
    """What a user may have meant, or may choose from, as the end of a sentence.

    >>> hint("marke", ["marker", "tolerance"]), hint("x", ["marker", "tolerance"])
    (" (did you mean 'marker'?)", '; choose from marker, tolerance')
    """
    return nearest(name, names) or (f"; choose from {', '.join(names)}" if names else "; it has no options")
