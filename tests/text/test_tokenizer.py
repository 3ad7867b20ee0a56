import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.errors import UserError
from trivium.text.tokenizer import SPECIAL_TOKENS, Tokenizer

TEXTS = ["The Mill is a pub near the river.", "12 plus 34 is 46.\n", "Café £20-25 <|stop|>"] * 4


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return Tokenizer.train_bpe(TEXTS, 300)


@given(text=st.text())
def test_any_text_survives_and_never_gives_a_special_token(bpe: Tokenizer, text: str) -> None:
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert not set(ids) & bpe.special_token_ids


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
def test_a_spelled_special_token_is_text(bpe: Tokenizer, name: str) -> None:
    ids = bpe.encode(f"a {name} b")
    assert bpe.token_id(name) not in ids
    assert bpe.decode(ids) == f"a {name} b"
    assert bpe.encode_rendered(name) == [bpe.token_id(name)]


def test_digits_are_tokens_of_their_own(bpe: Tokenizer) -> None:
    assert len(bpe.encode("46")) == 2
    assert bpe.encode("1234") == [bpe.encode(digit)[0] for digit in "1234"]


def test_training_is_deterministic() -> None:
    assert Tokenizer.train_bpe(TEXTS, 300).fingerprint == Tokenizer.train_bpe(TEXTS, 300).fingerprint


def test_names_of_our_own_tokens(bpe: Tokenizer) -> None:
    assert [bpe.token_id(name) for name in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert bpe.stop_token_ids == (bpe.token_id("<|stop|>"),)
    assert bpe.pad_token_id not in bpe.stop_token_ids
    assert bpe.document_separator_id == bpe.document_start_id == bpe.token_id("<|end|>")
    assert bpe.vocabulary_size <= 300


def test_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(UserError, match="at least 262"):
        Tokenizer.train_bpe(TEXTS, 100)


def test_characters() -> None:
    tokenizer = Tokenizer.train_character(["To be,\n", "or not 12"])
    assert tokenizer.decode(tokenizer.encode("not\nbe 21")) == "not\nbe 21"
    assert len(tokenizer.encode("not\nbe 21")) == 9
    unknown = tokenizer.encode("é<")
    assert unknown == [tokenizer.token_id("<|unknown|>")] * 2
    with pytest.raises(UserError, match="no text"):
        Tokenizer.train_character([])


@pytest.mark.parametrize("kind", ["bpe", "character"])
def test_saved_directory_opens_here_and_in_transformers(kind: str, tmp_path) -> None:
    made = Tokenizer.train_bpe(TEXTS, 300) if kind == "bpe" else Tokenizer.train_character(TEXTS)
    made.save(tmp_path, context_length=64)
    again = Tokenizer.load(tmp_path)
    assert again.fingerprint == made.fingerprint
    assert Tokenizer.load(tmp_path / "tokenizer.json").fingerprint == made.fingerprint

    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.eos_token, theirs.pad_token, theirs.bos_token) == ("<|stop|>", "<|pad|>", "<|end|>")
    assert theirs.model_max_length == 64
    for text in ("The Mill 12\n", " near  the river. "):
        assert theirs.encode(text, add_special_tokens=False) == made.encode(text)
        assert theirs.decode(made.encode(text)) == text


def test_stop_tokens_come_from_the_generation_config_first(bpe: Tokenizer, tmp_path) -> None:
    bpe.save(tmp_path)
    end = bpe.token_id("<|end|>")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, bpe.stop_token_ids[0]]}))
    assert Tokenizer.load(tmp_path).stop_token_ids == (end, *bpe.stop_token_ids)


def test_template_in_a_file_of_its_own(bpe: Tokenizer, tmp_path) -> None:
    bpe.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("hello")
    assert Tokenizer.load(tmp_path).chat_template == "hello"


def test_tokenizer_without_a_stop_token_is_refused(tmp_path) -> None:
    import tokenizers

    tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0}, merges=[])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"no stop token.*eos_token"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "a"}}')
    assert Tokenizer.load(tmp_path).stop_token_ids == (0,)


def test_nothing_to_load(tmp_path, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="no tokenizer at"):
        Tokenizer.load(tmp_path / "absent")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="is not a tokenizer"):
        Tokenizer.load(tmp_path)

    import huggingface_hub

    def offline(*_args, **_kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match="the hub did not give it"):
        Tokenizer.load("owner/model")
