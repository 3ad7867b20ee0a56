"""What a run saves is opened as it is by others: lm-eval offline (skipped without the extra ``peers``)."""

from pathlib import Path

import pytest
import torch

from trivium.config import ModelConfig
from trivium.data.records import Message
from trivium.generation.console import generate
from trivium.model.decoder import Decoder
from trivium.model.huggingface import save_model
from trivium.model.sizes import derive
from trivium.text.chat import prompt_ids
from trivium.text.tokenizer import Tokenizer


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tokenizer = Tokenizer.train_bpe(["a small text to learn from, with 12 and 34"] * 4, 300)
    model = ModelConfig(size=None, layers=2, hidden_size=32, heads=2, context_length=64)
    shape, _ = derive(model, tokenizer.vocabulary_size)
    decoder = Decoder(shape)
    decoder.initialise(torch.Generator().manual_seed(0), std=0.3)
    save_model(decoder, tmp_path / "model", tokenizer)
    return tmp_path / "model"


def test_transformers_continues_alike(directory: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer.load(directory)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    prompt = torch.tensor([prompt_ids(tokenizer, [Message("user", "a small 12")])])
    continued = theirs.generate(prompt, max_new_tokens=20, do_sample=False)[0, prompt.shape[1] :]
    ours = generate(directory, ["a small 12"], temperature=0.0, max_new_tokens=20)[0][0]
    assert tokenizer.decode(continued.tolist()) == ours


def test_lm_eval_opens_it_offline(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    models = pytest.importorskip("lm_eval.models.huggingface", reason="lm-eval is not installed")
    api = pytest.importorskip("lm_eval.api.instance")
    model = models.HFLM(pretrained=str(directory), device="cpu", dtype="float32", batch_size=1)
    request = api.Instance("loglikelihood", {}, ("a small", " text"), 0)
    ((value, _greedy),) = model.loglikelihood([request])
    assert value < 0
