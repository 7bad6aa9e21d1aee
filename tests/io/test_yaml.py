"""YAML: plain values, and one sentence with line and column for everything else."""

import math

import pytest

from dl3flow.errors import InputError
from dl3flow.io.yaml import dump_yaml, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-12", 1e-12),
        ("1.0e-12", 1e-12),
        ("4.E+3", 4000.0),
        ("-.5", -0.5),
        ("023523", 23523),
        ("-7", -7),
        (".inf", math.inf),
        ("12:30:00", "12:30:00"),
        ("2004-12-04", "2004-12-04"),
        ("1_000", "1_000"),
        ("'no'", "no"),
        ("no", False),
        ("on", True),
        ("~", None),
        ("{a: , b: null}", {"a": None, "b": None}),
        ("1 TeV", "1 TeV"),
        ("{x: &a {k: 1}, y: {<<: *a, z: 2}}", {"x": {"k": 1}, "y": {"k": 1, "z": 2}}),
        ("[1, [true, 0.1]]", [1, [True, 0.1]]),
    ],
)
def test_values(text, expected):
    found = parse_yaml(text)
    assert found == expected
    assert type(found) is type(expected)


def test_dump_keeps_all_digits_and_the_order_of_keys():
    value = {
        "z": [0.1 + 0.2, 3.4567890123456789e-11, 1e300],
        "a": {"text": "1e-12", "flag": True, "none": None},
    }
    assert parse_yaml(dump_yaml(value)) == value
    assert list(parse_yaml(dump_yaml(value))) == ["z", "a"]


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
BAD = {
    "duplicate key": (
        "name: a\nmodels: {x: 1, y: 2, x: 3}\n",
        r"line 2, column 22: the key 'x' is given twice \(first in line 2\)",
    ),
    "python tag": ("a: !!python/object/apply:os.system [ls]\n", r"line 1, column 4: the tag .* not allowed"),
    "own tag": ("a: !include /etc/passwd\n", "line 1, column 4: the tag '!include' is not allowed"),
    "tab": ("a:\n\tb: 1\n", r"line 2, column 1: .*tabs"),
    "unclosed": ("a: [1, 2\nb: 3\n", "line 2"),
    "empty": ("", "empty"),
    "comment only": ("# nothing\n", "empty"),
    "two documents": ("a: 1\n---\nb: 2\n", "line 2"),
    "bomb": (BOMB, "more than 1000000 values"),
    "itself": ("a: &x [*x]\n", "contains itself"),
    "deep": ("[" * 150 + "]" * 150, "100 levels"),
    "very deep": ("[" * 100_000, "levels|line 1"),
    "key is a list": ("? [1, 2]\n: 3\n", "line 1, column 3: a key must be text"),
    "undefined alias": ("a: *b\n", "line 1, column 4"),
    "control character": ("a: \x01\n", "not valid YAML"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_in_one_sentence(tmp_path, case):
    text, words = BAD[case]
    (tmp_path / "models.yaml").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_yaml(tmp_path / "models.yaml")
    assert str(caught.value).startswith(str(tmp_path / "models.yaml"))
    assert "\n" not in str(caught.value)


def test_binary_file(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        read_yaml(tmp_path / "a.yaml")
