"""DL3 or DL4, with or without a fit, to DL5: one line here makes an estimator known."""

from dl3flow.estimators import adaptive_smooth as adaptive_smooth
from dl3flow.estimators import butterfly as butterfly
from dl3flow.estimators import combined_flux_points as combined_flux_points
from dl3flow.estimators import combined_significance as combined_significance
from dl3flow.estimators import counts_table as counts_table
from dl3flow.estimators import excess_map as excess_map
from dl3flow.estimators import extension as extension
from dl3flow.estimators import find_sources as find_sources
from dl3flow.estimators import flux_points as flux_points
from dl3flow.estimators import flux_profile as flux_profile
from dl3flow.estimators import light_curve as light_curve
from dl3flow.estimators import phase_curve as phase_curve
from dl3flow.estimators import phasogram as phasogram
from dl3flow.estimators import residual_map as residual_map
from dl3flow.estimators import sensitivity as sensitivity
from dl3flow.estimators import theta_squared as theta_squared
from dl3flow.estimators import ts_map as ts_map
from dl3flow.estimators.registry import EVENT_TABLES as EVENT_TABLES
from dl3flow.estimators.registry import MAPS as MAPS
from dl3flow.estimators.registry import TABLES as TABLES
