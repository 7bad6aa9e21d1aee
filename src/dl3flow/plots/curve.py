"""Best-fit spectrum of a source with the band of its statistical error."""

import astropy.units as u

from dl3flow.data.products import FitResult
from dl3flow.fit.propagate import error_band
from dl3flow.models.absorption import transmission
from dl3flow.units import ENERGY


def spectral_curve(
    result: FitResult, source: str, energy: u.Quantity, *, is_deabsorbed: bool = False
) -> tuple[u.Quantity, u.Quantity] | None:
    """Differential flux of a source at the best fit and its standard error by linear propagation.

    Parameters
    ----------
    result : FitResult
    source : str
    energy : Quantity, shape (n,)
    is_deabsorbed : bool
        True divides by the transmission of the source's absorption, as for points that stand at the source.

    Returns
    -------
    dnde, error : Quantity, shape (n,), cm-2 s-1 TeV-1
        None if the fit has no such source.
    """
    found = next((s for s in result.models.sources if s.name == source), None)
    if found is None:
        return None
    band = error_band(result, source, energy)
    if not is_deabsorbed:
        return band.value, band.error
    share = transmission(found.spectral, energy.to_value(ENERGY))
    return band.value / share, band.error / share
