"""YAML that people wrote, read safely: no tags, no duplicate keys, no alias bombs; errors name line and column.

Plain values follow YAML 1.2 where 1.1 surprises: ``1e-12`` is a number, ``023523`` is 23523, ``12:30:00`` and dates are
text. ``yes``, ``no``, ``on`` and ``off`` stay true and false, as in other readers of the field's files.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from dl3flow.errors import InputError
from dl3flow.io.files import read_text

_MAX_BYTES = 20_000_000
_MAX_NODES = 1_000_000
_MAX_DEPTH = 100
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path) -> Any:
    """Mappings, lists, texts, numbers, booleans and None of one YAML document.

    Raises
    ------
    InputError
        Naming file, line and column, if the file is missing, empty, too large or not plain YAML.
    """
    try:
        return parse_yaml(read_text(path, _MAX_BYTES))
    except _PlainYamlError as error:
        raise InputError(f"{path}{error}") from None


def parse_yaml(text: str) -> Any:
    """Same, of a text; errors begin with the place in it."""
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        raise _PlainYamlError(f": not valid YAML: {' '.join(str(error).split())}") from None
    try:
        node = loader.get_single_node()
        if node is None:
            raise _PlainYamlError(": the file is empty: write its keys")
        _count(node, {}, 0)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        advice = " (indent with spaces, not tabs)" if "'\\t'" in str(error.problem) else ""
        raise _PlainYamlError(
            f"{_place(mark)}: not valid YAML: {error.problem or error.context}{advice}"
        ) from None
    except yaml.YAMLError as error:
        raise _PlainYamlError(f": not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise _PlainYamlError(f": nested more than {_MAX_DEPTH} levels deep: simplify it") from None
    finally:
        loader.dispose()


def dump_yaml(value: Any) -> str:
    """Block-style YAML text of plain values in their own order; numbers keep all their digits."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, indent=2)
    return text


class _PlainYamlError(InputError):
    """An error that lacks the file's name."""


class _Loader(yaml.SafeLoader):
    """Knows the plain types only."""

    def construct_plain_mapping(self, node: Any) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise _PlainYamlError(
                f"{_place(node.start_mark)}: the tag '{node.tag}' does not fit: tags are not allowed, leave it out"
            )
        first: dict[Any, Any] = {}
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, dict | list):
                raise _PlainYamlError(f"{_place(key_node.start_mark)}: a key must be text, found {key!r}")
            if key in first:
                line = first[key].line + 1
                raise _PlainYamlError(
                    f"{_place(key_node.start_mark)}: the key '{key}' is given twice (first in line {line}): keep one"
                )
            first[key] = key_node.start_mark
        self.flatten_mapping(node)
        return {
            self.construct_object(k, deep=True): self.construct_object(v, deep=True) for k, v in node.value
        }

    def construct_plain_sequence(self, node: Any) -> list[Any]:
        return [self.construct_object(child, deep=True) for child in node.value]

    def construct_plain_float(self, node: Any) -> float:
        return float(self.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan"))

    def refuse_tag(self, node: Any) -> Any:
        raise _PlainYamlError(
            f"{_place(node.start_mark)}: the tag '{node.tag}' is not allowed in such a file: leave it out"
        )


_Loader.yaml_constructors = {}
_Loader.yaml_implicit_resolvers = {}
for _name, _construct in {
    "null": yaml.SafeLoader.construct_yaml_null,
    "bool": yaml.SafeLoader.construct_yaml_bool,
    "str": yaml.SafeLoader.construct_yaml_str,
    "int": lambda loader, node: int(loader.construct_scalar(node)),
    "float": _Loader.construct_plain_float,
    "map": _Loader.construct_plain_mapping,
    "seq": _Loader.construct_plain_sequence,
}.items():
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _construct)
_Loader.add_constructor(None, _Loader.refuse_tag)

for _name, _pattern, _first in (
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}",
        re.compile(f"^(?:{_pattern})$"),
        ["" if c == "\0" else c for c in _first],
    )


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_READERS: tuple[Any, ...] = (_Loader(""), yaml.SafeLoader(""))


def _represent_text(dumper: Any, text: str) -> Any:
    # In quotes whatever this reader, or one of YAML 1.1, would take for something else than text.
    plain = all(reader.resolve(yaml.ScalarNode, text, (True, False)).endswith(":str") for reader in _READERS)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


_Dumper.add_representer(str, _represent_text)


def _place(mark: Any) -> str:
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""


def _count(node: Any, sizes: dict[int, int], depth: int) -> int:
    """Nodes below this one with all aliases written out; each node is visited once."""
    if depth > _MAX_DEPTH:
        raise _PlainYamlError(
            f"{_place(node.start_mark)}: nested more than {_MAX_DEPTH} levels deep: simplify it"
        )
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise _PlainYamlError(f"{_place(node.start_mark)}: an alias contains itself: write the value out")
        return sizes[id(node)]
    sizes[id(node)] = 0
    children = [] if isinstance(node, yaml.ScalarNode) else node.value
    pairs = (child for entry in children for child in (entry if isinstance(entry, tuple) else (entry,)))
    size = 1 + sum(_count(child, sizes, depth + 1) for child in pairs)
    if size > _MAX_NODES:
        raise _PlainYamlError(
            f"{_place(node.start_mark)}: aliases expand it to more than {_MAX_NODES} values: write them out"
        )
    sizes[id(node)] = size
    return size
