from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.irf.table import IrfTable
from dl3flow.reduce.group import group_observations, response_features


@pytest.fixture
def run(demo_run):
    """Area 1e5 m2, energies 10 % too high and spread by 20 %, a Gaussian point spread of 0.1 deg."""
    true = Axis.from_bounds("energy_true", 0.1 * u.TeV, 100 * u.TeV, 6)
    offset = Axis.from_nodes("offset", [0.0, 1.0, 3.0] * u.deg)
    migra = Axis.from_bounds("migra", 0.0 * u.one, 3.0 * u.one, 600, "lin")
    density = np.exp(-0.5 * ((migra.centers.value - 1.1) / 0.2) ** 2) / (0.2 * np.sqrt(2 * np.pi))
    matrix = np.broadcast_to(density[:, None], (6, 600, 3))
    zero, one = np.zeros((6, 3)), np.ones((6, 3))
    gauss = {
        "SCALE": one,
        "SIGMA_1": 0.1 * one,
        "AMPL_2": zero,
        "SIGMA_2": zero,
        "AMPL_3": zero,
        "SIGMA_3": zero,
    }
    units = {name: u.deg if "SIGMA" in name else u.dimensionless_unscaled for name in gauss}
    return replace(
        demo_run,
        aeff=IrfTable("aeff_2d", (true, offset), {"EFFAREA": 1e5 * one}, {"EFFAREA": u.m**2}),
        edisp=IrfTable(
            "edisp_2d", (true, migra, offset), {"MATRIX": matrix}, {"MATRIX": u.dimensionless_unscaled}
        ),
        psf=IrfTable("psf_3gauss", (true, offset), gauss, {**units, "SCALE": u.Unit("sr-1")}),
    )


def test_features(run):
    found = response_features(run, 1 * u.TeV, 0.5 * u.deg)
    # 68 % of a Gaussian lie within sqrt(-2 ln 0.32) = 1.50959 sigma
    expected = {"log_area": 5.0, "bias": 0.1, "resolution": 0.2, "psf_radius": 0.150959}
    assert found == pytest.approx(expected, rel=1e-4)


def test_features_of_what_is_there(run):
    assert list(response_features(replace(run, edisp=None, psf=None), 1 * u.TeV, 0.5 * u.deg)) == ["log_area"]
    with pytest.raises(InputError, match="at 1000 TeV and an offset of 0.5 deg the effective area is zero"):
        response_features(run, 1000 * u.TeV, 0.5 * u.deg)


def test_groups_are_numbered_as_they_come():
    """Two bunches, far apart in one feature; the other is the same everywhere and must not matter."""
    features = [{"a": x, "b": 7.1} for x in (10.0, 1.0, 10.2, 1.1, 0.9)]
    assert group_observations(features, 2) == [0, 1, 0, 1, 1]
    assert group_observations(features, 1) == [0] * 5
    assert len(set(group_observations(features, 5))) == 5


def test_features_count_alike_whatever_their_unit():
    features = [{"a": a, "b": b} for a, b in ((0, 0), (0, 1), (1, 0), (1, 1.05))]
    scaled = [{"a": 1e6 * f["a"], "b": f["b"]} for f in features]
    assert group_observations(features, 2) == group_observations(scaled, 2)


def test_identical_observations_are_one_group():
    assert group_observations([{"a": 0.1}] * 4, 3) == [0, 0, 0, 0]
    assert group_observations([{"a": 0.1}], 3) == [0]


@pytest.mark.parametrize(
    ("features", "n_groups", "expected"),
    [
        ([], 1, "found 0 and 1"),
        ([{"a": 1.0}], 0, "found 1 and 0"),
        ([{"a": 1.0}, {"b": 1.0}], 1, "number 2 has"),
    ],
)
def test_wrong_groups(features, n_groups, expected):
    with pytest.raises(InputError, match=expected):
        group_observations(features, n_groups)


def test_groups_of_one_night_are_those_of_zenith(hess_dl3):
    """During the flare PKS 2155-304 rose and set: 50, 18, 44, 7, 47 and 14 deg from the zenith."""
    entries = {entry.obs_id: entry for entry in read_index(hess_dl3)}
    ids = [33787, 33792, 33788, 33794, 33801, 33796]
    assert [round(entries[n].zenith) for n in ids] == [50, 18, 44, 7, 47, 14]
    runs = [read_observation(entries[n], hess_dl3) for n in ids]
    features = [response_features(run, 2 * u.TeV, 0.5 * u.deg) for run in runs]
    assert group_observations(features, 2) == [0, 1, 0, 1, 0, 1]
    # the point spread narrows toward the zenith
    assert (
        max(f["psf_radius"] for f in features[1::2])
        < 0.08
        < 0.11
        < min(f["psf_radius"] for f in features[::2])
    )
