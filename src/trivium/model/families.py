"""What each Hugging Face family calls things: one table of tensor names, and config.json to ``DecoderConfig`` and back.

A family is data (``FAMILIES``): its class name, where its tensors live, the defaults its config.json may leave out and
the flags that are part of the architecture. Sources: the published configurations of each family and the configuration
classes of ``transformers`` (versions 4.5x and 5), against whose logits ``tests/model/test_huggingface.py`` compares.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from trivium.errors import UserError
from trivium.model.decoder import DecoderConfig
from trivium.model.rope import read_rope, write_rope

MODULES = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "score": "score",
    "blocks.{}.attention.q": "model.layers.{}.self_attn.q_proj",
    "blocks.{}.attention.k": "model.layers.{}.self_attn.k_proj",
    "blocks.{}.attention.v": "model.layers.{}.self_attn.v_proj",
    "blocks.{}.attention.o": "model.layers.{}.self_attn.o_proj",
    "blocks.{}.mlp.gate": "model.layers.{}.mlp.gate_proj",
    "blocks.{}.mlp.up": "model.layers.{}.mlp.up_proj",
    "blocks.{}.mlp.down": "model.layers.{}.mlp.down_proj",
    "blocks.{}.attention_norm": "model.layers.{}.input_layernorm",
    "blocks.{}.mlp_norm": "model.layers.{}.post_attention_layernorm",
}
QK_NORMS = {
    "blocks.{}.attention.q_norm": "model.layers.{}.self_attn.q_norm",
    "blocks.{}.attention.k_norm": "model.layers.{}.self_attn.k_norm",
}
NORMS_AFTER = {
    "blocks.{}.attention_norm": "model.layers.{}.post_attention_layernorm",
    "blocks.{}.mlp_norm": "model.layers.{}.post_feedforward_layernorm",
}


@dataclass(frozen=True)
class Family:
    """One Hugging Face family.

    ``modules``: our module names to theirs, ``{}`` stands for the layer. ``defaults``: what a config.json of this
    family means when it leaves a key out. ``biases``: which config.json keys (or, for Qwen2, the architecture itself)
    switch biases on. ``windows``: one sliding window for every layer, one per layer by ``layer_types``, or none.
    """

    architecture: str
    modules: Mapping[str, str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    biases: frozenset[Literal["attention_bias", "mlp_bias", "qkv"]] = frozenset()
    windows: Literal["none", "all", "layers"] = "none"
    qk_norm: Literal["none", "head", "full"] = "none"
    norm_position: Literal["before", "after"] = "before"
    no_rope: bool = False

    @property
    def classifier(self) -> str:
        """The class with scalar heads in place of the vocabulary's: a sequence classification."""
        return self.architecture.replace("ForCausalLM", "ForSequenceClassification")


COMMON_DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "sliding_window": 4096,
    "use_sliding_window": False,
    "max_window_layers": 28,
    "no_rope_layer_interval": 4,
}

FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", MODULES, biases=frozenset({"attention_bias", "mlp_bias"})),
    "mistral": Family("MistralForCausalLM", MODULES, {"num_key_value_heads": 8}, windows="all"),
    "qwen2": Family(
        "Qwen2ForCausalLM", MODULES, {"num_key_value_heads": 32}, biases=frozenset({"qkv"}), windows="layers"
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        MODULES | QK_NORMS,
        {"head_dim": 128, "num_key_value_heads": 32},
        biases=frozenset({"attention_bias"}),
        windows="layers",
        qk_norm="head",
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        MODULES,
        {"rope_theta": 2000000.0, "tie_word_embeddings": True, "num_key_value_heads": 4, "sliding_window": None},
        biases=frozenset({"attention_bias", "mlp_bias"}),
        windows="layers",
        no_rope=True,
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        MODULES | NORMS_AFTER | QK_NORMS,
        {"rms_norm_eps": 1e-5},
        biases=frozenset({"attention_bias"}),
        qk_norm="full",
        norm_position="after",
    ),
}

# Keys that other architectures use to change the computation, with the values under which they change nothing. None of
# our families has them, so a config.json that sets one describes a model we would compute wrongly.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "partial_rotary_factor": (None, 1, 1.0),
    "quantization_config": (None,),
    "logit_scale": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "embedding_multiplier": (None, 1, 1.0),
    "residual_multiplier": (None, 1, 1.0),
    "attention_multiplier": (None,),
    "query_pre_attn_scalar": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "attention_chunk_size": (None,),
    "clip_qkv": (None,),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
    "is_encoder_decoder": (None, False),
    "is_causal": (None, True),
}


def supported() -> str:
    """The architectures that work, for error messages."""
    names = ", ".join(f"{family.architecture} ({name})" for name, family in FAMILIES.items())
    return f"{names}, and the same with ForSequenceClassification"


def family_of(config: Mapping[str, Any], where: str = "config.json") -> str:
    """The ``model_type`` of a config.json, or UserError with the list of those that work."""
    name, architectures = config.get("model_type"), config.get("architectures") or []
    if isinstance(name, str) and name in FAMILIES:
        family = FAMILIES[name]
        if not architectures or {family.architecture, family.classifier} & set(architectures):
            return name
    shown = ", ".join(map(str, architectures)) or "no architecture"
    raise UserError(f"{where}: {shown} (model_type {name!r}) is not supported; these work: {supported()}.")


def tensor_name(family: str, name: str) -> str:
    """Their name of our parameter ``name``.

    >>> tensor_name("olmo2", "blocks.3.attention_norm.weight")
    'model.layers.3.post_attention_layernorm.weight'
    """
    module, _, leaf = name.rpartition(".")
    layer = re.search(r"\.(\d+)\.", f"{module}.")
    pattern = module if layer is None else module.replace(layer.group(0).rstrip("."), ".{}", 1)
    theirs = FAMILIES[family].modules[pattern]
    return f"{theirs.format(layer.group(1)) if layer else theirs}.{leaf}"


def decoder_config(config: Mapping[str, Any], where: str = "config.json") -> DecoderConfig:
    """What a config.json means. UserError if it asks for anything the decoder does not compute.

    ``attention_dropout`` is read by nothing on purpose: nothing here trains with dropout, and it is no part of what the
    model computes.
    """
    name = family_of(config, where)
    family = FAMILIES[name]
    settings: dict[str, Any] = {**COMMON_DEFAULTS, **family.defaults, **config}
    get = settings.get
    _refuse_unsupported(config, get("hidden_act"), where)
    hidden, layers, heads, mlp, vocabulary = (
        _integer(config, key, where)
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    )
    context = _integer(config, "max_position_embeddings", where)
    head_dim = get("head_dim") or hidden // heads
    kv_heads = get("num_key_value_heads") or heads
    if heads % kv_heads or head_dim % 2:
        raise UserError(
            f"{where}: num_attention_heads {heads} must be a multiple of num_key_value_heads {kv_heads}, "
            f"and head_dim {head_dim} even."
        )
    theta, scaling = read_rope(config, settings["rope_theta"], context, where)
    attention_bias = "attention_bias" in family.biases and bool(get("attention_bias"))
    return DecoderConfig(
        vocabulary_size=vocabulary,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_size=mlp,
        context_length=context,
        norm_eps=float(settings["rms_norm_eps"]),
        rope_theta=theta,
        rope_scaling=scaling,
        qkv_bias=attention_bias or "qkv" in family.biases,
        output_bias=attention_bias,
        mlp_bias="mlp_bias" in family.biases and bool(get("mlp_bias")),
        qk_norm=family.qk_norm,
        norm_position=family.norm_position,
        tie_embeddings=bool(get("tie_word_embeddings")),
        windows=_read_windows(family, get, layers, where),
        rope_layers=_read_rope_layers(family, get, layers, where),
        family=name,
        scalar_heads=_read_scalar_heads(config, family, where),
    )


def _read_scalar_heads(config: Mapping[str, Any], family: Family, where: str) -> int:
    """Labels of a sequence classification, 0 for a language model; transformers leaves out its default of two."""
    if family.classifier not in (config.get("architectures") or []):
        return 0
    labels = config.get("id2label")
    if isinstance(labels, Mapping) and labels:
        return len(labels)
    return 2 if config.get("num_labels") is None else _integer(config, "num_labels", where)


def _refuse_unsupported(config: Mapping[str, Any], activation: Any, where: str) -> None:
    if activation not in ("silu", "swish"):
        raise UserError(f"{where}: hidden_act {activation!r} is not supported; only 'silu' works.")
    for key, neutral in NEUTRAL.items():
        if key in config and not any(config[key] is value or config[key] == value for value in neutral):
            raise UserError(
                f"{where}: {key} = {config[key]!r} changes what the model computes and is not supported; "
                f"leave it out or at {neutral[-1]!r}."
            )


def _integer(config: Mapping[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{where}: {key} must be a positive integer, not {value!r}.")
    return value


def _read_windows(family: Family, get: Any, layers: int, where: str) -> tuple[int | None, ...]:
    size = get("sliding_window")
    if family.windows == "none" or (family.windows == "all" and size is None):
        return ()
    if family.windows == "all":
        return (int(size),) * layers
    kinds = get("layer_types")
    if kinds is None:
        if not get("use_sliding_window") or size is None:
            return ()
        if family.no_rope:  # SmolLM3: the layers that do not rotate are the ones with a window
            slides = [not rotates for rotates in _read_rope_layers(family, get, layers, where) or (True,) * layers]
        else:
            slides = [layer >= get("max_window_layers") for layer in range(layers)]
        return tuple(int(size) if slide else None for slide in slides) if any(slides) else ()
    unknown = sorted({str(kind) for kind in kinds} - {"full_attention", "sliding_attention"})
    if unknown or len(kinds) != layers:
        raise UserError(
            f"{where}: layer_types must name one of full_attention, sliding_attention for each of the {layers} layers"
            + (f", not {', '.join(unknown)}." if unknown else f", but names {len(kinds)}.")
        )
    if "sliding_attention" not in kinds:
        return ()
    if size is None or not get("use_sliding_window"):
        raise UserError(
            f"{where}: layer_types has sliding_attention, so use_sliding_window and sliding_window must be set."
        )
    return tuple(int(size) if kind == "sliding_attention" else None for kind in kinds)


def _read_rope_layers(family: Family, get: Any, layers: int, where: str) -> tuple[bool, ...]:
    if not family.no_rope:
        return ()
    listed = get("no_rope_layers")
    if listed is None:
        listed = [(layer + 1) % get("no_rope_layer_interval") != 0 for layer in range(layers)]
    if len(listed) < layers:
        raise UserError(f"{where}: no_rope_layers has {len(listed)} entries, but there are {layers} layers.")
    rotates = tuple(bool(value) for value in listed[:layers])  # despite its name, 1 stands for a layer that rotates
    return () if all(rotates) else rotates


def config_json(config: DecoderConfig) -> dict[str, Any]:
    """The config.json of a decoder, for transformers 4.5x and 5 alike (without token ids and dtype).

    Raises UserError if the family cannot express the configuration: the dictionary must read back as the same config.
    """
    if config.family not in FAMILIES:
        raise UserError(f"model family {config.family!r} is not supported; these work: {', '.join(FAMILIES)}.")
    family = FAMILIES[config.family]
    result: dict[str, Any] = {
        "architectures": [family.classifier if config.scalar_heads else family.architecture],
        "model_type": config.family,
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_dropout": 0.0,
        **write_rope(config.rope_theta, config.rope_scaling),
        **_write_windows(config, family),
    }
    if "attention_bias" in family.biases:
        result["attention_bias"] = config.output_bias
    if "mlp_bias" in family.biases:
        result["mlp_bias"] = config.mlp_bias
    if family.no_rope:
        result["no_rope_layers"] = [int(config.rotates(layer)) for layer in range(config.layers)]
    if config.scalar_heads:
        names = [f"score_{head}" for head in range(config.scalar_heads)]
        result["num_labels"] = config.scalar_heads
        result["id2label"] = {str(head): name for head, name in enumerate(names)}
        result["label2id"] = {name: head for head, name in enumerate(names)}
    read = decoder_config(result, f"family {config.family}")
    differing = [item.name for item in fields(config) if _effective(read, item.name) != _effective(config, item.name)]
    if differing:
        raise UserError(
            f"the family {config.family!r} cannot express this decoder's {', '.join(differing)}; "
            f"choose another of {', '.join(FAMILIES)}."
        )
    return result


def _effective(config: DecoderConfig, name: str) -> Any:
    """A field by what it means: windows given as an empty tuple and as None for each layer are the same."""
    if name == "windows":
        return [config.window(layer) for layer in range(config.layers)]
    if name == "rope_layers":
        return [config.rotates(layer) for layer in range(config.layers)]
    return getattr(config, name)


def _write_windows(config: DecoderConfig, family: Family) -> dict[str, Any]:
    sizes = [config.window(layer) for layer in range(config.layers)]
    size = next((size for size in sizes if size is not None), None)
    if family.windows == "none":
        return {}
    if family.windows == "all":
        return {"sliding_window": size}
    kinds = ["full_attention" if size is None else "sliding_attention" for size in sizes]
    result: dict[str, Any] = {"use_sliding_window": size is not None, "sliding_window": size, "layer_types": kinds}
    if not family.no_rope:  # versions before layer_types: windows from this layer on
        result["max_window_layers"] = kinds.index("sliding_attention") if size is not None else config.layers
    return result
