"""Lists of datasets as the field keeps them: YAML with ``name``, ``type`` and ``filename`` of each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl3flow.data.dataset import Dataset, OffCounts
from dl3flow.errors import InputError, choices
from dl3flow.geometry.region import RegionGeometry
from dl3flow.io.files import write_text
from dl3flow.io.fits_datasets import read_fits_dataset, write_fits_dataset
from dl3flow.io.fits_files import open_fits
from dl3flow.io.gadf_index import resolve_below
from dl3flow.io.ogip import read_ogip
from dl3flow.io.provenance import Provenance
from dl3flow.io.yaml import dump_yaml, read_yaml

_TYPES = ("MapDataset", "MapDatasetOnOff", "SpectrumDataset", "SpectrumDatasetOnOff")


def dataset_type(dataset: Dataset) -> str:
    """The field's name of a dataset's kind."""
    where = "Spectrum" if isinstance(dataset.geom, RegionGeometry) else "Map"
    return f"{where}Dataset{'OnOff' if isinstance(dataset.background, OffCounts) else ''}"


def read_datasets(path: Path) -> list[Dataset]:
    """Datasets of a list, in its order; a spectrum may be in an OGIP file.

    Raises
    ------
    InputError
        If the list or one of its files is missing or damaged, two have one name, or a type is not supported.
    """
    path = Path(path)
    content = read_yaml(path)
    entries = content.get("datasets") if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: holds no list `datasets`: name the file that lists the datasets")
    found = [_read_entry(entry, path, n) for n, entry in enumerate(entries)]
    names = [dataset.name for dataset in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: two datasets have the name '{twice[0]}': give each its own")
    return found


def _read_entry(entry: Any, path: Path, number: int) -> Dataset:
    where = f"{path}: datasets[{number}]"
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: expected `name`, `type` and `filename`, found {entry!r}")
    name, kind, filename = (entry.get(key) for key in ("name", "type", "filename"))
    for key, value in (("name", name), ("filename", filename)):
        if not isinstance(value, str | int) or not str(value):
            raise InputError(f"{where}: the key `{key}` must be text, found {value!r}")
    if kind not in _TYPES:
        raise InputError(f"{where}: the type '{kind}' is not supported {choices(str(kind), _TYPES)}")
    file = resolve_below(path.parent, str(filename), where)
    with open_fits(file) as hdus:
        is_ogip = "SPECTRUM" in (hdu.name.upper() for hdu in hdus)
    dataset = (read_ogip if is_ogip else read_fits_dataset)(file, str(name))
    if not is_ogip and dataset_type(dataset) != kind:
        raise InputError(
            f"{where}: '{filename}' holds a {dataset_type(dataset)}, not a {kind}: correct `type`"
        )
    return dataset


def write_datasets(path: Path, datasets: Sequence[Dataset], provenance: Provenance) -> None:
    """Write datasets beside their list, each as ``NAME.fits``.

    Raises
    ------
    InputError
        If two have one name, one has no background, or a file cannot be written.
    """
    path = Path(path)
    names = [dataset.name for dataset in datasets]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: two datasets have the name '{twice[0]}': give each its own")
    for dataset in datasets:
        write_fits_dataset(path.with_name(f"{dataset.name}.fits"), dataset, provenance)
    entries = [
        {"name": dataset.name, "type": dataset_type(dataset), "filename": f"{dataset.name}.fits"}
        for dataset in datasets
    ]
    write_text(path, dump_yaml({"datasets": entries, "metadata": {"provenance": provenance.to_mapping()}}))
