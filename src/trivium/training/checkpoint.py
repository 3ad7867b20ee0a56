"""Resumable state on disk: safetensors for tensors, JSON for the rest; written beside, then renamed.

A checkpoint is a folder ``step-00000200`` that holds weights, the optimisers' moments and the counters of the stage. It
appears under its name only when every byte is on disk, so the newest folder of that name is whole. Nothing is pickled.
Several ranks write their shards with torch.distributed.checkpoint in its safetensors form.
"""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trivium.errors import UserError
from trivium.training import distributed

PREFIX = "step-"


def latest_step(directory: Path) -> int | None:
    """The step of the newest whole checkpoint under ``directory``; None if there is none."""
    steps = [int(path.name[len(PREFIX) :]) for path in directory.glob(PREFIX + "*") if path.name[len(PREFIX) :].isdigit()]
    return max(steps, default=None)


def optimizer_tensors(decoder: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every tensor of the optimisers' state by name: ``optimizer.<entry>.<parameter>``."""
    names = {id(parameter): name for name, parameter in decoder.named_parameters()}
    return {
        f"optimizer.{entry}.{names[id(parameter)]}": value
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for entry, value in state.items()
        if isinstance(value, Tensor)
    }


def prepare_state(optimizers: list[torch.optim.Optimizer]) -> None:
    """Make the optimisers allocate their state, so that there is something to load into: a step of size zero."""
    for optimizer in optimizers:
        rates = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["weight_decay"] = 0.0
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for group, (rate, decay) in zip(optimizer.param_groups, rates, strict=True):
            group["lr"], group["weight_decay"] = rate, decay


def save(directory: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int) -> None:
    """Write the checkpoint of ``step`` and drop all but the ``keep`` newest. A full disk is a UserError; nothing is lost."""
    target = directory / f"{PREFIX}{step:08d}"
    beside = directory / f".{target.name}.partial"
    try:
        if distributed.is_main():
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
        distributed.barrier()
        _write_tensors(beside, tensors)
        if distributed.is_main():
            with open(beside / "state.json", "w") as file:
                json.dump(state, file)
            for path in beside.iterdir():
                _sync(path)
            _sync(beside)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(beside, target)
            _sync(directory)
            for old in sorted(directory.glob(PREFIX + "*"))[:-keep]:
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left on the disk of {directory} while saving step {step}; free some space and run the same "
                "command again, it resumes from the last whole checkpoint"
            ) from error
        raise
    distributed.barrier()


def load(directory: Path, step: int, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Copy the checkpoint of ``step`` into ``tensors``, which must be exactly those that were saved; returns the state."""
    source = directory / f"{PREFIX}{step:08d}"
    if distributed.world_size() > 1:
        _load_sharded(source, tensors)
    else:
        saved = load_file(source / "tensors.safetensors") if (source / "tensors.safetensors").exists() else None
        if saved is None:
            raise UserError(
                f"{source} was written by several processes; resume it with the same number of processes (torchrun), or "
                "remove the checkpoints folder to begin the stage again"
            )
        if saved.keys() != tensors.keys() or any(saved[name].shape != tensors[name].shape for name in saved):
            raise UserError(f"{source} holds another model or optimiser than the recipe asks for; use a new run directory")
        with torch.no_grad():
            for name, value in saved.items():
                tensors[name].copy_(value)
    with open(source / "state.json") as file:
        state: dict[str, Any] = json.load(file)
    return state


def _write_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    if distributed.world_size() == 1:
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, folder / "tensors.safetensors")
        return
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    dcp.save(dict(tensors), storage_writer=HuggingFaceStorageWriter(path=str(folder), save_distributed=True))


def _load_sharded(folder: Path, tensors: dict[str, Tensor]) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    dcp.load(tensors, storage_reader=HuggingFaceStorageReader(path=str(folder)))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
