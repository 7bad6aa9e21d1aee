"""Fermi-LAT files of the Fermi tools: events (FT1), exposure on HEALPix pixels (gtexpcube2) and point spread (gtpsf)."""

from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits

from dl3flow.data.events import EventList, Gti
from dl3flow.data.healpix import HealpixCube
from dl3flow.errors import InputError, choices
from dl3flow.geometry.axis import Axis
from dl3flow.io.fits_files import (
    find_table,
    number_column,
    number_key,
    open_fits,
    raw_column,
    settle,
    text_key,
)
from dl3flow.io.gadf import read_events, read_gti, time_reference
from dl3flow.irf.table import IrfTable

_FRAMES = {"GAL": "galactic", "EQU": "icrs", "CEL": "icrs"}
_NORM_TOLERANCE = 0.05


def read_fermi_events(path: Path) -> tuple[EventList, Gti, list[str]]:
    """Events and good time intervals of a photon file.

    Returns
    -------
    events : EventList
        ``event_type`` are bits: 0 front, 1 back, 2 to 5 PSF0 to PSF3, 6 to 9 EDISP0 to EDISP3.
    gti : Gti
    warnings : list of str
        Sentences on what is suspicious but usable.

    Raises
    ------
    InputError
        As for a GADF event list.
    """
    name = str(path)
    with open_fits(path) as hdus:
        events_hdu, gti_hdu = (find_table(hdus, hdu, name) for hdu in ("EVENTS", "GTI"))
        where, warnings = f"{name}: HDU 'EVENTS'", list[str]()
        reference = time_reference(events_hdu.header, where)
        events = read_events(events_hdu, reference, where, warnings)
        span = tuple(number_key(events_hdu.header, key, where) for key in ("TSTART", "TSTOP"))
        gti = read_gti(gti_hdu, reference, (span[0], span[1]), f"{name}: HDU 'GTI'", warnings)
        return events, gti, warnings


def read_fermi_exposure(path: Path) -> HealpixCube:
    """Exposure, cm2 s, at nodes of true energy.

    Files without COORDSYS are in galactic coordinates: the exposures that gtpsf writes for a position confirm it.

    Raises
    ------
    InputError
        If there is no HEALPix table in RING order over the whole sky, or a value is not above 0.
    """
    name, warnings = str(path), list[str]()
    with open_fits(path) as hdus:
        hdu = next(
            (h for h in hdus[1:] if text_key(h.header, "PIXTYPE", "", name).upper() == "HEALPIX"), None
        )
        if not isinstance(hdu, fits.BinTableHDU):
            raise InputError(
                f"{name}: there is no table with PIXTYPE = 'HEALPIX': name the exposure cube of gtexpcube2"
            )
        where = f"{name}: HDU '{hdu.name}'"
        settle(hdu, name)
        if (order := text_key(hdu.header, "ORDERING", "", where).upper()) != "RING":
            raise InputError(f"{where}: ORDERING is '{order}': convert the pixels to RING order")
        nside = round(number_key(hdu.header, "NSIDE", where))
        system = text_key(hdu.header, "COORDSYS", "", where).upper()
        if not system:
            warnings.append(f"{where}: COORDSYS is missing; galactic coordinates are assumed")
        elif system not in _FRAMES:
            raise InputError(f"{where}: COORDSYS '{system}' is unknown {choices(system, _FRAMES)}")
        energy = _energies(hdus, name, warnings)
        columns = [c.name for c in hdu.columns if c.name.upper().startswith("ENERGY")]
        if len(columns) != len(energy):
            raise InputError(
                f"{where}: has {len(columns)} columns ENERGY..., but {len(energy)} energies are listed"
            )
        values = np.stack([number_column(hdu, column, where).astype(float) for column in columns])
    if values.shape[1] != 12 * nside**2:
        raise InputError(
            f"{where}: has {values.shape[1]} pixels, but NSIDE {nside} means {12 * nside**2}: give the whole sky"
        )
    if not (np.isfinite(values).all() and values.min() > 0):
        raise InputError(f"{where}: an exposure is not above 0: make the cube again")
    return HealpixCube(
        energy, values, u.Unit("cm2 s"), nside, _FRAMES.get(system, "galactic"), {"warnings": warnings}
    )


def read_fermi_psf(path: Path) -> IrfTable:
    """Point spread as a ``psf_table`` on (energy_true, offset, rad), the same at every offset.

    Returns
    -------
    psf : IrfTable
        ``RPSF`` in sr-1 at nodes of true energy and of the angle from the source.

    Raises
    ------
    InputError
        If a table or column is missing, or the values do not integrate to about 1.
    """
    name, warnings = str(path), list[str]()
    with open_fits(path) as hdus:
        table, angles = (find_table(hdus, hdu, name) for hdu in ("PSF", "THETA"))
        where = f"{name}: HDU 'PSF'"
        energy = _in_unit(table, "ENERGY", u.MeV, where, warnings).to(u.TeV)
        theta = _in_unit(angles, "THETA", u.deg, f"{name}: HDU 'THETA'", warnings)
        values = raw_column(table, "PSF", where).astype(float)
    if values.shape != (len(energy), len(theta)) or not np.isfinite(values).all():
        raise InputError(
            f"{where}: the column 'Psf' has the shape {values.shape}, expected {(len(energy), len(theta))} finite values"
        )
    for axis, nodes in (("energies", energy), ("angles", theta)):
        if len(nodes) < 2 or not (np.diff(nodes.value) > 0).all():
            raise InputError(f"{where}: its {axis} must increase: make the file again")
    x = theta.to_value(u.rad)
    norm = float(np.median(np.trapezoid(values * 2 * np.pi * np.sin(x), x, axis=1)))
    if abs(norm - 1) > _NORM_TOLERANCE:
        raise InputError(f"{where}: the column 'Psf' integrates over the angle to {norm:.3g} (median), not 1")
    nodes = Axis.from_nodes("rad", theta)
    axes = (
        Axis.from_nodes("energy_true", energy, "log"),
        Axis("offset", [0, 180] * u.deg),
        Axis("rad", np.maximum(nodes.edges, 0 * u.deg), "lin", theta),
    )
    meta = {"is_pointlike": False, "warnings": warnings}
    return IrfTable("psf_table", axes, {"RPSF": values[:, None, :]}, {"RPSF": u.Unit("sr-1")}, meta)


def _energies(hdus: fits.HDUList, name: str, warnings: list[str]) -> u.Quantity:
    table = find_table(hdus, "ENERGIES", name)
    energy = _in_unit(table, "ENERGY", u.MeV, f"{name}: HDU 'ENERGIES'", warnings).to(u.TeV)
    if not (energy[0].value > 0 and (np.diff(energy.value) > 0).all()):
        raise InputError(
            f"{name}: HDU 'ENERGIES': the energies must be above 0 and increase: make the cube again"
        )
    return energy


def _in_unit(
    hdu: fits.BinTableHDU, column: str, unit: u.UnitBase, where: str, warnings: list[str]
) -> u.Quantity:
    """Column in its own unit, or in that which the Fermi tools use where it has none."""
    values = number_column(hdu, column, where).astype(float)
    text = next(c.unit for c in hdu.columns if c.name.upper() == column)
    if not text:
        warnings.append(f"{where}: no unit is given for {column}; {unit} is assumed")
        return values * unit
    try:
        return (values * u.Unit(text)).to(unit)
    except (ValueError, TypeError):
        raise InputError(
            f"{where}: the column '{column}' has the unit '{text}': expected one such as '{unit}'"
        ) from None
