"""Case E: spectra of the four Crab runs with reflected regions, through the whole chain to fits and flux points."""

from dataclasses import replace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from dl3flow.chain import parse_chain, reduce_observation
from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.data.maps import Map
from dl3flow.data.products import FitResult
from dl3flow.estimators import TABLES
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.minimise import fit
from dl3flow.fit.npred import predict_counts
from dl3flow.geometry.regions import parse_regions, region_mask
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.kernels.statistics import wstat_ts
from dl3flow.models.source import Models
from dl3flow.reduce.stack import stack

from .conftest import CRAB_RUNS, crab

SEED = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(83.63, 22.01, 0.2)",
        "energy": {"min": "1 TeV", "max": "10 TeV", "nbin": 11},
        "energy_true": {"min": "0.3 TeV", "max": "10 TeV", "nbin": 31},
    },
    "safe_mask": [{"name": "aeff_max", "percent": 10}],
    "background": {
        "name": "reflected",
        "exclusion": "icrs;circle(83.63, 22.01, 0.2)",
        "exclusion_binsz": "0.05 deg",
    },
}
TUTORIAL = {
    "recipe": {
        "name": "spectrum",
        "region": "icrs;circle(83.63, 22.01, 0.11)",
        "energy": {"min": "0.1 TeV", "max": "40 TeV", "nbin": 27},
        "energy_true": {"min": "0.05 TeV", "max": "100 TeV", "nbin": 67},
        "containment_correction": True,
    },
    "safe_mask": [{"name": "aeff_max", "percent": 10}],
    "background": {"name": "reflected"},
}
# Where the reference stopped 0.0072 errors short of the minimum (its own statistic there is higher than ours): the
# case asks for 0.005.
# the reference's HESSE takes one-sided mixed differences over steps that grow with the statistic: with this little data
# its errors are 1.6 % and 2.4 % from the second derivatives at the minimum
ONE_SIDED = {("joint", "lp", "seed"): 0.02, ("joint", "ecpl", "seed"): 0.03}
UNCONVERGED = {("tutorial", "joint", 8): 0.008}


def _drawn() -> Map:
    center = SkyCoord(83.63 * u.deg, 22.01 * u.deg)
    geom = SkyGeometry.create(center, 7.5 * u.deg, 0.05 * u.deg, "TAN")
    mask = ~region_mask(geom, parse_regions("galactic;circle(183.604, -8.708, 0.5)", "exclusion"))
    return Map(geom, (), mask.astype(float))


@pytest.fixture(scope="module")
def case(reference: Any) -> dict[str, Any]:
    return reference("E_reflected_crab4")[0]


@pytest.fixture(scope="module")
def spectra(crab_observations: dict[int, Any]) -> dict[str, list[Dataset]]:
    found = {}
    for tag, sections, drawn in (("seed", SEED, None), ("tutorial", TUTORIAL, _drawn())):
        chain = parse_chain(sections, tag)
        found[tag] = [reduce_observation(crab_observations[n], f"{tag}-{n}", chain, drawn) for n in CRAB_RUNS]
    return found


@pytest.fixture(scope="module")
def stacks(spectra: dict[str, list[Dataset]]) -> dict[str, Dataset]:
    return {tag: stack(runs, tag, runs[0].geom, runs[0].geom) for tag, runs in spectra.items()}


def _models(kind: str, **values: float) -> Models:
    models = crab(kind, "point")
    frozen = {f"crab.{n}": replace(models.sources[0].parameter(n), frozen=True) for n in ("lon_0", "lat_0")}
    models = models.with_parameters(frozen)
    name = models.sources[0].name
    changed = {
        f"{name}.{key}": replace(models.sources[0].parameter(key), value=value)
        for key, value in values.items()
    }
    return models.with_parameters(changed)


@pytest.mark.parametrize("tag", ["seed", "tutorial"])
def test_stack(tag: str, stacks: dict[str, Dataset], case: dict[str, Any]) -> None:
    expected, found = case[tag]["stacked"], stacks[tag]
    off = found.background
    assert isinstance(off, OffCounts)
    safe = found.mask_safe
    assert np.array_equal(safe[:, 0, 0], np.array(expected["safe"], dtype=bool))
    assert found.counts.data[:, 0, 0].tolist() == expected["n_on_per_energy"]
    assert off.counts.data[:, 0, 0].tolist() == expected["n_off_per_energy"]
    assert off.alpha[:, 0, 0] == pytest.approx(np.array(expected["alpha_per_energy"]), rel=1e-6)
    assert off.acceptance.data[:, 0, 0] == pytest.approx(np.array(expected["acceptance"]))
    assert off.acceptance_off.data[:, 0, 0] == pytest.approx(np.array(expected["acceptance_off"]), rel=1e-6)
    assert found.mu_bkg[:, 0, 0] == pytest.approx(np.array(expected["background"]), rel=1e-6)
    # the document's significance is that of the sums: alpha the ratio of background to off counts
    n_on, n_off, background = found.counts.data.sum(), off.counts.data.sum(), found.mu_bkg.sum()
    ts = float(wstat_ts(*(np.array([v]) for v in (n_on, n_off, background / n_off)))[0])
    assert np.sqrt(ts) == pytest.approx(expected["sqrt_ts_info"], abs=1e-4)
    assert n_on - background == pytest.approx(expected["excess"], rel=1e-6)


def test_seed_document(stacks: dict[str, Dataset]) -> None:
    """The makers tutorial prints 483 on, 741 off, background 62.909."""
    found = stacks["seed"]
    assert isinstance(found.background, OffCounts)
    assert found.counts.data.sum() == 483
    assert found.background.counts.data.sum() == 741
    assert found.mu_bkg.sum() == pytest.approx(62.909, abs=5e-4)


@pytest.mark.parametrize("tag", ["seed", "tutorial"])
@pytest.mark.parametrize("kind", ["pl", "lp", "ecpl"])
def test_stat_and_npred_at_fixed_parameters(
    tag: str, kind: str, spectra: dict[str, list[Dataset]], case: dict[str, Any]
) -> None:
    values = {
        "pl": {"index": 2.5, "amplitude": 3e-11},
        "lp": {"alpha": 2.5, "beta": 0.1, "amplitude": 3e-11},
        "ecpl": {"index": 2.3, "lambda_": 0.05, "amplitude": 3e-11},
    }[kind]
    expected, models = case[tag]["fixed"][kind], _models(kind, **values)
    alone = [build_likelihood([dataset], models) for dataset in spectra[tag]]
    stats = [likelihood.stat(likelihood.start) for likelihood in alone]
    assert stats == pytest.approx(expected["wstat_per_run"], abs=0.02)
    signal = [predict_counts(dataset, models)[0] for dataset in spectra[tag]]
    assert [s.sum() for s in signal] == pytest.approx(expected["npred_signal_per_run_all_bins"], rel=1e-3)


@pytest.mark.parametrize("tag", ["seed", "tutorial"])
@pytest.mark.parametrize("mode", ["joint", "stacked"])
@pytest.mark.parametrize("kind", ["pl", "lp", "ecpl"])
def test_fit(
    tag: str,
    mode: str,
    kind: str,
    spectra: dict[str, list[Dataset]],
    stacks: dict[str, Dataset],
    case: dict[str, Any],
) -> None:
    expected = case[tag]["fits"][f"{mode}|{kind}"]
    found = fit(spectra[tag] if mode == "joint" else [stacks[tag]], _models(kind))
    assert found.success, found.message
    assert found.stat == pytest.approx(expected["total_stat"], abs=1e-3)
    parameters = found.models.parameters()
    for row in expected["parameters"]:
        if not row["frozen"]:
            p = parameters[f"crab.{row['name']}"]
            assert p.value == pytest.approx(row["value"], abs=0.005 * row["error"]), row["name"]
            near = ONE_SIDED.get((mode, kind, tag), 0.01)
            assert p.error == pytest.approx(row["error"], rel=near), row["name"]


@pytest.mark.parametrize("kind", ["lp", "ecpl"])
def test_errors_are_those_of_the_second_derivatives(kind: str, spectra: dict[str, list[Dataset]]) -> None:
    """Where the reference's errors differ by more than 1 %, ours are the inverse of the gradient's differences."""
    result = fit(spectra["seed"], _models(kind))
    likelihood = build_likelihood(spectra["seed"], result.models)
    errors = np.array([result.parameter(name).error for name in result.free])
    rows = []
    for k, error in enumerate(errors):
        step = np.zeros(len(errors))
        step[k] = 0.01 * error
        ahead, behind = (likelihood.gradient(likelihood.start + s * step) for s in (1, -1))
        rows.append((ahead - behind) / 0.02 * errors)
    scaled = 0.5 * (np.array(rows) + np.array(rows).T)
    assert np.sqrt(2 * np.diag(np.linalg.inv(scaled))) == pytest.approx(np.ones(len(errors)), rel=1e-3)


@pytest.fixture(scope="module")
def power_laws(
    spectra: dict[str, list[Dataset]], stacks: dict[str, Dataset], case: dict[str, Any]
) -> dict[tuple[str, str], tuple[list[Dataset], FitResult]]:
    """Fits moved to the reference's best values, so that points differ by nothing but the points."""
    found = {}
    for tag, runs in spectra.items():
        for mode, datasets in (("joint", runs), ("stacked", [stacks[tag]])):
            rows = case[tag]["fits"][f"{mode}|pl"]["parameters"]
            best = _models("pl", **{row["name"]: row["value"] for row in rows})
            found[tag, mode] = datasets, replace(fit(datasets, _models("pl")), models=best)
    return found


# of the points, and how many of them have a positive norm
WANTED = {"seed": ([1.0, 1.51991108, 2.3101297, 4.32876128, 6.57933225, 10.0], 5), "tutorial": (None, 10)}


@pytest.mark.parametrize("tag", ["seed", "tutorial"])
@pytest.mark.parametrize("mode", ["joint", "stacked"])
def test_flux_points(
    tag: str,
    mode: str,
    power_laws: dict[tuple[str, str], tuple[list[Dataset], FitResult]],
    case: dict[str, Any],
) -> None:
    expected = case[tag][f"flux_points|{mode}|pl"]
    edges, n_positive = WANTED[tag]
    edges = case["inputs"]["tutorial"]["flux_point_edges_TeV"] if edges is None else edges
    energy = {"edges": [f"{edge!r} TeV" for edge in edges]}
    entry = {"name": "flux_points", "source": "crab", "energy": energy}
    estimate, options = TABLES.bind(entry, "estimator")
    datasets, result = power_laws[tag, mode]
    points = estimate(datasets, result, **options)
    table = points.table
    for column, unit in (
        ("e_ref", "TeV"),
        ("e_min", "TeV"),
        ("e_max", "TeV"),
        ("ref_dnde", "TeV-1 s-1 cm-2"),
    ):
        assert table[column].to_value(unit) == pytest.approx(np.array(expected[column]), rel=1e-8)
    counts = np.array(expected["counts"]).reshape(len(table), -1).sum(axis=1)
    assert np.array_equal(np.asarray(table["counts"]), counts)
    checked = 0
    for row, k in zip(table, range(len(table)), strict=True):
        if expected["norm"][k] <= 1e-6:
            continue  # the reference stops at the boundary
        checked += 1
        near = UNCONVERGED.get((tag, mode, k), 0.005) * expected["norm_err"][k]
        assert row["norm"] == pytest.approx(expected["norm"][k], abs=near)
        # the reference does not quite reach its minimum
        assert -1e-4 < row["stat"] - expected["stat"][k] < 1e-6
        assert row["stat_null"] == pytest.approx(expected["stat_null"][k], rel=1e-6)
        for column in ("norm_err", "norm_errn", "norm_errp", "norm_ul"):
            assert row[column] == pytest.approx(expected[column][k], rel=5e-3), (k, column)
        assert row["ts"] == pytest.approx(expected["ts"][k], rel=1e-3)
        assert row["sqrt_ts"] == pytest.approx(expected["sqrt_ts"][k], rel=5e-4)
        assert row["is_ul"] == expected["is_ul"][k]
        for column in ("npred", "npred_excess"):
            total = np.sum(np.array(expected[column][k]))
            assert row[column] == pytest.approx(total, rel=near / expected["norm"][k]), (k, column)
        dnde = points.dnde("norm_ul")[k].to_value("TeV-1 s-1 cm-2")
        assert dnde == pytest.approx(expected["dnde_ul"][k], rel=5e-3)
    assert checked == n_positive
