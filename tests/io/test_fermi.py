"""Fermi-LAT files made here: values that can be checked in the head, and every way in which one is refused."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from dl3flow.data.healpix import HealpixCube
from dl3flow.errors import InputError
from dl3flow.io.fermi import read_fermi_events, read_fermi_exposure, read_fermi_psf

TIME = {
    "MJDREFI": 51910,
    "MJDREFF": 7.428703703703703e-4,
    "TIMEUNIT": "s",
    "TIMESYS": "TT",
    "TSTART": 3e8,
    "TSTOP": 4e8,
}


def save(path, *tables):
    """Tables of (name, columns, header)."""
    hdus = [fits.PrimaryHDU()]
    for name, columns, header in tables:
        hdu = fits.BinTableHDU.from_columns(columns, name=name)
        hdu.header.update(header)
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(path)
    return path


def test_events(tmp_path):
    bits = np.zeros((3, 32), dtype=bool)
    bits[[0, 2], 31], bits[1, 30] = True, True
    columns = [
        fits.Column("ENERGY", "E", unit="MeV", array=[1e4, 2e4, 1e6]),
        fits.Column("RA", "E", unit="deg", array=[83, 84, 85]),
        fits.Column("DEC", "E", unit="deg", array=[22, 22, 22]),
        fits.Column("TIME", "D", unit="s", array=[3.1e8, 3.2e8, 3.8e8]),
        fits.Column("EVENT_ID", "J", array=[1, 2, 3]),
        fits.Column("EVENT_TYPE", "32X", array=bits),
        fits.Column("PULSE_PHASE", "D", array=[0.1, 0.5, 0.9]),
    ]
    gti = [
        fits.Column("START", "D", unit="s", array=[3e8, 3.5e8]),
        fits.Column("STOP", "D", unit="s", array=[3.4e8, 4e8]),
    ]
    path = save(
        tmp_path / "ft1.fits", ("EVENTS", columns, {"HDUCLAS1": "EVENTS", **TIME}), ("GTI", gti, TIME)
    )
    events, good, warnings = read_fermi_events(path)
    assert events.energy.to_value("GeV") == pytest.approx([10, 20, 1000])
    assert events.event_type[:, 0].tolist() == [True, False, True]
    assert events.event_type[:, 1].tolist() == [False, True, False]
    assert not events.event_type[:, 2:].any()
    assert events.phase.tolist() == [0.1, 0.5, 0.9]
    assert good.ontime.to_value("s") == pytest.approx(9e7)
    assert warnings == []


def cube(path, *, nside=2, unit="MeV", energies=(1e4, 1e5), change=None, **header):
    """Exposure 10 x energy of the node at every pixel, and at pixel 0 twice that."""
    n = 12 * nside**2
    columns = []
    for number, energy in enumerate(energies):
        values = np.full(n, 10 * energy)
        values[0] *= 2
        columns.append(
            fits.Column(f"ENERGY{number + 1}", "D", array=values if change is None else change(values))
        )
    keys = {"PIXTYPE": "HEALPIX", "ORDERING": "RING", "NSIDE": nside, "COORDSYS": "GAL"} | header
    keys = {key: value for key, value in keys.items() if value is not None}
    nodes = [fits.Column("Energy", "D", unit=unit, array=list(energies))]
    return save(path, ("HPXEXPOSURES", columns, keys), ("ENERGIES", nodes, {}))


def test_exposure(tmp_path):
    found = read_fermi_exposure(cube(tmp_path / "x.fits"))
    assert (found.frame, found.nside, found.unit) == ("galactic", 2, u.Unit("cm2 s"))
    assert found.meta["warnings"] == []
    assert found.energy_true.to_value("GeV") == pytest.approx([10, 100])
    pole = SkyCoord(0, 90, unit="deg", frame="galactic")
    # a quarter of the pole's mean is doubled
    assert found.at(pole).to_value("cm2 s") == pytest.approx([1.25e5, 1.25e6])
    crab = SkyCoord([83.63, 10.0], [22.01, -50.0], unit="deg")
    at = found.at(crab, [10, 31.622776601683793, 100, 1000] * u.GeV).to_value("cm2 s")
    assert at.shape == (4, 2)
    # between the nodes the geometric mean, beyond them the last value
    assert at[:, 0] == pytest.approx([1e5, 10**5.5, 1e6, 1e6])
    assert at[:, 1] == pytest.approx(at[:, 0])


def test_exposure_in_equatorial_coordinates(tmp_path):
    found = read_fermi_exposure(cube(tmp_path / "x.fits", COORDSYS="EQU"))
    assert found.at(SkyCoord(0, 90, unit="deg")).to_value("cm2 s")[0] == pytest.approx(1.25e5)


def test_what_an_exposure_does_not_say(tmp_path):
    found = read_fermi_exposure(cube(tmp_path / "x.fits", COORDSYS=None, unit=None))
    said = [text.split(": ", 2)[2] for text in found.meta["warnings"]]
    assert said == [
        "COORDSYS is missing; galactic coordinates are assumed",
        "no unit is given for ENERGY; MeV is assumed",
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"PIXTYPE": None}, "there is no table with PIXTYPE = 'HEALPIX'"),
        ({"ORDERING": "NESTED"}, "ORDERING is 'NESTED': convert the pixels to RING order"),
        ({"COORDSYS": "ECL"}, "COORDSYS 'ECL' is unknown"),
        ({"NSIDE": 4}, "has 48 pixels, but NSIDE 4 means 192"),
        ({"change": lambda v: v - v.min()}, "an exposure is not above 0"),
        ({"change": lambda v: v * np.nan}, "an exposure is not above 0"),
        ({"energies": (1e5, 1e4)}, "must be above 0 and increase"),
        ({"unit": "s"}, "the column 'ENERGY' has the unit 's': expected one such as 'MeV'"),
    ],
)
def test_wrong_exposures(tmp_path, options, expected):
    path = cube(tmp_path / "x.fits", **options)
    with pytest.raises(InputError) as error:
        read_fermi_exposure(path)
    assert expected in str(error.value)
    assert str(error.value).startswith(str(path))


def psf_file(path, theta=None, change=lambda v: v, energies=(1e4, 1e5), unit="MeV"):
    """Gaussian of 0.2 deg at 10 GeV, of 0.1 deg at 100 GeV, at angles that grow as squares, like those of gtpsf."""
    theta = 2 * np.linspace(0, 1, 200) ** 2 if theta is None else theta
    sigma = np.radians([0.2, 0.1])[:, None]
    values = np.exp(-0.5 * (np.radians(theta) / sigma) ** 2) / (2 * np.pi * sigma**2)
    table = [
        fits.Column("Energy", "D", unit=unit, array=list(energies)),
        fits.Column("Psf", f"{len(theta)}D", array=change(values)),
    ]
    return save(path, ("PSF", table, {}), ("THETA", [fits.Column("Theta", "D", unit="deg", array=theta)], {}))


def test_point_spread_table(tmp_path):
    found = read_fermi_psf(psf_file(tmp_path / "psf.fits"))
    assert found.kind == "psf_table"
    assert [axis.name for axis in found.axes] == ["energy_true", "offset", "rad"]
    assert found.data["RPSF"].shape == (2, 1, 200)
    assert found.axis("rad").edges[0] == 0 * u.deg
    assert found.axis("rad").centers[-1] == 2 * u.deg
    assert found.axis("energy_true").nodes.to_value("GeV") == pytest.approx([10, 100])
    assert found.quantity[0, 0, 0].to_value("sr-1") == pytest.approx(1 / (2 * np.pi * np.radians(0.2) ** 2))
    # the same at every offset
    assert found.hat("offset", [0, 30] * u.deg).tolist() == [[1], [1]]
    assert found.meta["warnings"] == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"change": lambda v: 2 * v}, "'Psf' integrates over the angle to 2 (median), not 1"),
        ({"change": lambda v: v * np.nan}, "expected (2, 200) finite values"),
        ({"energies": (1e5, 1e4)}, "its energies must increase"),
        ({"theta": np.linspace(2, 0, 50)}, "its angles must increase"),
        ({"unit": "furlong"}, "the column 'ENERGY' has the unit 'furlong'"),
    ],
)
def test_wrong_point_spreads(tmp_path, options, expected):
    with pytest.raises(InputError) as error:
        read_fermi_psf(psf_file(tmp_path / "psf.fits", **options))
    assert expected in str(error.value)


def test_missing_table(tmp_path):
    path = save(tmp_path / "psf.fits", ("PSF", [fits.Column("Energy", "D", array=[1.0])], {}))
    with pytest.raises(InputError, match="there is no HDU 'THETA'"):
        read_fermi_psf(path)


def test_cube_is_not_written_into():
    values = np.full((1, 12), 3.0)
    values.setflags(write=False)
    sky = HealpixCube([1.0] * u.TeV, values, u.Unit("cm2 s"), 1, "icrs")
    assert replace(sky, frame="galactic").at(SkyCoord(1, 2, unit="deg")).to_value("cm2 s") == pytest.approx(
        [3.0]
    )
