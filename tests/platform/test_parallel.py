"""Several stages at a time: who waits for whom, and what is left when a stage, a child or the parent ends early."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import trivium
from tests.platform.conftest import RECIPE, FakeStages
from trivium import parallel, progress, recipe
from trivium.errors import UserError
from trivium.schedule import stage_needs, stands_alone, thread_share

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds for what takes one or two on a machine with nothing else to do
Read = Callable[[Path], Any]


@pytest.fixture
def forked(tiny: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny recipe with two branches after pretrain, sft → rl and other, run by fake children."""
    other = {"kind": "sft", "data": [{"source": "primer"}], "init": "pretrain", "steps": 4}
    values = {**RECIPE, "parallel": 2, "stages": {**RECIPE["stages"], "other": other}}
    tiny.write_text(yaml.safe_dump(values, sort_keys=False))
    monkeypatch.setattr(parallel, "COMMAND", (sys.executable, "-m", "tests.platform.fake_child"))
    monkeypatch.syspath_prepend(str(ROOT))  # children are given the path of their parent
    return tiny


def told() -> list[list[str]]:
    return [line.split(maxsplit=4) for line in Path("times.txt").read_text().splitlines()]


def begun() -> list[str]:
    return [line[1] for line in told() if line[0] == "begin"]


def statuses(read: Read) -> dict[str, str]:
    artifacts = read(Path("runs/tiny/lineage.json"))["artifacts"]
    return {name: entry["status"] for name, entry in artifacts.items()}


# ---- which, and with how many threads --------------------------------------------------------------------------------


def test_a_stage_waits_for_what_it_names_and_has_its_share_of_the_threads(forked: Path) -> None:
    config = recipe.load(forked)
    assert stage_needs(config) == {"pretrain": set(), "sft": {"pretrain"}, "rl": {"sft"}, "other": {"pretrain"}}
    assert [name for name in config.stages if stands_alone(config, name)] == ["pretrain"]
    shares = {name: thread_share(config, name, cores=5) for name in config.stages}
    assert shares == {"pretrain": 0, "sft": 2, "rl": 2, "other": 2}  # 5 // 2
    few = recipe.load(forked, ["threads=1", "parallel=3"])
    assert {thread_share(few, name, cores=8) for name in few.stages} == {1}
    alone = recipe.load(forked, ["threads=7", "parallel=1"])
    assert {thread_share(alone, name, cores=8) for name in alone.stages} == {7}


def test_in_the_primer_the_ways_of_feedback_run_side_by_side() -> None:
    config = recipe.load("primer")
    assert stands_alone(config, "pretrain")
    assert not any(stands_alone(config, name) for name in ("rl", "rank", "ppo", "rlaif"))
    assert stage_needs(config)["ppo"] == {"sft", "reward", "reward_held_out"}


def test_parallel_without_two_stages_that_could_is_refused(fake: FakeStages, tiny: Path) -> None:
    with pytest.raises(UserError, match="each stage of tiny needs the one before it, so that no two can run at a time"):
        trivium.run(tiny, ["parallel=2"])
    assert not Path("runs").exists()


# ---- a run -----------------------------------------------------------------------------------------------------------


def test_a_parallel_run_leaves_what_a_run_of_one_process_leaves(
    forked: Path, fake: FakeStages, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sft", "other"):
        Path(f"{name}.do").write_text("meet")
    result = trivium.run(forked)
    order = [(line[0], line[1]) for line in told()]
    assert order[:2] == [("begin", "pretrain"), ("end", "pretrain")]
    assert {order[2], order[3]} == {("begin", "sft"), ("begin", "other")}  # both before either ended
    assert order.index(("begin", "rl")) > order.index(("end", "sft"))
    processes = {line[1]: line[2] for line in told() if line[0] == "begin"}
    assert processes["sft"] != processes["other"] and processes["rl"] in processes.values()
    assert {line[1]: line[3] for line in told() if line[0] == "begin"}["sft"] == "1"  # OMP_NUM_THREADS
    assert [line[4] for line in told() if line[1:2] == ["rl"] and line[0] == "begin"] == ["['sft']"]
    shown = capsys.readouterr().err
    assert "note: sft: a sentence" in shown and "a library prints" in shown
    assert "rl: 3 steps, 12.3k tokens in 2 s" in shown and "+50.0 points over sft" in shown

    one = trivium.run(forked, ["parallel=1"], "runs/one")
    assert fake.calls == ["pretrain", "sft", "rl", "other"]
    assert list(result.summary["stages"]) == list(one.summary["stages"]) == ["pretrain", "sft", "rl", "other"]
    assert result.summary["comparisons"] == one.summary["comparisons"]
    first, second = (read(place / "lineage.json")["artifacts"] for place in (result.directory, one.directory))
    assert list(first) == list(second)
    assert [entry["fingerprint"] for entry in first.values()] == [entry["fingerprint"] for entry in second.values()]
    for name in first:
        for file in ("model/model.safetensors", "evaluation.json"):
            assert (result.directory / name / file).read_bytes() == (one.directory / name / file).read_bytes()


def test_again_starts_no_process(
    forked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trivium.run(forked)
    monkeypatch.setattr(parallel, "COMMAND", ("/there/is/no/such/program",))
    trivium.run(forked)
    assert capsys.readouterr().err.count("finished before, nothing it depends on has changed") == 4


def test_chosen_stages_alone(forked: Path, read: Read) -> None:
    trivium.run(forked, stages=["pretrain"])
    trivium.run(forked, stages=["other", "sft"])
    assert sorted(begun()) == ["other", "pretrain", "sft"]
    assert statuses(read) == dict.fromkeys(("pretrain", "sft", "other"), "finished")


# ---- what ends early -------------------------------------------------------------------------------------------------


def test_a_users_mistake_is_one_sentence_and_the_others_save(forked: Path, read: Read) -> None:
    Path("sft.do").write_text("fail")
    Path("other.do").write_text("wait")
    with pytest.raises(UserError, match=r"^the text is empty; write one$"):
        trivium.run(forked)
    assert Path("runs/tiny/other/checkpoints").is_dir()
    assert "rl" not in begun()
    assert statuses(read) == {"pretrain": "finished", "sft": "started", "other": "started"}
    for name in ("sft", "other"):
        Path(f"{name}.do").unlink()
    trivium.run(forked)
    assert set(statuses(read).values()) == {"finished"}
    assert begun().count("pretrain") == 1


def test_a_bug_comes_with_its_traceback(forked: Path) -> None:
    Path("other.do").write_text("bug")
    with pytest.raises(RuntimeError, match=r"stage other failed in its process:\nTraceback(.|\n)*a bug of ours"):
        trivium.run(forked)


def test_a_killed_child_is_a_sentence_and_the_same_command_goes_on(forked: Path, read: Read) -> None:
    Path("sft.do").write_text("die")
    with pytest.raises(UserError, match=r"process of stage sft was ended by signal 9 \(SIGKILL\)"):
        trivium.run(forked)
    Path("sft.do").unlink()
    trivium.run(forked)
    assert set(statuses(read).values()) == {"finished"}


def start(forked: Path) -> "subprocess.Popen[str]":
    """A real process that runs the recipe; both branches are at work once this returns."""
    for name in ("sft", "other"):
        Path(f"{name}.do").write_text("wait")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.platform.fake_run", "run", str(forked)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: (Path("times.txt").exists() and len(begun()) == 3) or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    return process


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < end:
        time.sleep(0.02)


def children() -> list[int]:
    return [int(line[2]) for line in told() if line[0] == "begin"]


def alive(process: int) -> bool:
    """Whether it computes still: one that has ended and is waited for by nobody does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def test_ctrl_c_lets_every_stage_save(forked: Path, read: Read) -> None:
    process = start(forked)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 130 and "resumes" in output and "Traceback" not in output, output
    assert Path("runs/tiny/sft/checkpoints").is_dir() and Path("runs/tiny/other/checkpoints").is_dir()
    assert not any(map(alive, children()))
    for name in ("sft", "other"):
        Path(f"{name}.do").unlink()
    trivium.run(forked)
    assert set(statuses(read).values()) == {"finished"}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_file_of_the_working_directory_is_no_part_of_a_child(tmp_path: Path) -> None:
    """A child is a module that Python runs, which without -P would take a queue.py from here for the library's."""
    (tmp_path / "queue.py").write_text("raise SystemExit('not the library')\n")
    found = subprocess.run(
        [*parallel.COMMAND, str(tmp_path)],
        cwd=tmp_path,
        input='{"do": "end"}\n',
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert found.returncode == 0, found.stderr


def test_children_end_with_a_parent_that_is_killed(forked: Path, read: Read) -> None:
    process = start(forked)
    assert sum(map(alive, children())) >= 2
    process.kill()
    process.communicate()
    wait_until(lambda: not any(map(alive, children())))
    assert not any(map(alive, children()))
    for name in ("sft", "other"):
        Path(f"{name}.do").unlink()
    trivium.run(forked)  # nobody holds the directory
    assert set(statuses(read).values()) == {"finished"}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_without_the_kernels_help_the_pipe_tells_that_the_parent_is_gone(tmp_path: Path) -> None:
    script = "from trivium import child\nchild.on_death = lambda number: None\nchild.main()"
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    time.sleep(0.5)
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(timeout=PATIENCE) == 1


def test_a_child_holds_the_run_directory(forked: Path) -> None:
    """What a parent that was killed leaves for a moment cannot meet the next run."""
    from trivium import files

    with files.lock(Path("held")) as descriptor:
        process = parallel.Process(Path("held"), 1, descriptor)
    try:
        with pytest.raises(UserError, match="is in use"), files.lock(Path("held")):
            pass
    finally:
        process.end()
    with files.lock(Path("held")):
        pass


# ---- progress --------------------------------------------------------------------------------------------------------


def test_bars_stand_side_by_side() -> None:
    bars = progress.Bars()
    one, two = bars.part(), bars.part()
    one.stage("sft", 10)
    two.stage("rl", 10)
    assert [task.description for task in bars.bars.tasks] == ["sft", "rl"]
    one.finish("sft: done")
    assert [task.description for task in bars.bars.tasks] == ["rl"] and bars.bars.live.is_started
    two.close()
    assert not bars.bars.tasks and not bars.bars.live.is_started


def test_a_process_that_is_killed_in_the_midst_of_a_word_has_ended_without_one() -> None:
    process = parallel.Process.__new__(parallel.Process)
    process._stdin, process._stdout = io.StringIO(), io.StringIO('{"note": "a"}\n{"done": {"metr')
    assert list(process.order({"do": "train"})) == [{"note": "a"}]
    assert process.busy
