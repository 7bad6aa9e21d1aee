"""Writing GADF DL3 FITS with the same bytes for the same content."""

import gzip
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits

from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.io.files import write_product
from dl3flow.io.gadf_irf import LAYOUTS
from dl3flow.irf.table import IrfTable

GADF_KEYS = {
    "HDUCLASS": "GADF",
    "HDUDOC": "https://github.com/open-gamma-ray-astro/gamma-astro-data-formats",
    "HDUVERS": "0.3",
}
# astropy's default comment of CHECKSUM and DATASUM is the time of writing, which would change the bytes.
_SUMS_COMMENT = "verified on reading"


def time_keys(reference: float, timesys: str, fraction: float | None = None) -> dict[str, Any]:
    """Header keywords of a time reference given as MJD, or as its whole and fractional part."""
    whole = int(np.floor(reference))
    part = reference - whole if fraction is None else fraction
    return {
        "MJDREFI": whole,
        "MJDREFF": float(part),
        "TIMEUNIT": "s",
        "TIMESYS": timesys.upper(),
        "TIMEREF": "LOCAL",
    }


def save_tables(path: Path, tables: Sequence[tuple[str, Sequence[fits.Column], Mapping[str, Any]]]) -> None:
    """Write binary tables (name, columns, header keywords); gzipped without time and name where the suffix is ``.gz``."""
    hdus = fits.HDUList([fits.PrimaryHDU()])
    for name, columns, keywords in tables:
        hdu = fits.BinTableHDU.from_columns(list(columns), name=name)
        hdu.header.update(keywords)
        hdus.append(hdu)
    for hdu in hdus:
        hdu.add_datasum(when=_SUMS_COMMENT)
        hdu.add_checksum(when=_SUMS_COMMENT, override_datasum=True)
    plain = BytesIO()
    hdus.writeto(plain)
    content = plain.getvalue()
    packed = gzip.compress(content, compresslevel=6, mtime=0) if path.suffix == ".gz" else content

    def write(temporary: Path) -> None:
        temporary.write_bytes(packed)

    write_product(path, write)


def write_observation(path: Path, observation: Observation) -> None:
    """Write events, good time intervals and responses to one GADF 0.3 file.

    Parameters
    ----------
    path : Path
        ``.fits`` or ``.fits.gz``.
    observation : Observation
        ``meta`` gives telescope, instrument, object, creator, origin, obs_mode, tstart, tstop, location and, of a simulation,
        mc_names (by the number in ``events.mc_id``).

    Raises
    ------
    InputError
        If its events were cut by phase: the format has no place for the share of the period that is left.
    """
    if observation.phase_fraction < 1:
        raise InputError(
            f"{path}: OBS_ID {observation.obs_id} holds {100 * observation.phase_fraction:g} % of the phases, which GADF "
            "cannot tell: write the whole observation"
        )
    tables = [_events(observation), _gti(observation)]
    for kind in ("aeff", "edisp", "psf", "bkg", "rad_max"):
        irf = getattr(observation, kind)
        if irf is not None:
            tables.append(_irf(kind.upper(), irf, observation))
    save_tables(path, tables)


_Table = tuple[str, list[fits.Column], dict[str, Any]]


def _reference_keys(observation: Observation) -> dict[str, Any]:
    reference = observation.gti.reference
    whole = int(np.floor(reference.jd1 - 2400000.5 + reference.jd2))
    fraction = (reference.jd1 - 2400000.5 - whole) + reference.jd2
    return time_keys(whole, reference.scale, float(fraction))


def _origin_keys(observation: Observation) -> dict[str, Any]:
    meta = observation.meta
    return {
        "TELESCOP": meta.get("telescope") or "UNKNOWN",
        "INSTRUME": meta.get("instrument") or "UNKNOWN",
        "ORIGIN": meta.get("origin") or "UNKNOWN",
        "CREATOR": meta.get("creator") or "dl3flow",
        "OBS_ID": observation.obs_id,
    }


def _events(observation: Observation) -> _Table:
    events, meta, at = observation.events, observation.meta, observation.pointing.icrs
    columns = [
        fits.Column("EVENT_ID", "K", array=events.event_id),
        fits.Column("TIME", "D", unit="s", array=events.time.to_value(u.s)),
        fits.Column("RA", "D", unit="deg", array=events.radec.ra.deg),
        fits.Column("DEC", "D", unit="deg", array=events.radec.dec.deg),
        fits.Column("ENERGY", "D", unit="TeV", array=events.energy.to_value(u.TeV)),
    ]
    if events.event_type is not None:
        # FITS stores the most significant bit first
        is_bits = events.event_type.dtype.kind == "b"
        types = events.event_type[:, ::-1] if is_bits else events.event_type
        columns.append(fits.Column("EVENT_TYPE", f"{types.shape[1]}X" if is_bits else "K", array=types))
    if events.phase is not None:
        columns.append(fits.Column("PHASE", "D", array=events.phase))
    if events.mc_id is not None:
        columns.append(fits.Column("MC_ID", "K", array=events.mc_id))
    location = meta.get("location") or {"geolon": 0.0, "geolat": 0.0, "altitude": 0.0}
    header = {
        **GADF_KEYS,
        "HDUCLAS1": "EVENTS",
        **_origin_keys(observation),
        **_reference_keys(observation),
        "TSTART": meta["tstart"],
        "TSTOP": meta["tstop"],
        "ONTIME": float(observation.ontime.to_value(u.s)),
        "LIVETIME": float(observation.livetime.to_value(u.s)),
        "DEADC": 1 - observation.deadtime_fraction,
        "OBS_MODE": meta.get("obs_mode") or "POINTING",
        "OBJECT": meta.get("object") or "",
        "RA_PNT": float(at.ra.deg),
        "DEC_PNT": float(at.dec.deg),
        "EQUINOX": 2000.0,
        "RADECSYS": "ICRS",
        "EV_CLASS": "std",
        "GEOLON": location["geolon"],
        "GEOLAT": location["geolat"],
        "ALTITUDE": location["altitude"],
        **_simulated_keys(meta.get("mc_names") or {}),
    }
    return "EVENTS", columns, header


def _simulated_keys(names: Mapping[int, str]) -> dict[str, Any]:
    """Names of what the numbers of the column MC_ID stand for, in the keywords that the field's simulators use."""
    keys: dict[str, Any] = {"NMCIDS": len(names)} if names else {}
    for number, name in names.items():
        keys |= {f"MID{number:05d}": int(number), f"MMN{number:05d}": name}
    return keys


def _gti(observation: Observation) -> _Table:
    gti = observation.gti
    columns = [
        fits.Column("START", "D", unit="s", array=gti.start.to_value(u.s)),
        fits.Column("STOP", "D", unit="s", array=gti.stop.to_value(u.s)),
    ]
    span = {"TSTART": observation.meta["tstart"], "TSTOP": observation.meta["tstop"]}
    return (
        "GTI",
        columns,
        {**GADF_KEYS, "HDUCLAS1": "GTI", **_origin_keys(observation), **_reference_keys(observation), **span},
    )


def _irf(name: str, irf: IrfTable, observation: Observation) -> _Table:
    name, columns, header = response_table(name, irf, _origin_keys(observation))
    if irf.kind == "aeff_2d" and (radius := observation.rad_max) is not None and radius.quantity.size == 1:
        # the keyword that other programs know where one radius holds for all energies
        header["RAD_MAX"] = float(radius.quantity.to_value(u.deg).item())
    return name, columns, header


def response_table(name: str, irf: IrfTable, origin: Mapping[str, Any]) -> _Table:
    """Name, columns and header of a response; ``origin`` are header keywords that say whose it is."""
    layout = LAYOUTS[irf.kind]
    columns = []
    for axis, source in zip(irf.axes, layout.axes, strict=True):
        low, high = (axis.edges[:-1], axis.edges[1:]) if axis.nodes is None else (axis.nodes, axis.nodes)
        for suffix, values in (("LO", low), ("HI", high)):
            columns.append(_vector(f"{source.stems[0]}_{suffix}", values.value, axis.unit))
    for column, values in irf.data.items():
        columns.append(_vector(column, values.T, irf.units[column]))
    header: dict[str, Any] = {
        **GADF_KEYS,
        "HDUCLAS1": "RESPONSE",
        "HDUCLAS2": layout.hduclas2,
        "HDUCLAS3": "POINT-LIKE" if irf.meta.get("is_pointlike") else "FULL-ENCLOSURE",
        "HDUCLAS4": irf.kind.upper(),
        **origin,
    }
    if "fov_alignment" in irf.meta:
        header["FOVALIGN"] = irf.meta["fov_alignment"]
    for key in ("lo_thres", "hi_thres"):
        if irf.meta.get(key) is not None:
            header[key.upper()] = float(irf.meta[key].to_value(u.TeV))
    return name, columns, header


def _vector(name: str, values: np.ndarray, unit: u.UnitBase) -> fits.Column:
    """One-row column of float64 that holds an array, with its TDIM."""
    values = np.asarray(values, dtype=float)
    dim = str(values.shape[::-1]).replace(" ", "") if values.ndim > 1 else None
    text = None if unit == u.dimensionless_unscaled else unit.to_string("fits")
    return fits.Column(name, f"{values.size}D", unit=text, dim=dim, array=values[np.newaxis])
