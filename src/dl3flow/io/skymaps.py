"""Sky maps as FITS (GADF sky-map format): several maps in one file, or parts of a dataset.

Each map is an image HDU with the pixels as WCS keywords, and a table ``<NAME>_BANDS`` with the bins of its further axes.
Maps are written as float32, counts exactly up to 2^24. No clock time is written, so equal maps give equal bytes.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning, WcsError

from dl3flow.data.maps import Map
from dl3flow.data.products import SkyMap
from dl3flow.errors import InputError
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.io.fits_axes import axis_keys, bands_hdu, have_same_axes, read_axes
from dl3flow.io.fits_files import open_fits
from dl3flow.io.fits_products import (
    check_complete,
    find_hdu,
    find_named_table,
    own_meta,
    primary_hdu,
    provenance_hdu,
    write_hdus,
)
from dl3flow.io.provenance import Provenance, canonical_json

_SAME_PLACE = 1e-7  # deg, between a file's own WCS and what is kept of it


def write_sky_map(path: Path, sky_map: SkyMap, provenance: Provenance) -> None:
    """Write several maps into one file, each an image HDU of its name in capitals.

    Maps with the same axes share one table BANDS, as the field's readers of whole files expect; others have their own.
    """
    hdus = [primary_hdu()]
    maps = list(sky_map.maps.values())
    is_shared = bool(maps and maps[0].axes) and all(have_same_axes(maps[0], other) for other in maps)
    for name, values in sky_map.maps.items():
        hdus += map_hdus(name.upper(), values, bands="BANDS" if is_shared else "")
    if is_shared:
        hdus.append(bands_hdu("BANDS", maps[0].axes[::-1]))
    write_hdus(path, [*hdus, provenance_hdu(sky_map.meta, provenance)])


def read_sky_map(path: Path) -> SkyMap:
    """Read all maps of a file, by the names of their HDUs in lower case.

    Raises
    ------
    InputError
        If the file is damaged or holds no map.
    """
    with open_fits(path) as hdus:
        check_complete(hdus, path)
        names = [hdu.name or "PRIMARY" for hdu in hdus if hdu.is_image and getattr(hdu, "shape", ())]
        if not names:
            raise InputError(f"{path}: holds no image HDU, so no sky map{_why(hdus)}: name another file")
        maps = {name.lower(): read_map(hdus, name, path, None) for name in names}
        return SkyMap(maps, own_meta(hdus, path) or {})


def _why(hdus: fits.HDUList) -> str:
    for hdu in hdus:
        columns = {c.upper() for c in hdu.columns.names} if isinstance(hdu, fits.BinTableHDU) else set()
        if columns >= {"PIX", "VALUE"}:
            return f" (HDU {hdu.name} is one in SPARSE form, which is not read; write it in full)"
        if str(hdu.header.get("PIXTYPE", "")).upper() == "HEALPIX":
            return f" (HDU {hdu.name} has HEALPix pixels, which are not read; project it to a WCS)"
    return ""


def read_mask(paths: Sequence[Path]) -> Map | None:
    """First map of the only file; None without a file."""
    return next(iter(read_sky_map(paths[0]).maps.values())) if paths else None


def wcs_header(geom: SkyGeometry) -> fits.Header:
    """WCS keywords of the pixels."""
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


def map_hdus(name: str, values: Map, meta: Mapping[str, Any] | None = None, bands: str = "") -> list[Any]:
    """Image of one map, and the table of its bands unless it shares the table ``bands`` or has no axes but the sky."""
    axes = values.axes[::-1]
    header = wcs_header(values.sky)
    header.update(axis_keys(axes))
    header["WCSSHAPE"] = "({})".format(",".join(str(n) for n in values.data.shape[::-1]))
    if axes:
        header["BANDSHDU"] = bands or f"{name}_BANDS"
    header["META"] = canonical_json(dict(meta or {}))
    header["BUNIT"] = values.unit.to_string("fits")
    kind = np.uint8 if values.data.dtype == np.uint8 else np.float32
    image = fits.ImageHDU(np.asarray(values.data, dtype=kind), header, name=name)
    return [image, bands_hdu(f"{name}_BANDS", axes)] if axes and not bands else [image]


def read_map(hdus: fits.HDUList, name: str, path: Path, expected: tuple[str, ...] | None) -> Map:
    """Map of one image HDU.

    Parameters
    ----------
    hdus : HDUList
    name : str
    path : Path
        For messages.
    expected : tuple of str, or None
        Names of the axes that it must have; None is any.

    Raises
    ------
    InputError
        If the HDU is missing, damaged, no map, or on other axes or pixels that are not supported.
    """
    where = f"{path}: HDU {name}"
    hdu = find_hdu(hdus, name, path)
    if not hdu.is_image or len(getattr(hdu, "shape", ())) < 2:
        raise InputError(f"{where}: is not an image of the sky{_why(hdus)}: name a map's file")
    header, shape = hdu.header, tuple(int(n) for n in hdu.shape)
    bands = str(header.get("BANDSHDU", "")).strip().upper() or (f"{name}_BANDS" if len(shape) > 2 else "")
    axes = read_axes(find_named_table(hdus, bands, path), shape, f"{path}: HDU {bands}") if bands else ()
    if expected is not None and tuple(axis.name for axis in axes) != expected:
        raise InputError(
            f"{where}: has the axes {[a.name for a in axes]}, expected {list(expected)}: make the file again"
        )
    geom, is_mirrored = _read_geometry(header, shape[-2:], where)
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
    return Map(geom, axes, data[..., ::-1] if is_mirrored else data, unit)


def _read_geometry(header: fits.Header, shape: tuple[int, ...], where: str) -> tuple[SkyGeometry, bool]:
    """Pixels, and whether the columns are to be turned round: longitude grows to the left here, to the right in some files."""
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
    is_mirrored = bool(wcs.wcs.cdelt[0] > 0)
    if is_mirrored:
        wcs.wcs.cdelt = [-wcs.wcs.cdelt[0], wcs.wcs.cdelt[1]]
        wcs.wcs.crpix = [shape[1] + 1 - wcs.wcs.crpix[0], wcs.wcs.crpix[1]]
    geom = SkyGeometry.from_wcs(wcs, (shape[0], shape[1]), where)
    # Whatever else the header says (rotation, a moved pole) must not matter: compare places where pixels lie.
    y, x = np.array([0.0, 0.3, 0.7, 1.0]) * (shape[0] - 1), np.array([0.0, 0.7, 0.2, 1.0]) * (shape[1] - 1)
    theirs, ours = wcs.all_pix2world(x, y, 0), geom.wcs.all_pix2world(x, y, 0)
    turn = (np.asarray(theirs[0]) - ours[0] + 180) % 360 - 180
    if not np.allclose(np.nan_to_num([turn, theirs[1] - ours[1]]), 0, atol=_SAME_PLACE):
        raise InputError(
            f"{where}: its WCS is rotated or has a moved pole, which is not supported: project it anew"
        )
    return geom, is_mirrored
