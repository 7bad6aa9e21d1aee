"""Maps as FITS: the field's MapDataset files, and single sky maps (GADF sky-map format).

Each map is an image HDU with the pixels as WCS keywords, and a table ``<NAME>_BANDS`` with the bins of its further axes:
``AXCOLSn`` names the columns of axis n, the first axis varying fastest, and ``INTERPn`` its scale. Maps are written as
float32, counts exactly up to 2^24. No clock time is written, so equal datasets give equal bytes. What the field's
format has no place for (all of ``meta``, the provenance) stands in a table PROVENANCE, which other readers ignore.
"""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS, FITSFixedWarning, WcsError

from dl3flow.data.dataset import Dataset, ExpectedCounts
from dl3flow.data.events import Gti
from dl3flow.data.maps import EdispMap, Map, PsfMap
from dl3flow.data.products import SkyMap
from dl3flow.errors import InputError, choices
from dl3flow.geometry.axis import Axis, Scale
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.io.files import write_product
from dl3flow.io.fits_files import number_column, number_key, open_fits, verify_sums
from dl3flow.io.provenance import Provenance, canonical_json

_PROVENANCE = "PROVENANCE"
_CREATOR = "dl3flow"
_COLUMN_PREFIX = {"energy": "E"}
_AXIS_NAMES = {"e": "energy", "energy": "energy", "theta": "rad"}
_EDGE_TOLERANCE = 1e-6
_SAME_PLACE = 1e-7  # deg, between a file's own WCS and what is kept of it


def write_map_dataset(path: Path, dataset: Dataset, provenance: Provenance) -> None:
    """Write a dataset in the field's MapDataset layout.

    Parameters
    ----------
    path : Path
        Ending in ``.fits``.
    dataset : Dataset
    provenance : Provenance
    """
    hdus = [_primary(NAME=dataset.name)]
    livetime = dataset.meta.get("livetime")
    of_exposure = {} if livetime is None else {"livetime": f"{livetime!r} s"}
    hdus += _map_hdus("COUNTS", dataset.counts)
    hdus += _map_hdus("EXPOSURE", dataset.exposure, of_exposure)
    hdus += _map_hdus("BACKGROUND", dataset.background.counts)
    for name, response in (("EDISP", dataset.edisp), ("PSF", dataset.psf)):
        if response is not None:
            values = response.edisp if isinstance(response, EdispMap) else response.psf
            hdus += _map_hdus(name, values)
            hdus += _map_hdus(f"{name}_EXPOSURE", _with_squashed(response.exposure, values.axes[1]))
    for name, mask in (("MASK_SAFE", dataset.mask_safe), ("MASK_FIT", dataset.mask_fit)):
        if mask is not None:
            hdus += _map_hdus(name, Map(dataset.geom, (dataset.energy,), mask.astype(np.uint8)))
    hdus += [_gti_hdu(dataset.gti), _meta_hdu(dataset.meta), _provenance_hdu(dataset.meta, provenance)]
    _write(path, hdus)


def read_map_dataset(path: Path, name: str | None = None) -> Dataset:
    """Read a dataset in the field's MapDataset layout, ours or another's.

    A missing MASK_SAFE is True everywhere; EDISP and PSF may be missing.

    Parameters
    ----------
    path : Path
    name : str, optional
        Name of the dataset; default what the file says, else the file's stem.

    Raises
    ------
    InputError
        If the file is damaged, or an HDU is missing or of wrong form.
    """
    with open_fits(path) as hdus:
        _check_complete(hdus, path)
        names = {hdu.name.upper() for hdu in hdus}
        if "COUNTS" in names and "BACKGROUND" not in names:
            reason = "it is a dataset with measured off counts" if "COUNTS_OFF" in names else "a fit needs it"
            raise InputError(
                f"{path}: there is no HDU BACKGROUND ({reason}): give a file with a background model"
            )
        counts = _read_map(hdus, "COUNTS", path, ("energy",))
        background = _read_map(hdus, "BACKGROUND", path, ("energy",))
        exposure = _read_map(hdus, "EXPOSURE", path, ("energy_true",))
        for label, other in (("BACKGROUND", background), ("EXPOSURE", exposure)):
            if other.geom != counts.geom:
                raise InputError(
                    f"{path}: HDU {label} is not on the pixels of COUNTS: make the dataset again"
                )
        if not background.axes[0].is_close(counts.axes[0]):
            raise InputError(
                f"{path}: HDU BACKGROUND is not on the energies of COUNTS: make the dataset again"
            )
        masks = [
            _read_mask(hdus, label, path, counts) if label in names else None
            for label in ("MASK_SAFE", "MASK_FIT")
        ]
        psf = _read_response(hdus, "PSF", path, ("rad",)) if "PSF" in names else None
        edisp = _read_response(hdus, "EDISP", path, ("energy", "migra")) if "EDISP" in names else None
        if edisp is not None and not edisp[0].axes[0].is_close(exposure.axes[0]):
            raise InputError(
                f"{path}: HDU EDISP is not on the true energies of EXPOSURE: make the dataset again"
            )
        gti = (
            _read_gti(hdus, path)
            if "GTI" in names
            else Gti([] * u.s, [] * u.s, Time(51544.0, format="mjd", scale="tt"))
        )
        return Dataset(
            name=name or str(hdus[0].header.get("NAME", "")).strip() or Path(path).stem,
            counts=counts,
            background=ExpectedCounts(background),
            exposure=exposure,
            psf=None if psf is None else PsfMap(*psf),
            edisp=None if edisp is None else EdispMap(*edisp),
            mask_safe=np.ones(counts.data.shape, dtype=bool) if masks[0] is None else masks[0],
            mask_fit=masks[1],
            gti=gti,
            meta=_read_meta(hdus, path, gti),
        )


def write_sky_map(path: Path, sky_map: SkyMap, provenance: Provenance) -> None:
    """Write several maps into one file, each an image HDU of its name in capitals.

    Maps with the same axes share one table BANDS, as the field's readers of whole files expect; others have their own.
    """
    hdus = [_primary()]
    maps = list(sky_map.maps.values())
    is_shared = bool(maps and maps[0].axes) and all(_have_same_axes(maps[0], other) for other in maps)
    for name, values in sky_map.maps.items():
        hdus += _map_hdus(name.upper(), values, bands="BANDS" if is_shared else "")
    if is_shared:
        hdus.append(_bands_hdu("BANDS", maps[0].axes[::-1]))
    _write(path, [*hdus, _provenance_hdu(sky_map.meta, provenance)])


def read_sky_map(path: Path) -> SkyMap:
    """Read all maps of a file, by the names of their HDUs in lower case.

    Raises
    ------
    InputError
        If the file is damaged or holds no map.
    """
    with open_fits(path) as hdus:
        _check_complete(hdus, path)
        names = [hdu.name or "PRIMARY" for hdu in hdus if hdu.is_image and getattr(hdu, "shape", ())]
        if not names:
            raise InputError(f"{path}: holds no image HDU, so no sky map: name another file")
        maps = {name.lower(): _read_map(hdus, name, path, None) for name in names}
        return SkyMap(maps, _own_meta(hdus, path) or {})


def read_mask(paths: Sequence[Path]) -> Map | None:
    """First map of the only file; None without a file."""
    return next(iter(read_sky_map(paths[0]).maps.values())) if paths else None


def read_provenance(path: Path) -> Mapping[str, Any]:
    """Provenance of a file that dl3flow wrote."""
    with open_fits(path) as hdus:
        text = _own_text(hdus, path, "PROVENANCE")
        if text is None:
            raise InputError(f"{path}: has no HDU {_PROVENANCE}, so dl3flow did not write it")
        found: dict[str, Any] = json.loads(text)
        return found


def _write(path: Path, hdus: list[Any]) -> None:
    for hdu in hdus:
        # gammapy copies the header of this table, sums included, into files where they are wrong
        if hdu.name != "META_TABLE":
            hdu.add_checksum(when="of this HDU")  # astropy's default comment is the time

    def write(temporary: Path) -> None:
        fits.HDUList(hdus).writeto(temporary)

    write_product(path, write)


def _primary(**keys: str) -> fits.PrimaryHDU:
    primary = fits.PrimaryHDU()
    primary.header["EXTEND"] = True
    for key, value in keys.items():
        primary.header[key] = value
    primary.header["CREATOR"] = _CREATOR
    primary.header["LASTHDU"] = (_PROVENANCE, "a file that ends before it is cut short")
    return primary


def _wcs_header(geom: SkyGeometry) -> fits.Header:
    header = fits.Header()
    wcs = geom.wcs.wcs
    header["WCSAXES"] = 2
    for n in (0, 1):
        header[f"CTYPE{n + 1}"] = wcs.ctype[n]
        header[f"CUNIT{n + 1}"] = "deg"
        header[f"CRPIX{n + 1}"] = float(wcs.crpix[n])
        header[f"CDELT{n + 1}"] = float(wcs.cdelt[n])
        header[f"CRVAL{n + 1}"] = float(wcs.crval[n])
    header["LONPOLE"], header["LATPOLE"] = float(wcs.lonpole), float(wcs.latpole)
    if geom.frame == "icrs":
        header["RADESYS"] = "ICRS"
    return header


def _columns(axis: Axis) -> tuple[str, str, str]:
    prefix = _COLUMN_PREFIX.get(axis.name, axis.name.upper())
    return axis.name.upper(), f"{prefix}_MIN", f"{prefix}_MAX"


def _axis_keys(axes: Iterable[Axis]) -> fits.Header:
    header = fits.Header()
    for n, axis in enumerate(axes, start=1):
        center, low, high = _columns(axis)
        header[f"AXCOLS{n}"] = f"{low},{high}" if axis.nodes is None else center
        header[f"INTERP{n}"] = axis.scale
    return header


def _map_hdus(name: str, values: Map, meta: Mapping[str, Any] | None = None, bands: str = "") -> list[Any]:
    """Image of one map, and the table of its bands unless it shares the table ``bands`` or has no axes but the sky."""
    axes = values.axes[::-1]
    header = _wcs_header(values.geom)
    header.update(_axis_keys(axes))
    header["WCSSHAPE"] = "({})".format(",".join(str(n) for n in values.data.shape[::-1]))
    if axes:
        header["BANDSHDU"] = bands or f"{name}_BANDS"
    header["META"] = canonical_json(dict(meta or {}))
    header["BUNIT"] = values.unit.to_string("fits")
    kind = np.uint8 if values.data.dtype == np.uint8 else np.float32
    image = fits.ImageHDU(np.asarray(values.data, dtype=kind), header, name=name)
    return [image, _bands_hdu(f"{name}_BANDS", axes)] if axes and not bands else [image]


def _have_same_axes(one: Map, other: Map) -> bool:
    return len(one.axes) == len(other.axes) and all(
        a.name == b.name
        and a.scale == b.scale
        and a.unit == b.unit
        and np.array_equal(a.edges.value, b.edges.value)
        for a, b in zip(one.axes, other.axes, strict=True)
    )


def _bands_hdu(name: str, axes: tuple[Axis, ...]) -> fits.BinTableHDU:
    numbers = np.indices([axis.n_bins for axis in axes[::-1]]).reshape(len(axes), -1)[::-1]
    columns = [fits.Column("CHANNEL", "K", array=np.arange(numbers.shape[1]))]
    for axis, index in zip(axes, numbers, strict=True):
        values = (axis.centers.value, axis.edges.value[:-1], axis.edges.value[1:])
        unit = axis.unit.to_string("fits") or None
        columns += [
            fits.Column(c, "D", unit, array=v[index]) for c, v in zip(_columns(axis), values, strict=True)
        ]
    table = fits.BinTableHDU.from_columns(columns, name=name)
    table.header.update(_axis_keys(axes))
    return table


def _with_squashed(exposure: Map, axis: Axis) -> Map:
    """Exposure with a second axis of one bin, as the field stores the weights of a response."""
    one = Axis(axis.name, u.Quantity([axis.edges[0], axis.edges[-1]]), axis.scale)
    return Map(exposure.geom, (*exposure.axes, one), exposure.data[:, np.newaxis], exposure.unit)


def _gti_hdu(gti: Gti) -> fits.BinTableHDU:
    columns = [
        fits.Column(n, "D", "s", array=t.to_value(u.s)) for n, t in (("START", gti.start), ("STOP", gti.stop))
    ]
    table = fits.BinTableHDU.from_columns(columns, name="GTI")
    day = int(np.floor(gti.reference.mjd))
    table.header["MJDREFI"] = day
    # jd2 holds the fraction from noon; taken apart in this order no digit is lost that the Time had
    table.header["MJDREFF"] = float((gti.reference.jd1 - 2400000.5 - day) + gti.reference.jd2)
    table.header["TIMESYS"] = gti.reference.scale.upper()
    table.header["TIMEUNIT"] = "s"
    return table


def _meta_hdu(meta: Mapping[str, Any]) -> fits.BinTableHDU:
    columns = []
    if telescope := str(meta.get("telescope") or ""):
        columns.append(fits.Column("TELESCOP", f"{len(telescope)}A", array=[telescope]))
    if ids := [int(number) for number in meta.get("obs_ids", ())]:
        columns.append(fits.Column("OBS_ID", f"{len(ids)}K", array=np.array([ids])))
    if not columns:
        columns.append(fits.Column("TELESCOP", "7A", array=["unknown"]))
    return fits.BinTableHDU.from_columns(columns, name="META_TABLE")


def _provenance_hdu(meta: Mapping[str, Any], provenance: Provenance) -> fits.BinTableHDU:
    texts = {"META": canonical_json(dict(meta)), "PROVENANCE": provenance.to_json()}
    return fits.BinTableHDU.from_columns(
        [fits.Column(name, f"{len(text)}A", array=[text]) for name, text in texts.items()], name=_PROVENANCE
    )


def _check_complete(hdus: fits.HDUList, path: Path) -> None:
    # FITS has no end mark, but in our own files the provenance comes last.
    if hdus[0].header.get("LASTHDU") not in (None, hdus[-1].name):
        raise InputError(
            f"{path}: ends after HDU '{hdus[-1].name or 'PRIMARY'}': it is cut short, make it again"
        )


def _find(hdus: fits.HDUList, name: str, path: Path) -> Any:
    for hdu in hdus:
        if (hdu.name or "PRIMARY").upper() == name:
            verify_sums(hdu, str(path))
            return hdu
    raise InputError(f"{path}: there is no HDU {name}: {choices(name, (h.name for h in hdus[1:]))}")


def _read_map(hdus: fits.HDUList, name: str, path: Path, expected: tuple[str, ...] | None) -> Map:
    where = f"{path}: HDU {name}"
    hdu = _find(hdus, name, path)
    if not hdu.is_image or len(getattr(hdu, "shape", ())) < 2:
        raise InputError(
            f"{where}: is not an image of the sky (a spectrum's file cannot be read as a map): name a map's file"
        )
    header, shape = hdu.header, tuple(int(n) for n in hdu.shape)
    bands = str(header.get("BANDSHDU", "")).strip().upper() or (f"{name}_BANDS" if len(shape) > 2 else "")
    axes = _read_axes(_find(hdus, bands, path), shape, f"{path}: HDU {bands}") if bands else ()
    if expected is not None and tuple(axis.name for axis in axes) != expected:
        raise InputError(
            f"{where}: has the axes {[a.name for a in axes]}, expected {list(expected)}: make the file again"
        )
    geom = _read_geometry(header, shape[-2:], where)
    try:
        unit = u.Unit(str(header.get("BUNIT", "")).strip())
    except ValueError:
        raise InputError(
            f"{where}: BUNIT '{header['BUNIT']}' is not a unit: correct it, such as 'm2 s'"
        ) from None
    try:
        data = np.array(hdu.data, dtype=float)
    except (OSError, ValueError, TypeError, KeyError, IndexError, MemoryError) as error:
        raise InputError(f"{where}: the image cannot be read ({error}): get the file again") from None
    if data.shape != (*(axis.n_bins for axis in axes), *geom.shape):
        raise InputError(
            f"{where}: the image has the shape {data.shape}, its axes {[a.n_bins for a in axes]} bins: make it again"
        )
    return Map(geom, axes, data, unit)


def _read_geometry(header: fits.Header, shape: tuple[int, ...], where: str) -> SkyGeometry:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            wcs = WCS(header, naxis=2).celestial
        except (WcsError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{where}: its WCS keywords cannot be understood ({str(error).splitlines()[0]})"
            ) from None
    if not wcs.has_celestial:
        raise InputError(f"{where}: has no celestial WCS (a region's spectrum?): name a map's file")
    geom = SkyGeometry.from_wcs(wcs, (shape[0], shape[1]), where)
    # Whatever else the header says (rotation, a moved pole) must not matter: compare places where pixels lie.
    y, x = np.array([0.0, 0.3, 0.7, 1.0]) * (shape[0] - 1), np.array([0.0, 0.7, 0.2, 1.0]) * (shape[1] - 1)
    theirs, ours = wcs.all_pix2world(x, y, 0), geom.wcs.all_pix2world(x, y, 0)
    turn = (np.asarray(theirs[0]) - ours[0] + 180) % 360 - 180
    if not np.allclose(np.nan_to_num([turn, theirs[1] - ours[1]]), 0, atol=_SAME_PLACE):
        raise InputError(
            f"{where}: its WCS is rotated or has a moved pole, which is not supported: project it anew"
        )
    return geom


def _read_axes(table: Any, shape: tuple[int, ...], where: str) -> tuple[Axis, ...]:
    if not isinstance(table, fits.BinTableHDU):
        raise InputError(f"{where}: is not a table of bands: make the file again")
    sizes = shape[:-2][::-1]
    n_rows = int(number_key(table.header, "NAXIS2", where))
    if n_rows != int(np.prod(sizes)):
        raise InputError(
            f"{where}: has {n_rows} rows for {int(np.prod(sizes))} bands of the image: make it again"
        )
    axes, stride = [], 1
    for n, size in enumerate(sizes, start=1):
        columns = [c.strip() for c in str(table.header.get(f"AXCOLS{n}", "")).split(",") if c.strip()]
        if len(columns) not in (1, 2):
            raise InputError(
                f"{where}: AXCOLS{n} is '{','.join(columns)}', expected one column of nodes or two of edges"
            )
        axes.append(
            _read_axis(
                table, columns, np.arange(size) * stride, str(table.header.get(f"INTERP{n}", "")), where
            )
        )
        stride *= size
    return tuple(axes[::-1])


def _read_axis(
    table: fits.BinTableHDU, columns: list[str], rows: np.ndarray, interp: str, where: str
) -> Axis:
    label = columns[0].removesuffix("_MIN").removesuffix("_LO").lower()
    name = _AXIS_NAMES.get(label, label)
    scale: Scale = (
        "log" if (interp.strip() or ("log" if name.startswith("energy") else "lin")) == "log" else "lin"
    )
    values = [number_column(table, column, where)[rows].astype(float) for column in columns]
    try:
        units = {u.Unit(table.columns[column].unit or "") for column in columns}
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{where}: the unit of column {columns[0]} is not known ({error}): correct TUNIT"
        ) from None
    unit = units.pop()
    if units:
        raise InputError(f"{where}: the columns {' and '.join(columns)} have different units: correct TUNIT")
    if name.startswith("energy") and not unit.is_equivalent(u.TeV):
        raise InputError(
            f"{where}: the column {columns[0]} has the unit '{unit}', not an energy: correct TUNIT"
        )
    if not all(np.isfinite(v).all() and (np.diff(v) > 0).all() for v in values):
        raise InputError(f"{where}: the column {columns[0]} does not increase: make the file again")
    if scale == "log" and values[0][0] <= 0:
        raise InputError(
            f"{where}: the column {columns[0]} begins at {values[0][0]} on a logarithmic axis: set INTERP to lin"
        )
    if len(values) == 1:
        return Axis.from_nodes(name, values[0] * unit, scale)
    low, high = values
    if not np.allclose(low[1:], high[:-1], rtol=_EDGE_TOLERANCE, atol=0) or not (high > low).all():
        raise InputError(
            f"{where}: the bins {columns[0]} to {columns[1]} have gaps or overlap: make the file again"
        )
    return Axis(name, np.append(low, high[-1]) * unit, scale)


def _read_response(hdus: fits.HDUList, name: str, path: Path, second: tuple[str, ...]) -> tuple[Map, Map]:
    response = _read_map(hdus, name, path, None)
    axes = [axis.name for axis in response.axes]
    if len(axes) != 2 or axes[0] != "energy_true" or axes[1] not in second:
        raise InputError(
            f"{path}: HDU {name}: has the axes {axes}, expected energy_true and {' or '.join(second)}"
        )
    weights = _read_map(hdus, f"{name}_EXPOSURE", path, None)
    if weights.geom != response.geom or len(weights.axes) != 2 or weights.data.shape[1] != 1:
        raise InputError(f"{path}: HDU {name}_EXPOSURE does not fit {name}: make the dataset again")
    if not weights.axes[0].is_close(response.axes[0]):
        raise InputError(
            f"{path}: HDU {name}_EXPOSURE is not on the true energies of {name}: make the dataset again"
        )
    return response, Map(weights.geom, weights.axes[:1], weights.data[:, 0], weights.unit)


def _read_mask(hdus: fits.HDUList, name: str, path: Path, counts: Map) -> np.ndarray:
    found = _read_map(hdus, name, path, ("energy",))
    if found.geom != counts.geom or found.data.shape != counts.data.shape:
        raise InputError(
            f"{path}: HDU {name} is not on the pixels and energies of COUNTS: make the dataset again"
        )
    return np.asarray(found.data != 0)


def _read_gti(hdus: fits.HDUList, path: Path) -> Gti:
    where = f"{path}: HDU GTI"
    table = _find(hdus, "GTI", path)
    if not isinstance(table, fits.BinTableHDU):
        raise InputError(f"{where}: is not a table of good times: make the dataset again")
    start, stop = (number_column(table, column, where).astype(float) for column in ("START", "STOP"))
    if not (np.isfinite(start).all() and np.isfinite(stop).all() and (stop >= start).all()):
        raise InputError(
            f"{where}: has times that are not finite, or a STOP before its START: make the dataset again"
        )
    scale = str(table.header.get("TIMESYS", "tt")).strip().lower()
    if scale not in Time.SCALES:
        raise InputError(f"{where}: TIMESYS '{scale}' is not known: {choices(scale, Time.SCALES)}")
    days = [number_key(table.header, key, where) for key in ("MJDREFI", "MJDREFF")]
    return Gti(start * u.s, stop * u.s, Time(*days, format="mjd", scale=scale))


def _own_text(hdus: fits.HDUList, path: Path, column: str) -> str | None:
    if _PROVENANCE not in (hdu.name for hdu in hdus):
        return None
    table = _find(hdus, _PROVENANCE, path)
    if not isinstance(table, fits.BinTableHDU) or column not in table.columns.names or len(table.data) != 1:
        return None
    return str(table.data[column][0])


def _own_meta(hdus: fits.HDUList, path: Path) -> dict[str, Any] | None:
    text = _own_text(hdus, path, "META")
    try:
        found = None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: HDU {_PROVENANCE}: META is not JSON ({error}): make the file again"
        ) from None
    return found if isinstance(found, dict) else None


def _read_meta(hdus: fits.HDUList, path: Path, gti: Gti) -> dict[str, Any]:
    """What dl3flow wrote, or the same facts from where the field keeps them."""
    own = _own_meta(hdus, path)
    if own is not None:
        return own
    meta: dict[str, Any] = {"obs_ids": [], "ontime": float(gti.ontime.value)}
    try:
        livetime = json.loads(str(_find(hdus, "EXPOSURE", path).header.get("META", "{}"))).get("livetime")
        meta["livetime"] = None if livetime is None else float(u.Quantity(livetime).to_value(u.s))
    except (ValueError, AttributeError, TypeError):
        raise InputError(
            f"{path}: HDU EXPOSURE: META must be JSON with a `livetime` such as '1682 s': correct it"
        ) from None
    if "META_TABLE" in (hdu.name for hdu in hdus):
        table = _find(hdus, "META_TABLE", path)
        names = table.columns.names if isinstance(table, fits.BinTableHDU) and len(table.data) else []
        if "OBS_ID" in names:
            meta["obs_ids"] = [
                int(v) for v in np.ravel(table.data["OBS_ID"]) if str(v).strip().lstrip("-").isdigit()
            ]
        if "TELESCOP" in names:
            meta["telescope"] = ", ".join(sorted({str(v).strip() for v in np.ravel(table.data["TELESCOP"])}))
    return meta
