"""One finished chain that the tests of the stages compare with."""

from pathlib import Path

import pytest
from tests.stages.tiny import STAGES, run_stage


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe run without a break by one process: FOLDER/STAGE as in a run directory."""
    folder = tmp_path_factory.mktemp("finished")
    for stage in STAGES:
        run_stage(folder, stage)
    return folder
