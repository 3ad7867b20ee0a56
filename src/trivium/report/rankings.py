"""The rankings of a run: how many, how far people agree, and which models they went into."""

from typing import Any

from trivium.report.judges import usage_sentence
from trivium.report.loading import Run, Stage, mapping, number
from trivium.report.tables import Table
from trivium.report.wording import MISSING, clean, decimal, short_hash

_WEIGHTS = ".safetensors"
KINDS = {"ai": "AI judges", "human": "people", "simulated": "simulated annotators"}


def sentence(stage: Stage) -> str:
    """A rank stage in one sentence.

    >>> sentence(Stage("rank", "rank", "Rankings", summary={"rankings": 800, "tasks": 400, "annotators": 4}))
    '800 rankings of the answers to 400 prompts, by 4 annotators.'
    """
    numbers = {key: number(stage.summary.get(key)) for key in ("rankings", "tasks", "annotators")}
    if numbers["rankings"] is None:
        return "No rankings yet."
    text = f"{decimal(int(numbers['rankings']))} rankings"
    if numbers["tasks"] is not None:
        text += f" of the answers to {decimal(int(numbers['tasks']))} prompts"
    if numbers["annotators"] is not None:
        people = int(numbers["annotators"])
        noun = "AI judge" if kinds(stage) == ["ai"] else "annotator"
        who = ", ".join({"ai": "AI", "human": "people"}.get(kind, kind) for kind in kinds(stage))
        named = f" ({clean(who, 60)})" if who and noun == "annotator" else ""
        text += f", by {decimal(people)} {noun}{'' if people == 1 else 's'}{named}"
    agreement, alpha = (number(stage.summary.get(key)) for key in ("pairwise_agreement", "alpha"))
    if agreement is not None:
        text += f", who agree on {decimal(agreement, 2)} of the pairs they share"
    if alpha is not None:
        text += f" (Krippendorff’s α {decimal(alpha, 2)})"
    skipped = number(stage.summary.get("skipped_rankings"))
    if skipped:
        text += f"; {decimal(int(skipped))} of them skipped their prompt"
    return " ".join(filter(None, [text + ".", usage_sentence(stage)]))


def kinds(stage: Stage) -> list[str]:
    """Kinds of the annotators of a rank stage, as it told them."""
    told = stage.summary.get("kinds")
    return [str(kind) for kind in told] if isinstance(told, list) else []


def _made_by(stage: Stage | None) -> str:
    """Who made the rankings of a stage.

    >>> _made_by(Stage("rank", "rank", "Rankings", summary={"kinds": ["ai", "human"]})), _made_by(None)
    ('AI judges, people', '–')
    """
    told = [KINDS.get(kind, kind) for kind in kinds(stage)] if stage is not None else []
    return clean(", ".join(told), 60) or MISSING


def chain_table(run: Run) -> Table | None:
    """Which rankings changed which model: a row for each way from a file of rankings to a policy, through a reward
    model or, by DPO, without one.

    It follows the lineage alone: ``parents`` by name, and files by the hash of their content.
    """
    artifacts = {name: mapping(entry) for name, entry in mapping(mapping(run.lineage).get("artifacts")).items()}
    stages = {stage.name: stage for stage in run.stages}
    rows = []
    for name, artifact in artifacts.items():
        stage = stages.get(name)
        if stage is None or stage.kind not in ("reward", "dpo"):
            continue
        own = _weights(stage.label, artifact)
        if stage.kind == "dpo":
            learned = [(MISSING, own)]
            sources = _ranking_files(run, artifact, artifacts)  # an iterated one may have none but its own
        else:
            policies = [n for n, entry in artifacts.items() if n in stages and _made_from(entry, name, artifact)]
            learned = [(own, _weights(stages[n].label, artifacts[n])) for n in policies] or [(own, MISSING)]
            sources = _ranking_files(run, artifact, artifacts) or [("", "", None, "")]
        for file, content, rankings, maker in sources:
            front = [clean(file, 60) or MISSING, content or MISSING, decimal(rankings)]
            rows += [[*front, *models, _made_by(stages.get(maker))] for models in learned]
    header = ["Rankings", "Content", "Number", "Reward model", "Policy", "Ranked by"]
    return Table("Which rankings changed which model", header, rows) if rows else None


def _files(artifact: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = artifact.get(key)
    return [mapping(entry) for entry in entries] if isinstance(entries, list) else []


def _made_from(artifact: dict[str, Any], name: str, maker: dict[str, Any]) -> bool:
    """Whether an artifact was made from the weights of ``maker``, whose stage is ``name``."""
    weights = {file.get("sha256") for file in _files(maker, "outputs") if str(file.get("path")).endswith(_WEIGHTS)}
    parents = artifact.get("parents")
    named = isinstance(parents, list) and name in parents
    return named or any(file.get("sha256") in weights for file in _files(artifact, "inputs"))


def _ranking_files(
    run: Run, artifact: dict[str, Any], artifacts: dict[str, dict[str, Any]]
) -> list[tuple[str, str, int | None, str]]:
    """(name, short hash, number of rankings, stage that made it) of the files of rankings that a model learned from."""
    makers = {
        file.get("sha256"): name
        for name, entry in artifacts.items()
        for file in _files(entry, "outputs")
        if str(file.get("path")).endswith(".jsonl")
    }
    summaries = {stage.name: stage.summary for stage in run.stages}
    found = []
    for file in _files(artifact, "inputs"):
        if file.get("role") != "rankings":
            continue
        *_, folder, name = ["", *str(file.get("path")).replace("\\", "/").split("/")]
        maker = makers.get(file.get("sha256"), folder)
        count = number(summaries.get(maker, {}).get("rankings"))
        shown = f"{folder}/{name}" if maker in artifacts else name
        found.append((shown, short_hash(file.get("sha256")), None if count is None else int(count), maker))
    return found


def _weights(label: str, artifact: dict[str, Any]) -> str:
    """The name of a model with the hash of its weights."""
    hashes = [short_hash(f.get("sha256")) for f in _files(artifact, "outputs") if str(f.get("path")).endswith(_WEIGHTS)]
    return " ".join([label, *hashes[:1]])
