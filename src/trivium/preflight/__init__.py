"""What is checked before anything is spent on a run: its directory, data, verifiers and choices."""

from trivium.preflight.dpo import check_dpo
from trivium.preflight.judges import check_judge
from trivium.preflight.prompts import check_prompts
from trivium.preflight.rl import check_rl, watched
from trivium.preflight.run import check_parallel, check_run
from trivium.preflight.sections import check_place, check_section, holds_run
from trivium.preflight.stages import (
    check_audit,
    check_models,
    check_rank,
    check_revise,
    check_reward,
    check_stage,
)

__all__ = [
    "check_audit",
    "check_dpo",
    "check_judge",
    "check_models",
    "check_parallel",
    "check_place",
    "check_prompts",
    "check_rank",
    "check_revise",
    "check_reward",
    "check_rl",
    "check_run",
    "check_section",
    "check_stage",
    "holds_run",
    "watched",
]
