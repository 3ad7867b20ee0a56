"""Resumable state on disk: safetensors for tensors, JSON for the rest; written beside, then renamed.

A checkpoint is a folder ``step-00000200`` that holds weights, the optimisers' moments and the counters of the stage. It
appears under its name only when every byte is on disk, so the newest folder of that name is whole. Nothing is pickled.
Several ranks write their shards with torch.distributed.checkpoint in its safetensors form.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trivium import files
from trivium.errors import UserError
from trivium.training import distributed

PREFIX = "step-"
WHOLE = "tensors.safetensors"  # of one process; several write a shard each


def latest_step(directory: Path) -> int | None:
    """The step of the newest whole checkpoint under ``directory``; None if there is none."""
    return max(_steps(directory), default=None)


def _steps(directory: Path) -> list[int]:
    numbers = (path.name.removeprefix(PREFIX) for path in directory.glob(PREFIX + "*"))
    return sorted(int(number) for number in numbers if number.isdigit())


def _place(directory: Path, step: int) -> Path:
    return directory / f"{PREFIX}{step:08d}"


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
    """Make the optimisers allocate their state as it is before the first update: a step of size zero, then all zeros.

    There is then something to load into, and a checkpoint is complete even if every update so far was skipped.
    """
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
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()


def save(directory: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int) -> None:
    """Write the checkpoint of ``step``, keep the ``keep`` newest. A full disk is a UserError; nothing is lost."""
    target = _place(directory, step)
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
                files.sync(path)
            files.sync(beside)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(beside, target)
            files.sync(directory)
            for old in _steps(directory)[:-keep]:
                shutil.rmtree(_place(directory, old), ignore_errors=True)
    except BaseException as error:  # safetensors and DCP have their own classes for a full disk
        shutil.rmtree(beside, ignore_errors=True)
        if files.is_disk_full(error):
            raise files.disk_full(target) from error
        raise
    distributed.barrier()


def load(directory: Path, step: int, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Copy the checkpoint of ``step`` into ``tensors``, which must be exactly those that were saved; returns the state.

    The number of processes may be another than the one that saved. UserError for names or shapes of another model.
    """
    source = _place(directory, step)
    whole = source / WHOLE
    if distributed.world_size() == 1 and whole.exists():
        saved = load_file(whole)
        _check_shapes(source, {name: value.shape for name, value in saved.items()}, tensors)
        with torch.no_grad():
            for name, value in saved.items():
                tensors[name].copy_(value)
    else:
        _load_sharded(source, tensors)
    with open(source / "state.json") as file:
        state: dict[str, Any] = json.load(file)
    return state


def _write_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    if distributed.world_size() == 1:
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, folder / WHOLE)
        return
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    dcp.save(dict(tensors), storage_writer=HuggingFaceStorageWriter(path=str(folder), save_distributed=True))


def _load_sharded(folder: Path, tensors: dict[str, Tensor]) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    reader = HuggingFaceStorageReader(path=str(folder))
    known = reader.read_metadata().state_dict_metadata
    _check_shapes(folder, {name: entry.size for name, entry in known.items() if hasattr(entry, "size")}, tensors)
    dcp.load(tensors, storage_reader=reader, no_dist=distributed.world_size() == 1)


def _check_shapes(source: Path, saved: dict[str, torch.Size], tensors: dict[str, Tensor]) -> None:
    if saved != {name: value.shape for name, value in tensors.items()}:
        raise UserError(f"{source} holds another model or optimiser than the recipe asks for; use a new run directory")
