"""Off runs are matched by the index alone."""

import astropy.units as u
import pytest

from dl3flow.background.match import match_off_runs
from dl3flow.data.index import ObservationEntry
from dl3flow.errors import InputError
from dl3flow.registry import Plugin


def entry(obs_id: int, zenith: float | None = 30.0, azimuth: float | None = 180.0, day: float = 0.0, **more):
    return ObservationEntry(
        obs_id, "", 0.0, 0.0, day * 86400, day * 86400 + 1600, more.get("reference", 53000.0), "tt", 1500.0, None, "T", {},
        None, zenith, azimuth,
    )  # fmt: skip


ON = entry(1)


def test_all_others_match_without_limits_in_the_order_of_their_numbers() -> None:
    assert match_off_runs(ON, [entry(5), ON, entry(3), entry(4)]) == [3, 4, 5]
    assert match_off_runs(ON, [entry(5), entry(3), entry(4)], n_max=2) == [3, 4]


def test_the_nearest_in_zenith_come_first_and_the_limit_belongs_to_them() -> None:
    candidates = [entry(2, 35.0), entry(3, 24.9), entry(4, 31.0), entry(5, 28.0)]
    assert match_off_runs(ON, candidates, zenith=5 * u.deg) == [4, 5, 2]
    assert match_off_runs(ON, candidates, zenith=5 * u.deg, n_max=1) == [4]


def test_the_cosine_of_the_zenith_may_be_compared() -> None:
    # cos 60 deg is 0.5: 0.366 below that of 30 deg; cos 41.4 deg is 0.75, 0.116 below
    candidates = [entry(2, 60.0), entry(3, 41.4)]
    assert match_off_runs(ON, candidates, cos_zenith=0.12) == [3]
    assert match_off_runs(ON, candidates, cos_zenith=0.37) == [3, 2]


def test_azimuth_is_on_the_circle() -> None:
    on = entry(1, azimuth=350.0)
    candidates = [entry(2, azimuth=15.0), entry(3, azimuth=-20.0), entry(4, azimuth=180.0)]
    assert match_off_runs(on, candidates, azimuth=30 * u.deg) == [3, 2]


def test_epochs_are_compared_across_time_references() -> None:
    candidates = [entry(2, day=40), entry(3, day=-10), entry(4, day=0, reference=53020.0)]
    assert match_off_runs(ON, candidates, epoch=30 * u.day) == [3, 4]


def test_differences_add_in_units_of_their_limits() -> None:
    # 4/5 and 0 against 2/5 and 40/50: 0.80 and 0.894
    candidates = [entry(2, 32.0, 220.0), entry(3, 34.0, 180.0)]
    assert match_off_runs(ON, candidates, zenith=5 * u.deg, azimuth=50 * u.deg) == [3, 2]


def test_none_names_the_nearest_and_its_differences() -> None:
    with pytest.raises(InputError) as error:
        match_off_runs(
            ON, [entry(2, 52.0, 170.0), entry(3, 41.5, 150.0)], zenith=5 * u.deg, azimuth=90 * u.deg
        )
    assert str(error.value) == (
        "observation 1: none of the 2 off runs is similar enough; the nearest, 3, differs by zenith 11.5 deg (limit 5 deg), "
        "azimuth 30 deg (limit 90 deg): widen a limit or give more off runs"
    )


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        ([entry(2, None)], {"zenith": 5 * u.deg}, "observation 2: the index has neither ZEN_PNT nor ALT_PNT"),
        ([entry(2, azimuth=None)], {"azimuth": 5 * u.deg}, "observation 2: the index has no AZ_PNT"),
        ([entry(2, reference=None)], {"epoch": 5 * u.day}, "observation 2: the index has no MJDREFI"),
        ([ON], {}, "there are no off runs to choose from"),
        ([entry(2)], {"n_max": 0}, "`n_max` of the off runs must be at least 1, found 0"),
        ([entry(2)], {"cos_zenith": 0.0}, "must be above 0, found 0"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(candidates, options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        match_off_runs(ON, candidates, **options)


def test_the_configuration_binds_its_options() -> None:
    bound = Plugin("off", match_off_runs).bind({"zenith": "5 deg", "epoch": "30 d", "n_max": 3}, "off")
    assert bound == {
        "zenith": 5 * u.deg, "cos_zenith": None, "azimuth": None, "epoch": 30 * u.day, "n_max": 3,
    }  # fmt: skip
    with pytest.raises(InputError, match="expected a value with a unit"):
        Plugin("off", match_off_runs).bind({"epoch": "30 deg"}, "off")
