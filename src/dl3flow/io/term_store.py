"""Compact forms of datasets on a disk, for a joint fit over more than the memory holds."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import h5py
import numpy as np

Arrays = Mapping[str, np.ndarray]
Store = Callable[[Arrays], Callable[[], Arrays]]


@contextmanager
def open_store(folder: Path | None = None) -> Iterator[Store]:
    """A store that lasts as long as the context: put arrays in, get a function that reads them again.

    Parameters
    ----------
    folder : Path, optional
        Where its file lies, which is gone at the end; the system's folder for temporary files by default.

    Yields
    ------
    store : function (arrays) -> function () -> arrays
        What is read are the numbers that were put in, to the last bit.
    """
    with (
        TemporaryDirectory(dir=folder, prefix="dl3flow-") as place,
        h5py.File(Path(place, "terms.h5"), "w") as file,
    ):
        # HDF5 reads one thing at a time
        lock = Lock()

        def store(arrays: Arrays) -> Callable[[], Arrays]:
            with lock:
                group = file.create_group(str(len(file)))
                for name, values in arrays.items():
                    group.create_dataset(name, data=values)

            def load() -> Arrays:
                with lock:
                    return {name: group[name][()] for name in arrays}

            return load

        yield store
