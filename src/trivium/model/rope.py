"""RoPE settings as config.json spells them, in the form of transformers 4.x and in that of 5; read and written.

4.x has ``rope_theta`` and ``rope_scaling`` side by side, 5 has ``rope_parameters`` that holds both.
"""

import math
from collections.abc import Mapping
from typing import Any

from trivium.errors import UserError
from trivium.model.decoder import RopeScaling

# rope type -> keys that must be there, keys that may be
SCALINGS: dict[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor"}, set()),
    "yarn": (set(), {"factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}),
}
# stand in any type; original_max_position_embeddings is written by some exporters even where nothing reads it
ANYWHERE = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings", "finetuned"}


def read_rope(
    config: Mapping[str, Any], default_theta: float, context: int, where: str
) -> tuple[float, RopeScaling | None]:
    """The base and the scaling a config.json asks for; ``where`` names the file in error messages.

    ``context`` is its ``max_position_embeddings``. Where both forms are there, ``rope_scaling`` wins, as in
    transformers 5. UserError for a scaling the decoder does not have.
    """
    new = config.get("rope_parameters") or {}
    rope = config.get("rope_scaling") or new
    for form in (new, rope):
        if not isinstance(form, Mapping) or any(isinstance(value, Mapping) for value in form.values()):
            raise UserError(f"{where}: rope parameters that differ by layer are not supported; one set for all works.")
    rope = {key: value for key, value in rope.items() if value is not None}
    theta = float(rope.get("rope_theta") or new.get("rope_theta") or config.get("rope_theta") or default_theta)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in SCALINGS:
        raise UserError(f"{where}: rope scaling {kind!r} is not supported; these work: {', '.join(SCALINGS)}.")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(f"{where}: partial_rotary_factor {rope['partial_rotary_factor']} is not supported; 1.0 works.")
    needed, optional = SCALINGS[kind]
    unknown = sorted(set(rope) - needed - optional - ANYWHERE)
    if unknown and kind != "default":  # without scaling nothing reads them
        raise UserError(f"{where}: rope scaling {kind!r} with {', '.join(unknown)} is not supported.")
    for key in sorted(needed):
        if isinstance(rope.get(key), bool) or not isinstance(rope.get(key), int | float):
            raise UserError(f"{where}: rope scaling {kind!r} needs a number for {key}, not {rope.get(key)!r}.")
    original = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings") or context
    if kind == "linear":
        return theta, RopeScaling("linear", float(rope["factor"]))
    if kind == "llama3":
        low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
        return theta, RopeScaling("llama3", float(rope["factor"]), int(original), low, high)
    return theta, _read_yarn(rope, int(original), context) if kind == "yarn" else None


def _read_yarn(rope: Mapping[str, Any], original: int, context: int) -> RopeScaling:
    factor = float(rope.get("factor") or context / original)
    attention, mscale, mscale_all = (rope.get(key) for key in ("attention_factor", "mscale", "mscale_all_dim"))
    if attention is None and mscale and mscale_all:  # DeepSeek's way to state the same factor
        growth = 0.1 * math.log(factor) if factor > 1 else 0.0
        attention = (mscale * growth + 1.0) / (mscale_all * growth + 1.0)
    return RopeScaling(
        "yarn",
        factor,
        original,
        beta_fast=float(rope.get("beta_fast") or 32.0),
        beta_slow=float(rope.get("beta_slow") or 1.0),
        attention_factor=None if attention is None else float(attention),
        truncate=bool(rope.get("truncate", True)),
    )


def write_rope(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """Both spellings, which say the same.

    >>> write_rope(10000.0, None)
    {'rope_theta': 10000.0, 'rope_parameters': {'rope_type': 'default', 'rope_theta': 10000.0}}
    """
    if scaling is None:
        return {"rope_theta": theta, "rope_parameters": {"rope_type": "default", "rope_theta": theta}}
    rope: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        rope["original_max_position_embeddings"] = scaling.original_context
    if scaling.kind == "llama3":
        rope |= {"low_freq_factor": scaling.low_frequency_factor, "high_freq_factor": scaling.high_frequency_factor}
    if scaling.kind == "yarn":
        rope |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow, "truncate": scaling.truncate}
        if scaling.attention_factor is not None:
            rope["attention_factor"] = scaling.attention_factor
    return {"rope_theta": theta, "rope_scaling": rope, "rope_parameters": {**rope, "rope_theta": theta}}
