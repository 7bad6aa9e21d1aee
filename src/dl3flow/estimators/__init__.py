"""DL4 and a fit to DL5: one line here makes an estimator known."""

from dl3flow.estimators import butterfly, excess_map, flux_points, light_curve, residual_map
from dl3flow.estimators.registry import MAPS, TABLES

__all__ = ["MAPS", "TABLES", "butterfly", "excess_map", "flux_points", "light_curve", "residual_map"]
