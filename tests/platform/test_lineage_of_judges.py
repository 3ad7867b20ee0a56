"""What a judge costs, and how patiently it is asked, changes no artifact; what it is asked changes them."""

from pathlib import Path
from typing import Any

import pytest

from trivium import lineage
from trivium.config import RecipeConfig

PROMPTS = [{"source": "primer", "part": "problems"}]


def print_of(options: dict[str, Any]) -> str:
    reward = {"judged": {"kind": "judge", "options": {"model": "m", **options}}}
    recipe = RecipeConfig.model_validate(
        {"name": "r", "stages": {"rl": {"init": "m", "prompts": PROMPTS, "rewards": reward}}}
    )
    section = recipe.stages["rl"].model_dump(mode="json")
    return lineage.fingerprint(lineage.relevant(recipe, section), lineage.inputs_of(section, {}, lineage.Hasher()))


@pytest.mark.parametrize("constitution", [{}, {"constitution": "general"}])
def test_a_larger_budget_is_the_same_stage(constitution: dict[str, Any]) -> None:
    before = print_of(constitution)
    for key, value in (("budget_tokens", 5), ("timeout", 3.0), ("retries", 9), ("cache", "x.db"), ("price_input", 1.0)):
        assert print_of({**constitution, key: value}) == before, key
    for key, value in (("principles", "random"), ("samples", 9), ("temperature", 0.5), ("url", "http://x")):
        assert print_of({**constitution, key: value}) != before, key


def test_another_text_of_a_constitution_is_another_stage(tmp_path: Path) -> None:
    laws = tmp_path / "laws.yaml"
    laws.write_text("principles: [{name: a, question: Good?}]")
    before = print_of({"constitution": str(laws)})
    laws.write_text("principles: [{name: a, question: Better?}]")
    assert print_of({"constitution": str(laws)}) != before
