"""What rankings become elsewhere: demonstrations to imitate, pairs, lines of JSON, tables."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from trivium.feedback.rankings.agreement import agreement_report
from trivium.feedback.rankings.formats import native, trl
from trivium.feedback.rankings.grouping import effective
from trivium.feedback.rankings.record import Ranking

# A spreadsheet takes a cell that begins so for a formula; the wide forms are those of East Asian keyboards.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

RANKING_COLUMNS = (
    "ranking", "task", "criterion", "annotator", "kind", "time", "seconds", "prompt", "number", "response", "model",
    "tier", "displayed", "all_bad", "skipped", "flags", "strength", "note", "edited", "edited_from", "supersedes",
)  # fmt: skip
ANNOTATOR_COLUMNS = (
    "annotator", "kind", "rankings", "skipped", "all_bad", "median_seconds", "tie_share", "comparisons", "agreement",
    "ties_half", "strict", "tau_b", "gold_pairs", "gold_right", "gold_tied", "gold_accuracy",
)  # fmt: skip


def demonstrations(
    rankings: Iterable[Ranking], *, edited: bool = True, top: bool = True, ties: bool = True, cut: bool = False
) -> Iterator[dict[str, Any]]:
    """Conversations to fine-tune on, as rows with ``messages`` that ``data.fields.conversation`` reads.

    ``edited``: responses that annotators wrote or improved. ``top``: those of tier 0, unless all are bad; ``ties``:
    also where several share it, all of them. ``cut``: also top responses that were cut off by the length limit, whose
    end nobody saw. The same conversation comes once, by whoever gave it first. ``from`` says ``edited`` or ``top``;
    ``ranking`` and ``annotator`` say whose word it was. Corrected and skipped rankings give none.
    """
    seen: set[tuple[Any, str]] = set()
    for ranking in effective(rankings):
        if ranking.skipped is not None:
            continue
        found = [("edited", ranking.edited)] if edited and ranking.edited is not None else []
        best = [response for response, tier in zip(ranking.responses, ranking.tiers, strict=True) if tier == 0]
        if top and not ranking.all_bad and (ties or len(best) == 1):
            found += [("top", response.text) for response in best if cut or response.finish_reason != "length"]
        for origin, text in found:
            if (ranking.prompt.messages, text) in seen or not text.strip():
                continue
            seen.add((ranking.prompt.messages, text))
            messages = [{"role": message.role, "content": message.content} for message in ranking.prompt.messages]
            yield {
                "messages": [*messages, {"role": "assistant", "content": text}],
                "from": origin,
                "ranking": ranking.with_id().id,
                "annotator": ranking.annotator,
            }


def preference_pairs(rankings: Iterable[Ranking], *, conversational: bool = True) -> Iterator[dict[str, Any]]:
    """Rows for TRL of every strict preference (see ``formats.trl.rows``); corrected rankings give none."""
    return trl.rows(effective(rankings), conversational)


def rankings_jsonl(rankings: Iterable[Ranking]) -> Iterator[str]:
    """The rankings as they are, a line each, corrected ones too: the lossless form."""
    return (f"{native.line(ranking)}\n" for ranking in rankings)


def rankings_csv(rankings: Iterable[Ranking]) -> Iterator[str]:
    """A table for reading: one line a response of a ranking, under RANKING_COLUMNS. Tier -1 is unranked."""
    yield csv_line(RANKING_COLUMNS)
    for ranking in rankings:
        asked = "\n\n".join(f"{message.role}: {message.content}" for message in ranking.prompt.messages)
        place = {number: shown for shown, number in enumerate(ranking.displayed)}
        for number, (response, tier) in enumerate(zip(ranking.responses, ranking.tiers, strict=True)):
            yield csv_line(
                (
                    *(ranking.id, ranking.task, ranking.criterion, ranking.annotator, ranking.kind, ranking.time),
                    *(ranking.seconds, asked, number, response.text, response.model, tier, place.get(number)),
                    *(ranking.all_bad, ranking.skipped, "; ".join(ranking.flags), ranking.strength, ranking.note),
                    *(ranking.edited, ranking.edited_from, ranking.supersedes),
                )
            )


def annotators_csv(rankings: Iterable[Ranking], gold: Mapping[str, Sequence[int]] | None = None) -> Iterator[str]:
    """A line an annotator, under ANNOTATOR_COLUMNS: work, agreement with the others, accuracy against gold."""
    yield csv_line(ANNOTATOR_COLUMNS)
    for name, numbers in agreement_report(rankings, gold)["by_annotator"].items():
        flat = {**numbers, "annotator": name, **{f"gold_{key}": value for key, value in numbers["gold"].items()}}
        yield csv_line([flat[column] for column in ANNOTATOR_COLUMNS])


def csv_line(cells: Iterable[Any]) -> str:
    """A line of CSV. A text that a spreadsheet would take for a formula gets an apostrophe before it.

    Numbers stay numbers: they are ours, and -1 is no formula.

    >>> csv_line(["=1+1", "a, b", -2, None])
    '\\'=1+1,"a, b",-2,\\r\\n'
    """
    line = io.StringIO()
    csv.writer(line).writerow([_harmless(cell) for cell in cells])
    return line.getvalue()


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    cell = cell.encode("utf-8", "surrogatepass").decode("utf-8", "replace")  # half of a surrogate pair, in no file
    return f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA) else cell
