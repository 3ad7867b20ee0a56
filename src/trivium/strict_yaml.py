"""YAML as recipes use it: safe, strict about repeated keys, without the surprises of YAML 1.1, stable when written."""

import re
from typing import Any

import yaml

from trivium.errors import UserError


class _Loader(yaml.SafeLoader):
    """Safe YAML without its surprises: no key twice, `1e-3` is a number, only true and false are booleans."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class defines it this way
        first: [
            (tag, pattern) for tag, pattern in rules if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
        ]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that this loader, or a plain YAML 1.1 one, would take for something else."""

    def text(self, value: str) -> yaml.ScalarNode:
        """Line breaks are written as escapes: a text stays on its line, also within braces."""
        style = '"' if "".join(value.splitlines()) != value else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _Dumper.text)

_BOOL = re.compile(r"^(?:true|True|false|False)$")
_FLOAT = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)$"
)
for _user in (_Loader, _Dumper):
    _user.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
    _user.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def write_yaml(value: Any, flow: bool = False) -> str:
    """``value`` (plain data) as YAML that ``parse_yaml`` reads back; ``flow``: on one line."""
    width = 1_000_000 if flow else 120
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width, default_flow_style=flow)
    return text.removesuffix("...\n").strip() if flow else text


def parse_yaml(text: str, where: str) -> Any:
    """``text`` as plain data; a mistake in it is a UserError that names ``where`` and the line."""
    try:
        return _apart(yaml.load(text, Loader=_Loader), where)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it cannot be read"
        place = f"{where}, line {mark.line + 1}" if mark else where
        raise UserError(f"{place}: {problem}; correct the YAML there") from None


def _apart(value: Any, where: str, depth: int = 0) -> Any:
    """``value`` with a copy in place of every alias, so that changing what stands in one place changes no other."""
    if depth > 50:
        raise UserError(f"{where}: nested more than 50 deep, perhaps by an alias within its own anchor; write it out")
    if isinstance(value, dict):
        return {key: _apart(item, where, depth + 1) for key, item in value.items()}
    return [_apart(item, where, depth + 1) for item in value] if isinstance(value, list) else value


def noun(value: Any) -> str:
    """What ``value`` is, in a user's words."""
    if value is None:
        return "empty"
    kinds: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return kinds.get(type(value), "a mapping")
