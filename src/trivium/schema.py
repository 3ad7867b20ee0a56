"""What the schema (config.py) can tell a user: one sentence for a wrong value, and a recipe with its comments."""

import re
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from trivium.config import RecipeConfig
from trivium.recipe import nearest
from trivium.strict_yaml import write_yaml

COMMENT_COLUMN = 44
MAPPING = "a mapping of keys to values"
# what a value should be, by what pydantic calls the mistake
WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": MAPPING,
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
}


def explain(error: ValidationError, root: type[BaseModel] = RecipeConfig, whole: str = "the recipe") -> str:
    """The first mistake as a sentence: which key, what is wrong, what is valid. Unknown keys come before the rest.
    ``root`` is the model that was filled, and ``whole`` what a user calls it."""
    mistakes = sorted(error.errors(include_url=False), key=lambda mistake: mistake["type"] != "extra_forbidden")
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return _sentence(mistakes[0], root, whole) + more


def _sentence(mistake: ErrorDetails, root: type[BaseModel], whole: str) -> str:
    path, annotation, parent = _locate(mistake["loc"], root)
    key, context = ".".join(path), mistake.get("ctx", {})
    given = _short(mistake["input"])
    match mistake["type"]:
        case "extra_forbidden":
            keys = list(parent.model_fields) if parent else []
            hint = _below(path[-1], parent) or nearest(path[-1], keys) or f"; it has {', '.join(keys)}"
            return f"{'.'.join(path[:-1]) or whole} has no key {path[-1]!r}{hint}"
        case "missing":
            field = parent.model_fields.get(path[-1]) if parent else None
            return f"{key} is missing; give {field.description if field and field.description else 'it a value'}"
        case "literal_error":
            choices = [str(choice) for choice in _choices(annotation)] or [str(context.get("expected", ""))]
            return f"{key} is {given}, but must be one of {', '.join(choices)}{nearest(str(mistake['input']), choices)}"
        case "union_tag_invalid":
            tags = context.get("expected_tags")
            return f"{key}.kind is {context.get('tag')!r}, but a stage is one of {tags}; set {key}.kind"
        case "value_error":
            return f"{key or whole}: {mistake['msg'].removeprefix('Value error, ')}"
        case "string_pattern_mismatch" if context.get("pattern") == r"\S":
            return f"{key} is {given}, but should not be blank"
        case "string_pattern_mismatch" if parent and (described := parent.model_fields[path[-1]].description):
            return f"{key} is {given}, but should be {described}"
        case "too_short":
            return f"{key} is {given}, but should hold at least {_entries(context['min_length'])}"
        case "too_long":
            return f"{key} is {given}, but should hold at most {_entries(context['max_length'])}"
        case kind if kind in WANTED:
            takes = f"; it takes {', '.join(annotation.model_fields)}" if _is_model(annotation) else ""
            return f"{key} is {given}, but should be {WANTED[kind]}{takes}"
    return f"{key} is {given}, but {re.sub(r'^[A-Z][a-z]+ should', 'should', mistake['msg'])}"


def _entries(number: int) -> str:
    return f"{number} {'entry' if number == 1 else 'entries'}"


def _below(key: str, parent: type[BaseModel] | None) -> str:
    """As ``nearest``, where ``key`` is one of a part of ``parent``: ``lr`` of ``optimizer.lr``."""
    for name, field in parent.model_fields.items() if parent else ():
        part = _bare(field.annotation)
        if _is_model(part) and key in part.model_fields:
            return f" (did you mean '{name}.{key}'?)"
    return ""


def _locate(location: Sequence[str | int], root: type[BaseModel]) -> tuple[list[str], Any, type[BaseModel] | None]:
    """The path as a user writes it, the annotation of its end, and the model that holds the last key.

    pydantic puts the kind of a stage into the path (``stages.rl.rl.steps``); a user never wrote it.
    """
    path: list[str] = []
    here: Any = root
    parent: type[BaseModel] | None = None
    for segment in location:
        here = _bare(here)
        members = {
            kind: member for member in _union_models(here) for kind in _choices(member.model_fields["kind"].annotation)
        }
        if segment in members:
            here = members[str(segment)]
            continue
        path.append(str(segment))
        if _is_model(here):
            parent = here
            field = here.model_fields.get(str(segment))
            here = field.annotation if field else None
        else:
            arguments = get_args(here)
            here = arguments[-1 if get_origin(here) is dict else 0] if arguments else None
    return path, _bare(here), parent


def _bare(annotation: Any) -> Any:
    """``annotation`` without Annotated and without ``| None``."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _bare(members[0]) if len(members) == 1 else annotation
    return annotation


def _union_models(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) not in (Union, types.UnionType):
        return []
    return [member for member in get_args(annotation) if _is_model(member)]


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _choices(annotation: Any) -> list[Any]:
    annotation = _bare(annotation)
    return list(get_args(annotation)) if get_origin(annotation) is Literal else []


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- a recipe with its comments --------------------------------------------------------------------------------------


def annotated(recipe: RecipeConfig) -> str:
    """The recipe as YAML, each key with its description, its choices and, where the value differs, its default."""
    return "".join(f"{_with_comment(text, comment)}\n" for text, comment in _model_lines(recipe))


def _with_comment(text: str, comment: str) -> str:
    if not comment:
        return text
    if len(text) > COMMENT_COLUMN:
        indent = text[: len(text) - len(text.lstrip(" -"))].replace("-", " ")
        # A comment above a list item would part it from its dash, so only plain keys get theirs on a line of its own.
        return f"{text}  # {comment}" if text.lstrip().startswith("- ") else f"{indent}# {comment}\n{text}"
    return f"{text:<{COMMENT_COLUMN}}  # {comment}"


def _model_lines(model: BaseModel) -> Iterator[tuple[str, str]]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        yield from _value_lines(name, value, _comment(field, value))


def _value_lines(key: str, value: Any, comment: str) -> Iterator[tuple[str, str]]:
    nested: list[tuple[str, str]] | None = None
    if isinstance(value, BaseModel):
        nested = list(_model_lines(value))
    elif isinstance(value, dict) and any(isinstance(item, BaseModel) for item in value.values()):
        nested = [line for name, item in value.items() for line in _value_lines(str(name), item, "")]
    elif isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
        nested = [line for item in value for line in _item_lines(item)]
    if nested is None:
        yield f"{write_yaml(key, flow=True)}: {write_yaml(_plain(value), flow=True)}", comment
        return
    yield f"{write_yaml(key, flow=True)}:", comment
    yield from ((f"  {text}", note) for text, note in nested)


def _item_lines(item: BaseModel) -> Iterator[tuple[str, str]]:
    for index, (text, comment) in enumerate(_model_lines(item)):
        yield f"{'- ' if index == 0 else '  '}{text}", comment


def _comment(field: FieldInfo, value: Any) -> str:
    parts = [field.description] if field.description else []
    choices = _choices(field.annotation)
    if len(choices) > 1:
        parts.append(" | ".join(str(choice) for choice in choices))
    default = field.get_default(call_default_factory=True, validated_data={})
    simple = not isinstance(default, BaseModel | list | dict)
    if default is not PydanticUndefined and simple and default != value:
        parts.append(f"default {write_yaml(_plain(default), flow=True)}")
    return "; ".join(parts)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
