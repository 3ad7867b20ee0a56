"""Ranks: who I am, sums over all, and the sharding of a decoder. One process needs no launcher and no process group."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from trivium.model.decoder import Decoder
from trivium.model.lora import same_adapters

Item = TypeVar("Item")
# How long ranks wait for one another. One of them asks a judge while the others wait, and a server may take hours; when
# a rank dies, the launcher ends the others at once.
PATIENCE = timedelta(days=1)


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main() -> bool:
    return rank() == 0


def setup(device: torch.device) -> None:
    """Join the process group that ``torchrun`` describes: nccl on a GPU, gloo on a CPU. Nothing for one process."""
    if world_size() > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def sum_over_ranks(values: Tensor) -> Tensor:
    """The elementwise sum of ``values`` over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def max_over_ranks(values: Tensor) -> Tensor:
    """The elementwise maximum of ``values`` over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


def gather_in_order(own: Sequence[Item], total: int) -> list[Item]:
    """All ``total`` items in their order, when rank r holds the items r, r + world, r + 2 world, …"""
    if not dist.is_initialized():
        return list(own)
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, list(own))
    return [parts[index % world_size()][index // world_size()] for index in range(total)]


def shard(decoder: Decoder, precision: torch.dtype | None) -> None:
    """Shard the parameters of ``decoder`` over all ranks (FSDP2), block by block; one process is left alone."""
    if not dist.is_initialized():
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    device = next(decoder.parameters()).device.type
    mesh = init_device_mesh(device, (world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
    for block in decoder.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # by default the outermost module stays whole after a forward pass without a backward pass (validation, scoring),
    # and then shows parameters that the optimiser and a checkpoint do not know
    fully_shard(decoder, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def full_tensor(value: Tensor) -> Tensor:
    """The whole of a sharded tensor, on every rank (all must call); a plain tensor as it is."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value  # type: ignore[no-any-return]


def full_copy(decoder: Decoder) -> Decoder:
    """A whole decoder with the current weights of a sharded one (all ranks must call); one process gets its own back.

    Generation needs it: sharded layers talk in every forward pass, and ranks decode different numbers of steps.
    """
    if not dist.is_initialized():
        return decoder
    device = decoder.cos.device
    with torch.device("meta"):
        whole = Decoder(decoder.config)
    whole = whole.to_empty(device=device)
    same_adapters(whole, decoder)
    whole.reset_rope()
    with torch.no_grad():
        for target, parameter in zip(whole.parameters(), decoder.parameters(), strict=True):
            target.copy_(full_tensor(parameter.detach()))
    return whole.requires_grad_(False)
