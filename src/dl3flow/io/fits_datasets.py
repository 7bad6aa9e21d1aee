"""Datasets as FITS in the field's layouts: MapDataset, MapDatasetOnOff, SpectrumDataset and SpectrumDatasetOnOff.

| HDUs, each with its bands | what |
|---|---|
| COUNTS, EXPOSURE, MASK_SAFE, MASK_FIT | of all |
| BACKGROUND | expected counts (MapDataset, SpectrumDataset) |
| COUNTS_OFF, ACCEPTANCE, ACCEPTANCE_OFF | measured background (the two OnOff) |
| EDISP, PSF and their ``_EXPOSURE`` | where there are such responses |
| GTI, META_TABLE, PROVENANCE | of all |

Maps are images (`dl3flow.io.skymaps`, float32), spectra tables (`dl3flow.io.region_hdus`, float64). What the field's format
has no place for (all of ``meta``, the provenance, a region's exact text) stands in the table PROVENANCE, which other
readers ignore. The reasons of the safe mask are not kept: only `dl3flow.io.hdf5` has a place for them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.time import Time

from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.events import Gti
from dl3flow.data.maps import EdispMap, Map, PsfMap
from dl3flow.errors import InputError, choices
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.region_shapes import unknown_region
from dl3flow.io.fits_files import number_column, number_key, open_fits
from dl3flow.io.fits_products import (
    check_complete,
    find_hdu,
    find_named_table,
    own_meta,
    own_text,
    primary_hdu,
    provenance_hdu,
    write_hdus,
)
from dl3flow.io.provenance import Provenance
from dl3flow.io.region_hdus import read_region, read_spectrum, spectrum_hdus
from dl3flow.io.skymaps import map_hdus, read_map

_OFF = ("COUNTS_OFF", "ACCEPTANCE", "ACCEPTANCE_OFF")


def write_fits_dataset(path: Path, dataset: Dataset, provenance: Provenance) -> None:
    """Write a dataset in the field's layout for its kind.

    Parameters
    ----------
    path : Path
        Ending in ``.fits``.
    dataset : Dataset
    provenance : Provenance

    Raises
    ------
    InputError
        If it has no background, or the file cannot be written.
    """
    livetime = dataset.meta.get("livetime")
    of_exposure = {} if livetime is None else {"livetime": f"{livetime!r} s"}
    hdus: list[Any] = [primary_hdu(NAME=dataset.name)]
    hdus += _hdus("COUNTS", dataset.counts)
    hdus += _hdus("EXPOSURE", dataset.exposure, of_exposure)
    match dataset.background:
        case ExpectedCounts(counts):
            hdus += _hdus("BACKGROUND", counts)
        case OffCounts(counts, acceptance, acceptance_off):
            found = dataset.meta.get("background")
            off = str(found.get("regions", "")) if isinstance(found, Mapping) else ""
            for name, values, region in zip(
                _OFF, (counts, acceptance, acceptance_off), (off, None, off), strict=True
            ):
                hdus += _hdus(name, values, region=region)
        case None:
            raise InputError(
                f"{path}: the dataset '{dataset.name}' has no background: name one in `background`"
            )
    for name, response in (("EDISP", dataset.edisp), ("PSF", dataset.psf)):
        if response is not None:
            values = response.edisp if isinstance(response, EdispMap) else response.psf
            hdus += _hdus(name, values)
            hdus += _hdus(f"{name}_EXPOSURE", _with_squashed(response.exposure, values.axes[1]))
    for name, mask in (("MASK_SAFE", dataset.mask_safe), ("MASK_FIT", dataset.mask_fit)):
        if mask is not None:
            hdus += _hdus(name, Map(dataset.geom, (dataset.energy,), mask.astype(np.uint8)))
    texts = {"REGION": dataset.geom.text} if isinstance(dataset.geom, RegionGeometry) else {}
    hdus += [gti_hdu(dataset.gti), _meta_hdu(dataset.meta), provenance_hdu(dataset.meta, provenance, **texts)]
    write_hdus(path, hdus)


def read_fits_dataset(path: Path, name: str | None = None) -> Dataset:
    """Read a dataset in one of the field's layouts, ours or another's.

    A missing MASK_SAFE is True everywhere; EDISP, PSF and GTI may be missing.

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
    path = Path(path)
    with open_fits(path) as hdus:
        check_complete(hdus, path)
        names = {hdu.name.upper() for hdu in hdus}
        if "SPECTRUM" in names:
            raise InputError(f"{path}: is an OGIP spectrum (HDU SPECTRUM), not a dataset: give it as `ogip`")
        if "COUNTS" in names and not names & {"BACKGROUND", "COUNTS_OFF"}:
            raise InputError(
                f"{path}: there is no HDU BACKGROUND, nor COUNTS_OFF (a fit needs one of them): give a file with a background"
            )
        read = _Reader(hdus, path)
        counts = read("COUNTS", ("energy",))
        exposure = read("EXPOSURE", ("energy_true",))
        if exposure.geom != counts.geom:
            raise InputError(f"{path}: HDU EXPOSURE is not on the pixels of COUNTS: make the dataset again")
        masks = [
            read.like(counts, label).data != 0 if label in names else None
            for label in ("MASK_SAFE", "MASK_FIT")
        ]
        psf = read.response("PSF", ("rad",)) if "PSF" in names else None
        edisp = read.response("EDISP", ("energy", "migra")) if "EDISP" in names else None
        if edisp is not None and not edisp[0].axes[0].is_close(exposure.axes[0]):
            raise InputError(
                f"{path}: HDU EDISP is not on the true energies of EXPOSURE: make the dataset again"
            )
        gti = read_gti(hdus, path)
        return Dataset(
            name=name or str(hdus[0].header.get("NAME", "")).strip() or path.stem,
            counts=counts,
            background=OffCounts(*(read.like(counts, label) for label in _OFF))
            if "COUNTS_OFF" in names
            else ExpectedCounts(read.like(counts, "BACKGROUND")),
            exposure=exposure,
            psf=None if psf is None else PsfMap(*psf),
            edisp=None if edisp is None else EdispMap(*edisp),
            mask_safe=np.ones(counts.data.shape, dtype=bool) if masks[0] is None else masks[0],
            mask_fit=masks[1],
            gti=gti,
            meta=_read_meta(hdus, path, gti),
        )


def _hdus(
    name: str, values: Map, meta: Mapping[str, Any] | None = None, region: str | None = None
) -> list[Any]:
    if isinstance(values.geom, RegionGeometry):
        return list(spectrum_hdus(name, values, region))
    return map_hdus(name, values, meta)


class _Reader:
    """Reads the maps or spectra of one open file; all spectra of a dataset are of the region of its counts."""

    def __init__(self, hdus: fits.HDUList, path: Path) -> None:
        self.hdus, self.path = hdus, path
        self.region: RegionGeometry | None = None
        if not find_hdu(hdus, "COUNTS", path).is_image:
            text = own_text(hdus, path, "REGION")
            if text is not None:
                self.region = RegionGeometry(text)
            elif "COUNTS_REGION" in (hdu.name.upper() for hdu in hdus):
                self.region = RegionGeometry(read_region(hdus, "COUNTS_REGION", path))
            else:
                self.region = unknown_region()

    def __call__(self, name: str, expected: tuple[str, ...] | None) -> Map:
        if self.region is not None:
            return read_spectrum(self.hdus, name, self.path, self.region, expected)
        return read_map(self.hdus, name, self.path, expected)

    def like(self, counts: Map, name: str) -> Map:
        """Map on the pixels and energies of the counts."""
        found = self(name, ("energy",))
        what = "energies" if found.geom == counts.geom else "pixels and energies"
        if found.geom != counts.geom or not found.axes[0].is_close(counts.axes[0]):
            raise InputError(
                f"{self.path}: HDU {name} is not on the {what} of COUNTS: make the dataset again"
            )
        return found

    def response(self, name: str, second: tuple[str, ...]) -> tuple[Map, Map]:
        """Response and the exposure that weighs it."""
        response, weights = self(name, None), self(f"{name}_EXPOSURE", None)
        axes = [axis.name for axis in response.axes]
        if len(axes) != 2 or axes[0] != "energy_true" or axes[1] not in second:
            raise InputError(
                f"{self.path}: HDU {name}: has the axes {axes}, expected energy_true and {' or '.join(second)}"
            )
        if weights.geom != response.geom or len(weights.axes) != 2 or weights.data.shape[1] != 1:
            raise InputError(f"{self.path}: HDU {name}_EXPOSURE does not fit {name}: make the dataset again")
        if not weights.axes[0].is_close(response.axes[0]):
            raise InputError(
                f"{self.path}: HDU {name}_EXPOSURE is not on the true energies of {name}: make the dataset again"
            )
        return response, Map(weights.geom, weights.axes[:1], weights.data[:, 0], weights.unit)


def gti_hdu(gti: Gti) -> fits.BinTableHDU:
    """Table GTI: seconds after a reference."""
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


def read_gti(hdus: fits.HDUList, path: Path) -> Gti:
    """Good times of the table GTI; none where there is no such table.

    Raises
    ------
    InputError
        If the table is damaged or its times make no sense.
    """
    if "GTI" not in (hdu.name for hdu in hdus):
        return Gti([] * u.s, [] * u.s, Time(51544.0, format="mjd", scale="tt"))
    where = f"{path}: HDU GTI"
    table = find_named_table(hdus, "GTI", path)
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


def _with_squashed(exposure: Map, axis: Axis) -> Map:
    """Exposure with a second axis of one bin, as the field stores the weights of a response."""
    one = Axis(axis.name, u.Quantity([axis.edges[0], axis.edges[-1]]), axis.scale)
    return Map(exposure.geom, (*exposure.axes, one), exposure.data[:, np.newaxis], exposure.unit)


def _meta_hdu(meta: Mapping[str, Any]) -> fits.BinTableHDU:
    columns = []
    if telescope := str(meta.get("telescope") or ""):
        columns.append(fits.Column("TELESCOP", f"{len(telescope)}A", array=[telescope]))
    if ids := [int(number) for number in meta.get("obs_ids", ())]:
        columns.append(fits.Column("OBS_ID", f"{len(ids)}K", array=np.array([ids])))
    if not columns:
        columns.append(fits.Column("TELESCOP", "7A", array=["unknown"]))
    return fits.BinTableHDU.from_columns(columns, name="META_TABLE")


def _read_meta(hdus: fits.HDUList, path: Path, gti: Gti) -> dict[str, Any]:
    """What dl3flow wrote, or the same facts from where the field keeps them."""
    own = own_meta(hdus, path)
    if own is not None:
        return own
    names = {hdu.name.upper() for hdu in hdus}
    meta: dict[str, Any] = {"obs_ids": [], "ontime": float(gti.ontime.value)}
    try:
        livetime = json.loads(str(find_hdu(hdus, "EXPOSURE", path).header.get("META", "{}"))).get("livetime")
        meta["livetime"] = None if livetime is None else float(u.Quantity(livetime).to_value(u.s))
    except (ValueError, AttributeError, TypeError):
        raise InputError(
            f"{path}: HDU EXPOSURE: META must be JSON with a `livetime` such as '1682 s': correct it"
        ) from None
    if "META_TABLE" in names:
        table = find_hdu(hdus, "META_TABLE", path)
        columns = table.columns.names if isinstance(table, fits.BinTableHDU) and len(table.data) else []
        if "OBS_ID" in columns:
            meta["obs_ids"] = [
                int(v) for v in np.ravel(table.data["OBS_ID"]) if str(v).strip().lstrip("-").isdigit()
            ]
        if "TELESCOP" in columns:
            meta["telescope"] = ", ".join(sorted({str(v).strip() for v in np.ravel(table.data["TELESCOP"])}))
    if "COUNTS_OFF_REGION" in names:
        meta["background"] = {"regions": read_region(hdus, "COUNTS_OFF_REGION", path)}
    if "COUNTS_BANDS" in names and not hdus["COUNTS"].is_image and "COUNTS_REGION" not in names:
        meta["warnings"] = [f"{path.name} does not say where on the sky its spectrum was taken"]
    return meta
