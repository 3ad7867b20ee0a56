"""Logits equal those of transformers in both directions, for every family; and what a bad directory says."""

import dataclasses
import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trivium.errors import UserError
from trivium.model import huggingface
from trivium.model.attention import GridAttention
from trivium.model.decoder import Decoder, RopeScaling
from trivium.model.families import FAMILIES, config_json, decoder_config
from trivium.model.huggingface import load_model, save_model
from trivium.model.layout import ragged_layout

transformers = pytest.importorskip("transformers")

TINY = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
YARN_FULL = YARN | {"beta_fast": 20.0, "beta_slow": 0.5, "attention_factor": 1.3, "truncate": False}
YARN_MSCALE = YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-head-dim": ("llama", {"head_dim": 12, "num_key_value_heads": 1}),
    "llama-linear": ("llama", {"rope_scaling": {"type": "linear", "factor": 2.5}}),
    "llama-llama3": ("llama", {"rope_scaling": LLAMA3, "rope_theta": 500.0}),
    "llama-llama3-new": ("llama", {"rope_parameters": LLAMA3 | {"rope_theta": 500.0}}),
    "llama-yarn": ("llama", {"rope_scaling": YARN}),
    "llama-yarn-full": ("llama", {"rope_scaling": YARN_FULL, "rope_theta": 50.0}),
    "llama-yarn-mscale": ("llama", {"rope_scaling": YARN_MSCALE}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": 7}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-window": (
        "qwen3",
        {
            "head_dim": 8,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "smollm3": ("smollm3", {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "no_rope_layers": [1, 0, 1]}),
    "smollm3-untied": (
        "smollm3",
        {
            "pad_token_id": None,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "no_rope_layer_interval": 2,
            "tie_word_embeddings": False,
            "use_sliding_window": True,
            "sliding_window": 6,
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
    "olmo2": ("olmo2", {"eos_token_id": 2}),
    "olmo2-biases-tied": ("olmo2", {"eos_token_id": 2, "attention_bias": True, "tie_word_embeddings": True}),
}
LENGTHS = [23, 1, 9, 40, 9, 2]


def randomised(model: torch.nn.Module) -> Any:
    """Weights for which every part matters: norms away from 1, biases away from 0."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if "norm" in name else 0.3 * noise if parameter.ndim == 1 else 0.15 * noise)
    return model.eval()


def theirs_for(case: str) -> Any:
    name, settings = CASES[case]
    config = transformers.AutoConfig.for_model(name, **json.loads(json.dumps(TINY | settings)))
    return randomised(transformers.AutoModelForCausalLM.from_config(config))


def texts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, TINY["vocab_size"], (length,), generator=generator) for length in LENGTHS]


@torch.no_grad()
def their_logits(model: Any) -> Tensor:
    return torch.cat([model(text[None]).logits[0] for text in texts()])


@torch.no_grad()
def our_logits(decoder: Decoder) -> Tensor:
    layout = ragged_layout(LENGTHS)
    return decoder.logits(torch.cat(texts()), layout.positions, GridAttention(layout))


@torch.no_grad()
def greedy(decoder: Decoder, prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        layout = ragged_layout([len(tokens)])
        tokens.append(int(decoder.logits(torch.tensor(tokens), layout.positions, GridAttention(layout))[-1].argmax()))
    return tokens


def open_theirs(directory: Path) -> Any:
    model, report = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval()


@pytest.mark.parametrize("case", CASES)
def test_same_logits_and_continuation_both_ways(case: str, tmp_path: Path) -> None:
    theirs = theirs_for(case)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    expected = their_logits(theirs)
    assert expected.std() > 0.1
    assert (our_logits(ours) - expected).abs().max() <= 1e-5

    save_model(ours, tmp_path / "ours", stop_token_ids=[2], pad_token_id=0)
    back = open_theirs(tmp_path / "ours")
    assert (their_logits(back) - expected).abs().max() <= 1e-5
    again = load_model(tmp_path / "ours")
    assert config_json(again.config) == config_json(ours.config)
    assert torch.equal(our_logits(again), our_logits(ours))

    prompt = texts()[2].tolist()
    generated = back.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    assert generated[0].tolist() == greedy(again, prompt, 12)


@pytest.mark.parametrize("case", ["llama-llama3", "qwen3-window", "smollm3", "olmo2"])
def test_the_older_form_of_config_json_means_the_same(case: str, tmp_path: Path) -> None:
    """transformers 4.x has no rope_parameters, 5 no rope_theta: each half of what we write suffices alone."""
    theirs_for(case).save_pretrained(tmp_path)
    config = decoder_config(json.loads((tmp_path / "config.json").read_text()))
    written = config_json(config)
    for left_out in (["rope_parameters"], ["rope_theta", "rope_scaling"]):
        assert decoder_config({key: value for key, value in written.items() if key not in left_out}) == config


def test_what_config_json_leaves_out_means_what_it_means_in_transformers(tmp_path: Path) -> None:
    for name, family in FAMILIES.items():
        stated = (
            {"model_type": name, "architectures": [family.architecture]}
            | TINY
            | {"hidden_size": 64, "num_attention_heads": 32}
        )
        del stated["num_key_value_heads"]
        reference = transformers.AutoConfig.for_model(name, **{k: v for k, v in stated.items() if k != "model_type"})
        full = json.loads(reference.to_json_string(use_diff=False))
        left_out, spelled_out = decoder_config(stated), decoder_config(full | {"architectures": [family.architecture]})
        assert left_out == spelled_out


def tiny_decoder(tmp_path: Path, case: str = "llama") -> Decoder:
    theirs_for(case).save_pretrained(tmp_path / "source")
    return load_model(tmp_path / "source")


def test_shards_are_read(tmp_path: Path) -> None:
    theirs = theirs_for("qwen3")
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 and not (tmp_path / "model.safetensors").exists()
    assert (our_logits(load_model(tmp_path)) - their_logits(theirs)).abs().max() <= 1e-5
    min(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(UserError, match="lacks model-00001-of"):
        load_model(tmp_path)


def test_an_index_may_not_point_elsewhere(tmp_path: Path) -> None:
    tiny_decoder(tmp_path)
    (tmp_path / "source" / "model.safetensors").unlink()
    index = tmp_path / "source" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../model.safetensors"}}))
    with pytest.raises(UserError, match="same directory"):
        load_model(tmp_path / "source")


def test_dtype_and_meta_leave_no_parameter_behind(tmp_path: Path) -> None:
    theirs_for("llama-yarn").to(torch.bfloat16).save_pretrained(tmp_path)
    decoder = load_model(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.bfloat16}
    assert all(parameter.requires_grad and parameter.device.type == "cpu" for parameter in decoder.parameters())
    assert decoder.cos.dtype == torch.float32 and decoder.cos.device.type == "cpu"
    save_model(decoder, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["dtype"] == "bfloat16"
    assert open_theirs(tmp_path / "again").dtype == torch.bfloat16


def test_token_ids_are_saved(tmp_path: Path) -> None:
    class Tokenizer:
        stop_token_ids = (5, 6)
        pad_token_id = 4

        def save(self, directory: Path) -> None:
            (directory / "tokenizer.json").write_text("{}")

    save_model(tiny_decoder(tmp_path), tmp_path / "model", Tokenizer())
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "model")
    assert (generation.eos_token_id, generation.pad_token_id, generation.bos_token_id) == ([5, 6], 4, None)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "model")
    assert (config.eos_token_id, config.pad_token_id, config.bos_token_id) == ([5, 6], 4, None)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (tmp_path / "model" / "model.safetensors").stat().st_mode == (
        tmp_path / "model" / "config.json"
    ).stat().st_mode


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), huggingface.SafetensorError("I/O error (os error 28)")]
)
def test_a_full_disk_is_one_sentence_and_loses_nothing(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = tiny_decoder(tmp_path)
    save_model(decoder, tmp_path / "model", stop_token_ids=[2])
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    def full(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(huggingface, "save_file", full)
    for name in ("model", "new"):
        with pytest.raises(UserError, match="disk is full"):
            save_model(decoder, tmp_path / name, stop_token_ids=[3])
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "source"]


def test_saving_over_a_model_replaces_it(tmp_path: Path) -> None:
    decoder = tiny_decoder(tmp_path)
    save_model(decoder, tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with torch.no_grad():
        decoder.norm.weight.mul_(2)
    save_model(decoder, tmp_path / "model")
    assert torch.equal(our_logits(load_model(tmp_path / "model")), our_logits(decoder))
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def edited(tmp_path: Path, **changes: Any) -> Path:
    theirs_for("llama").save_pretrained(tmp_path / "bad")
    path = tmp_path / "bad" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return tmp_path / "bad"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, r"GPT2LMHeadModel.*LlamaForCausalLM.*Olmo2"),
        ({"architectures": ["LlamaForTokenClassification"]}, "LlamaForTokenClassification.*not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'.*only 'silu'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'.*linear, llama3, yarn"),
        ({"rope_scaling": {"rope_type": "linear"}}, "needs a number for factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "mrope_section": [1]}}, "mrope_section"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "differ by layer"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"logit_scale": 0.1}, "logit_scale"),
        ({"hidden_size": "32"}, "hidden_size must be a positive integer"),
        ({"num_key_value_heads": 3}, "multiple of num_key_value_heads 3"),
        ({"vocab_size": 62}, "of a wrong shape: lm_head.weight is 61x32 but config.json makes it 62x32|embed_tokens"),
        ({"num_hidden_layers": 4}, "missing: .*model.layers.3"),
        ({"num_hidden_layers": 2}, "unknown: model.layers.2"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_model(edited(tmp_path, **changes))


def test_windows_that_make_no_sense_are_refused() -> None:
    base = {"model_type": "qwen2"} | TINY
    for settings in (
        {"layer_types": ["full_attention"] * 2},
        {"layer_types": ["chunked_attention"] * 3},
        {"layer_types": ["sliding_attention"] * 3},
    ):
        with pytest.raises(UserError, match="layer_types"):
            decoder_config(base | settings)
    with pytest.raises(UserError, match="no_rope_layers has 1"):
        decoder_config({"model_type": "smollm3", "no_rope_layers": [1]} | TINY)


def test_pickles_are_refused(tmp_path: Path) -> None:
    directory = edited(tmp_path)
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights"):
        load_model(directory)
    (directory / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        load_model(directory)


def test_damaged_files(tmp_path: Path) -> None:
    directory = edited(tmp_path)
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(UserError, match="damaged"):
        load_model(directory)
    (directory / "config.json").write_text("{")
    with pytest.raises(UserError, match="read as JSON"):
        load_model(directory)
    shutil.rmtree(directory)
    directory.mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        load_model(directory)


def test_a_tied_model_with_another_head_is_refused(tmp_path: Path) -> None:
    theirs_for("llama-tied").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    load_model(tmp_path)  # some exporters write the shared matrix twice
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="ties lm_head"):
        load_model(tmp_path)


def test_names_that_are_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"no directory here, and .*go online"):
        load_model("nobody/nothing-of-this-name")
    with pytest.raises(UserError, match="does not exist"):
        load_model(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        load_model(tmp_path / "file")


def test_a_family_that_cannot_express_a_decoder_says_so() -> None:
    llama = decoder_config({"model_type": "llama"} | TINY)
    impossible = {
        "qk_norm": dataclasses.replace(llama, qk_norm="head"),
        "windows": dataclasses.replace(llama, windows=(4, None, None)),
        "rope_layers": dataclasses.replace(llama, rope_layers=(True, False, True)),
        "norm_position": dataclasses.replace(llama, norm_position="after"),
        "qkv_bias": dataclasses.replace(llama, qkv_bias=True),
    }
    for name, config in impossible.items():
        with pytest.raises(UserError, match=f"'llama' cannot express .*{name}"):
            config_json(config)
    with pytest.raises(UserError, match="family 'gpt2' is not supported"):
        config_json(dataclasses.replace(llama, family="gpt2"))
    scaled = dataclasses.replace(llama, rope_scaling=RopeScaling("yarn", 2.0, 32, attention_factor=1.1))
    assert decoder_config(config_json(scaled)) == scaled
