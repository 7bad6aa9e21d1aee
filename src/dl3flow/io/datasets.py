"""Reduced observations and stacks, in whichever of the two formats they are kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from warnings import warn

from dl3flow.data.dataset import Dataset, FitData
from dl3flow.errors import InputError
from dl3flow.io.fits_datasets import read_fits_dataset
from dl3flow.io.flux_points_data import read_flux_points_data
from dl3flow.io.hdf5 import read_dataset, read_failure
from dl3flow.io.ogip import named_files, read_ogip

# readers of data reduced elsewhere
READERS: Mapping[str, Callable[[Path, str], FitData]] = {
    "dataset": read_fits_dataset,
    "ogip": read_ogip,
    "flux_points": read_flux_points_data,
    "flux_points_profile": partial(read_flux_points_data, stat_type="profile"),
    "flux_points_distrib": partial(read_flux_points_data, stat_type="distrib"),
}


def read_failures(paths: Sequence[Path], on_error: str) -> dict[Path, str]:
    """Why observations could not be reduced, by file.

    Raises
    ------
    InputError
        Listing all of them, if there are any and ``on_error`` is ``stop``.
    """
    failures = {path: why for path in paths if (why := read_failure(path)) is not None}
    if failures and on_error == "stop":
        listed = "".join(f"\n  {path.parent.name}/{path.stem}: {why}" for path, why in failures.items())
        raise InputError(
            f"{len(failures)} of {len(paths)} observations could not be reduced; repair them, leave them out in `select`, "
            f"or set `on_error: skip` to go on without them:{listed}"
        )
    return failures


def read_reduced(paths: Sequence[Path], on_error: str) -> Iterator[Dataset]:
    """Reduced observations, one at a time, without those that could not be reduced."""
    failures = read_failures(paths, on_error)
    for path, why in failures.items():
        warn(f"{path.stem} is left out: {why}", stacklevel=2)
    yield from (read_dataset(path) for path in paths if path not in failures)


def read_fit_datasets(
    paths: Sequence[Path],
    on_error: str = "skip",
    external: Sequence[Path] = (),
    inputs: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> list[FitData]:
    """Stacks and reduced observations, without those that could not be reduced, and data reduced elsewhere.

    Parameters
    ----------
    paths : sequence of Path
        Of stacks and reduced observations.
    on_error : 'stop' or 'skip'
    external : sequence of Path
        Files of ``inputs``, those of one after those of another.
    inputs : mapping
        By name: ``reader``, the number of its files, ``all``, and how many of these are to be read, ``main``; the others
        are read by way of them.
    """
    stacks = [read_fits_dataset(path, path.parent.name) for path in paths if path.suffix == ".fits"]
    runs = read_reduced([path for path in paths if path.suffix != ".fits"], on_error)
    found: list[FitData] = [*stacks, *runs]
    waiting = list(external)
    for name, entry in inputs.items():
        files, waiting = waiting[: entry["all"]][: entry["main"]], waiting[entry["all"] :]
        names = [name] if len(files) == 1 else [f"{name}-{n}" for n in range(len(files))]
        found += [READERS[entry["reader"]](path, each) for path, each in zip(files, names, strict=True)]
    return found


def input_files(reader: str, path: Path) -> tuple[list[Path], list[Path]]:
    """Files to read, and those that they name, of data reduced elsewhere.

    Parameters
    ----------
    reader : str
        Of `READERS`.
    path : Path
        A file; for OGIP spectra a PHA file or a folder of them.

    Raises
    ------
    InputError
        If a folder holds no PHA file, or is given where a file is asked for.
    """
    if reader != "ogip":
        if path.is_dir():
            raise InputError(f"{path}: is a folder: name the file of the dataset")
        return [path], []
    main = sorted(path.glob("pha*.fits*")) if path.is_dir() else [path]
    # gammapy names the others of a set so
    main = [p for p in main if not p.name.split(".fits")[0].endswith(("_arf", "_bkg", "_rmf"))]
    if not main:
        raise InputError(f"{path}: holds no file pha*.fits: name a folder of OGIP spectra, or one PHA file")
    return main, [p for each in main for p in named_files(each)]
