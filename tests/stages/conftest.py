"""One finished chain that the tests of the stages compare with, and one of PPO on a learned reward."""

import json
from pathlib import Path

import pytest
import torch
from tests.stages.ppo import everything
from tests.stages.tiny import STAGES, link_models, run_stage

from trivium.model.huggingface import load_model, save_model
from trivium.model.scalar import scalar_decoder
from trivium.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe run without a break by one process: FOLDER/STAGE as in a run directory."""
    folder = tmp_path_factory.mktemp("finished")
    for stage in STAGES:
        run_stage(folder, stage)
    return folder


@pytest.fixture(scope="session")
def judges(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two tiny reward models on the body of the sft model, each with random heads of its own."""
    places = {}
    for number, name in enumerate(("proxy", "held_out")):
        policy, tokenizer = load_model(finished / "sft/model"), Tokenizer.load(finished / "sft/model")
        place = tmp_path_factory.mktemp(name) / "model"
        heads = scalar_decoder(policy, heads=2, generator=torch.Generator().manual_seed(number))
        save_model(heads, place, tokenizer)
        (place / "reward.json").write_text(json.dumps({"mean": [0.1, -0.1], "std": [0.5, 0.7]}))
        places[name] = str(place)
    return places


@pytest.fixture(scope="session")
def ppo(finished: Path, judges: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FOLDER/rl of a run with everything in it and without a break."""
    folder = link_models(finished, tmp_path_factory.mktemp("whole"), "rl")
    run_stage(folder, "rl", everything(judges))
    return folder / "rl"
