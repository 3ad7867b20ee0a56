from dataclasses import fields
from pathlib import Path

import pyarrow.parquet as pq

from trivium.generation.rollouts import Rollout, write_rollouts


def rollout(number: int) -> Rollout:
    return Rollout(
        prompt_id=f"p{number}",
        group=number,
        prompt_tokens=[1, 2],
        completion_tokens=[3] * number,
        log_probs=[-0.5] * number,
        finish_reason="stop",
        weight_version=4,
        text="ein Text ✓",
        reward=1.5,
        reward_parts={"correct": 1.0, "short": 0.5},
        extracted=None if number else "7",
        advantage=-0.25,
    )


def test_the_dataclass_is_the_row(tmp_path: Path) -> None:
    rollouts = [rollout(number) for number in range(3)]
    write_rollouts(tmp_path / "rollouts" / "step-1.parquet", rollouts)
    table = pq.read_table(tmp_path / "rollouts" / "step-1.parquet")
    assert table.column_names == [item.name for item in fields(Rollout)]
    rows = [{**row, "reward_parts": dict(row["reward_parts"])} for row in table.to_pylist()]
    assert [Rollout(**row) for row in rows] == rollouts


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "step-1.parquet"
    write_rollouts(path, [rollout(2)])
    first = path.read_bytes()
    write_rollouts(path, [rollout(2)])
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]
