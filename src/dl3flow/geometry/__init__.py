"""Axes, sky pixels and field-of-view coordinates."""
