"""Pictures of reduced data and results: one pure function per product, ``plot(product, result) -> Figure``."""

from dl3flow.plots import adaptive_smooth as adaptive_smooth
from dl3flow.plots import butterfly as butterfly
from dl3flow.plots import combined_flux_points as combined_flux_points
from dl3flow.plots import counts_table as counts_table
from dl3flow.plots import dataset as dataset
from dl3flow.plots import extension as extension
from dl3flow.plots import find_sources as find_sources
from dl3flow.plots import fit as fit
from dl3flow.plots import flux_points as flux_points
from dl3flow.plots import flux_profile as flux_profile
from dl3flow.plots import light_curve as light_curve
from dl3flow.plots import observation as observation
from dl3flow.plots import phase_curve as phase_curve
from dl3flow.plots import phasogram as phasogram
from dl3flow.plots import responses as responses
from dl3flow.plots import sensitivity as sensitivity
from dl3flow.plots import sky_maps as sky_maps
from dl3flow.plots import theta_squared as theta_squared
from dl3flow.plots import ts_map as ts_map
from dl3flow.plots.registry import PLOTS as PLOTS
