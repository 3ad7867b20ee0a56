from typing import get_args

import pytest

from trivium.config import RLConfig, SourceConfig, VerifierConfig
from trivium.objectives.presets import PRESETS

# left open by default and for good: the target of an adaptive KL, what has settings of its own
UNSET = {"preset", "kl_target", "critic", "environment", "curriculum", "budget", "lora"}
OPEN = {name for name, field in RLConfig.model_fields.items() if field.default is None} - UNSET


def config(**values: object) -> RLConfig:
    source, reward = SourceConfig(source="primer"), VerifierConfig(kind="primer")
    return RLConfig.model_validate({"prompts": [source], "rewards": {"right": reward}, **values})


def test_there_is_a_preset_for_every_name() -> None:
    assert set(get_args(get_args(RLConfig.model_fields["preset"].annotation)[0])) == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_answers_every_open_question_and_nothing_else(preset: str) -> None:
    assert PRESETS[preset].keys() == OPEN
    filled = config(preset=preset, **PRESETS[preset])
    assert all(getattr(filled, name) == value for name, value in PRESETS[preset].items())


def test_the_published_numbers() -> None:
    """Of the papers the presets name: bounds of the ratio, coefficient of the KL, what is averaged."""
    expected = {
        "grpo": ("group_zscore", "token", "symmetric", 0.2, 0.2, "sequence", "k3"),
        "dr_grpo": ("group_mean", "token", "symmetric", 0.2, 0.2, "constant", "none"),
        "dapo": ("group_zscore", "token", "higher", 0.2, 0.28, "token", "none"),
        "gspo": ("group_zscore", "sequence", "symmetric", 3e-4, 4e-4, "sequence", "none"),
        "rloo": ("leave_one_out", "token", "none", 0.2, 0.2, "constant", "reward"),
        "reinforce++": ("batch_zscore", "token", "symmetric", 0.2, 0.2, "token", "reward"),
        "ppo": ("gae", "token", "symmetric", 0.2, 0.2, "token", "reward"),
    }
    keys = ("advantage", "ratio", "clipping", "clip_low", "clip_high", "aggregation", "kl")
    assert {name: tuple(PRESETS[name][key] for key in keys) for name in expected} == expected
    assert PRESETS["cispo"]["clipping"] == "capped_weight"
    assert PRESETS["dapo"]["overlong"] == "penalty" and PRESETS["dapo"]["resample"]
