"""What a verifier says of a response."""

from dataclasses import dataclass
from typing import Literal, get_args

Status = Literal["ok", "unparseable", "timeout", "infra_error"]
STATUSES: tuple[Status, ...] = get_args(Status)  # from the best to the worst


@dataclass(frozen=True)
class Verdict:
    """``score`` in [0, 1] unless the verifier says otherwise; ``infra_error`` is no score and never counts as zero."""

    score: float
    status: Status = "ok"
    extracted: str | None = None
    detail: str = ""
