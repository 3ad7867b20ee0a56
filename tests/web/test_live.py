"""Live sampling: a thread beside the server, ahead of the annotators; its failures are seen."""

import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tests.web.serving import TIERS, Person, client_of, prompt_of

from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.store import Store, StoreError
from trivium.model.decoder import Decoder, DecoderConfig
from trivium.model.huggingface import save_model
from trivium.text.tokenizer import Tokenizer
from trivium.web.commands import rank
from trivium.web.live import Answers, LiveSampler, LiveSettings
from trivium.web.serve import TaskSources, serve
from trivium.web.settings import ServerSettings
from trivium.web.tasks import checkpoint_hash


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers with random weights, so that the answers differ."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.train_bpe(["Question 1? Answer 2."] * 3, 300)
    config = DecoderConfig(
        vocabulary_size=tokenizer.vocabulary_size,
        hidden_size=16,
        layers=2,
        heads=2,
        kv_heads=1,
        head_dim=8,
        mlp_size=24,
        context_length=64,
        family="llama",
    )
    decoder = Decoder(config)
    decoder.initialise(torch.Generator().manual_seed(1))
    save_model(decoder, folder, tokenizer)
    return folder


def settings_of(model: Path, **options: Any) -> LiveSettings:
    return LiveSettings(str(model), **{"responses": 3, "max_new_tokens": 6, "ahead": 2, "batch": 2, **options})


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def test_answers_carry_where_they_come_from_and_depend_on_seed_and_prompt_alone(model: Path) -> None:
    prompts = [prompt_of(number) for number in range(3)]
    answers = Answers(settings_of(model))
    together = answers.tasks(prompts, "live")
    assert together[1:2] == answers.tasks(prompts[1:2], "live")
    response = together[0].responses[0]
    assert response.checkpoint == checkpoint_hash(model) and len(response.checkpoint) == 64
    assert response.sampling == {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 6, "seed": 0}
    assert together != Answers(settings_of(model, seed=1)).tasks(prompts, "live")
    assert answers.tasks([Prompt("long", (Message("user", "word " * 200),))], "live") == []


def test_tasks_stay_ahead_of_the_annotator_until_every_prompt_was_asked(model: Path, tmp_path: Path) -> None:
    place = tmp_path / "rankings.db"
    store = Store.open(place)
    token = store.add_annotator("mira")
    live = LiveSampler(store, [prompt_of(number) for number in range(6)], settings_of(model, seconds=0.02))
    with client_of(place, live=live) as client:
        until(lambda: store.progress().open >= 2)
        time.sleep(0.2)
        assert store.progress().open <= 4 and live.status.left >= 2, "it ran away from the annotator"
        mira = Person(client, token)
        done = 0
        while done < live.status.added or live.is_working:
            if "assignment" in client.get("/rank").text and 'name="key"' in client.get("/rank").text:
                mira.submit(**dict(list(TIERS.items())[:2]))
                done += 1
        until(lambda: live.status.state == "finished")
        assert live.status.added + live.status.left_out == 6 and live.status.left == 0
        assert "All done" in client.get("/rank").text
    assert live.thread is not None and not live.thread.is_alive()
    with Store.open(place) as again:
        assert again.progress().rankings == live.status.added


def test_a_restart_does_not_ask_again(model: Path, tmp_path: Path) -> None:
    for count in (2, 3):
        with Store.open(tmp_path) as store:
            live = LiveSampler(store, [prompt_of(n) for n in range(count)], settings_of(model, ahead=9, seconds=0.02))
            live.start()
            until(lambda live=live: live.status.state == "finished")
            live.stop()
            assert live.status.failure == "" and store.progress().tasks == count
            assert live.status.added == (2 if count == 2 else 1)


def test_the_empty_page_says_that_more_comes(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path)
    token = store.add_annotator("mira")
    live = LiveSampler(store, [prompt_of(0)], settings_of(model))
    live.status.left = 1
    monkeypatch.setattr(live, "_keep_ahead", lambda: live.ending.wait(10))
    with client_of(tmp_path, live=live) as client:
        Person(client, token)
        assert client.get("/rank").headers["refresh"] == "5"


def test_a_failure_is_in_the_log_and_on_the_admin_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the <engine> broke")

    monkeypatch.setattr(Answers, "tasks", broken)
    store = Store.open(tmp_path)
    token = store.add_annotator("ada", role="admin")
    live = LiveSampler(store, [prompt_of(0)], settings_of(model))
    with caplog.at_level(logging.ERROR, "trivium.web"), client_of(tmp_path, live=live) as client:
        until(lambda: live.status.state == "failed")
        assert live.status.failure == "RuntimeError: the <engine> broke"
        assert "the <engine> broke" in caplog.text and "Traceback" in caplog.text
        Person(client, token)
        assert "the &lt;engine&gt; broke" in client.get("/admin").text
        assert "refresh" not in client.get("/rank").headers


def test_a_model_that_is_not_there_is_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Store.open(tmp_path) as store:
        live = LiveSampler(store, [prompt_of(0)], LiveSettings(str(tmp_path / "no-model")))
        live.start()
        until(lambda: live.status.state == "failed")
        assert "no-model" in live.status.failure
        live.stop()
    assert "no-model" in caplog.text and "Traceback" not in caplog.text


def test_a_model_that_cannot_answer_is_told_before_anything_is_served(tmp_path: Path, model: Path) -> None:
    (tmp_path / "questions.jsonl").write_text('{"prompt": "Question 1?"}\n')
    scores = tmp_path / "scores"
    shutil.copytree(model, scores)
    config = json.loads((scores / "config.json").read_text())
    config.update(architectures=["LlamaForSequenceClassification"], num_labels=1)
    (scores / "config.json").write_text(json.dumps(config))
    for given, said in ((tmp_path / "no-model", "no-model"), (scores, "is a reward model")):
        sources = TaskSources(live=LiveSettings(str(given)), prompts=tmp_path / "questions.jsonl")
        with pytest.raises(UserError, match=said):
            serve(str(tmp_path / "store"), sources, ServerSettings(port=0))
    assert not (tmp_path / "store").exists()


def test_a_mistyped_command_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(rank, ["anotators"])
    assert result.exit_code != 0 and "did you mean 'annotators'?" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_locked_store_is_waited_for(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path) as store:
        live = LiveSampler(store, [prompt_of(0)], settings_of(model, seconds=0.01))
        refusals = iter(range(3))
        real = live._open

        def sometimes() -> int:
            if next(refusals, None) is not None:
                raise StoreError("locked", "the store is busy")
            return real()

        monkeypatch.setattr(live, "_open", sometimes)
        live.start()
        until(lambda: live.status.state == "finished")
        assert live.status.added == 1
