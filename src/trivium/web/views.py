"""What the templates are given: plain values, made of the store's records. The templates name their contexts."""

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.record import UNRANKED, Ranking, Response

if TYPE_CHECKING:
    from trivium.feedback.rankings.store import Assignment, Progress, Store, Task

LETTERS = string.ascii_uppercase
EXPORTS = ("rankings.jsonl", "pairs.jsonl", "demonstrations.jsonl", "annotators.csv")
_TASKS_SHOWN = 200
_EXCERPT = 120  # characters


def visible(text: str) -> str:
    """Text that a page can hold: what UTF-8 or HTML cannot carry (lone surrogates, NUL) becomes U+FFFD."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").replace("\x00", "\ufffd")


def label(number: int) -> str:
    """A, B, C …; numbers beyond the alphabet, which imported tasks may have."""
    return LETTERS[number] if number < len(LETTERS) else str(number + 1)


def messages(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": visible(message.role), "content": visible(message.content)} for message in prompt.messages]


def blind_answers(assignment: "Assignment") -> list[dict[str, Any]]:
    """Answers in the order shown, named by their places in it: nothing tells which system wrote which, nor where an
    answer stands in the task, whose order may follow the systems."""
    responses = assignment.task.responses
    return [
        {
            "place": place,
            "label": label(place),
            "text": visible(responses[number].text),
            "cut": responses[number].finish_reason == "length",
        }
        for place, number in enumerate(assignment.displayed)
    ]


def form_of(ranking: Ranking, displayed: Sequence[int]) -> dict[str, str]:
    """The fields of the form that would give this ranking, answers shown in this order: to show it for a correction."""
    tiers = [ranking.tiers[number] for number in displayed]
    form = {f"tier-{place}": "" if tier == UNRANKED else str(tier + 1) for place, tier in enumerate(tiers)}
    return form | {
        "all_bad": "on" if ranking.all_bad else "",
        "strength": "" if ranking.strength is None else f"{ranking.strength:g}",
        "note": visible(ranking.note),
        "edited": visible(ranking.edited or ""),
        "edited_from": "" if ranking.edited_from is None else str(list(displayed).index(ranking.edited_from)),
        "flag": visible("; ".join(ranking.flags)),
        "reason": visible(ranking.skipped or ""),
    }


# ---- the admin pages -------------------------------------------------------------------------------------------------


def admin_page(store: "Store", progress: "Progress", agreement: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Progress, agreement, annotators, flags and tasks, as admin.html shows them."""
    people = []
    for annotator in store.annotators():
        work = progress.by_annotator.get(annotator.name)
        row: dict[str, Any] = {
            "name": annotator.name,
            "kind": annotator.kind,
            "role": annotator.role,
            "active": annotator.active,
        }
        row |= {"rankings": 0, "skipped": 0, "gold_right": 0, "gold_pairs": 0, "gold_accuracy": None}
        row |= {"median_seconds": None, "last": ""}
        if work is not None:
            row |= {name: getattr(work, name) for name in ("rankings", "skipped", "gold_pairs", "median_seconds")}
            row["gold_right"] = f"{work.gold_right:g}"
            row["gold_accuracy"] = work.gold_right / work.gold_pairs if work.gold_pairs else None
            row["last"] = clock(work.last)
        people.append(row)
    flags = [flag for flag in store.flags() if not flag.resolved]
    return {
        "progress": {
            "tasks": progress.tasks,
            "done": progress.done,
            "open": progress.open,
            "flagged": progress.flagged,
            "rankings": progress.rankings,
            "leases": progress.live_leases,
        },
        "agreement": agreement,
        "annotators": people,
        "flags": [
            {"task": flag.task, "annotator": flag.annotator, "reason": visible(flag.reason), "time": clock(flag.time)}
            for flag in flags
        ],
        **_task_rows(store.tasks()),
        "exports": EXPORTS,
    }


def _task_rows(tasks: "Iterator[Task]") -> dict[str, Any]:
    """The newest tasks, and how many more there are."""
    rows: list[dict[str, Any]] = []
    count = 0
    for task in tasks:
        count += 1
        asked = task.prompt.messages[-1].content if task.prompt.messages else ""
        row: dict[str, Any] = {
            "id": task.id,
            "prompt": visible(" ".join(asked.split())[:_EXCERPT]),
            "criterion": task.criterion,
        }
        row |= {"status": task.status, "rankings": task.done, "wanted": task.wanted, "slice": task.slice}
        rows.append(row | {"gold": task.gold is not None})
        if len(rows) > 2 * _TASKS_SHOWN:
            del rows[:_TASKS_SHOWN]
    return {"tasks": rows[: -_TASKS_SHOWN - 1 : -1], "tasks_left_out": max(0, count - _TASKS_SHOWN)}


def task_page(task: "Task", rankings: Sequence[Ranking]) -> dict[str, Any]:
    """A task and all that was ever said about it, newest first; letters follow the task's own order."""
    replaced = {ranking.supersedes for ranking in rankings if ranking.supersedes}
    row = {
        name: getattr(task, name)
        for name in ("id", "criterion", "status", "wanted", "priority", "slice", "source", "closed")
    }
    return {
        "task": {**row, "gold": task.gold is not None},
        "messages": messages(task.prompt),
        "answers": [_origin(number, response, task) for number, response in enumerate(task.responses)],
        "history": [_history(ranking, ranking.id in replaced) for ranking in reversed(rankings)],
    }


def _origin(number: int, response: Response, task: "Task") -> dict[str, Any]:
    tier = task.gold[number] if task.gold else UNRANKED
    return {
        "number": number,
        "label": label(number),
        "text": visible(response.text),
        "cut": response.finish_reason == "length",
        "model": visible(response.model),
        "checkpoint": visible(response.checkpoint),
        "gold": None if tier == UNRANKED else tier + 1,
    }


def _history(ranking: Ranking, superseded: bool) -> dict[str, Any]:
    tiers = [[] for _ in range(max(ranking.tiers, default=-1) + 1)]  # type: list[list[str]]
    for number, tier in enumerate(ranking.tiers):
        if tier != UNRANKED:
            tiers[tier].append(label(number))
    return {
        "id": ranking.id,
        "annotator": ranking.annotator,
        "kind": ranking.kind,
        "time": clock(ranking.time),
        "seconds": ranking.seconds,
        "tiers": tiers,
        "unranked": [label(number) for number, tier in enumerate(ranking.tiers) if tier == UNRANKED],
        "shown": [label(number) for number in ranking.displayed],
        "skipped": None if ranking.skipped is None else visible(ranking.skipped),
        "all_bad": ranking.all_bad,
        "flags": [visible(flag) for flag in ranking.flags],
        "note": visible(ranking.note),
        "edited": None if ranking.edited is None else visible(ranking.edited),
        "edited_from": None if ranking.edited_from is None else label(ranking.edited_from),
        "strength": ranking.strength,
        "superseded": superseded,
    }


def clock(time: str) -> str:
    """``2026-03-01T12:30:05.123+00:00`` as people read it."""
    return f"{time[:10]} {time[11:16]} UTC" if len(time) >= 16 else time


# ---- guidelines ------------------------------------------------------------------------------------------------------

GUIDELINES = """\
# What to do

Read the prompt and every answer to its end, then rank the answers: 1 is best. Rank by what a person who wrote this
prompt would want, not by which answer you would have written.

# What counts

- Right before wrong: an answer that states something false is worse than one that says less.
- It does what was asked, all of it, and nothing that was not.
- Clear and no longer than it needs to be. Length by itself is no merit.
- Polite, and safe to follow.

# Ties and gaps

- Two answers that are equally good get the same rank. Do not force an order that you do not see.
- Leave an answer unranked if you cannot judge it. The others still count.
- If no answer is acceptable, mark all as bad; you may rank them all the same.

# When something is wrong

Skip a task that you cannot judge at all and say why. Report a task with personal data, a broken prompt or harmful
content. If you can write a better answer, do: it is kept as an example. A mistake can be corrected with the link to
your last ranking. Some tasks have a known answer; they show us whether these guidelines are clear.
"""


def read_guidelines(path: Path | None) -> list[dict[str, Any]]:
    """The sections of a text file, or of the built-in text. Raises UserError for a file that cannot be read."""
    if path is None:
        return sections(GUIDELINES)
    try:
        return sections(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the guidelines cannot be read ({error}); give a text file in UTF-8") from None


def sections(text: str) -> list[dict[str, Any]]:
    """Sections of a text: lines that begin with # are titles, with - or * items of a list; an empty line ends a
    paragraph. Everything else is text as it stands.

    >>> sections("# One\\nSome\\nwords.\\n\\n- a\\n- b")
    [{'title': 'One', 'blocks': [{'kind': 'text', 'text': 'Some words.'}, {'kind': 'list', 'items': ['a', 'b']}]}]
    """
    found: list[dict[str, Any]] = [{"title": "", "blocks": []}]
    open_block: dict[str, Any] | None = None
    for line in (raw.strip() for raw in text.splitlines()):
        blocks = found[-1]["blocks"]
        if line.startswith("#"):
            found.append({"title": line.lstrip("#").strip(), "blocks": []})
            open_block = None
        elif not line:
            open_block = None
        elif line.startswith(("- ", "* ")):
            if open_block is None or open_block["kind"] != "list":
                open_block = {"kind": "list", "items": []}
                blocks.append(open_block)
            open_block["items"].append(line[2:].strip())
        elif open_block is None:
            open_block = {"kind": "text", "text": line}
            blocks.append(open_block)
        elif open_block["kind"] == "list":
            open_block["items"][-1] += f" {line}"
        else:
            open_block["text"] += f" {line}"
    return [section for section in found if section["title"] or section["blocks"]]


def agreement_rows(rankings: Iterable[Ranking]) -> list[dict[str, Any]]:
    """Agreement by criterion, over tasks that two or more annotators ranked; None for what is undefined."""
    from trivium.feedback.rankings.agreement import agreement_report

    report = agreement_report(rankings)["by_criterion"]
    return [
        {
            "criterion": visible(name),
            "tasks": numbers["tasks"],
            "pairs": numbers["comparisons"],
            "pairwise": _estimate(numbers["agreement"]),
            "tau": _estimate(numbers["tau_b"]),
            "w": _estimate(numbers["w"]),
            "alpha": _estimate(numbers["alpha"]["ordinal"]),
        }
        for name, numbers in report.items()
        if numbers["tasks"]
    ]


def _estimate(interval: Mapping[str, Any] | None) -> float | None:
    return None if interval is None else interval["estimate"]
