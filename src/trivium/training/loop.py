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
from typing import Any, TypeVar

import torch
from torch import Tensor

from trivium import files
from trivium.config import TrainingConfig
from trivium.errors import UserError
from trivium.model.decoder import Decoder
from trivium.training import checkpoint, distributed
from trivium.training.optimizer import build_optimizers, schedule_factor, set_learning_rate

Micro = TypeVar("Micro")
Loss = Callable[[Micro], tuple[Tensor, dict[str, Tensor]]]
Metrics = dict[str, float]


class Loop:
    """``updates_per_step``: optimiser updates in one step of the stage (rl: epochs times minibatches).

    ``validate`` is called with the decoder in eval mode and returns metrics. ``reference``, the policy that rl compares
    with, is sharded and checkpointed beside the decoder.
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
        reference: Decoder | None = None,
    ) -> None:
        self.directory, self.decoder, self.config, self.progress = directory, decoder, config, progress
        self.validate, self.reference = validate, reference
        self.device = decoder.embedding.weight.device
        self.precision = torch.bfloat16 if config.precision == "bfloat16" else None
        decoder.gradient_checkpointing = config.gradient_checkpointing
        distributed.shard(decoder, self.precision)
        if reference is not None:
            distributed.shard(reference, self.precision)
        if config.compile:
            for block in decoder.blocks:
                block.compile(dynamic=True)
        self.optimizers = build_optimizers(decoder, config.optimizer)
        self.updates, self.all_updates = 0, config.steps * updates_per_step
        self.tokens, self.skipped, self.skipped_in_a_row = 0, 0, 0
        self.seconds, self.metrics_file = 0.0, directory / "metrics.jsonl"
        self.window: list[Metrics] = []
        self.window_started = 0.0
        self.window_tokens = 0
        self.last: dict[str, Metrics] = {"train": {}, "validation": {}}
        self.phases: Metrics = {}
        self.interrupted = False

    # ---- what a stage calls -------------------------------------------------------------------------------------

    def steps(self) -> Iterator[int]:
        """The steps still to do, from the newest checkpoint on. After each: log, validate, checkpoint, when due."""
        start = self._resume()
        self.progress.stage(self.directory.name, self.config.steps, start)
        with self._stop_on_interrupt():
            began = self.window_started = time.perf_counter()
            for step in range(start, self.config.steps):
                self.decoder.train()
                yield step
                done = step + 1
                self.progress.advance(done, self.window[-1] if self.window else {})
                if done % self.config.log_every == 0 or done == self.config.steps:
                    self._log(done)
                if self.validate and self._due(self.config.evaluate_every, done):
                    self._validate(done)
                now = time.perf_counter()
                self.seconds, began = self.seconds + now - began, now
                interrupted = self._agree_to_stop()
                if self._due(self.config.checkpoint_every, done) or interrupted:
                    self._save(done)
                if interrupted:
                    raise KeyboardInterrupt

    def update(
        self, micro_batches: Sequence[Micro], loss: Loss[Micro], tokens: int, metrics: Metrics | None = None
    ) -> Metrics:
        """One optimiser update from the losses of this rank's ``micro_batches``; returns the update's metrics.

        ``loss(micro_batch)`` gives a scalar that is a *sum over global denominators*, and metrics that add up over
        micro-batches and ranks (names that begin with ``max/`` take the maximum). The gradients are then those of the
        whole batch, however it is cut. A non-finite gradient skips the update; ``max_nonfinite`` of those in a row end
        the run.
        ``tokens`` are the batch's tokens over all ranks; ``metrics`` of the stage are logged beside.
        """
        factor = schedule_factor(self.updates, self.all_updates, self.config.schedule)
        set_learning_rate(self.optimizers, factor)
        totals: dict[str, Tensor] = {}
        for micro_batch in micro_batches:
            with self.autocast():
                value, parts = loss(micro_batch)
            # fully_shard averages gradients over the ranks; the loss is a global sum, so undo the division
            (value * distributed.world_size()).backward()
            for name, part in {"loss": value.detach(), **parts}.items():
                if name.startswith("max/"):
                    totals[name] = torch.maximum(totals[name], part) if name in totals else part
                else:
                    totals[name] = totals[name] + part if name in totals else part
        norm = self._step_optimizers()
        self.updates += 1
        self.tokens += tokens
        self.window_tokens += tokens
        rate = self.optimizers[-1].param_groups[0]["lr"]
        result = {**(metrics or {}), **self._reduce(totals), "gradient_norm": norm, "learning_rate": rate}
        self.window.append(result)
        return result

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

    def summary(self, metric: str, more: Mapping[str, float]) -> dict[str, Any]:
        """The stage's entry of summary.json: cost, and the last value of ``metric`` (held out, where there is any)."""
        better = "higher" if metric == "reward" else "lower"
        last = self.last["validation"] if metric in self.last["validation"] else self.last["train"]
        return {
            "seconds": round(self.seconds, 2),
            "steps": self.config.steps,
            "tokens": self.tokens,
            "parameters": sum(parameter.numel() for parameter in self.decoder.parameters()),
            "skipped": self.skipped,
            "metric": {"name": metric, "value": last.get(metric), "better": better},
            "train": self.last["train"],
            "validation": self.last["validation"],
            **more,
        }

    # ---- one update ---------------------------------------------------------------------------------------------

    def _step_optimizers(self) -> float:
        parameters = [parameter for parameter in self.decoder.parameters() if parameter.grad is not None]
        limit = self.config.clip or math.inf
        norm = float(distributed.full_tensor(torch.nn.utils.clip_grad_norm_(parameters, limit)))
        if math.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
            self.skipped_in_a_row = 0
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        if self.skipped_in_a_row >= self.config.max_nonfinite:
            raise UserError(
                f"{self.directory.name}: {self.skipped_in_a_row} updates in a row had a loss or gradient that is not "
                f"finite (update {self.updates + 1}); lower the learning rate, lengthen the warm-up or use float32"
            )
        return norm

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
        return done == self.config.steps or (every > 0 and done % every == 0)

    def _write(self, step: int, split: str, metrics: Metrics, timing: Metrics) -> None:
        self.last[split] = metrics
        if not distributed.is_main():
            return
        # JSON has no NaN: a number that is not finite is written as null, and the skip count tells
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        with open(self.metrics_file, "a") as file:
            file.write(json.dumps({"step": step, "split": split, **finite, "timing": timing}) + "\n")

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
        return {
            **{f"model.{name}": parameter.detach() for name, parameter in self.decoder.named_parameters()},
            **checkpoint.optimizer_tensors(self.decoder, self.optimizers),
            **{f"reference.{name}": value.detach() for name, value in reference},
        }

    def _counters(self) -> dict[str, Any]:
        names = ("updates", "tokens", "skipped", "skipped_in_a_row", "seconds", "window", "window_tokens", "last")
        return {name: getattr(self, name) for name in names}

    def _save(self, step: int) -> None:
        size = 0
        if distributed.is_main() and self.metrics_file.exists():
            files.sync(self.metrics_file)  # the checkpoint must not be on the disk before the lines it counts
            size = self.metrics_file.stat().st_size
        state = {"counters": self._counters(), "metrics_bytes": size}
        checkpoint.save(self.directory / "checkpoints", step, self._tensors(), state, self.config.keep_checkpoints)

    def _resume(self) -> int:
        """Restore the newest checkpoint; returns the step to begin with. Later lines of the metrics are cut off."""
        checkpoint.prepare_state(self.optimizers)
        step = checkpoint.latest_step(self.directory / "checkpoints")
        distributed.barrier()
        if step is None:
            if distributed.is_main():
                self.metrics_file.unlink(missing_ok=True)
            return 0
        state = checkpoint.load(self.directory / "checkpoints", step, self._tensors())
        for name, value in state["counters"].items():
            setattr(self, name, value)
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
