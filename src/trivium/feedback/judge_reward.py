"""A judge's score as a reward, without a reward model between them; and whether its word is to be trusted at all.

H. Lee et al., *RLAIF vs. RLHF*, 2023, arXiv 2309.00267 (direct RLAIF): the expected score, rescaled to [-1, 1].
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trivium.config import JudgeConfig, VerifierConfig
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.judges.audit import no_better_than_chance
from trivium.feedback.judges.base import Answer, Score
from trivium.feedback.verdict import Items, Verdict
from trivium.feedback.verifiers.base import infra_error
from trivium.options import checked

if TYPE_CHECKING:
    import torch

    from trivium.feedback.judges.judge import Judge

JUDGE = "judge"
AUDIT_FILE = "audit.json"


class JudgeOptions(JudgeConfig):
    """Options of the kind ``judge``."""

    audit: str | None = Field(None, description="what measured this judge: a stage of kind audit, or an audit.json")
    trust: bool = Field(False, description="go on although the audit found the judge no better than chance")

    def judge(self) -> JudgeConfig:
        return JudgeConfig.model_validate(self.model_dump(exclude={"audit", "trust"}))


class JudgeReward:
    """One judge that scores responses to prompts whose reference answers it is not shown.

    ``place`` says where the model or file of an earlier stage lies, ``cache`` where finished calls are kept (the
    option ``cache`` wins), ``note`` takes the sentences of ``check_audit``. UserError for a judge that cannot be made
    or is not to be used.
    """

    def __init__(
        self,
        name: str,
        options: JudgeOptions,
        place: Callable[[str], str],
        cache: Path | None,
        seed: int,
        device: "str | torch.device",
        note: Callable[[str], None],
    ) -> None:
        from trivium.feedback.judges.build import build_judge

        self.judge: Judge = build_judge(options.judge(), place=place, cache=cache, seed=seed, device=device)
        try:
            check_audit(name, options, self.judge.name, self.judge.identity, place, note)
        except UserError:
            self.judge.close()
            raise

    def verdicts(self, items: Items) -> list[Verdict]:
        """The expected score of each response, rescaled to [-1, 1]; a missing one is an ``infra_error`` with its
        reason, which is left out of baseline and loss. BudgetSpent (a UserError) keeps the calls that were finished."""
        # of the prompt only what was asked: a judge is not told what would be right
        answers = [Answer(Prompt(prompt.id, prompt.messages), response.text) for prompt, response in items]
        return [_verdict(score) for score in self.judge.score(answers)]

    def usage(self) -> dict[str, Any]:
        return self.judge.usage.as_dict()

    def close(self) -> None:
        self.judge.close()


def _verdict(score: Score) -> Verdict:
    if score.rescaled is None:
        return infra_error(score.missing or "the judge gave no score")
    return Verdict(score.rescaled)


def judge_options(config: VerifierConfig) -> JudgeOptions:
    """The checked options of a part of kind ``judge``; UserError names a wrong one."""
    return checked(JudgeOptions, config.options, "judge")


def check_audit(
    name: str,
    options: JudgeOptions,
    judge: str,
    identity: str,
    place: Callable[[str], str],
    note: Callable[[str], None],
) -> None:
    """Say so where nobody has measured the judge; UserError where its audit found it no better than chance, unless
    the options say to trust it. ``name`` is the part's."""
    if options.audit is None:
        note(
            f"{name}: nobody has measured the judge {judge}; `trivium judge audit` or a stage of kind audit tells how "
            f"far it can be trusted, and options.audit names what they found"
        )
        return
    audit = read_audit(Path(place(options.audit)).expanduser(), name)
    measured = audit["judge"]
    if measured.get("identity") != identity:
        note(
            f"{name}: nobody has measured the judge {judge}; the audit {options.audit} is of another one "
            f"({measured.get('name')}, or the same asked in another way); audit this one"
        )
        return
    asked = audit.get("asked") or {}
    scores = "score" in asked  # a score is the reward, so how well it scores is what counts, where that is known
    if no_better_than_chance({"score": asked["score"]}) if scores else audit["chance"]:
        found = f"{name}: the judge {judge} is no better than chance, says the audit {options.audit}"
        if not options.trust:
            raise UserError(f"{found}; choose another judge or constitution, or set options.trust to true")
        note(f"{found}; it is used since options.trust is true")
    elif asked and not scores:
        note(
            f"{name}: the audit {options.audit} measured how the judge {judge} compares, and its scores are the "
            "reward; an audit with ask: [score] tells what they are worth"
        )


def read_audit(place: Path, name: str) -> Mapping[str, Any]:
    """An audit.json, or that of a folder. UserError where there is none, or something else."""
    path = place / AUDIT_FILE if place.is_dir() else place
    try:
        audit = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{name}: there is no audit {path}; run the audit first, or correct options.audit") from None
    except OSError as error:
        raise UserError(f"{name}: the audit {path} cannot be read ({error.strerror}); run it again") from None
    except ValueError:
        raise UserError(f"{name}: {path} is no JSON; name the audit.json of a stage of kind audit") from None
    found = isinstance(audit, dict) and isinstance(audit.get("judge"), dict) and isinstance(audit.get("chance"), bool)
    if not found:
        raise UserError(f"{name}: {path} is no audit of a judge; name the audit.json of a stage of kind audit")
    return audit
