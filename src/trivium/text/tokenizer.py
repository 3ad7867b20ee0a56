"""The tokenizer: trained here (byte-level BPE or characters) or taken from any Hugging Face directory.

Two ways in, and the difference is a matter of safety. ``encode`` takes *text*: whatever it spells, it never yields a
special token. ``encode_rendered`` takes the output of a chat template, where special tokens are meant. See ``chat``.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from trivium import files
from trivium.errors import UserError

PAD, END, USER, ASSISTANT, SYSTEM, STOP = SPECIAL_TOKENS = (
    "<|pad|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|stop|>",
)
UNKNOWN = "<|unknown|>"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('the roles are system, user and assistant, not ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|stop|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
_TEMPLATE_FILE = "chat_template.jinja"
# Where a model has no begin token, these mark the border of two texts better than the token that ends a chat turn.
_SEPARATORS = (END, "<|endoftext|>", "<|end_of_text|>", "</s>")


class Tokenizer:
    """A ``tokenizers.Tokenizer`` with the names and the template of its directory.

    ``stop_token_ids`` end a turn (the first is the main one); ``document_separator_id`` ends a document of a corpus and
    ``document_start_id`` precedes one; ``pad_token_id`` is for other libraries: our batches are ragged.
    """

    def __init__(self, backend: tokenizers.Tokenizer, settings: dict[str, Any], stop_ids: Sequence[int] = ()) -> None:
        """``settings`` is the content of tokenizer_config.json; ``stop_ids`` are stop tokens known from elsewhere.

        Raises UserError if no stop token is known.
        """
        self.backend = backend
        backend.no_truncation()
        backend.no_padding()
        # A second copy in which special tokens are plain text: the flag is state, and state that is toggled races.
        self._plain = tokenizers.Tokenizer.from_str(backend.to_str())
        self._plain.encode_special_tokens = True
        self.settings = settings
        eos = self.token_id(_content(settings.get("eos_token")))
        own_stop = self.token_id(STOP)
        found = [*stop_ids, *([] if eos is None else [eos])] or ([] if own_stop is None else [own_stop])
        self.stop_token_ids: tuple[int, ...] = tuple(dict.fromkeys(found))
        if not self.stop_token_ids:
            raise UserError(
                "the tokenizer has no stop token: name one as eos_token in tokenizer_config.json "
                "or as eos_token_id in generation_config.json"
            )

    # -- making and loading --------------------------------------------------------------------------------------

    @classmethod
    def train_bpe(
        cls, texts: Iterable[str], vocabulary_size: int, special_tokens: Sequence[str] = SPECIAL_TOKENS
    ) -> "Tokenizer":
        """Byte-level BPE over ``texts``; digits stay apart, so that a number is a row of digits.

        Every byte has a token, hence no text is unknown. ``vocabulary_size`` counts special tokens too.
        Raises UserError below 256 + the special tokens.
        """
        smallest = 256 + len(special_tokens)
        if vocabulary_size < smallest:
            raise UserError(
                f"tokenizer.vocabulary_size is {vocabulary_size}, but byte-level BPE needs at least {smallest} "
                "(256 bytes and the special tokens): raise it"
            )
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=list(special_tokens),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend, _own_settings())

    @classmethod
    def train_character(cls, texts: Iterable[str], special_tokens: Sequence[str] = SPECIAL_TOKENS) -> "Tokenizer":
        """One token a character of ``texts``; a character that never occurred becomes <|unknown|>."""
        characters: set[str] = set()
        for text in texts:
            characters.update(text)
        if not characters:
            raise UserError("there is no text to make a character vocabulary from: check the data of the stage")
        names = [*special_tokens, UNKNOWN, *sorted(characters)]
        vocabulary = {name: index for index, name in enumerate(names)}
        # BPE without merges is one token a character, in a form every reader of tokenizer.json knows.
        backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN, fuse_unk=False))
        backend.decoder = decoders.Fuse()
        backend.add_special_tokens([AddedToken(name, normalized=False) for name in (*special_tokens, UNKNOWN)])
        return cls(backend, {**_own_settings(), "unk_token": UNKNOWN})

    @classmethod
    def load(cls, source: str | Path) -> "Tokenizer":
        """From a tokenizer.json, a model directory or a hub name.

        Raises UserError where there is no fast tokenizer, no stop token or no way to the hub.
        """
        path = _locate(source)
        if not path.is_file():
            raise UserError(
                files.no_model(path.parent)
                or f"{path.parent} has no tokenizer.json: save the tokenizer in its fast form (save_pretrained of a "
                "transformers fast tokenizer writes it)"
            )
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise UserError(f"{path} is not a tokenizer that can be read ({error}): check the file") from None
        directory = path.parent
        # special_tokens_map.json is older and poorer: it fills gaps only.
        settings = {**_read_json(directory / _FILES[2]), **_read_json(directory / _FILES[1])}
        template = directory / _TEMPLATE_FILE
        if template.is_file():
            settings["chat_template"] = template.read_text(encoding="utf-8")
        if not settings and backend.token_to_id(STOP) is not None:
            settings = _own_settings()
        stops = _read_json(directory / _FILES[3]).get("eos_token_id")
        stops = [] if stops is None else [stops] if isinstance(stops, int) else list(stops)
        try:
            return cls(backend, settings, stops)
        except UserError as error:
            raise UserError(f"{directory}: {error}") from None

    def save(self, directory: str | Path, context_length: int | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json (with the chat template) for transformers to open.

        Stop tokens beyond the main one live in generation_config.json, which is written with the model.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        settings = {**self.settings, "chat_template": self.chat_template}
        if context_length is not None:
            settings["model_max_length"] = context_length
        if self.chat_template is None:
            del settings["chat_template"]
        self.backend.save(str(directory / _FILES[0]))
        text = json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True)
        (directory / _FILES[1]).write_text(text + "\n", encoding="utf-8")
        # A file of a model that was here before would win over the settings just written.
        (directory / _TEMPLATE_FILE).unlink(missing_ok=True)

    # -- text to ids and back ------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, nothing added. A special token that the text spells out stays text."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of several texts, in parallel and without offsets."""
        return [list(e.ids) for e in self._plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_rendered(self, text: str, guard: str = "") -> list[int]:
        """The ids of a rendered template: special tokens it spells are special tokens.

        ``guard`` is a character that ``chat.render`` put into special tokens spelled by the content of messages. Those
        are text: the guard is taken out and the stretches between real special tokens are encoded as ``encode`` does.
        """
        if not guard or guard not in text:
            return list(self.backend.encode(text, add_special_tokens=False).ids)
        ids: list[int] = []
        for piece in re.split(f"({self.special_pattern.pattern})", text):
            if piece in self._special:
                ids.append(self._special[piece])
            elif piece:
                ids.extend(self.encode(piece.replace(guard, "")))
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of ``ids``; special tokens are left out unless ``skip_special`` is false."""
        return str(self.backend.decode(list(ids), skip_special_tokens=skip_special))

    # -- what it knows -------------------------------------------------------------------------------------------

    @property
    def vocabulary_size(self) -> int:
        """Ids run from 0 to this, special tokens included (a model's embedding may have more rows)."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def special_pattern(self) -> re.Pattern[str]:
        """Matches every special token; the longest first, where one begins another."""
        names = sorted(self._special, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, names)) if names else r"(?!)")

    @property
    def special_token_ids(self) -> frozenset[int]:
        return frozenset(self._special.values())

    @cached_property
    def _special(self) -> dict[str, int]:
        added = self.backend.get_added_tokens_decoder().items()
        return {token.content: index for index, token in added if token.special}

    @property
    def bos_token_id(self) -> int | None:
        return self.token_id(_content(self.settings.get("bos_token")))

    @property
    def pad_token_id(self) -> int | None:
        return self.token_id(_content(self.settings.get("pad_token")))

    @property
    def document_separator_id(self) -> int:
        """Ends a document of a corpus."""
        for name in _SEPARATORS:
            found = self.token_id(name)
            if found is not None:
                return found
        return self.stop_token_ids[0]

    @property
    def document_start_id(self) -> int:
        """Stands before a document, so that its first token is predicted from something."""
        return self.document_separator_id if self.bos_token_id is None else self.bos_token_id

    @property
    def chat_template(self) -> str | None:
        """The jinja template; of several named ones the one called default."""
        template = self.settings.get("chat_template")
        if isinstance(template, list):
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        return template

    @property
    def fingerprint(self) -> str:
        """Changes whenever some text could give other ids or be framed otherwise."""
        frame = f"{self.document_start_id} {self.document_separator_id} {self.stop_token_ids} {self.chat_template}"
        return hashlib.blake2b((self.backend.to_str() + frame).encode(), digest_size=16).hexdigest()

    def token_id(self, name: str | None) -> int | None:
        """The id of the token spelled ``name``, or None."""
        return None if name is None else self.backend.token_to_id(name)

    def special_names(self) -> dict[str, str]:
        """Names such as bos_token and eos_token with what they spell: variables of a chat template."""
        named = {key: _content(value) for key, value in self.settings.items() if key.endswith("_token")}
        return {key: value for key, value in named.items() if value is not None}


def _own_settings() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        # A corpus is joined by <|end|>, so it is also what stands before a text: bos for scoring tools such as lm-eval.
        "bos_token": END,
        "eos_token": STOP,
        "pad_token": PAD,
        "additional_special_tokens": [USER, ASSISTANT, SYSTEM],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _content(value: Any) -> str | None:
    """A token in a settings file is a string or a mapping with its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): repair or remove it") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}: repair or remove it")
    return value


def _locate(source: str | Path) -> Path:
    """The tokenizer.json that ``source`` means."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return path / _FILES[0]
    name = str(source)
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) or name.endswith(".json"):
        raise UserError(f"no tokenizer at {name}: give a tokenizer.json, a model directory or a hub name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[*_FILES, _TEMPLATE_FILE])) / _FILES[0]
    except Exception as error:  # network, authorisation, validation: one remedy for all
        raise UserError(
            f"no tokenizer at {name}: it is no file or directory here, and the hub did not give it "
            f"({type(error).__name__}); check the name and the connection, or give a local directory"
        ) from None
