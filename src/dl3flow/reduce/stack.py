"""Stack: many datasets of one instrument summed into one."""

from collections.abc import Iterable, Sequence
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from dl3flow.data.dataset import Dataset, ExpectedCounts, MaskReasons, OffCounts
from dl3flow.data.maps import EdispMap, Map, PsfMap
from dl3flow.errors import InputError
from dl3flow.geometry.region import Geometry, RegionGeometry


def stack(datasets: Iterable[Dataset], name: str, geom: Geometry, geom_irf: Geometry) -> Dataset:
    """Sum of datasets over their safe bins.

    Counts and background are summed in safe bins; exposure in pixels with any safe energy; point spread and dispersion
    are averaged with the exposure, the dispersion only into safe energy bins; safe masks are joined. Fit masks are
    dropped: they belong to the fit of one dataset. (The rules of the peer's documentation, "Stacking Multiple
    Datasets".) Off counts are summed too; the acceptance is, and the stacked acceptance_off is chosen so that
    alpha n_off is the sum of theirs; where no off count was seen, alpha is the mean one, weighted with off counts, and if there is none
    at all, that of the summed acceptances.

    One dataset is held at a time beside the sums, so memory does not grow with their number. Datasets given as a list
    are summed in the order of their observations, so that the list's order changes no bit; a stream is summed as it
    comes, and the readers of files sort them.

    Parameters
    ----------
    datasets : iterable of Dataset
        On one pixel grid or region, with the same axes, kind of background and instrument.
    name : str
    geom, geom_irf : SkyGeometry or RegionGeometry
        Whole geometry of the analysis: counts, and response maps.

    Returns
    -------
    stacked : Dataset
        With ``mask_reasons`` in its meta: for each safe mask the number of bins per energy that it dropped, summed over
        the datasets, and under ``all`` the number of bins there were; of a few spectra all off regions.

    Raises
    ------
    InputError
        If there is none, or they do not fit together.
    """
    if isinstance(datasets, Sequence):
        datasets = sorted(datasets, key=lambda dataset: (list(dataset.meta["obs_ids"]), dataset.name))
    total: _Sums | None = None
    for dataset in datasets:
        total = _Sums(dataset, geom, geom_irf) if total is None else total
        total.add(dataset)
    if total is None:
        raise InputError(f"stack '{name}': there is no dataset to stack: all observations were left out")
    return total.dataset(name)


# off regions of more datasets than this would hide one another in a picture
_MOST_SKETCHES = 12


class _Sums:
    """Running sums of a stack; the only mutable state, private to `stack`."""

    def __init__(self, first: Dataset, geom: Geometry, geom_irf: Geometry) -> None:
        self.first, self.geom, self.geom_irf = first, geom, geom_irf
        n_energy, n_true = first.energy.n_bins, first.energy_true.n_bins
        self.counts = np.zeros((n_energy, *geom.shape))
        self.background = np.zeros_like(self.counts)
        self.off = np.zeros_like(self.counts)
        self.acceptance = np.zeros_like(self.counts)
        self.acceptance_off = np.zeros_like(self.counts)
        self.mask = np.zeros(self.counts.shape, dtype=bool)
        self.exposure = np.zeros((n_true, *geom.shape))
        if first.psf is not None:
            self.psf = np.zeros((*first.psf.psf.data.shape[:2], *geom_irf.shape))
        if first.edisp is not None:
            self.edisp = np.zeros((*first.edisp.edisp.data.shape[:2], *geom_irf.shape))
        self.psf_exposure = np.zeros((n_true, *geom_irf.shape))
        self.edisp_exposure = np.zeros_like(self.psf_exposure)
        self.gti = first.gti
        self.obs_ids: list[int] = []
        self.warnings: list[str] = []
        self.reasons: dict[str, np.ndarray] = {}
        self.regions: list[str] = []
        self.livetime: float | None = 0.0
        self.ontime: float | None = 0.0

    def add(self, dataset: Dataset) -> None:
        first = self.first
        for mine, other in ((first.energy, dataset.energy), (first.energy_true, dataset.energy_true)):
            if not mine.is_close(other):
                raise InputError(
                    f"datasets '{first.name}' and '{dataset.name}' have different axes of {mine.name}: they cannot be stacked"
                )
        if (first.psf is None, first.edisp is None) != (dataset.psf is None, dataset.edisp is None):
            raise InputError(
                f"datasets '{first.name}' and '{dataset.name}' do not have the same responses: they cannot be stacked"
            )
        if dataset.background is None or type(first.background) is not type(dataset.background):
            raise InputError(
                f"the backgrounds of datasets '{first.name}' ({_spoken(first)}) and '{dataset.name}' ({_spoken(dataset)}) cannot be "
                "stacked: reduce both with one background method"
            )
        for key, spoken in (("event_types", "event types"), ("phase", "phases")):
            kinds = [d.meta.get(key) for d in (first, dataset)]
            if kinds[0] != kinds[1]:
                raise InputError(
                    f"datasets '{first.name}' ({spoken} {kinds[0] or 'all'}) and '{dataset.name}' ({kinds[1] or 'all'}) hold different "
                    f"{spoken}: fit them jointly instead of stacking them"
                )
        pair = [(d.meta.get("telescope"), d.meta.get("instrument")) for d in (first, dataset)]
        if pair[0] != pair[1]:
            raise InputError(
                f"datasets '{first.name}' ({' '.join(map(str, pair[0]))}) and '{dataset.name}' ({' '.join(map(str, pair[1]))}) are of "
                "different instruments: fit them jointly instead of stacking them"
            )
        here, there = self.geom.overlap(dataset.geom)
        mask = dataset.mask_safe[:, *there]
        seen = np.any(mask, axis=0)
        self.counts[:, *here] += np.where(mask, dataset.counts.data[:, *there], 0.0)
        self.background[:, *here] += np.where(mask, dataset.mu_bkg[:, *there], 0.0)
        if isinstance(dataset.background, OffCounts):
            off = dataset.background
            for total, part in (
                (self.off, off.counts),
                (self.acceptance, off.acceptance),
                (self.acceptance_off, off.acceptance_off),
            ):
                total[:, *here] += np.where(mask, part.data[:, *there], 0.0)
        if dataset.reasons is not None:
            self._add_reasons(dataset.reasons)
        self.mask[:, *here] |= mask
        self.exposure[:, *here] += np.where(seen, dataset.exposure.quantity.to_value("m2 s")[:, *there], 0.0)
        if dataset.psf is not None:
            self._add_psf(dataset, dataset.psf)
        if dataset.edisp is not None:
            self._add_edisp(dataset, dataset.edisp)
        if self.obs_ids:
            self.gti = self.gti.union(dataset.gti)
        self.obs_ids += list(dataset.meta["obs_ids"])
        self.warnings += list(dataset.meta.get("warnings", []))
        self.regions.append(dataset.meta.get("background", {}).get("regions", ""))
        self.livetime = _plus(self.livetime, dataset.meta["livetime"])
        self.ontime = _plus(self.ontime, dataset.meta["ontime"])

    def _add_reasons(self, reasons: MaskReasons) -> None:
        dropped = {name: reasons.dropped(name) for name in reasons.names}
        for name, bins in {**dropped, "all": np.ones(reasons.bits.shape, dtype=bool)}.items():
            per_energy = bins.sum(axis=(1, 2))
            self.reasons[name] = self.reasons.get(name, np.zeros(len(per_energy), dtype=int)) + per_energy

    def _add_psf(self, dataset: Dataset, psf: PsfMap) -> None:
        here, there = self.geom_irf.overlap(psf.psf.geom)
        lon, lat = (v[there] for v in psf.psf.geom.lonlat)
        j, i, inside = dataset.counts.sky.index(SkyCoord(lon * u.rad, lat * u.rad, frame=psf.psf.geom.frame))
        seen = np.asarray(np.any(dataset.mask_safe, axis=0))
        safe = np.where(inside, seen[np.where(inside, j, 0), np.where(inside, i, 0)], False)
        weight = psf.exposure.quantity.to_value("m2 s")[:, *there] * safe
        self.psf[:, :, *here] += psf.psf.quantity.to_value("sr-1")[:, :, *there] * weight[:, None]
        self.psf_exposure[:, *here] += weight

    def _add_edisp(self, dataset: Dataset, edisp: EdispMap) -> None:
        here, there = self.geom_irf.overlap(edisp.edisp.geom)
        if isinstance(dataset.geom, RegionGeometry):
            safe = dataset.mask_safe
        else:
            lon, lat = (v[there] for v in edisp.edisp.geom.lonlat)
            x, y = dataset.geom.pixel(SkyCoord(lon * u.rad, lat * u.rad, frame=edisp.edisp.geom.frame))
            # the coarse pixels' centres may lie just off a cutout: take its border
            i = np.clip(np.round(x), 0, dataset.geom.shape[1] - 1).astype(int)
            j = np.clip(np.round(y), 0, dataset.geom.shape[0] - 1).astype(int)
            safe = dataset.mask_safe[:, j, i]
        weight = edisp.exposure.quantity.to_value("m2 s")[:, *there]
        any_safe = np.asarray(np.any(safe, axis=0))
        kept = safe[None] if edisp.is_kernel else any_safe[None, None]
        self.edisp[:, :, *here] += np.where(kept, edisp.edisp.data[:, :, *there], 0.0) * weight[:, None]
        self.edisp_exposure[:, *here] += weight * any_safe

    def dataset(self, name: str) -> Dataset:
        first = self.first
        psf = edisp = None
        unit = u.Unit("m2 s")
        if first.psf is not None:
            exposure = Map(self.geom_irf, (first.energy_true,), self.psf_exposure, unit)
            values = _ratio(self.psf, self.psf_exposure[:, None])
            psf = PsfMap(Map(self.geom_irf, first.psf.psf.axes, values, u.Unit("sr-1")), exposure)
        if first.edisp is not None:
            exposure = Map(self.geom_irf, (first.energy_true,), self.edisp_exposure, unit)
            values = _ratio(self.edisp, self.edisp_exposure[:, None])
            edisp = EdispMap(Map(self.geom_irf, first.edisp.edisp.axes, values), exposure)
        return Dataset(
            name=name,
            counts=Map(self.geom, (first.energy,), self.counts),
            background=self._background(),
            exposure=Map(self.geom, (first.energy_true,), self.exposure, unit),
            psf=psf,
            edisp=edisp,
            mask_safe=self.mask,
            mask_fit=None,
            gti=self.gti,
            meta=self._meta(),
        )

    def _background(self) -> ExpectedCounts | OffCounts:
        axes = (self.first.energy,)
        if not isinstance(self.first.background, OffCounts):
            return ExpectedCounts(Map(self.geom, axes, self.background))
        acceptance_off = self.acceptance_off
        if self.off.any():
            # alpha_mean of all off counts stands in where there are none
            mean = self.background.sum() / self.off.sum()
            alpha = np.where(self.off > 0, _ratio(self.background, self.off), mean)
            acceptance_off = _ratio(self.acceptance, alpha)
        return OffCounts(
            *(Map(self.geom, axes, data) for data in (self.off, self.acceptance, acceptance_off))
        )

    def _shows_regions(self) -> bool:
        return all(self.regions) and len(self.regions) <= _MOST_SKETCHES

    def _meta(self) -> dict[str, Any]:
        first = self.first
        kept = ("telescope", "instrument", "event_types", "phase")
        reasons = {name: bins.tolist() for name, bins in self.reasons.items()}
        return {
            "obs_ids": self.obs_ids,
            "livetime": self.livetime,
            "ontime": self.ontime,
            **{key: first.meta[key] for key in kept if key in first.meta},
            "warnings": self.warnings,
            **({"mask_reasons": reasons} if reasons else {}),
            **({"background": {"regions": ";".join(self.regions)}} if self._shows_regions() else {}),
        }


def _plus(sum_so_far: float | None, seconds: float | None) -> float | None:
    """Sum of two times, not known if one is not (files of others may not say)."""
    return None if sum_so_far is None or seconds is None else sum_so_far + seconds


def _spoken(dataset: Dataset) -> str:
    kinds = {ExpectedCounts: "expected counts", OffCounts: "measured off counts"}
    return kinds.get(type(dataset.background), "none")


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0))
