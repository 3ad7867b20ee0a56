"""Stages called from Python with configuration objects, without a recipe or a run directory."""

import json
from pathlib import Path
from typing import Any

from tests.stages.tiny import RECIPE

from trivium.config import PretrainConfig, PrimerConfig, RecipeConfig, RLConfig, SFTConfig
from trivium.stages import STAGES, StageContext, run_stage

WORLD = RecipeConfig(name="tiny", threads=1, device="cpu", primer=PrimerConfig(**RECIPE["primer"]), stages={})
SHORT: dict[str, Any] = {"steps": 2, "checkpoint_every": 0, "evaluate_every": 0}


def test_pretrain_sft_and_rl_with_configuration_objects(tmp_path: Path) -> None:
    """Also the context alone is enough: a silent progress, and a directory that is not there yet."""
    pretrain = PretrainConfig(**{**RECIPE["stages"]["pretrain"], **SHORT})
    numbers = run_stage(pretrain, tmp_path / "deep" / "base", recipe=WORLD)
    assert numbers["steps"] == 2 and numbers["tokens"] > 0
    base = tmp_path / "deep" / "base" / "model"

    sft = SFTConfig(**{**RECIPE["stages"]["sft"], **SHORT, "init": str(base)})
    context = StageContext("talks", sft, WORLD, tmp_path / "deep" / "talks")
    assert STAGES["sft"](context)["metric"]["name"] == "loss"

    rl = RLConfig(**{**RECIPE["stages"]["rl"], **SHORT, "init": str(context.directory / "model")})
    assert rl.advantage is None  # the preset is filled in
    numbers = run_stage(rl, tmp_path / "deep" / "rl", recipe=WORLD)
    assert numbers["rollouts"] == 2 * 5 * 3
    lines = (tmp_path / "deep" / "rl" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["step"] == 1
    assert (tmp_path / "deep" / "rl" / "model" / "model.safetensors").is_file()
    assert rl.advantage is None
