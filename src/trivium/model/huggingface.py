"""Hugging Face model directories in and out: config.json, safetensors, generation_config.json.

Only safetensors are read. A pickled checkpoint may run code when it is opened, so it is refused.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trivium import files
from trivium.errors import UserError
from trivium.model.decoder import Decoder, DecoderConfig
from trivium.model.families import config_json, decoder_config, tensor_name
from trivium.model.lora import merged_state
from trivium.model.scalar import refuse_scores

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
DOWNLOADED = ["*.json", "*.safetensors", "*.jinja"]  # weights, configuration, tokenizer, chat template
NOT_DOWNLOADED = ["*/*", "consolidated*"]  # the same weights again in another layout


class SavesItself(Protocol):
    """What ``save_model`` needs of a tokenizer."""

    @property
    def stop_token_ids(self) -> Sequence[int]: ...
    @property
    def pad_token_id(self) -> int | None: ...
    def save(self, directory: Path) -> None: ...


def resolve_directory(path_or_hub: str | Path) -> Path:
    """The directory of a model: the path itself, or a hub model fetched into (or found in) the local hub cache.

    Tokenizer and weights of one name come from one place through this. UserError if it is neither, or out of reach.
    """
    path = Path(path_or_hub).expanduser()
    if path.is_dir():
        return path
    name = str(path_or_hub)
    if path.exists():
        raise UserError(f"{name} is a file, not a model directory; name the directory that holds config.json.")
    if not HUB_NAME.fullmatch(name):
        raise UserError(f"{name} does not exist; give a model directory or the name of a Hugging Face hub model.")
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=DOWNLOADED, ignore_patterns=NOT_DOWNLOADED))
    except GatedRepoError as error:
        raise UserError(f"{name} is gated: accept its terms on the hub and log in with `hf auth login`.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{name} is neither a directory here nor a model on the Hugging Face hub.") from error
    except OSError as error:
        if files.is_disk_full(error):
            raise files.disk_full("the hub cache") from error
        raise UserError(
            f"{name} is no directory here, and the Hugging Face hub could not be reached; "
            "go online once, or download the model and give its directory."
        ) from error
    except Exception as error:  # the hub client has no common base for its transport errors
        raise UserError(
            f"{name} is no directory here, and fetching it from the Hugging Face hub failed "
            f"({type(error).__name__}); go online once, or download the model and give its directory."
        ) from error


def read_config(path_or_hub: str | Path) -> DecoderConfig:
    """What the model of a directory or hub name is, without its weights; UserError if it is not supported."""
    path = resolve_directory(path_or_hub) / "config.json"
    return decoder_config(read_json(path), str(path))


def load_model(
    path_or_hub: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Decoder:
    """The decoder of a Hugging Face directory or hub name, on ``device`` in ``dtype``.

    Parameters are made without memory and each takes its tensor as it is read, so the peak is one copy of the model.
    UserError if the architecture or a setting is not supported, or tensors are missing, unknown or of a wrong shape.
    """
    directory = resolve_directory(path_or_hub)
    config = read_config(directory)
    with torch.device("meta"):
        decoder = Decoder(config)
    expected = {tensor_name(config.family, name): name for name, _ in decoder.named_parameters()}
    shapes = {name: tuple(parameter.shape) for name, parameter in decoder.named_parameters()}
    state: dict[str, Tensor] = {}
    seen: set[str] = set()
    unexpected, mismatched = [], []
    spare_head: Tensor | None = None
    for theirs, tensor in _read_tensors(directory):
        ours = expected.get(theirs)
        seen.add(theirs)
        if ours is None and theirs == "lm_head.weight" and not config.scalar_heads:
            spare_head = tensor
        elif ours is None:
            if not theirs.endswith("rotary_emb.inv_freq"):  # a table that old exports carry, computed anew here
                unexpected.append(theirs)
        elif tuple(tensor.shape) != shapes[ours]:
            mismatched.append(f"{theirs} is {_shape(tensor.shape)} but config.json makes it {_shape(shapes[ours])}")
        else:  # a copy, since the tensor may be a view of the file
            state[ours] = tensor.to(device=device, dtype=dtype, copy=True)
    missing = [theirs for theirs in expected if theirs not in seen]
    problems = [_list("missing", missing), _list("unknown", unexpected), _list("of a wrong shape", mismatched)]
    if any(problems):
        listed = "; ".join(filter(None, problems))
        raise UserError(f"{directory}: tensors {listed}. Do config.json and the weights belong together?")
    if spare_head is not None and not torch.equal(spare_head.to(device=device, dtype=dtype), state["embedding.weight"]):
        raise UserError(
            f"{directory}: config.json ties lm_head.weight to the embedding, but the file holds a different one; "
            "set tie_word_embeddings to false in config.json."
        )
    decoder.load_state_dict(state, strict=True, assign=True)
    decoder.reset_rope()
    return decoder


def load_language_model(
    path_or_hub: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Decoder:
    """``load_model`` where the model has to write; a reward model is refused before its weights are read."""
    refuse_scores(read_config(path_or_hub), path_or_hub)
    return load_model(path_or_hub, device, dtype)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _list(kind: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{kind}: {', '.join(names[:3])}{more}"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; UserError if it is absent or no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        told = f"{path.parent} is no Hugging Face model directory: it has no {path.name}."
        raise UserError(files.no_model(path.parent) or told) from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path} could not be read as JSON: {error}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, not a {type(value).__name__}.")
    return value


def _read_tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of model.safetensors, or of the shards its index names."""
    for path in _weight_files(directory):
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                    yield name, file.get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{path} is damaged or no safetensors file ({error}); copy it again.") from error
        except OSError as error:
            raise UserError(f"{path} could not be read: {error.strerror or error}.") from error


def _weight_files(directory: Path) -> list[Path]:
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if not index.exists():
        if any(directory.glob("*.bin")) or any(directory.glob("*.pt*")):
            raise UserError(
                f"{directory} holds pickled weights, which can run code when they are opened, so they are refused; "
                "convert them to model.safetensors."
            )
        raise UserError(f"{directory} holds no weights: neither model.safetensors nor model.safetensors.index.json.")
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise UserError(f"{index} has no weight_map; copy or download it again.")
    names = sorted({str(name) for name in listed.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{index} names {name!r}, which is no safetensors file of the same directory.")
        if not (directory / name).exists():
            raise UserError(f"{directory} lacks {name}, which its index names; copy or download it again.")
    return [directory / name for name in names]


def save_model(
    decoder: Decoder,
    directory: str | Path,
    tokenizer: SavesItself | None = None,
    *,
    stop_token_ids: Sequence[int] | None = None,
    pad_token_id: int | None = None,
    bos_token_id: int | None = None,
    dtype: torch.dtype | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a directory that transformers, vLLM and lm-eval open as it is.

    Adapters are merged into what is written. Token ids left out are the tokenizer's. ``dtype``: of the file, default
    that of the weights. ``state_dict``: weights in place of the decoder's own, such as those gathered from several
    ranks. Everything is written beside and then renamed, so a reader sees the whole new model or what was there before:
    as one rename if ``directory`` is new, else file by file, weights last. UserError if the disk is full.
    """
    target = Path(directory)
    if tokenizer is not None:
        stop_token_ids = tokenizer.stop_token_ids if stop_token_ids is None else stop_token_ids
        pad_token_id = tokenizer.pad_token_id if pad_token_id is None else pad_token_id
        bos_token_id = getattr(tokenizer, "bos_token_id", None) if bos_token_id is None else bos_token_id
    stops = list(stop_token_ids or ())
    ids = {
        "bos_token_id": bos_token_id,
        "eos_token_id": stops[0] if len(stops) == 1 else stops or None,
        "pad_token_id": pad_token_id,
    }
    weights = {
        tensor_name(decoder.config.family, name): tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in (merged_state(decoder) if state_dict is None else state_dict).items()
    }
    kind = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    settings = config_json(decoder.config) | ids | {"dtype": kind, "torch_dtype": kind}  # torch_dtype: before 4.56
    with written_beside(target) as draft:
        if tokenizer is not None:
            tokenizer.save(draft)
        known = {key: value for key, value in ids.items() if value is not None}
        files.write_json(draft / "generation_config.json", known)
        files.write_json(draft / "config.json", settings)
        save_file(weights, draft / "model.safetensors", metadata={"format": "pt"})


@contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """A draft directory that becomes ``target`` if the body succeeds, and is removed if it does not."""
    draft: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield draft
        mask = _umask()  # temporary files and those of safetensors are made for their owner alone
        draft.chmod(0o777 & ~mask)
        for path in draft.iterdir():
            path.chmod(0o666 & ~mask)
        if not target.exists():
            draft.rename(target)
        else:
            for path in sorted(draft.iterdir(), key=lambda path: path.suffix == ".safetensors"):
                os.replace(path, target / path.name)
    except (OSError, SafetensorError) as error:
        if files.is_disk_full(error):
            raise files.disk_full(target) from error
        raise UserError(f"the model could not be written to {target}: {error}.") from error
    finally:
        if draft is not None and draft.exists():
            shutil.rmtree(draft, ignore_errors=True)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
