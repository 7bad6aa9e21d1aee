"""Tables of the absorption by the extragalactic background light: XSPEC table models of transmission by redshift.

The tables of several models are published in one format, one file each; they are not part of this package. Named ones
are looked for in the folder ``ebl`` of the public data, ``$DL3FLOW_DATA/ebl``.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.errors import InputError, choices
from dl3flow.io.fits_files import find_table, number_column, open_fits

_DATA_VARIABLE = "DL3FLOW_DATA"
EBL_FILES: Mapping[str, str] = {
    "dominguez": "ebl_dominguez11.fits.gz",
    "finke": "frd_abs.fits.gz",
    "franceschini": "ebl_franceschini.fits.gz",
    "franceschini17": "ebl_franceschini_2017.fits.gz",
    "saldana-lopez21": "ebl_saldana-lopez_2021.fits.gz",
}


def find_ebl(reference: Any, where: str) -> Path:
    """File of a named table, in the folder ``ebl`` below $DL3FLOW_DATA.

    Parameters
    ----------
    reference : str
        dominguez, finke, franceschini, franceschini17 or saldana-lopez21; or the name of a file there.
    where : str
        What an error names.

    Raises
    ------
    InputError
        If the name or the file is unknown.
    """
    name = EBL_FILES.get(str(reference), str(reference))
    if name not in EBL_FILES.values():
        raise InputError(f"{where}: unknown table '{reference}': {choices(str(reference), EBL_FILES)}")
    base = os.environ.get(_DATA_VARIABLE, "")
    plain = name.removesuffix(".gz")
    for place in (Path(base, "ebl", name), Path(base, "ebl", plain)) if base else ():
        if place.is_file():
            return place
    looked = f"no file '{Path(base, 'ebl', name)}'" if base else f"no folder: {_DATA_VARIABLE} is not set"
    raise InputError(
        f"{where}: there is {looked} for the table '{reference}': put it there, or give its `filename`"
    )


def read_ebl(path: Path, entry: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Options of the model ``ebl_absorption`` from a file.

    Parameters
    ----------
    path : Path
        FITS with the tables ENERGIES (ENERG_LO, ENERG_HI; in keV where no unit is given) and SPECTRA (PARAMVAL,
        INTPSPEC), as OGIP memo OGIP/92-009 describes them.
    entry : mapping or None
        Of a model file; not used.

    Returns
    -------
    options : dict
        ``energy`` (TeV; the logarithmic centres of the bins), shape (n,), ``param`` (redshift), shape (m,), and ``values``
        (transmission), shape (m, n).

    Raises
    ------
    InputError
        If the file is damaged or holds something else.
    """
    with open_fits(path) as hdus:
        energies, spectra = (find_table(hdus, name, str(path)) for name in ("ENERGIES", "SPECTRA"))
        where = f"{path}: HDU ENERGIES"
        low, high = (number_column(energies, f"ENERG_{end}", where).astype(float) for end in ("LO", "HI"))
        unit = _energy_unit(energies, where)
        where = f"{path}: HDU SPECTRA"
        redshift = number_column(spectra, "PARAMVAL", where).astype(float)
        values = number_column(spectra, "INTPSPEC", where).astype(float)
    redshift = redshift[:, 0] if redshift.ndim == 2 and redshift.shape[1] == 1 else redshift
    if redshift.ndim != 1 or values.shape != (len(redshift), len(low)):
        raise InputError(
            f"{where}: INTPSPEC has the shape {values.shape} for {redshift.size} redshifts and {len(low)} energies: "
            "give one number per energy in each row"
        )
    if not (np.isfinite(values).all() and (values >= 0).all() and np.isfinite(redshift).all()):
        raise InputError(
            f"{where}: a redshift or transmission is not finite, or negative: get the file again"
        )
    if not ((low > 0).all() and (high > low).all() and (np.diff(low) > 0).all()):
        raise InputError(
            f"{path}: HDU ENERGIES: the energies must be above 0 and increasing: get the file again"
        )
    # some files repeat redshifts
    param, rows = np.unique(redshift, return_index=True)
    return {"energy": np.sqrt(low * high) * float(unit.to(u.TeV)), "param": param, "values": values[rows]}


def _energy_unit(table: Any, where: str) -> u.UnitBase:
    text = next((c.unit for c in table.columns if c.name.upper() == "ENERG_LO"), None) or "keV"
    try:
        unit = u.Unit(text)
    except ValueError:
        unit = u.dimensionless_unscaled
    if not unit.is_equivalent(u.keV):
        raise InputError(f"{where}: the unit '{text}' of ENERG_LO is no energy: correct it, such as 'keV'")
    return unit
