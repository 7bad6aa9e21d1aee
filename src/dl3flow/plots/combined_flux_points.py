"""Spectral energy distribution of all instruments together."""

from matplotlib.figure import Figure

from dl3flow.data.products import FitResult, FluxPoints
from dl3flow.plots import flux_points
from dl3flow.plots.registry import PLOTS


@PLOTS.register()
def combined_flux_points(product: FluxPoints, result: FitResult | None) -> Figure:
    """As the picture of flux points."""
    figure: Figure = flux_points.flux_points(product, result)
    return figure
