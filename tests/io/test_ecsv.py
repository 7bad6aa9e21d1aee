"""Tables of estimators whose columns are their own, as ECSV."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from dl3flow.data.products import ProductTable
from dl3flow.errors import InputError
from dl3flow.io.inspection import inspect_file
from dl3flow.io.products import read_table, write_table
from dl3flow.report.tables import in_words, product_table


def test_round_trip(tmp_path, provenance):
    """Units, kinds of columns, what is no number, and the facts come back."""
    table = QTable(
        {
            "offset": [0.1, 0.2] * u.deg,
            "flux": [1e-12, np.nan] * u.Unit("cm-2 s-1"),
            "n": [3, 4],
            "name": ["a", "b"],
            "is_ul": [True, False],
        }
    )
    meta = {"summary": [["peaks", 2], ["mean", 0.25]], "warnings": ["one"]}
    path = tmp_path / "t.ecsv"
    write_table(path, ProductTable("profile", table, meta), provenance)
    found = read_table(path)
    assert isinstance(found, ProductTable)
    assert found.kind == "profile"
    assert found.meta == meta
    for name in table.colnames:
        np.testing.assert_array_equal(found.table[name], table[name])
    assert found.table["flux"].unit == u.Unit("cm-2 s-1")
    assert found.table["is_ul"].dtype == bool
    assert ("kind", "profile, 2 rows") in inspect_file(path)
    shown = product_table("p", found)
    assert in_words(found) == "table of 2 rows; peaks 2; mean 0.25"
    assert [str(h) for h in shown.headings][2:] == ["n", "name", "is_ul"]
    assert list(shown.rows[0][2:]) == ["3", "a", "yes"]


def test_cut_table_is_told(tmp_path, provenance):
    """A file that lost its last row is refused."""
    path = tmp_path / "t.ecsv"
    write_table(path, ProductTable("profile", QTable({"n": [3, 4]}), {}), provenance)
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InputError, match="ends after 1 rows"):
        read_table(path)
