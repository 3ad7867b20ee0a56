"""What the checks share."""

from typing import TYPE_CHECKING, Any

from trivium.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from trivium.config import VerifierConfig


def default_of(config: "BaseModel", key: str) -> Any:
    return type(config).model_fields[key].get_default(call_default_factory=True)


def check_weight(part: "VerifierConfig", where: str) -> None:
    if part.weight != 1:
        raise UserError(f"{where}.weight is {part.weight}, but it is in no sum; leave the weight out")
