"""Registries of estimators: those that make a table, and those that make sky maps."""

from dl3flow.registry import Registry

TABLES = Registry("table estimator")
MAPS = Registry("map estimator")
