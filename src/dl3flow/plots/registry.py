"""PLOTS: one picture per product, under the name of its estimator, or `dataset`, or `fit`."""

from dl3flow.registry import Registry

PLOTS = Registry("plot")
