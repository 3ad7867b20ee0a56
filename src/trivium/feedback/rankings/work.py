"""What the store hands out besides rankings: annotators, tasks, assignments, flags, progress."""

from dataclasses import dataclass, field

from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.record import Response


class StoreError(UserError):
    """What the store refuses, as a sentence, and as a ``code`` for programs: ``unknown_task``, ``unknown_assignment``,
    ``unknown_response``, ``unknown_annotator``, ``invalid``, ``conflict``; of the database ``older_schema``,
    ``newer_schema``, ``locked``, ``read_only``, ``not_a_store``, ``unavailable`` (no connection, no driver),
    ``disk_full``."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Annotator:
    name: str
    kind: str  # human, ai or simulated
    role: str  # annotator or admin
    active: bool
    created: str  # UTC, ISO 8601, as are all times here


@dataclass(frozen=True)
class Task:
    """Responses to one prompt, to be ranked under one criterion by ``wanted`` annotators.

    ``done``: annotators whose ranking stands and came through an assignment or from a person (skips do not count).
    ``status``: ``open``; ``flagged``, held back until an admin closes or reopens it; ``done``. ``gold``: the known
    tiers, of a task that checks annotators.
    """

    id: str
    prompt: Prompt
    responses: tuple[Response, ...]
    criterion: str = "overall"
    wanted: int = 1
    priority: float = 0.0
    slice: str = ""
    gold: tuple[int, ...] | None = None
    gold_note: str = ""
    source: str = ""
    status: str = "open"
    done: int = 0
    created: str = ""
    closed: bool = False


@dataclass(frozen=True)
class Assignment:
    """A task in the hands of an annotator. ``displayed``: response numbers in the order to show. ``ranking_id``: the
    ranking that was submitted for it and stands, if any; a corrected one is the last."""

    id: str
    task: Task
    annotator: str
    displayed: tuple[int, ...]
    created: str
    expires: str
    expired: bool = False
    ranking_id: str | None = None


@dataclass(frozen=True)
class Flag:
    ranking: str
    task: str
    annotator: str
    reason: str
    resolved: bool
    time: str


@dataclass(frozen=True)
class Work:
    """What one annotator did. ``gold_pairs``: pairs that gold tasks order and the annotator ranked; ``gold_right`` of
    them were ordered alike, a tie counts half. ``median_seconds``: None where no time was told. ``last``: the time of
    the latest ranking."""

    rankings: int = 0
    skipped: int = 0
    gold_right: float = 0.0
    gold_pairs: int = 0
    median_seconds: float | None = None
    last: str = ""


@dataclass(frozen=True)
class Progress:
    """Counts of the store: tasks by status, rankings that stand, assignments whose lease runs. ``said``: all that was
    ever stored, corrected and skipped ones too; it grows with every ranking."""

    tasks: int
    done: int
    open: int
    flagged: int
    rankings: int
    live_leases: int
    said: int = 0
    by_annotator: dict[str, Work] = field(default_factory=dict)
