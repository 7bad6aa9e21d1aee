"""The style: bytes, embedded provenance, labels."""

import struct

import astropy.units as u
import numpy as np
import pytest

from dl3flow.plots import style


def example():
    with style.applied():
        figure = style.new_figure(3)
        axes = figure.subplots()
        axes.plot([1, 2, 3], [1, 4, 9], "o-", label="data")
        axes.imshow(np.arange(6.0).reshape(2, 3), extent=(1, 2, 1, 4))
        style.set_title(figure, "Price in $ and <script>")
        style.legend_above(axes)
    return figure


def png_chunks(data):
    at, found = 8, []
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_two_equal_figures_have_equal_bytes(kind):
    one = style.render(example(), kind, '{"code": "abc"}')
    assert one == style.render(example(), kind, '{"code": "abc"}')
    figure = example()
    assert style.render(figure, kind) == style.render(figure, kind)


def test_svg_holds_provenance_but_no_date_and_no_program():
    text = style.render(example(), "svg", '{"code": "abc & <d>"}').decode()
    assert '<dc:description>{"code": "abc &amp; &lt;d&gt;"}</dc:description>' in text
    assert "dc:date" not in text
    assert "dc:creator" not in text
    assert "Matplotlib" not in text


def test_png_holds_one_text_chunk_with_provenance():
    texts = [
        body
        for kind, body in png_chunks(style.render(example(), "png", '{"code": "abc"}'))
        if kind == b"tEXt"
    ]
    assert texts == [b'provenance\x00{"code": "abc"}']


def test_style_ignores_session_settings():
    import matplotlib as mpl

    plain = style.render(example(), "svg")
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": "other", "lines.linewidth": 9}):
        assert style.render(example(), "svg") == plain


def test_save_takes_the_format_from_the_suffix(tmp_path):
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG")):
        style.save(example(), tmp_path / f"a{suffix}", "p")
        assert (tmp_path / f"a{suffix}").read_bytes().startswith(start)


def test_analysis_is_named_in_the_title_and_long_titles_are_broken():
    figure = example()
    style.name_analysis(figure, "hess-crab")
    assert figure.get_suptitle() == r"Price in \$ and <script> · hess-crab"
    style.name_analysis(figure, "x" * 64)
    assert "\n" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("TeV cm-2 s-1", "TeV cm⁻² s⁻¹"),
        ("TeV-1 s-1 cm-2", "cm⁻² s⁻¹ TeV⁻¹"),
        ("deg", "deg"),
        ("", ""),
        ("m2 s", "m² s"),
    ],
)
def test_units_have_superscripts(unit, text):
    assert style.unit_text(u.Unit(unit)) == text


def test_powers_of_ten():
    assert style.power_of_ten(np.array([2.1e-11, np.nan, 4e-12])) == (1e-11, "10⁻¹¹ ")
    assert style.power_of_ten(np.array([12.0])) == (1.0, "")
    assert style.power_of_ten(np.array([np.nan])) == (1.0, "")
    assert style.power_label(2e-12) == "2×10⁻¹²"
    assert style.power_label(1e-12) == "10⁻¹²"
