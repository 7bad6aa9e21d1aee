"""Events against what they were drawn from, by Kolmogorov-Smirnov tests of 1e5 of them: energy, offset, position, time.

Seeds are fixed. A test fails where such a difference is met by chance once in a thousand times; at this number a distribution
that is wrong by half a per cent anywhere is found.
"""

from collections.abc import Callable
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time
from scipy.special import erf
from scipy.stats import chisquare, kstest

from dl3flow.data.events import Gti
from dl3flow.errors import InputError
from dl3flow.geometry import fov
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.io.gadf_irf import read_irfs
from dl3flow.irf.aeff import effective_area
from dl3flow.irf.bkg import background_rate
from dl3flow.irf.edisp import dispersion_kernels
from dl3flow.irf.psf import point_spread
from dl3flow.irf.table import IrfTable
from dl3flow.models.pixels import PixelGrid, pixel_integrals
from dl3flow.models.resolve import resolve
from dl3flow.models.source import BackgroundModel, Component, Models, Parameter, Source
from dl3flow.simulate.background import background_factor, draw_background
from dl3flow.simulate.detection import DISTANCES, area_at, draw_distances, draw_migra, largest_area
from dl3flow.simulate.events import Photons, draw_source, observe
from dl3flow.simulate.irfs import simulate_irfs
from dl3flow.simulate.plan import Instrument
from dl3flow.simulate.sky import build_shape
from dl3flow.simulate.times import build_arrival

N = 100_000
LEAST = 1e-3
LON, LAT = np.radians(83.63), np.radians(22.01)
MJD = 60000.0
REFERENCE = Time(MJD, format="mjd", scale="tt")
NIGHT = Gti([0.0, 5000.0] * u.s, [2000.0, 6000.0] * u.s, REFERENCE)
UNITS = {"amplitude": u.Unit("cm-2 s-1 TeV-1"), "reference": u.TeV, "t0": u.d, "t_ref": u.d, "sigma": u.d}


def component(
    kind: str, options: dict | None = None, unit: u.UnitBase | None = None, **values: float
) -> Component:
    parameters = (Parameter(n, v, unit or UNITS.get(n, u.dimensionless_unscaled)) for n, v in values.items())
    return Component(kind, tuple(parameters), options or {})


def place(
    kind: str, frame: str = "icrs", lon: float = 83.63, lat: float = 22.01, **sizes: float
) -> Component:
    angles = {"lon_0": lon, "lat_0": lat, **sizes}
    units = {
        name: u.dimensionless_unscaled if name in ("e", "edge_width", "delta") else u.deg for name in angles
    }
    units["reference"] = u.TeV
    parameters = tuple(Parameter(n, v, units[n]) for n, v in angles.items())
    return Component(kind, parameters, {"frame": frame})


POWER_LAW = component("power_law", amplitude=1e-10, index=2.3, reference=1.0)


def source(spatial: Component | None = None, temporal: Component | None = None) -> Source:
    return Source("s", POWER_LAW, spatial or place("point"), temporal=temporal)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def tabulated(x: np.ndarray, content: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Distribution function of contents between edges ``x``."""
    sums = np.concatenate([[0.0], np.cumsum(content)])
    return lambda value: np.interp(value, x, sums / sums[-1])


@pytest.fixture(scope="module")
def toy() -> dict[str, IrfTable]:
    return simulate_irfs(Instrument())


@pytest.fixture(scope="module")
def prod5(public_data: Path) -> dict[str, IrfTable]:
    path = public_data / "cta-caldb" / "Prod5-South-20deg-AverageAz-14MSTs37SSTs.180000s-v0.1.fits.gz"
    if not path.is_file():
        pytest.skip(f"the prod5 responses are absent: {path}")
    return read_irfs(path)


@pytest.fixture(scope="module")
def hess(hess_dl3: Path) -> dict[str, IrfTable]:
    return read_irfs(hess_dl3 / "data" / "hess_dl3_dr1_obs_id_023523.fits.gz")


def photons(
    irfs: dict[str, IrfTable], of: Source, seed: int, gti: Gti = NIGHT, offset: float = 0.7
) -> Photons:
    """At least 1e5 photons of a source seen at an offset in deg to the south, from 0.5 to 50 TeV."""
    at = (LON, LAT - np.radians(offset))
    probe = draw_source(of, irfs, at, gti, rng(99), energy=(0.5, 50.0))
    brighter = max(1.15 * N / max(len(probe.energy), 1), 1.0)
    spectral = component("power_law", amplitude=1e-10 * brighter, index=2.3, reference=1.0)
    found = draw_source(
        Source(of.name, spectral, of.spatial, temporal=of.temporal),
        irfs,
        at,
        gti,
        rng(seed),
        energy=(0.5, 50.0),
    )
    assert len(found.energy) >= N
    return found


# --- energy ---


@pytest.mark.parametrize("name", ["toy", "prod5", "hess"])
def test_true_energies(name: str, request: pytest.FixtureRequest) -> None:
    """Spectrum times the effective area that the reduction evaluates."""
    irfs = request.getfixturevalue(name)
    edges = np.geomspace(0.5, 50, 4001)
    middle = np.sqrt(edges[1:] * edges[:-1])
    area = effective_area(irfs["aeff"], middle * u.TeV, [0.7] * u.deg)[:, 0].value
    expected = tabulated(np.log(edges), middle**-2.3 * area * np.diff(edges))
    found = photons(irfs, source(), 1)
    assert kstest(np.log(found.energy_true), expected).pvalue > LEAST


@pytest.mark.parametrize("name", ["toy", "prod5", "hess"])
def test_reconstructed_energies(name: str, request: pytest.FixtureRequest) -> None:
    """Photons of 3 TeV at 0.7 deg against the kernel that a reduction folds with."""
    edisp = request.getfixturevalue(name)["edisp"]
    migra = draw_migra(edisp, np.full(N, 3.0), np.full(N, np.radians(0.7)), rng(2))
    true = Axis("energy_true", [2.9999, 3.0001] * u.TeV, "log")
    energy = Axis.from_bounds("energy", 0.3 * u.TeV, 15 * u.TeV, 3000)
    kernel = dispersion_kernels(edisp, true, energy, [0.7] * u.deg)[0, :, 0]
    assert kernel.sum() == pytest.approx(1, abs=2e-3)
    # kernels leave out what is below 1e-8, and the centre of the bin is 3 TeV to 1e-9
    assert kstest(3 * migra, tabulated(energy.edges.value, kernel)).pvalue > LEAST


# --- offset ---


@pytest.mark.parametrize("name", ["toy", "prod5", "hess"])
def test_directions_scatter_by_the_point_spread(name: str, request: pytest.FixtureRequest) -> None:
    """Angles from the source, of photons of 3 TeV at 0.7 deg, against the profile that a reduction folds with."""
    psf = request.getfixturevalue(name)["psf"]
    found = draw_distances(psf, np.full(N, 3.0), np.full(N, np.radians(0.7)), rng(3))
    rad = Axis.from_bounds("rad", 0 * u.deg, 0.66 * u.deg, 6600, "lin")
    density = point_spread(psf, [3] * u.TeV, rad, [0.7] * u.deg).value[0, :, 0]
    inside = found < np.radians(0.66)
    assert inside.mean() > 0.995
    expected = tabulated(rad.edges.to_value("rad"), density * rad.centers.to_value("rad"))
    assert kstest(found[inside], expected).pvalue > LEAST


def test_a_king_profile() -> None:
    """sigma 0.05 deg and gamma 2: half of the photons within sigma sqrt(2 gamma) = 0.1 deg."""
    axes = (
        Axis.from_bounds("energy_true", 0.1 * u.TeV, 100 * u.TeV, 3),
        Axis.from_nodes("offset", [0, 1, 2] * u.deg),
    )
    ones = np.ones((3, 3))
    psf = IrfTable(
        "psf_king",
        axes,
        {"GAMMA": 2 * ones, "SIGMA": 0.05 * ones},
        {"GAMMA": u.dimensionless_unscaled, "SIGMA": u.deg},
    )
    found = np.degrees(draw_distances(psf, np.full(N, 3.0), np.full(N, 0.01), rng(4)))
    assert (found < 0.1).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(N))
    assert kstest(found, lambda r: 1 - 1 / (1 + r**2 / 0.01)).pvalue > LEAST


def test_another_point_spread_is_refused_with_the_choices(toy: dict[str, IrfTable]) -> None:
    wrong = IrfTable("psf_moffat", toy["psf"].axes, {}, {})
    with pytest.raises(InputError, match="psf_moffat.*psf_3gauss"):
        draw_distances(wrong, np.ones(1), np.zeros(1), rng())
    assert set(DISTANCES.names()) == {"psf_3gauss", "psf_king", "psf_table"}


# --- position ---


def at_home(spatial: Component, seed: int = 5, energy: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Directions of photons about the middle of a shape, deg east and north."""
    shape = build_shape(source(spatial), LON, LAT, np.radians(6.0), (0.1, 100.0))
    assert shape is not None
    lon, lat = shape.draw(np.full(N, energy), rng(seed))
    x, y = fov.sky_to_fov(lon, lat, LON, LAT)
    return -np.degrees(x), np.degrees(y)


def test_a_round_gaussian() -> None:
    x, y = at_home(place("gauss", sigma=0.3, e=0.0, phi=0.0))
    assert kstest(np.hypot(x, y), lambda r: -np.expm1(-0.5 * (r / 0.3) ** 2)).pvalue > LEAST
    assert kstest(np.arctan2(y, x), "uniform", args=(-np.pi, 2 * np.pi)).pvalue > LEAST


def test_a_long_gaussian_lies_along_its_angle() -> None:
    """Eccentricity 0.8: the minor width is 0.6 of the major, which points 30 deg east of north."""
    x, y = at_home(place("gauss", sigma=0.3, e=0.8, phi=30.0), seed=6)
    turn = np.radians(30)
    for along, width in (
        (x * np.sin(turn) + y * np.cos(turn), 0.3),
        (x * np.cos(turn) - y * np.sin(turn), 0.18),
    ):
        assert kstest(along, lambda r, width=width: 0.5 * (1 + erf(r / width / np.sqrt(2)))).pvalue > LEAST


def test_a_disk_and_a_shell() -> None:
    x, y = at_home(place("disk", r_0=0.5, e=0.0, phi=0.0, edge_width=0.01), seed=7)
    # the soft edge takes 0.3 % of the photons across it
    assert (np.hypot(x, y) < 0.25).mean() == pytest.approx(0.25, abs=0.006)
    assert np.hypot(x, y).max() < 0.51
    x, y = at_home(place("shell", radius=0.4, width=0.1), seed=8)
    # projected volume: (0.5^2 - r^2)^(3/2) and (0.4^2 - r^2)^(3/2) are what is outside of r
    beyond = 0.5**3 - 0.4**3

    def expected(r: np.ndarray) -> np.ndarray:
        left = np.maximum(0.25 - r**2, 0) ** 1.5 - np.maximum(0.16 - r**2, 0) ** 1.5
        return 1 - left / beyond

    assert kstest(np.hypot(x, y), expected).pvalue > LEAST


def test_a_source_in_galactic_coordinates_keeps_its_place() -> None:
    home = SkyCoord(83.63 * u.deg, 22.01 * u.deg).galactic
    for kind, size in (("point", {}), ("gauss", {"sigma": 0.01, "e": 0.0, "phi": 0.0})):
        x, y = at_home(place(kind, "galactic", home.l.deg, home.b.deg, **size))
        assert np.mean(x) == pytest.approx(0, abs=2e-4)
        assert np.mean(y) == pytest.approx(0, abs=2e-4)


def test_a_source_that_shrinks_with_energy() -> None:
    """0.4 deg at 1 TeV and, with delta 0.5, 0.1265 deg at 10 TeV; between two images of the energies it is a mixture."""
    shape = place("gauss_by_energy", sigma=0.4, delta=0.5, reference=1.0)
    for energy in (1.0, 10.0):
        x, y = at_home(shape, 9, energy)
        width = 0.4 * energy**-0.5
        assert np.mean(x**2 + y**2) == pytest.approx(2 * width**2, rel=0.01), energy


def test_a_template() -> None:
    """Columns and rows of a map against the shares that a fit folds."""
    geom = SkyGeometry.create(SkyCoord(83.63, 22.01, unit="deg"), 1 * u.deg, 0.1 * u.deg)
    image = 1 + np.add.outer(np.arange(10.0), 3 * np.arange(10.0) ** 2)
    middle = {"lon_0": geom.center.ra.deg, "lat_0": geom.center.dec.deg}
    options = {"geom": geom, "values": image, "normalize": True, "frame": "icrs"}
    template = Component("template", tuple(Parameter(n, v, u.deg) for n, v in middle.items()), options)
    shape = build_shape(source(template), LON, LAT, np.radians(6.0), (0.1, 100.0))
    assert shape is not None
    lon, lat = (np.degrees(x) for x in shape.draw(np.ones(N), rng(10)))
    model = resolve(template, "spatial", "test")
    values = np.array([np.radians(v) for v in middle.values()])
    shares = pixel_integrals(model, values, PixelGrid.create(geom, 10, "icrs"))
    assert float(shape.share(np.ones(1))[0]) == pytest.approx(shares.sum(), rel=5e-3)
    x, y = geom.wcs.all_world2pix(lon, lat, 0)
    for found, expected in ((x, shares.sum(axis=0)), (y, shares.sum(axis=1))):
        counts = np.histogram(found, bins=np.arange(11) - 0.5)[0]
        assert chisquare(counts, expected / expected.sum() * N).pvalue > LEAST
    assert counts.sum() == N


def test_a_field_full_of_light() -> None:
    """The same flux from everywhere, of which the field holds its solid angle."""
    constant = Component("constant", (Parameter("value", 2.0, u.Unit("sr-1")),), {"frame": "icrs"})
    reach = np.radians(3.0)
    shape = build_shape(source(constant), LON, LAT, reach, (0.1, 100.0))
    assert shape is not None
    lon, lat = shape.draw(np.ones(N), rng(11))
    distance = fov.separation(lon, lat, LON, LAT)
    inside = (distance < reach).mean() * float(shape.share(np.ones(1))[0])
    assert inside == pytest.approx(2 * 2 * np.pi * (1 - np.cos(reach)), rel=2e-3)
    held = distance[distance < reach]
    assert kstest(held, lambda r: (1 - np.cos(r)) / (1 - np.cos(reach))).pvalue > LEAST


def test_a_wide_source_is_lost_where_the_area_falls(prod5: dict[str, IrfTable]) -> None:
    """Photons of a disk of 4 deg around the pointing follow the area across the field."""
    found = photons(prod5, source(place("disk", r_0=4.0, e=0.0, phi=0.0, edge_width=0.01)), 12, offset=0.0)
    hard = found.energy_true > 3
    distance = np.degrees(fov.separation(found.lon, found.lat, LON, LAT))[hard]
    edges = np.linspace(0, 3.8, 39)
    middle = 0.5 * (edges[1:] + edges[:-1])
    energies = np.geomspace(3, 50, 400)
    area = effective_area(prod5["aeff"], energies * u.TeV, middle * u.deg).value
    weight = (energies[:, None] ** -1.3 * area).sum(axis=0) * middle
    inner = distance[distance < 3.8]
    assert kstest(inner, tabulated(edges, weight)).pvalue > LEAST
    assert area_at(prod5["aeff"], np.full(9, 2.0), np.radians(np.linspace(0, 6, 9))).max() <= largest_area(
        prod5["aeff"], np.array([2.0])
    )


def test_a_source_outside_the_field_gives_nothing(toy: dict[str, IrfTable]) -> None:
    far = source(place("gauss", lat=-40.0, sigma=0.2, e=0.0, phi=0.0))
    assert len(draw_source(far, toy, (LON, LAT), NIGHT, rng(), energy=(0.5, 50.0)).energy) == 0
    with pytest.raises(InputError, match="source 's': it has no spatial model, and photons need a direction"):
        draw_source(Source("s", POWER_LAW, None), toy, (LON, LAT), NIGHT, rng(), energy=(0.5, 50.0))


# --- time ---

T_REF = {"t_ref": MJD + 0.03}
TEMPORAL = {
    "steady": None,
    "exp_decay": component("exp_decay", {"scale": "tt"}, t0=0.02, **T_REF),
    "gauss": component("gauss", {"scale": "tt"}, **T_REF, sigma=0.01),
    "sine": Component(
        "sine",
        (Parameter("amp", 0.9), Parameter("omega", 700.0, u.rad / u.d), Parameter("t_ref", MJD, u.d)),
        {"scale": "tt"},
    ),
    "light_curve": Component(
        "light_curve",
        (Parameter("t_ref", MJD, u.d),),
        {"time": np.array([0, 0.01, 0.06, 0.07]), "norm": np.array([1, 5, 0, 3.0]), "scale": "tt"},
    ),
}


@pytest.mark.parametrize("kind", TEMPORAL)
def test_times_follow_the_model_within_the_good_times(kind: str) -> None:
    """Two intervals with a gap, against the integral of the model over them."""
    temporal = TEMPORAL[kind]
    arrival = build_arrival(source(temporal=temporal), NIGHT, (0.1, 100.0))
    found = arrival.draw(rng(13).random(N), np.ones(N))
    assert NIGHT.contains(found * u.s).all()
    seconds = np.linspace(0, 6000, 60_001)
    middle = 0.5 * (seconds[1:] + seconds[:-1])
    factor = np.ones(len(middle))
    if temporal is not None:
        model = resolve(temporal, "temporal", "test")
        factor = model.function(
            MJD + middle / 86400,
            *(p.quantity.to_value(n) for p, n in zip(temporal.parameters, model.units, strict=True)),
        )
    factor = factor * NIGHT.contains(middle * u.s)
    assert kstest(found, tabulated(seconds, factor)).pvalue > LEAST
    assert arrival.mean(np.ones(1))[0] == pytest.approx(factor.sum() / 30_000, rel=1e-5)


def test_a_pulsar_of_thirty_turns_a_second() -> None:
    """Phases of the arrival times against the phase curve that they were drawn from."""
    options = {"phase": np.array([0.0, 0.3, 0.35, 1.0]), "norm": np.array([1, 1, 9, 1.0]), "scale": "tt"}
    values = (
        ("t_ref", MJD, u.d),
        ("phi_ref", 0.2, None),
        ("f0", 29.9, u.Hz),
        ("f1", 0.0, u.Hz / u.s),
        ("f2", 0.0, None),
    )
    temporal = Component(
        "phase_curve",
        tuple(
            Parameter(n, v, unit or (u.Hz / u.s**2 if n == "f2" else u.dimensionless_unscaled))
            for n, v, unit in values
        ),
        options,
    )
    arrival = build_arrival(source(temporal=temporal), NIGHT, (0.1, 100.0))
    phase = (0.2 + 29.9 * arrival.draw(rng(14).random(N), np.ones(N))) % 1
    edges = np.linspace(0, 1, 2001)
    middle = 0.5 * (edges[1:] + edges[:-1])
    assert (
        kstest(phase, tabulated(edges, np.interp(middle, options["phase"], options["norm"]))).pvalue > LEAST
    )


DECAY = Component(
    "exp_decay_by_energy",
    (
        Parameter("t0", 1500.0, u.s),
        Parameter("t_ref", MJD, u.d, frozen=True),
        Parameter("delta", -0.5),
        Parameter("reference", 1.0, u.TeV, frozen=True),
    ),
    {"scale": "tt"},
)
TABLE = Component(
    "light_curve_by_energy",
    (Parameter("t_ref", MJD, u.d, frozen=True),),
    {
        "time": np.array([0, 0.07]),
        "energy": np.array([0.5, 50.0]),
        "norm": np.array([[0.0, 7.0], [7.0, 0.0]]),
        "scale": "tt",
    },
)


def test_times_that_depend_on_energy() -> None:
    """A decay within 1500 s at 1 TeV is one within 500 s at 9 TeV; the mean follows it."""
    arrival = build_arrival(source(temporal=DECAY), NIGHT, (0.5, 50.0))
    for energy, constant in ((1.0, 1500.0), (9.0, 500.0)):
        found = arrival.draw(rng(15).random(N), np.full(N, energy))
        early = (np.exp(-np.array([0, 2000, 5000, 6000]) / constant)) * constant
        total = early[0] - early[1] + early[2] - early[3]

        def expected(
            t: np.ndarray, constant: float = constant, early: np.ndarray = early, total: float = total
        ) -> np.ndarray:
            first = early[0] - constant * np.exp(-np.minimum(t, 2000) / constant)
            return (first + np.maximum(early[2] - constant * np.exp(-t / constant), 0)) / total

        assert kstest(found, expected).pvalue > LEAST
        assert arrival.mean(np.array([energy]))[0] == pytest.approx(total / 3000, rel=1e-9)


def test_a_table_of_times_and_energies() -> None:
    """Growing at 0.5 TeV, falling at 50 TeV, flat half-way in log energy."""
    arrival = build_arrival(source(temporal=TABLE), NIGHT, (0.5, 50.0))
    for energy, slope in ((0.5, 1), (5.0, 0), (50.0, -1)):
        found = arrival.draw(rng(16).random(N), np.full(N, energy))
        seconds = np.linspace(0, 6000, 6001)
        middle = 0.5 * (seconds[1:] + seconds[:-1])
        height = (3.5 + slope * (middle / 6048 - 0.5) * 7) * NIGHT.contains(middle * u.s)
        assert kstest(found, tabulated(seconds, height)).pvalue > LEAST, energy


def test_a_flux_below_zero_is_refused() -> None:
    falling = component("linear", {"scale": "tt"}, u.dimensionless_unscaled, alpha=1.0)
    temporal = Component(
        "linear",
        (*falling.parameters, Parameter("beta", -30.0, 1 / u.d), Parameter("t_ref", MJD, u.d)),
        {"scale": "tt"},
    )
    with pytest.raises(
        InputError, match="source 's': its temporal model 'linear' falls to -1.08 within the run"
    ):
        build_arrival(source(temporal=temporal), NIGHT, (0.1, 100.0))


# --- background and whole runs ---


@pytest.mark.parametrize("name", ["toy", "prod5", "hess"])
def test_background_across_the_field_and_energies(name: str, request: pytest.FixtureRequest) -> None:
    """Against the rate that a reduction evaluates, on other cells."""
    bkg = request.getfixturevalue(name)["bkg"]
    plain = IrfTable(bkg.kind, bkg.axes, bkg.data, bkg.units, {**bkg.meta, "fov_alignment": "RADEC"})
    found = draw_background(bkg, {"toy": 60_000.0, "prod5": 1_500.0, "hess": 60_000.0}[name], rng(17))
    half = float(bkg.axis("fov_lon").edges[-1].to_value("rad"))
    edges = np.linspace(-half, half, 61)
    middle = 0.5 * (edges[1:] + edges[:-1])
    x, y = np.meshgrid(middle, middle, indexing="ij")
    table = bkg.axis("energy").edges
    energy = Axis.from_bounds("energy", table[0], table[-1], 100)
    rate = background_rate(plain, energy, x.ravel(), y.ravel()).value.reshape(100, 60, 60) * np.cos(y)
    chosen = slice(0, N)
    assert len(found.energy) > 50_000
    for values, at, axis in ((found.fov_lon, edges, (0, 2)), (found.fov_lat, edges, (0, 1))):
        assert kstest(values[chosen], tabulated(at, rate.sum(axis=axis))).statistic < 0.008
    spectrum = tabulated(np.log(energy.edges.value), rate.sum(axis=(1, 2)))
    assert kstest(np.log(found.energy[chosen]), spectrum).statistic < 0.008


def test_factors_on_the_background() -> None:
    """norm 2 and tilt 1: 2 (E / 1 TeV)^-1; a background of other datasets is told."""
    parts = tuple(
        Parameter(n, v, k)
        for n, v, k in (("norm", 2.0, u.Unit("")), ("tilt", 1.0, u.Unit("")), ("reference", 1.0, u.TeV))
    )
    factor = Component("power_law_norm", parts)
    models = Models((), (BackgroundModel("a", factor), BackgroundModel("b", factor, ("other",))))
    found, warnings = background_factor(models, ["7"])
    assert found is not None
    assert found(np.array([0.5, 4.0])) == pytest.approx([4.0, 0.5])
    assert warnings == ["the background model 'b' is for other datasets and is not simulated"]


def test_a_background_aligned_with_the_horizon_turns_with_it(toy: dict[str, IrfTable]) -> None:
    """Events drawn at (x, y) of the horizon's frame are found there again by the reduction's own rotation."""
    bkg = toy["bkg"]
    turned = IrfTable(bkg.kind, bkg.axes, bkg.data, bkg.units, {**bkg.meta, "fov_alignment": "ALTAZ"})
    pointing, times = SkyCoord(83.63, 22.01, unit="deg"), np.array([0.0, 4000.0, 9000.0])
    drawn = draw_background(turned, 10.0, rng(18))
    drawn = type(drawn)(
        drawn.energy[:3], np.radians([1, 0.3, -2]), np.radians([0.5, -1, 2.0]), drawn.alignment
    )
    site = {"geolon": 16.5, "geolat": -23.27, "altitude": 1835.0}
    lon, lat = drawn.directions(pointing, times, REFERENCE, site)
    axes, _, _ = fov.altaz_axes(pointing, REFERENCE + times * u.s, (16.5, -23.27, 1835.0))
    for k in range(3):
        vector = fov.unit_vectors(lon[k : k + 1], lat[k : k + 1])
        x, y = fov.vectors_to_fov(vector, axes[k])
        assert np.degrees([x[0], y[0]]) == pytest.approx(
            np.degrees([drawn.fov_lon[k], drawn.fov_lat[k]]), abs=2e-3
        )
    with pytest.raises(InputError, match="aligned with the horizon .* give lon, lat and altitude"):
        drawn.directions(pointing, times, REFERENCE, None)


def test_a_run_without_responses_but_the_area_says_so(toy: dict[str, IrfTable]) -> None:
    run = observe(
        5, Models((source(),)), {"aeff": toy["aeff"]}, SkyCoord(83.63, 21.5, unit="deg"), NIGHT, seed=1
    )
    assert len(run.events) > 100
    assert run.events.radec.separation(SkyCoord(83.63, 22.01, unit="deg")).max() < 1e-9 * u.deg
    assert set(run.events.mc_id) == {1}
    assert run.meta["mc_names"] == {0: "background", 1: "s"}
    assert run.meta["warnings"] == [
        "the responses have no background rate: no background events are simulated"
    ]
    again = observe(
        5, Models((source(),)), {"aeff": toy["aeff"]}, SkyCoord(83.63, 21.5, unit="deg"), NIGHT, seed=1
    )
    assert np.array_equal(run.events.energy, again.events.energy)
