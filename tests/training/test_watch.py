"""The watch: series made by hand, the decision known beforehand."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.config import WatchConfig
from trivium.training.watch import Watch

NAN = float("nan")


def watched(
    proxy: list[float | None], judged: list[float | None], judge: str | None = "held_out", **config: Any
) -> tuple[Watch, list[bool], list[bool]]:
    """A watch after a series, a step apart by 10; for each observation whether it was best, and whether to stop."""
    errors = config.pop("errors", None)
    kls = config.pop("kls", None)
    watch = Watch(WatchConfig(**config), judge)
    best, stopped = [], []
    for i, (p, j) in enumerate(zip(proxy, judged, strict=True)):
        values: dict[str, float | None] = {"proxy": p, "kl": kls[i] if kls else 0.1 * i, "length": 20.0}
        if judge:
            values[judge] = j
            values |= {f"{judge}_se": errors} if errors else {}
        watch.observe(10 * i, values)
        best.append(watch.is_best)
        stopped.append(bool(watch.reason))
    return watch, best, stopped


def test_a_judge_that_falls_while_the_proxy_rises_stops_after_patience() -> None:
    watch, best, stopped = watched([0, 1, 2, 3, 4, 5], [0.0, 0.4, 0.5, 0.4, 0.3, 0.1], patience=3)
    assert best == [True, True, True, False, False, False]
    assert stopped == [False] * 5 + [True]
    assert watch.best_step == 20
    assert watch.reason == (
        "held-out score 0.1 at step 50 is 0.4 below its best (0.5 at step 20) while the proxy rose from 2 to 5"
    )


def test_both_rising_or_both_falling_goes_on() -> None:
    assert not any(watched([0, 1, 2, 3], [0, 1, 2, 3], patience=1)[2])
    assert not any(watched([3, 2, 1, 0], [3, 2, 1, 0], patience=1)[2])


def test_a_fall_within_its_noise_is_none() -> None:
    # The noise of the difference of two scores with a standard error of 0.1 each is 0.1414.
    assert not any(watched([0, 1, 2], [0.5, 0.36, 0.36], patience=1, errors=0.1)[2])
    assert watched([0, 1, 2], [0.5, 0.35, 0.35], patience=1, errors=0.1)[2] == [False, True, True]


def test_one_recovery_starts_the_count_again() -> None:
    series = [0.5, 0.3, 0.5, 0.3, 0.3]
    assert watched([0, 1, 2, 3, 4], series, patience=2)[2] == [False, False, False, False, True]
    # So does a proxy that is back where it was at the best observation.
    assert watched([0, 1, 0, 1, 1], [0.5, 0.3, 0.3, 0.3, 0.3], patience=2)[2] == [False, False, False, False, True]


def test_missing_and_broken_values_say_nothing() -> None:
    watch, best, stopped = watched([0, 1, 2, NAN, 4], [0.5, None, NAN, 0.1, 0.1], patience=2)
    assert best == [True, False, False, False, False] and not any(stopped)
    assert [entry["held_out"] for entry in watch.observations] == [0.5, None, None, 0.1, 0.1]
    assert watch.observations[3]["proxy"] is None
    # They do not end a row of falling observations either.
    assert watched([0, 1, 2, 3], [0.5, 0.3, None, 0.3], patience=2)[2] == [False, False, False, True]


def test_a_series_that_begins_without_a_judge() -> None:
    watch, best, _ = watched([0, 1, 2], [None, 0.1, 0.0])
    assert best == [False, True, False] and watch.best_step == 10
    watch, best, _ = watched([0, 1], [None, None])
    assert best == [False, False] and watch.best_step is None


def test_of_equal_scores_the_earliest_is_best() -> None:
    assert watched([0, 1, 2], [0.5, 0.5, 0.5])[0].best_step == 0


def test_the_kl_budget_stops_at_once_and_bounds_the_best() -> None:
    watch, best, stopped = watched([0, 1, 2], [0.1, 0.2, 0.9], kls=[0.0, 4.0, 5.5], kl_budget=5.0)
    assert stopped == [False, False, True] and best == [True, True, False]
    assert watch.best_step == 10
    assert watch.reason == "the KL to the reference, 5.5 nats a response at step 20, exceeds the budget of 5"
    assert not any(watched([0, 1], [0, 1], kls=[0.0, NAN], kl_budget=5.0)[2])


def test_without_a_judge_the_last_within_the_budget_is_best() -> None:
    watch, best, stopped = watched([0, 1, 2], [0, 0, 0], judge=None, kls=[0.0, 1.0, 9.0], kl_budget=5.0)
    assert best == [True, True, False] and stopped == [False, False, True]
    assert watch.best_step == 10
    assert not any(watched([0, 1, 2], [0, 0, 0], judge=None, patience=1)[2])


def test_stop_off_keeps_the_best_and_the_budget() -> None:
    watch, _, stopped = watched([0, 1, 2], [0.5, 0.1, 0.0], stop=False, patience=1)
    assert not any(stopped) and watch.best_step == 0
    assert watched([0, 1], [0.5, 0.1], stop=False, kls=[0.0, 9.0], kl_budget=5.0)[2] == [False, True]


def test_gold_judges_and_is_named() -> None:
    watch, _, stopped = watched([0, 1], [0.5, 0.1], judge="gold", patience=1)
    assert stopped[-1] and watch.reason.startswith("gold score 0.1 at step 10")
    with pytest.raises(ValueError, match="judged by"):
        Watch(WatchConfig(), "proxy")


def test_steps_must_rise() -> None:
    watch = Watch(WatchConfig(), None)
    watch.observe(5, {"proxy": 0.0})
    with pytest.raises(ValueError, match="observed after"):
        watch.observe(5, {"proxy": 0.0})


values = st.one_of(st.none(), st.floats(), st.floats(-1, 1))


@given(
    st.lists(st.tuples(values, values, values, values), max_size=12),
    st.integers(0, 12),
    st.sampled_from(["held_out", None]),
)
def test_a_restored_watch_goes_on_as_if_never_stopped(rows: list[tuple[Any, ...]], cut: int, judge: str | None) -> None:
    config = WatchConfig(patience=2, kl_budget=0.8)

    def observe(watch: Watch, start: int, stop: int) -> None:
        for step in range(start, min(stop, len(rows))):
            names = ("proxy", "held_out", "held_out_se", "kl")
            watch.observe(step, dict(zip(names, rows[step], strict=True)))

    whole, first, second = Watch(config, judge), Watch(config, judge), Watch(config, judge)
    observe(whole, 0, len(rows))
    observe(first, 0, cut)
    second.observe(99, {"proxy": 3.0, "held_out": 9.0})  # forgotten by restore
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    observe(second, min(cut, len(rows)), len(rows))
    assert second.state() == whole.state()
    assert (second.reason, second.best_step, second.is_best) == (whole.reason, whole.best_step, whole.is_best)


def test_the_file(tmp_path: Path) -> None:
    watch, _, _ = watched([0, 1], [0.5, 0.1], patience=1)
    watch.write(tmp_path / "watch.json", kept_step=0)
    read = json.loads((tmp_path / "watch.json").read_text())
    assert (read["judge"], read["best_step"], read["kept_step"]) == ("held_out", 0, 0)
    assert read["stopped"] == watch.reason and read["observations"] == watch.observations
    Watch(WatchConfig()).write(tmp_path / "watch.json")
    assert json.loads((tmp_path / "watch.json").read_text())["stopped"] is None
