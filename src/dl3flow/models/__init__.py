"""Spectral, spatial and temporal models, and the parameters that a fit varies: one line here makes a file's models known."""

from dl3flow.models import spatial, spectral, temporal, temporal_templates

__all__ = ["spatial", "spectral", "temporal", "temporal_templates"]
