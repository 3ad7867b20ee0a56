"""From a recipe's list, a row of IFEval or a prompt to checked instructions."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from trivium.data.records import Prompt
from trivium.feedback.verifiers.instructions import content, form
from trivium.feedback.verifiers.instructions.base import Instruction
from trivium.schema import explain

_ALL: tuple[type[Instruction], ...] = (
    content.Existence,
    content.Frequency,
    content.ForbiddenWords,
    content.LetterFrequency,
    content.ResponseLanguage,
    content.NumberSentences,
    form.NumberParagraphs,
    content.NumberWords,
    form.NthParagraphFirstWord,
    form.Postscript,
    form.NumberPlaceholders,
    form.NumberBulletLists,
    form.ConstrainedResponse,
    form.NumberHighlightedSections,
    form.MultipleSections,
    form.JsonFormat,
    form.Title,
    form.TwoResponses,
    form.RepeatPrompt,
    content.EndChecker,
    content.Quotation,
    content.CapitalWordFrequency,
    content.EnglishCapital,
    content.EnglishLowercase,
    content.NoComma,
)
INSTRUCTIONS: dict[str, type[Instruction]] = {kind.id: kind for kind in _ALL}
# The part after the colon is enough: no two kinds share it.
_SHORT = {identity.split(":")[1]: identity for identity in INSTRUCTIONS}


def instruction(kind: Any, arguments: Mapping[str, Any]) -> Instruction:
    """The instruction of that name (``punctuation:no_comma`` or ``no_comma``). ValueError says what is wrong.

    Arguments that are None count as absent: tables give every row every column.
    """
    if not isinstance(kind, str):
        raise ValueError(f"the kind of an instruction is a name, not {str(kind)[:40]!r}")
    identity = kind if kind in INSTRUCTIONS else _SHORT.get(kind)
    if identity is None:
        near = difflib.get_close_matches(kind, [*INSTRUCTIONS, *_SHORT], n=1)
        raise ValueError(f"there is no instruction {kind[:60]!r}{f'; did you mean {near[0]!r}' if near else ''}")
    try:
        return INSTRUCTIONS[identity].model_validate({k: v for k, v in arguments.items() if v is not None})
    except ValidationError as error:
        raise ValueError(f"{identity}: {explain(error, INSTRUCTIONS[identity], 'the instruction')}") from None


def from_list(entries: Any) -> list[Instruction]:
    """Instructions of a list of ``{kind: …, option: …}``. ValueError for anything else."""
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise ValueError("instructions are a list of {kind: …, option: …} with at least one entry")
    found = []
    for entry in entries:
        if not isinstance(entry, Mapping) or "kind" not in entry:
            raise ValueError(f"an instruction is {{kind: …, option: …}}, not {str(entry)[:60]!r}")
        found.append(instruction(entry["kind"], {key: value for key, value in entry.items() if key != "kind"}))
    return found


def from_row(row: Mapping[str, Any]) -> list[Instruction]:
    """Instructions of a row in the published form: ``instruction_id_list`` and ``kwargs``, a mapping for each."""
    names, arguments = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(names, list | tuple) or not names:
        raise ValueError("instruction_id_list is not a list of names")
    if not isinstance(arguments, list | tuple) or len(arguments) != len(names):
        raise ValueError(f"kwargs is not a list of {len(names)} mappings, one for each instruction")
    if not all(entry is None or isinstance(entry, Mapping) for entry in arguments):
        raise ValueError("an entry of kwargs is no mapping")
    return [instruction(name, entry or {}) for name, entry in zip(names, arguments, strict=True)]


def of_prompt(prompt: Prompt) -> list[Instruction]:
    """What a prompt asks for: its answer, a row in the published form or a list of ``{kind: …}``, or its metadata.

    ValueError where there is none, or one that is not known.
    """
    answer = prompt.answer
    if isinstance(answer, Mapping):
        return from_row(answer)
    if answer is not None:
        return from_list(answer)
    if "instruction_id_list" in prompt.metadata:
        return from_row(prompt.metadata)
    raise ValueError("the prompt names no instructions: neither its answer nor its fields do")
