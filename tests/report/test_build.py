"""The report holds every number and reason it was given, escaped, in one deterministic page without a network."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable, vstack

from dl3flow.data.products import DatasetStat, FitResult, FluxPoints, LightCurve
from dl3flow.estimators import EVENT_TABLES, MAPS, TABLES
from dl3flow.fit.systematics import response_model
from dl3flow.models.source import Component, Models, Parameter, Source
from dl3flow.report import build
from dl3flow.report.build import build_report
from dl3flow.report.fits import compare, sentence
from dl3flow.report.tables import product_table

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><defs><path id="m" d="M0 0"/></defs><use href="#m"/></svg>'
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that do not close."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.ids, self.links, self.text = [], [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [v for k, v in attrs if k == "id"]
        self.links += [v for k, v in attrs if k in ("href", "src", "xlink:href", "action", "data", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", "".join(self.text))


@pytest.fixture
def fit():
    flux = u.Unit("cm-2 s-1 TeV-1")
    spectral = Component(
        "power_law",
        (
            Parameter("amplitude", 4.5612e-11, flux, error=0.3649e-11),
            Parameter("index", 2.613, error=0.081, min=1, max=5),
            Parameter("reference", 1.0, u.TeV, frozen=True),
        ),
    )
    spatial = Component(
        "point",
        (Parameter("lon_0", 83.63, u.deg, frozen=True), Parameter("lat_0", 22.01, u.deg, frozen=True)),
    )
    stat = DatasetStat(
        "run1",
        321.25,
        640,
        [1, 3, 10] * u.TeV,
        np.array([50, 14]),
        np.array([20.25, 5.5]),
        np.array([28.0, 7.25]),
    )
    return FitResult(
        True,
        "The fit converged.",
        321.25,
        Models((Source("crab", spectral, spatial),)),
        ("crab.amplitude", "crab.index"),
        np.array([[1.3315e-23, 1.2e-13], [1.2e-13, 0.006561]]),
        (stat,),
        {"name": "minuit", "edm": 2.5e-6, "n_evaluations": 87, "at_limit": [], "warnings": []},
    )


@pytest.fixture
def tables():
    n = 2
    common = {
        "norm": [1.0, 0.5],
        "norm_err": [0.1, 0.3],
        "norm_errn": [0.09, 0.29],
        "norm_errp": [0.11, 0.31],
        "norm_ul": [1.2, 1.11],
        "sqrt_ts": [11.37, 1.62],
        "counts": [47, 3],
        "npred": [45.5, 2.25],
        "is_ul": [False, True],
        "success": [True, True],
    }
    flux = u.Unit("cm-2 s-1")
    sed = QTable(
        {
            "e_ref": [2, 5] * u.TeV,
            "e_min": [1, 3] * u.TeV,
            "e_max": [3, 9] * u.TeV,
            "ref_dnde": [4e-12, 4e-13] * flux / u.TeV,
            **common,
        }
    )
    curve = QTable(
        {
            "time_min": [53343.92, 53345.96] * u.d,
            "time_max": [53343.94, 53345.98] * u.d,
            "e_min": [1] * n * u.TeV,
            "e_max": [10] * n * u.TeV,
            "ref_flux": [2e-11] * n * flux,
            **common,
        }
    )
    return {"sed": FluxPoints(sed, {"source": "crab"}), "nightly": LightCurve(curve, {"source": "crab"})}


@pytest.fixture
def arguments(fit, tables):
    analysis = {
        "name": "hess-crab",
        "reductions": {
            "cube": {
                "recipe": {"name": "cube", "width": "5 deg"},
                "background": {"name": "fov", "method": "scale"},
            }
        },
        "fits": {"joint-3d": {"mode": "joint"}},
        "estimators": {
            "sed": {"name": "flux_points"},
            "nightly": {"name": "light_curve"},
            "sky": {"name": "excess_map"},
        },
    }
    rows = [
        {
            "obs_id": 23523,
            "target": "Crab",
            "selected": True,
            "reason": "",
            "livetime": 1581.74,
            "counts": 2401,
            "background": 2384.49,
            "norm": 0.95823,
            "norm_err": 0.02015,
        },
        {
            "obs_id": 20136,
            "target": "MSH",
            "selected": False,
            "reason": "the target is 'MSH'",
            "livetime": 1680.0,
        },
    ]
    provenance = {
        "versions": {"dl3flow": "0.1.0", "numpy": "2.4.6"},
        "code": "c0de" * 16,
        "inputs": {"fit": [{"name": "fit.json", "sha256": "ab" * 32}]},
        "configuration": "name: hess-crab\nfits:\n  joint-3d: {mode: joint}\n",
    }
    return {
        "analysis": analysis,
        "observations": rows,
        "fits": {"joint-3d": fit},
        "tables": tables,
        "figures": {"cube": SVG, "joint-3d": SVG, "sed": SVG, "nightly": SVG, "sky": SVG, "odd": SVG},
        "provenance": provenance,
        "truth": {"crab.amplitude": 4.0e-11, "crab.index": 2.6},
    }


def test_every_number_and_reason_appears(arguments):
    words = Page(build_report(**arguments)).words
    for text in (
        "hess-crab",
        "1 of 2 observations are used, 0.44 h of livetime.",
        "the target is 'MSH'",
        "26.36",
        "2401",
        "2384.5",
        "0.958 ± 0.020",
        "width 5 deg",
        "fov (method scale)",
        "(4.56 ± 0.36) × 10−11",
        "cm−2 s−1 TeV−1",
        "2.613 ± 0.081",
        "1 to 5",
        "Success. The fit converged. Stat 321.25 in 640 bins with 2 free parameters.",
        "1.33 × 10−23",
        "0.00656",
        "64",
        "61.00",
        "25.75",
        "35.25",
        "2.5e-06",
        "87",
        "1 of 2 simulated parameters lie within one standard error",
        # (4.5612 - 4.0) / 0.3649 and (2.613 - 2.6) / 0.081
        "+1.54",
        "+0.16",
        # norm x ref_dnde x e_ref^2 = 1.6e-11, errors 9 and 11 per cent of it; limit 1.11e-11
        "1.60 +0.18−0.14 × 10−11",
        "1.11 × 10−11",
        "11.37",
        "45.5",
        "53343.92000",
        "2.00 +0.22−0.18 × 10−11",
        "numpy",
        "2.4.6",
        "c0de" * 16,
        "ab" * 32,
        "joint-3d: {mode: joint}",
    ):
        assert text in words, text


def test_warnings_stand_before_everything_else(arguments, fit):
    arguments["observations"].append(
        {"obs_id": 5, "status": "failed", "selected": False, "reason": "events.fits has no HDU EVENTS"}
    )
    bad = {"at_limit": ["crab.index"], "warnings": ["the covariance was forced positive definite"]}
    arguments["fits"] = {
        "joint-3d": replace(fit, success=False, message="MIGRAD stopped", minimiser={**fit.minimiser, **bad})
    }
    arguments["tables"]["sed"].table["success"] = [True, False]
    html = build_report(**arguments)
    box = html[html.index('class="box warn"') : html.index('id="summary"')]
    for text in (
        "5 warnings",
        "Observation 5 failed: events.fits has no HDU EVENTS.",
        "Fit joint-3d failed: MIGRAD stopped.",
        "parameter crab.index is at its limit (2.613).",
        "the covariance was forced positive definite",
        "sed: 1 of 2 bins have no valid result.",
    ):
        assert text in box, text
    assert html.index('class="box warn"') < html.index("Key results</h2>")
    assert "<strong>Failed.</strong>" in html


def test_a_clean_analysis_says_so(arguments):
    arguments["observations"].pop()
    html = build_report(**arguments)
    assert "No warnings" in html
    assert 'class="box warn"' not in html


def test_what_was_not_selected_is_no_warning_and_stands_in_a_table_of_its_own(arguments):
    used = arguments["observations"][0]
    others = [{"obs_id": n, "selected": False, "reason": "the cone"} for n in range(100)]
    arguments["observations"] = [*others, used]
    html = build_report(**arguments)
    assert "No warnings" in html
    assert "<summary>Observations that were not selected: 100 rows</summary>" in html
    assert Page(html).words.count("the cone") == 100


def test_what_failed_comes_first_and_alike_reasons_share_a_sentence(arguments):
    failed = [{"obs_id": n, "status": "failed", "reason": "no HDU EVENTS"} for n in range(14)]
    arguments["observations"] = [*arguments["observations"], *failed]
    html = build_report(**arguments)
    assert "1 warning" in html
    assert "Observations 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more failed: no HDU EVENTS." in html


def test_what_is_told_of_a_used_observation_is_a_warning(arguments):
    arguments["observations"][0] |= {
        "status": "selected",
        "warnings": "the background has no tail",
        "reason": "spectrum: no effective area",
    }
    html = build_report(**arguments)
    assert "Observation 23523: the background has no tail." in html
    assert "Observation 23523: spectrum: no effective area." in html


def test_observations_in_two_groups_count_once(arguments):
    rows = [
        {"obs_id": 1, "data": "hess", "observations": g, "status": "selected", "livetime": 3600.0}
        for g in "ab"
    ]
    arguments["observations"] = rows
    words = Page(build_report(**arguments)).words
    assert "1 of 1 observations are used, 1.00 h of livetime." in words
    headings = re.findall(r"<th scope=\"col\"[^>]*>([^<]*)</th>", build_report(**arguments))
    assert "Group" in headings
    assert "Data" not in headings


def test_text_is_escaped(arguments):
    evil = "<script>alert(1)</script>"
    arguments["observations"][0]["target"] = evil
    arguments["observations"][1]["reason"] = evil
    arguments["analysis"]["name"] = evil
    arguments["analysis"]["reductions"]["cube"]["background"]["method"] = evil
    arguments["provenance"]["configuration"] = f"name: '{evil}'"
    arguments["tables"] = {evil: arguments["tables"]["sed"]}
    arguments["figures"][evil] = SVG
    html = build_report(**arguments)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 7
    assert "script" not in {tag for tag, _ in Page(html).tags}


def test_page_is_self_contained_with_unique_ids(arguments):
    html = build_report(**arguments)
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert {"f1-m", "f6-m"} <= set(page.ids)
    assert page.links
    for link in page.links:
        assert link.startswith("#")
        assert link[1:] in page.ids
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert "url(" not in html
    assert {"script", "link", "iframe", "object", "embed"}.isdisjoint(tag for tag, _ in page.tags)
    labelled = [attrs.get("aria-labelledby") for _, attrs in page.tags if "aria-labelledby" in attrs]
    assert labelled
    assert set(labelled) <= set(page.ids)


def test_page_is_accessible(arguments):
    page = Page(build_report(**arguments))
    names = [tag for tag, _ in page.tags]
    assert [names.count(tag) for tag in ("html", "header", "nav", "main", "footer", "h1", "title")] == [1] * 7
    assert dict(page.tags)["html"]["lang"] == "en"
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    assert names.count("caption") == names.count("table")
    pictures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(pictures) == 6
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in pictures)
    assert names.count("figcaption") == 6


def test_same_arguments_same_bytes(arguments):
    assert build_report(**arguments) == build_report(**arguments)


def test_nothing_given_is_still_a_page():
    html = build_report({"name": "empty"}, [], {}, {}, {}, {}, None)
    assert "No observations were reduced here." in Page(html).words
    assert "simulated" not in html


def test_truth_in_another_unit_and_of_unknown_or_fixed_parameters(fit):
    rows = compare(
        fit, {"crab.amplitude": "4.5612e-7 m-2 s-1 TeV-1", "crab.reference": 1.0, "other.index": 2.0}
    )
    assert [row.name for row in rows] == ["crab.amplitude"]
    assert rows[0].pull == pytest.approx(0, abs=1e-9)
    assert (
        sentence("a", rows)
        == "Fit a: 1 of 1 simulated parameter lies within one standard error of the simulated value."
    )
    (low,) = compare(fit, {"crab.index": 2.613 + 2 * 0.081})
    assert low.pull == pytest.approx(-2)
    assert not low.is_inside


def test_real_figures_keep_their_references(arguments):
    from dl3flow.plots import PLOTS, style

    figure = PLOTS.find("flux_points", "test")(arguments["tables"]["sed"], arguments["fits"]["joint-3d"])
    arguments["figures"] = {name: style.render(figure, "svg", "{}").decode() for name in ("sed", "sky")}
    page = Page(build_report(**arguments))
    assert len(page.ids) == len(set(page.ids))
    assert all(link[1:] in page.ids for link in page.links)
    assert sum(link.startswith("#f1-") for link in page.links) > 20


def test_published_values_stand_beside_ours(arguments):
    values = {"crab.amplitude": [4.2e-11, 0.2e-11], "crab.index": [2.5, None]}
    reference = {"fit": "joint-3d", "label": "Other et al. 2010", "note": "converted", "parameters": values}
    words = Page(build_report(**arguments, references=[reference])).words
    for text in (
        "Fit joint-3d beside Other et al. 2010",
        "Converted.",
        "(4.20 ± 0.20) × 10−11",
        # (4.5612 - 4.2) / 0.2, and 0.3649 / 0.2
        "+1.81",
        "1.82",
        "Other et al. 2010: 1 parameter, the largest difference is +1.81 published σ (crab.amplitude).",
    ):
        assert text in words, text


def test_errors_to_both_sides_groups_and_systematic_errors_are_told(arguments, fit):
    scale = response_model("run1-response", ["run1"], {"energy_scale": 0.15})
    moved = replace(scale.scale.parameters[0], value=-0.06, error=0.05)
    scale = replace(scale, scale=replace(scale.scale, parameters=(moved, *scale.scale.parameters[1:])))
    arguments["fits"]["joint-3d"] = replace(
        fit,
        models=replace(fit.models, responses=(scale,)),
        minos={"crab.index": (0.07, 0.09)},
        datasets=(replace(fit.datasets[0], obs_ids=(11, 12)),),
    )
    words = Page(build_report(**arguments)).words
    for text in ("2.613 +0.090−0.070", "−0.060 ± 0.050", "0 ± 0.15", "−0.40", "11, 12"):
        assert text in words, text
    assert "run1-response.exposure_scale" not in words
    # 1.2e-13 / sqrt(1.3315e-23 x 0.006561)
    assert "0.406" in words


def test_a_fit_that_failed_stands_before_all_other_warnings(arguments, fit):
    arguments["observations"].append(
        {"obs_id": 5, "status": "failed", "selected": False, "reason": "no file"}
    )
    arguments["fits"] = {"joint-3d": replace(fit, success=False, message="edm 0.3 above its goal")}
    html = build_report(**arguments)
    assert html.index("Fit joint-3d failed: Edm 0.3 above its goal.") < html.index("Observation 5 failed")


@pytest.mark.parametrize("found", [None, float("nan"), float("-inf")])
def test_a_test_statistic_that_is_not_known_is_a_dash(arguments, fit, found):
    name = fit.models.sources[0].name
    arguments["fits"] = {"joint-3d": replace(fit, minimiser={**fit.minimiser, "ts": {name: found}})}
    assert re.search(rf"{name} test statistic\s*–", Page(build_report(**arguments)).words)


def test_every_estimator_and_its_picture_has_a_caption():
    for registry in (TABLES, MAPS, EVENT_TABLES):
        assert [name for name in registry.names() if name not in build._CAPTIONS] == []


def test_a_light_curve_of_bands_tells_the_energies_of_each_row(arguments):
    curve = next(t for t in arguments["tables"].values() if isinstance(t, LightCurve))
    two = vstack([curve.table[:1], curve.table[:1]])
    two["e_min"], two["e_max"] = [1.0, 3.0] * u.TeV, [3.0, 10.0] * u.TeV
    summary = [["fractional variability", "0.12 ± 0.03"]]
    table = product_table("curve", LightCurve(two, {**curve.meta, "summary": summary}))
    assert table.headings[:4] == ["Start (MJD, TT)", "Stop (MJD, TT)", "From (TeV)", "To (TeV)"]
    assert [row[2:4] for row in table.rows] == [["1", "3"], ["3", "10"]]
    assert table.caption.endswith("1 to 10 TeV (curve). Fractional variability: 0.12 ± 0.03.")
    assert "From (TeV)" not in product_table("curve", curve).headings


def test_maps_tell_the_significance_of_their_background_and_their_warnings(arguments) -> None:
    fitted = {"mean": -0.0718, "mean_err": 0.0383, "width": 1.0394, "width_err": 0.0213}
    maps = {
        "sky": {
            "significance": {"where": "outside the circle", "fit": fitted},
            "warnings": ["no bin is in use"],
        },
        "other": {"significance": {"where": "all pixels", "fit": None}},
        "ts": {},
    }
    words = Page(build_report(**arguments, maps=maps)).words
    told = words.partition("Significance outside the circle")[2]
    assert told.startswith("mean −0.072 ± 0.038 σ, width 1.039 ± 0.021 σ")
    assert "sky: no bin is in use." in words
    assert "Significance all pixels" not in words
