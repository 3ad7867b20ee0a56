"""A look at the first prompts of a stage, for what only prompts can tell: levels, and tests that can be graded."""

from pathlib import Path
from typing import TYPE_CHECKING

from trivium.errors import UserError
from trivium.options import hint

if TYPE_CHECKING:
    from trivium.config import DPOConfig, RecipeConfig, RLConfig, SourceConfig
    from trivium.data.records import Prompt

FIRST = 3  # prompts of each source


def check_labelled_answers(name: str, config: "DPOConfig", recipe: "RecipeConfig") -> None:
    """UserError for labelled answers whose first row has no prompt, completion or label; hub data are not looked at."""
    from trivium.data import sources

    for number, source in enumerate(config.labelled):
        if _at_hand(source):
            try:
                sources.labelled([source.model_copy(update={"limit": 1})], recipe)
            except UserError as error:
                raise UserError(f"stages.{name}.labelled.{number}: {error}") from None


def check_prompts(name: str, config: "RLConfig", recipe: "RecipeConfig") -> None:
    """UserError for prompts without the level that a curriculum goes by, and for some that no program can be graded on.
    Data sets of a hub are not looked at."""
    level = None if config.curriculum is None else config.curriculum.level
    graders = {f"rewards.{key}": part for key, part in config.rewards.items() if part.kind == "code"}
    if level is None and not graders:
        return
    from trivium.data import sources
    from trivium.feedback.verifiers.code import Code

    for number, source in enumerate(config.prompts):
        if not _at_hand(source):
            continue
        few = source.model_copy(update={"limit": min(source.limit or FIRST, FIRST)})
        prompts = sources.prompts([few], recipe)[0]
        where = f"stages.{name}.prompts.{number}"
        for prompt in prompts if level is not None else ():
            _check_level(f"stages.{name}.curriculum.level", str(level), where, prompt)
        for key, part in graders.items():
            verifier = Code.model_validate(part.options)
            try:
                bad = verifier.check_prompts(prompts)
            finally:
                verifier.close()
            if bad:
                raise UserError(
                    f"stages.{name}.{key}: no program can be graded on the first prompts of {where} ({bad[0][1]}); "
                    "give prompts with tests, or another verifier"
                )


def _at_hand(source: "SourceConfig") -> bool:
    from trivium.data.sources import MADE

    return source.source in MADE or Path(source.source).expanduser().exists()


def _check_level(key: str, level: str, where: str, prompt: "Prompt") -> None:
    if level in prompt.metadata:
        return
    known = list(prompt.metadata)
    rest = hint(level, known) if known else "; they have no metadata at all"
    raise UserError(f"{key} is {level!r}, but prompts of {where} have no such metadata{rest}")
