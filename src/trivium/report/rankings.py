"""The rankings of a run: how many, how far people agree, and which models they went into."""

from typing import Any

from trivium.report.loading import Run, Stage, mapping, number
from trivium.report.tables import Table
from trivium.report.wording import MISSING, clean, decimal, short_hash

_WEIGHTS = ".safetensors"


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
        kinds = stage.summary.get("kinds")
        named = f" ({clean(', '.join(map(str, kinds)), 60)})" if isinstance(kinds, list) and kinds else ""
        text += f", by {decimal(people)} annotator{'' if people == 1 else 's'}{named}"
    agreement, alpha = (number(stage.summary.get(key)) for key in ("pairwise_agreement", "alpha"))
    if agreement is not None:
        text += f", who agree on {decimal(agreement, 2)} of the pairs they share"
    if alpha is not None:
        text += f" (Krippendorff’s α {decimal(alpha, 2)})"
    return text + "."


def chain_table(run: Run) -> Table | None:
    """Which rankings changed which model: a row for each way from a file of rankings to a policy.

    It follows the lineage alone: ``parents`` by name, and files by the hash of their content.
    """
    artifacts = {name: mapping(entry) for name, entry in mapping(mapping(run.lineage).get("artifacts")).items()}
    stages = {stage.name: stage for stage in run.stages}
    rows = []
    for name, artifact in artifacts.items():
        stage = stages.get(name)
        if stage is None or stage.kind != "reward":
            continue
        policies = [
            other
            for other, entry in artifacts.items()
            if stages.get(other) is not None and _made_from(entry, name, artifact)
        ]
        for source in _ranking_files(run, artifact, artifacts) or [("", "", None)]:
            file, content, rankings = source
            for policy in policies or [""]:
                rows.append(
                    [
                        clean(file, 60) or MISSING,
                        content or MISSING,
                        decimal(rankings),
                        _weights(stage.label, artifact),
                        _weights(stages[policy].label, artifacts[policy]) if policy else MISSING,
                    ]
                )
    header = ["Rankings", "Content", "Number", "Reward model", "Policy"]
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
) -> list[tuple[str, str, int | None]]:
    """(name, short hash, number of rankings) of the files of rankings that a reward model was trained on."""
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
        found.append((shown, short_hash(file.get("sha256")), None if count is None else int(count)))
    return found


def _weights(label: str, artifact: dict[str, Any]) -> str:
    """The name of a model with the hash of its weights."""
    hashes = [short_hash(f.get("sha256")) for f in _files(artifact, "outputs") if str(f.get("path")).endswith(_WEIGHTS)]
    return " ".join([label, *hashes[:1]])
