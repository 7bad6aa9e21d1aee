"""What every FITS file that dl3flow writes has in common: no clock time, check sums, and a last table with the provenance."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astropy.io import fits

from dl3flow.errors import InputError, choices
from dl3flow.io.files import write_product
from dl3flow.io.fits_files import open_fits, verify_sums
from dl3flow.io.provenance import Provenance, canonical_json

PROVENANCE = "PROVENANCE"
_CREATOR = "dl3flow"


def primary_hdu(**keys: str) -> fits.PrimaryHDU:
    """First HDU, without data, of a file whose last one is PROVENANCE."""
    primary = fits.PrimaryHDU()
    primary.header["EXTEND"] = True
    for key, value in keys.items():
        primary.header[key] = value
    primary.header["CREATOR"] = _CREATOR
    primary.header["LASTHDU"] = (PROVENANCE, "a file that ends before it is cut short")
    return primary


def provenance_hdu(meta: Mapping[str, Any], provenance: Provenance, **texts: str) -> fits.BinTableHDU:
    """Last HDU: one row of texts, the JSON of ``meta`` and of the provenance among them."""
    found = {"META": canonical_json(dict(meta)), "PROVENANCE": provenance.to_json(), **texts}
    columns = [
        fits.Column(name, f"{len(text.encode())}A", array=[text.encode()]) for name, text in found.items()
    ]
    return fits.BinTableHDU.from_columns(columns, name=PROVENANCE)


def write_hdus(path: Path, hdus: Sequence[Any]) -> None:
    """Write HDUs with check sums.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    for hdu in hdus:
        # gammapy copies the header of this table, sums included, into files where they are wrong
        if hdu.name != "META_TABLE":
            hdu.add_checksum(when="of this HDU")  # astropy's default comment is the time

    def write(temporary: Path) -> None:
        fits.HDUList(list(hdus)).writeto(temporary)

    write_product(path, write)


def check_complete(hdus: fits.HDUList, path: Path) -> None:
    """Refuse a file of ours that is cut between two HDUs: FITS has no end mark, but the provenance comes last.

    Raises
    ------
    InputError
    """
    if hdus[0].header.get("LASTHDU") not in (None, hdus[-1].name):
        raise InputError(
            f"{path}: ends after HDU '{hdus[-1].name or 'PRIMARY'}': it is cut short, make it again"
        )


def find_hdu(hdus: fits.HDUList, name: str, path: Path) -> Any:
    """HDU of that name, its check sums verified.

    Raises
    ------
    InputError
        If there is none, or it is damaged.
    """
    for hdu in hdus:
        if (hdu.name or "PRIMARY").upper() == name:
            verify_sums(hdu, str(path))
            return hdu
    raise InputError(f"{path}: there is no HDU {name} {choices(name, (h.name for h in hdus[1:]))}")


def find_named_table(hdus: fits.HDUList, name: str, path: Path) -> fits.BinTableHDU:
    """Table of that name, its check sums verified.

    Raises
    ------
    InputError
        If there is none, or it is no table.
    """
    table = find_hdu(hdus, name, path)
    if not isinstance(table, fits.BinTableHDU):
        raise InputError(f"{path}: HDU {name}: is not a table: make the file again")
    return table


def own_text(hdus: fits.HDUList, path: Path, column: str) -> str | None:
    """One text of the table PROVENANCE; None where there is none."""
    if PROVENANCE not in (hdu.name for hdu in hdus):
        return None
    table = find_hdu(hdus, PROVENANCE, path)
    if not isinstance(table, fits.BinTableHDU) or column not in table.columns.names or len(table.data) != 1:
        return None
    return str(table.data[column][0])


def own_meta(hdus: fits.HDUList, path: Path) -> dict[str, Any] | None:
    """What dl3flow wrote as ``meta``; None in a file of others.

    Raises
    ------
    InputError
        If it is not JSON.
    """
    text = own_text(hdus, path, "META")
    try:
        found = None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: HDU {PROVENANCE}: META is not JSON ({error}): make the file again"
        ) from None
    return found if isinstance(found, dict) else None


def read_provenance(path: Path) -> Mapping[str, Any]:
    """Provenance of a file that dl3flow wrote.

    Raises
    ------
    InputError
        If it is of others.
    """
    with open_fits(path) as hdus:
        text = own_text(hdus, path, "PROVENANCE")
        if text is None:
            raise InputError(f"{path}: has no HDU {PROVENANCE}, so dl3flow did not write it")
        found: dict[str, Any] = json.loads(text)
        return found
