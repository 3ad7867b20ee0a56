"""What a verifier says of a response."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "unparseable", "timeout", "infra_error"]


@dataclass(frozen=True)
class Verdict:
    """``score`` in [0, 1] unless the verifier says otherwise; ``infra_error`` is no score and never counts as zero."""

    score: float
    status: Status = "ok"
    extracted: str | None = None
    detail: str = ""
