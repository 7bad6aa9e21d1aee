"""Spatial models: where a source's flux comes from, per solid angle. One import line here makes a file's models known.

Functions take directions and parameters in rad and return sr-1; the integral over the sphere is one. ``lon_0`` and
``lat_0`` are in the frame of the model. Companions, all but ``radius`` optional; functions take the same parameters:

``radius``, ``resolution``
    The distance beyond which the model is taken as zero, and the angle below which it is smooth (pixels are divided until
    they are finer).
``size``
    Name of the parameter that is its extension.
``by_energy``
    Whether the shape depends on energy, True or a function of the options. Where it is there, the function takes energies
    after the directions (None if it does not); where it does, ``radius`` and ``resolution`` take them by ``energy=``.
``is_point``, ``is_everywhere``
    A direction; all of a dataset's map.
``is_absolute``
    True if pixels get density times solid angle; otherwise their shares are scaled to a sum of one in the window.
``is_symmetric``
    False if the middle of the flux is not at ``lon_0``, ``lat_0``.
``gradient``
    ``gradient(lon, lat, *values)``, one row per parameter.
``expand``
    ``expand(lon, lat, *values, is_free, cell, order)``, an `Expansion`: what pixels need, averaged over a cell of that
    width where the model is sharper, with derivatives up to an order, from common terms.
``center``
    ``center() -> (lon, lat, frame) | None`` of a model without ``lon_0`` and ``lat_0``.
``frozen``, ``limits``
    Parameters that do not vary unless asked for, and bounds, in the units of a file (deg).
"""

from dl3flow.models import gaussians, shapes, sky_templates
from dl3flow.models.spatial_registry import SPATIAL_MODELS

__all__ = ["SPATIAL_MODELS", "gaussians", "shapes", "sky_templates"]
