"""The one training loop: resume, accumulate, clip, guard, step, log, validate, checkpoint.

A stage iterates over ``loop.steps()`` and calls ``loop.update(...)`` as often as its algorithm updates:

    loop = Loop(context, decoder)
    for step in loop.steps():
        batch = ...                         # a function of `step` alone, so a resume needs no more than the step
        loop.update(micro_batches, loss)              # losses are sums over global denominators
"""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from trivium import files
from trivium.config import OptimizerConfig, TrainingConfig
from trivium.errors import UserError
from trivium.model.decoder import Decoder
from trivium.training import checkpoint, distributed
from trivium.training.footprint import footprint
from trivium.training.optimizer import build_optimizers, schedule_factor, set_learning_rate

Micro = TypeVar("Micro")
Loss = Callable[[Micro], tuple[Tensor, dict[str, Tensor]]]
Metrics = dict[str, float]
BUDGETS = {"tokens": "tokens trained on", "generated": "generated tokens", "seconds": "seconds"}


class Stateful(Protocol):
    """What a stage keeps from step to step besides weights (running statistics, a watch); the state is plain JSON."""

    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any], /) -> None: ...


class Loop:
    """``updates_per_step``: optimiser updates in one step of the stage (rl: epochs times minibatches).

    ``validate`` is called with the decoder in eval mode and returns metrics; ``validate_first``:
    also before the first step. ``reference``, the policy that rl compares with, is sharded and checkpointed beside the
    decoder. So is ``critic``, a second model that learns in the same updates: by AdamW of its own at ``critic_lr``,
    which follows the schedule too, and with its own gradient norm to clip. ``stateful`` goes into the checkpoints.
    """

    def __init__(
        self,
        directory: Path,
        decoder: Decoder,
        config: TrainingConfig,
        *,
        progress: Any,
        updates_per_step: int = 1,
        validate: Callable[[], Metrics] | None = None,
        validate_first: bool = False,
        reference: Decoder | None = None,
        critic: Decoder | None = None,
        critic_lr: float = 0.0,
        stateful: Mapping[str, Stateful] | None = None,
    ) -> None:
        self.directory, self.decoder, self.config, self.progress = directory, decoder, config, progress
        self.validate, self.validate_first, self.reference, self.critic = validate, validate_first, reference, critic
        self.stateful = stateful or {}
        self.held: list[Decoder] = []  # models of the stage that are whole on every rank, for its footprint
        self.device = decoder.embedding.weight.device
        self.precision = torch.bfloat16 if config.precision == "bfloat16" else None
        if reference is not None:
            distributed.shard(reference, self.precision)
        self.optimizers = self._prepare(decoder, config.optimizer)
        self.critic_optimizers: list[torch.optim.Optimizer] = []
        if critic is not None:
            own = config.optimizer.model_copy(update={"name": "adamw", "lr": critic_lr})
            self.critic_optimizers = self._prepare(critic, own)
        self.updates, self.all_updates = 0, config.steps * updates_per_step
        self.done, self.stopped = 0, ""  # steps, and why the stage ended before all of them
        self.left_out = 0  # steps without an update
        self.tokens, self.generated, self.skipped, self.skipped_in_a_row = 0, 0, 0, 0
        self.seconds, self.metrics_file = 0.0, directory / "metrics.jsonl"
        self.window: list[Metrics] = []
        self.window_started = 0.0
        self.window_tokens = 0
        self.last: dict[str, Metrics] = {"train": {}, "validation": {}}
        self.phases: Metrics = {}
        self.interrupted = False

    def _prepare(self, model: Decoder, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
        """Make a model ready to learn: sharded, compiled where asked for; returns its optimisers."""
        model.gradient_checkpointing = self.config.gradient_checkpointing
        distributed.shard(model, self.precision)
        if self.config.compile:
            model.compile_blocks()
        return build_optimizers(model, config)

    # ---- what a stage calls -------------------------------------------------------------------------------------

    def steps(self) -> Iterator[int]:
        """The steps still to do, from the newest checkpoint on. After each: log, validate, checkpoint, when due."""
        self.done = start = self._resume()
        self.progress.stage(self.directory.name, self.config.steps, start)
        with self._stop_on_interrupt():
            began = self.window_started = time.perf_counter()
            if self.validate_first and start == 0:
                self._validate(0)
            for step in range(start, self.config.steps):
                if self.stopped:
                    break
                self.decoder.train()
                if self.critic is not None:
                    self.critic.train()
                yield step
                self.done = done = step + 1
                self._check_budget(time.perf_counter() - began)
                self.progress.advance(done, self.window[-1] if self.window else {})
                if self._due(self.config.log_every, done):
                    self._log(done)
                if self.validate and self._due(self.config.evaluate_every, done):
                    self._validate(done)
                if self.stopped:
                    self._log(done)  # what a validation that ended the stage has left unlogged
                now = time.perf_counter()
                self.seconds, began = self.seconds + now - began, now
                interrupted = self._agree_to_stop()
                if self._due(self.config.checkpoint_every, done) or interrupted:
                    self._save(done)
                if interrupted:
                    raise KeyboardInterrupt
        if (tried := self.updates - self.left_out) and self.skipped == tried:
            raise UserError(
                f"{self.directory.name}: none of its {tried} updates had a finite gradient: nothing was "
                "learned; lower the learning rate, or use float32"
            )

    def _check_budget(self, since: float) -> None:
        """End the stage where its budget is spent; ``since``: seconds that are not yet in ``seconds``."""
        budget = self.config.budget
        if budget is None or self.done == self.config.steps:
            return
        # the clocks of the ranks differ, and all must end with the same step
        own = torch.tensor(self.seconds + since, device=self.device)
        seconds = float(distributed.max_over_ranks(own)) if budget.seconds is not None else 0.0
        spent = {"tokens": self.tokens, "generated": self.generated, "seconds": seconds}
        for name, value in spent.items():
            limit = getattr(budget, name)
            if limit is not None and value >= limit:
                steps = f"{self.done} step" if self.done == 1 else f"{self.done} steps"
                self.finish(f"the budget of {limit:,} {BUDGETS[name]} was spent after {steps}")
                self.progress.note(f"{self.directory.name} ends early: {self.stopped}")
                return

    def finish(self, reason: str) -> None:
        """End the stage with the present step (all ranks must call): it is logged and saved as the last one is.

        Callable from within a step or from ``validate``; the ``reason`` goes into the checkpoint, so that a resumed
        stage does not go on.
        """
        self.stopped = self.stopped or reason

    def update(
        self,
        micro_batches: Sequence[Micro],
        loss: Loss[Micro] | None,
        tokens: int,
        metrics: Metrics | None = None,
        critic_loss: Loss[Micro] | None = None,
    ) -> Metrics:
        """One optimiser update from the losses of this rank's ``micro_batches``; returns the update's metrics.

        ``loss(micro_batch)`` gives a scalar that is a *sum over global denominators*, and metrics that add up over
        micro-batches and ranks (names that begin with ``max/`` take the maximum). The gradients are then those of the
        whole batch, however it is cut. A non-finite gradient skips the update; ``max_nonfinite`` of those in a row end
        the run.
        ``critic_loss`` is the critic's, of the same micro-batches; a non-finite gradient of either model skips both.
        Without a ``loss`` the decoder stays as it is.
        ``tokens`` are the batch's tokens over all ranks; ``metrics`` of the stage are logged beside.
        """
        factor = schedule_factor(self.updates, self.all_updates, self.config.schedule)
        set_learning_rate(self.optimizers + self.critic_optimizers, factor)
        totals: dict[str, Tensor] = {}
        losses = [(name, given) for name, given in (("loss", loss), ("value_loss", critic_loss)) if given is not None]
        for micro_batch in micro_batches:
            for kind, compute in losses:  # one model after the other: only one graph is held at a time
                with self.autocast():
                    value, parts = compute(micro_batch)
                # fully_shard averages gradients over the ranks; the loss is a global sum, so undo the division
                (value * distributed.world_size()).backward()
                for name, part in {kind: value.detach(), **parts}.items():
                    if name.startswith("max/"):
                        totals[name] = torch.maximum(totals[name], part) if name in totals else part
                    else:
                        totals[name] = totals[name] + part if name in totals else part
        norms = self._step_optimizers()
        self.updates += 1
        self.tokens += tokens
        self.window_tokens += tokens
        rate = self.optimizers[-1].param_groups[0]["lr"]
        result = {**(metrics or {}), **self._reduce(totals), **norms, "learning_rate": rate}
        self.window.append(result)
        return result

    def leave_out(self) -> None:
        """A step without an update: the learning rate goes on as if there had been one."""
        self.updates += 1
        self.left_out += 1

    def autocast(self) -> AbstractContextManager[Any]:
        """The compute type of the recipe; under FSDP its mixed-precision policy does the casting."""
        if self.precision is None or distributed.world_size() > 1:
            return nullcontext()
        return torch.autocast(self.device.type, self.precision)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of a part of the step; it is logged as ``timing.<name>_seconds``."""
        began = time.perf_counter()
        yield  # no `finally`: the time of a phase that failed is of no use
        self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - began

    def summary(self, metric: str, more: Mapping[str, Any], better: str = "lower") -> dict[str, Any]:
        """The stage's entry of summary.json: cost, and the last value of ``metric`` (held out, where there is any).
        ``better``: whether the "lower" or the "higher" value is."""
        others = [self.reference, self.critic, *self.held * distributed.world_size()]
        last = self.last["validation"] if metric in self.last["validation"] else self.last["train"]
        return {
            "seconds": round(self.seconds, 2),
            "steps": self.done,
            "tokens": self.tokens,
            **({"generated": self.generated} if self.generated else {}),
            **footprint(self.decoder, others, self.optimizers + self.critic_optimizers),
            "skipped": self.skipped,
            "metric": {"name": metric, "value": finite(last).get(metric), "better": better},
            "train": finite(self.last["train"]),
            "validation": finite(self.last["validation"]),
            **({"stopped": self.stopped} if self.stopped else {}),
            **more,
        }

    # ---- one update ---------------------------------------------------------------------------------------------

    def _step_optimizers(self) -> Metrics:
        norms = {"gradient_norm": self._clip(self.decoder)}
        if self.critic is not None:
            norms["critic_gradient_norm"] = self._clip(self.critic)
        optimizers = self.optimizers + self.critic_optimizers
        if all(map(math.isfinite, norms.values())):
            for optimizer in optimizers:
                optimizer.step()
            self.skipped_in_a_row = 0
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        if self.skipped_in_a_row >= self.config.max_nonfinite:
            raise UserError(
                f"{self.directory.name}: {self.skipped_in_a_row} updates in a row had a loss or gradient that is not "
                f"finite (update {self.updates + 1}); lower the learning rate, lengthen the warm-up or use float32"
            )
        return norms

    def _clip(self, model: Decoder) -> float:
        """Clip the gradients of one model by their norm, which is returned as it was; 0 without any gradient."""
        parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
        limit = self.config.clip or math.inf
        return float(distributed.full_tensor(torch.nn.utils.clip_grad_norm_(parameters, limit)))

    def _reduce(self, totals: dict[str, Tensor]) -> Metrics:
        sums = sorted(name for name in totals if not name.startswith("max/"))
        peaks = sorted(name for name in totals if name.startswith("max/"))
        reduced: Metrics = {}
        for names, over_ranks in ((sums, distributed.sum_over_ranks), (peaks, distributed.max_over_ranks)):
            if names:
                values = over_ranks(torch.stack([totals[name].detach().double() for name in names])).tolist()
                reduced.update({name.removeprefix("max/"): value for name, value in zip(names, values, strict=True)})
        return reduced

    # ---- logging ------------------------------------------------------------------------------------------------

    def _due(self, every: int, done: int) -> bool:
        return done == self.config.steps or bool(self.stopped) or (every > 0 and done % every == 0)

    def _write(self, step: int, split: str, metrics: Metrics, timing: Metrics) -> None:
        self.last[split] = metrics
        if not distributed.is_main():
            return
        with open(self.metrics_file, "a") as file:
            file.write(json.dumps({"step": step, "split": split, **finite(metrics), "timing": timing}) + "\n")

    def _log(self, step: int) -> None:
        now = time.perf_counter()
        if self.window:
            names = dict.fromkeys(name for entry in self.window for name in entry)
            means = {}
            for name in names:
                values = [entry[name] for entry in self.window if name in entry]
                means[name] = sum(values) / len(values)
            rate = self.window_tokens / max(now - self.window_started, 1e-9)
            phases = {f"{name}_seconds": round(seconds, 3) for name, seconds in self.phases.items()}
            timing = {"seconds": round(self.seconds, 3), "tokens_per_second": round(rate, 1), **phases}
            self._write(step, "train", {**means, "tokens": self.tokens, "skipped": self.skipped}, timing)
        self.window, self.window_tokens, self.window_started, self.phases = [], 0, now, {}

    def _validate(self, step: int) -> None:
        assert self.validate is not None
        self.decoder.eval()
        with torch.no_grad(), self.autocast():
            metrics = self.validate()
        self._write(step, "validation", metrics, {"seconds": round(self.seconds, 3)})

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def _tensors(self) -> dict[str, Tensor]:
        reference = self.reference.named_parameters() if self.reference is not None else ()
        learnt = _learnt_tensors(self.decoder, self.optimizers)
        if self.critic is not None:
            critic = _learnt_tensors(self.critic, self.critic_optimizers)
            learnt |= {f"critic.{name}": value for name, value in critic.items()}
        return learnt | {f"reference.{name}": value.detach() for name, value in reference}

    def _counters(self) -> dict[str, Any]:
        counts = ("updates", "left_out", "tokens", "generated", "skipped", "skipped_in_a_row")
        logging = ("seconds", "window", "window_tokens", "last", "stopped")
        return {name: getattr(self, name) for name in counts + logging}

    def _save(self, step: int) -> None:
        size = 0
        if distributed.is_main() and self.metrics_file.exists():
            files.sync(self.metrics_file)  # the checkpoint must not be on the disk before the lines it counts
            size = self.metrics_file.stat().st_size
        state = {"counters": self._counters(), "metrics_bytes": size}
        if self.stateful:
            state["stage"] = {name: item.state() for name, item in self.stateful.items()}
        checkpoint.save(self.directory / "checkpoints", step, self._tensors(), state, self.config.keep_checkpoints)

    def _resume(self) -> int:
        """Restore the newest checkpoint; returns the step to begin with. Later lines of the metrics are cut off."""
        checkpoint.prepare_state(self.optimizers + self.critic_optimizers)
        step = checkpoint.latest_step(self.directory / "checkpoints")
        distributed.barrier()
        if step is None:
            if distributed.is_main():
                self.metrics_file.unlink(missing_ok=True)
            return 0
        state = checkpoint.load(self.directory / "checkpoints", step, self._tensors())
        for name, value in state["counters"].items():
            setattr(self, name, value)
        for name, item in self.stateful.items():
            item.restore(state["stage"][name])
        if distributed.is_main() and self.metrics_file.exists():
            os.truncate(self.metrics_file, state["metrics_bytes"])
        return step

    def _agree_to_stop(self) -> bool:
        """Whether any rank was interrupted: the signal reaches them in different steps, they must stop in the same."""
        return bool(distributed.max_over_ranks(torch.tensor(float(self.interrupted), device=self.device)))

    def _stop_on_interrupt(self) -> AbstractContextManager[None]:
        if threading.current_thread() is not threading.main_thread():
            return nullcontext()
        return _Interrupt(self)


def finite(metrics: Metrics) -> dict[str, float | None]:
    """JSON has no NaN: a number that is not finite becomes null, and the count of skipped updates tells."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _learnt_tensors(model: Decoder, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Weights that learn (what is frozen under adapters is loaded anew from where the stage begins), and moments."""
    learnt = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = {f"model.{name}": parameter.detach() for name, parameter in learnt.items()}
    return {**parameters, **checkpoint.optimizer_tensors(model, optimizers)}


class _Interrupt(AbstractContextManager[None]):
    """The first Ctrl-C finishes the step and saves a checkpoint; the second stops at once."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGINT, self._handle)

    def _handle(self, *_: Any) -> None:
        if self.loop.interrupted:
            raise KeyboardInterrupt
        self.loop.interrupted = True

    def __exit__(self, *_: Any) -> None:
        signal.signal(signal.SIGINT, self.before)
