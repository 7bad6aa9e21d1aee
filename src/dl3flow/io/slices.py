"""Slices of light curves and phase curves as JSON: ``dl3flow.slice/1``, one file per bin.

The bins of each part are arrays of float64, as the base64 of their little-endian bytes with a CRC-32, so that what is read are
the numbers that were written, and a damaged file is noticed.
"""

import base64
import binascii
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from dl3flow.data.slices import Band, Slice
from dl3flow.errors import InputError
from dl3flow.io.files import read_text, write_text
from dl3flow.io.provenance import Provenance, finite_or_null
from dl3flow.kernels.norm import Bins, ExpectedBins, MeasuredBins

FORMAT = "dl3flow.slice/1"
_KINDS: Mapping[str, type[ExpectedBins] | type[MeasuredBins]] = {
    "expected": ExpectedBins,
    "measured": MeasuredBins,
}
_REMEDY = "delete it and run its step again"


def write_slice(path: Path, measured: Slice, provenance: Provenance) -> None:
    """Write one slice."""
    content = {
        "format": FORMAT,
        "label": measured.label,
        "low": measured.low,
        "high": measured.high,
        "failure": measured.failure,
        "warnings": list(measured.warnings),
        "datasets": list(measured.datasets),
        "livetime_s": float(measured.livetime.to_value(u.s)),
        "bands": [
            {
                "edges_TeV": band.edges.to_value(u.TeV).tolist(),
                "beside": {"counts": band.counts, "expected": band.expected, "stat": band.stat},
                "parts": [_packed(part) for part in band.parts],
            }
            for band in measured.bands
        ],
        "provenance": provenance.to_mapping(),
    }
    write_text(path, json.dumps(finite_or_null(content), indent=1, allow_nan=False) + "\n")


def _packed(bins: Bins) -> dict[str, Any]:
    columns = [np.asarray(getattr(bins, f.name), dtype="<f8") for f in fields(bins)]
    data = np.concatenate(columns).tobytes()
    kind = next(name for name, each in _KINDS.items() if isinstance(bins, each))
    packed = base64.b64encode(data).decode()
    return {"kind": kind, "n": len(columns[0]), "crc": zlib.crc32(data), "data": packed}


def read_slice(path: Path) -> Slice:
    """Read one slice.

    Raises
    ------
    InputError
        If the file is missing, damaged, or of another format.
    """
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}), perhaps cut short: {_REMEDY}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise InputError(f"{path}: the format is {found!r}, expected '{FORMAT}': name the file of a bin")
    try:
        bands = tuple(_band(entry) for entry in content["bands"])
        livetime = _number(content["livetime_s"]) * u.s
        return Slice(
            str(content["label"]),
            _number(content["low"]),
            _number(content["high"]),
            bands,
            tuple(content["datasets"]),
            livetime,
            str(content["failure"]),
            tuple(content["warnings"]),
        )
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error}): {_REMEDY}") from None


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _band(entry: Mapping[str, Any]) -> Band:
    beside = entry["beside"]
    return Band(
        np.array(entry["edges_TeV"], dtype=float) * u.TeV,
        tuple(_unpacked(part) for part in entry["parts"]),
        *(_number(beside[name]) for name in ("counts", "expected", "stat")),
    )


def _unpacked(entry: Mapping[str, Any]) -> Bins:
    data, kind = base64.b64decode(entry["data"], validate=True), _KINDS[entry["kind"]]
    if zlib.crc32(data) != entry["crc"]:
        raise ValueError("the bins do not have the checksum that was written with them")
    columns = np.frombuffer(data, dtype="<f8").astype(float).reshape(len(fields(kind)), entry["n"])
    return kind(*columns)
