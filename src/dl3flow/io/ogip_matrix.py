"""The redistribution matrix of an OGIP RMF: rows of groups of channels, zeros left out."""

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits

from dl3flow.errors import InputError
from dl3flow.io.fits_files import header_value, number_column, number_key, raw_column
from dl3flow.io.fits_products import find_named_table

_NAMES = ("MATRIX", "SPECRESP MATRIX")


def matrix_hdu(low: np.ndarray, high: np.ndarray, matrix: np.ndarray) -> fits.BinTableHDU:
    """Table MATRIX with one group of channels per row, from the first to the last element that is not zero.

    Parameters
    ----------
    low, high : array, shape (n_energy_true,)
        keV.
    matrix : array, shape (n_energy_true, n_energy)
    """
    n_rows, n_channels = matrix.shape
    is_used = matrix != 0
    # a row of zeros keeps one of them: readers differ on rows without a group
    first = np.where(is_used.any(axis=1), is_used.argmax(axis=1), 0)
    last = np.where(is_used.any(axis=1), n_channels - is_used[:, ::-1].argmax(axis=1), 1)
    # Rows of one length, filled up with zeros: astropy's check sums of rows of variable length are wrong.
    width = int((last - first).max(initial=1))
    rows = np.zeros((n_rows, width))
    for i in range(n_rows):
        rows[i, : last[i] - first[i]] = matrix[i, first[i] : last[i]]
    columns = [
        fits.Column("ENERG_LO", "D", "keV", array=low),
        fits.Column("ENERG_HI", "D", "keV", array=high),
        fits.Column("N_GRP", "I", array=np.ones(n_rows)),
        # two cells, the second unused: gammapy takes a single number for no list of groups
        fits.Column("F_CHAN", "2J", array=np.stack([first, np.zeros(n_rows)], axis=1)),
        fits.Column("N_CHAN", "2J", array=np.stack([last - first, np.zeros(n_rows)], axis=1)),
        fits.Column("MATRIX", f"{width}D", array=rows),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="MATRIX")
    table.header["TLMIN4"], table.header["TLMAX4"] = (0, "first channel"), (n_channels - 1, "last channel")
    table.header.update(
        {
            "HDUCLASS": "OGIP",
            "HDUCLAS1": "RESPONSE",
            "HDUCLAS2": "RSP_MATRIX",
            "HDUCLAS3": "REDIST",
            "HDUVERS": "1.3.0",
            "TELESCOP": "unknown",
            "INSTRUME": "unknown",
            "FILTER": "NONE",
            "CHANTYPE": "PI",
            "DETCHANS": n_channels,
            "NUMGRP": n_rows,
            "NUMELT": int((last - first).sum()),
            "LO_THRES": 0.0,
        }
    )
    return table


def read_matrix(hdus: fits.HDUList, path: Path) -> tuple[np.ndarray, u.Quantity, u.Quantity]:
    """Matrix of an RMF and the energies of its rows; rows may be fixed or of variable length, in several groups.

    Channels count from TLMIN of F_CHAN, else from the first channel of EBOUNDS.

    Returns
    -------
    matrix : array, shape (n_energy_true, n_channels)
    low, high : Quantity, shape (n_energy_true,)

    Raises
    ------
    InputError
        If the table is missing or damaged, names channels that do not exist, or includes the effective area.
    """
    name = next((n for n in _NAMES if n in (hdu.name.upper() for hdu in hdus)), _NAMES[0])
    table, where = find_named_table(hdus, name, path), f"{path}: HDU {name}"
    if name != "MATRIX" and header_value(table.header, "HDUCLAS3", "REDIST", where) != "REDIST":
        raise InputError(f"{where}: includes the effective area: give an RMF and an ARF instead")
    bounds = number_column(find_named_table(hdus, "EBOUNDS", path), "CHANNEL", f"{path}: HDU EBOUNDS")
    number = next((n for n, c in enumerate(table.columns, 1) if c.name.upper() == "F_CHAN"), 0)
    start = number_key(
        table.header, f"TLMIN{number}", where, default=float(bounds[0]) if len(bounds) else 0.0
    )
    groups, firsts, lengths, values = (
        raw_column(table, column, where) for column in ("N_GRP", "F_CHAN", "N_CHAN", "MATRIX")
    )
    matrix = np.zeros((len(groups), len(bounds)))
    for i, n_groups in enumerate(groups):
        row, at = _numbers(values[i], where), 0
        first, n = (_numbers(part[i], where).astype(int)[: int(n_groups)] for part in (firsts, lengths))
        for low, size in zip(first - int(start), n, strict=False):
            if size and not (size > 0 and 0 <= low <= low + size <= len(bounds) and at + size <= len(row)):
                raise InputError(
                    f"{where}: row {i + 1} names channels {low} to {low + size} of {len(bounds)}: make it again"
                )
            matrix[i, low : low + size] += row[at : at + size]
            at += size
    if not (np.isfinite(matrix).all() and (matrix >= 0).all()):
        raise InputError(f"{where}: has elements that are negative or not finite: make the file again")
    low, high = (number_column(table, c, where).astype(float) for c in ("ENERG_LO", "ENERG_HI"))
    text = str(next(c.unit for c in table.columns if c.name.upper() == "ENERG_LO") or "keV")
    try:
        unit = u.Unit(text)
        u.Quantity(1, unit).to(u.keV)
    except ValueError:
        raise InputError(f"{where}: the unit '{text}' of ENERG_LO is not an energy: correct TUNIT") from None
    return matrix, low * unit, high * unit


def _numbers(cell: Any, where: str) -> np.ndarray:
    values = np.atleast_1d(cell)
    if values.dtype.kind not in "iuf":
        raise InputError(f"{where}: has cells that hold no numbers: make the file again")
    return values
