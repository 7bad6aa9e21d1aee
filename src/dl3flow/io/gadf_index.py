"""GADF observation and HDU index: read (cheaply, while a workflow is parsed) and write."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from astropy.io import fits

from dl3flow.data.index import HDU_TYPES, HduEntry, ObservationEntry
from dl3flow.errors import InputError, choices
from dl3flow.io.fits_files import (
    header_value,
    number_column,
    open_fits,
    raw_column,
    reference_mjd,
    settle,
    text_key,
)

# what a masked text cell may have been written as
_BLANK = ("", "N/A", "--")
HDU_CLASSES = {
    "events": ("events",),
    "gti": ("gti",),
    "aeff": ("aeff_2d",),
    "edisp": ("edisp_2d",),
    "psf": ("psf_table", "psf_3gauss", "psf_king"),
    "bkg": ("bkg_2d", "bkg_3d"),
    "rad_max": ("rad_max_2d",),
    "pointing": ("pointing",),
}


def read_index(root: Path) -> list[ObservationEntry]:
    """Read ``obs-index.fits[.gz]`` and ``hdu-index.fits[.gz]`` of a data folder; event files are not opened.

    Names such as ``hdu-index-table-GP-Crab.fits.gz`` are found too. Files lie below the folder; if that is called
    ``index`` or lies in one so called, they may lie beside it, as ``../../data`` of CTA's first data challenge.

    Returns
    -------
    entries : list of ObservationEntry
        In the order of the observation index. An observation that the HDU index lacks has no ``hdus``.

    Raises
    ------
    InputError
        If an index is missing, malformed, names something twice, or points out of the folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such data folder: check `data` in the configuration")
    hdus = _read_hdu_index(_find(root, "hdu-index"), root)
    return _read_obs_index(_find(root, "obs-index"), hdus)


def resolve_below(root: Path, relative: str, where: str) -> Path:
    """File of an index entry, its symbolic links resolved.

    Raises
    ------
    InputError
        If it lies outside the data folder.
    """
    base = root.resolve()
    path = (base / relative).resolve()
    if not path.is_relative_to(_boundary(base)):
        raise InputError(
            f"{where}: the file '{relative}' lies outside the data folder: copy it there and correct the index"
        )
    return path


def _boundary(root: Path) -> Path:
    """Folder that no file of an index may leave: that of the index, or the one that holds the folder ``index``."""
    for folder in (root, root.parent):
        if folder.name == "index":
            return folder.parent
    return root


def _find(root: Path, stem: str) -> Path:
    for suffix in (".fits.gz", ".fits"):
        path = root / f"{stem}{suffix}"
        if path.exists():
            return path
    tables = sorted(root.glob(f"{stem}-table*.fits*"))
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise InputError(
            f"{root}: there are several indexes ({', '.join(path.name for path in tables)}): "
            f"rename the one to read to {stem}.fits.gz"
        )
    raise InputError(
        f"{root}: there is no {stem}.fits or {stem}.fits.gz: name the folder that holds the GADF index files"
    )


def _first_table(hdus: fits.HDUList, path: Path) -> fits.BinTableHDU:
    for hdu in hdus:
        if isinstance(hdu, fits.BinTableHDU):
            settle(hdu, str(path))
            return hdu
    raise InputError(f"{path}: there is no table HDU: write the index again")


def _texts(hdu: fits.BinTableHDU, column: str, where: str) -> list[str]:
    values = raw_column(hdu, column, where)
    if values.dtype.kind not in "US":
        raise InputError(f"{where}: the column '{column}' must hold text, but its type is {values.dtype}")
    return [str(value).strip() for value in values]


def _obs_ids(hdu: fits.BinTableHDU, where: str) -> list[int]:
    values = number_column(hdu, "OBS_ID", where)
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise InputError(
            f"{where}: the column 'OBS_ID' must hold whole numbers, but its type is {values.dtype}"
        )
    return [int(value) for value in values]


def _read_hdu_index(path: Path, root: Path) -> dict[int, dict[str, HduEntry]]:
    with open_fits(path) as hdus:
        table = _first_table(hdus, path)
        where = f"{path}: HDU '{table.name}'"
        obs_ids = _obs_ids(table, where)
        names = ("HDU_TYPE", "HDU_CLASS", "FILE_DIR", "FILE_NAME", "HDU_NAME")
        columns = [_texts(table, name, where) for name in names]
        base_dir = text_key(table.header, "BASE_DIR", "", where)
    found: dict[int, dict[str, HduEntry]] = {}
    base, checked = root.resolve(), set()
    columns[2] = ["" if folder in _BLANK else folder for folder in columns[2]]
    above = _base_folder(base_dir, base, [PurePosixPath(*names) for names in zip(*columns[2:4], strict=True)])
    for obs_id, kind, cls, folder, file, name in zip(obs_ids, *columns, strict=True):
        kind, cls, row = kind.lower(), cls.lower(), f"{where}: OBS_ID {obs_id}"
        if kind not in HDU_CLASSES:
            raise InputError(f"{row}: the HDU_TYPE '{kind}' is unknown {choices(kind, HDU_CLASSES)}")
        if cls not in HDU_CLASSES[kind]:
            raise InputError(
                f"{row}: the HDU_CLASS '{cls}' is unknown for HDU_TYPE '{kind}' {choices(cls, HDU_CLASSES[kind])}"
            )
        if not file:
            raise InputError(f"{row}: FILE_NAME of the HDU_TYPE '{kind}' is empty: write the index again")
        relative = str(PurePosixPath(above, folder, file))
        if relative not in checked:
            resolve_below(base, relative, row)
            checked.add(relative)
        mine = found.setdefault(obs_id, {})
        if kind in mine:
            raise InputError(f"{row}: the HDU_TYPE '{kind}' is listed twice: keep one row")
        mine[kind] = HduEntry(relative, name, cls)
    return found


def _base_folder(base_dir: str, root: Path, files: Sequence[PurePosixPath]) -> str:
    """BASE_DIR relative to the folder of the index.

    Where it is the folder of another machine, as in copied indexes, and the files lie beside the index, it is not used.
    """
    if base_dir in _BLANK:
        return ""
    folder = (root / base_dir).resolve()
    if folder.is_relative_to(root):
        return str(folder.relative_to(root))
    is_copied = files and (root / files[0]).is_file()
    return "" if is_copied else base_dir


def _read_obs_index(path: Path, hdus: dict[int, dict[str, HduEntry]]) -> list[ObservationEntry]:
    with open_fits(path) as opened:
        table = _first_table(opened, path)
        where = f"{path}: HDU '{table.name}'"
        obs_ids = _obs_ids(table, where)
        names = {name.upper() for name in table.columns.names}
        ra, dec, tstart, tstop = (
            _floats(table, name, where) for name in ("RA_PNT", "DEC_PNT", "TSTART", "TSTOP")
        )
        column = next((name for name in ("TARGET_NAME", "OBJECT") if name in names), None)
        targets = _texts(table, column, where) if column else [""] * len(obs_ids)
        telescopes = _texts(table, "TELESCOP", where) if "TELESCOP" in names else [""] * len(obs_ids)
        livetimes = _livetimes(table, names, where)
        zeniths, azimuths = _horizontal(table, names, where)
        qualities = (
            number_column(table, "QUALITY", where).tolist() if "QUALITY" in names else [None] * len(obs_ids)
        )
        header = table.header
        reference = None
        if "MJDREFI" in header:
            reference = sum(reference_mjd(header, where))
        timesys = text_key(header, "TIMESYS", "tt", where).lower()
        telescope = text_key(header, "TELESCOP", "", where)
        location = _location(header, where)
        columns = _scalars(table, where)
    entries, seen = [], set()
    for n, obs_id in enumerate(obs_ids):
        row = f"{where}: OBS_ID {obs_id}"
        if obs_id in seen:
            raise InputError(f"{row}: is listed twice: keep one row")
        seen.add(obs_id)
        if not (0 <= ra[n] <= 360 and -90 <= dec[n] <= 90):
            raise InputError(
                f"{row}: the pointing ({ra[n]}, {dec[n]}) deg is no direction: correct RA_PNT and DEC_PNT"
            )
        if not (np.isfinite(tstart[n]) and np.isfinite(tstop[n])):
            raise InputError(f"{row}: TSTART ({tstart[n]}) and TSTOP ({tstop[n]}) must be finite")
        quality = qualities[n]
        entry = ObservationEntry(
            obs_id, targets[n], ra[n], dec[n], tstart[n], tstop[n], reference, timesys, livetimes[n], quality,
            telescopes[n] or telescope, hdus.get(obs_id, {}), location, zeniths[n], azimuths[n],
            {name: values[n] for name, values in columns.items()},
        )  # fmt: skip
        entries.append(entry)
    return entries


def _scalars(hdu: fits.BinTableHDU, where: str) -> dict[str, list[float | str]]:
    """Every column with one number or text per row."""
    found = {}
    for name in hdu.columns.names:
        try:
            values = raw_column(hdu, name, where)
        except InputError:
            # of no use to this analysis as long as nothing asks for it
            continue
        if values.ndim == 1 and values.dtype.kind in "iufUS":
            found[name] = values.astype(str).tolist() if values.dtype.kind == "S" else values.tolist()
    return found


def _location(header: fits.Header, where: str) -> tuple[float, float, float] | None:
    """Place of the observatory, which some files store as text; None where it is not stated."""
    try:
        lon, lat, altitude = (
            float(header_value(header, key, None, where)) for key in ("GEOLON", "GEOLAT", "ALTITUDE")
        )
        return lon, lat, altitude
    except (TypeError, ValueError):
        return None


def _floats(hdu: fits.BinTableHDU, column: str, where: str) -> list[float]:
    values = number_column(hdu, column, where)
    if values.ndim != 1:
        raise InputError(
            f"{where}: the column '{column}' must hold one number per row, found {values.shape[1:]}"
        )
    return [float(value) for value in values]


def _horizontal(
    hdu: fits.BinTableHDU, names: set[str], where: str
) -> tuple[list[float | None], list[float | None]]:
    """Zenith distance and azimuth of each row, deg; None where a value is absent or no number."""

    def optional(column: str) -> list[float | None]:
        if column not in names:
            return [None] * hdu.header["NAXIS2"]
        return [value if np.isfinite(value) else None for value in _floats(hdu, column, where)]

    zenith = optional("ZEN_PNT")
    if "ZEN_PNT" not in names:
        zenith = [None if altitude is None else 90 - altitude for altitude in optional("ALT_PNT")]
    return zenith, optional("AZ_PNT")


def _livetimes(hdu: fits.BinTableHDU, names: set[str], where: str) -> list[float | None]:
    if "LIVETIME" in names:
        values = np.array(_floats(hdu, "LIVETIME", where))
    elif {"ONTIME", "DEADC"} <= names:
        values = np.array(_floats(hdu, "ONTIME", where)) * np.array(_floats(hdu, "DEADC", where))
    else:
        return [None] * hdu.header["NAXIS2"]
    return [float(value) if np.isfinite(value) else None for value in values]


def write_observation_index(path: Path, entries: Sequence[ObservationEntry]) -> None:
    """Write a GADF 0.3 observation index; the entries share one time reference.

    Raises
    ------
    InputError
        If the entries have different time references, which one index cannot hold.
    """
    from dl3flow.io.gadf_write import GADF_KEYS, save_tables, time_keys

    references = {(entry.reference, entry.timesys) for entry in entries}
    if len(references) > 1 or any(entry.reference is None for entry in entries):
        raise InputError(
            f"{path}: one observation index needs one time reference, found {sorted(map(str, references))}"
        )
    reference, timesys = references.pop() if references else (0.0, "tt")
    width = max([1, *(len(entry.target) for entry in entries)])
    names = max([1, *(len(entry.telescope) for entry in entries)])
    nan = float("nan")
    columns = [
        fits.Column("OBS_ID", "K", array=[e.obs_id for e in entries]),
        fits.Column("OBS_MODE", "8A", array=["POINTING" for _ in entries]),
        fits.Column("OBJECT", f"{width}A", array=[e.target for e in entries]),
        fits.Column("RA_PNT", "D", unit="deg", array=[e.ra for e in entries]),
        fits.Column("DEC_PNT", "D", unit="deg", array=[e.dec for e in entries]),
        fits.Column("TSTART", "D", unit="s", array=[e.tstart for e in entries]),
        fits.Column("TSTOP", "D", unit="s", array=[e.tstop for e in entries]),
        fits.Column(
            "LIVETIME", "D", unit="s", array=[nan if e.livetime is None else e.livetime for e in entries]
        ),
        fits.Column("TELESCOP", f"{names}A", array=[e.telescope for e in entries]),
    ]
    if all(entry.quality is not None for entry in entries):
        columns.append(fits.Column("QUALITY", "K", array=[e.quality for e in entries]))
    for name, values in (
        ("ZEN_PNT", [e.zenith for e in entries]),
        ("AZ_PNT", [e.azimuth for e in entries]),
    ):
        if any(value is not None for value in values):
            known = [nan if value is None else value for value in values]
            columns.append(fits.Column(name, "D", unit="deg", array=known))
    header = {
        **GADF_KEYS,
        "HDUCLAS1": "INDEX",
        "HDUCLAS2": "OBS",
        **time_keys(float(reference or 0.0), timesys),
    }
    locations = {entry.location for entry in entries}
    if len(locations) == 1 and (location := locations.pop()) is not None:
        header |= dict(zip(("GEOLON", "GEOLAT", "ALTITUDE"), location, strict=True))
    save_tables(path, [("OBS_INDEX", columns, header)])


def write_hdu_index(path: Path, entries: Sequence[ObservationEntry]) -> None:
    """Write a GADF 0.3 HDU index with one row per HDU of each entry."""
    from dl3flow.io.gadf_write import GADF_KEYS, save_tables

    rows: list[tuple[int, tuple[str, ...]]] = []
    for entry in entries:
        for kind in HDU_TYPES:
            if kind in entry.hdus:
                hdu = entry.hdus[kind]
                at = PurePosixPath(hdu.path)
                folder = "" if str(at.parent) == "." else str(at.parent)
                rows.append((entry.obs_id, (kind, hdu.kind, folder, at.name, hdu.hdu)))
    columns = [fits.Column("OBS_ID", "K", array=[obs_id for obs_id, _ in rows])]
    for n, name in enumerate(("HDU_TYPE", "HDU_CLASS", "FILE_DIR", "FILE_NAME", "HDU_NAME")):
        values = [texts[n] for _, texts in rows]
        columns.append(fits.Column(name, f"{max([1, *map(len, values)])}A", array=values))
    save_tables(path, [("HDU_INDEX", columns, {**GADF_KEYS, "HDUCLAS1": "INDEX", "HDUCLAS2": "HDU"})])
