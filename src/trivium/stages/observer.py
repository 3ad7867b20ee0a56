"""The over-optimisation watch at work in an RL stage: observe the policy, keep the best weights."""

import math
import os
import shutil
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from trivium.config import RLConfig, VerifierConfig
from trivium.errors import UserError
from trivium.model.decoder import Decoder
from trivium.model.huggingface import save_model
from trivium.model.lora import WithoutAdapters
from trivium.objectives.kl import kl_estimate
from trivium.stages.context import StageContext, save_own_adapter
from trivium.stages.monitor import main_metric
from trivium.stages.sampler import Asked, Sampler, was_cut_short
from trivium.training import distributed
from trivium.training.policy import Group, own_length, own_log_probs, score_groups
from trivium.training.watch import Watch


class Observer:
    """Samples responses to the validation prompts, always with the same random draws, and tells the watch their scores.

    The proxy is the reward that is trained on, without KL and penalties; ``held_out`` and ``gold`` are the watch's own
    scorers. The KL is that to the stage's reference policy. Every rank makes the same observations.
    """

    def __init__(
        self,
        context: StageContext,
        sampler: Sampler,
        reference: Decoder | WithoutAdapters | None,
        asked: Sequence[Asked],
        device: torch.device,
    ) -> None:
        config: RLConfig = context.config
        self.context, self.sampler, self.reference, self.asked, self.device = context, sampler, reference, asked, device
        self.config, self.metric = config, main_metric(config)
        named: dict[str, VerifierConfig | None] = {"held_out": config.watch.held_out, "gold": config.watch.gold}
        self.scorers = {name: sampler.function({name: scorer}, "watch.") for name, scorer in named.items() if scorer}
        self.watch = Watch(config.watch, config.watch.judge or next(iter(self.scorers), None))
        # nothing to compare by, and no budget: the best is the last one, whose weights the loop still has
        self.keeps = config.watch.keep_best and (self.watch.judge is not None or config.watch.kl_budget is not None)
        self.in_checkpoint: int | None = None  # the best step as the newest checkpoint knows it
        self.kept_step: int | None = None

    # ---- observations ----------------------------------------------------------------------------------------------

    def observe(self, step: int, greedy: dict[str, float]) -> dict[str, float]:
        """Observe the weights the sampler has now; returns the metrics of validation. ``greedy``: charted beside."""
        groups, _ = self.sampler.rollouts(self.asked, "watch", 0, self.config.watch.samples)
        self.sampler.check_judged(groups, f"the observation at step {step}")
        rollouts = [rollout for group in groups for rollout in group]
        valid = [[rollout.reward for rollout in group if rollout.status != "infra_error"] for group in groups]
        scores = {"proxy": valid, **{name: self._scores(name, groups) for name in self.scorers}}
        values: dict[str, float] = {}
        for name, of_prompts in scores.items():
            means = [statistics.fmean(found) for found in of_prompts if found]
            values[name] = statistics.fmean(value for found in of_prompts for value in found)
            values[f"{name}_std"] = statistics.pstdev(value for found in of_prompts for value in found)
            values[f"{name}_se"] = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0
        metrics = values | self._kl(groups)
        metrics["sampled_length"] = statistics.fmean(own_length(rollout) for rollout in rollouts)
        metrics["sampled_truncated_share"] = statistics.fmean(rollout.finish_reason == "length" for rollout in rollouts)
        kl = {"kl": metrics["kl_response"]} if self.reference is not None else {}
        more = {"length": metrics["sampled_length"], "truncated_share": metrics["sampled_truncated_share"]}
        metric = {name: value for name, value in greedy.items() if name in ("reward", self.metric)}
        self.watch.observe(step, {**values, **kl, **more, **metric})
        self._save_best(step)
        return metrics

    def _scores(self, name: str, groups: Sequence[Group]) -> list[list[float]]:
        """Scores of a scorer by prompt, without infrastructure errors; ranks share the work."""
        scorer = self.scorers[name]
        whole = [[rollout for rollout in group if not was_cut_short(rollout)] for group in groups]
        pairs = [(prompt, r) for (prompt, _), group in zip(self.asked, whole, strict=True) for r in group]
        own = scorer.score(pairs[distributed.rank() :: distributed.world_size()])
        rewards = distributed.gather_in_order(own, len(pairs))
        if not any(reward.valid for reward in rewards):
            raise UserError(
                f"{self.context.name}.watch.{name}: no response could be judged ({scorer.failure}); choose a scorer "
                "that suits the answers"
            )
        each = iter(rewards)
        judged = [[next(each) for _ in group] for group in whole]
        return [[reward.total for reward in group if reward.valid] for group in judged]

    def _kl(self, groups: Sequence[Group]) -> dict[str, float]:
        """KL to the reference in nats a response: mean over responses of the summed k1, and of the summed k3."""
        if self.reference is None:
            return {}
        scored = score_groups(self.reference, groups, self.sampler.settings, self.config, self.device)
        pairs = [
            (torch.tensor(own_log_probs(rollout)), piece)
            for group, pieces in zip(groups, scored, strict=True)
            for rollout, piece in zip(group, pieces, strict=True)
            if not was_cut_short(rollout)
        ]
        sums = {
            estimator: statistics.fmean(float(kl_estimate(*pair, estimator).double().sum()) for pair in pairs)
            for estimator in ("k1", "k3")
        }
        return {"kl_response": sums["k1"], "kl_response_k3": sums["k3"]}

    # ---- the best weights ------------------------------------------------------------------------------------------

    def _save_best(self, step: int) -> None:
        if distributed.is_main():
            self.watch.write(self.context.directory / "watch.json")
            if self.keeps and self.watch.is_best:
                # a checkpoint may still name an older one; what none names can go
                for place in (self.context.directory / "best").glob("step-*"):
                    if place.name not in (f"step-{step}", f"step-{self.in_checkpoint}"):
                        shutil.rmtree(place)
                        shutil.rmtree(place.parent / place.name.replace("step", "adapter"), ignore_errors=True)
                whole, place = self.sampler.engine.decoder, self.context.directory / f"best/step-{step}"
                save_own_adapter(self.context, whole, place.parent / f"adapter-{step}")
                save_model(whole, place, self.sampler.tokenizer)
        distributed.barrier()

    def install(self, done: int) -> bool:
        """Make the best weights the stage's model; False if the last ones are to be it. Safe to be cut and repeated."""
        best = self.watch.best_step if self.keeps else None
        self.kept_step = done if best is None else best
        if distributed.is_main():
            folder, model = self.context.directory / "best", self.context.directory / "model"
            if best is not None and (folder / f"step-{best}").is_dir():
                if (adapter := folder / f"adapter-{best}").is_dir():
                    shutil.rmtree(self.context.directory / "adapter", ignore_errors=True)
                    os.replace(adapter, self.context.directory / "adapter")
                shutil.rmtree(model, ignore_errors=True)
                os.replace(folder / f"step-{best}", model)
            shutil.rmtree(folder, ignore_errors=True)
            self.watch.write(self.context.directory / "watch.json", self.kept_step)
        distributed.barrier()
        return best is not None

    def summary(self, metric: dict[str, Any]) -> dict[str, Any]:
        """What the stage's summary says of the watch; its metric is that of the model that was kept."""
        kept = next((one for one in self.watch.observations if one["step"] == self.kept_step), None)
        value = metric["value"] if kept is None else kept.get(metric["name"], metric["value"])
        return {"metric": metric | {"value": value}, "kept_step": self.kept_step, "stopped": self.watch.reason or None}

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        self.in_checkpoint = self.watch.best_step
        return self.watch.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.watch.restore(state)
        self.in_checkpoint = self.watch.best_step
