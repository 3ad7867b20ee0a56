"""Where tasks come from: a file of answers, or the rollouts of a finished run."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from trivium import files
from trivium.data.fields import prompt as prompt_of_row
from trivium.data.files import Row, read_file
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.record import UNRANKED, Response, dense_tiers
from trivium.feedback.rankings.store import NewTask, Store
from trivium.streams import generator

FEWEST, MOST = 2, 9  # answers a task
_OURS = ("responses", "gold", "gold_note", "criterion", "wanted", "priority")


PORTION = 500  # tasks a transaction


def add_tasks(store: Store, tasks: Iterable[NewTask]) -> int:
    """Put ``tasks`` into the store; one that is there already is not added again. How many were given."""
    remaining = iter(tasks)
    count = 0
    while part := list(islice(remaining, PORTION)):
        store.add_tasks(part)
        count += len(part)
    return count


def distinct(responses: Sequence[Response]) -> tuple[Response, ...]:
    """Equal texts once, in order of their first: nobody can rank a text against itself."""
    first: dict[str, Response] = {}
    for response in responses:
        first.setdefault(response.text, response)
    return tuple(first.values())


# ---- a file of answers -----------------------------------------------------------------------------------------------


def tasks_of_file(path: Path, criterion: str = "overall", wanted: int = 1) -> Iterator[NewTask]:
    """Tasks from rows of ``{"prompt" or "messages", "responses": [a text, or an object with a text]}``.

    A row may have ``gold`` (a tier for each response, 0 is best, -1 unranked) with ``gold_note``, and ``criterion``,
    ``wanted`` and ``priority`` of its own. An object may have ``model``, ``checkpoint``, ``sampling``,
    ``finish_reason`` and ``metadata``. Raises UserError with the line of what is wrong.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of answers; check the path")
    empty = True
    for row in read_file(path):
        empty = False
        yield _task_of_row(row, path.name, criterion, wanted)
    if empty:
        raise UserError(f"{path} holds no answers: give one JSON object a line, with a prompt and responses")


def _task_of_row(row: Row, source: str, criterion: str, wanted: int) -> NewTask:
    where = row.where
    values = row.get("responses")
    if not isinstance(values, list):
        raise UserError(f"{where}: no field 'responses' with a list of answers; the fields are {', '.join(row)}")
    given = tuple(_response(value, where) for value in values)
    responses = distinct(given)
    if not FEWEST <= len(responses) <= MOST:
        repeated = f" ({len(given)} with repeats)" if len(given) > len(responses) else ""
        raise UserError(
            f"{where}: {len(responses)} different responses{repeated}; a person ranks {FEWEST} to {MOST} of them"
        )
    gold = row.get("gold")
    if gold is not None:
        gold = _gold(gold, given, len(responses), where)
    number = row.get("wanted", wanted)
    if type(number) is not int or number < 1:
        raise UserError(f"{where}: wanted is {number!r}; it is a whole number of annotators from 1")
    priority = row.get("priority", 0.0)
    if isinstance(priority, bool) or not isinstance(priority, int | float):
        raise UserError(f"{where}: priority is {priority!r}; it is a number, higher comes first")
    prompt = prompt_of_row(Row({key: value for key, value in row.items() if key not in _OURS}, where), {})
    return NewTask(
        prompt,
        responses,
        str(row.get("criterion") or criterion),
        number,
        float(priority),
        gold=gold,
        gold_note=str(row.get("gold_note") or ""),
        source=source,
    )


def _response(value: Any, where: str) -> Response:
    if isinstance(value, str):
        return Response(value)
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise UserError(f"{where}: a response is a text or an object with a text, found {str(value)[:60]!r}")
    kinds: dict[str, type] = {"text": str, "model": str, "checkpoint": str, "sampling": dict}
    kinds |= {"finish_reason": str, "metadata": dict}
    for name, entry in value.items():
        if name not in kinds:
            raise UserError(f"{where}: a response has no field {name!r}; it may have {', '.join(kinds)}")
        if not isinstance(entry, kinds[name]):
            raise UserError(f"{where}: {name} of a response is {str(entry)[:60]!r}; expected {kinds[name].__name__}")
    return Response(**value)


def _gold(value: Any, given: Sequence[Response], different: int, where: str) -> tuple[int, ...]:
    if different < len(given):
        raise UserError(f"{where}: two responses of a gold task are equal; make them different")
    if not isinstance(value, list) or len(value) != len(given) or not all(type(tier) is int for tier in value):
        raise UserError(f"{where}: gold must be a list of {len(given)} whole numbers, a tier for each response")
    tiers = dense_tiers(value)
    if sum(tier != UNRANKED for tier in tiers) < 2:
        raise UserError(f"{where}: gold ranks fewer than two responses; rank two or leave gold out")
    return tiers


# ---- rollouts of a run -----------------------------------------------------------------------------------------------


def tasks_of_run(
    run: Path,
    stage: str | None = None,
    responses: int = 4,
    criterion: str = "overall",
    wanted: int = 1,
    limit: int | None = None,
    seed: int = 0,
) -> Iterator[NewTask]:
    """A task for each prompt that the policy of ``stage`` (default: the last one with rollouts) answered.

    ``responses`` different answers are drawn at random from all steps. Prompts are shown as the recipe's sources have
    them; where those cannot be read any more, as the text that the model was given. Rollouts were sampled while the
    policy learned, so they carry its version (optimiser updates so far) and no hash: the weights of that moment were
    not kept. Raises UserError where there are no rollouts, or no prompt has two different answers.
    """
    stage, paths = _rollout_files(run, stage)
    groups = _groups(paths)
    prompts, sampling = _recipe_of(run, stage)
    tokenizer = None
    made = 0
    for prompt_id in sorted(groups):
        if limit is not None and made >= limit:
            return
        answers = distinct([_of_rollout(row, f"{run.name}/{stage}", sampling) for row in groups[prompt_id]])
        if len(answers) < FEWEST:
            continue
        if prompt_id not in prompts and tokenizer is None:
            from trivium.text.tokenizer import Tokenizer

            tokenizer = Tokenizer.load(run / stage / "model")
        prompt = prompts.get(prompt_id)
        if prompt is None:
            assert tokenizer is not None
            text = tokenizer.decode(groups[prompt_id][0]["prompt_tokens"])
            prompt = Prompt(prompt_id, (Message("user", text),), metadata={"decoded": True})
        order = generator(seed, "rank rollouts", prompt_id).permutation(len(answers))[:responses]
        chosen = tuple(answers[number] for number in order)
        yield NewTask(prompt, chosen, criterion, wanted, source=f"{run.name}/{stage}")
        made += 1
    if not made:
        raise UserError(f"{run / stage}: no prompt has two different answers in its rollouts; nothing can be ranked")


def _rollout_files(run: Path, stage: str | None) -> tuple[str, list[Path]]:
    if not run.is_dir():
        raise UserError(f"{run}: there is no such run directory; check the path")
    found = {path.parent.name: path for path in run.glob("*/rollouts") if any(path.glob("*.parquet"))}
    if not found:
        raise UserError(
            f"{run} has no rollouts (STAGE/rollouts/*.parquet); give a run with a finished stage of kind rl"
        )
    if stage is None:
        recipe = _load_recipe(run)
        order = list(recipe.stages) if recipe else sorted(found)
        stage = max(found, key=lambda name: order.index(name) if name in order else -1)
    if stage not in found:
        raise UserError(f"{run / stage} has no rollouts; the stages that have some are {', '.join(sorted(found))}")
    return stage, sorted(found[stage].glob("*.parquet"))


def _groups(paths: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """Rows of the rollouts by prompt, in the order of the steps."""
    import pyarrow
    import pyarrow.parquet as parquet

    columns = ["prompt_id", "prompt_tokens", "text", "finish_reason", "weight_version"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for path in paths:
        try:
            rows = parquet.read_table(path, columns=columns).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise UserError(f"{path} is no file of rollouts that can be read ({error}); move it away") from None
        for row in rows:
            groups.setdefault(row["prompt_id"], []).append(row)
    return groups


def _of_rollout(row: Mapping[str, Any], model: str, sampling: Mapping[str, Any]) -> Response:
    metadata = {"weight_version": int(row["weight_version"])}
    return Response(row["text"], model, "", dict(sampling), str(row["finish_reason"]), metadata)


def _load_recipe(run: Path) -> Any:
    from trivium.recipe import load

    try:
        return load(run) if (run / "recipe.yaml").is_file() else None
    except UserError:  # written by another version: the rollouts can be read all the same
        return None


def _recipe_of(run: Path, stage: str) -> tuple[dict[str, Prompt], dict[str, Any]]:
    """Prompts by id and the sampling settings, as far as the run's recipe can still tell them."""
    recipe = _load_recipe(run)
    config = recipe.stages.get(stage) if recipe else None
    if config is None or not hasattr(config, "prompts"):
        return {}, {}
    from trivium.data import sources

    sampling = config.sampling.model_dump(mode="json")
    prompts: dict[str, Prompt] = {}
    for source in config.prompts:
        try:
            for prompt in sources.prompts([source], recipe)[0]:
                prompts.setdefault(prompt.id, prompt)
        except UserError:  # the file was moved since, or the hub is out of reach
            continue
    return prompts, sampling


def checkpoint_hash(model: Path) -> str:
    """The SHA-256 of the weights in a model directory: of ``model.safetensors``, or of all shards in their order."""
    whole = model / "model.safetensors"
    if whole.is_file():
        return files.sha256(whole)
    shards = sorted(model.glob("*.safetensors"))
    return hashlib.sha256("".join(map(files.sha256, shards)).encode()).hexdigest() if shards else ""
