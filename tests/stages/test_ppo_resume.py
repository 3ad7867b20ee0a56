"""PPO killed, cut and shared out: the same bits as without a break, and two ranks as one."""

import json
from pathlib import Path

import pytest
from tests.stages.ppo import everything
from tests.stages.test_resume import LAST, PATIENCE, Cut, assert_same_bits, cut, kill_and_repeat, saved
from tests.stages.tiny import link_models, metrics, run_stage, two_processes, write_recipe
from tests.stages.worker import cut_stage

import trivium.stages.rl as rl
from trivium.training import checkpoint

pytestmark = pytest.mark.timeout(3 * PATIENCE)


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    return link_models(finished, tmp_path, "rl")


def test_killed_at_a_random_point_the_command_ends_in_the_same_bits(
    finished: Path, ppo: Path, judges: dict[str, str], tmp_path: Path
) -> None:
    """kill -9 and the same command again: weights, critic, moments, controllers, watch and the kept model."""
    recipe = write_recipe(tmp_path, everything(judges))
    arguments = ["rl", str(recipe), "-d", str(tmp_path / "run"), "-q", f"rl.init={finished / 'sft/model'}"]
    kill_and_repeat(arguments, tmp_path / "run/rl", 9)
    assert_everything_equal(tmp_path / "run/rl", ppo)


def test_cut_anywhere_it_ends_in_the_same_bits(
    place: Path, ppo: Path, judges: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first checkpoint, while one is written, after best weights were saved, and before they are kept."""
    choice = everything(judges)
    for what, where in (
        ((checkpoint, "_write_tensors"), None),
        ((rl.Observer, "_save_best"), None),
        ((checkpoint, "save"), None),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(*what, cut)
            with pytest.raises(Cut):
                run_stage(place, "rl", choice)
        assert saved(place / "rl") is where
    cut_stage(place, "rl", choice)
    assert saved(place / "rl") == 3
    save_best = rl.Observer._save_best
    with monkeypatch.context() as patch:
        patch.setattr(rl.Observer, "_save_best", lambda observer, step: (save_best(observer, step), cut()))
        with pytest.raises(Cut):
            run_stage(place, "rl", choice)
    with monkeypatch.context() as patch:
        patch.setattr(rl.Observer, "install", cut)
        with pytest.raises(Cut):
            run_stage(place, "rl", choice)
    assert saved(place / "rl") == 8
    with monkeypatch.context() as patch:
        patch.setattr(rl.Observer, "summary", cut)
        with pytest.raises(Cut):
            run_stage(place, "rl", choice)
    run_stage(place, "rl", choice)
    assert_everything_equal(place / "rl", ppo)


def assert_everything_equal(stage: Path, other: Path) -> None:
    assert_same_bits(stage, other)
    one, two = (json.loads((folder / LAST / "state.json").read_text())["stage"] for folder in (stage, other))
    assert one == two and one.keys() == {"rewards", "kl", "watch", "alarm"}
    assert (stage / "watch.json").read_text() == (other / "watch.json").read_text()
    assert not (stage / "best").exists()


def test_two_processes_give_what_one_gives(finished: Path, ppo: Path, judges: dict[str, str], tmp_path: Path) -> None:
    """Critic sharded as the policy is; each rank scores its share; cut on the way and ended by one."""
    place = tmp_path / "two"
    link_models(finished, place, "rl")
    choice = tmp_path / "choice.json"
    choice.write_text(json.dumps(everything(judges)))
    two_processes("rl", str(place), f"cut:{choice}")
    assert saved(place / "rl") == 3
    run_stage(place, "rl", everything(judges))
    for expected, found in zip(metrics(ppo), metrics(place / "rl"), strict=True):
        assert found.pop("split") == expected.pop("split")
        for name in ("clip_share", "value_clip_share"):  # a token at the very edge may fall on either side of it
            assert found.pop(name, 0.0) == pytest.approx(expected.pop(name, 0.0), abs=0.02)
        assert found == pytest.approx(expected, rel=2e-3, abs=2e-4)
