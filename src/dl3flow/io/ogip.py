"""Spectra as OGIP files (OGIP/92-007, CAL/GEN/92-002): PHA with the counts, BKG, ARF and RMF, in keV and cm2.

| here | there |
|---|---|
| counts, off counts | COUNTS of the PHA and of its BACKFILE |
| acceptance, acceptance_off | BACKSCAL of the two (times AREASCAL and EXPOSURE of the BKG over those of the PHA) |
| mask_safe | QUALITY, 0 or 5; any other value than 0 is not safe |
| livetime; exposure | EXPOSURE; EXPOSURE times SPECRESP of the ARF |
| dispersion | MATRIX of the RMF |
| energy, energy_true | EBOUNDS; ENERG_LO and ENERG_HI |

The files have no place for a fit mask, a point spread, the reasons of a mask, the exposure that weighs a dispersion in a
stack (it becomes that of the spectrum) or a dispersion in migra (it is written as a matrix). All else comes back: numbers
to the rounding of their units, counts, acceptances and matrix exactly, and ``meta`` and the provenance from a table of
our own in the PHA file, which other readers ignore.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from warnings import warn

import astropy.units as u
import numpy as np
from astropy.io import fits

from dl3flow.data.dataset import Dataset, ExpectedCounts, OffCounts
from dl3flow.data.maps import EdispMap, Map
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import RegionGeometry
from dl3flow.geometry.region_shapes import unknown_region
from dl3flow.io.fits_datasets import gti_hdu, read_gti
from dl3flow.io.fits_files import header_value, number_column, number_key, open_fits, raw_column, text_key
from dl3flow.io.fits_products import (
    check_complete,
    find_named_table,
    own_meta,
    own_text,
    primary_hdu,
    provenance_hdu,
    write_hdus,
)
from dl3flow.io.gadf_index import resolve_below
from dl3flow.io.ogip_matrix import matrix_hdu, read_matrix
from dl3flow.io.provenance import Provenance
from dl3flow.io.region_hdus import read_region, region_hdu
from dl3flow.irf.edisp import kernels_from_density

_EXPOSURE = u.Unit("m2 s")
_BAD = 5  # set bad by the user, in the words of the standard
_KEYWORDS = {"rmf": "RESPFILE", "arf": "ANCRFILE", "bkg": "BACKFILE"}
_ENERGY_TOLERANCE = 1e-5  # of RMF energies, which many files keep as float32


def write_ogip(path: Path, dataset: Dataset, provenance: Provenance) -> Path:
    """Write a spectrum with measured background as PHA, BKG, ARF and RMF.

    Parameters
    ----------
    path : Path
        Of the PHA file, such as ``pha_obs23523.fits``, beside which ``bkg_``, ``arf_`` and ``rmf_obs23523.fits`` are
        written; or a folder, in which the files are named so by observation, or by the dataset if it is of several.
    dataset : Dataset
        On a RegionGeometry, with OffCounts or no background.
    provenance : Provenance

    Returns
    -------
    path : Path
        Of the PHA file.

    Raises
    ------
    InputError
        For a map, for a background known in expectation only, or if a file cannot be written.
    """
    pha = _pha_path(Path(path), dataset)
    if not isinstance(dataset.geom, RegionGeometry):
        raise InputError(
            f"{pha}: the dataset '{dataset.name}' is a map, which OGIP has no form for: write it as a FITS dataset"
        )
    if isinstance(dataset.background, ExpectedCounts):
        raise InputError(
            f"{pha}: the background of dataset '{dataset.name}' is a model, and a BKG file must hold counts: "
            "take a method such as `reflected`, or write it as a FITS dataset"
        )
    for part, what in ((dataset.psf, "point spread"), (dataset.mask_fit, "fit mask")):
        if part is not None:
            warn(f"{pha.name}: OGIP files do not keep the {what} of dataset '{dataset.name}'", stacklevel=2)
    livetime = _livetime(dataset, pha)
    names = {kind: _companion(pha, kind) for kind in _KEYWORDS}
    area = dataset.exposure.quantity[:, 0, 0].to_value("cm2 s") / livetime
    low, high = _kev(dataset.energy_true)
    write_hdus(names["arf"], [primary_hdu(), _arf_hdu(low, high, area), provenance_hdu({}, provenance)])
    matrix = matrix_hdu(low, high, _dispersion(dataset, pha))
    write_hdus(
        names["rmf"], [primary_hdu(), matrix, _ebounds_hdu(dataset.energy), provenance_hdu({}, provenance)]
    )
    ids = [int(number) for number in dataset.meta.get("obs_ids", ())]
    facts = {
        "EXPOSURE": livetime,
        "TELESCOP": str(dataset.meta.get("telescope") or "unknown"),
        "OBS_ID": ids[0] if len(ids) == 1 else dataset.name,
    }
    scale = np.ones(dataset.energy.n_bins)
    links = {keyword: names[kind].name for kind, keyword in _KEYWORDS.items()}
    if isinstance(dataset.background, OffCounts):
        off = dataset.background
        scale = off.acceptance.data[:, 0, 0]
        regions = dataset.meta.get("background")
        text = str(regions.get("regions", "")) if isinstance(regions, Mapping) else ""
        spectrum = _spectrum_hdu(
            off.counts, off.acceptance_off.data[:, 0, 0], dataset.mask_safe, {**facts, "HDUCLAS2": "BKG"}
        )
        write_hdus(names["bkg"], _with_bounds(spectrum, dataset, text, provenance_hdu({}, provenance)))
    else:
        links["BACKFILE"] = "NONE"
    spectrum = _spectrum_hdu(
        dataset.counts, scale, dataset.mask_safe, {**facts, "HDUCLAS2": "TOTAL", **links}
    )
    last = provenance_hdu(dataset.meta, provenance, NAME=dataset.name, REGION=dataset.geom.text)
    write_hdus(pha, _with_bounds(spectrum, dataset, dataset.geom.text, last))
    return pha


def read_ogip(path: Path, name: str | None = None) -> Dataset:
    """Read a spectrum from its PHA file and the files that this names, ours or another's.

    Channels may count from 0 or 1; BACKSCAL, AREASCAL and QUALITY may be columns or keywords. Without a background file
    the dataset has no background, and ``meta["warnings"]`` says so; so it does where the region is not known.

    Parameters
    ----------
    path : Path
        Of the PHA file.
    name : str, optional
        Name of the dataset; default what the file says, else the file's stem without ``pha_``.

    Raises
    ------
    InputError
        If a file is missing, damaged, holds rates or several spectra, or does not fit the others.
    """
    path = Path(path)
    with open_fits(path) as hdus:
        check_complete(hdus, path)
        spectrum = _Spectrum(hdus, path)
        own, notes = own_meta(hdus, path), list[str]()
        geom = _region(hdus, path, notes)
        gti = read_gti(hdus, path)
        own_name = own_text(hdus, path, "NAME")
        telescope = spectrum.text("TELESCOP", "unknown")
        obs_ids = _observations(spectrum.table.header)
    with open_fits(spectrum.file("RESPFILE", path)) as hdus:
        rmf = spectrum.file("RESPFILE", path)
        kernel, true_low, true_high = read_matrix(hdus, rmf)
        energy = _read_ebounds(hdus, rmf, spectrum.channels)
    arf = spectrum.file("ANCRFILE", path)
    with open_fits(arf) as hdus:
        energy_true, area = _read_arf(hdus, arf)
    if kernel.shape != (energy_true.n_bins, energy.n_bins):
        raise InputError(
            f"{rmf}: the matrix has {kernel.shape[0]} x {kernel.shape[1]} elements for {energy_true.n_bins} energies of "
            f"{arf.name} and {energy.n_bins} channels: give the files of one spectrum"
        )
    if not np.allclose(
        u.Quantity([true_low, true_high]).to_value(energy_true.unit),
        [energy_true.edges.value[:-1], energy_true.edges.value[1:]],
        rtol=_ENERGY_TOLERANCE,
    ):
        raise InputError(f"{rmf}: its energies are not those of {arf.name}: give the files of one spectrum")
    if np.ptp(spectrum.area_scale):
        raise InputError(
            f"{path}: AREASCAL differs between channels, which is not supported: put it into the ARF and RMF"
        )
    if spectrum.is_grouped:
        notes.append(f"{path.name} groups its channels (GROUPING), which is not applied")

    def spectral(values: np.ndarray, axis: Axis = energy, unit: u.UnitBase = u.one) -> Map:
        return Map(geom, (axis,), values.reshape(-1, 1, 1).astype(float), unit)

    exposure = (area * spectrum.exposure * u.s * spectrum.area_scale[0]).to_value(_EXPOSURE)
    exposures = spectral(exposure, energy_true, _EXPOSURE)
    background = _read_background(spectrum, path, notes)
    off = None if background is None else OffCounts(*(spectral(values) for values in background))
    meta = {
        "obs_ids": obs_ids,
        "livetime": spectrum.exposure,
        "ontime": float(gti.ontime.value) if len(gti.start) else None,
        "telescope": telescope,
    }
    found = dict(meta if own is None else own)
    if notes:
        found["warnings"] = [*found.get("warnings", ()), *notes]
    return Dataset(
        name=name or own_name or path.name.split(".fits")[0].removeprefix("pha_"),
        counts=spectral(spectrum.counts),
        background=off,
        exposure=exposures,
        psf=None,
        edisp=EdispMap(Map(geom, (energy_true, energy), kernel[..., np.newaxis, np.newaxis]), exposures),
        mask_safe=(spectrum.quality == 0).reshape(-1, 1, 1),
        mask_fit=None,
        gti=gti,
        meta=found,
    )


def named_files(path: Path) -> list[Path]:
    """Files that a PHA file names and that exist: RMF, ARF and background.

    Raises
    ------
    InputError
        If the file is missing, damaged or no PHA file.
    """
    path = Path(path)
    with open_fits(path) as hdus:
        spectrum = _Spectrum(hdus, path)
        names = [spectrum.text(keyword, "NONE") for keyword in _KEYWORDS.values()]
        found = [
            spectrum.file(keyword, path)
            for keyword, name in zip(_KEYWORDS.values(), names, strict=True)
            if name.upper() != "NONE"
        ]
    return [place for place in found if place.is_file()]


def _pha_path(path: Path, dataset: Dataset) -> Path:
    if path.suffix == ".fits":
        return path
    ids = list(dataset.meta.get("obs_ids", ()))
    return path / (f"pha_obs{ids[0]}.fits" if len(ids) == 1 else f"pha_{dataset.name}.fits")


def _companion(pha: Path, kind: str) -> Path:
    stem = pha.stem
    return pha.with_name(
        f"{kind}{stem.removeprefix('pha')}.fits" if stem.startswith("pha_") else f"{stem}_{kind}.fits"
    )


def _livetime(dataset: Dataset, pha: Path) -> float:
    livetime = dataset.meta.get("livetime")
    if livetime:
        return float(livetime)
    warn(f"{pha.name}: the livetime of dataset '{dataset.name}' is not known: EXPOSURE is 1 s", stacklevel=3)
    return 1.0


def _kev(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    edges = axis.edges.to_value(u.keV)
    return edges[:-1], edges[1:]


def _dispersion(dataset: Dataset, pha: Path) -> np.ndarray:
    """Matrix (n_energy_true, n_energy)."""
    if dataset.edisp is None:
        if not dataset.energy_true.is_close(dataset.energy.renamed("energy_true")):
            raise InputError(
                f"{pha}: dataset '{dataset.name}' has no dispersion, and its axes energy and energy_true differ"
            )
        return np.eye(dataset.energy.n_bins)
    values = dataset.edisp.edisp.data[:, :, 0, 0]
    if dataset.edisp.is_kernel:
        return values
    return kernels_from_density(values, dataset.edisp.edisp.axes[1], dataset.energy_true, dataset.energy)


def _spectrum_hdu(
    counts: Map, scale: np.ndarray, mask_safe: np.ndarray, keywords: Mapping[str, Any]
) -> fits.BinTableHDU:
    values = counts.data[:, 0, 0]
    is_whole = bool((values == np.rint(values)).all() and values.max(initial=0) < 2**31)
    columns = [
        fits.Column("CHANNEL", "J", array=np.arange(len(values))),
        fits.Column("COUNTS", "J" if is_whole else "D", "count", array=values),
        fits.Column("QUALITY", "I", array=np.where(mask_safe[:, 0, 0], 0, _BAD)),
        fits.Column("BACKSCAL", "D", array=scale),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="SPECTRUM")
    table.header["TLMIN1"], table.header["TLMAX1"] = 0, len(values) - 1
    facts = {
        "HDUCLASS": "OGIP",
        "HDUCLAS1": "SPECTRUM",
        "HDUVERS": "1.2.1",
        "HDUCLAS3": "COUNT",
        "HDUCLAS4": "TYPE:I",
        "INSTRUME": "unknown",
        "FILTER": "NONE",
        "CHANTYPE": "PI",
        "DETCHANS": len(values),
        "POISSERR": True,
        "SYS_ERR": 0,
        "GROUPING": 0,
        "AREASCAL": 1.0,
        "CORRSCAL": 0.0,
        "CORRFILE": "NONE",
        "BACKFILE": "NONE",
        "RESPFILE": "NONE",
        "ANCRFILE": "NONE",
    }
    table.header.update({**facts, **keywords})
    return table


def _ebounds_hdu(energy: Axis) -> fits.BinTableHDU:
    low, high = _kev(energy)
    columns = [
        fits.Column("CHANNEL", "J", array=np.arange(len(low))),
        fits.Column("E_MIN", "D", "keV", array=low),
        fits.Column("E_MAX", "D", "keV", array=high),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="EBOUNDS")
    table.header["TLMIN1"], table.header["TLMAX1"] = 0, len(low) - 1
    table.header.update(
        {
            "HDUCLASS": "OGIP",
            "HDUCLAS1": "RESPONSE",
            "HDUCLAS2": "EBOUNDS",
            "HDUVERS": "1.2.0",
            "TELESCOP": "unknown",
            "INSTRUME": "unknown",
            "FILTER": "NONE",
            "CHANTYPE": "PI",
            "DETCHANS": len(low),
        }
    )
    return table


def _arf_hdu(low: np.ndarray, high: np.ndarray, area: np.ndarray) -> fits.BinTableHDU:
    columns = [
        fits.Column("ENERG_LO", "D", "keV", array=low),
        fits.Column("ENERG_HI", "D", "keV", array=high),
        fits.Column("SPECRESP", "D", "cm2", array=area),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="SPECRESP")
    table.header.update(
        {
            "HDUCLASS": "OGIP",
            "HDUCLAS1": "RESPONSE",
            "HDUCLAS2": "SPECRESP",
            "HDUVERS": "1.1.0",
            "TELESCOP": "unknown",
            "INSTRUME": "unknown",
            "FILTER": "NONE",
        }
    )
    return table


def _with_bounds(
    spectrum: fits.BinTableHDU, dataset: Dataset, region: str, last: fits.BinTableHDU
) -> list[Any]:
    places = [region_hdu("REGION", region)] if region else []
    times = [gti_hdu(dataset.gti)] if len(dataset.gti.start) else []
    return [primary_hdu(), spectrum, _ebounds_hdu(dataset.energy), *places, *times, last]


class _Spectrum:
    """Table SPECTRUM of an open PHA or BKG file."""

    def __init__(self, hdus: fits.HDUList, path: Path) -> None:
        self.path, self.where = path, f"{path}: HDU SPECTRUM"
        self.table = find_named_table(hdus, "SPECTRUM", path)
        columns = {column.upper() for column in self.table.columns.names}
        if "COUNTS" not in columns and "RATE" in columns:
            raise InputError(
                f"{self.where}: holds rates, whose statistic is not known: give a file with COUNTS"
            )
        counts = number_column(self.table, "COUNTS", self.where)
        if counts.ndim != 1:
            raise InputError(
                f"{self.where}: holds several spectra (type II): write each as a file of its own"
            )
        self.counts = counts.astype(float)
        if not (np.isfinite(self.counts).all() and (self.counts >= 0).all()):
            raise InputError(f"{self.where}: has negative or infinite counts: make the file again")
        self.channels = self._values("CHANNEL", np.arange(len(counts)))
        self.quality = self._values("QUALITY", 0)
        self.back_scale, self.area_scale = self._values("BACKSCAL", 1.0), self._values("AREASCAL", 1.0)
        self.is_grouped = bool((self._values("GROUPING", 0) < 0).any())
        self.exposure = number_key(self.table.header, "EXPOSURE", self.where)
        if self.exposure <= 0:
            raise InputError(
                f"{self.where}: EXPOSURE is {self.exposure} s, which must be above 0: correct it"
            )

    def _values(self, name: str, default: Any) -> np.ndarray:
        """One number per channel, from a column or a keyword."""
        found = default
        if name in (column.upper() for column in self.table.columns.names):
            found = raw_column(self.table, name, self.where)
            if found.dtype.kind != "b":
                found = number_column(self.table, name, self.where)
        elif header_value(self.table.header, name, None, self.where) is not None:
            found = number_key(self.table.header, name, self.where)
        values = np.broadcast_to(np.asarray(found, dtype=float), self.counts.shape)
        if not np.isfinite(values).all():
            raise InputError(f"{self.where}: {name} has values that are not finite: make the file again")
        return values

    def text(self, key: str, default: str) -> str:
        """Keyword as text."""
        return text_key(self.table.header, key, default, self.where) or default

    def file(self, keyword: str, path: Path) -> Path:
        """File that a keyword names, beside the spectrum's own.

        Raises
        ------
        InputError
            If none is named, or one outside the folder.
        """
        name = self.text(keyword, "NONE")
        if name.upper() == "NONE":
            raise InputError(f"{self.where}: {keyword} names no file: correct the header")
        return resolve_below(path.parent, name, f"{self.where}: {keyword}")


def _read_background(
    on: _Spectrum, path: Path, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Counts, acceptance and acceptance_off."""
    name = on.text("BACKFILE", "NONE")
    if name.upper() == "NONE":
        notes.append(f"{path.name} names no background file: the spectrum has no background")
        return None
    place = on.file("BACKFILE", path)
    if not place.exists():
        notes.append(f"the background file {name} of {path.name} is missing: the spectrum has no background")
        return None
    with open_fits(place) as hdus:
        off = _Spectrum(hdus, place)
    if not np.array_equal(off.channels, on.channels):
        raise InputError(
            f"{place}: its channels are not those of {path.name}: give the files of one spectrum"
        )
    return (
        off.counts,
        on.back_scale * on.area_scale,
        off.back_scale * off.area_scale * (off.exposure / on.exposure),
    )


def _observations(header: fits.Header) -> list[int]:
    """All cards OBS_ID: a stack may have one for each of its observations."""
    values = [str(card.value).strip() for card in header.cards if card.keyword == "OBS_ID"]
    return [int(value) for value in values if value.isdigit()]


def _region(hdus: fits.HDUList, path: Path, notes: list[str]) -> RegionGeometry:
    text = own_text(hdus, path, "REGION")
    if text is not None:
        return RegionGeometry(text)
    if "REGION" in (hdu.name for hdu in hdus):
        return RegionGeometry(read_region(hdus, "REGION", path))
    notes.append(f"{path.name} does not say where on the sky its spectrum was taken")
    return unknown_region()


def _read_ebounds(hdus: fits.HDUList, path: Path, channels: np.ndarray) -> Axis:
    table, where = find_named_table(hdus, "EBOUNDS", path), f"{path}: HDU EBOUNDS"
    if not np.array_equal(number_column(table, "CHANNEL", where), channels):
        raise InputError(
            f"{where}: its channels are not those of the spectrum: give the files of one spectrum"
        )
    return _read_axis(table, ("E_MIN", "E_MAX"), "energy", where)


def _read_arf(hdus: fits.HDUList, path: Path) -> tuple[Axis, u.Quantity]:
    table, where = find_named_table(hdus, "SPECRESP", path), f"{path}: HDU SPECRESP"
    area = _quantity(table, "SPECRESP", u.cm**2, where)
    if not (np.isfinite(area.value).all() and (area.value >= 0).all()):
        raise InputError(f"{where}: has negative or infinite areas: make the file again")
    return _read_axis(table, ("ENERG_LO", "ENERG_HI"), "energy_true", where), area


def _read_axis(table: fits.BinTableHDU, columns: Sequence[str], name: str, where: str) -> Axis:
    low, high = (_quantity(table, column, u.keV, where).to_value(u.TeV) for column in columns)
    if not (low > 0).all() or not (np.isfinite(high).all() and (high > low).all()):
        raise InputError(f"{where}: has energies that are not positive, or an empty bin: make the file again")
    if not np.allclose(low[1:], high[:-1], rtol=_ENERGY_TOLERANCE, atol=0):
        raise InputError(
            f"{where}: the bins {columns[0]} to {columns[1]} have gaps or overlap: make the file again"
        )
    return Axis(name, np.append(low, high[-1]) * u.TeV, "log")


def _quantity(table: fits.BinTableHDU, column: str, expected: u.UnitBase, where: str) -> u.Quantity:
    values = number_column(table, column, where).astype(float)
    text = str(next(c.unit for c in table.columns if c.name.upper() == column) or "").strip()
    try:
        unit = u.Unit(text) if text else expected
    except ValueError:
        raise InputError(f"{where}: the unit '{text}' of {column} is not known: correct TUNIT") from None
    if not unit.is_equivalent(expected):
        raise InputError(
            f"{where}: {column} has the unit '{text}', expected one like '{expected}': correct TUNIT"
        )
    return values * unit
