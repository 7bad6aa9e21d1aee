import copy
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time
from scipy.integrate import quad

from dl3flow.data.events import Gti
from dl3flow.errors import InputError
from dl3flow.geometry import fov
from dl3flow.geometry.axis import Axis
from dl3flow.irf.bkg import background_rate
from dl3flow.irf.psf import point_spread
from dl3flow.models.resolve import resolve
from dl3flow.models.source import Component, Models, Parameter
from dl3flow.simulate.background import draw_background
from dl3flow.simulate.events import draw_source, simulate_observation
from dl3flow.simulate.irfs import simulate_irfs
from dl3flow.simulate.plan import Instrument, observation_entries, parse_simulation
from dl3flow.simulate.sky import internal_values

DEG = np.pi / 180


def rng(seed=1):
    return np.random.Generator(np.random.PCG64(seed))


def seconds(total):
    """A good time interval of that length."""
    return Gti([0.0] * u.s, [total] * u.s, Time(60000, format="mjd", scale="tt"))


def drawn(simulation, source, irfs, total, energy, seed=1):
    """Photons of a source in the first run's field."""
    run = simulation.runs[0]
    at = (run.ra * DEG, run.dec * DEG)
    return draw_source(source, irfs, at, seconds(total), rng(seed), energy=energy)


def place(source):
    return tuple(source.spatial[name].quantity.to_value("rad") for name in ("lon_0", "lat_0"))


def within(observed, expected, n_sigma=4):
    return abs(observed - expected) < n_sigma * np.sqrt(expected)


# --- plan ---


def test_wobble_pointings_by_hand(demo):
    """Half a degree north, south, east and west of (83.63, 22.01): 0.5 / cos(22.01 deg) = 0.5393 deg of right ascension."""
    at = {run.obs_id: (run.ra, run.dec) for run in demo.runs}
    assert at[1001] == pytest.approx((83.63, 22.51))
    assert at[1002] == pytest.approx((83.63, 21.51))
    assert at[1003] == pytest.approx((84.1693, 22.0091), abs=1e-4)
    assert at[1004] == pytest.approx((83.0907, 22.0091), abs=1e-4)


def test_start_in_terrestrial_time(demo):
    """2024-01-12 is 8411 days after 2001-01-01; TT is 69.184 s ahead of UTC since 2017."""
    assert demo.runs[0].tstart == pytest.approx(8411 * 86400 + 20 * 3600 + 69.184, abs=1e-5)


def test_entries_need_no_simulation(demo):
    entry = observation_entries(demo)[1]
    assert (entry.obs_id, entry.target, entry.telescope, entry.quality) == (1002, "Crab", "DEMO", 0)
    assert entry.livetime == pytest.approx(1680 * 0.94)
    assert entry.paths == ["data/1002.fits.gz"]
    assert {kind: hdu.kind for kind, hdu in entry.hdus.items()} == {
        "events": "events", "gti": "gti", "aeff": "aeff_2d", "edisp": "edisp_2d", "psf": "psf_3gauss", "bkg": "bkg_3d",
    }  # fmt: skip


def changed(config, path, value):
    config = copy.deepcopy(config)
    at = config
    for part in path[:-1]:
        at = at[part]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return config


WRONG = [
    (("seed",), None, "demo.yaml: the key 'seed' is missing"),
    (("seed",), -1, "seed: must not be negative, found -1"),
    (("seed",), "one", "seed: expected a whole number, found 'one'"),
    (("sed",), 1, "unknown key 'sed': did you mean 'seed'"),
    (("energy", "min"), "200 TeV", "energy: `min` (200 TeV) must be below `max` (100 TeV)"),
    (("energy", "min"), "1 GeV", "energy: 1 GeV to 100 TeV exceeds"),
    (("energy", "min"), 0.2, "energy.min: expected a value with a unit such as `1 TeV`, found the bare number 0.2"),
    (("instrument", "aria"), "1 m2", "instrument: unknown key 'aria': did you mean 'area'"),
    (("instrument", "area"), "0 m2", "instrument.area: must be above 0, found '0 m2'"),
    (("instrument", "deadtime"), 1, "instrument.deadtime: must lie in [0, 1), found 1"),
    (("instrument", "background_rate"), "-1 Hz", "instrument.background_rate: must not be negative"),
    (("instrument", "field"), "20 deg", "instrument.field: must be at most 10 deg"),
    (("sources",), "Crab", "sources: expected a list, found 'Crab'"),
    (("sources", 0, "lat"), "95 deg", "sources[0].lat: must lie between -90 and 90 deg, found '95 deg'"),
    (("sources", 0, "frame"), "b1950", "sources[0].frame: unknown frame 'b1950'"),
    (("sources", 0, "sigma"), "-1 deg", "sources[0].sigma: must not be negative"),
    (("sources", 0, "spectral", "type"), "powerlaw", "spectral.type: unknown spectral model 'powerlaw': did you mean 'power_law'"),
    (("sources", 0, "spectral", "gamma"), 2, "spectral: unknown parameter 'gamma' of 'power_law'"),
    (("sources", 0, "spectral", "amplitude"), "1 TeV", "spectral.amplitude: expected a value with a unit"),
    (("sources", 0, "spectral"), {"type": "pl", "reference": "0 TeV"}, "spectral: `reference` is 0, and must be above 0"),
    (("sources", 0, "spectral"), {"type": "crab", "reference": "hess"}, "spectral.reference: 'hess' is not possible"),
    (("sources", 0, "spectral"), {"type": "template"}, "spectral: option 'energy' of 'template' is missing"),
    (("sources", 0, "spectral"), "hard", "spectral: expected a `type` and its parameters, found 'hard'"),
    (("observations",), [], "observations: the list is empty"),
    (("observations", 1, "obs_id"), 1001, "observations: the obs_id 1001 is given twice"),
    (("observations", 0, "obs_id"), -5, "observations[0].obs_id: must not be negative, found -5"),
    (("observations", 0, "duration"), "0 s", "observations[0].duration: must lie between 1 s and 1 day, found '0 s'"),
    (("observations", 0, "start"), "noon", "observations[0].start: expected UTC text"),
    (("observations", 0, "target"), "Vela", "observations[0].target: a wobble needs a target among the sources, found 'Vela'"),
    (("observations", 0, "wobble"), None, "observations[0]: give either `pointing` or `wobble`"),
    (("observations", 0, "wobble", "angle"), None, "observations[0].wobble: the key 'angle' is missing"),
    (("observations", 0, "pointing"), {"lon": "1 deg", "lat": "2 deg"}, "give either `pointing` or `wobble`"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "expected"), WRONG)
def test_wrong_configuration_is_refused(demo_config, path, value, expected):
    with pytest.raises(InputError) as error:
        parse_simulation(changed(demo_config, path, value), "demo.yaml")
    assert expected in str(error.value)
    assert str(error.value).startswith("demo.yaml: ")
    assert "\n" not in str(error.value)


def test_unknown_observation(demo):
    with pytest.raises(InputError, match="the simulation has no observation 7"):
        simulate_observation(demo, 7)


def test_pointing_and_source_in_galactic_coordinates(demo_config):
    source = {
        "name": "GC",
        "frame": "galactic",
        "lon": "0 deg",
        "lat": "0 deg",
        "spectral": {"type": "power_law"},
    }
    run = {
        **demo_config["observations"][0],
        "target": "GC",
        "pointing": {"frame": "galactic", "lon": "0 deg", "lat": "1 deg"},
    }
    del run["wobble"]
    simulation = parse_simulation({**demo_config, "sources": [source], "observations": [run]}, "x.yaml")
    lon, lat = place(simulation.models.sources[0])
    assert np.degrees(lon) == pytest.approx(266.40499, abs=1e-4)
    distance = fov.separation(lon, lat, simulation.runs[0].ra * DEG, simulation.runs[0].dec * DEG)
    assert np.degrees(distance) == pytest.approx(1, abs=1e-6)


# --- responses ---


@pytest.fixture(scope="module")
def irfs():
    return simulate_irfs(Instrument())


def test_area_by_hand(irfs):
    """At 0.25 TeV, half the threshold, half of the full 2e5 m2; far above, all of it; at 2.2 deg exp(-1/2) of that."""
    from dl3flow.irf.aeff import effective_area

    found = effective_area(irfs["aeff"], [0.25, 50] * u.TeV, [0, 2.0] * u.deg).to_value("m2")
    assert found[0, 0] == pytest.approx(1e5, rel=0.01)
    assert found[1, 0] == pytest.approx(2e5, rel=1e-3)
    assert found[1, 1] / found[1, 0] == pytest.approx(np.exp(-0.5 * (2 / 2.2) ** 2), rel=1e-6)
    assert irfs["aeff"].meta["lo_thres"] == 0.5 * u.TeV


def test_dispersion_is_normalised_and_biased_up_at_threshold(irfs):
    table = irfs["edisp"]
    migra, width = table.axis("migra").centers.value, table.axis("migra").widths.value
    matrix = table.data["MATRIX"]
    assert np.allclose(np.einsum("emo,m->eo", matrix, width), 1)
    mean = np.einsum("emo,m->eo", matrix, width * migra)
    energy = table.axis("energy_true").centers.to_value("TeV")
    assert mean[np.argmin(abs(energy - 50)), 0] == pytest.approx(np.exp(0.15**2 / 2), abs=0.002)
    assert mean[np.argmin(abs(energy - 0.5)), 0] > 1.1


def test_point_spread_is_normalised_with_its_own_scale(irfs):
    """SCALE x sum of amplitude x 2 pi sigma^2 is one for three whole Gaussians."""
    data = irfs["psf"].data
    volume = sum(
        amplitude * 2 * np.pi * np.radians(data[f"SIGMA_{n}"]) ** 2
        for n, amplitude in ((1, 1.0), (2, data["AMPL_2"]), (3, data["AMPL_3"]))
    )
    assert np.allclose(volume * data["SCALE"], 1)
    index = np.argmin(abs(irfs["psf"].axis("energy_true").centers.to_value("TeV") - 1))
    assert data["SIGMA_1"][index, 0] == pytest.approx(0.06, rel=0.02)


def test_background_rate_over_the_field(irfs):
    """The instrument's 1 Hz above 1 TeV; more events at large fov_lon than at small, fewer at large fov_lat."""
    edges = np.linspace(-2.5, 2.5, 101) * DEG
    centers = 0.5 * (edges[1:] + edges[:-1])
    x, y = np.meshgrid(centers, centers, indexing="ij")
    energy = Axis.from_bounds("energy", 1 * u.TeV, 200 * u.TeV, 60)
    rate = background_rate(irfs["bkg"], energy, x.ravel(), y.ravel()).to_value("s-1 sr-1").sum(axis=0)
    rate = rate.reshape(x.shape) * (edges[1] - edges[0]) ** 2 * np.cos(y)
    assert rate.sum() == pytest.approx(1, rel=0.02)
    assert rate[x > 0].sum() / rate[x < 0].sum() == pytest.approx(1.2, abs=0.06)
    assert rate[y > 0].sum() / rate[y < 0].sum() == pytest.approx(0.87, abs=0.06)


# --- events ---


def test_same_seed_same_events_whatever_else_is_simulated(demo_config, demo, demo_run):
    only = {**demo_config, "observations": demo_config["observations"][:1]}
    alone = simulate_observation(parse_simulation(only, "x.yaml"), 1001)
    assert np.array_equal(alone.events.energy, demo_run.events.energy)
    assert np.array_equal(alone.events.radec.ra, demo_run.events.radec.ra)
    assert np.array_equal(alone.events.time, demo_run.events.time)
    other = simulate_observation(replace(demo, seed=demo.seed + 1), 1001)
    assert len(other.events) != len(demo_run.events)
    assert not np.array_equal(other.events.energy[:100], demo_run.events.energy[:100])


def test_times_ids_and_field(demo, demo_run):
    run, events = demo.runs[0], demo_run.events
    assert (np.diff(events.time.value) > 0).all()
    assert demo_run.gti.contains(events.time).all()
    assert np.array_equal(events.event_id, np.arange(1, len(events) + 1))
    # uniform: mean in the middle, to 4 standard errors of T / sqrt(12 N)
    middle = run.tstart + run.duration / 2
    assert abs(events.time.value.mean() - middle) < 4 * run.duration / np.sqrt(12 * len(events))
    x, y = fov.sky_to_fov(events.radec.ra.rad, events.radec.dec.rad, run.ra * DEG, run.dec * DEG)
    assert np.degrees(np.abs(x).max()) <= 2.5
    assert np.degrees(np.abs(y).max()) <= 2.5
    assert demo_run.livetime.to_value("s") == pytest.approx(1680 * 0.94)


def test_number_of_source_events(demo, irfs):
    """Integral of spectrum x area x livetime, by an independent quadrature of the analytic area at 0.5 deg.

    1e5 s of livetime make the Poisson error 0.5 %, so that an error of a per cent anywhere shows.
    """
    source, livetime = demo.models.sources[0], 1e5
    found = drawn(demo, source, irfs, livetime, demo.energy)
    energy, lon, lat = found.energy, found.lon, found.lat
    fall = np.exp(-0.5 * (0.5 / 2.2) ** 2)

    def density(x):
        e = np.exp(x)
        return e * 4e-11 * e**-2.6 * 2e9 * fall / (1 + (0.25 / e) ** 5)

    expected = livetime * quad(density, np.log(0.2), np.log(100), epsabs=0, epsrel=1e-8)[0]
    assert expected > 40_000
    assert abs(len(energy) - expected) < 4 * np.sqrt(expected) + 0.003 * expected
    # half of the events lie inside the containment radius that the table's own profile gives
    rad = Axis.from_bounds("rad", 0 * u.deg, 0.6 * u.deg, 600, "lin")
    true = np.geomspace(*demo.energy, 200)
    psf = point_spread(irfs["psf"], true * u.TeV, rad, [0.5] * u.deg).to_value("sr-1")[:, :, 0]
    r = rad.centers.to_value(u.rad)
    cumulative = np.cumsum(psf * 2 * np.pi * r * (r[1] - r[0]), axis=1)
    weight = np.array([density(x) for x in np.log(true)])
    profile = weight @ cumulative / weight.sum()
    distance = fov.separation(lon, lat, *place(source))
    for radius in (0.05, 0.1, 0.2):
        share = np.interp(radius * DEG, rad.edges.to_value(u.rad)[1:], profile)
        assert (
            abs((distance < radius * DEG).mean() - share)
            < 4 * np.sqrt(share * (1 - share) / len(energy)) + 0.002
        )


def test_energies_of_source_events(demo, irfs):
    """At 10 TeV true energy the median migra is 1 and 68 % lie within exp(+-0.15 x 1.03)."""
    energy = drawn(demo, demo.models.sources[0], irfs, 1e9, (9.9, 10.1), seed=2).energy
    assert len(energy) > 20_000
    x = np.log(energy / 10)
    assert np.median(x) == pytest.approx(0, abs=0.005)
    assert x.std() == pytest.approx(0.155, abs=0.004)


def test_extended_source_has_its_width(demo, irfs):
    point = demo.models.sources[0]
    round_shape = (Parameter("sigma", 0.3, u.deg), Parameter("e", 0.0), Parameter("phi", 0.0, u.deg))
    source = replace(point, spatial=Component("gauss", (*point.spatial.parameters, *round_shape)))
    found = drawn(demo, source, irfs, 3e6, (20, 100), seed=3)
    lon, north = found.lon, np.degrees(found.lat - place(point)[1])
    # psf at > 20 TeV is 0.04 deg: sqrt(0.3^2 + 0.05^2) = 0.304
    assert len(lon) > 1000
    assert north.std() == pytest.approx(0.304, abs=4 * 0.304 / np.sqrt(2 * len(lon)) + 0.01)


def test_background_events_follow_the_table(demo, irfs):
    """Number and distribution in quadrants and energy agree with the rate that the reduction evaluates."""
    run = replace(demo.runs[0], duration=50_000.0)
    found = draw_background(irfs["bkg"], run.duration, rng(4))
    energy, x, y = found.energy, found.fov_lon, found.fov_lat
    edges = np.linspace(-2.5, 2.5, 51) * DEG
    centers = 0.5 * (edges[1:] + edges[:-1])
    grid_x, grid_y = np.meshgrid(centers, centers, indexing="ij")
    cell = (edges[1] - edges[0]) * np.diff(np.sin(edges))
    axis = Axis("energy", [0.1, 0.3, 1, 3, 10, 100] * u.TeV, "log")
    fine = Axis.from_bounds("energy", 0.1 * u.TeV, 100 * u.TeV, 300)
    rate = background_rate(irfs["bkg"], fine, grid_x.ravel(), grid_y.ravel()).to_value("s-1 sr-1")
    expected = rate.reshape(-1, 50, 50) * cell * run.duration
    group = axis.index(fine.centers)
    for k in range(axis.n_bins):
        here = (energy >= axis.edges[k].value) & (energy < axis.edges[k + 1].value)
        for right in (True, False):
            for up in (True, False):
                mask = ((grid_x > 0) == right) & ((grid_y > 0) == up)
                mu = expected[group == k][:, mask].sum()
                n = (here & ((x > 0) == right) & ((y > 0) == up)).sum()
                assert abs(n - mu) < 4 * np.sqrt(mu) + 0.01 * mu, (k, right, up)


def test_background_is_not_symmetric_on_the_sky(demo_run, demo):
    """FOVALIGN = RADEC: fov_lon runs west, so the larger rate at positive fov_lon lies at smaller right ascension."""
    events, run = demo_run.events, demo.runs[0]
    west = (events.radec.ra.deg < run.ra).sum()
    east = len(events) - west
    assert west - east > 4 * np.sqrt(len(events))


def test_too_many_events_are_refused(demo):
    source = demo.models.sources[0]
    amplitude = replace(source.spectral["amplitude"], value=1.0)
    spectral = replace(source.spectral, parameters=(amplitude, *source.spectral.parameters[1:]))
    bright = replace(demo.models, sources=(replace(source, spectral=spectral),))
    with pytest.raises(InputError, match="the source 'Crab' would give .* events in one run: lower its flux"):
        simulate_observation(replace(demo, models=bright), 1001)


def test_no_source_and_no_background_is_an_empty_run(demo):
    dark = replace(demo, models=Models(()), instrument=replace(demo.instrument, background_rate=0.0))
    assert len(simulate_observation(dark, 1001).events) == 0


def flux_of(simulation):
    """Spectrum of the first source."""
    component = simulation.models.sources[0].spectral
    model = resolve(component, "spectral", "test")
    return lambda energy: model.function(energy, *internal_values(component, model))


def test_a_fainter_curved_spectrum(demo_config):
    """Log parabola and exponential cutoff come from the registry of spectral models, in internal units."""
    spectral = {
        "type": "log_parabola",
        "amplitude": "1e-12 cm-2 s-1 TeV-1",
        "alpha": 2,
        "beta": 0.1,
        "reference": "1 TeV",
    }
    found = flux_of(parse_simulation(changed(demo_config, ("sources", 0, "spectral"), spectral), "x.yaml"))
    assert found(np.array([1.0]))[0] == pytest.approx(1e-12)
    assert found(np.array([np.e]))[0] == pytest.approx(1e-12 * np.exp(-2.1))


def test_a_published_spectrum_by_name(demo_config):
    """The Crab nebula's power law of H.E.S.S.: 3.45e-11 at 1 TeV, index 2.63."""
    spectral = {"type": "crab", "reference": "hess_pl"}
    found = flux_of(parse_simulation(changed(demo_config, ("sources", 0, "spectral"), spectral), "x.yaml"))
    assert found(np.array([1.0, np.e])) == pytest.approx([3.45e-11, 3.45e-11 * np.exp(-2.63)])
