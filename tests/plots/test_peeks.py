"""Pictures of observations and responses: what is drawn of them, by hand."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from dl3flow.cli import main
from dl3flow.data.observation import Observation
from dl3flow.io.gadf_file import read_dl3_file
from dl3flow.plots import PLOTS
from dl3flow.simulate.irfs import simulate_irfs
from dl3flow.simulate.plan import Instrument

from .examples import make_observation


def panel(figure, ylabel):
    return next(axes for axes in figure.axes if axes.get_ylabel().startswith(ylabel))


def test_events_are_counted_in_every_view():
    product = make_observation(5)
    figure = PLOTS.find("observation", "plot")(product, None)
    assert figure.get_suptitle() == "Observation 23523 of Crab Nebula: 500 events in 26.67 min"
    (sky,) = (axes for axes in figure.axes if hasattr(axes, "coords"))
    offset = product.pointing.separation(product.events.radec).to_value("deg")
    # the picture holds the square around the circle of 98 % of the events
    assert 490 <= sky.images[0].get_array().sum() <= 500
    energy, rings = (axes for axes in figure.axes if axes.get_ylabel() == "Events per bin")
    assert energy.patches[0].get_data().values.sum() == 500
    assert rings.patches[0].get_data().values.sum() == np.sum(offset <= np.percentile(offset, 98))
    times = panel(figure, "Rate")
    (points,) = times.containers
    x, y = points.lines[0].get_data()
    edges = np.linspace(0, 1700 / 60, 31)
    np.testing.assert_allclose(x, 0.5 * (edges[1:] + edges[:-1]))
    time = product.events.time.to_value("min")
    assert (y * np.diff(edges) * 60).sum() == pytest.approx(np.sum(time <= edges[-1]))
    outside = np.sum(~product.gti.holds(product.events))
    assert outside > 0
    assert figure.get_supxlabel() == f"{outside} of 500 events lie outside the good times."


def test_responses_are_drawn_at_their_values():
    instrument = Instrument(area=1e5, threshold=0.5)
    figure = PLOTS.find("responses", "plot")(simulate_irfs(instrument), None)
    area = panel(figure, "Effective area")
    on_axis = area.lines[0]
    assert on_axis.get_label() == "0°"
    assert on_axis.get_ydata()[-1] == pytest.approx(1e5, rel=0.05)
    # the median of the dispersion is one well above the threshold
    median = next(line for line in panel(figure, "Energy / true").lines if line.get_linestyle() == "-")
    x, y = median.get_data()
    assert y[np.argmin(np.abs(np.log(x / 10)))] == pytest.approx(1, abs=0.05)


def test_radii_of_a_gaussian_point_spread():
    psf = simulate_irfs(Instrument())["psf"]
    sigma = 0.1
    data = {name: np.zeros_like(values) for name, values in psf.data.items()}
    data["SCALE"] += 1.0
    data["SIGMA_1"] += sigma
    figure = PLOTS.find("responses", "plot")({"psf": replace(psf, data=data)}, None)
    radii = [line.get_ydata()[60] for line in panel(figure, "Point spread").lines[:2]]
    expected = [sigma * np.sqrt(-2 * np.log(1 - content)) for content in (0.68, 0.95)]
    np.testing.assert_allclose(radii, expected, rtol=2e-3)


def test_a_file_is_an_observation_or_responses(demo_dl3, demo_run, public_data):
    found = read_dl3_file(next((demo_dl3 / "data").glob("*1001*")))
    assert isinstance(found, Observation)
    assert found.obs_id == 1001
    np.testing.assert_array_equal(found.events.energy, demo_run.events.energy)
    irfs = read_dl3_file(next((public_data / "cta-caldb").glob("*North*")))
    assert sorted(irfs) == ["aeff", "bkg", "edisp", "psf"]


def test_events_alone_are_found_through_their_index(demo_dl3, tmp_path):
    import shutil

    from astropy.io import fits

    root = tmp_path / "release"
    shutil.copytree(demo_dl3, root)
    (name,) = (path.name for path in (root / "data").glob("*1001*"))
    alone = tmp_path / "alone.fits"
    with fits.open(root / "data" / name) as hdus:
        fits.HDUList([hdus[0], hdus["EVENTS"]]).writeto(alone)
    assert main(["inspect", str(alone), "--plot", str(tmp_path / "a.svg")]) == 1
    assert read_dl3_file(root / "data" / name).obs_id == 1001


def test_any_file_is_drawn_on_request(demo_dl3, tmp_path, capsys):
    run = str(next((demo_dl3 / "data").glob("*1001*")))
    style = tmp_path / "mine.mplstyle"
    style.write_text("figure.figsize: 5, 4\n")
    svg, png = tmp_path / "b.svg", tmp_path / "c.png"
    assert main(["inspect", run, "--plot", str(svg), "--style", str(style)]) == 0
    assert main(["inspect", run, "--plot", str(png)]) == 0
    assert float(svg.read_text().partition('width="')[2].partition('pt"')[0]) == pytest.approx(360)
    assert png.read_bytes().startswith(b"\x89PNG")
    # 7.2 inches at 160 points
    assert int.from_bytes(png.read_bytes()[16:20]) == 1152
    assert capsys.readouterr().out.split() == [str(svg), str(png)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--plot", "a.pdf"], "--plot: 'a.pdf' is no picture: give it the ending .svg or .png"),
        (["--plot", "a.svg", "--style", "none.mplstyle"], "none.mplstyle"),
    ],
)
def test_a_wrong_request_is_one_sentence(demo_dl3, tmp_path, capsys, arguments, told):
    run = str(next((demo_dl3 / "data").glob("*1001*")))
    assert main(["inspect", run, *arguments]) == 1
    text = capsys.readouterr().err
    assert told in text
    assert text.count("\n") == 1


def test_a_picture_of_nothing_is_refused(tmp_path, capsys):
    path = tmp_path / "a.reg"
    path.write_text("icrs;circle(1, 2, 3)")
    assert main(["inspect", str(path), "--plot", str(tmp_path / "a.svg")]) == 1
    assert "nothing is drawn of such a file" in capsys.readouterr().err


def test_responses_without_some_tables_are_drawn():
    irfs = simulate_irfs(Instrument())
    figure = PLOTS.find("responses", "plot")({"aeff": irfs["aeff"]}, None)
    assert [axes.get_ylabel() for axes in figure.axes] == ["Effective area (m²)"]
    empty = replace(irfs["aeff"], data={"EFFAREA": 0 * irfs["aeff"].data["EFFAREA"]})
    figure = PLOTS.find("responses", "plot")({"aeff": empty}, None)
    assert np.isnan(figure.axes[0].lines[0].get_ydata()).all()


def test_an_observation_without_events(demo_run):
    none = demo_run.events.select(np.zeros(len(demo_run.events), dtype=bool))
    figure = PLOTS.find("observation", "plot")(replace(demo_run, events=none), None)
    assert "0 events" in figure.get_suptitle()
    assert u.Quantity(demo_run.ontime) > 0 * u.s
