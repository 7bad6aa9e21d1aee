"""Opening FITS files that others made: only whole, regular, honest ones; errors as sentences."""

import math
import re
import stat
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from dl3flow.errors import InputError, choices
from dl3flow.io.fits_tables import PlainTable, parse_tables

# A file of zeros compresses a thousandfold, a real event list at most tenfold: beyond both limits it is no data file.
_MAX_EXPANSION = 200
_MAX_EXPANDED = 256 * 2**20
_MAX_FILE = 16 * 2**30
_CHUNK = 2**20
_BLOCK = 2880
_MOST_AXES = 999
_COUNTS = re.compile(rb"NAXIS\d{0,3}|BITPIX|PCOUNT|GCOUNT|TFIELDS")
# What astropy raises where a header or the data beneath it make no sense.
_DAMAGE = (
    AssertionError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    MemoryError,
    OverflowError,
    UnboundLocalError,
    fits.VerifyError,
)


@contextmanager
def open_fits(path: Path, name: str = "") -> Iterator[fits.HDUList]:
    """Open a FITS file, gzipped or not, after checks that allocate nothing on its word.

    Parameters
    ----------
    path : Path
    name : str
        What error messages call the file; default its path.

    Yields
    ------
    hdus : HDUList
        All headers read; data are read on access and only while the context lasts.

    Raises
    ------
    InputError
        If the file is absent, not regular, not FITS, cut short or a compression bomb.
    """
    name = name or str(path)
    with _open_regular(path, name) as raw:
        magic = raw.read(2)
        raw.seek(0)
        stream: BinaryIO = BytesIO(_expand(raw, name)) if magic == b"\x1f\x8b" else raw
        head = stream.read(512)
        if not head.startswith(b"SIMPLE  ="):
            raise InputError(f"{name}: not a FITS file: {_looks_like(head)}")
        size = stream.seek(0, 2)
        _scan_headers(stream, size, name)
        stream.seek(0)
        with warnings.catch_warnings():
            # What astropy only warns of (a file cut short, headers beyond its end) is checked below.
            warnings.simplefilter("ignore", AstropyWarning)
            try:
                hdus = fits.open(stream, memmap=False, lazy_load_hdus=False)
            except _DAMAGE as error:
                raise InputError(
                    f"{name}: the FITS headers cannot be read ({_one_line(error)}): get the file again"
                ) from None
            with hdus:
                _check_headers(hdus, name)
                _check_sizes(hdus, size, name)
                yield hdus


@contextmanager
def open_tables(path: Path, name: str = "") -> Iterator[Any]:
    """Open a FITS file of binary tables as `open_fits` does, in a fraction of the time where it is plain.

    Yields
    ------
    hdus : list of PlainTable, or HDUList
        For `find_table`.

    Raises
    ------
    InputError
        As `open_fits`, which reads, and judges, whatever is not plain.
    """
    label = name or str(path)
    with _open_regular(path, label) as raw:
        magic = raw.read(2)
        raw.seek(0)
        tables = parse_tables(_expand(raw, label) if magic == b"\x1f\x8b" else raw.read())
    if tables is not None:
        yield tables
        return
    with open_fits(path, name) as hdus:
        yield hdus


def _scan_headers(stream: BinaryIO, size: int, name: str) -> None:
    """Refuse headers with counts beyond the FITS standard, over which astropy would loop for ever."""
    position = 0
    while position < size:
        stream.seek(position)
        block = stream.read(_BLOCK)
        if position and not block.startswith(b"XTENSION"):
            return
        counts: dict[bytes, int] = {}
        while True:
            cards = [block[n : n + 80] for n in range(0, len(block), 80)]
            for card in cards:
                key = card[:8].rstrip()
                if _COUNTS.fullmatch(key) and card[8:10] == b"= ":
                    counts[key] = _whole(card[10:].split(b"/")[0], key, name)
            position += _BLOCK
            if any(card[:8] == b"END     " for card in cards):
                break
            block = stream.read(_BLOCK)
            if not block:  # no END: astropy takes the rest for garbage, which `_check_sizes` refuses
                return
        axes = counts.get(b"NAXIS", 0)
        for key in (b"NAXIS", b"TFIELDS"):
            if not 0 <= counts.get(key, 0) <= _MOST_AXES:
                raise InputError(
                    f"{name}: a FITS header has {key.decode()} = {counts[key]}: get the file again"
                )
        lengths = [counts.get(b"NAXIS%d" % n, 0) for n in range(1, axes + 1)]
        values = math.prod(lengths) if lengths else 0
        n_bytes = (
            abs(counts.get(b"BITPIX", 8))
            // 8
            * counts.get(b"GCOUNT", 1)
            * (counts.get(b"PCOUNT", 0) + values)
        )
        if n_bytes < 0:
            raise InputError(f"{name}: a FITS header declares data of negative size: get the file again")
        position += -(-n_bytes // _BLOCK) * _BLOCK


def _whole(text: bytes, key: bytes, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(
            f"{name}: the FITS keyword {key.decode()} must be a whole number, found {text.decode('latin-1').strip()!r}"
        ) from None


def _open_regular(path: Path, name: str) -> BinaryIO:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{name}: there is no such file: check the data path and the index") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be opened ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name}: is not a regular file but a {_kind(status.st_mode)}: give a FITS file")
    if status.st_size == 0:
        raise InputError(f"{name}: the file is empty: get it again")
    if status.st_size > _MAX_FILE:
        raise InputError(
            f"{name}: has {status.st_size} bytes, more than the {_MAX_FILE} that a DL3 file may have"
        )
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{name}: cannot be opened ({error.strerror})") from None


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "named pipe", stat.S_IFDIR: "folder", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def _expand(raw: BinaryIO, name: str) -> bytes:
    """Whole content of a gzip file: every member complete and with the right check sum, size capped as it grows."""
    parts: list[bytes] = []
    n_in = n_out = 0
    member = zlib.decompressobj(wbits=31)
    while chunk := raw.read(_CHUNK):
        n_in += len(chunk)
        while chunk:
            if member.eof:
                if not chunk.strip(b"\0"):
                    break
                member = zlib.decompressobj(wbits=31)
            try:
                part = member.decompress(chunk, 64 * _CHUNK)
            except zlib.error as error:
                raise InputError(
                    f"{name}: the gzip data are damaged ({_one_line(error)}): get the file again"
                ) from None
            n_out += len(part)
            if n_out > max(_MAX_EXPANDED, _MAX_EXPANSION * n_in):
                raise InputError(
                    f"{name}: expands to more than {n_out >> 20} MiB from {n_in >> 10} KiB, which no event file does: refused"
                )
            parts.append(part)
            chunk = member.unused_data if member.eof else member.unconsumed_tail
    if not member.eof:
        raise InputError(f"{name}: the gzip file is cut short: get it again")
    return b"".join(parts)


def _looks_like(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: run `git lfs pull`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is an HTML page, as a server sends for a wrong address: download the file again"
    return f"it begins with {head[:16]!r}: download or convert it again"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _check_headers(hdus: fits.HDUList, name: str) -> None:
    """Look at every header card and column once, so that none fails later where nobody expects it."""
    for number, hdu in enumerate(hdus):
        if not hasattr(hdu, "fileinfo"):
            raise InputError(f"{name}: HDU {number} has a damaged header: get the file again")
        try:
            for card in hdu.header.cards:
                _ = card.value
            label, _ = hdu.name, hdu.size // 1
            names = hdu.columns.dtype.names if isinstance(hdu, fits.BinTableHDU) else ()
        except _DAMAGE as error:
            raise InputError(
                f"{name}: HDU {number} has a damaged header ({_one_line(error)}): get the file again"
            ) from None
        if not isinstance(label, str) or not all(isinstance(column, str) for column in names or ()):
            raise InputError(f"{name}: HDU {number} has a name or column that is no text: get the file again")


def _check_sizes(hdus: fits.HDUList, size: int, name: str) -> None:
    end = 0
    for number, hdu in enumerate(hdus):
        info = hdu.fileinfo()
        needed = info["datLoc"] + max(int(hdu.size), 0)
        if needed > size:
            label = hdu.name or number
            raise InputError(
                f"{name}: HDU '{label}' declares data up to byte {needed} but the file has {size}: it is cut short, get it again"
            )
        end = info["datLoc"] + info["datSpan"]
    if size - end >= _BLOCK:
        raise InputError(
            f"{name}: {size - end} bytes after HDU '{hdus[-1].name or len(hdus) - 1}' are not a FITS extension: get it again"
        )


def find_table(hdus: fits.HDUList, hdu_name: str, name: str) -> fits.BinTableHDU:
    """Binary table of that name, whatever its case, with its check sums verified where present.

    Raises
    ------
    InputError
        If there is no such HDU, it is no table, or CHECKSUM or DATASUM disagree.
    """
    wanted = hdu_name.strip().upper()
    for hdu in hdus[1:]:
        if hdu.name.strip().upper() == wanted:
            break
    else:
        raise InputError(
            f"{name}: there is no HDU '{hdu_name}' {choices(wanted, (h.name for h in hdus[1:]))}"
        )
    if isinstance(hdu, PlainTable):  # verified when it was read
        return hdu
    if not isinstance(hdu, fits.BinTableHDU):
        raise InputError(f"{name}: HDU '{hdu_name}' is not a binary table")
    settle(hdu, name)
    return hdu


def settle(hdu: Any, name: str) -> None:
    """Verify the check sums of a table, then its description, before either is believed.

    Raises
    ------
    InputError
        If one is wrong.
    """
    verify_sums(hdu, name)
    try:
        described = all(column.name and column.format for column in hdu.columns) and hdu.header["NAXIS2"] >= 0
    except Exception:  # as in `open_fits`
        described = False
    if not described:
        raise InputError(
            f"{name}: HDU '{hdu.name}': the description of its columns is damaged: get the file again"
        )


def verify_sums(hdu: Any, name: str) -> None:
    """Compare CHECKSUM and DATASUM with the content of an HDU whose data were not yet touched.

    Raises
    ------
    InputError
        If one disagrees.
    """
    try:
        for keyword, verify in (("DATASUM", hdu.verify_datasum), ("CHECKSUM", hdu.verify_checksum)):
            if keyword in hdu.header and verify() == 0:
                raise InputError(
                    f"{name}: HDU '{hdu.name}': its {keyword} does not match its content: get the file again"
                )
    except InputError:
        raise
    except Exception as error:  # as in `open_fits`
        raise InputError(
            f"{name}: HDU '{hdu.name}': its check sum cannot be verified ({_one_line(error)})"
        ) from None


def raw_column(hdu: fits.BinTableHDU, column: str, where: str) -> np.ndarray:
    """Values of one column, native byte order.

    Raises
    ------
    InputError
        If it is absent or cannot be read.
    """
    by_upper = {c.name.upper(): c.name for c in hdu.columns}
    if column.upper() not in by_upper:
        raise InputError(f"{where}: the column '{column}' is missing {choices(column, by_upper)}")
    try:
        values = np.asarray(hdu.data[by_upper[column.upper()]])
    except _DAMAGE as error:
        raise InputError(f"{where}: the column '{column}' cannot be read ({_one_line(error)})") from None
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def number_column(hdu: fits.BinTableHDU, column: str, where: str) -> np.ndarray:
    """Values of one column of numbers.

    Raises
    ------
    InputError
        If it is absent or holds no numbers.
    """
    values = raw_column(hdu, column, where)
    if values.dtype.kind not in "iuf":
        form = next(c.format for c in hdu.columns if c.name.upper() == column.upper())
        raise InputError(f"{where}: the column '{column}' must hold numbers, but its format is '{form}'")
    return values


def header_value(header: fits.Header, key: str, default: Any, where: str) -> Any:
    """Value of a keyword, the default where it is missing or has no value.

    Raises
    ------
    InputError
        If the card cannot be parsed.
    """
    try:
        value = header.get(key)
    except (fits.VerifyError, ValueError):
        raise InputError(f"{where}: the keyword {key} cannot be read: correct the header") from None
    return default if value is None or isinstance(value, fits.card.Undefined) else value


def number_key(header: fits.Header, key: str, where: str, default: float | None = None) -> float:
    """Finite number of a header keyword.

    Raises
    ------
    InputError
        If it is missing (without a default), text or not finite.
    """
    value = header_value(header, key, default, where)
    if value is None:
        raise InputError(f"{where}: the keyword {key} is missing")
    if not isinstance(value, int | float) or isinstance(value, bool) or not np.isfinite(value):
        raise InputError(f"{where}: the keyword {key} must be a number, found {value!r}")
    return float(value)


def text_key(header: fits.Header, key: str, default: str, where: str) -> str:
    """Keyword as text without surrounding blanks.

    Raises
    ------
    InputError
        If the card cannot be parsed.
    """
    return str(header_value(header, key, default, where)).strip()


def reference_mjd(header: fits.Header, where: str) -> tuple[float, float]:
    """Whole and fractional part of a time reference; MJDREFF may be text, as in some files, or missing.

    Raises
    ------
    InputError
        If MJDREFI is missing, or one of the two is no number.
    """
    whole, fraction = number_key(header, "MJDREFI", where), header_value(header, "MJDREFF", 0.0, where)
    try:
        number = float(fraction)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise InputError(f"{where}: the keyword MJDREFF must be a number, found {fraction!r}")
    return whole, number
