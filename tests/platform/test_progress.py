import io
from pathlib import Path
from typing import Any

import pytest

from trivium import progress, summary


def test_lines_are_rare_and_quiet_ones_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for quiet, expected in ((False, 3), (True, 0)):
        file = io.StringIO()
        lines = progress.Lines(file, quiet)
        lines.stage("sft", 100, 40)
        for step in range(41, 75):
            now[0] += 1.0
            lines.advance(step, {"loss": 0.5})
        assert len(file.getvalue().splitlines()) == expected
        if not quiet:
            assert file.getvalue().splitlines()[0] == "sft 50/100  1.0/s, 50 s left  loss 0.5"
        lines.note("a sentence")
        lines.finish("sft: done")
        assert file.getvalue().splitlines()[expected:] == ["note: a sentence", "sft: done"]


def test_bars_survive_any_order_of_calls(capsys: pytest.CaptureFixture[str]) -> None:
    bars = progress.Bars()
    bars.advance(3)
    bars.stage("[bold]sft[/bold]", 10)
    bars.advance(4, {"loss": 1.0})
    bars.stage("rl", 0)
    bars.note("file [a] is gone")
    bars.finish("rl: done [b]")
    bars.close()
    bars.close()
    shown = capsys.readouterr().err
    assert "file [a] is gone" in shown and "rl: done [b]" in shown


def test_infra_errors_are_left_out_of_comparisons(tmp_path: Path) -> None:
    from trivium import files, recipe

    config = recipe.load("primer")
    task = next(iter(config.evaluation))

    def write(stage: str, results: list[tuple[str, float, str]]) -> None:
        items: list[dict[str, Any]] = [{"id": i, "score": score, "status": status} for i, score, status in results]
        files.write_json(tmp_path / stage / "evaluation.json", {"tasks": {task: {"results": items}}})

    write("sft", [("a", 0.0, "ok"), ("b", 1.0, "ok"), ("c", 0.0, "infra_error")])
    write("rl", [("a", 1.0, "ok"), ("b", 1.0, "ok"), ("c", 1.0, "ok")])
    value = summary.summarise(config, tmp_path, {"sft": {"seconds": 1.0}, "rl": {"seconds": 2.0}}, {})
    comparison = value["comparisons"][task][0]
    assert (comparison["n"], comparison["difference"]) == (2, 0.5)
    assert value["seconds"] == 3.0


def test_a_stage_tells_greedy_and_sampled_accuracy() -> None:
    from trivium.summary import stage_line

    def numbers(greedy: float, sampled: float | None) -> dict[str, object]:
        task = {"accuracy": greedy, "low": None, "high": None, "sampled_accuracy": sampled}
        return {"steps": 40, "tokens": 1000, "seconds": 2.0, "evaluation": {"sums": task}}

    line = stage_line("majority", numbers(0.868, 0.718), ("crowd", numbers(0.918, 0.649)))
    assert line.endswith("sums 86.8%, -5.0 points over crowd (sampled 71.8%, +6.9)")
    assert stage_line("sft", numbers(0.5, 0.4)).endswith("sums 50.0% (sampled 40.0%)")
    assert stage_line("sft", numbers(0.5, None)).endswith("sums 50.0%")
