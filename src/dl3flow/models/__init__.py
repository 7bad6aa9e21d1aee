"""Spectral, spatial and temporal models, and the parameters that a fit varies: one line here makes a file's models known."""

from dl3flow.models import (
    cutoffs,
    ebl,
    norms,
    references,
    spatial,
    spectral,
    tables,
    temporal,
    temporal_templates,
)

__all__ = [
    "cutoffs",
    "ebl",
    "norms",
    "references",
    "spatial",
    "spectral",
    "tables",
    "temporal",
    "temporal_templates",
]
