"""The over-optimisation watch of an RL stage: which checkpoint was best, and when there is no use in going on.

The reward that is trained on (the *proxy*) nearly always rises; whether the answers became better is another matter.
So the policy is *observed* now and then: the same held-out prompts, the same random draws, and beside the proxy an
independent *judge*, which is the held-out score, or the gold score where there is no held-out one. This is the
bookkeeping alone, no models: numbers in, a decision out, equal numbers giving equal decisions.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.files import write_json

if TYPE_CHECKING:
    from trivium.config import WatchConfig

JUDGES = ("held_out", "gold")


class Watch:
    """Takes observations in the order of their steps and says after each whether to stop.

    ``judge`` names the score that decides: "held_out", "gold", or None where there is neither.

    An observation *falls* when the judge has dropped below its best value by more than the noise of that difference
    while the proxy stands above where it was at the best observation. ``config.patience`` of these in a row give a
    ``reason`` to stop; so does one observation with a KL above ``config.kl_budget``. The noise is one standard error
    of a difference, from the ``held_out_se`` (or ``gold_se``) of the two observations, and zero where they have none.

    The best observation is the one with the highest judge among those within the KL budget, the earliest of equals.
    Without a judge nothing can be compared, and it is the last one within the KL budget.

    >>> from trivium.config import WatchConfig
    >>> watch = Watch(WatchConfig(patience=2), "held_out")
    >>> for step, (proxy, held_out) in enumerate([(0, 0), (1, 0.5), (2, 0.4), (3, 0.3)]):
    ...     watch.observe(10 * step, {"proxy": proxy, "held_out": held_out})
    >>> watch.best_step
    10
    >>> watch.reason
    'held-out score 0.3 at step 30 is 0.2 below its best (0.5 at step 10) while the proxy rose from 1 to 3'
    """

    def __init__(self, config: "WatchConfig", judge: str | None = None):
        if judge and judge not in JUDGES:
            raise ValueError(f"a watch is judged by one of {JUDGES} or by nothing, not by {judge!r}")
        self.config = config
        self.judge = judge or None
        self._begin()

    def _begin(self) -> None:
        self.observations: list[dict[str, Any]] = []
        self.reason = ""  # why to stop; once there is a reason it stays
        self.is_best = False  # whether the last observation is the best so far
        self._best: dict[str, Any] | None = None
        self._falling = 0  # falling observations in a row

    @property
    def best_step(self) -> int | None:
        return None if self._best is None else int(self._best["step"])

    def observe(self, step: int, values: Mapping[str, float | None]) -> None:
        """Take the observation of the policy after ``step`` updates.

        ``values`` has ``proxy`` and, as far as they are known, ``held_out``, ``gold``, ``kl`` (nats a response, to the
        reference), ``length`` (tokens) and anything else worth charting; for each score ``NAME_se``, the standard
        error of its mean, and ``NAME_std``, the standard deviation of the responses, in which the report draws its
        changes. A value that is not finite is kept as null, and like a missing one it says nothing: without a judge
        or a proxy an observation is neither best nor falling, and the count in a row goes on after it. Steps must
        rise: ValueError.
        """
        if self.observations and step <= self.observations[-1]["step"]:
            raise ValueError(f"step {step} is observed after step {self.observations[-1]['step']}")
        now: dict[str, Any] = {"step": int(step)} | {name: _finite(value) for name, value in values.items()}
        self.observations.append(now)
        over_budget = self._over_budget(now)
        self.is_best = not over_budget and self._better(now)
        if self.is_best:
            self._best = now
        self._count(now)
        if not self.reason and over_budget:
            self.reason = (
                f"the KL to the reference, {now['kl']:.4g} nats a response at step {step}, exceeds the budget of "
                f"{self.config.kl_budget:.4g}"
            )
        elif not self.reason and self.config.stop and self._falling >= self.config.patience:
            self.reason = self._fall_in_words(now)

    def _over_budget(self, now: Mapping[str, Any]) -> bool:
        budget, kl = self.config.kl_budget, now.get("kl")
        return budget is not None and kl is not None and kl > budget

    def _better(self, now: Mapping[str, Any]) -> bool:
        if self.judge is None:
            return True
        score = now.get(self.judge)
        return score is not None and (self._best is None or score > self._best[self.judge])

    def _count(self, now: Mapping[str, Any]) -> None:
        """Falling observations in a row, with ``now``."""
        if self.is_best:
            self._falling = 0
        if self.judge is None or self._best is None or self.is_best:
            return
        score, proxy, proxy_at_best = now.get(self.judge), now.get("proxy"), self._best.get("proxy")
        if score is None or proxy is None or proxy_at_best is None:
            return
        noise = math.hypot(now.get(f"{self.judge}_se") or 0.0, self._best.get(f"{self.judge}_se") or 0.0)
        falls = self._best[self.judge] - score > noise and proxy > proxy_at_best
        self._falling = self._falling + 1 if falls else 0

    def _fall_in_words(self, now: Mapping[str, Any]) -> str:
        assert self._best is not None and self.judge is not None
        name, best = self.judge.replace("_", "-"), self._best
        return (
            f"{name} score {now[self.judge]:.4g} at step {now['step']} is {best[self.judge] - now[self.judge]:.4g} "
            f"below its best ({best[self.judge]:.4g} at step {best['step']}) while the proxy rose from "
            f"{best['proxy']:.4g} to {now['proxy']:.4g}"
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON. Every decision follows from the observations, so they are all of it."""
        return {"observations": [dict(observation) for observation in self.observations]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` gave, in place of what was observed here."""
        self._begin()
        for observation in state["observations"]:
            values = {name: value for name, value in observation.items() if name != "step"}
            self.observe(observation["step"], values)

    def write(self, path: Path, kept_step: int | None = None) -> None:
        """Write ``watch.json``. ``kept_step`` is the step whose weights became the stage's model, once it is known."""
        write_json(
            path,
            {
                "judge": self.judge,
                "best_step": self.best_step,
                "kept_step": kept_step,
                "stopped": self.reason or None,
                "observations": self.observations,
            },
        )


def _finite(value: float | None) -> float | None:
    """``value`` as a number that JSON knows; what is not finite becomes None."""
    return float(value) if value is not None and math.isfinite(value) else None
