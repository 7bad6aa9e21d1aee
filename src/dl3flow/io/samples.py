"""Samples of a posterior as HDF5.

Format ``dl3flow.samples/1``: attributes of the root are ``format``, ``names``, ``meta`` and ``provenance`` (JSON), ``n_walkers``
and ``acceptance``; datasets are ``values`` (n_samples, n_free), ``log_posterior`` (n_samples,) and ``autocorrelation`` (n_free,).
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dl3flow.data.products import Samples
from dl3flow.errors import InputError
from dl3flow.io.files import check_regular_file, write_product
from dl3flow.io.provenance import Provenance, canonical_json

FORMAT = "dl3flow.samples/1"
# a fixed file format, whatever the library
_LIBRARY = ("v110", "v110")
_REMEDY = "sample the posterior again"


def write_samples(path: Path, samples: Samples, provenance: Provenance) -> None:
    """Write samples of a posterior; equal samples give equal bytes."""

    def write(temporary: Path) -> None:
        with h5py.File(temporary, "w", libver=_LIBRARY) as file:
            file.attrs["format"] = FORMAT
            file.attrs["names"] = json.dumps(samples.names)
            file.attrs["meta"] = canonical_json(dict(samples.meta))
            file.attrs["provenance"] = provenance.to_json()
            file.attrs["n_walkers"] = samples.n_walkers
            file.attrs["acceptance"] = samples.acceptance
            for name in ("values", "log_posterior", "autocorrelation"):
                file.create_dataset(
                    name,
                    data=np.asarray(getattr(samples, name), dtype="f8"),
                    fletcher32=True,
                    chunks=True,
                    track_times=False,
                )

    write_product(path, write)


def read_samples(path: Path) -> Samples:
    """Read samples of a posterior.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another kind, or lacks a part.
    """
    path = Path(path)
    check_regular_file(path)
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("format")
            if found != FORMAT:
                raise InputError(
                    f"{path}: the format is {found!r}, expected '{FORMAT}': name a file of samples"
                )
            names = tuple(json.loads(file.attrs["names"]))
            values, log_posterior, autocorrelation = (
                np.array(file[name], dtype=float) for name in ("values", "log_posterior", "autocorrelation")
            )
            meta: dict[str, Any] = json.loads(file.attrs["meta"])
            n_walkers, acceptance = int(file.attrs["n_walkers"]), float(file.attrs["acceptance"])
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: the samples are damaged ({reason}): {_REMEDY}") from None
    shapes = (len(log_posterior), len(names)), (len(names),)
    if (values.shape, autocorrelation.shape) != shapes:
        raise InputError(
            f"{path}: the samples have the shape {values.shape} for {len(names)} parameters and {len(log_posterior)} values of the "
            f"posterior: {_REMEDY}"
        )
    return Samples(names, values, log_posterior, n_walkers, acceptance, autocorrelation, meta)
