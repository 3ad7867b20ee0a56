"""Tasks from files and runs, their slices and priorities, and the command line that asks for them."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tests.web.crowd import Serving, free_port
from tests.web.serving import answers_of, prompt_of

from trivium.data.records import Message
from trivium.errors import UserError
from trivium.feedback.rankings.store import NewTask, Store
from trivium.generation.rollouts import Rollout, write_rollouts
from trivium.text.tokenizer import Tokenizer
from trivium.web.commands import rank
from trivium.web.selection import Selection
from trivium.web.tasks import add_tasks, checkpoint_hash, tasks_of_file, tasks_of_run


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---- a file of answers -----------------------------------------------------------------------------------------------


def test_a_file_of_answers(tmp_path: Path) -> None:
    row = {"prompt": "Hi?", "responses": ["yes", {"text": "no", "model": "m", "sampling": {"temperature": 1}}, "yes"]}
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hm?"}]
    gold = {"messages": messages, "responses": ["a", "b"], "gold": [5, 2], "gold_note": "b is right", "wanted": 3}
    first, second = tasks_of_file(write(tmp_path / "answers.jsonl", row, gold), "helpful", 2)
    assert [response.text for response in first.responses] == ["yes", "no"]
    assert (first.responses[1].model, first.criterion, first.wanted) == ("m", "helpful", 2)
    assert (second.gold, second.gold_note, second.wanted, second.source) == ((1, 0), "b is right", 3, "answers.jsonl")
    assert [message.role for message in second.prompt.messages] == ["system", "user"]
    with Store.open(tmp_path / "rankings.db") as store:
        for _ in range(2):
            assert add_tasks(store, [first, second]) == 2
        assert store.progress().tasks == 2 and len(store.gold_tasks()) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "responses": ["x"]}, "1 different responses"),
        ({"prompt": "a", "responses": ["x", "x"]}, r"1 different responses \(2 with repeats\)"),
        ({"prompt": "a", "responses": [str(n) for n in range(10)]}, "10 different responses"),
        ({"prompt": "a"}, "no field 'responses'"),
        ({"responses": ["x", "y"]}, "no field for the user's message"),
        ({"prompt": "a", "responses": ["x", 3]}, "a response is a text"),
        ({"prompt": "a", "responses": ["x", {"text": "y", "score": 1}]}, "no field 'score'"),
        ({"prompt": "a", "responses": ["x", {"text": "y", "model": 1}]}, "expected str"),
        ({"prompt": "a", "responses": ["x", "y"], "gold": [0]}, "a list of 2"),
        ({"prompt": "a", "responses": ["x", "y"], "gold": [0, -1]}, "fewer than two"),
        ({"prompt": "a", "responses": ["x", "x", "y"], "gold": [0, 1, 2]}, "are equal"),
        ({"prompt": "a", "responses": ["x", "y"], "wanted": 0}, "wanted is 0"),
        ({"prompt": "a", "responses": ["x", "y"], "priority": "high"}, "priority is 'high'"),
    ],
)
def test_a_row_that_is_no_task_is_named(tmp_path: Path, row: dict, said: str) -> None:
    path = write(tmp_path / "answers.jsonl", {"prompt": "ok", "responses": ["x", "y"]}, row)
    with pytest.raises(UserError, match=said) as error:
        list(tasks_of_file(path))
    assert "line 2" in str(error.value)


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        list(tasks_of_file(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="holds no answers"):
        list(tasks_of_file(write(tmp_path / "empty.jsonl")))


# ---- rollouts of a run -----------------------------------------------------------------------------------------------

RECIPE = """\
name: made
stages:
  rl:
    kind: rl
    init: ../model
    prompts: [{source: %s}]
    rewards: {short: {kind: length, options: {target: 5}}}
    sampling: {temperature: 0.7}
"""


def make_run(folder: Path) -> Path:
    """Two steps of rollouts to three prompts: one known to the recipe, one that is not, one answered alike always."""
    run = folder / "made"
    (run / "rl/model").mkdir(parents=True)
    prompts = write(folder / "prompts.jsonl", {"id": "known", "prompt": "As a person reads it?"})
    (run / "recipe.yaml").write_text(RECIPE % prompts)
    tokenizer = Tokenizer.train_bpe(["some text"] * 3, 300)
    tokenizer.save(run / "rl/model")
    for step in range(2):
        rollouts = []
        for group, name in enumerate(("known", "unknown", "same")):
            for number in range(4):
                text = "always" if name == "same" else f"answer {number} of step {step}"
                tokens = tokenizer.encode("What was asked?")
                finish = "length" if number == 3 else "stop"
                rollouts.append(Rollout(name, group, tokens, [1], [0.0], finish, step, text))
        write_rollouts(run / f"rl/rollouts/step-{step + 1:08d}.parquet", rollouts)
    return run


def test_the_rollouts_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    known, unknown = tasks_of_run(run, responses=5)
    assert known.prompt.messages == (Message("user", "As a person reads it?"),)
    assert unknown.prompt.messages == (Message("user", "What was asked?"),)
    assert len({response.text for response in known.responses}) == 5 and known.source == "made/rl"
    response = next(response for response in known.responses if "answer 3" in response.text)
    assert response.finish_reason == "length" and response.sampling["temperature"] == 0.7
    assert {response.metadata["weight_version"] for response in known.responses} == {0, 1}
    assert [known, unknown] == list(tasks_of_run(run, "rl", responses=5))
    assert len(list(tasks_of_run(run, limit=1))) == 1
    (run / "recipe.yaml").unlink()
    (tmp_path / "prompts.jsonl").unlink()
    assert next(iter(tasks_of_run(run))).prompt.messages == (Message("user", "What was asked?"),)


def test_a_run_without_rollouts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run"):
        list(tasks_of_run(tmp_path / "none"))
    with pytest.raises(UserError, match="has no rollouts"):
        list(tasks_of_run(tmp_path))
    run = make_run(tmp_path)
    with pytest.raises(UserError, match="the stages that have some are rl"):
        list(tasks_of_run(run, "sft"))
    for path in run.glob("rl/rollouts/*"):
        path.write_text("no parquet")
    with pytest.raises(UserError, match="no file of rollouts"):
        list(tasks_of_run(run))


def test_the_hash_of_a_checkpoint(tmp_path: Path) -> None:
    assert checkpoint_hash(tmp_path) == ""
    (tmp_path / "model-2.safetensors").write_bytes(b"b")
    sharded = checkpoint_hash(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"a")
    assert checkpoint_hash(tmp_path) == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb" != sharded


# ---- active selection ------------------------------------------------------------------------------------------------


class FakeModel:
    """Disagrees by the number that a response ends with."""

    heads, context_length = 2, 100

    def tokens(self, items: list) -> list[list[int]]:
        return [[0] * len(text) for _, text, _ in items]

    def disagreement(self, items: list) -> torch.Tensor:
        return torch.tensor([float(text.split()[-1]) for _, text, _ in items])

    def normalised(self, items: list) -> torch.Tensor:
        return self.disagreement(items)


def test_what_the_model_is_unsure_of_comes_first_and_a_random_slice_is_kept_apart(tmp_path: Path) -> None:
    new = [NewTask(prompt_of(number), answers_of(number)) for number in range(60)]
    new.append(NewTask(prompt_of(99), answers_of(99), gold=(0, 1, 2)))
    selection = Selection([FakeModel()], random_share=0.3, seed=1)
    with Store.open(tmp_path / "rankings.db") as store:
        add_tasks(store, selection.sliced(new))
        assert selection.judge_store(store) == 61
        tasks = {task.prompt.id: task for task in store.tasks()}
        assert tasks["prompt-7"].priority == 7.0 and tasks["prompt-99"].slice == ""
        random = {task.prompt.id for task in tasks.values() if task.slice == "random"}
        assert 8 <= len(random) <= 28
        store.add_annotator("mira")
        drawn = store.assign("mira", random_share=0.0)
        best = max(number for number in range(60) if f"prompt-{number}" not in random)
        assert drawn and drawn.task.prompt.id in (f"prompt-{best}", "prompt-99")
        store.add_annotator("tom")
        drawn = store.assign("tom", random_share=1.0)
        assert drawn and drawn.task.slice == "random"


def test_tasks_that_were_there_before_the_model_get_their_slices(tmp_path: Path) -> None:
    selection = Selection([FakeModel()], random_share=0.3, seed=1)
    with Store.open(tmp_path / "rankings.db") as store:
        add_tasks(store, [NewTask(prompt_of(number), answers_of(number)) for number in range(60)])
        gold = store.add_task(prompt_of(99), answers_of(99), gold=(0, 1, 2))
        kept = store.add_task(prompt_of(98), answers_of(98), slice="active")
        closed = store.add_task(prompt_of(97), answers_of(97))
        store.close_task(closed)
        assert selection.judge_store(store) == 62
        tasks = {task.id: task for task in store.tasks()}
        assert (tasks.pop(gold).slice, tasks.pop(kept).slice, tasks.pop(closed).slice) == ("", "active", "")
        assert {task.slice for task in tasks.values()} == {"random", "active"}
        assert all(task.slice == selection.slice_of(task.prompt.id) for task in tasks.values())
        Selection([FakeModel()], random_share=0.9, seed=2).judge_store(store)
        assert {task.id: task.slice for task in store.tasks() if task.id in tasks} == {
            name: task.slice for name, task in tasks.items()
        }
        store.add_annotator("mira")
        drawn = store.assign("mira", random_share=1.0)
        assert drawn and drawn.task.slice == "random"


def test_several_models_disagree_with_one_another_and_long_answers_have_no_priority() -> None:
    class Other(FakeModel):
        def normalised(self, items: list) -> torch.Tensor:
            return torch.zeros(len(items))

    selection = Selection([FakeModel(), Other()])
    assert selection.priorities([(prompt_of(4), answers_of(4))]) == [2.0]
    short = (prompt_of(2), answers_of(2))
    long = (prompt_of(2), [*answers_of(2), type(answers_of(2)[0])("x" * 200)])
    assert selection.priorities([long, short]) == [0.0, 1.0]


def test_one_head_has_no_opinion_to_differ_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trivium.feedback.reward_model import RewardModel

    model = FakeModel()
    model.heads = 1
    monkeypatch.setattr(RewardModel, "load", lambda *_: model)
    with pytest.raises(UserError, match="never disagrees with itself"):
        Selection.load([tmp_path])
    assert len(Selection.load([tmp_path, tmp_path]).models) == 2


# ---- the command -----------------------------------------------------------------------------------------------------


def test_annotators_are_added_listed_and_revoked(tmp_path: Path) -> None:
    place = ["--store", str(tmp_path / "rankings.db")]

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(rank, [*arguments, *place], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    link = run("add-annotator", "mira", "--url", "https://rank.example.org/")
    assert link.startswith("https://rank.example.org/enter/")
    run("add-annotator", "ada", "--admin")
    with Store.open(tmp_path) as store:
        person = store.annotator_by_token(link.strip().rpartition("/")[2])
        assert person and (person.name, person.role) == ("mira", "annotator")
    listing = run("annotators")
    assert "mira" in listing and "admin" in listing and link.strip()[-20:] not in listing
    run("revoke", "mira")
    assert "revoked" in run("annotators")
    assert run("new-link", "mira") != link
    with pytest.raises(UserError, match="already"):
        run("add-annotator", "mira")


def test_the_group_serves_by_default() -> None:
    asked = []
    original = rank.commands["serve"].callback
    rank.commands["serve"].callback = lambda **options: asked.append(options)
    try:
        for arguments in ([], ["some/run"], ["--port", "1"], ["serve", "some/run"]):
            assert CliRunner().invoke(rank, arguments).exit_code == 0
    finally:
        rank.commands["serve"].callback = original
    assert [(options["place"], options["port"]) for options in asked] == [
        (None, 8000),
        ("some/run", 8000),
        (None, 1),
        ("some/run", 8000),
    ]
    assert "add-annotator" in CliRunner().invoke(rank, ["--help"]).output


def test_the_server_greets_serves_and_stops(tmp_path: Path) -> None:
    answers = write(tmp_path / "answers.jsonl", {"prompt": "Hi?", "responses": ["a", "b"]})
    log = tmp_path / "log"
    serving = Serving(str(tmp_path / "rankings.db"), free_port(), log, "--answers", str(answers))
    serving.process.send_signal(signal.SIGINT)
    assert serving.process.wait(20) == 0, log.read_text()
    said = log.read_text()
    assert "1 tasks" in said and f"http://127.0.0.1:{serving.port}/enter/" in said and "stopped" in said
    assert "warning" not in said and "Traceback" not in said


def test_a_port_in_use_and_missing_sources(tmp_path: Path) -> None:
    from trivium.web.live import LiveSettings
    from trivium.web.serve import TaskSources, serve
    from trivium.web.settings import ServerSettings

    place = str(tmp_path / "rankings.db")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=r"in use.*--port"):
            serve(place, TaskSources(), ServerSettings(port=taken.getsockname()[1]))
    with pytest.raises(UserError, match="needs --prompts"):
        serve(place, TaskSources(live=LiveSettings("m")), ServerSettings(port=0))
    with pytest.raises(UserError, match="no such file"):
        serve(place, TaskSources(answers=(tmp_path / "x.jsonl",)), ServerSettings(port=0))
    with pytest.raises(UserError, match="cannot be served on"):
        serve(place, TaskSources(), ServerSettings(host="no.such.host.invalid", port=0))


def test_other_machines_are_warned_of(tmp_path: Path) -> None:
    from trivium.web.serve import _greet
    from trivium.web.settings import ServerSettings

    said: list[str] = []
    with Store.open(tmp_path) as store:
        _greet(store, ServerSettings(host="0.0.0.0"), None, said.append)
        _greet(store, ServerSettings(), None, said.append)
    assert "no TLS" in said[0] and sum("/enter/" in line for line in said) == 1
    assert sum("warning" in line for line in said) == 1


def test_the_command_line_loads_nothing_heavy() -> None:
    heavy = ["torch", "fastapi", "sqlalchemy", "uvicorn"]
    script = f"import sys, trivium.web.commands; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
