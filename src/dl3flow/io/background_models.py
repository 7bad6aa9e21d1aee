"""Background models built from runs, as FITS: one GADF BKG_2D or BKG_3D table per zenith bin.

The tables are named ``BKG`` where there is one, else ``BKG_1``, ``BKG_2``, ... by increasing zenith, and are what other
programs read as a background response. Beside GADF's keywords each has ``ZEN_PNT``, ``ZEN_MIN`` and ``ZEN_MAX`` (deg; the
zenith distance that the rate holds for, and the bin's edges), ``LO_THRES`` and ``HI_THRES`` (TeV; between them the rate was
measured), ``ONTIME`` (s), ``N_RUNS`` and ``N_EVENTS``. The runs and their norms stand in the table PROVENANCE, which other
readers ignore. Equal models give equal bytes.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
from astropy.io import fits

from dl3flow.errors import InputError
from dl3flow.io.fits_files import number_key, open_fits, text_key, verify_sums
from dl3flow.io.fits_products import check_complete, own_meta, primary_hdu, provenance_hdu, write_hdus
from dl3flow.io.gadf_irf import read_irf
from dl3flow.io.gadf_write import response_table
from dl3flow.io.provenance import Provenance
from dl3flow.irf.table import IrfTable

_KEYWORDS = {"zenith": "ZEN_PNT", "zenith_min": "ZEN_MIN", "zenith_max": "ZEN_MAX", "ontime": "ONTIME"}
_THRESHOLDS = {"lo_thres": "LO_THRES", "hi_thres": "HI_THRES"}
_LISTS = ("obs_ids", "norms", "warnings")


def write_background_models(path: Path, models: Sequence[IrfTable], provenance: Provenance) -> None:
    """Write background rates, by increasing zenith.

    Parameters
    ----------
    path : Path
        Ending in ``.fits``.
    models : sequence of IrfTable
        ``bkg_2d`` or ``bkg_3d``, with ``meta`` as `build_acceptance` gives it.
    provenance : Provenance
    """
    ordered = sorted(models, key=lambda model: float(model.meta.get("zenith", 0.0)))
    hdus: list[Any] = [primary_hdu()]
    for n, model in enumerate(ordered, 1):
        meta = model.meta
        origin = {
            "TELESCOP": meta.get("telescope") or "UNKNOWN",
            "INSTRUME": meta.get("instrument") or "UNKNOWN",
            "ORIGIN": "dl3flow",
            "CREATOR": "dl3flow",
        }
        name, columns, header = response_table("BKG" if len(ordered) == 1 else f"BKG_{n}", model, origin)
        header |= {keyword: float(meta[key]) for key, keyword in _KEYWORDS.items() if key in meta}
        header |= {"N_RUNS": len(meta.get("obs_ids", ())), "N_EVENTS": int(meta.get("n_events", 0))}
        hdu = fits.BinTableHDU.from_columns(columns, name=name)
        hdu.header.update(header)
        hdus.append(hdu)
    lists = [{key: list(model.meta.get(key, ())) for key in _LISTS} for model in ordered]
    write_hdus(path, [*hdus, provenance_hdu({"models": lists}, provenance)])


def read_background_models(path: Path) -> tuple[IrfTable, ...]:
    """Background rates of a file, in its order; also of a file of others that has several BKG tables.

    Raises
    ------
    InputError
        If the file is damaged or has no background table, or one is not by GADF.
    """
    found: list[IrfTable] = []
    with open_fits(path) as hdus:
        check_complete(hdus, path)
        lists = (own_meta(hdus, path) or {}).get("models", [])
        for hdu in hdus:
            if not isinstance(hdu, fits.BinTableHDU) or not hdu.name.startswith("BKG"):
                continue
            where = f"{path}: HDU '{hdu.name}'"
            verify_sums(hdu, str(path))
            kind = text_key(hdu.header, "HDUCLAS4", "", where).lower()
            warnings: list[str] = []
            table = read_irf(hdu, where, kind, warnings)
            meta: dict[str, Any] = {**table.meta, "warnings": warnings}
            for key, keyword in _KEYWORDS.items():
                if keyword in hdu.header:
                    meta[key] = number_key(hdu.header, keyword, where)
            for key, keyword in _THRESHOLDS.items():
                if keyword in hdu.header:
                    meta[key] = number_key(hdu.header, keyword, where) * u.TeV
            if "N_EVENTS" in hdu.header:
                meta["n_events"] = int(number_key(hdu.header, "N_EVENTS", where))
            meta |= {
                "telescope": text_key(hdu.header, "TELESCOP", "", where),
                "instrument": text_key(hdu.header, "INSTRUME", "", where),
            }
            if len(found) < len(lists):
                own = lists[len(found)]
                meta |= {key: own[key] for key in _LISTS if key in own}
                meta["warnings"] = [*warnings, *own.get("warnings", [])]
            found.append(replace(table, meta=meta))
    if not found:
        raise InputError(
            f"{path}: there is no HDU named BKG: build background models again, or name their file"
        )
    return tuple(found)
