"""Which earlier stages a stage's configuration names, and what it needs of them."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Reference(NamedTuple):
    """``key`` says ``name``; the stage of that name has to make ``product``: a model that answers (``policy``), one
    that scores (``scorer``), any of them (``model``), ``rankings``, ``conversations`` or an ``audit``."""

    key: str
    name: str
    product: str


MAKES = {
    "policy": ("pretrain", "sft", "dpo", "rl"),
    "scorer": ("reward",),
    "model": ("pretrain", "sft", "dpo", "rl", "reward"),
    "rankings": ("rank",),
    "conversations": ("revise", "lessons"),
    "audit": ("audit",),
}


def references(section: Mapping[str, Any]) -> list[Reference]:
    """Every place of a stage's configuration (plain data) that may name another stage, in the order of its keys.

    >>> for reference in references({"kind": "reward", "init": "sft", "rankings": [{"source": "rank"}]}):
    ...     print(reference)
    Reference(key='init', name='sft', product='model')
    Reference(key='rankings.0.source', name='rank', product='rankings')
    """
    found = []
    if section.get("init") is not None:
        found.append(Reference("init", section["init"], "model" if section["kind"] == "reward" else "policy"))
    if section.get("policy") is not None:
        found.append(Reference("policy", section["policy"], "policy"))
    for number, source in enumerate((section.get("data") or ()) if section["kind"] == "sft" else ()):
        found.append(Reference(f"data.{number}.source", source["source"], "conversations"))
    for number, source in enumerate(section.get("rankings") or ()):
        found.append(Reference(f"rankings.{number}.source", source["source"], "rankings"))
    for number, source in enumerate(section.get("test") or ()):
        found.append(Reference(f"test.{number}.source", source["source"], "rankings"))
    critic = section.get("critic") or {}
    if critic.get("init") is not None:
        found.append(Reference("critic.init", critic["init"], "model"))
    judge = section.get("judge") or {}
    if _names_model(judge):
        found.append(Reference("judge.model", judge["model"], "policy"))
    return found + list(_scorers(section, ""))


def _names_model(judge: Mapping[str, Any]) -> bool:
    """Whether a judge's model is a stage or directory: a server's is not, nor is the policy that learns."""
    return "model" in judge and judge.get("backend", "local") == "local" and judge["model"] != "policy"


def _scorers(value: Any, key: str) -> Iterator[Reference]:
    """What parts of a reward, and scorers of the watch, name in their options."""
    if isinstance(value, Mapping):
        options = value.get("options")
        if isinstance(options, Mapping) and value.get("kind") == "reward_model" and "model" in options:
            yield Reference(f"{key}options.model", str(options["model"]), "scorer")
        elif isinstance(options, Mapping) and value.get("kind") == "judge":
            if _names_model(options):
                yield Reference(f"{key}options.model", str(options["model"]), "policy")
            if options.get("audit") is not None:
                yield Reference(f"{key}options.audit", str(options["audit"]), "audit")
        for name, item in value.items():
            yield from _scorers(item, f"{key}{name}.")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _scorers(item, f"{key}{number}.")
