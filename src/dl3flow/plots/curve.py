"""Best-fit spectrum of a source with the band of its statistical error."""

import astropy.units as u

from dl3flow.data.products import FitResult
from dl3flow.fit.propagate import error_band


def spectral_curve(
    result: FitResult, source: str, energy: u.Quantity
) -> tuple[u.Quantity, u.Quantity] | None:
    """Differential flux of a source at the best fit and its standard error by linear propagation.

    Parameters
    ----------
    result : FitResult
    source : str
    energy : Quantity, shape (n,)

    Returns
    -------
    dnde, error : Quantity, shape (n,), cm-2 s-1 TeV-1
        None if the fit has no such source.
    """
    if source not in (s.name for s in result.models.sources):
        return None
    band = error_band(result, source, energy)
    return band.value, band.error
