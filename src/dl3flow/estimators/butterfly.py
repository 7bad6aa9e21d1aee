"""Estimator ``butterfly``: the best-fit spectrum of one source with its error band."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from dl3flow.data.dataset import FitData
from dl3flow.data.products import Butterfly, FitResult
from dl3flow.estimators.norms import find_source
from dl3flow.estimators.registry import TABLES
from dl3flow.fit.propagate import butterfly_table, fitted_range, pivot_energy
from dl3flow.geometry.axis import EnergyAxis
from dl3flow.units import ENERGY

_N_ENERGIES = 51


def _at_least(lowest: int) -> Any:
    def whole(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise ValueError(f"expected a whole number from {lowest} on, found {value!r}")
        return value

    return whole


@TABLES.register()
def butterfly(
    datasets: Sequence[FitData],
    result: FitResult,
    *,
    source: str,
    energy: EnergyAxis | None = None,
    method: Literal["covariance", "samples"] = "covariance",
    n_samples: Annotated[int, _at_least(100)] = 10_000,
    seed: Annotated[int, _at_least(0)] = 0,
) -> Butterfly:
    """Differential flux of a source at the best fit, with its 68 % band, at energies.

    Parameters
    ----------
    datasets : sequence of Dataset
        Those of the fit.
    result : FitResult
    source : str
    energy : Axis or None
        Energies of the table are the edges of its bins; None is the range of the fit's data.
    method : 'covariance' or 'samples'
        Linear propagation, or quantiles of draws from the covariance, which give asymmetric errors.
    n_samples, seed : int
        Of the draws.

    Returns
    -------
    band : Butterfly

    Raises
    ------
    InputError
        If the fit has no such source, or its covariance is not finite.
    """
    find_source(result, source, "estimator butterfly")
    low, high = fitted_range(result, source).to_value(ENERGY)
    edges = np.geomspace(low, high, _N_ENERGIES) * ENERGY if energy is None else energy.edges
    table = butterfly_table(result, source, edges, method, n_samples, seed)
    pivot = float(pivot_energy(result, source, edges[0], edges[-1]).to_value(ENERGY))
    told = [f"the fit is doubtful, and so is the band: {result.message}"] * (not result.success)
    if not np.any(table["dnde_err"] > 0 * table["dnde_err"].unit):
        told.append(f"{source} has no free spectral parameter, so its band has no width")
    meta = {"source": source, "sed_type": "dnde", "method": method, "pivot_energy": pivot, "warnings": told}
    return Butterfly(table, meta)
