"""Reduced observations and stacks, in whichever of the two formats they are kept."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from warnings import warn

from dl3flow.data.dataset import Dataset
from dl3flow.errors import InputError
from dl3flow.io.fits_datasets import read_fits_dataset
from dl3flow.io.hdf5 import read_dataset, read_failure


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


def read_fit_datasets(paths: Sequence[Path], on_error: str = "skip") -> list[Dataset]:
    """Stacks and reduced observations, without those that could not be reduced."""
    stacks = [read_fits_dataset(path, path.parent.name) for path in paths if path.suffix == ".fits"]
    runs = read_reduced([path for path in paths if path.suffix != ".fits"], on_error)
    return [*stacks, *runs]
