"""Model files: defaults, links, covariance, exact round trips, and one sentence for each mistake."""

import math
import textwrap

import astropy.units as u
import numpy as np
import pytest

from dl3flow.errors import InputError
from dl3flow.io.models_yaml import models_to_mapping, parse_models, read_covariance, read_models, write_models
from dl3flow.io.yaml import parse_yaml

CRAB = """
components:
- name: crab
  type: SkyModel
  spectral:
    type: pl
    parameters:
    - {name: index, value: 2.6, min: 1, max: 5}
    - {name: amplitude, value: 4.0e-11, unit: cm-2 s-1 TeV-1, error: 1e-12}
    - {name: reference, value: 1000, unit: GeV}
  spatial:
    type: GaussianSpatialModel
    frame: galactic
    parameters:
    - {name: lon_0, value: 184.56, unit: deg}
    - {name: lat_0, value: -5.78, unit: deg, min: -90, max: 90}
    - {name: sigma, value: 1.5, unit: arcmin}
- type: FoVBackgroundModel
  datasets_names: [run]
  spectral:
    type: pl-norm
    parameters:
    - {name: norm, value: 1.1}
    - {name: tilt, value: 0.0, frozen: false}
"""


@pytest.fixture
def models():
    return parse_models(parse_yaml(CRAB), "crab.yaml")


def test_values_units_and_defaults(models):
    parameters = models.parameters()
    assert list(parameters) == [
        *(
            f"crab.{name}"
            for name in ("amplitude", "index", "reference", "lon_0", "lat_0", "sigma", "e", "phi")
        ),
        *(f"run-bkg.{name}" for name in ("norm", "tilt", "reference")),
    ]
    assert parameters["crab.amplitude"].quantity == 4e-11 * u.Unit("cm-2 s-1 TeV-1")
    assert parameters["crab.amplitude"].error == 1e-12
    assert (parameters["crab.index"].min, parameters["crab.index"].max) == (1, 5)
    assert parameters["crab.reference"].quantity == 1 * u.TeV
    assert parameters["run-bkg.reference"].quantity == 1 * u.TeV
    assert parameters["crab.sigma"].quantity == 1.5 * u.arcmin
    assert parameters["crab.sigma"].min == 0
    assert [name for name, p in parameters.items() if p.frozen] == [
        "crab.reference",
        "crab.e",
        "crab.phi",
        "run-bkg.reference",
    ]
    assert (parameters["crab.e"].min, parameters["crab.e"].max) == (0, 1)
    # A latitude of 90 deg is no limit to search within.
    assert math.isnan(parameters["crab.lat_0"].max)
    assert models.sources[0].spatial.options == {"frame": "galactic"}
    assert models.backgrounds[0].name == "run-bkg"
    assert models.backgrounds[0].datasets == ("run",)


def test_default_value_takes_the_given_unit():
    text = CRAB.replace("{name: sigma, value: 1.5, unit: arcmin}", "{name: sigma, unit: arcmin}")
    sigma = parse_models(parse_yaml(text), "x").parameters()["crab.sigma"]
    assert sigma.value == pytest.approx(60)
    assert sigma.unit == u.arcmin


def test_full_and_short_tags_are_the_same(models):
    text = CRAB.replace("type: pl\n", "type: PowerLawSpectralModel\n").replace(
        "GaussianSpatialModel", "gauss"
    )
    assert (
        models_to_mapping(parse_models(parse_yaml(text), "x"))["components"][0]["spectral"]["type"]
        == "PowerLawSpectralModel"
    )
    assert str(parse_models(parse_yaml(text), "x")) == str(models)


def test_round_trip_is_exact(tmp_path, models, provenance):
    free = ("crab.amplitude", "crab.index", "run-bkg.norm")
    values = np.random.default_rng(1).normal(size=(3, 3)) * [[1e-12], [0.1], [0.01]]
    covariance = values @ values.T
    changed = {}
    for name, error in zip(free, np.sqrt(np.diag(covariance)), strict=True):
        old = models.parameters()[name]
        changed[name] = type(old)(**{**vars(old), "error": float(error), "value": old.value * (2 / 3)})
    fixed = [n for n, p in models.parameters().items() if not p.frozen and n not in free]
    changed |= {
        n: type(p)(**{**vars(p), "frozen": True}) for n, p in models.parameters().items() if n in fixed
    }
    models = models.with_parameters(changed)
    path = tmp_path / "models.yaml"
    write_models(path, models, free, covariance, provenance)
    assert str(read_models(path)) == str(models)
    names, matrix = read_covariance(path)
    assert names == free
    np.testing.assert_array_equal(matrix, covariance)
    assert parse_yaml(path.read_text())["metadata"]["provenance"]["step"] == "reduce_observation"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models.yaml", "models_covariance.dat"]
    before = path.read_bytes()
    write_models(path, models, free, covariance, provenance)
    assert path.read_bytes() == before


def test_covariance_rows_follow_the_order_of_the_field(tmp_path, models):
    write_models(
        tmp_path / "m.yaml", models, ("crab.amplitude", "crab.index"), np.array([[4e-24, 0], [0, 0.25]]), None
    )
    rows = [line.split("|") for line in (tmp_path / "m_covariance.dat").read_text().splitlines()]
    assert [row[1].strip() for row in rows[1:4]] == [
        "crab.spectral.index",
        "crab.spectral.amplitude",
        "crab.spectral.reference",
    ]
    assert float(rows[1][2]) == 0.25
    assert float(rows[2][3]) == 4e-24


def test_errors_come_from_the_covariance(tmp_path, models):
    write_models(tmp_path / "m.yaml", models, ("crab.index",), np.array([[0.25]]), None)
    assert read_models(tmp_path / "m.yaml").parameters()["crab.index"].error == 0.5


LINKED = CRAB.replace("min: 1, max: 5}", "min: 1, max: 5, link: shared}").replace(
    "{name: tilt, value: 0.0, frozen: false}", "{name: tilt, link: shared}"
)


def test_linked_parameters_are_one(tmp_path):
    models = parse_models(parse_yaml(LINKED), "x")
    tilt = models.parameters()["run-bkg.tilt"]
    assert (tilt.value, tilt.min, tilt.frozen) == (2.6, 1, False)
    write_models(tmp_path / "m.yaml", models, ("crab.index",), np.array([[0.25]]), None)
    assert read_models(tmp_path / "m.yaml").parameters()["run-bkg.tilt"].error == 0.5
    assert "run-bkg.tilt" not in read_covariance(tmp_path / "m.yaml")[0]
    # others link parameters of one name only
    mapping = models_to_mapping(models)
    assert mapping["links"] == {"shared": ["crab.index", "run-bkg.tilt"]}
    assert "link:" not in (tmp_path / "m.yaml").read_text()
    assert str(parse_models(mapping, "x")) == str(models)


def test_numbers_as_text_and_null_limits_are_understood():
    text = CRAB.replace("4.0e-11", "'4e-11'").replace("max: 5", "max: null")
    parameters = parse_models(parse_yaml(text), "x").parameters()
    assert parameters["crab.amplitude"].value == 4e-11
    assert math.isnan(parameters["crab.index"].max)


def swap(old, new):
    assert old in CRAB
    return CRAB.replace(old, new)


INDEX = "{name: index, value: 2.6, min: 1, max: 5}"
BAD = {
    "empty": ("", "empty"),
    "list": ("[1]", "expected `components:`"),
    "no components": ("components: []", "at least one model"),
    "top key": (CRAB + "extra: 1\n", "unknown key 'extra'"),
    "misspelt": (swap("components:", "component:"), "did you mean 'components'"),
    "model key": (swap("  spatial:", "  spacial:"), "unknown key 'spacial': did you mean 'spatial'"),
    "type": (swap("type: pl\n", "type: PowerLawSpectralModell\n"), r"'PowerLawSpectralModell': .*power_law"),
    "norm as spectrum": (
        swap("type: pl\n", "type: pl-norm\n")
        .replace("index, value: 2.6, min: 1, max: 5", "norm, value: 1")
        .replace("    - {name: amplitude, value: 4.0e-11, unit: cm-2 s-1 TeV-1, error: 1e-12}\n", ""),
        "'power_law_norm' is a factor, no spectrum: multiply a spectrum by it in a compound",
    ),
    "spectrum as norm": (swap("type: pl-norm", "type: pl"), "unknown norm model 'pl'"),
    "model type": (swap("type: SkyModel", "type: Skymodel"), "did you mean 'SkyModel'"),
    "model type as list": (swap("type: SkyModel", "type: [SkyModel]"), "unknown model type"),
    "type as list": (swap("type: pl-norm", "type: [pl-norm]"), "unknown norm model"),
    "parameter": (
        swap("name: index", "name: indx"),
        "unknown parameter 'indx' of 'power_law': did you mean 'index'",
    ),
    "parameter twice": (swap(INDEX, f"{INDEX}\n    - {INDEX}"), "'index' is given twice"),
    "parameter key": (swap("min: 1", "minn: 1"), "unknown key 'minn': did you mean 'min'"),
    "wrong dimension": (swap("unit: cm-2 s-1 TeV-1", "unit: cm-2 s-1"), "'cm-2 s-1' has the wrong dimension"),
    "unit of none": (
        swap("value: 2.6,", "value: 2.6, unit: TeV,"),
        "'TeV' has the wrong dimension: expected one such as `no unit`",
    ),
    "no such unit": (swap("unit: GeV", "unit: GeVV"), "'GeVV' is not a unit"),
    "missing unit": (
        swap(", unit: cm-2 s-1 TeV-1", ""),
        r"crab.*amplitude: the unit is missing: write `unit: ",
    ),
    "missing angle unit": (swap("value: 184.56, unit: deg", "value: 184.56"), "write `unit: deg`"),
    "text value": (swap("value: 2.6", "value: steep"), "found the text 'steep': write one such as `1.0e-12`"),
    "true value": (swap("value: 2.6", "value: yes"), "expected a number, found True"),
    "list value": (swap("value: 2.6", "value: [2.6]"), "expected a number, found"),
    "NaN value": (swap("value: 2.6", "value: .nan"), "must be finite"),
    "infinite value": (swap("value: 4.0e-11", "value: inf"), "must be finite"),
    "negative error": (swap("error: 1e-12", "error: -1"), "from 0"),
    "min above max": (swap("min: 1, max: 5", "min: 5, max: 1"), r"`min` \(5.0\) is above `max` \(1.0\)"),
    "outside": (swap("min: 1, max: 5", "min: 3, max: 5"), "2.6 lies outside its limits 3.0 to 5.0"),
    "below default limit": (
        swap("value: 1.5, unit: arcmin", "value: -1.5, unit: arcmin"),
        "lies outside its limits",
    ),
    "frozen text": (swap("max: 5}", "max: 5, frozen: 'no'}"), "expected true or false, found 'no'"),
    "lonely link": (swap("max: 5}", "max: 5, link: shared}"), "no other parameter has the label 'shared'"),
    "linked values": (
        LINKED.replace("{name: tilt,", "{name: tilt, value: 1,"),
        "linked to crab.index but has another value",
    ),
    "linked units": (LINKED.replace("name: sigma,", "name: sigma, link: shared,"), "cannot be linked"),
    "prior without type": (swap("max: 5}", "max: 5, prior: {mu: 1}}"), "prior: expected a `type`"),
    "prior type": (swap("max: 5}", "max: 5, prior: {type: Gauss}}"), "unknown prior 'Gauss'"),
    "prior parameter": (
        swap("max: 5}", "max: 5, prior: {type: GaussianPrior, parameters: [{name: mean, value: 1}]}}"),
        "prior.parameters.0.: unknown parameter 'mean' of 'gaussian'",
    ),
    "prior width": (
        swap("max: 5}", "max: 5, prior: {type: GaussianPrior, parameters: [{name: sigma, value: 0}]}}"),
        "prior: `sigma` must be above 0, found 0",
    ),
    "prior unit": (
        swap("error: 1e-12}", "prior: {type: GaussianPrior, parameters: [{name: mu, value: 1, unit: TeV}]}}"),
        "prior.mu.unit: 'TeV' is not the parameter's unit '.*': priors are in that of the parameter",
    ),
    "prior weight": (
        swap("max: 5}", "max: 5, prior: {type: GaussianPrior, weight: -1}}"),
        "prior.weight: must be a finite number from 0, found -1",
    ),
    "outside the prior": (
        swap("max: 5}", "prior: {type: UniformPrior, parameters: [{name: max, value: 2}]}}"),
        "the value 2.6 lies outside its limits 1.0 to 2.0",
    ),
    "same name": (swap("- type: FoV", "- name: crab\n  type: FoV"), "2 components have the name 'crab'"),
    "no name": (swap("- name: crab\n  type", "- type"), "expected text that names the model"),
    "no spatial": (CRAB.replace("  spatial:", "  spatial: point\n  temporal:"), "needs `spatial:`"),
    "temporal": (
        swap("  spatial:", "  temporal: {type: constt}\n  spatial:"),
        "unknown temporal model 'constt': did you mean 'const",
    ),
    "time scale": (
        swap("  spatial:", "  temporal: {type: const, scale: ut1}\n  spatial:"),
        "temporal.scale: 'ut1' is not possible",
    ),
    "light curve": (
        swap("  spatial:", "  temporal: {type: template}\n  spatial:"),
        "temporal: 'light_curve' needs `filename` or `time`",
    ),
    "lost file": (
        swap("  spatial:", "  temporal: {type: template, filename: lost.fits}\n  spatial:"),
        "temporal.filename: there is no file '.*lost.fits' nor 'lost.fits'",
    ),
    "lost variable": (
        swap("  spatial:", "  temporal: {type: template, filename: $NO_SUCH/lost.fits}\n  spatial:"),
        "the variable is not set",
    ),
    "apply_irf": (
        swap("  spatial:", "  apply_irf: {psf: 0}\n  spatial:"),
        "apply_irf: expected responses with true or false",
    ),
    "irf": (
        swap("  spatial:", "  apply_irf: {pfs: false}\n  spatial:"),
        "apply_irf: unknown key 'pfs': did you mean 'psf'",
    ),
    "compound without part": (
        swap("type: pl\n", "type: compound\n    model1: {type: pl}\n").replace(
            f"    parameters:\n    - {INDEX}", "    parameters:", 1
        ),
        "a compound needs `model2:` with a `type`, found None",
    ),
    "negative reference": (
        swap("value: 1000, unit", "value: -1000, unit"),
        "`reference` is -1, and must be above 0",
    ),
    "background place": (
        swap("- type: FoV", "- spatial: {type: const}\n  type: FoV"),
        "spatial: the factor on a background is the same everywhere",
    ),
    "no map": (
        swap("type: FoVBackgroundModel", "type: TemplateNPredModel"),
        "filename: expected the name of a file",
    ),
    "links": (CRAB + "links: {a: crab.index}\n", "links: expected labels with lists of parameters"),
    "unknown link": (
        CRAB + "links: {a: [crab.indx, run-bkg.norm]}\n",
        "links.a: unknown parameter 'crab.indx'",
    ),
    "one link": (
        CRAB + "links: {a: [crab.index]}\n",
        "crab.index.link: no other parameter has the label 'a'",
    ),
    "other values": (
        CRAB + "links: {a: [crab.index, run-bkg.norm]}\n",
        "is linked to crab.index but has another value",
    ),
    "responses": (CRAB + "responses: {a: 1}\n", "`responses` must be a list"),
    "response": (
        CRAB + "responses: [{name: a, parameters: [{name: aeff, value: 1}]}]\n",
        "responses.0..* unknown parameter 'aeff' of 'response_scale'",
    ),
    "name of a response": (CRAB + "responses: [{name: crab}]\n", "2 components have the name 'crab'"),
    "frame": (swap("frame: galactic", "frame: fk4"), "unknown frame 'fk4'"),
    "datasets": (swap("[run]", "3"), "expected a list of datasets' names"),
    "duplicate key": (
        swap("type: pl\n", "type: pl\n    type: lp\n"),
        r"line 7, column 5: the key 'type' is given twice",
    ),
    "tag": (swap("- name: crab", "- name: !!python/none crab"), "line 3, column 9: the tag"),
    "covariance elsewhere": (CRAB + "covariance: ../x.dat\n", "the name of a file beside it"),
    "no covariance": (CRAB + "covariance: x.dat\n", "x.dat: no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_in_one_sentence(tmp_path, case):
    text, words = BAD[case]
    (tmp_path / "models.yaml").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_models(tmp_path / "models.yaml")
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        ("nonsense", "not a table"),
        ("| Parameters | 0 |\n| crab.spectral.index | x |\n", "not a table"),
        ("| Parameters | 0 |\n| crab.spectral.index | -1.0 |\n", "not a covariance"),
        ("| Parameters | 0 |\n| crab.spectral.index | nan |\n", "not a covariance"),
        ("| Parameters | 0 | 1 |\n| a | 1.0 | 0.5 |\n| b | 0.1 | 1.0 |\n", "not a covariance"),
    ],
)
def test_bad_covariance(tmp_path, matrix, words):
    (tmp_path / "models.yaml").write_text(CRAB + "covariance: c.dat\n")
    (tmp_path / "c.dat").write_text(textwrap.dedent(matrix))
    with pytest.raises(InputError, match=f"c.dat: .*{words}"):
        read_models(tmp_path / "models.yaml")


def test_covariance_of_other_models(tmp_path):
    (tmp_path / "models.yaml").write_text(CRAB + "covariance: c.dat\n")
    (tmp_path / "c.dat").write_text("| Parameters | 0 |\n| vela.spectral.index | 1.0 |\n")
    with pytest.raises(InputError, match=r"no row for the free parameter 'crab\.amplitude'"):
        read_covariance(tmp_path / "models.yaml")


def test_public_fermi_models(public_data):
    models = read_models(public_data / "fermi-3fhl-crab" / "Fermi-LAT-3FHL_models.yaml")
    assert models.sources[0].name == "Crab Nebula"
    assert models.sources[0].spectral.kind == "log_parabola"
    assert models.sources[0].spectral["alpha"].error == 0.05762513693893088
    assert models.backgrounds[0].datasets == ("Fermi-LAT",)
    assert models.backgrounds[0].spectral["norm"].min == 0
