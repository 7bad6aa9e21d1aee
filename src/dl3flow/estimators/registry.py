"""Registries of estimators: of datasets those that make a table and those that make sky maps, and of events.

Functions of TABLES and MAPS take (datasets, result), the result of a fit or None; those of EVENT_TABLES take observations,
one at a time, and return a `ProductTable` of their own name. Their keyword-only parameters are the options. A table that
only maps can give is registered with ``of_maps=True``, one that needs the option ``region`` for maps with
``region_of_maps=True``.
"""

from dl3flow.registry import Registry

TABLES = Registry("table estimator")
MAPS = Registry("map estimator")
EVENT_TABLES = Registry("estimator of events")
