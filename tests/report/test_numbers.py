"""Numbers as a reader wants them."""

import math

import astropy.units as u
import pytest

from dl3flow.report.numbers import general, number, unit_text, with_error, with_errors


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (4.5612e-11, 0.3649e-11, "(4.56 ± 0.36) × 10<sup>−11</sup>"),
        (2.6, 0.08, "2.600 ± 0.080"),
        (-0.0123, 0.0045, "−0.0123 ± 0.0045"),
        (83.6331, 0.0021, "83.6331 ± 0.0021"),
        (1.0, 0.0996, "1.00 ± 0.10"),
        (12345.0, 678.0, "12340 ± 680"),
        (1e-12, 3e-12, "(1.0 ± 3.0) × 10<sup>−12</sup>"),
        (5.0, 0.0, "5"),
        (5.0, math.nan, "5"),
        (math.nan, 1.0, "–"),
        (1.41e133, 1.7e-14, "1.41 × 10<sup>133</sup> ± 1.7 × 10<sup>−14</sup>"),
    ],
)
def test_error_decides_the_digits(value, error, text):
    assert str(with_error(value, error)) == text


def test_asymmetric_errors_share_a_power_of_ten():
    text = str(with_errors(3.21e-12, 1.1e-13, 1.24e-13))
    assert text == '3.21 <span class="errors"><sup>+0.12</sup><sub>−0.11</sub></span> × 10<sup>−12</sup>'
    assert "<sub>−?</sub>" in str(with_errors(2.0, math.nan, 0.5))
    assert str(with_errors(2.0, math.nan, math.nan)) == "2"
    # the upper error of a limit is the largest of the three
    limit = str(with_errors(0.0, 4.4e-14, 1.935e-12))
    assert limit == '0.000 <span class="errors"><sup>+1.935</sup><sub>−0.044</sub></span> × 10<sup>−12</sup>'
    skew = str(with_errors(1.3e-143, 1.3e-143, 5.8e-71))
    assert skew.startswith("1.3 × 10<sup>−143</sup> ")
    assert "+5.8 × 10<sup>−71</sup>" in skew


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9.99996e-12, "1.000 × 10<sup>−11</sup>"),
        (0.0, "0.000"),
        (1234.5678, "1235"),
        (-2.5, "−2.500"),
        (math.inf, "–"),
    ],
)
def test_significant_digits(value, text):
    assert str(number(value)) == text


def test_general_has_no_idle_zeros():
    assert str(general(83.63)) == "83.63"
    assert str(general(2.5e-12)) == "2.5 × 10<sup>−12</sup>"
    assert str(general(0.0)) == "0"


def test_units():
    assert str(unit_text(u.Unit("cm-2 s-1 TeV-1"))) == "cm<sup>−2</sup> s<sup>−1</sup> TeV<sup>−1</sup>"
    assert str(unit_text(u.dimensionless_unscaled)) == ""
