"""ECSV files: any table, and the tables of estimators whose columns are their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Column, QTable, Table

from dl3flow.data.products import ProductTable
from dl3flow.errors import InputError
from dl3flow.io.files import read_text, write_product
from dl3flow.io.provenance import Provenance, finite_or_null

REMEDY = "delete it and run its step again"
_KIND = "kind"


def write_product_table(path: Path, product: ProductTable, provenance: Provenance) -> None:
    """Write the table of an estimator, its kind and facts in the header."""
    if Path(path).suffix != ".ecsv":
        raise InputError(
            f"{path}: a table of the kind '{product.kind}' is written as ECSV: end its name in .ecsv"
        )
    plain = Table({name: _plain(product.table[name]) for name in product.table.colnames})
    plain.meta = {
        _KIND: product.kind,
        "rows": len(plain),
        "facts": finite_or_null(dict(product.meta)),
        "provenance": provenance.to_mapping(),
    }
    write_product(path, lambda temporary: plain.write(temporary, format="ascii.ecsv"))


def _plain(values: Any) -> Column:
    if isinstance(values, u.Quantity):
        is_number = values.unit == u.dimensionless_unscaled
        return Column(values.value, unit=None if is_number else values.unit)
    return Column(np.asarray(values))


def as_product_table(table: Table) -> ProductTable | None:
    """The table of an estimator that an ECSV table is; None where it is of another kind."""
    kind = table.meta.get(_KIND)
    if not isinstance(kind, str):
        return None
    facts = table.meta.get("facts")
    columns = {name: _with_unit(table[name]) for name in table.colnames}
    return ProductTable(kind, QTable(columns), dict(facts) if isinstance(facts, Mapping) else {})


def _with_unit(column: Any) -> Any:
    data = np.ma.filled(np.ma.asarray(column), np.nan) if column.dtype.kind == "f" else np.asarray(column)
    return data if column.unit is None else u.Quantity(data, column.unit)


def read_ecsv(path: Path) -> Table:
    """Read an ECSV table that one of ours wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged or cut short.
    """
    text = read_text(path)
    if not text.startswith("# %ECSV"):
        raise InputError(
            f"{path}: is not an ECSV table (its first line is not '# %ECSV 1.0'): name another file"
        )
    try:
        table = Table.read(text.split("\n"), format="ascii.ecsv")
    except Exception as error:  # noqa: BLE001  the parser's errors are of many kinds
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path}: the ECSV table is damaged ({reason}), perhaps cut short: {REMEDY}"
        ) from None
    # ECSV has no end mark: a file cut between two rows shows by the number of rows that its writer noted.
    if not text.endswith("\n") or table.meta.get("rows", len(table)) != len(table):
        raise InputError(f"{path}: the table ends after {len(table)} rows, it is cut short: {REMEDY}")
    return table
