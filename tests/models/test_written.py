"""Spectra and shapes as options write them."""

import astropy.units as u
import pytest

from dl3flow.models.written import parse_shape, parse_spectrum, written


def test_what_is_left_out_takes_its_default() -> None:
    found = parse_spectrum({"type": "power_law", "index": 2.7, "reference": "500 GeV"})
    values = {p.name: p.quantity for p in found.parameters}
    assert values["index"] == 2.7
    assert values["reference"] == 0.5 * u.TeV
    assert values["amplitude"] == 1e-12 * u.Unit("cm-2 s-1 TeV-1")
    assert all(p.frozen for p in found.parameters)
    assert written(found) == "power_law, amplitude 1e-12 cm-2 s-1 TeV-1, index 2.7, reference 0.5 TeV"


def test_a_shape_has_no_place() -> None:
    found = parse_shape({"type": "gauss", "sigma": "0.1 deg"})
    assert found["sigma"].quantity.to_value("deg") == pytest.approx(0.1)
    assert written(found) == "gauss, sigma 0.1 deg, e 0, phi 0 deg"
    with pytest.raises(ValueError, match="unknown parameter 'lon_0' of 'gauss'"):
        parse_shape({"type": "gauss", "sigma": "0.1 deg", "lon_0": "3 deg"})
    with pytest.raises(ValueError, match="'constant' cannot be put anywhere"):
        parse_shape({"type": "constant"})


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("power_law", "expected a `type` and its parameters"),
        ({"type": "power_low"}, "did you mean 'power_law'"),
        ({"type": "power_law", "slope": 2}, "unknown parameter 'slope' of 'power_law'"),
        ({"type": "power_law", "reference": "1 m"}, "reference: expected a value with a unit"),
        ({"type": "power_law_norm"}, "is a factor, no spectrum"),
        ({"type": "power_law_2", "emin": "3 TeV", "emax": "1 TeV"}, "correct it"),
    ],
)
def test_wrong_spectra_are_refused(entry: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_spectrum(entry)
