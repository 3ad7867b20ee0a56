"""Verifiers: rewards from rules that can be checked (RLVR). ``build`` makes one from its configuration."""

import difflib
from typing import NamedTuple

from pydantic import ValidationError

from trivium.config import VerifierConfig
from trivium.errors import UserError
from trivium.feedback.verifiers.answers import Choice, Exact, Length, Numeric, Regex
from trivium.feedback.verifiers.base import Verifier
from trivium.feedback.verifiers.function import Function
from trivium.feedback.verifiers.primer import Primer
from trivium.feedback.verifiers.slot_analysis import SlotReport, slot_error_rate, slot_report
from trivium.feedback.verifiers.slots import Slots
from trivium.feedback.verifiers.weighted import Weighted

__all__ = ["KINDS", "Kind", "SlotReport", "Verifier", "build", "slot_error_rate", "slot_report"]


class Kind(NamedTuple):
    """A verifier's class, what it checks, and its options in a recipe."""

    verifier: type[Verifier]
    help: str
    example: str


KINDS: dict[str, Kind] = {
    "numeric": Kind(
        Numeric,
        "the number after the only final marker equals the reference",
        "{kind: numeric, options: {marker: '####'}}",
    ),
    "exact": Kind(
        Exact, "the response equals the reference, after normalisation", "{kind: exact, options: {ignore_case: true}}"
    ),
    "regex": Kind(Regex, "a pattern is found in the response", "{kind: regex, options: {pattern: '^yes'}}"),
    "choice": Kind(
        Choice, "the tagged letter is the right choice", "{kind: choice, options: {letters: ABCD, tag: answer}}"
    ),
    "slots": Kind(Slots, "a restaurant text states all slots of its meaning representation", "{kind: slots}"),
    "length": Kind(
        Length, "the response is about as long as wanted", "{kind: length, options: {target: 20, penalty: 0.05}}"
    ),
    "function": Kind(Function, "a Python function of yours", "{kind: function, options: {path: 'rewards.py:score'}}"),
    "primer": Kind(Primer, "the primer's problems, by their task", "{kind: primer}"),
    "weighted": Kind(
        Weighted,
        "the weighted sum of other verifiers",
        "{kind: weighted, options: {parts: {right: {kind: primer}, brief: {kind: length, weight: 0.2, …}}}}",
    ),
}

# Kinds that are no verifiers, and where they can be used.
ELSEWHERE = {
    "reward_model": "a reward_model scores only as a part of rl's rewards, as watch.held_out or as watch.gold",
    "judge": "a judge scores only as a part of rl's rewards or as watch.held_out",
    "majority": "a majority vote needs a group of rollouts, so it is a part of rl's rewards alone",
}


def build(config: VerifierConfig) -> Verifier:
    """The verifier that ``config`` names. ``config.weight`` is for whoever sums the parts of a reward.

    Raises UserError for an unknown kind or option (with the nearest name), a wrong value, or a function that does not
    load.
    """
    if config.kind in ELSEWHERE:
        raise UserError(f"{ELSEWHERE[config.kind]}; use a verifier here")
    if config.kind not in KINDS:
        raise UserError(f"there is no verifier {config.kind!r}{_nearest(config.kind, list(KINDS))}")
    verifier = KINDS[config.kind].verifier
    try:
        return verifier.model_validate(config.options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            hint = _nearest(name, list(verifier.model_fields))
            raise UserError(f"verifier {config.kind}: there is no option {name!r}{hint}.") from None
        raise UserError(f"verifier {config.kind}: option {name!r}: {first['msg']}.") from None


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}"
    return f"; choose from {', '.join(names)}" if names else "; it has no options"
