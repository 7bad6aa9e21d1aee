"""Best-fit curves: as fitted, and at the source with the absorption taken out."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from dl3flow.models.compound import compound
from dl3flow.models.source import Component, Parameter
from dl3flow.plots.curve import spectral_curve

from .examples import make_result

ENERGY = np.array([1.0, 3.0, 10.0]) * u.TeV


def test_absorption_is_taken_out_of_curve_and_band():
    """Transmission exp(-0.1 E / TeV): both values and errors rise by its inverse."""
    result, redshift = make_result(), np.array([0.0, 1.0])
    nodes = np.geomspace(0.5, 20, 300)
    options = {"energy": nodes, "param": redshift, "values": np.exp(-redshift[:, None] * nodes)}
    parameters = (Parameter("redshift", 0.1, frozen=True), Parameter("alpha_norm", 1.0, frozen=True))
    ebl = Component("ebl_absorption", parameters, options)
    sources = tuple(replace(s, spectral=compound("mul", s.spectral, ebl)) for s in result.models.sources)
    absorbed = replace(result, models=replace(result.models, sources=sources))
    plain = spectral_curve(result, "crab", ENERGY)
    seen = spectral_curve(absorbed, "crab", ENERGY)
    at_source = spectral_curve(absorbed, "crab", ENERGY, is_deabsorbed=True)
    for k in range(2):
        assert (seen[k] / plain[k]).to_value("") == pytest.approx(np.exp(-0.1 * ENERGY.value), rel=1e-3)
        assert (at_source[k] / plain[k]).to_value("") == pytest.approx(1)
    assert spectral_curve(result, "vela", ENERGY) is None
