"""GADF DL3 observations: events, good time intervals and responses, each value checked before it is believed."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.time import Time

from dl3flow.data.events import EventList, Gti
from dl3flow.data.observation import Observation, ObservationEntry
from dl3flow.errors import InputError, choices
from dl3flow.io.fits_files import (
    find_table,
    header_value,
    number_column,
    number_key,
    open_tables,
    raw_column,
    reference_mjd,
    text_key,
)
from dl3flow.io.gadf_index import resolve_below
from dl3flow.io.gadf_irf import fixed_rad_max, producer_alignment, read_irf
from dl3flow.irf.table import IrfTable

_TIME_SCALES = ("tt", "utc", "tai", "tdb", "tcb", "tcg", "ut1")
_MJD_1960, _MJD_2100 = 36934, 88069
_SECONDS_PER_DAY = 86400
# A GTI may exceed TSTART..TSTOP by this share of the span: keywords are often rounded to seconds.
_GTI_TOLERANCE = 0.1
_SUSPICIOUS = 0.01
_FIXED_MODES = ("POINTING", "WOBBLE", "")
_SAME_POINTING = 0.01  # deg
_FEW_EVENTS = 1000
_WRONG_RATE = 500
# m: no observatory lies lower; CTA's first data challenge gives its altitude in km
_LOWEST_SITE = 10.0
_RESPONSES = ("aeff", "edisp", "psf", "bkg", "rad_max")


def read_observation(entry: ObservationEntry, root: Path) -> Observation:
    """Read one observation; every file is opened once.

    Parameters
    ----------
    entry : ObservationEntry
        Row of the index.
    root : Path
        Folder of the index.

    Returns
    -------
    observation : Observation
        ``meta["warnings"]`` lists, as sentences, what is suspicious but usable.

    Raises
    ------
    InputError
        Naming file, HDU, column or keyword, the value found and the remedy.
    """
    for kind in ("events", "gti", "aeff"):
        if kind not in entry.hdus:
            raise InputError(
                f"OBS_ID {entry.obs_id}: the HDU index lists no '{kind}' HDU: complete the index or leave it out"
            )
    warnings: list[str] = []

    def place(kind: str) -> str:
        return f"{entry.hdus[kind].path}: HDU '{entry.hdus[kind].hdu}'"

    with ExitStack() as stack:
        opened = {
            path: stack.enter_context(open_tables(resolve_below(root, path, f"OBS_ID {entry.obs_id}"), path))
            for path in entry.paths
        }

        def table(kind: str) -> tuple[fits.BinTableHDU, str]:
            at = entry.hdus[kind]
            return find_table(opened[at.path], at.hdu, at.path), place(kind)

        hdu, where = table("events")
        _check_class(hdu.header, "EVENTS", where)
        header, reference = hdu.header, time_reference(hdu.header, where)
        if not text_key(header, "TIMESYS", "", where):
            warnings.append(f"{where}: TIMESYS is missing; TT is assumed")
        span = _observation_span(header, reference, entry, where)
        events = read_events(hdu, reference, where, warnings)
        gti_hdu, gti_where = table("gti")
        _check_class(gti_hdu.header, "GTI", gti_where)
        gti = read_gti(gti_hdu, reference, span, gti_where, warnings)
        meta = _meta(header, entry, span, where, warnings)
        alignment = producer_alignment(header, where)
        kinds = [kind for kind in _RESPONSES if kind in entry.hdus]
        irfs = {kind: read_irf(*table(kind), entry.hdus[kind].kind, warnings) for kind in kinds}
        aeff_hdu, aeff_where = table("aeff")
        fixed = fixed_rad_max(aeff_hdu.header, irfs["aeff"], aeff_where)
    deadc = number_key(header, "DEADC", where)
    if not 0 < deadc <= 1:
        raise InputError(f"{where}: DEADC must lie in (0, 1], found {deadc}: correct the keyword")
    _check_events(events, gti, irfs["aeff"], where, warnings)
    _check_livetime(header, gti, deadc, where, warnings)
    if "bkg" in irfs:
        _check_background(events, irfs["bkg"], gti.ontime, place("bkg"))
    if irfs["aeff"].meta["is_pointlike"] and "rad_max" not in irfs and fixed is None:
        warnings.append(
            f"{aeff_where}: the response is POINT-LIKE, but neither RAD_MAX nor a RAD_MAX_2D table gives its directional cut"
        )
    if alignment and "bkg" in irfs:
        irfs["bkg"] = replace(irfs["bkg"], meta={**irfs["bkg"].meta, "fov_alignment": alignment})
    return Observation(
        obs_id=entry.obs_id,
        events=events,
        gti=gti,
        pointing=_pointing(header, entry, where),
        deadtime_fraction=1 - deadc,
        aeff=irfs["aeff"],
        edisp=irfs.get("edisp"),
        psf=irfs.get("psf"),
        bkg=irfs.get("bkg"),
        meta={**meta, "warnings": warnings},
        rad_max=irfs.get("rad_max", fixed),
    )


def _check_class(header: fits.Header, expected: str, where: str) -> None:
    found = text_key(header, "HDUCLAS1", expected, where)
    if found.upper() != expected:
        raise InputError(
            f"{where}: HDUCLAS1 is '{found}', not '{expected}' as the HDU index says: correct the index"
        )


def time_reference(header: fits.Header, where: str) -> Time:
    """Zero of the times of a table.

    Raises
    ------
    InputError
        If MJDREFI, TIMESYS or TIMEUNIT are missing or wrong.
    """
    whole, fraction = reference_mjd(header, where)
    scale = (text_key(header, "TIMESYS", "tt", where) or "tt").lower()
    if scale not in _TIME_SCALES:
        raise InputError(f"{where}: TIMESYS '{scale}' is no time scale {choices(scale, _TIME_SCALES)}")
    unit = text_key(header, "TIMEUNIT", "s", where)
    if unit != "s":
        raise InputError(f"{where}: TIMEUNIT must be 's', found '{unit}': convert the times to seconds")
    return Time(whole, fraction, format="mjd", scale=scale)


def _observation_span(
    header: fits.Header, reference: Time, entry: ObservationEntry, where: str
) -> tuple[float, float]:
    """TSTART and TSTOP, s, after the identity of the observation is confirmed."""
    obs_id = header_value(header, "OBS_ID", entry.obs_id, where)
    try:
        same = int(obs_id) == entry.obs_id
    except (TypeError, ValueError):
        same = False
    if not same:
        raise InputError(f"{where}: OBS_ID is {obs_id}, but the index says {entry.obs_id}: correct the index")
    start, stop = number_key(header, "TSTART", where), number_key(header, "TSTOP", where)
    if stop <= start:
        raise InputError(f"{where}: TSTOP ({stop}) must be later than TSTART ({start})")
    mjd = reference.mjd + start / _SECONDS_PER_DAY
    if not _MJD_1960 <= mjd <= _MJD_2100:
        raise InputError(
            f"{where}: the observation would start at MJD {mjd:.1f}: correct MJDREFI, MJDREFF or TSTART"
        )
    return start, stop


def _pointing(header: fits.Header, entry: ObservationEntry, where: str) -> SkyCoord:
    mode = str(header.get("OBS_MODE", "POINTING")).strip().upper()
    if mode not in _FIXED_MODES:
        raise InputError(
            f"{where}: OBS_MODE is '{mode}', which does not keep one direction: only {', '.join(filter(None, _FIXED_MODES))} can be reduced"
        )
    ra, dec = number_key(header, "RA_PNT", where), number_key(header, "DEC_PNT", where)
    if not 0 <= ra <= 360:
        raise InputError(f"{where}: RA_PNT must lie between 0 and 360 deg, found {ra}")
    if not -90 <= dec <= 90:
        raise InputError(f"{where}: DEC_PNT must lie between -90 and 90 deg, found {dec}")
    at = SkyCoord(ra * u.deg, dec * u.deg, frame="icrs")
    distance = at.separation(SkyCoord(entry.ra * u.deg, entry.dec * u.deg, frame="icrs")).deg
    if distance > _SAME_POINTING:
        raise InputError(
            f"{where}: RA_PNT, DEC_PNT ({ra:.4f}, {dec:.4f}) lie {distance:.3f} deg from the pointing in the index "
            f"({entry.ra:.4f}, {entry.dec:.4f}): one of the two is wrong"
        )
    return at


def _per_row(
    hdu: fits.BinTableHDU, column: str, unit: u.UnitBase, where: str, default: str = ""
) -> np.ndarray:
    """One number per row in ``unit``, float64."""
    values = number_column(hdu, column, where)
    if values.ndim != 1:
        raise InputError(
            f"{where}: the column '{column}' must hold one number per row, found an array of shape {values.shape[1:]}"
        )
    text = next(c.unit for c in hdu.columns if c.name.upper() == column) or default
    found = _parse_unit(text, unit, f"{where}: the column '{column}'")
    values = values.astype(float)
    return values if found == unit else values * found.to(unit)


def _parse_unit(text: str, expected: u.UnitBase, where: str) -> u.UnitBase:
    """Unit of a column.

    Raises
    ------
    InputError
        If it is unknown or of another dimension than ``expected``.
    """
    try:
        unit = u.Unit(text)
    except (ValueError, TypeError):
        raise InputError(
            f"{where} has the unknown unit '{text}': expected one such as '{expected}'"
        ) from None
    if not unit.is_equivalent(expected):
        raise InputError(f"{where} has the unit '{text}': expected one such as '{expected}'")
    return unit


def read_events(hdu: fits.BinTableHDU, reference: Time, where: str, warnings: list[str]) -> EventList:
    """Events of a table, in any unit of energy; sentences are appended to ``warnings``.

    Raises
    ------
    InputError
        Naming the column and the first row that cannot be believed.
    """
    event_id = number_column(hdu, "EVENT_ID", where)
    time = _per_row(hdu, "TIME", u.s, where, default="s")
    ra, dec = (_per_row(hdu, name, u.deg, where) for name in ("RA", "DEC"))
    energy = _per_row(hdu, "ENERGY", u.TeV, where)
    _refuse(~np.isfinite(time), time, "TIME", "s", "finite", where)
    _refuse(~((energy > 0) & np.isfinite(energy)), energy, "ENERGY", "TeV", "finite and above 0", where)
    _refuse(~((ra >= -360) & (ra <= 720)), ra, "RA", "deg", "between 0 and 360", where)
    _refuse(~((dec >= -90) & (dec <= 90)), dec, "DEC", "deg", "between -90 and 90", where)
    if ((ra < 0) | (ra > 360)).any():  # MAGIC's public files add a turn
        warnings.append(
            f"{where}: the column 'RA' has values a whole turn outside 0 to 360 deg, which were wrapped"
        )
    _check_identity(event_id, time, where, warnings)
    _warn_of_units(hdu, ("TIME",), where, warnings)
    return EventList(
        event_id.astype(np.int64),
        time * u.s,
        reference,
        SkyCoord(ra * u.deg, dec * u.deg, frame="icrs"),
        energy * u.TeV,
        _event_type(hdu, where, warnings),
        _phase(hdu, where, warnings),
        _mc_id(hdu, where),
    )


def _warn_of_units(hdu: fits.BinTableHDU, columns: tuple[str, ...], where: str, warnings: list[str]) -> None:
    bare = [c.name for c in hdu.columns if c.name.upper() in columns and not c.unit]
    if bare:
        warnings.append(f"{where}: no unit is given for {', '.join(bare)}; seconds are assumed")


def _has(hdu: fits.BinTableHDU, column: str) -> bool:
    return any(c.name.upper() == column for c in hdu.columns)


def _event_type(hdu: fits.BinTableHDU, where: str, warnings: list[str]) -> np.ndarray | None:
    """Bits, least significant first (FITS stores the most significant first), or numbers of the event types."""
    if not _has(hdu, "EVENT_TYPE"):
        return None
    values = raw_column(hdu, "EVENT_TYPE", where)
    if values.dtype.kind == "b" and values.ndim == 2:
        return np.ascontiguousarray(values[:, ::-1])
    if values.dtype.kind in "iu" and values.ndim == 1:
        return values.astype(np.int64)
    warnings.append(f"{where}: the column 'EVENT_TYPE' holds neither bits nor whole numbers and is not used")
    return None


def _phase(hdu: fits.BinTableHDU, where: str, warnings: list[str]) -> np.ndarray | None:
    """Phases in [0, 1); None where the file has none, or some that are not finite."""
    column = next(
        (name for name in ("PHASE", "PULSE_PHASE") if _has(hdu, name)), None
    )  # the latter: Fermi tools
    if column is None:
        return None
    values = number_column(hdu, column, where).astype(float)
    if values.ndim != 1 or not np.isfinite(values).all():
        warnings.append(f"{where}: the column '{column}' has values that are no numbers and is not used")
        return None
    if ((values < 0) | (values >= 1)).any():
        warnings.append(
            f"{where}: the column '{column}' has values outside 0 to 1, whose whole turns were left out"
        )
        values = values - np.floor(values)
    return values


def _mc_id(hdu: fits.BinTableHDU, where: str) -> np.ndarray | None:
    """Simulated source of each event; None where the file does not say."""
    if not _has(hdu, "MC_ID"):
        return None
    values = raw_column(hdu, "MC_ID", where)
    return values.astype(np.int64) if values.dtype.kind in "iu" and values.ndim == 1 else None


def _check_identity(event_id: np.ndarray, time: np.ndarray, where: str, warnings: list[str]) -> None:
    """Refuse events that are there twice; numbers that only restart within a run (MAGIC's files) are a warning."""
    repeated = len(event_id) - len(np.unique(event_id))
    if not repeated:
        return
    order = np.lexsort((time, event_id))
    twice = int(((np.diff(event_id[order]) == 0) & (np.diff(time[order]) == 0)).sum())
    if twice:
        raise InputError(
            f"{where}: {twice} of {len(event_id)} events repeat an EVENT_ID and its TIME: remove the duplicates"
        )
    warnings.append(f"{where}: {repeated} of {len(event_id)} events repeat an EVENT_ID, at another TIME")


def _refuse(wrong: np.ndarray, values: np.ndarray, column: str, unit: str, demand: str, where: str) -> None:
    if wrong.any():
        first = int(np.argmax(wrong))
        raise InputError(
            f"{where}: the column '{column}' must be {demand} ({unit}), but {int(wrong.sum())} of {len(values)} values are not, "
            f"first {values[first]:g} in row {first + 1}: remove or correct them"
        )


def read_gti(
    hdu: fits.BinTableHDU, reference: Time, span: tuple[float, float], where: str, warnings: list[str]
) -> Gti:
    """Good time intervals of a table, disjoint; ``span`` is TSTART and TSTOP of the events, s.

    Raises
    ------
    InputError
        If they are empty, far beyond the span, or count from another reference than the events.
    """
    own = time_reference(hdu.header, where)
    if own.scale != reference.scale or abs((own - reference).to_value(u.s)) > 1e-3:
        raise InputError(
            f"{where}: the time reference (MJD {own.mjd:.6f}, {own.scale}) is not that of the events "
            f"(MJD {reference.mjd:.6f}, {reference.scale}): correct MJDREFI, MJDREFF or TIMESYS"
        )
    start, stop = (_per_row(hdu, name, u.s, where, default="s") for name in ("START", "STOP"))
    if len(start) == 0 or not (stop - start).sum() > 0:
        raise InputError(f"{where}: the good time intervals sum to 0 s: leave this observation out")
    if not (np.isfinite(start).all() and np.isfinite(stop).all() and (stop >= start).all()):
        raise InputError(
            f"{where}: every STOP must be finite and not before its START: correct the intervals"
        )
    slack = _GTI_TOLERANCE * (span[1] - span[0])
    if start.min() < span[0] - slack or stop.max() > span[1] + slack:
        raise InputError(
            f"{where}: the intervals run from {start.min():.1f} to {stop.max():.1f} s, far beyond TSTART {span[0]:.1f} and "
            f"TSTOP {span[1]:.1f} s of the events: correct the intervals or their unit"
        )
    _warn_of_units(hdu, ("START", "STOP"), where, warnings)
    gti = Gti(start * u.s, stop * u.s, reference)
    order = np.argsort(start, kind="stable")
    if (start[order][1:] < stop[order][:-1]).any():
        warnings.append(f"{where}: good time intervals overlap and were merged")
        return gti.union(Gti(start[:0] * u.s, stop[:0] * u.s, reference))
    return gti


def _check_events(events: EventList, gti: Gti, aeff: IrfTable, where: str, warnings: list[str]) -> None:
    """Compare the events as a whole with the intervals and the responses they belong to."""
    if not len(events):
        warnings.append(f"{where}: the event list is empty")
        return
    inside = gti.contains(events.time).mean()
    if inside == 0:
        raise InputError(
            f"{where}: none of the {len(events)} events lies in a good time interval: correct TIME or the GTI"
        )
    if inside < 1 - _SUSPICIOUS:
        warnings.append(
            f"{where}: {100 * (1 - inside):.1f} % of the events lie outside the good time intervals"
        )
    edges = aeff.axis("energy_true").edges.to_value(u.TeV)
    energy = events.energy.to_value(u.TeV)
    covered = ((energy >= 0.5 * edges[0]) & (energy <= 2 * edges[-1])).mean()
    if covered < 0.5:
        raise InputError(
            f"{where}: the column 'ENERGY' has the median {np.median(energy):.3g} TeV, but the effective area covers "
            f"{edges[0]:.3g} to {edges[-1]:.3g} TeV: correct the unit of ENERGY"
        )


def _check_background(events: EventList, bkg: IrfTable, ontime: u.Quantity, where: str) -> None:
    """Compare the number of events with what the background rate predicts; they are the same to a factor 2 in real files.

    A rate per TeV that is labelled per MeV, or the reverse, is a million off.
    """
    energy = bkg.axis("energy")
    if bkg.kind == "bkg_3d":
        width = bkg.axis("fov_lon").widths.to_value(u.rad)
        solid_angle = width[:, None] * np.diff(np.sin(bkg.axis("fov_lat").edges.to_value(u.rad)))
    else:
        edges = np.maximum(bkg.axis("offset").edges.to_value(u.rad), 0.0)
        solid_angle = -2 * np.pi * np.diff(np.cos(edges))
    per_energy = np.tensordot(energy.widths.to_value(u.MeV), bkg.quantity.to_value("s-1 MeV-1 sr-1"), (0, 0))
    expected = float((per_energy * solid_angle).sum() * ontime.to_value(u.s))
    recorded = int((energy.index(events.energy) >= 0).sum())
    if not len(events) or expected <= 0 or max(recorded, expected) < _FEW_EVENTS:
        return
    if not 1 / _WRONG_RATE < (recorded + 1) / (expected + 1) < _WRONG_RATE:
        raise InputError(
            f"{where}: the background rate predicts {expected:.3g} events where {recorded} were recorded: "
            "correct the unit of the column 'BKG'"
        )


def _check_livetime(header: fits.Header, gti: Gti, deadc: float, where: str, warnings: list[str]) -> None:
    ontime = gti.ontime.to_value(u.s)
    stated = number_key(header, "ONTIME", where, default=ontime)
    if abs(stated / ontime - 1) > _SUSPICIOUS:
        warnings.append(
            f"{where}: ONTIME is {stated:g} s, but the good time intervals sum to {ontime:g} s, which is used"
        )
    livetime = number_key(header, "LIVETIME", where, default=stated * deadc)
    if abs(livetime - stated * deadc) > _SUSPICIOUS * stated * deadc:
        warnings.append(
            f"{where}: LIVETIME is {livetime:g} s, but ONTIME x DEADC is {stated * deadc:g} s; DEADC is used"
        )


def _meta(
    header: fits.Header,
    entry: ObservationEntry,
    span: tuple[float, float],
    where: str,
    warnings: list[str],
) -> Mapping[str, Any]:
    texts = {
        "telescope": "TELESCOP",
        "instrument": "INSTRUME",
        "object": "OBJECT",
        "creator": "CREATOR",
        "origin": "ORIGIN",
        "obs_mode": "OBS_MODE",
    }
    numbers = {
        name: _number_or_none(header, key, where)
        for name, key in (("geolon", "GEOLON"), ("geolat", "GEOLAT"), ("altitude", "ALTITUDE"))
    }
    location = {name: value for name, value in numbers.items() if value is not None}
    if 0 < location.get("altitude", 0.0) < _LOWEST_SITE:
        warnings.append(f"{where}: ALTITUDE is {location['altitude']:g}, which was taken as km")
        location["altitude"] *= 1000
    return {
        **{name: text_key(header, key, "", where) for name, key in texts.items()},
        **_simulated_names(header, where),
        "target": entry.target,
        "tstart": span[0],
        "tstop": span[1],
        "location": location if len(location) == 3 else None,
        "files": entry.paths,
    }


def _number_or_none(header: fits.Header, key: str, where: str) -> float | None:
    """Number of a keyword, which some files store as text; None where there is none."""
    value = header_value(header, key, None, where)
    try:
        number = np.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _simulated_names(header: fits.Header, where: str) -> dict[str, dict[int, str]]:
    """What the numbers of the column MC_ID stand for, where the file says it."""
    count = header_value(header, "NMCIDS", 0, where)
    keys = {n: f"MMN{n:05d}" for n in range(count + 1 if isinstance(count, int) and 0 < count < 10**5 else 0)}
    found = {n: text_key(header, key, "", where) for n, key in keys.items() if key in header}
    return {"mc_names": found} if found else {}
