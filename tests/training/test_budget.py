"""A budget ends a stage with the step that reaches it, and a resumed stage does not go on."""

from pathlib import Path
from typing import Any

import pytest
from tests.generation.tiny import decoder_of
from tests.training.test_loop import TOTAL, run
from tests.training.tiny import make_loop

from trivium.config import BudgetConfig
from trivium.training import checkpoint


@pytest.mark.parametrize(
    ("budget", "steps", "told"),
    [
        # an update is TOTAL tokens: two updates stay below 2 * TOTAL + 1, the third reaches it
        ({"tokens": 2 * TOTAL + 1}, 3, f"the budget of {2 * TOTAL + 1:,} tokens trained on was spent after 3 steps"),
        ({"tokens": 2 * TOTAL}, 2, f"the budget of {2 * TOTAL:,} tokens trained on was spent after 2 steps"),
        ({"seconds": 1e-9}, 1, "the budget of 1e-09 seconds was spent after 1 step"),
        ({"tokens": 100 * TOTAL, "generated": 5}, 5, ""),
    ],
)
def test_what_ends_a_stage(tmp_path: Path, budget: dict[str, Any], steps: int, told: str) -> None:
    loop = make_loop(tmp_path, decoder_of(), steps=5, budget=BudgetConfig(**budget))
    assert len(run(loop)) == steps
    assert loop.stopped == told
    assert loop.summary("loss", {}).get("stopped", "") == told
    again = make_loop(tmp_path, decoder_of(), steps=5, budget=BudgetConfig(**budget))
    assert run(again) == [] and again.stopped == told
    assert checkpoint.latest_step(tmp_path / "checkpoints") == steps


def test_generated_tokens_count_and_are_resumed(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, decoder_of(), steps=5, budget=BudgetConfig(generated=7))
    for _ in loop.steps():
        loop.generated += 3
    assert (loop.done, loop.generated) == (3, 9)
    assert loop.summary("loss", {})["generated"] == 9
    again = make_loop(tmp_path, decoder_of(), steps=5, budget=BudgetConfig(generated=7))
    assert list(again.steps()) == [] and again.generated == 9


def test_the_last_step_needs_no_reason(tmp_path: Path) -> None:
    """A budget that is spent by the last step did not end the stage."""
    loop = make_loop(tmp_path, decoder_of(), steps=2, budget=BudgetConfig(tokens=2 * TOTAL))
    assert len(run(loop)) == 2 and not loop.stopped
