"""Which earlier stages a stage's configuration names, and what it needs of them."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Reference(NamedTuple):
    """``key`` says ``name``; the stage of that name has to make ``product``: a model that answers (``policy``), one
    that scores (``scorer``), any of them (``model``), or ``rankings``."""

    key: str
    name: str
    product: str


MAKES = {
    "policy": ("pretrain", "sft", "rl"),
    "scorer": ("reward",),
    "model": ("pretrain", "sft", "rl", "reward"),
    "rankings": ("rank",),
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
    for number, source in enumerate(section.get("rankings") or ()):
        found.append(Reference(f"rankings.{number}.source", source["source"], "rankings"))
    critic = section.get("critic") or {}
    if critic.get("init") is not None:
        found.append(Reference("critic.init", critic["init"], "model"))
    return found + list(_scorers(section, ""))


def _scorers(value: Any, key: str) -> Iterator[Reference]:
    if isinstance(value, Mapping):
        options = value.get("options")
        if value.get("kind") == "reward_model" and isinstance(options, Mapping) and "model" in options:
            yield Reference(f"{key}options.model", str(options["model"]), "scorer")
        for name, item in value.items():
            yield from _scorers(item, f"{key}{name}.")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _scorers(item, f"{key}{number}.")
