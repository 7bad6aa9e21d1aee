"""Datasets that are read one at a time, for fits over more than the memory holds."""

from collections.abc import Callable, Sequence
from typing import Any

from dl3flow.data.dataset import FitData


class LazyDatasets(Sequence[FitData]):
    """Datasets that are read whenever they are asked for, and not kept.

    Parameters
    ----------
    readers : sequence of function () -> dataset
    """

    def __init__(self, readers: Sequence[Callable[[], FitData]]) -> None:
        self._readers = tuple(readers)

    def __len__(self) -> int:
        return len(self._readers)

    def __getitem__(self, number: Any) -> Any:
        found = self._readers[number]
        return LazyDatasets(found) if isinstance(found, tuple) else found()
