"""Constitutions: the principles an AI judge goes by, and how it is asked. Read from strict YAML."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.judges import prompts
from trivium.recipe import nearest
from trivium.strict_yaml import noun, parse_yaml

KEYS = ("name", "scale", "labels", "system", "prompts", "delimiters", "principles")
PRINCIPLE_KEYS = ("name", "question", "weight", "examples")
PAIR_KEYS = ("prompt", "first", "second", "better")
SCORE_KEYS = ("prompt", "answer", "score")
FOLDER = "constitutions"

_CODED = re.compile(r"[^{]*\S[^{]*\{mark\}[^\w\s{][^{]*")


@dataclass(frozen=True)
class Example:
    """A worked example: two answers and which is ``better`` (first or second), or one answer and its ``score``."""

    prompt: str
    first: str = ""
    second: str = ""
    better: str = ""
    answer: str = ""
    score: int | None = None


@dataclass(frozen=True)
class Principle:
    """What is asked of an answer. Weights of a constitution are taken relative to their sum."""

    name: str
    question: str
    weight: float = 1.0
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Constitution:
    """Principles, and the templates, labels, scale and marks with which they are asked about. ``templates`` has one for
    each of compare, score, critique and revise; ``system`` may be empty."""

    name: str
    principles: tuple[Principle, ...]
    scale: int = 10
    labels: tuple[str, str] = ("A", "B")
    system: str = prompts.SYSTEM
    templates: Mapping[str, str] = field(default_factory=lambda: expanded(prompts.TEMPLATES, prompts.DELIMITERS))
    delimiters: prompts.Delimiters = prompts.DELIMITERS

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """The weights of the principles, adding up to 1."""
        total = math.fsum(principle.weight for principle in self.principles)
        return tuple(principle.weight / total for principle in self.principles)

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever a question could be put otherwise or count otherwise."""
        whole = json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    @property
    def scores(self) -> tuple[str, ...]:
        return tuple(str(score) for score in range(1, self.scale + 1))

    def draw(self, generator: np.random.Generator) -> Principle:
        """One principle, drawn by weight."""
        return self.principles[int(generator.choice(len(self.principles), p=self.weights))]

    def ask(self, kind: str, principle: Principle, prompt: Prompt, **texts: str) -> tuple[Message, ...]:
        """The messages of a question of ``kind`` about ``texts`` (first and second, or answer, or answer and critique),
        each made unable to spell a mark, and the prompt as well."""
        words = prompts.prompt_text(prompt)
        mark = prompts.code(kind, self.fingerprint, principle.name, words, sorted(texts.items()))
        turns = [
            (prompts.fill(self.templates[kind], self._values(principle, mark, example.prompt, shown)), said)
            for example, shown, said in self._examples(kind, principle)
        ]
        values = self._values(principle, mark, words, texts)
        return prompts.messages(self.system, turns, self.templates[kind], values)

    def _values(self, principle: Principle, mark: str, prompt: str, texts: Mapping[str, str]) -> dict[str, str]:
        material = {"prompt": prompt, **texts}
        return {
            **{name: prompts.neutral(text, self.delimiters) for name, text in material.items()},
            "question": principle.question,
            "mark": mark,
            "scale": str(self.scale),
            "label_first": self.labels[0],
            "label_second": self.labels[1],
        }

    def _examples(self, kind: str, principle: Principle) -> list[tuple[Example, dict[str, str], str]]:
        """Examples that fit ``kind``, with what they show and what the judge is to say."""
        found: list[tuple[Example, dict[str, str], str]] = []
        for example in principle.examples:
            if kind == "compare" and example.better:
                said = self.labels[("first", "second").index(example.better)]
                found.append((example, {"first": example.first, "second": example.second}, said))
            elif kind == "score" and example.score is not None:
                found.append((example, {"answer": example.answer}, str(example.score)))
        return found


def expanded(templates: Mapping[str, str], delimiters: prompts.Delimiters) -> dict[str, str]:
    """``templates`` with {open} and {close} written out; {mark} stays for the question."""
    return {
        kind: text.replace("{open}", delimiters[0]).replace("{close}", delimiters[1])
        for kind, text in templates.items()
    }


def names() -> list[str]:
    """Names of the constitutions that come with Trivium."""
    folder = resources.files("trivium") / FOLDER
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load(name_or_path: str | Path) -> Constitution:
    """A constitution that comes with Trivium, or one from a YAML file.

    Raises UserError naming the file and the key: not there, no YAML, an unknown key, no principles, a weight that is
    not positive, a name twice, a template that does not put an answer between the marks.
    """
    name = str(name_or_path)
    if name in names():
        text = (resources.files("trivium") / FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
        return from_data(parse_yaml(text, f"constitution {name}"), f"constitution {name}", name)
    path = Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = "" if path.suffix or path.name != name else nearest(name, names())  # a path is no misspelt name
        raise UserError(
            f"there is no constitution {name}: give the path of a YAML file, or one of {', '.join(names())}{hint}"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no UTF-8 text; give a YAML file of principles") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a YAML file of principles") from None
    return from_data(parse_yaml(text, str(path)), str(path), path.stem)


def from_data(data: Any, where: str, name: str = "") -> Constitution:
    """The constitution in plain ``data``; ``where`` is what a mistake is reported of. UserError as ``load``."""
    section = _mapping(data, where, KEYS)
    delimiters = _delimiters(section.get("delimiters"), where)
    scale = section.get("scale", 10)
    if isinstance(scale, bool) or not isinstance(scale, int) or not 2 <= scale <= 100:
        raise UserError(f"{where}: scale is {scale!r}, but must be a whole number from 2 to 100")
    own = _mapping(section.get("prompts") or {}, f"{where}: prompts", tuple(prompts.TEMPLATES))
    if "system" in section:
        system = "" if section["system"] is None else _text(section, "system", where, empty=True)
    else:  # short templates of one's own are meant to be short
        system = "" if own else prompts.SYSTEM
    principles = _principles(section.get("principles"), where, scale)
    templates = expanded(prompts.TEMPLATES | {kind: _text(own, kind, f"{where}: prompts") for kind in own}, delimiters)
    for kind, template in templates.items():
        _check_template(kind, template, delimiters, len(principles) > 1, where)
    _check_names(system, ("mark", "scale", "label_first", "label_second"), f"{where}: system")
    return Constitution(
        _text(section, "name", where) if "name" in section else name,
        principles,
        scale,
        _labels(section.get("labels", ["A", "B"]), where),
        system,
        templates,
        delimiters,
    )


def _principles(value: Any, where: str, scale: int) -> tuple[Principle, ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: there are no principles; list at least one with a name and a question")
    found: list[Principle] = []
    for number, item in enumerate(value, 1):
        place = f"{where}: principle {number}"
        section = _mapping(item, place, PRINCIPLE_KEYS)
        name, question = _text(section, "name", place), _text(section, "question", place)
        if any(name == other.name for other in found):
            raise UserError(f"{place}: the name {name!r} stands twice; rename one")
        weight = section.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise UserError(f"{place} ({name}): weight is {weight!r}, but must be a number above 0")
        examples = section.get("examples") or []
        if not isinstance(examples, list):
            raise UserError(f"{place} ({name}): examples is {noun(examples)}, but must be a list")
        shown = [_example(example, f"{place} ({name}), example {n}", scale) for n, example in enumerate(examples, 1)]
        found.append(Principle(name, question, float(weight), tuple(shown)))
    return tuple(found)


def _example(value: Any, where: str, scale: int) -> Example:
    pair = isinstance(value, dict) and "better" in value
    keys = PAIR_KEYS if pair else SCORE_KEYS
    section = _mapping(value, where, keys)
    missing = [key for key in keys if key not in section]
    if missing:
        raise UserError(f"{where}: {missing[0]} is missing; an example has {', '.join(PAIR_KEYS)} or {', '.join(keys)}")
    prompt = _text(section, "prompt", where, empty=True)
    if pair:
        if section["better"] not in ("first", "second"):
            raise UserError(f"{where}: better is {section['better']!r}, but must be first or second")
        first, second = (_text(section, key, where, empty=True) for key in ("first", "second"))
        return Example(prompt, first, second, section["better"])
    score = section["score"]
    if isinstance(score, bool) or not isinstance(score, int) or not 1 <= score <= scale:
        raise UserError(f"{where}: score is {score!r}, but must be a whole number from 1 to {scale}")
    return Example(prompt, answer=_text(section, "answer", where, empty=True), score=score)


def _labels(value: Any, where: str) -> tuple[str, str]:
    fits = isinstance(value, list) and len(value) == 2 and all(isinstance(label, str) and label for label in value)
    if not fits or value[0] == value[1]:
        raise UserError(f"{where}: labels is {value!r}, but must be two different texts, such as [A, B]")
    return value[0], value[1]


def _delimiters(value: Any, where: str) -> prompts.Delimiters:
    if value is None:
        return prompts.DELIMITERS
    fits = isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)
    if not fits or any(not text.replace("{mark}", "").strip() for text in value):
        raise UserError(f"{where}: delimiters is {value!r}, but must be two texts with a visible character, as [<, >]")
    opening, closing = (text.strip() for text in value)
    _check_names(opening + closing, ("mark",), f"{where}: delimiters")
    if any("{mark}" in text and not _CODED.fullmatch(text) for text in (opening, closing)):
        raise UserError(
            f"{where}: delimiters is {value!r}, but {{mark}} needs a text before it and a sign after it, as in "
            "<text {mark}>, or nobody could tell where the code ends"
        )
    if opening in closing or closing in opening:
        raise UserError(f"{where}: the delimiters {opening!r} and {closing!r} hold one another; make them different")
    return opening, closing


def _check_template(kind: str, template: str, delimiters: prompts.Delimiters, several: bool, where: str) -> None:
    place = f"{where}: the template {kind}"
    texts = prompts.TEXTS[kind]
    known = ("question", "prompt", "mark", "scale", "label_first", "label_second", *texts)
    _check_names(template, known, place, more=", {open}, {close}")  # the last two are written out by now
    present = prompts.names(template)
    for name in texts:
        if present.count(name) != 1:
            raise UserError(f"{place} has to hold {{{name}}} once, and holds it {present.count(name)} times")
        before, after = template.split(f"{{{name}}}")
        if not before.rstrip().endswith(delimiters[0]) or not after.lstrip().startswith(delimiters[1]):
            raise UserError(
                f"{place} does not put {{{name}}} between the delimiters {delimiters[0]} and {delimiters[1]}; write "
                f"{{open}}{{{name}}}{{close}}"
            )
    if several and "question" not in present:
        raise UserError(f"{place} has no {{question}}, so it would ask about every principle alike; put it in")


def _check_names(template: str, known: Sequence[str], place: str, more: str = "") -> None:
    for name in prompts.names(template):
        if name not in known:
            raise UserError(f"{place} holds {{{name}}}, but knows {', '.join(f'{{{key}}}' for key in known)}{more}")


def _mapping(value: Any, where: str, keys: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} is {noun(value)}, but must be a mapping with {', '.join(keys)}")
    for key in value:
        if key not in keys:
            hint = nearest(str(key), keys) or f"; it has {', '.join(keys)}"
            raise UserError(f"{where} has no key {str(key)!r}{hint}")
    return value


def _text(section: Mapping[str, Any], key: str, where: str, empty: bool = False) -> str:
    if key not in section:
        raise UserError(f"{where}: {key} is missing")
    value = section[key]
    if not isinstance(value, str) or not (empty or value.strip()):
        raise UserError(f"{where}: {key} is {noun(value) if value != '' else 'empty'}, but must be a text")
    return value.strip()
