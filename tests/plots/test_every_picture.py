"""What holds for every registered picture, at few and many bins: nothing covers anything, in any style, from the same bytes."""

import inspect

import numpy as np
import pytest
from matplotlib.colors import to_hex

from dl3flow.plots import PLOTS, style
from dl3flow.plots.style_file import parse_style

from .boxes import overlaps, text_outside
from .examples import EXAMPLES

N_BINS = (1, 5, 40)


def draw(name, n):
    return PLOTS.find(name, "test")(*EXAMPLES[name](n))


def colours(figure):
    """Colours of the lines of a picture."""
    return {to_hex(line.get_color()).upper() for axes in figure.axes for line in axes.lines}


def test_every_picture_takes_a_product_and_a_fit():
    for plugin in PLOTS:
        assert list(inspect.signature(plugin.function).parameters) == ["product", "result"]
        assert plugin.options == {}


def test_every_picture_has_an_example():
    assert sorted(EXAMPLES) == sorted(PLOTS.names())


@pytest.mark.parametrize("n", N_BINS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_no_text_covers_another_or_leaves_the_page(name, n):
    figure = draw(name, n)
    style.name_analysis(figure, "demo")
    assert overlaps(figure) == []
    assert text_outside(figure) == []
    assert figure.get_suptitle().replace("\n", " ").endswith("· demo")
    for axes in figure.axes:
        if axes.get_label() != "<colorbar>" and axes.axison and not hasattr(axes, "coords"):
            assert axes.get_ylabel() or axes.images or axes.collections


@pytest.mark.parametrize("name", EXAMPLES)
def test_equal_products_have_equal_pictures(name):
    assert style.render(draw(name, 1), "svg") == style.render(draw(name, 1), "svg")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_style_file_changes_the_look_and_nothing_else(name):
    settings = {
        "axes.prop_cycle": "cycler('color', ['AA0000', '00AA00', '0000AA', '00AAAA', 'AA00AA', 'AAAA00'])",
        "font.size": "8",
        "figure.figsize": "6, 4",
    }
    plain = draw(name, 5)
    with style.restyled(parse_style(settings, "test")):
        restyled = draw(name, 5)
        assert overlaps(restyled) == []
    assert restyled.get_figwidth() == pytest.approx(plain.get_figwidth() * 6 / 7.2)
    palette = {"#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"}
    assert not colours(restyled) & palette
    assert len(restyled.axes) == len(plain.axes)
    for one, two in zip(plain.axes, restyled.axes, strict=True):
        for a, b in zip(one.lines, two.lines, strict=True):
            np.testing.assert_array_equal(a.get_ydata(), b.get_ydata())


def test_the_style_of_the_house_comes_back():
    plain = style.render(draw("light_curve", 5), "svg")
    with style.restyled(parse_style({"font.size": "12"}, "test")):
        changed = style.render(draw("light_curve", 5), "svg")
    assert style.render(draw("light_curve", 5), "svg") == plain != changed


def test_texts_that_are_covered_or_cut_are_found():
    figure = draw("light_curve", 5)
    axes = figure.axes[0]
    axes.text(0.5, 0.5, "one", transform=axes.transAxes)
    axes.text(0.5, 0.5, "two", transform=axes.transAxes)
    axes.text(0.99, 1.02, "three", transform=axes.transAxes)
    figure.text(0.99, 0.5, "beyond the page", in_layout=False)
    assert {("one", "two"), ("three", "a legend")} <= set(overlaps(figure))
    assert text_outside(figure) == ["beyond the page"]
