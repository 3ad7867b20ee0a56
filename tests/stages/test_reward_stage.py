"""The reward stage on a tiny model: what it leaves, that cuts and kills change nothing, and what it refuses."""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.stages.test_resume import PATIENCE, kill_and_repeat
from tests.stages.tiny import RECIPE, metrics, two_processes, write_recipe

import trivium.stages.reward as stage
from trivium.config import PrimerConfig, RankingSourceConfig, RecipeConfig, RewardConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.formats.native import write_rankings
from trivium.feedback.rankings.record import Ranking, Response, dense_tiers
from trivium.feedback.rankings.sources import read_rankings
from trivium.feedback.reward_model import RewardModel
from trivium.model.decoder import Decoder, DecoderConfig
from trivium.model.huggingface import load_model, save_model
from trivium.stages import StageContext, run_stage
from trivium.streams import generator
from trivium.text.tokenizer import Tokenizer
from trivium.training import checkpoint
from trivium.training.reward import RankedTask, Update, group_tasks, head_weights, split_tasks, task_scores, tokenise

pytestmark = pytest.mark.timeout(3 * PATIENCE)
WORLD = RecipeConfig(name="tiny", threads=1, device="cpu", primer=PrimerConfig(**RECIPE["primer"]), stages={})
SETTINGS: dict[str, Any] = {
    "steps": 8,
    "checkpoint_every": 3,
    "evaluate_every": 4,
    "log_every": 1,
    "schedule": {"warmup": 2},
    "batch_size": 6,
    "micro_batch_tokens": 200,
    "heads": 2,
    "validation_share": 0.2,
    "test_share": 0.3,
    "optimizer": {"lr": 3e-3},
}

ASKED: dict[str, Any] = {
    "prompts": [{"source": "primer", "part": "problems", "split": "validation"}],
    "prompt_limit": 4,
    "samples": 4,
    "sampling": {"max_new_tokens": 8},
    "gold": {"kind": "length", "options": {"target": 3}},
}


def rankings(number: int = 40) -> list[Ranking]:
    """Two annotators who like short answers, with ties, unranked responses, a cut answer and a skipped task."""
    made = []
    for task in range(number):
        draw = generator(5, "test/rankings", task)
        prompt = Prompt(f"p{task}", (Message("user", f"what is {task} + 1?"),))
        texts = ["a" * (1 + int(draw.integers(9))) + f" {task}" for _ in range(2 + task % 3)]
        responses = tuple(Response(text, finish_reason="length" if task % 7 == 0 else "stop") for text in texts)
        for who in ("ann", "bob"):
            tiers = [len(text) // (2 if who == "bob" else 1) for text in texts]
            if task % 5 == 0 and len(texts) > 2:
                tiers[-1] = -1
            made.append(Ranking(prompt, responses, dense_tiers(tiers), who, strength=1.0 + task % 3))
    skipped = Ranking(made[0].prompt, made[0].responses, (-1,) * len(made[0].responses), "eve", skipped="unclear")
    return [*made, skipped]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rankings") / "rankings.jsonl"
    write_rankings(path, rankings())
    return path


def config(finished: Path, source: Path, **changes: Any) -> RewardConfig:
    values = SETTINGS | {"init": str(finished / "sft/model"), "rankings": [{"source": str(source)}]} | changes
    return RewardConfig(**values)


@pytest.fixture(scope="module")
def done(finished: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage run without a break, with prompts for the statistics and a gold score for best-of-n."""
    place = tmp_path_factory.mktemp("reward") / "reward"
    run_stage(config(finished, source, **ASKED), place, recipe=WORLD)
    return place


def test_it_leaves_a_model_that_scores_and_the_numbers_about_it(done: Path) -> None:
    decoder = load_model(done / "model")
    assert decoder.config.scalar_heads == 2
    told = json.loads((done / "evaluation.json").read_text())
    assert told["stage"] == "reward" and told["kind"] == "reward"
    assert {"n", "accuracy", "low", "high", "log_loss", "ece", "length_accuracy", "difference", "tau_b"} <= set(
        told["pairs"]
    )
    assert 0 <= told["pairs"]["low"] <= told["pairs"]["accuracy"] <= told["pairs"]["high"] <= 1
    assert told["pairs"]["length_accuracy"] == 1.0 and told["baseline"] == "shorter"
    assert told["ceiling"]["overall"]["accuracy"] > 0.9 and set(told["by_criterion"]) == {"overall"}
    assert told["policy"]["prompts"] == 4 and told["policy"]["samples"] == 16
    assert told["best_of_n"]["n"] == [1, 2, 4]
    about = json.loads((done / "model/reward.json").read_text())
    assert about == {**told["normalisation"], "criterion": "overall", "rankings": 80, "heads": 2}
    lines = metrics(done)
    assert [line["step"] for line in lines if line["split"] == "train"] == list(range(1, 9))
    assert [line["step"] for line in lines if line["split"] == "validation"] == [4, 8]
    assert all({"loss", "pair_accuracy", "score_gap"} <= line.keys() for line in lines)


def test_it_learns_and_the_statistics_are_those_of_the_policy(done: Path, finished: Path, source: Path) -> None:
    losses = [line["loss"] for line in metrics(done) if line["split"] == "validation"]
    assert losses[1] < losses[0]
    model = RewardModel.load(done / "model")
    assert model.std.min() > 0 and model.mean.shape == (2,)
    summary = run_stage(config(finished, source, steps=60, heads=1), done.parent / "longer", recipe=WORLD)
    assert summary["metric"]["name"] == "pair_accuracy" and summary["metric"]["value"] > 0.8
    assert summary["rankings"] == 80 and summary["tasks"] == 40 and summary["too_long"] == 0
    told = json.loads((done.parent / "longer/evaluation.json").read_text())
    assert told["policy"] is None and told["best_of_n"] is None


def test_transformers_gives_the_same_scores(done: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = RewardModel.load(done / "model")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(done / "model").eval()
    items = [((Message("user", question),), "aa" * size, size % 2 == 0) for size, question in enumerate("abcde")]
    tokens = model.tokens(items)
    batch = [torch.tensor(ids) for ids in tokens]
    padded = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=theirs.config.pad_token_id)
    mask = torch.arange(padded.shape[1])[None] < torch.tensor([len(ids) for ids in tokens])[:, None]
    with torch.no_grad():
        expected = theirs(input_ids=padded, attention_mask=mask.long()).logits
    torch.testing.assert_close(model.score(items), expected, rtol=0, atol=1e-5)
    normal = (expected - model.mean) / model.std
    torch.testing.assert_close(model.normalised(items), normal.mean(1), rtol=0, atol=1e-4)


# ---- the same bits, however it went -------------------------------------------------------------------------------


class Cut(BaseException):
    """As sudden as it gets inside one process."""


def assert_same_bits(place: Path, other: Path) -> None:
    for path in (
        "model/model.safetensors",
        "model/reward.json",
        "evaluation.json",
        f"checkpoints/step-{8:08d}/tensors.safetensors",
    ):
        assert (place / path).read_bytes() == (other / path).read_bytes(), path
    assert metrics(place) == metrics(other)


@pytest.fixture(scope="module")
def whole(finished: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage run without a break."""
    place = tmp_path_factory.mktemp("whole") / "reward"
    run_stage(config(finished, source), place, recipe=WORLD)
    return place


def command(finished: Path, source: Path, folder: Path) -> list[str]:
    settings = SETTINGS | {"init": str(finished / "sft/model"), "rankings": [{"source": str(source)}]}
    recipe = write_recipe(folder, {"stages.reward": settings})
    return ["reward", str(recipe), "-d", str(folder / "run"), "-q"]


def test_killed_at_a_random_point_the_command_ends_in_the_same_bits(
    finished: Path, source: Path, whole: Path, tmp_path: Path
) -> None:
    arguments = command(finished, source, tmp_path)
    kill_and_repeat(arguments, tmp_path / "run/reward", 6)
    assert_same_bits(tmp_path / "run/reward", whole)


@pytest.mark.parametrize("where", ["checkpoint", "statistics", "save_result", "write"])
def test_cut_anywhere_the_stage_ends_in_the_same_bits(
    finished: Path, source: Path, whole: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first checkpoint, between training and statistics, before the model, and after it."""

    def cut(*_: Any) -> None:
        raise Cut

    plain = config(finished, source)
    with monkeypatch.context() as patch:
        if where == "checkpoint":
            patch.setattr(checkpoint, "_write_tensors", cut)
        elif where == "write":
            patch.setattr(stage.files, "write_json", cut)
        else:
            patch.setattr(stage, where, cut)
        with pytest.raises(Cut):
            run_stage(plain, tmp_path / "reward", recipe=WORLD)
    run_stage(plain, tmp_path / "reward", recipe=WORLD)
    assert_same_bits(tmp_path / "reward", whole)


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(finished: Path, source: Path, done: Path, tmp_path: Path) -> None:
    """Training, validation, sampling, statistics and evaluation, shared by two ranks."""
    two_processes(str(finished), str(source), str(tmp_path), module="tests.stages.test_reward_stage")
    for expected, found in zip(metrics(done), metrics(tmp_path / "reward"), strict=True):
        assert found == pytest.approx(expected, abs=1e-4)
    one, two = (json.loads((place / "evaluation.json").read_text()) for place in (done, tmp_path / "reward"))
    assert two["pairs"]["log_loss"] == pytest.approx(one["pairs"]["log_loss"], abs=1e-4)
    assert two["policy"] == pytest.approx(one["policy"], abs=1e-3)
    assert two["normalisation"]["mean"] == pytest.approx(one["normalisation"]["mean"], abs=1e-3)


# ---- tasks, their split and their loss ----------------------------------------------------------------------------


def tiny(finished: Path, source: Path, **changes: Any) -> tuple[Any, list[RankedTask], RewardConfig]:
    chosen = config(finished, source, **changes)
    decoder, tokenizer = stage.start(StageContext("reward", chosen, WORLD, Path("nowhere")), torch.device("cpu"))
    tasks, _ = tokenise(group_tasks(rankings()), tokenizer, decoder.config.context_length, chosen.ties)
    return decoder, tasks, chosen


@pytest.mark.parametrize(
    "changes",
    [
        {"margin": 0.3, "label_smoothing": 0.05, "centering": 0.1},
        {"ties": "davidson", "reduction": "pair"},
        {"loss": "plackett_luce", "annotator_weights": {"bob": 0.25}},
    ],
)
def test_gradients_do_not_depend_on_the_micro_batches(finished: Path, source: Path, changes: dict[str, Any]) -> None:
    decoder, tasks, chosen = tiny(finished, source, **changes)
    weights = head_weights(tasks, chosen, 3, "reward")
    found = []
    for budget in (1, 150, 10**6):
        update = Update(
            tasks[:9], weights[:9], chosen.model_copy(update={"micro_batch_tokens": budget}), decoder_device()
        )
        decoder.zero_grad()
        losses = []
        for part in update.micro_batches():
            loss, _ = update.loss(decoder, part)
            loss.backward()
            losses.append(float(loss.detach()))
        found.append((sum(losses), [parameter.grad.clone() for parameter in decoder.parameters()]))
        assert len(losses) == {1: 9, 10**6: 1}.get(budget, len(losses))
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-5)
        for gradient, expected in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def decoder_device() -> torch.device:
    return torch.device("cpu")


def test_training_and_inference_give_the_same_scores(finished: Path, source: Path) -> None:
    """The prompt once and its responses after it, against each whole text alone."""
    decoder, tasks, _ = tiny(finished, source)
    empty = Response("", finish_reason="length")
    model = RewardModel(decoder, stage.Tokenizer.load(finished / "sft/model"))
    prompt = tasks[0].prompt
    odd = Ranking(prompt, (empty, Response("aa"), Response("")), (1, 0, 2), "ann")
    more, _ = tokenise(group_tasks([odd]), model.tokenizer, 96, "soft")
    found = task_scores(decoder, [*tasks[:5], *more], torch.device("cpu"))
    items = [
        (task.prompt.messages, response.text, response.finish_reason == "stop")
        for task in [*tasks[:5], *more]
        for response in task.responses
    ]
    torch.testing.assert_close(found, model.score(items), rtol=0, atol=1e-5)


def test_what_does_not_fit_is_unranked_and_counted(finished: Path, source: Path) -> None:
    _, tasks, _ = tiny(finished, source)
    tokenizer = stage.Tokenizer.load(finished / "sft/model")
    (task,) = [task for task in tasks if len(task.responses) == 4 and len(set(map(len, task.tokens))) > 2][:1]
    lengths = sorted(map(len, task.tokens))
    kept, dropped = tokenise([task], tokenizer, lengths[-1] - 1, "soft")
    assert dropped == lengths.count(lengths[-1])
    gone = [number for number, ids in enumerate(kept[0].tokens) if not ids]
    assert all(ranking.tiers[number] == -1 for ranking in kept[0].rankings for number in gone)
    assert kept[0].size < task.size
    assert tokenise([task], tokenizer, lengths[0], "soft")[0] == []


def test_tasks_hold_what_counts() -> None:
    prompt, responses = Prompt("p", (Message("user", "?"),)), (Response("a"), Response("b"))
    first = Ranking(prompt, responses, (0, 1), "ann").with_id()
    mended = Ranking(prompt, responses, (1, 0), "ann", supersedes=first.id)
    skipped = Ranking(prompt, responses, (-1, -1), "bob", skipped="unclear")
    judge = [Ranking(prompt, responses, (0, 1), "judge", kind="ai", displayed=shown) for shown in ((0, 1), (1, 0))]
    (task,) = group_tasks([first, mended, mended, skipped, *judge])
    assert [ranking.tiers for ranking in task.rankings] == [(1, 0), (0, 1), (0, 1)]
    other = Ranking(prompt, (Response("a"), Response("b", finish_reason="length")), (0, 1), "ann")
    assert len(group_tasks([first, other])) == 2


def test_the_split_is_by_conversation_and_the_same_in_every_run() -> None:
    tasks = group_tasks(rankings(400))
    parts = split_tasks(tasks, 0.1, 0.2)
    assert [len(part) / len(tasks) for part in parts] == pytest.approx([0.7, 0.1, 0.2], abs=0.06)
    assert split_tasks(tasks[::-1], 0.1, 0.2)[2] == parts[2][::-1]
    opening = rankings(400)
    branch = [
        Ranking(
            Prompt("x", (*one.prompt.messages, Message("assistant", "ok"), Message("user", "and?"))),
            one.responses,
            one.tiers,
            "ann",
        )
        for one in opening[:-1]
    ]
    longer = split_tasks(group_tasks(branch), 0.1, 0.2)
    first = lambda part: {task.prompt.messages[0] for task in part}  # noqa: E731
    assert [first(part) for part in longer] == [first(part) for part in parts]


def test_heads_see_samples_of_their_own(finished: Path, source: Path) -> None:
    chosen = config(finished, source, heads=3, annotator_weights={"bob": 0.5})
    tasks = group_tasks(rankings())
    weights = head_weights(tasks, chosen, 0, "reward")
    columns = [[weight for task in weights for weight in task[head]] for head in range(3)]
    counts = [
        sum(weight if place % 2 == 0 else 2 * weight for place, weight in enumerate(column)) for column in columns
    ]
    assert counts == [80.0] * 3 and columns[0] != columns[1] != columns[2] and 0.0 in columns[0]
    assert head_weights(tasks, chosen, 0, "reward") == weights != head_weights(tasks, chosen, 1, "reward")
    alone = head_weights(tasks, config(finished, source, heads=1), 0, "reward")
    assert all(weight == 1.0 for task in alone for weight in task[0])
    decoder, _, _ = tiny(finished, source)
    assert not torch.equal(decoder.head_weight[0], decoder.head_weight[1])


# ---- what is refused ----------------------------------------------------------------------------------------------


def one_sided() -> Sequence[Ranking]:
    return [ranking for ranking in rankings(3) if ranking.skipped is None]


@pytest.mark.parametrize(
    ("changes", "given", "told"),
    [
        ({"annotator_weights": {"zoe": 2.0}}, rankings, r"names 'zoe', who ranked nothing here; there are ann, bob"),
        ({"annotator_weights": {"bob": -1.0}}, rankings, "bob is -1.0; a weight is 0 or more"),
        ({"test_share": 0.000001}, rankings, r"no prompt is left to test with"),
        ({"validation_share": 0.499, "test_share": 0.5}, one_sided, "no prompt is left to train on"),
        ({"gold": {"kind": "length"}}, rankings, "gold is set, but reward.prompts is empty"),
        ({"samples": 3}, rankings, "samples is set, but reward.prompts is empty"),
        ({"ties": "rao_kupper", "tie_parameter": 0.9}, rankings, "theta above 1"),
        ({"tie_parameter": 2.0}, rankings, "tie_parameter is for rao_kupper and davidson, but reward.ties is soft"),
    ],
)
def test_nonsense_is_refused(
    finished: Path, tmp_path: Path, changes: dict[str, Any], given: Callable[[], Sequence[Ranking]], told: str
) -> None:
    write_rankings(tmp_path / "given.jsonl", given())
    with pytest.raises(UserError, match=told):
        run_stage(config(finished, tmp_path / "given.jsonl", **changes), tmp_path / "reward", recipe=WORLD)


def test_rankings_that_compare_nothing_are_refused(finished: Path, source: Path, tmp_path: Path) -> None:
    tied = [
        Ranking(one.prompt, one.responses, tuple(min(tier, 0) for tier in one.tiers), one.annotator)
        for one in rankings()[:-1]
    ]
    write_rankings(tmp_path / "tied.jsonl", tied)
    with pytest.raises(UserError, match=r"none of 80 rankings compares two responses; check reward.rankings"):
        run_stage(config(finished, tmp_path / "tied.jsonl", ties="ignore"), tmp_path / "reward", recipe=WORLD)
    with pytest.raises(UserError, match=r"margin is 0.5, but no ranking says how strong"):
        run_stage(config(finished, tmp_path / "tied.jsonl", margin=0.5), tmp_path / "reward", recipe=WORLD)


def test_a_reward_model_answers_no_prompts(finished: Path, source: Path, done: Path, tmp_path: Path) -> None:
    """As a start it is welcome; as the policy it is refused before any time is spent on training."""
    prompts = [{"source": "primer", "part": "problems", "split": "validation", "limit": 2}]
    with pytest.raises(UserError, match=r"is a reward model .* cannot write"):
        run_stage(config(done, source, init=str(done / "model"), prompts=prompts), tmp_path / "reward", recipe=WORLD)
    assert not (tmp_path / "reward/metrics.jsonl").exists()
    run_stage(config(done, source, init=str(done / "model"), steps=1), tmp_path / "again", recipe=WORLD)


def test_prompts_too_long_for_the_policy_are_told_before_training(finished: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "word " * 300, "answer": "1"}) + "\n")
    asked = [{"source": str(tmp_path / "long.jsonl")}]
    with pytest.raises(UserError, match=r"reward.prompts: the prompt .* shorten or drop it"):
        run_stage(config(finished, source, prompts=asked), tmp_path / "reward", recipe=WORLD)
    assert not (tmp_path / "reward/metrics.jsonl").exists()


def test_prompts_of_two_files_with_the_same_ids_are_all_asked(finished: Path, source: Path, tmp_path: Path) -> None:
    for name in "ab":
        rows = [{"id": str(number), "prompt": f"Say {name}{number}.", "answer": name} for number in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [{"source": str(tmp_path / f"{name}.jsonl")} for name in "ab"]
    context = StageContext("reward", config(finished, source, prompts=files), WORLD, tmp_path / "reward")
    asked = [prompt.messages for prompt, _ in stage.policy_prompts(context)]
    assert len(asked) == len(set(asked)) > 6


def test_the_source_may_be_a_stage(finished: Path, source: Path, tmp_path: Path) -> None:
    shutil.copy(source, tmp_path / "rankings.jsonl")
    chosen = config(finished, source, steps=1, init="sft", rankings=[RankingSourceConfig(source="rank")])
    context = StageContext(
        "reward",
        chosen,
        WORLD,
        tmp_path / "reward",
        models={"sft": finished / "sft/model"},
        files={"rank": tmp_path / "rankings.jsonl"},
    )
    (tmp_path / "reward").mkdir()
    assert stage.main(context)["rankings"] == 80


if __name__ == "__main__":  # one rank of two
    start_folder, given_rankings, folder = map(Path, sys.argv[1:])
    run_stage(config(start_folder, given_rankings, **ASKED), folder / "reward", recipe=WORLD)
    torch.distributed.destroy_process_group()


def test_folds_hold_every_prompt_out_once() -> None:
    tasks = [
        RankedTask(Prompt(str(number), (Message("user", f"Say {number}."),)), (Response("a"), Response("b")), ())
        for number in range(400)
    ]
    parts = [split_tasks(tasks, 0.1, 0.25, fold) for fold in range(4)]
    held_out = [task.prompt.id for _, _, test in parts for task in test]
    assert sorted(held_out) == sorted(task.prompt.id for task in tasks)
    for train, validation, test in parts:
        assert len(train) + len(validation) + len(test) == 400 and 20 < len(validation) < 70 < len(test) < 130


@pytest.mark.parametrize(
    ("file", "rankings"), [("preferences/oasst_en_100_trees.jsonl", 212), ("restaurants/rankme_rankings.jsonl", 1800)]
)
def test_real_rankings_train(shared_data: Path, tmp_path: Path, file: str, rankings: int) -> None:
    """People's rankings, all of them read and those that fit trained on, from a random model."""
    tokenizer = Tokenizer.train_bpe(["What is the best way to do it? The best way is to ask."], 300)
    decoder = Decoder(
        DecoderConfig(
            vocabulary_size=tokenizer.vocabulary_size,
            hidden_size=16,
            layers=1,
            heads=2,
            kv_heads=1,
            head_dim=8,
            mlp_size=24,
            context_length=1024,
            qk_norm="head",
        )
    )
    decoder.initialise(torch.Generator().manual_seed(0))
    save_model(decoder, tmp_path / "start", tokenizer)
    found = RankingSourceConfig(source=str(shared_data / file))
    assert len(read_rankings([found])) == rankings
    config = RewardConfig(init=str(tmp_path / "start"), rankings=[found], steps=2, batch_size=4, schedule={"warmup": 1})
    numbers = run_stage(config, tmp_path / "reward", recipe=WORLD)
    assert 0 < numbers["rankings"] <= rankings and numbers["skipped"] == 0
    assert json.loads((tmp_path / "reward/evaluation.json").read_text())["pairs"]["n"] > 0
