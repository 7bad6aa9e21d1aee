"""Spectral and spatial models, and the parameters that a fit varies."""
