"""An adapter as ``peft`` keeps it on disk: adapter_config.json and adapter_model.safetensors, with Hugging Face names.

``peft.PeftModel.from_pretrained(base, directory)`` opens it, on the transformers model it was trained from.
"""

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from trivium import files
from trivium.model.decoder import Decoder
from trivium.model.families import tensor_name
from trivium.model.huggingface import written_beside
from trivium.model.lora import NAME, adapted_layers, import_peft, settings_of

PREFIX = "base_model.model."  # what peft wraps a model in


def save_adapter(decoder: Decoder, directory: str | Path, base: str) -> None:
    """Write the adapters of ``decoder`` to ``directory``; ``base``: path or hub name of the model they are for.

    Scalar heads, which learn beside the adapters, are saved whole (``modules_to_save``), as a sequence classification.
    Written beside and renamed. ValueError without adapters; UserError if the disk is full.
    """
    own = settings_of(decoder)
    if own is None:
        raise ValueError("this decoder has no adapters to save")
    family, tensors, targets = decoder.config.family, dict[str, Tensor](), set[str]()
    for name, layer in adapted_layers(decoder):
        theirs = tensor_name(family, f"{name}.weight").removesuffix(".weight")
        targets.add(theirs.rpartition(".")[2])
        for part, matrix in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B)):
            tensors[f"{PREFIX}{theirs}.{part}.weight"] = matrix[NAME].weight.detach().cpu().contiguous()
    if decoder.score is not None:
        tensors[f"{PREFIX}score.weight"] = decoder.score.weight.detach().cpu().contiguous()
    settings = import_peft().LoraConfig(
        r=own.r,
        lora_alpha=own.lora_alpha,
        use_rslora=own.use_rslora,
        target_modules=sorted(targets),
        task_type="CAUSAL_LM" if decoder.score is None else "SEQ_CLS",
        modules_to_save=None if decoder.score is None else ["score"],
        base_model_name_or_path=base,
        inference_mode=True,
    )
    with written_beside(Path(directory)) as draft:
        settings.save_pretrained(str(draft))
        place = draft / "adapter_config.json"
        told = json.loads(place.read_text(encoding="utf-8"))
        told["target_modules"] = sorted(targets)  # peft holds a set, whose order differs from process to process
        files.write_json(place, told)
        save_file(tensors, draft / "adapter_model.safetensors", metadata={"format": "pt"})
