"""RewardBench (Lambert et al., 2024): ``prompt``, ``chosen``, ``rejected`` and ``subset``.

``chosen`` and ``rejected`` are a text each, or lists of texts (the second version): all of one list share a tier. The
prompt's ``task`` is the section that the subset belongs to, or the subset itself if the paper has no section for it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trivium.data.files import Row
from trivium.feedback.rankings.formats import common
from trivium.feedback.rankings.record import Ranking, Response

ABOUT = "RewardBench: prompt, chosen, rejected and the subset they belong to"
OPTIONS: dict[str, Any] = {"annotator": "rewardbench", "criterion": "overall"}

# Lambert et al., 2024, table 1.
SECTIONS = {
    "chat": ("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med"),
    "chat_hard": (
        "mt-bench-hard",
        "llmbar-natural",
        "llmbar-adver-neighbor",
        "llmbar-adver-GPTInst",
        "llmbar-adver-GPTOut",
        "llmbar-adver-manual",
    ),
    "safety": (
        "refusals-dangerous",
        "refusals-offensive",
        "xstest-should-refuse",
        "xstest-should-respond",
        "donotanswer",
    ),
    "reasoning": ("math-prm", "hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"),
}
_SECTION_OF = {subset: section for section, subsets in SECTIONS.items() for subset in subsets}


def recognises(row: Mapping[str, Any]) -> bool:
    return {"prompt", "chosen", "rejected", "subset"} <= set(row)


def read(rows: Iterable[Row], options: Mapping[str, Any]) -> Iterator[Ranking]:
    """One ranking a row."""
    for row in rows:
        subset = common.text(row, "subset")
        answers = [_answers(row, field) for field in ("chosen", "rejected")]
        ranking = Ranking(
            prompt=common.prompt(
                common.required(row, "prompt"),
                row.where,
                task=_SECTION_OF.get(subset, subset),
                metadata={"subset": subset},
            ),
            responses=(*answers[0], *answers[1]),
            tiers=(0,) * len(answers[0]) + (1,) * len(answers[1]),
            annotator=options["annotator"],
            criterion=options["criterion"],
            metadata={} if row.get("id") is None else {"row": row["id"]},
        )
        yield common.checked(ranking, row.where)


def _answers(row: Row, field: str) -> list[Response]:
    value = common.required(row, field)
    texts = common.texts(row, field) if isinstance(value, list) else [common.text(row, field)]
    if not texts:
        common.refuse(row.where, field, "a text, or a list with at least one", value)
    model = row.get(f"{field}_model")
    return [Response(text, model=model if isinstance(model, str) else "") for text in texts]
