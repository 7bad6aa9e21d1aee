"""Binary tables of plain FITS files read without a general FITS library, whose headers cost more time than a run's data.

Only what the standard calls mandatory and observatories write: an empty primary HDU and binary tables of numbers and
text, without scaling, variable lengths or continued keywords. Of anything else `parse_tables` knows nothing and says so.
"""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

_BLOCK, _CARD = 2880, 80
_VALUE = re.compile(
    r" *(?:'((?:[^']|'')*)'|([TF])|([+-]?\d+)|([+-]?(?:\d+\.\d*|\d+(?=[EeDd])|\.\d+)(?:[EeDd][+-]?\d+)?)) *(?:/.*)?"
)
_KEY = re.compile(r"[A-Z0-9_-]{1,8}")
_COMMENTS = ("", "COMMENT", "HISTORY")
_TFORM = re.compile(r"(\d*)([BIJKEDA])")
_TDIM = re.compile(r" *\(([\d, ]+)\) *")
_NUMBERS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
# keywords that change what the bytes of a table mean
_SPECIAL = ("TSCAL", "TZERO", "TNULL", "THEAP", "ZIMAGE", "ZTABLE", "INHERIT")


@dataclass(frozen=True)
class PlainColumn:
    """Name, unit and format of a column, as its header gives them."""

    name: str
    unit: str | None
    format: str


@dataclass(frozen=True, eq=False)
class PlainTable:
    """A binary table; it answers what the readers ask of astropy's ``BinTableHDU``.

    Attributes
    ----------
    name : str
        EXTNAME in upper case, empty for the primary HDU.
    header : dict
        Keywords and their values; of repeated ones the first.
    columns : tuple of PlainColumn
    rows : structured array
        The table as it lies in the file.
    """

    name: str
    header: dict[str, Any]
    columns: tuple[PlainColumn, ...]
    rows: np.ndarray

    @cached_property
    def data(self) -> dict[str, np.ndarray]:
        """Values by column, texts without the blanks that fill them up."""
        found = {}
        for column in self.columns:
            values = self.rows[column.name]
            is_text = values.dtype.kind == "S"
            found[column.name] = (
                np.char.rstrip(np.char.decode(values, "ascii", "replace")) if is_text else values
            )
        return found


def parse_tables(content: bytes) -> list[PlainTable] | None:
    """HDUs of a whole FITS file, the primary one first; None if any of it is not plain, or not sound.

    Check sums, where there are any, have been verified.
    """
    found: list[PlainTable] = []
    position = 0
    while position < len(content):
        start = position
        header, position = _parse_header(content, position)
        if header is None:
            return None
        if not found:
            is_plain = header.get("SIMPLE") is True and header.get("NAXIS") == 0
            table: PlainTable | None = PlainTable("", header, (), np.empty(0)) if is_plain else None
        else:
            table = _parse_table(header, content, position)
        if table is None or not _sums_agree(header, content, start, position, table.rows.nbytes):
            return None
        found.append(table)
        position += -(-table.rows.nbytes // _BLOCK) * _BLOCK
    return found if position == len(content) else None


def _parse_header(content: bytes, position: int) -> tuple[dict[str, Any] | None, int]:
    header: dict[str, Any] = {}
    while position + _BLOCK <= len(content):
        try:
            block = content[position : position + _BLOCK].decode("ascii")
        except UnicodeDecodeError:
            return None, position
        position += _BLOCK
        for start in range(0, _BLOCK, _CARD):
            card = block[start : start + _CARD]
            key = card[:8].rstrip()
            if key == "END" and not card[8:].strip():
                return header, position
            if key in _COMMENTS:
                continue
            value = _VALUE.fullmatch(card, 10)
            if card[8:10] != "= " or value is None or not _KEY.fullmatch(key) or not card.isprintable():
                return None, position
            text, logical, whole, real = value.groups()
            if text is not None:
                header.setdefault(key, text.replace("''", "'").rstrip())
            elif logical:
                header.setdefault(key, logical == "T")
            elif whole:
                header.setdefault(key, int(whole))
            else:
                header.setdefault(key, float(real.replace("D", "E").replace("d", "e")))
    return None, position


def _parse_table(header: dict[str, Any], content: bytes, position: int) -> PlainTable | None:
    expected = {"XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "PCOUNT": 0, "GCOUNT": 1}
    width, n_rows, n_columns = (header.get(key) for key in ("NAXIS1", "NAXIS2", "TFIELDS"))
    name = header.get("EXTNAME", "")
    sizes = (width, n_rows, n_columns)
    if (
        any(header.get(key) != value for key, value in expected.items())
        or any(type(size) is not int or size < 0 for size in sizes)
        or not isinstance(name, str)
        or any(key.startswith(_SPECIAL) for key in header)
    ):
        return None
    columns, fields = [], []
    for n in range(1, int(n_columns or 0) + 1):
        column, unit, form = (header.get(f"{key}{n}") for key in ("TTYPE", "TUNIT", "TFORM"))
        field = _parse_field(form, header.get(f"TDIM{n}"))
        if (
            not isinstance(column, str)
            or not column
            or not (unit is None or isinstance(unit, str))
            or field is None
        ):
            return None
        columns.append(PlainColumn(column, unit or None, str(form)))
        fields.append((column, *field))
    if len({column.name.upper() for column in columns}) < len(columns):
        return None
    dtype = np.dtype(fields)
    n_bytes = int(width or 0) * int(n_rows or 0)
    if not columns or dtype.itemsize != width or position + -(-n_bytes // _BLOCK) * _BLOCK > len(content):
        return None
    rows = np.frombuffer(content, dtype, count=int(n_rows or 0), offset=position)
    return PlainTable(name.strip().upper(), header, tuple(columns), rows)


def _parse_field(form: Any, dim: Any) -> tuple[Any, ...] | None:
    """Type and shape of a column in a structured array."""
    found = _TFORM.fullmatch(form.strip()) if isinstance(form, str) else None
    if found is None:
        return None
    repeat, code = int(found[1] or 1), found[2]
    if repeat < 1 or (dim is not None and (code == "A" or repeat == 1)):
        return None
    if code == "A":
        return (f"S{repeat}",)
    if dim is None:
        return (_NUMBERS[code],) if repeat == 1 else (_NUMBERS[code], (repeat,))
    lengths = _TDIM.fullmatch(dim) if isinstance(dim, str) else None
    if lengths is None:
        return None
    try:
        shape = tuple(int(length) for length in lengths[1].split(","))[::-1]
    except ValueError:
        return None
    return (_NUMBERS[code], shape) if math.prod(shape) == repeat else None


def _sums_agree(header: dict[str, Any], content: bytes, start: int, data: int, n_bytes: int) -> bool:
    """Whether DATASUM and CHECKSUM, where present, fit the bytes (FITS standard 4.0, appendix J)."""
    if "DATASUM" not in header and "CHECKSUM" not in header:
        return True
    stop = data + -(-n_bytes // _BLOCK) * _BLOCK
    in_data = _ones_complement_sum(content[data:stop])
    whole = _ones_complement_sum(content[start:data], in_data)
    stated = str(header.get("DATASUM", in_data)).strip()
    return stated == str(in_data) and ("CHECKSUM" not in header or whole == 0xFFFFFFFF)


def _ones_complement_sum(content: bytes, total: int = 0) -> int:
    total += int(np.frombuffer(content, ">u4").sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total
