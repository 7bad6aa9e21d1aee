"""Facts about the pictures of profiles, phase curves, found sources and maps of strength."""

import numpy as np
import pytest
from matplotlib.patches import Ellipse

from dl3flow.data.products import ProductTable

from .examples import (
    make_flux_profile,
    make_found_sources,
    make_phase_curve,
    make_smooth_map,
    make_strength_map,
)
from .test_pictures import arrows, containers, draw, labels


def test_a_phase_curve_is_drawn_over_two_periods():
    figure = draw("phase_curve", make_phase_curve(5))
    for axes, strength, name in zip(figure.axes, (1.0, 3.0), ("1 to 3 TeV", "3 to 10 TeV"), strict=True):
        assert axes.get_ylabel().startswith(name)
        phase = np.array([0.1, 0.3, 0.5, 0.7])
        lines = [c.lines[0] for c in containers(axes) if c.lines[0] is not None]
        for line, shift in zip(lines, (0, 1), strict=True):
            np.testing.assert_allclose(line.get_xdata(), phase + shift)
            np.testing.assert_allclose(line.get_ydata(), strength * (1 + 0.5 * np.cos(2 * np.pi * phase)))
        assert sum(len(line.get_xdata()) for line in arrows(axes)) == 2
    assert labels(figure) == ["flux", "upper limits (2 σ)"]


def test_a_profile_is_flux_over_solid_angle_in_each_band():
    product = make_flux_profile(5)
    (axes,) = draw("flux_profile", product).axes
    table = product.table
    bands = [c for c in containers(axes) if c.lines[0] is not None]
    for k, container in enumerate(bands):
        own = table[k::2][:-1]
        expected = own["flux"].value / 0.02 / 1e-11
        np.testing.assert_allclose(container.lines[0].get_ydata(), expected)
    assert sum(len(line.get_xdata()) for line in arrows(axes)) == 2
    assert axes.get_ylabel() == "Flux (10⁻¹¹ cm⁻² s⁻¹ deg⁻²)"
    assert axes.get_xlabel() == "Distance towards position angle 30° (deg)"


def test_arrows_below_zero_have_room():
    product = make_flux_profile(5)
    product.table["is_ul"][:4] = True
    product.table["flux_ul"][:4] = 1e-14 * product.table["flux"].unit
    (axes,) = draw("flux_profile", product).axes
    tips = np.concatenate([line.get_ydata() for line in arrows(axes)])
    bottom, top = axes.get_ylim()
    assert tips.min() < 0
    assert tips.min() - bottom > 0.03 * (top - bottom)


@pytest.mark.parametrize(("angle", "direction"), [(0, (0, 1)), (90, (-1, 0)), (45, (-1, 1))])
def test_an_ellipse_turns_from_north_to_east(angle, direction):
    product = make_found_sources(1)
    product.table["error_angle"] = [angle] * product.table["error_angle"].unit
    (axes,) = draw("find_sources", product).axes
    (ellipse,) = [patch for patch in axes.patches if isinstance(patch, Ellipse)]
    # 0.05 and 0.02 deg on pixels of 0.02 deg
    assert (ellipse.height, ellipse.width) == pytest.approx((2 * 0.05 / 0.02, 2 * 0.02 / 0.02))
    path = ellipse.get_patch_transform().transform(ellipse.get_path().vertices) - ellipse.center
    farthest = path[np.argmax(np.hypot(*path.T))]
    unit = np.array(direction) / np.hypot(*direction)
    assert abs(farthest @ unit) == pytest.approx(0.05 / 0.02, rel=1e-3)


def test_no_source_found_is_told():
    empty = make_found_sources(3)
    figure = draw("find_sources", ProductTable("find_sources", empty.table[:0], empty.meta))
    assert figure.get_suptitle() == "Sources found: 0"
    assert figure.get_supxlabel() == "No peak above 5 σ."


def test_maps_of_strength_have_a_row_for_each_band():
    product = make_strength_map(1)
    panels = [axes for axes in draw("ts_map", product).axes if hasattr(axes, "coords")]
    assert [axes.get_title() for axes in panels] == [
        "Significance, 1–3.16 TeV",
        "Flux",
        "Upper limit",
        "Significance, 3.16–10 TeV",
        "Flux",
        "Upper limit",
    ]
    second = panels[3].images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(second, product.maps["sqrt_ts"].data[1])
    limits = product.maps["flux_ul"].data[0]
    # the few that are as large as one likes do not set the scale
    expected = np.minimum(limits, 5 * np.nanmedian(limits)) / 1e-12
    np.testing.assert_allclose(panels[2].images[0].get_array().filled(np.nan), limits / 1e-12)
    assert panels[2].images[0].get_clim()[1] == pytest.approx(np.nanpercentile(expected, 98))


def test_smoothed_maps_show_counts_flux_and_scale():
    product = make_smooth_map(1)
    figure = draw("adaptive_smooth", product)
    panels = [axes for axes in figure.axes if hasattr(axes, "coords")]
    assert [axes.get_title() for axes in panels[:3]] == ["Counts, 1–3.16 TeV", "Flux", "Scale"]
    shown = panels[2].images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(shown, product.maps["scale"].data[0])
    assert "Scale: width of a Gaussian that holds 3 σ." in figure.get_supxlabel()
