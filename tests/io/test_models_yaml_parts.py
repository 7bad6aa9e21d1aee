"""What model files hold beside spectra and places: times, priors, compounds, tables, templates, systematic errors."""

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from dl3flow.data.maps import Map
from dl3flow.data.products import SkyMap
from dl3flow.errors import InputError
from dl3flow.fit.systematics import response_model
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.sky import SkyGeometry
from dl3flow.io.models_yaml import (
    model_files,
    models_to_mapping,
    parse_models,
    read_covariance,
    read_models,
    with_folder,
    write_models,
)
from dl3flow.io.provenance import canonical_json
from dl3flow.io.skymaps import write_sky_map
from dl3flow.io.yaml import parse_yaml
from dl3flow.models.resolve import resolve
from dl3flow.models.source import Models, Prior

HEAD = "components:\n- name: crab\n  type: SkyModel\n"
POWER_LAW = "{type: pl, parameters: [{name: amplitude, value: 2e-12, unit: cm-2 s-1 TeV-1}]}"


def parsed(text: str, folder: Path = Path()) -> Models:
    return parse_models(parse_yaml(HEAD + text), "m.yaml", folder)


def again(models: Models, folder: Path = Path()) -> Models:
    """The models after a round trip through plain values and text."""
    return parse_models(parse_yaml(canonical_json(_without_nan(models_to_mapping(models)))), "again", folder)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def written_light_curve(path: Path, scale: str = "tt", unit: Any = u.h, **changes: Any) -> Path:
    columns = {"TIME": [0.0, 12.0, 48.0] * unit, "NORM": [0.5, 1.0, 0.25], **changes}
    meta = {"MJDREFI": 55000, "MJDREFF": 0.25, "TIMESYS": scale}
    Table(columns, meta=meta).write(path)
    return path


def test_a_temporal_part_has_units_states_and_a_scale() -> None:
    text = f"""\
  spectral: {POWER_LAW}
  temporal:
    type: GaussianTemporalModel
    scale: tt
    parameters:
    - {{name: t_ref, value: 55000.5, unit: d}}
    - {{name: sigma, value: 3, unit: h, min: 1, max: 9}}
"""
    models = parsed(text)
    temporal = models.sources[0].temporal
    assert temporal is not None
    assert temporal.kind == "gauss"
    assert temporal.options == {"scale": "tt"}
    assert temporal["sigma"].quantity == 3 * u.h
    found = resolve(temporal, "temporal", "test")
    assert found.units == (u.d, u.d)
    # one sigma, 3 h, after the peak
    assert found.function(np.array([55000.625]), 55000.5, 0.125) == pytest.approx([np.exp(-0.5)])
    assert str(again(models)) == str(models)
    assert list(models.parameters())[-2:] == ["crab.t_ref", "crab.sigma"]


def test_the_reference_time_is_kept_unless_asked_for() -> None:
    for kind, frozen in {
        "linear": ["t_ref"],
        "powerlaw": ["t_ref", "t0"],
        "sinus": [],
        "gengauss": [],
    }.items():
        temporal = parsed(f"  spectral: {POWER_LAW}\n  temporal: {{type: {kind}}}\n").sources[0].temporal
        assert temporal is not None
        assert [p.name for p in temporal.parameters if p.frozen] == frozen
        assert temporal["t_ref"].value == 51544


def test_a_light_curve_is_read_beside_the_model_file(tmp_path: Path, monkeypatch: Any) -> None:
    written_light_curve(tmp_path / "curve.fits")
    text = f"  spectral: {POWER_LAW}\n  temporal: {{type: template, scale: tt, filename: curve.fits}}\n"
    models = parsed(text, tmp_path)
    temporal = models.sources[0].temporal
    assert temporal is not None
    assert temporal["t_ref"].value == 55000.25
    np.testing.assert_allclose(temporal.options["time"], [0, 0.5, 2])
    assert temporal.options["filename"] == "curve.fits"
    found = resolve(temporal, "temporal", "test")
    assert found.function(np.array([55000.5]), 55000.25) == pytest.approx([0.75])
    entry = models_to_mapping(models)["components"][0]["temporal"]
    assert entry == {
        "type": "LightCurveTemplateTemporalModel",
        "filename": "curve.fits",
        "scale": "tt",
        "parameters": [{"name": "t_ref", "value": 55000.25, "unit": "d", "error": 0.0, "frozen": True}],
    }
    monkeypatch.chdir(tmp_path)
    assert again(models).sources[0].temporal["t_ref"] == temporal["t_ref"]


def test_the_reference_of_a_light_curve_is_told_in_the_scale_of_the_model(tmp_path: Path) -> None:
    written_light_curve(tmp_path / "curve.fits")
    temporal = (
        parsed(f"  spectral: {POWER_LAW}\n  temporal: {{type: template, filename: curve.fits}}\n", tmp_path)
        .sources[0]
        .temporal
    )
    assert temporal is not None
    # 34 leap seconds and 32.184 s in 2009
    assert temporal["t_ref"].value == pytest.approx(55000.25 - 66.184 / 86400, abs=1e-10)
    found = resolve(temporal, "temporal", "test")
    assert found.function(np.array([55000.25]), temporal["t_ref"].value) == pytest.approx([0.5], abs=1e-9)


def test_a_light_curve_without_a_file_is_written_in_full() -> None:
    text = f"""\
  spectral: {POWER_LAW}
  temporal:
    type: template
    time: {{data: [0, 24, 48], unit: h}}
    norm: [1, 0.5, 2]
"""
    models = parsed(text)
    assert models.sources[0].temporal is not None
    np.testing.assert_array_equal(models.sources[0].temporal.options["time"], [0, 1, 2])
    entry = models_to_mapping(models)["components"][0]["temporal"]
    assert entry["time"] == {"data": [0.0, 1.0, 2.0], "unit": "d"}
    assert str(again(models)) == str(models)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"TIME": [0.0, 2.0, 1.0] * u.d}, "TIME must be finite and increasing"),
        ({"TIME": [0.0, 1.0, 2.0] * u.m}, "the column TIME has the unit 'm': write one such as 'd'"),
        ({"NORM": [1.0, np.nan, 1.0]}, "NORM finite"),
        ({"scale": "never"}, "unknown time scale TIMESYS 'never'"),
    ],
)
def test_a_bad_light_curve_is_refused_in_one_sentence(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    written_light_curve(tmp_path / "curve.fits", **changes)
    text = f"  spectral: {POWER_LAW}\n  temporal: {{type: template, filename: curve.fits}}\n"
    with pytest.raises(InputError, match=words) as caught:
        parsed(text, tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "curve.fits"))
    assert "\n" not in str(caught.value)


def test_other_files_for_a_light_curve(tmp_path: Path) -> None:
    Table({"A": [1.0], "NORM": [1.0]}).write(tmp_path / "other.fits")
    fits.PrimaryHDU(np.zeros((2, 2))).writeto(tmp_path / "image.fits")
    (tmp_path / "text.fits").write_text("hello")
    temporal = "  temporal: {{type: template, filename: {}}}\n"
    for name, words in {
        "other.fits": r"has no column TIME \(it has A, NORM\)",
        "image.fits": "holds no table",
        "text.fits": "text.fits",
    }.items():
        with pytest.raises(InputError, match=words):
            parsed(f"  spectral: {POWER_LAW}\n" + temporal.format(name), tmp_path)
    with pytest.raises(
        InputError, match="temporal.scale: 3 is not possible|temporal.scale: '3' is not possible"
    ):
        parsed(
            f"  spectral: {POWER_LAW}\n  temporal: {{type: template, filename: other.fits, scale: 3}}\n",
            tmp_path,
        )
    with pytest.raises(InputError, match="in the format 'map' .* is not read"):
        parsed(
            f"  spectral: {POWER_LAW}\n  temporal: {{type: template, filename: other.fits, format: map}}\n",
            tmp_path,
        )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("type: exp-decay, parameters: [{name: t0, value: 0, unit: d}]", "`t0` is 0, and must be above 0"),
        (
            "type: gauss, parameters: [{name: sigma, value: -1, unit: h}]",
            "`sigma` is -0.0416667, and must be above 0",
        ),
        ("type: gengauss, parameters: [{name: eta, value: 0}]", "`eta` is 0, and must be above 0"),
        ("type: powerlaw, parameters: [{name: t0, value: 0, unit: d}]", "`t0` is 0, and must be above 0"),
        ("type: template, time: {data: [1, 2], unit: d}, norm: [1]", "`time` has 2 and `norm` 1 numbers"),
        (
            "type: template, time: {data: [2, 1], unit: d}, norm: [1, 2]",
            "`time` must be finite and increasing",
        ),
        ("type: template-phase, phase: [0.5], norm: [1]", "as many, at least 2"),
        ("type: template-phase, phase: [0.5, 2], norm: [1, 1]", "`phase` goes from 0.5 to 2"),
        (
            "type: template-phase, phase: [0, 1], norm: [1, -1]",
            "the mean of `norm` over a period must be above 0",
        ),
    ],
)
def test_times_that_no_source_can_have_are_refused(entry: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parsed(f"  spectral: {POWER_LAW}\n  temporal: {{{entry}}}\n")


def test_a_phase_curve_is_read_with_its_timing(tmp_path: Path) -> None:
    Table({"phase": [0.1, 0.5, 0.9], "norm": [1.0, 3.0, 1.0]}).write(tmp_path / "phases.fits")
    text = f"""\
  spectral: {POWER_LAW}
  temporal:
    type: template-phase
    filename: phases.fits
    normalize: false
    parameters: [{{name: f0, value: 30, unit: Hz}}]
"""
    models = parsed(text, tmp_path)
    temporal = models.sources[0].temporal
    assert temporal is not None
    assert temporal["f0"].quantity == 30 * u.Hz
    assert temporal.options["normalize"] is False
    assert [p.frozen for p in temporal.parameters] == [True] * 5
    found = resolve(temporal, "temporal", "test")
    # half a turn after the reference, in TT
    start = 48442.5 + 58.184 / 86400
    assert found.function(np.array([start + 0.5 / 86400]), 48442.5, 0, 1.0, 0, 0) == pytest.approx(
        [3.0], rel=1e-4
    )
    Table({"PHASE": [0.1, 1.5], "NORM": [1.0, 3.0]}).write(tmp_path / "phases.fits", overwrite=True)
    with pytest.raises(InputError, match="PHASE goes from 0.1 to 1.5: write it in turns"):
        parsed(text, tmp_path)


def test_priors_are_read_with_their_weight_and_limit_the_parameter() -> None:
    text = """\
  spectral:
    type: pl
    parameters:
    - name: index
      value: 2.2
      min: 2
      prior: {type: UniformPrior, parameters: [{name: min, value: 1}, {name: max, value: 4}], weight: 0.5}
    - name: amplitude
      value: 2e-12
      unit: cm-2 s-1 TeV-1
      prior:
        type: GaussianPrior
        parameters:
        - {name: mu, value: 1e-12, unit: cm-2 s-1 TeV-1}
        - {name: sigma, value: 3e-13}
"""
    models = parsed(text)
    index, amplitude = (models.sources[0].spectral[name] for name in ("index", "amplitude"))
    assert index.prior == Prior("uniform", {"min": 1.0, "max": 4.0}, 0.5)
    assert (index.min, index.max) == (2, 4)
    assert amplitude.prior == Prior("gaussian", {"mu": 1e-12, "sigma": 3e-13})
    assert str(again(models)) == str(models)


COMPOUND = """\
  spectral:
    type: compound
    operator: mul
    model1:
      type: CompoundSpectralModel
      operator: add
      model1: {type: pl, parameters: [{name: index, value: 2.5}]}
      model2: {type: gauss, parameters: [{name: mean, value: 3, unit: TeV}]}
    model2: {type: pl-norm, parameters: [{name: norm, value: 2}, {name: reference, value: 2, unit: TeV}]}
"""


def test_a_nested_compound_keeps_its_parts(tmp_path: Path) -> None:
    models = parsed(COMPOUND)
    spectral = models.sources[0].spectral
    assert [p.name for p in spectral.parameters] == [
        *("amplitude", "index", "reference", "amplitude_2", "mean", "sigma", "norm", "tilt", "reference_2"),
    ]
    found = resolve(spectral, "spectral", "test")
    values = [p.quantity.to_value(unit) for p, unit in zip(spectral.parameters, found.units, strict=True)]
    energy = np.array([1.0, 3.0])
    expected = 2 * (
        1e-12 * energy**-2.5 + 1e-12 / (2 * np.sqrt(2 * np.pi)) * np.exp(-((energy - 3) ** 2) / 8)
    )
    assert found.function(energy, *values) == pytest.approx(expected)
    assert str(again(models)) == str(models)
    changed = models.with_parameters(
        {
            "crab.amplitude_2": models.parameters()["crab.amplitude_2"].__class__(
                "amplitude_2", 7e-12, u.Unit("cm-2 s-1")
            )
        }
    )
    assert again(changed).sources[0].spectral["amplitude_2"].value == 7e-12
    free = ("crab.amplitude", "crab.index", "crab.amplitude_2", "crab.mean", "crab.sigma", "crab.norm")
    covariance = np.diag(np.arange(1.0, 7.0))
    write_models(tmp_path / "m.yaml", changed, free, covariance, None)
    names, matrix = read_covariance(tmp_path / "m.yaml")
    assert names == free
    np.testing.assert_array_equal(matrix, covariance)
    rows = [
        line.split("|")[1].strip() for line in (tmp_path / "m_covariance.dat").read_text().splitlines()[1:]
    ]
    assert rows[:4] == [
        "crab.spectral.model1.model1.index",
        "crab.spectral.model1.model1.amplitude",
        "crab.spectral.model1.model1.reference",
        "crab.spectral.model1.model2.amplitude",
    ]
    assert rows[6:8] == ["crab.spectral.model2.tilt", "crab.spectral.model2.norm"]


def test_parameters_of_a_compound_are_linked_by_label() -> None:
    text = COMPOUND.replace("{name: norm, value: 2}", "{name: norm, value: 2, link: n}") + (
        "- {type: FoVBackgroundModel, datasets_names: a, spectral: {type: pl-norm, parameters: [{name: norm, link: n}]}}\n"
    )
    models = parsed(text)
    assert models.parameters()["a-bkg.norm"].value == 2
    assert str(again(models)) == str(models)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("operator: mul", "operator: plus", "spectral.operator: unknown operator 'plus'"),
        ("operator: mul", "operator: [mul]", "spectral.operator: unknown operator"),
        ("operator: mul", "operator: add", "spectral: the operator 'add' cannot join"),
        ("{type: gauss,", "{type: gausss,", "spectral.model1.model2.type: unknown spectral model 'gausss'"),
        (
            "{name: mean, value: 3,",
            "{name: mean, value: x,",
            "spectral.model1.model2.mean.value: expected a number",
        ),
    ],
)
def test_a_bad_compound_is_refused_in_one_sentence(old: str, new: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parsed(COMPOUND.replace(old, new))


def test_arrays_have_units_and_as_many_numbers_as_they_must() -> None:
    text = "  spectral: {{type: TemplateSpectralModel, energy: {}, values: {}}}\n"
    energy, values = "{data: [100, 1000, 10000], unit: GeV}", "{data: [3, 2, 1], unit: 1e-11 cm-2 s-1 TeV-1}"
    models = parsed(text.format(energy, values))
    found = resolve(models.sources[0].spectral, "spectral", "test")
    assert found.function(np.array([0.1, 1.0, 10.0])) == pytest.approx([3e-11, 2e-11, 1e-11])
    assert str(again(models)) == str(models)
    for e, v, words in (
        ("[1, 2, 3]", values, "energy.unit: the unit is missing: write one such as `TeV`"),
        ("{data: [1, 2, 3], unit: cm}", values, "energy.unit: 'cm' has the wrong dimension"),
        (
            "{data: [1, x, 3], unit: TeV}",
            values,
            r"energy: expected `{data: \[...\], unit: ...}` with numbers",
        ),
        ("{data: 3, unit: TeV}", values, "energy: expected `{data"),
        (energy, "{data: [1, 2], unit: cm-2 s-1 TeV-1}", "`values` has 2 numbers for 3 energies"),
        (energy, "{data: [1, 2, 3], units: cm-2 s-1 TeV-1}", "unknown key 'units': did you mean 'unit'"),
    ):
        with pytest.raises(InputError, match=words):
            parsed(text.format(e, v))
    with pytest.raises(InputError, match="'template' needs `values`: give it"):
        parsed(f"  spectral: {{type: TemplateSpectralModel, energy: {energy}}}\n")


def test_a_table_without_unit_is_a_factor() -> None:
    table = (
        "{type: TemplateSpectralModel, energy: {data: [1, 10], unit: TeV}, values: {data: [2, 4], unit: ''}}"
    )
    text = f"  spectral: {{type: compound, operator: mul, model1: {POWER_LAW}, model2: {table}}}\n"
    models = parsed(text)
    assert models.sources[0].spectral.parts[1].kind == "template_norm"
    entry = models_to_mapping(models)["components"][0]["spectral"]["model2"]
    assert entry["type"] == "TemplateSpectralModel"
    assert entry["values"] == {"data": [2.0, 4.0], "unit": ""}
    assert str(again(models)) == str(models)
    background = "- {type: FoVBackgroundModel, datasets_names: a, spectral: " + table + "}\n"
    assert parsed(text + background).backgrounds[0].spectral.kind == "template_norm"


def test_a_published_spectrum_is_written_in_full() -> None:
    text = "  spectral: {type: crab, reference: hess_pl, parameters: [{name: index, value: 2.5, frozen: true}]}\n"
    spectral = parsed(text).sources[0].spectral
    assert spectral.kind == "power_law"
    assert spectral["amplitude"].value == 3.45e-11
    assert (spectral["index"].value, spectral["index"].frozen) == (2.5, True)
    assert models_to_mapping(parsed(text))["components"][0]["spectral"]["type"] == "PowerLawSpectralModel"
    with pytest.raises(
        InputError, match="spectral.reference: 'hess' is not possible: did you mean 'hess_pl'"
    ):
        parsed(text.replace("hess_pl", "hess"))


def test_nodes_make_as_many_parameters() -> None:
    text = (
        "- {type: FoVBackgroundModel, datasets_names: a, spectral: {type: piecewise-norm, "
        "energy: {data: [1, 3, 10], unit: TeV}, parameters: [{name: norm_1, value: 1.5}]}}\n"
    )
    models = parsed(f"  spectral: {POWER_LAW}\n{text}")
    found = models.backgrounds[0].spectral
    assert [(p.name, p.value) for p in found.parameters] == [("norm_0", 1), ("norm_1", 1.5), ("norm_2", 1)]
    assert str(again(models)) == str(models)
    with pytest.raises(InputError, match="unknown parameter 'norm_3' of 'piecewise_norm'"):
        parsed(f"  spectral: {POWER_LAW}\n{text.replace('norm_1', 'norm_3')}")


def sky_map(axes: tuple[Axis, ...], unit: str) -> Map:
    geom = SkyGeometry.create(SkyCoord("83.63d 22.01d"), 0.4 * u.deg, 0.1 * u.deg)
    shape = (*(axis.n_bins for axis in axes), *geom.shape)
    return Map(geom, axes, np.arange(1.0, 1 + np.prod(shape)).reshape(shape), u.Unit(unit))


def test_a_template_of_the_sky_is_read_beside_the_model_file(tmp_path: Path, provenance: Any) -> None:
    write_sky_map(tmp_path / "sky.fits", SkyMap({"sky": sky_map((), "sr-1")}, {}), provenance)
    text = f"  spectral: {POWER_LAW}\n  spatial: {{type: TemplateSpatialModel, filename: sky.fits}}\n"
    models = parsed(text, tmp_path)
    spatial = models.sources[0].spatial
    assert spatial is not None
    assert spatial.options["frame"] == "icrs"
    assert spatial["lon_0"].quantity.to_value("deg") == pytest.approx(83.63)
    assert spatial["lon_0"].frozen
    entry = models_to_mapping(models)["components"][0]["spatial"]
    assert entry["filename"] == "sky.fits"
    assert set(entry) <= {"type", "filename", "frame", "normalize", "parameters"}
    factor = text.replace(
        "type: pl, parameters: [{name: amplitude, value: 2e-12, unit: cm-2 s-1 TeV-1}]", "type: pl-norm"
    )
    assert parsed(factor, tmp_path).sources[0].spectral.kind == "power_law_norm"


def test_a_template_of_counts_is_read_beside_the_model_file(tmp_path: Path, provenance: Any) -> None:
    energy = Axis("energy", [1, 3, 10] * u.TeV)
    write_sky_map(tmp_path / "more.fits", SkyMap({"more": sky_map((energy,), "")}, {}), provenance)
    text = f"""\
  spectral: {POWER_LAW}
- name: more
  type: TemplateNPredModel
  datasets_names: [a]
  filename: more.fits
  spectral: {{type: pl-norm, parameters: [{{name: norm, value: 1.1}}]}}
"""
    models = parsed(text, tmp_path)
    background = models.backgrounds[0]
    np.testing.assert_array_equal(background.template.data, sky_map((energy,), "").data)
    assert background.spectral["norm"].value == 1.1
    entry = models_to_mapping(models)["components"][1]
    assert (entry["type"], entry["filename"]) == ("TemplateNPredModel", "more.fits")
    write_sky_map(tmp_path / "more.fits", SkyMap({"more": sky_map((), "")}, {}), provenance)
    with pytest.raises(InputError, match=r"has the axes \[\], expected counts on 'energy'"):
        parsed(text, tmp_path)


def test_responses_that_are_not_applied() -> None:
    text = f"  apply_irf: {{exposure: true, psf: false, edisp: false}}\n  spectral: {POWER_LAW}\n"
    models = parsed(text)
    assert models.sources[0].without_irf == ("psf", "edisp")
    assert models_to_mapping(models)["components"][0]["apply_irf"] == {
        "exposure": True,
        "psf": False,
        "edisp": False,
    }
    assert str(again(models)) == str(models)


def test_a_spectrum_of_counts_has_no_area_and_time() -> None:
    text = """\
  apply_irf: {exposure: false}
  spectral: {type: pl, parameters: [{name: amplitude, value: 5, unit: GeV-1}]}
"""
    models = parsed(text)
    assert models.sources[0].spectral["amplitude"].quantity.to_value("cm-2 s-1 TeV-1") == 5000
    entry = models_to_mapping(models)["components"][0]["spectral"]["parameters"][1]
    assert (entry["name"], entry["unit"]) == ("amplitude", "GeV-1")
    assert str(again(models)) == str(models)
    with pytest.raises(InputError, match="'GeV-1' has the wrong dimension"):
        parsed(text.replace("exposure: false", "exposure: true"))


def test_systematic_errors_have_a_key_of_their_own(tmp_path: Path) -> None:
    models = parsed(f"  spectral: {POWER_LAW}\n")
    models = Models(models.sources, (), (response_model("hess", ["a", "b"], {"effective_area": 0.1}),))
    mapping = models_to_mapping(models)
    assert [entry["name"] for entry in mapping["components"]] == ["crab"]
    assert [entry["name"] for entry in mapping["responses"]] == ["hess"]
    assert str(again(models)) == str(models)
    free = ("crab.amplitude", "crab.index", "hess.exposure_scale")
    covariance = np.array([[4e-26, 1e-15, -2e-14], [1e-15, 0.01, 0.001], [-2e-14, 0.001, 0.0025]])
    write_models(tmp_path / "m.yaml", models, free, covariance, None)
    names, matrix = read_covariance(tmp_path / "m.yaml")
    assert names == free
    np.testing.assert_array_equal(matrix, covariance)
    assert read_models(tmp_path / "m.yaml").responses[0].scale["exposure_scale"].error == pytest.approx(0.05)
    assert "hess" not in (tmp_path / "m_covariance.dat").read_text()
    assert "hess.scale.exposure_scale" in (tmp_path / "m_responses_covariance.dat").read_text()


def test_files_that_models_are_read_from(tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    for name in ("curve.fits", "more.fits"):
        (folder / name).write_text("")
    (tmp_path / "ebl").mkdir()
    (tmp_path / "ebl" / "ebl_dominguez11.fits.gz").write_text("")
    monkeypatch.setenv("DL3FLOW_DATA", str(tmp_path))
    absorbed = f"{{type: compound, operator: mul, model1: {POWER_LAW}, model2: {{type: ebl-norm, reference: dominguez}}}}"
    theirs = absorbed.replace("reference: dominguez", "filename: /their/data/ebl/ebl_dominguez11.fits.gz")
    text = f"""{HEAD}
  spectral: {absorbed}
  temporal: {{type: template, filename: curve.fits}}
- {{name: more, type: TemplateNPredModel, filename: more.fits}}
- {{name: other, type: SkyModel, spectral: {theirs}, temporal: {{type: template, filename: curve.fits}}}}
"""
    mapping = parse_yaml(text)
    table = tmp_path / "ebl" / "ebl_dominguez11.fits.gz"
    expected = [table, folder / "curve.fits", folder / "more.fits"]
    assert model_files(mapping, "m.yaml", folder) == expected
    monkeypatch.chdir(tmp_path)
    seen = with_folder(mapping, Path("config"))
    assert seen["components"][0]["temporal"]["filename"] == "config/curve.fits"
    assert [path.resolve() for path in model_files(seen, "m.yaml")] == expected
    with pytest.raises(InputError, match=r"components.1.filename: there is no file"):
        model_files({"components": [{"name": "a"}, {"filename": "lost.fits"}]}, "m.yaml")
    assert model_files({"components": [{"spectral": {"type": "pl"}}]}, "m.yaml") == []


def test_absorption_is_read_from_a_table_by_name(public_data: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DL3FLOW_DATA", str(public_data))
    text = f"  spectral: {{type: compound, operator: mul, model1: {POWER_LAW}, model2: {{type: ebl-norm, reference: dominguez}}}}\n"
    models = parsed(text)
    entry = models_to_mapping(models)["components"][0]["spectral"]["model2"]
    assert entry["filename"] == "$DL3FLOW_DATA/ebl/ebl_dominguez11.fits.gz"
    assert "values" not in entry
    assert str(again(models)) == str(models)
