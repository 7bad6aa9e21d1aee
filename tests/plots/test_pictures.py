"""Facts about the pictures: what is drawn, and where."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.container import ErrorbarContainer
from matplotlib.markers import CARETDOWNBASE

from dl3flow.data.products import Contour, DatasetStat, LightCurve, Profile
from dl3flow.plots import PLOTS, style
from dl3flow.plots.curve import spectral_curve

from .boxes import overlaps, text_outside
from .examples import make_banded_light_curve, make_excess_map


def draw(name, product, result=None):
    return PLOTS.find(name, "test")(product, result)


def containers(axes):
    return [c for c in axes.containers if isinstance(c, ErrorbarContainer)]


def arrows(axes):
    return [line for line in axes.lines if line.get_marker() == CARETDOWNBASE]


def labels(figure):
    return [t.get_text() for a in figure.axes if a.get_legend() for t in a.get_legend().get_texts()]


@pytest.mark.parametrize(("n", "n_limits"), [(1, 0), (5, 1), (40, 2)])
def test_flux_points_and_limits_are_drawn_at_their_values(flux_points, result, n, n_limits):
    product = flux_points(n, n_limits)
    table = product.table
    figure = draw("flux_points", product, result())
    upper, lower = figure.axes
    points = np.array(~table["is_ul"] & (table["norm"] > 0))
    line = containers(upper)[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), table["e_ref"].value[points])
    np.testing.assert_allclose(line.get_ydata(), product.e2dnde().value[points])
    bars = containers(upper)[0].lines[2][1].get_segments()
    assert len(bars) == points.sum()
    sed, errn, errp = (product.e2dnde(c).value for c in ("norm", "norm_errn", "norm_errp"))
    # bars that stay above zero end at the asymmetric errors
    for bar, low, high in zip(bars, (sed - errn)[points], (sed + errp)[points], strict=True):
        assert bar[1, 1] == pytest.approx(high)
        if low > 0:
            assert bar[0, 1] == pytest.approx(low)
    drawn = arrows(upper)
    assert sum(len(line.get_xdata()) for line in drawn) == n - points.sum()
    if n_limits:
        limits = containers(upper)[-1].lines[2][0].get_segments()
        np.testing.assert_allclose([s[1, 1] for s in limits], product.e2dnde("norm_ul").value[~points])
    assert len(containers(lower)[0].lines[0].get_xdata()) == points.sum()
    assert upper.get_ylabel() == "E² dN/dE (TeV cm⁻² s⁻¹)"
    assert lower.get_xlabel() == "Energy (TeV)"
    low, high = upper.get_ylim()
    assert low < sed[points].min()
    assert high > (sed + errp)[points].max()
    low, high = lower.get_xlim()
    assert low < 1 < 30 < high


def test_residuals_are_in_units_of_the_error_on_the_side_of_the_fit(flux_points, result):
    product = flux_points(2, 0)
    product.table["norm"] = [1.3, 0.8]
    product.table["norm_errn"], product.table["norm_errp"] = [0.15, 0.1], [0.4, 0.05]
    figure = draw("flux_points", product, result())
    # 0.3 / 0.15 above; -0.2 / 0.05 below
    np.testing.assert_allclose(containers(figure.axes[1])[0].lines[0].get_ydata(), [2.0, -4.0], rtol=1e-9)


def test_profiles_of_flux_points_stand_behind_them(flux_points, result):
    product = flux_points(5, 0)
    at = np.array([-1.0, 0.5, 1.0, 2.0])
    product.table["norm_scan"] = np.tile(at, (5, 1))
    product.table["stat_scan"] = 100 + np.tile(np.where(at == 2, 9.5, 4 * (at - 1) ** 2), (5, 1))
    product.table["stat_scan"][4] = 0.0  # no data: every flux alike
    for fitted in (None, result()):
        figure = draw("flux_points", product, fitted)
        assert overlaps(figure) == []
        meshes = [c for c in figure.axes[0].collections if isinstance(c, QuadMesh)]
        assert len(meshes) == 4
        # what is negative has no place on the axis
        np.testing.assert_allclose(np.ravel(meshes[0].get_array().filled(np.nan)), [1, 0, np.nan])
        middle = meshes[0].get_coordinates()[1:3, 0, 1] / product.e2dnde("norm_ul").value[0]
        expected = np.sqrt([0.5, 2.0]) / product.table["norm_ul"][0]
        np.testing.assert_allclose(middle, expected)
        assert figure.axes[-1].get_ylabel() == "Δ stat"


def test_flux_points_without_a_fit_have_no_curve(flux_points):
    figure = draw("flux_points", flux_points(5))
    assert len(figure.axes) == 1
    assert labels(figure) == ["flux points", "upper limits (95.45 % CL)"]


def test_flux_point_below_zero_is_drawn_by_its_limit_and_one_without_any_is_told(flux_points):
    product = flux_points(5, 0)
    product.table["norm"][2] = -0.1
    product.table["norm"][3], product.table["norm_ul"][3] = np.nan, np.nan
    figure = draw("flux_points", product)
    assert [len(a.get_xdata()) for a in arrows(figure.axes[0])] == [1]
    assert figure.get_supxlabel() == "1 of 5 energy bins have neither a flux nor a limit above zero."


def test_flux_points_with_no_usable_bin_are_still_a_picture(flux_points, result):
    product = flux_points(3, 0)
    product.table["norm"], product.table["norm_ul"] = np.nan, np.nan
    for fitted in (None, result()):
        assert draw("flux_points", product, fitted).get_supxlabel().startswith("3 of 3 energy bins")


def test_band_is_the_propagated_covariance(result):
    import astropy.units as u

    # at the reference energy the index does not matter; a factor 10 above, its term is -A ln(10) 10^-index
    dnde, error = spectral_curve(result(), "crab", [1, 10] * u.TeV)
    np.testing.assert_allclose(dnde.value, [4.56e-11, 4.56e-11 * 10**-2.6])
    a, b = 0.36e-11 * 10**-2.6, -4.56e-11 * np.log(10) * 10**-2.6 * 0.08
    np.testing.assert_allclose(error.value, [0.36e-11, np.sqrt(a**2 + b**2 + 2 * 0.5 * a * b)])
    assert spectral_curve(result(), "nobody", [1] * u.TeV) is None


def test_band_crosses_units(result):
    from dataclasses import replace

    import astropy.units as u

    fit = result()
    old = fit.models.parameters()["crab.amplitude"]
    metres = replace(old, value=4.56e-7, error=0.36e-7, unit=u.Unit("m-2 s-1 TeV-1"))
    scale = np.ones(3)
    scale[0] = 1e4
    other = replace(
        fit,
        models=fit.models.with_parameters({"crab.amplitude": metres}),
        covariance=fit.covariance * np.outer(scale, scale),
    )
    for one, two in zip(*(spectral_curve(f, "crab", [1, 3, 10] * u.TeV) for f in (fit, other)), strict=True):
        np.testing.assert_allclose(one.value, two.value)


@pytest.mark.parametrize(("n", "n_limits"), [(1, 0), (5, 1), (40, 3)])
def test_light_curve_draws_each_bin(light_curve, n, n_limits):
    product = light_curve(n, n_limits)
    (axes,) = draw("light_curve", product).axes
    points = ~product.table["is_ul"]
    line = containers(axes)[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), (product.table["norm"] * 2.1)[points])
    assert len(containers(axes)[0].lines[2][1].get_segments()) == n - n_limits
    assert sum(len(a.get_xdata()) for a in arrows(axes)) == n_limits
    assert axes.get_ylabel() == "Flux (10⁻¹¹ cm⁻² s⁻¹)"
    # the first run starts at MJD 53343.9 and lasts 28 minutes
    if n < 40:
        assert axes.get_xlabel() == "Time − MJD 53343 (days, TT)"
        assert line.get_xdata()[0] == pytest.approx(0.9 + 14 / 1440)
    else:
        assert axes.get_xlabel() == "Time (MJD, TT)"
        assert line.get_xdata()[0] == pytest.approx(53343.9 + 14 / 1440)


def test_light_curve_mean_is_weighted_by_the_errors(light_curve):
    product = light_curve(2, 0)
    product.table["norm"], product.table["norm_err"] = [1.0, 2.0], [0.1, 0.2]
    figure = draw("light_curve", product)
    # weights 4 : 1 give 1.2, error 1 / sqrt(125) = 0.0894; times 2.1
    assert "mean 2.52 ± 0.19" in labels(figure)


@pytest.mark.parametrize("n", [1, 5, 40])
def test_each_energy_band_has_a_panel_with_its_blocks(n):
    product = make_banded_light_curve(n, 3)
    figure = draw("light_curve", product)
    assert overlaps(figure) == []
    assert text_outside(figure) == []
    assert [axes.get_ylabel().split("\n")[0] for axes in figure.axes] == [
        "1 to 2.15 TeV",
        "2.15 to 4.64 TeV",
        "4.64 to 10 TeV",
    ]
    for k, axes in enumerate(figure.axes):
        own = product.table[k::3]
        points = containers(axes)[0].lines[0]
        factor = 1e-11 if "10⁻¹¹" in axes.get_ylabel() else 1e-12
        np.testing.assert_allclose(points.get_ydata(), (own["norm"] * 2.1e-11 / factor)[~own["is_ul"]])
        steps = [line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
        steps = [line for line in steps if line.get_ydata()[0] == pytest.approx(2.1e-11 * 3.0**-k / factor)]
        assert len(steps) == -(-n // 5)
    assert f"Bayesian blocks ({-(-n // 5)})" in labels(figure)


@pytest.mark.parametrize("n_nights", [2, 3, 6])
def test_the_axis_of_time_is_broken_between_nights(n_nights):
    product = make_banded_light_curve(8 * n_nights, 2)
    night = np.repeat(np.arange(n_nights), 8)
    start = 53343.9 + 2.0 * night + np.tile(np.arange(8) / 144, n_nights)
    table = product.table
    table["time_min"] = Time(np.repeat(start, 2), format="mjd", scale="tt")
    table["time_max"] = Time(np.repeat(start + 1 / 144, 2), format="mjd", scale="tt")
    figure = draw("light_curve", LightCurve(table, {**product.meta, "blocks": []}))
    style.name_analysis(figure, "a name that takes the whole width of the page and a bit more of it")
    assert overlaps(figure) == []
    assert text_outside(figure) == []
    assert len(figure.axes) == 2 * n_nights
    assert [axes.get_xlabel() for axes in figure.axes[n_nights:]] == [
        f"MJD {53343.9 + 2 * k:.2f}" for k in range(n_nights)
    ]
    for k, axes in enumerate(figure.axes[:n_nights]):
        own = table[::2][night == k]
        points = containers(axes)[0].lines[0]
        # ten minutes each, from the start of the night, in hours
        np.testing.assert_allclose(points.get_xdata(), (np.arange(8) / 6 + 1 / 12)[~own["is_ul"]], atol=1e-6)
        np.testing.assert_allclose(points.get_ydata(), (own["norm"] * 2.1)[~own["is_ul"]])
        assert axes.get_ylim() == figure.axes[0].get_ylim()
    assert labels(figure) == ["flux", "upper limits (2 σ)", "mean"]
    assert "hours after the MJD (TT)" in figure.get_supxlabel()


def test_single_runs_of_nights_and_long_curves_have_one_axis(light_curve):
    for product in (light_curve(5), light_curve(40)):
        assert len(draw("light_curve", product).axes) == 1


@pytest.mark.parametrize(("name", "expected"), [("excess_map", "background"), ("residual_map", "npred")])
def test_signed_maps_are_centred_on_zero(sky_map, name, expected):
    product = sky_map(expected)
    figure = draw(name, product)
    counts, mu, excess, sigma = (a for a in figure.axes if hasattr(a, "coords"))
    for axes in (excess, sigma):
        low, high = axes.images[0].get_clim()
        assert low == -high
        assert axes.images[0].cmap.name == "RdBu_r"
    # the source has 12 sigma; the scale ends at 10 and says so
    assert sigma.images[0].get_clim() == (-10, 10)
    assert sigma.images[0].colorbar.extend == "max"
    assert f"Largest significance: {np.nanmax(product.maps['sqrt_ts'].data):.1f} σ." in figure.get_supxlabel()
    bars = [a.get_ylabel() for a in figure.axes if a.get_label() == "<colorbar>"]
    assert bars == ["counts within 0.1°", "expected counts within 0.1°", "counts within 0.1°", "√TS (σ)"]
    assert counts.coords[1].get_axislabel() == "Declination (deg)"
    assert excess.coords[0].get_axislabel() == "Right ascension (deg)"
    if expected == "npred":
        assert counts.images[0].get_clim()[1] == mu.images[0].get_clim()[1]


def test_sources_circle_and_contour_are_drawn(sky_map):
    product = sky_map("background", 2)
    figure = draw("excess_map", product)
    panels = [a for a in figure.axes if hasattr(a, "coords")]
    for axes in panels:
        crosses = [line for line in axes.lines if line.get_gid() == "source"]
        assert len(crosses) == 2
        # the map's centre is pixel 49.5
        np.testing.assert_allclose(
            [crosses[0].get_xdata()[0], crosses[0].get_ydata()[0]], [49.5, 49.5], atol=1e-6
        )
        (circle,) = axes.patches
        assert circle.get_radius() == pytest.approx(0.1 / 0.05)
    names = [t.get_text() for t in panels[3].texts if t.get_gid() == "source name"]
    assert names == ["source-0", "source-1"]
    assert "Contours: 5 σ." in figure.get_supxlabel()
    assert "Contours" not in draw("excess_map", sky_map("background", 1, peak=0)).get_supxlabel()


def test_name_without_place_is_told_below(sky_map):
    product = sky_map("background", 1)
    at = product.meta["source positions"]["source-0"]
    crowd = {f"source-{n:02d}": at for n in range(30)}
    figure = draw("excess_map", type(product)(product.maps, {**product.meta, "source positions": crowd}))
    panel = [a for a in figure.axes if hasattr(a, "coords")][3]
    named = {t.get_text() for t in panel.texts}
    assert 0 < len(named) < 30
    assert all(name in named or name in figure.get_supxlabel() for name in crowd)


def test_histogram_counts_pixels_away_from_sources(sky_map):
    product = sky_map("background", 1)
    figure = draw("excess_map", product)
    sigma = product.maps["sqrt_ts"].data
    distance = product.maps["sqrt_ts"].geom.separation(product.maps["sqrt_ts"].geom.center)
    away = sigma[np.isfinite(sigma) & (np.degrees(distance) > 0.3)]
    assert (
        f"more than 0.3° from sources: mean {style.rounded(away.mean())}, width {away.std():.2f}"
        in labels(figure)
    )
    histogram = next(a for a in figure.axes if a.get_ylabel() == "Pixels")
    bars = next(c for c in histogram.containers if len(c) > 1)
    assert sum(bar.get_height() for bar in bars) == away.size


def test_histogram_drops_the_excluded_pixels(sky_map):
    product = sky_map("background", 1)
    geom = product.maps["sqrt_ts"].sky
    text = f"icrs;circle({geom.center.ra.deg}, {geom.center.dec.deg}, 0.5)"
    figure = draw("excess_map", type(product)(product.maps, {**product.meta, "exclusion": text}))
    sigma = product.maps["sqrt_ts"].data
    outside = sigma[np.isfinite(sigma) & (np.degrees(geom.separation(geom.center)) > 0.5)]
    assert (
        f"outside the exclusion: mean {style.rounded(outside.mean())}, width {outside.std():.2f}"
        in labels(figure)
    )
    histogram = next(a for a in figure.axes if a.get_ylabel() == "Pixels")
    bars = next(c for c in histogram.containers if len(c) > 1)
    assert sum(bar.get_height() for bar in bars) == outside.size
    normal = next(line for line in histogram.lines if line.get_label() == "normal of that mean and width")
    x, y = normal.get_data()
    assert x[np.argmax(y)] == pytest.approx(outside.mean(), abs=0.03)
    assert "Dashed: exclusion." in figure.get_supxlabel()


def test_maps_of_flux_and_bands_and_the_fitted_gaussian():
    product = make_excess_map(1)
    figure = draw("excess_map", product)
    panels = {a.get_title(): a for a in figure.axes if hasattr(a, "coords")}
    assert list(panels)[4:] == [
        "Flux",
        "Upper limit of the flux (2 σ)",
        "Significance, 1 to 3.16 TeV",
        "Significance, 3.16 to 10 TeV",
    ]
    flux = product.maps["flux"].data
    scale = 1e-12 if np.nanmax(flux) > 1e-12 else 1e-13
    np.testing.assert_allclose(panels["Flux"].images[0].get_array().filled(np.nan), flux / scale)
    assert panels["Flux"].images[0].colorbar.ax.get_ylabel().endswith("cm⁻² s⁻¹")
    histogram = next(a for a in figure.axes if a.get_ylabel() == "Pixels")
    gauss = next(line for line in histogram.lines if line.get_label().startswith("fit: "))
    assert gauss.get_label() == "fit: mean −0.07 ± 0.04, width 1.04 ± 0.02"
    x, y = gauss.get_data()
    n = int(np.isfinite(product.maps["sqrt_ts"].data[away(product, 0.5)]).sum())
    assert x[np.argmax(y)] == pytest.approx(-0.07, abs=0.03)
    assert y.max() == pytest.approx(n * 0.25 / np.sqrt(2 * np.pi) / 1.04, rel=1e-3)
    for axes in panels.values():
        (disk,) = [patch for patch in axes.patches if patch.get_gid() == "beam"]
        assert disk.get_radius() == pytest.approx(0.07 / 0.05)


def away(product, radius):
    geom = product.maps["sqrt_ts"].sky
    return np.degrees(geom.separation(geom.center)) > radius


def test_dataset_sums_only_safe_bins(dataset):
    product = dataset(5)
    figure = draw("dataset", product)
    safe = product.mask_safe
    assert f"events: {product.counts.data[safe].sum():.0f}" in labels(figure)
    assert f"background: {product.background.counts.data[safe].sum():.1f}" in labels(figure)
    panels = [a for a in figure.axes if hasattr(a, "coords")]
    shown = panels[0].images[0].get_array()
    assert shown.filled(0).sum() == product.counts.data[safe].sum()
    np.testing.assert_array_equal(shown.mask, ~safe.any(axis=0))
    assert panels[3].images[0].get_clim() == (0, 5)
    assert "livetime 1.75 h" in figure.get_suptitle()
    bars = [a.get_ylabel() for a in figure.axes if a.get_label() == "<colorbar>"]
    assert bars[2] == "exposure (10⁸ m² s)"


def test_fit_shows_each_dataset_with_residuals(result):
    fit = result(2)
    figure = draw("fit", fit)
    upper, lower = figure.axes[:2]
    one = fit.datasets[0]
    npred = one.signal_per_energy + one.background_per_energy
    np.testing.assert_allclose(containers(upper)[0].lines[0].get_ydata(), one.counts_per_energy)
    np.testing.assert_allclose(
        containers(lower)[0].lines[0].get_ydata(), (one.counts_per_energy - npred) / np.sqrt(npred)
    )
    titles = [a.get_title(loc="left") for a in figure.axes]
    assert f"run1: {one.counts_per_energy.sum():.0f} counts, {npred.sum():.1f} predicted" in titles


def test_many_datasets_are_summed_and_each_has_its_residual(result):
    fit = result(40)
    figure = draw("fit", fit)
    total = 40 * fit.datasets[0].counts_per_energy
    np.testing.assert_allclose(containers(figure.axes[0])[0].lines[0].get_ydata(), total)
    assert figure.axes[0].get_title(loc="left").startswith("sum of 40 datasets")
    each = next(a for a in figure.axes if a.get_xlabel().startswith("Dataset in the order"))
    assert len(each.lines[1].get_xdata()) == 40


def test_correlation_is_normalised_and_labelled(result):
    figure = draw("fit", result(1))
    axes = next(a for a in figure.axes if a.images)
    np.testing.assert_allclose(axes.images[0].get_array(), [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]], atol=1e-12)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["crab.amplitude", "crab.index", "run0-bkg.norm"]
    assert [t.get_text() for t in axes.texts][:2] == ["1.00", "0.50"]
    assert axes.images[0].get_clim() == (-1, 1)


def test_flux_points_of_a_fit_have_no_panel(result):
    none = np.zeros(0)
    points = DatasetStat("hawc", 1.0, 9, [1.0] * u.TeV, none, none, none)
    fit = result(2)

    def panels(*datasets):
        figure = draw("fit", replace(fit, datasets=datasets))
        return len([axes for axes in figure.axes if axes.get_ylabel() == "Counts per bin"])

    assert panels(*fit.datasets) == panels(*fit.datasets, points) == 2
    assert panels(points) == 0


def test_fit_without_free_parameters_and_a_failed_one(result):
    fit = replace(
        result(1),
        free=(),
        covariance=np.zeros((0, 0)),
        success=False,
        message="The minimiser stopped after 100 steps.",
    )
    figure = draw("fit", fit)
    assert "the fit has no free parameter" in [t.get_text() for a in figure.axes for t in a.texts]
    assert figure.get_suptitle() == "Fit: The minimiser stopped after 100 steps"
    assert not any(
        isinstance(c, LineCollection) and not c.get_segments() for a in figure.axes for c in a.collections
    )


def test_sources_are_placed_on_galactic_maps(sky_map):
    figure = draw("excess_map", sky_map("background", 1, frame="galactic"))
    panel = next(a for a in figure.axes if hasattr(a, "coords"))
    (cross,) = [line for line in panel.lines if line.get_gid() == "source"]
    np.testing.assert_allclose([cross.get_xdata()[0], cross.get_ydata()[0]], [49.5, 49.5], atol=1e-3)
    assert panel.coords[1].get_axislabel() == "Galactic latitude (deg)"


def test_profiles_and_contours_are_drawn_in_scaled_units(result):
    fit = result()
    index = np.linspace(2.4, 2.8, 5)
    angle = np.linspace(0, 2 * np.pi, 9)[:-1]
    fit = replace(
        fit,
        minos={"crab.index": (0.07, 0.09)},
        profiles={"crab.index": Profile("crab.index", index, ((index - 2.6) / 0.08) ** 2)},
        contours=tuple(
            Contour(
                ("crab.amplitude", "crab.index"),
                n,
                4.56e-11 + n * 0.36e-11 * np.cos(angle),
                2.6 + n * 0.08 * np.sin(angle),
            )
            for n in (2.0, 1.0)
        ),
    )
    figure = PLOTS.find("fit", "plot")(fit, None)
    profile, contour = figure.axes[-2:]
    np.testing.assert_allclose(profile.lines[0].get_ydata(), [6.25, 1.5625, 0, 1.5625, 6.25], atol=1e-9)
    ends = [line.get_xdata()[0] for line in profile.lines if len(set(line.get_xdata())) == 1]
    assert ends == pytest.approx([2.53, 2.69])
    assert "10⁻¹¹ cm⁻² s⁻¹ TeV⁻¹" in contour.get_xlabel()
    small, large = (line.get_xdata() for line in contour.lines[:2])
    # closed lines, the smaller first
    assert (small[0], small[-1], large[0]) == pytest.approx((4.92, 4.92, 5.28))
    assert [t.get_text() for t in contour.get_legend().get_texts()] == ["1 σ", "2 σ"]
