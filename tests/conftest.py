"""What all tests share."""

import os
from pathlib import Path

import hypothesis
import pytest

# A shared machine is slow at any moment: no test asserts a time, and the same examples come in every run.
hypothesis.settings.register_profile("trivium", deadline=None, derandomize=True)
hypothesis.settings.load_profile("trivium")

# Before torch is imported anywhere: two test processes on two cores would fight over threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public data sets that stand beside some checkouts; a test that needs them is skipped where they are absent."""
    place = Path(os.environ.get("TRIVIUM_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not place.is_dir():
        pytest.skip(f"the public data sets are not in {place}; TRIVIUM_TEST_DATA names another place")
    return place
