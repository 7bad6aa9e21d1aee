"""Style files: what they may set, and how their mistakes are told."""

import pytest

from dl3flow.errors import InputError
from dl3flow.plots import style
from dl3flow.plots.style_file import parse_style, split_style

TEXT = """\
# for a journal
font.size:  8          # points
font.family: "serif"   # "quoted" comment
axes.prop_cycle : cycler('color', ['000000', 'D55E00'])

grid.color: "#EEEEEE"
"""


def test_lines_are_split_and_comments_left_out():
    assert split_style(TEXT, "a.mplstyle") == {
        "font.size": "8",
        "font.family": "serif",
        "axes.prop_cycle": "cycler('color', ['000000', 'D55E00'])",
        "grid.color": "#EEEEEE",
    }


def test_values_are_those_of_matplotlib():
    found = parse_style(split_style(TEXT, "a"), "a")
    assert found["font.size"] == 8.0
    assert found["font.family"] == ["serif"]
    with style.restyled(found):
        assert [style.BLUE, style.VERMILION, style.GREEN] == ["#000000", "#D55E00", "#000000"]
        assert style.LIGHT == "#EEEEEE"
    assert [style.BLUE, style.LIGHT] == ["#0072B2", "#D9D9D9"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("font.size 8", "a.mplstyle: line 1: expected `name: value`, found 'font.size 8'"),
        ("\nfont.size:", "a.mplstyle: line 2: expected `name: value`, found 'font.size:'"),
        (
            "font.size: 8\nfont.size: 9",
            "a.mplstyle: line 2: 'font.size' is set twice: remove one of the two lines",
        ),
    ],
)
def test_a_wrong_line_is_named(text, told):
    with pytest.raises(InputError) as error:
        split_style(text, "a.mplstyle")
    assert str(error.value) == told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"font.sise": "8"},
            "a: 'font.sise' is no setting of a matplotlib style file: did you mean 'font.size'?",
        ),
        ({"text.usetex": "True"}, "a: 'text.usetex' cannot be set for pictures: remove the line"),
        ({"backend": "agg"}, "a: 'backend' cannot be set for pictures: remove the line"),
        ({"font.size": "big"}, "a: font.size: Could not convert 'big' to float"),
        ({"axes.prop_cycle": "red"}, "a: axes.prop_cycle: "),
    ],
)
def test_a_wrong_setting_is_named(settings, told):
    with pytest.raises(InputError) as error:
        parse_style(settings, "a")
    assert str(error.value).startswith(told)
