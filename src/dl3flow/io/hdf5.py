"""Reduced observations (DL4) as HDF5: one file per Dataset, or a record of why there is none.

Format ``dl3flow.dataset/2``: the root's attributes are ``format``, ``name``, ``provenance`` (JSON) and ``contents`` (which of
the optional parts there are, so that a lost one is noticed); the groups are

- ``counts``, ``exposure``: a map each; ``psf``, ``edisp`` (may be absent): ``response`` and ``exposure``, a map each.
  A map is a group with the dataset ``data`` and as attributes its axes and either the pixels of a sky map or, for a
  spectrum, the text of its ``region`` (DS9).
- ``background`` (may be absent): its attribute ``kind`` is ``expected``, with the map ``counts``, or ``off``, with the maps
  ``counts``, ``acceptance`` and ``acceptance_off``.
- ``masks``: ``safe`` and, if set, ``fit`` as 0 and 1; ``reasons`` (may be absent), one bit for each of the names in the
  attribute ``reasons`` (JSON); ``gti``: ``start`` and ``stop`` in s after a reference; ``meta``: the attribute ``json``.

A text of more than 60000 bytes is a dataset of bytes in place of an attribute.

``dl3flow.dataset/1`` is read too: sky maps with an expected background only, which is the group ``background`` itself.

Sky maps are stored as float32 (values above 2^24 lose their last digits), spectra as float64, both with a checksum per
chunk. Arrays that are mostly zero (counts, masks, dispersion) are compressed (LZF, which h5py brings); the others shrink to
a half at best, in more time than their computation takes. The file's own structures carry checksums since the 1.10 file
format. Equal datasets give equal bytes. Read values are float64.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import astropy.units as u
import h5py
import numpy as np
from astropy.time import Time

from dl3flow.data.dataset import Dataset, ExpectedCounts, MaskReasons, OffCounts
from dl3flow.data.events import Gti
from dl3flow.data.maps import EdispMap, Map, PsfMap
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import Geometry, RegionGeometry
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.io.files import check_regular_file, write_product
from dl3flow.io.provenance import Provenance, canonical_json

FORMAT = "dl3flow.dataset/2"
_FIRST_FORMAT = "dl3flow.dataset/1"
FAILURE = "dl3flow.failure/1"
_LIBRARY = (
    "v110",
    "v110",
)  # a fixed file format, whatever the library: checksums in all headers, and the same bytes
_MAX_EXPANSION = 1100  # deflate cannot shrink more than 1032 to 1
_CHUNK_BYTES = 1 << 19
_LONG_TEXT = 60_000
_SAMPLED = 16  # one value in so many tells whether an array is mostly zero
_REMEDY = "delete it and reduce the observation again"


def write_dataset(path: Path, dataset: Dataset, provenance: Provenance) -> None:
    """Write one dataset."""

    def write(temporary: Path) -> None:
        with h5py.File(temporary, "w", libver=_LIBRARY) as file:
            parts = {
                "background": dataset.background,
                "psf": dataset.psf,
                "edisp": dataset.edisp,
                "fit": dataset.mask_fit,
                "reasons": dataset.reasons,
            }
            contents = " ".join(name for name, part in parts.items() if part is not None)
            _set_text(
                file, format=FORMAT, name=dataset.name, provenance=provenance.to_json(), contents=contents
            )
            _write_map(file.create_group("counts"), dataset.counts)
            if dataset.background is not None:
                _write_background(file.create_group("background"), dataset.background)
            _write_map(file.create_group("exposure"), dataset.exposure)
            if dataset.psf is not None:
                _write_response(file.create_group("psf"), dataset.psf.psf, dataset.psf.exposure)
            if dataset.edisp is not None:
                _write_response(file.create_group("edisp"), dataset.edisp.edisp, dataset.edisp.exposure)
            masks = file.create_group("masks")
            _write_array(masks, "safe", dataset.mask_safe.astype(np.uint8))
            if dataset.mask_fit is not None:
                _write_array(masks, "fit", dataset.mask_fit.astype(np.uint8))
            if dataset.reasons is not None:
                _set_text(masks, reasons=json.dumps(dataset.reasons.names))
                _write_array(masks, "reasons", dataset.reasons.bits.astype(np.uint8))
            gti = file.create_group("gti")
            _write_array(gti, "start", dataset.gti.start.to_value(u.s))
            _write_array(gti, "stop", dataset.gti.stop.to_value(u.s))
            reference = dataset.gti.reference
            gti.attrs["reference_jd"] = np.array([reference.jd1, reference.jd2])
            _set_text(gti, scale=reference.scale)
            _set_text(file.create_group("meta"), json=canonical_json(dict(dataset.meta)))

    write_product(path, write)


def write_failure(path: Path, name: str, obs_id: int, reason: str, provenance: Provenance) -> None:
    """Write, in place of a dataset, why an observation could not be reduced."""

    def write(temporary: Path) -> None:
        with h5py.File(temporary, "w", libver=_LIBRARY) as file:
            _set_text(file, format=FAILURE, name=name, reason=reason, provenance=provenance.to_json())
            file.attrs["obs_id"] = int(obs_id)

    write_product(path, write)


def read_failure(path: Path) -> str | None:
    """Why there is no dataset in this file; None if there is one.

    Raises
    ------
    InputError
        If the file is neither.
    """
    with _Opened(path) as file:
        return _text(file, "reason") if _format(file) == FAILURE else None


def read_dataset(path: Path) -> Dataset:
    """Read one dataset.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another format, incomplete or inconsistent, or holds a failure.
    """
    with _Opened(path) as file:
        if _format(file) == FAILURE:
            raise InputError(
                f"holds no dataset, since the observation could not be reduced: {_text(file, 'reason')}"
            )
        counts = _read_map(_member(file, "counts", h5py.Group), ("energy",))
        exposure = _read_map(_member(file, "exposure", h5py.Group), ("energy_true",))
        if exposure.geom != counts.geom:
            raise InputError(f"group 'exposure' is not on the pixels of 'counts': {_REMEDY}")
        contents = _text(file, "contents").split()
        psf, edisp = (_read_response(file, name) if name in contents else None for name in ("psf", "edisp"))
        masks, gti = _member(file, "masks", h5py.Group), _member(file, "gti", h5py.Group)
        if psf is not None and psf[0].axes[1].name != "rad":
            raise InputError(
                f"group 'psf' has the second axis '{psf[0].axes[1].name}' instead of 'rad': {_REMEDY}"
            )
        if edisp is not None and edisp[0].axes[1].name not in ("energy", "migra"):
            raise InputError(
                f"group 'edisp' has the second axis '{edisp[0].axes[1].name}', not 'energy' or 'migra': {_REMEDY}"
            )
        return Dataset(
            name=_text(file, "name"),
            counts=counts,
            background=_read_background(file, counts, contents),
            exposure=exposure,
            psf=None if psf is None else PsfMap(*psf),
            edisp=None if edisp is None else EdispMap(*edisp),
            mask_safe=_read_mask(masks, "safe", counts.data.shape),
            mask_fit=_read_mask(masks, "fit", counts.data.shape) if "fit" in contents else None,
            gti=_read_gti(gti),
            meta=_json(_member(file, "meta", h5py.Group), "json"),
            reasons=_read_reasons(masks, counts.data.shape) if "reasons" in contents else None,
        )


def read_provenance(path: Path) -> Mapping[str, Any]:
    """Provenance of a dataset or failure record."""
    with _Opened(path) as file:
        _format(file)
        return _json(file, "provenance")


class _Opened:
    """An HDF5 file open for reading, in whose block every error names the file."""

    def __init__(self, path: Path) -> None:
        self.path = check_regular_file(path)

    def __enter__(self) -> h5py.File:
        try:
            self.file = h5py.File(self.path, "r")
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise InputError(
                f"{self.path}: not an HDF5 file, or cut short ({_first_line(error)}): {_REMEDY}"
            ) from None
        return self.file

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.file.close()
        if isinstance(error, InputError):
            raise InputError(f"{self.path}: {error}") from None
        if isinstance(error, OSError | RuntimeError | ValueError | KeyError | TypeError | OverflowError):
            raise InputError(f"{self.path}: damaged ({_first_line(error)}): {_REMEDY}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _format(file: h5py.File) -> str:
    found = _text(file, "format") if "format" in file.attrs else ""
    kind, _, version = found.partition("/")
    if found in (FORMAT, _FIRST_FORMAT, FAILURE):
        return found
    if f"{kind}/1" in (_FIRST_FORMAT, FAILURE) and version.isdigit():
        raise InputError(f"has the format '{found}', newer than '{FORMAT}': read it with a newer dl3flow")
    raise InputError(
        f"is not a dl3flow dataset (attribute 'format' is '{found}', expected '{FORMAT}'): name another file"
    )


def _set_text(place: h5py.Group, **values: str) -> None:
    # Fixed-length bytes: texts of variable length, and long ones, live in a heap without checksums.
    for key, value in values.items():
        content = value.encode() or b" "
        if len(content) > _LONG_TEXT:
            _write_array(place, key, np.frombuffer(content, dtype=np.uint8))
        else:
            place.attrs[key] = np.bytes_(content)


def _text(place: h5py.Group, key: str) -> str:
    if key not in place.attrs and isinstance(place.get(key, getlink=True), h5py.HardLink):
        return _read_array(place, key, None, "u").tobytes().decode().strip()
    value = _attribute(place, key)
    if not isinstance(value, bytes):
        raise InputError(f"attribute '{key}' of '{place.name}' is no text: {_REMEDY}")
    return value.decode().strip()


def _json(place: h5py.Group, key: str) -> dict[str, Any]:
    value = json.loads(_text(place, key))
    if not isinstance(value, dict):
        raise InputError(f"attribute '{key}' of '{place.name}' is no mapping: {_REMEDY}")
    return value


def _attribute(place: h5py.Group, key: str) -> Any:
    if key not in place.attrs:
        raise InputError(f"attribute '{key}' of '{place.name}' is missing: {_REMEDY}")
    return place.attrs[key]


def _write_array(group: h5py.Group, name: str, data: np.ndarray) -> None:
    if data.size == 0:  # nothing to compress, and chunks may not be empty
        group.create_dataset(name, data=data, track_times=False)
        return
    chunks = list(data.shape)
    for axis in range(data.ndim - 1):
        if math.prod(chunks) * data.dtype.itemsize > _CHUNK_BYTES:
            chunks[axis] = 1
    sample = data.reshape(-1)[::_SAMPLED]
    is_compressed = data.dtype.kind == "u" or 2 * np.count_nonzero(sample) < sample.size
    group.create_dataset(
        name,
        data=data,
        chunks=tuple(chunks),
        shuffle=is_compressed and data.dtype.itemsize > 1,
        compression="lzf" if is_compressed else None,
        fletcher32=True,
        track_times=False,
    )


def _write_background(group: h5py.Group, background: ExpectedCounts | OffCounts) -> None:
    match background:
        case ExpectedCounts(counts):
            _set_text(group, kind="expected")
            _write_map(group.create_group("counts"), counts)
        case OffCounts(counts, acceptance, acceptance_off):
            _set_text(group, kind="off")
            for name, values in (
                ("counts", counts),
                ("acceptance", acceptance),
                ("acceptance_off", acceptance_off),
            ):
                _write_map(group.create_group(name), values)


def _write_map(group: h5py.Group, map_: Map) -> None:
    _set_text(group, unit=map_.unit.to_string(), axes=" ".join(axis.name for axis in map_.axes))
    match map_.geom:
        case RegionGeometry(text):
            _set_text(group, region=text)
            dtype: type = np.float64
        case SkyGeometry() as geom:
            _set_text(group, frame=geom.frame, proj=geom.proj)
            group.attrs.update(lon_0=geom.lon_0, lat_0=geom.lat_0, binsz=geom.binsz)
            group.attrs.update(crpix=np.array(geom.crpix, dtype=float))
            group.attrs.update(shape=np.array(geom.shape), corner=np.array(geom.corner))
            dtype = np.float32
    for axis in map_.axes:
        _set_text(group, **{f"{axis.name}_unit": axis.unit.to_string(), f"{axis.name}_scale": axis.scale})
        group.attrs[f"{axis.name}_edges"] = np.asarray(axis.edges.value, dtype=float)
        if axis.nodes is not None:
            group.attrs[f"{axis.name}_nodes"] = axis.nodes.to_value(axis.unit)
    _write_array(group, "data", np.asarray(map_.data, dtype=dtype))


def _write_response(group: h5py.Group, response: Map, exposure: Map) -> None:
    _write_map(group.create_group("response"), response)
    _write_map(group.create_group("exposure"), exposure)


def _member(group: h5py.Group, name: str, kind: type) -> Any:
    link = group.get(name, getlink=True)
    if link is None:
        raise InputError(f"'{group.name}' has no '{name}': {_REMEDY}")
    if not isinstance(link, h5py.HardLink):
        raise InputError(
            f"'{name}' in '{group.name}' is a link, which is not followed: copy what it points to into the file"
        )
    member = group[name]
    if not isinstance(member, kind):
        raise InputError(f"'{member.name}' is not a {kind.__name__.lower()}: {_REMEDY}")
    return member


def _read_array(group: h5py.Group, name: str, shape: tuple[int, ...] | None, kinds: str) -> np.ndarray:
    data = _member(group, name, h5py.Dataset)
    if data.is_virtual or data.external:
        raise InputError(
            f"'{data.name}' keeps its values in other files, which are not opened: copy them into the file"
        )
    if data.dtype.kind not in kinds:
        raise InputError(f"'{data.name}' has values of type {data.dtype}: {_REMEDY}")
    if data.ndim != (1 if shape is None else len(shape)) or (shape is not None and data.shape != shape):
        raise InputError(
            f"'{data.name}' has the shape {data.shape}, expected {shape or 'one axis'}: {_REMEDY}"
        )
    if data.size * data.dtype.itemsize > _MAX_EXPANSION * data.id.get_storage_size():
        raise InputError(f"'{data.name}' declares {data.size} values, more than it can hold: {_REMEDY}")
    try:
        return np.asarray(data[()])
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"'{data.name}' is damaged, its checksum does not fit ({_first_line(error)}): {_REMEDY}"
        ) from None


def _read_axis(group: h5py.Group, name: str) -> Axis:
    unit = u.Unit(_text(group, f"{name}_unit"))
    scale = _text(group, f"{name}_scale")
    edges = np.array(_attribute(group, f"{name}_edges"), dtype=float)
    nodes = np.array(group.attrs[f"{name}_nodes"], dtype=float) if f"{name}_nodes" in group.attrs else None
    points = edges if nodes is None else nodes
    if (
        edges.ndim != 1
        or not np.isfinite(edges).all()
        or (len(points) > 1 and not (np.diff(points) > 0).all())
    ):
        raise InputError(f"the edges of axis '{name}' in '{group.name}' do not increase: {_REMEDY}")
    if scale not in ("lin", "log"):
        raise InputError(
            f"the scale of axis '{name}' in '{group.name}' is '{scale}', not 'lin' or 'log': {_REMEDY}"
        )
    return Axis(
        name, edges * unit, "log" if scale == "log" else "lin", None if nodes is None else nodes * unit
    )


def _read_map(group: h5py.Group, axes: tuple[str | None, ...]) -> Map:
    names = _text(group, "axes").split()
    if len(names) != len(axes) or any(
        want is not None and want != name for want, name in zip(axes, names, strict=True)
    ):
        raise InputError(
            f"'{group.name}' has the axes {names}, expected {[name or 'any' for name in axes]}: {_REMEDY}"
        )
    found = tuple(_read_axis(group, name) for name in names)
    geom = _read_geometry(group)
    expected = (*(axis.n_bins for axis in found), *geom.shape)
    data = _read_array(group, "data", expected, "f").astype(float, copy=False)
    return Map(geom, found, data, u.Unit(_text(group, "unit")))


def _read_geometry(group: h5py.Group) -> Geometry:
    if "region" in group.attrs:
        return RegionGeometry(_text(group, "region"))
    numbers = {key: float(_attribute(group, key)) for key in ("lon_0", "lat_0", "binsz")}
    shape, corner, crpix = (
        tuple(np.array(_attribute(group, key)).tolist()) for key in ("shape", "corner", "crpix")
    )
    if (
        not all(map(math.isfinite, (*numbers.values(), *crpix)))
        or not numbers["binsz"] > 0
        or len(shape) != 2
    ):
        raise InputError(f"the pixels of '{group.name}' are not defined ({numbers}): {_REMEDY}")
    return SkyGeometry(
        _text(group, "frame"), _text(group, "proj"), **numbers, shape=shape, crpix=crpix, corner=corner
    )


def _read_background(file: h5py.File, counts: Map, contents: list[str]) -> ExpectedCounts | OffCounts | None:
    is_first = _format(file) == _FIRST_FORMAT
    if not is_first and "background" not in contents:
        return None
    group = _member(file, "background", h5py.Group)
    kind = "expected" if is_first else _text(group, "kind")
    if kind not in ("expected", "off"):
        raise InputError(f"the background is of kind '{kind}', not 'expected' or 'off': {_REMEDY}")
    places = (
        {"background": group}
        if is_first
        else {
            f"background/{name}": _member(group, name, h5py.Group)
            for name in ("counts", *(("acceptance", "acceptance_off") if kind == "off" else ()))
        }
    )
    maps = []
    for name, place in places.items():
        found = _read_map(place, ("energy",))
        if found.geom != counts.geom or not found.axes[0].is_close(counts.axes[0]):
            raise InputError(f"group '{name}' is not on the pixels and energies of 'counts': {_REMEDY}")
        maps.append(found)
    return OffCounts(*maps) if kind == "off" else ExpectedCounts(*maps)


def _read_response(file: h5py.File, name: str) -> tuple[Map, Map]:
    group = _member(file, name, h5py.Group)
    response = _read_map(_member(group, "response", h5py.Group), ("energy_true", None))
    exposure = _read_map(_member(group, "exposure", h5py.Group), ("energy_true",))
    if exposure.geom != response.geom or not exposure.axes[0].is_close(response.axes[0]):
        raise InputError(f"'{exposure.data.shape}' of group '{name}' does not fit its response: {_REMEDY}")
    return response, exposure


def _read_mask(group: h5py.Group, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = _read_array(group, name, shape, "u")
    if values.size and values.max() > 1:
        raise InputError(f"'{group.name}/{name}' holds values other than 0 and 1: {_REMEDY}")
    return values.astype(bool)


def _read_reasons(group: h5py.Group, shape: tuple[int, ...]) -> MaskReasons:
    names = json.loads(_text(group, "reasons"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"attribute 'reasons' of '{group.name}' is no list of names: {_REMEDY}")
    bits = _read_array(group, "reasons", shape, "u")
    if bits.size and bits.max() >= 1 << len(names):
        raise InputError(f"'{group.name}/reasons' has bits without a name: {_REMEDY}")
    return MaskReasons(tuple(names), bits)


def _read_gti(group: h5py.Group) -> Gti:
    start, stop = (_read_array(group, name, None, "f") for name in ("start", "stop"))
    if len(start) != len(stop):
        raise InputError(f"'gti' has {len(start)} starts and {len(stop)} stops: {_REMEDY}")
    jd1, jd2 = (float(v) for v in np.array(_attribute(group, "reference_jd")))
    return Gti(start * u.s, stop * u.s, Time(jd1, jd2, format="jd", scale=_text(group, "scale")))
