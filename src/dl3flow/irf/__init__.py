"""The four instrument responses: effective area, energy dispersion, point spread, background."""
