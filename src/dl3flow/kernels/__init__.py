"""Numerical kernels on plain floats: numpy and scipy only."""
