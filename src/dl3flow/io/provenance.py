"""Provenance: what made a product, without clock times, host names or paths, so that the same inputs give the same bytes."""

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dl3flow import __version__
from dl3flow.errors import InputError
from dl3flow.io.files import check_regular_file

PACKAGES = ("numpy", "scipy", "astropy", "regions", "h5py", "pandas")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Provenance:
    """Everything that a product depends on.

    Attributes
    ----------
    step : str
        Name of the step, such as ``reduce_observation``.
    code : str
        Digest of the step's source code.
    options : str
        The configuration slice as canonical JSON.
    inputs : mapping
        By role, a list of ``{"name": base name, "sha256": hex}``.
    versions : mapping
        Of dl3flow, Python and the packages that numbers depend on.
    """

    step: str
    code: str
    options: str
    inputs: Mapping[str, Sequence[Mapping[str, str]]]
    versions: Mapping[str, str]

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values; the options as their own mapping."""
        return {
            "step": self.step,
            "code": self.code,
            "options": json.loads(self.options),
            "inputs": {role: [dict(entry) for entry in files] for role, files in self.inputs.items()},
            "versions": dict(self.versions),
        }

    def to_json(self) -> str:
        """Canonical JSON text."""
        return canonical_json(self.to_mapping())


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces, ASCII; NaN and infinity become null."""
    return json.dumps(
        finite_or_null(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def finite_or_null(value: Any) -> Any:
    """Same JSON value with NaN and infinity, which JSON does not know, as None; numpy scalars and arrays as numbers and lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def collect_provenance(
    step: str, code: str, options: Mapping[str, Any], inputs: Mapping[str, Sequence[Path]]
) -> Provenance:
    """Provenance of a step about to run: hashes its input files.

    Raises
    ------
    InputError
        If an input is missing or not a regular file.
    """
    hashed = {
        role: [{"name": Path(path).name, "sha256": file_sha256(path)} for path in paths]
        for role, paths in inputs.items()
    }
    return Provenance(step, code, canonical_json(options), hashed, _versions())


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes, in hex, read in blocks."""
    digest = hashlib.sha256()
    try:
        with check_regular_file(path).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the disk") from None
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {"dl3flow": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an optional package, not part of this installation
            continue
    return found
