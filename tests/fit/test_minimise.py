"""Fits of simulated data with known truth, and what a doubtful fit says."""

from collections.abc import Callable
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from dl3flow.data.dataset import Dataset
from dl3flow.errors import InputError
from dl3flow.fit.bounds import fit_limits
from dl3flow.fit.likelihood import build_likelihood
from dl3flow.fit.minimise import add_backgrounds, fit, source_ts
from dl3flow.fit.npred import predict_counts
from dl3flow.fit.outline import outlines_of
from dl3flow.fit.reach import counted_twice
from dl3flow.geometry.region import RegionGeometry
from dl3flow.models.source import Component, Models, Parameter

MakeDataset = Callable[..., Dataset]
MakeModels = Callable[..., Models]


def test_a_joint_fit_finds_the_truth_and_a_minimum(
    small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    datasets = [small_dataset(f"d{k}", seed=10 + k) for k in range(3)]
    result = fit(datasets, add_backgrounds(datasets, point_models(1e-10, 2.0), ["norm"]))
    assert result.success, result.message
    truth = {
        "s.amplitude": 3e-10,
        "s.index": 2.5,
        "s.lon_0": 83.63,
        "s.lat_0": 22.01,
        **{f"d{k}-bkg.norm": 1.0 for k in range(3)},
    }
    assert set(result.free) == set(truth)
    pulls = np.array([(result.parameter(n).value - t) / result.parameter(n).error for n, t in truth.items()])
    assert np.all(np.abs(pulls) < 3.5)
    likelihood = build_likelihood(datasets, result.models)
    errors = np.sqrt(np.diag(result.covariance))
    assert np.all(np.abs(likelihood.gradient(likelihood.start) * errors) < 0.1)
    assert result.stat == pytest.approx(likelihood.stat(likelihood.start), abs=1e-9)
    assert result.stat == pytest.approx(sum(d.stat for d in result.datasets), abs=1e-6)
    assert result.n_bins == 3 * 3 * 40 * 40
    assert sum(d.counts_per_energy.sum() for d in result.datasets) == sum(
        d.counts.data.sum() for d in datasets
    )
    # a step of one error in one parameter, the others refitted, costs one unit: here from the covariance alone
    hessian = 2 * np.linalg.inv(result.covariance)
    for k, error in enumerate(errors):
        step = np.zeros(len(errors))
        step[k] = 0.1 * error
        numeric = (
            likelihood.gradient(likelihood.start + step) - likelihood.gradient(likelihood.start - step)
        ) / (0.2 * error)
        assert numeric[k] == pytest.approx(hessian[k, k], rel=0.15)


def test_errors_shrink_with_data(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    datasets = [small_dataset(f"d{k}", seed=20 + k) for k in range(4)]
    one = fit(datasets[:1], add_backgrounds(datasets[:1], point_models(), ["norm"]))
    four = fit(datasets, add_backgrounds(datasets, point_models(), ["norm"]))
    assert four.parameter("s.index").error == pytest.approx(one.parameter("s.index").error / 2, rel=0.15)


@pytest.mark.parametrize(("lon", "lat"), [(84.0, 22.3), (83.3, 21.7)])
def test_a_far_start_is_brought_home(
    lon: float, lat: float, small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    dataset = small_dataset(seed=30)
    near = fit([dataset], add_backgrounds([dataset], point_models(), ["norm"]))
    far = fit([dataset], add_backgrounds([dataset], point_models(lon=lon, lat=lat), ["norm"]))
    assert far.stat == pytest.approx(near.stat, abs=0.01)


def test_ts_is_the_difference_of_two_fits(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    dataset = small_dataset(seed=40)
    models = add_backgrounds([dataset], point_models(), ["norm"])
    result = fit([dataset], models)
    null = fit([dataset], replace(models, sources=()))
    assert source_ts([dataset], result, "s") == pytest.approx(null.stat - result.stat, abs=1e-3)
    assert null.stat - result.stat > 100


def test_an_extended_source_is_measured(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    dataset = small_dataset(seed=50)
    source = point_models().sources[0]
    shape = Component(
        "gauss",
        (
            *source.spatial.parameters,
            Parameter("sigma", 0.2, u.deg),
            Parameter("e", 0.0, frozen=True),
            Parameter("phi", 0.0, u.deg, frozen=True),
        ),
    )
    models = Models((replace(source, spatial=shape),))
    result = fit([dataset], add_backgrounds([dataset], models, ["norm"]))
    point = fit([dataset], add_backgrounds([dataset], point_models(), ["norm"]))
    # the truth is a point: no more than a fluctuation better, and a width far below the start
    assert -0.1 < point.stat - result.stat < 9
    assert result.parameter("s.sigma").value < 0.05


def test_a_limit_is_told(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    dataset, models = small_dataset(seed=60), point_models()
    index = replace(models.parameters()["s.index"], min=2.9, max=4.0, value=3.0)
    result = fit([dataset], add_backgrounds([dataset], models.with_parameters({"s.index": index}), ["norm"]))
    assert result.minimiser["at_limit"] == ["s.index"]
    assert any("s.index ends at a limit (2.9)" in w for w in result.minimiser["warnings"])


def test_nothing_free_gives_the_statistic_and_says_so(
    small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    dataset, models = small_dataset(), point_models()
    frozen = models.with_parameters({n: replace(p, frozen=True) for n, p in models.parameters().items()})
    result = fit([dataset], frozen)
    likelihood = build_likelihood([dataset], frozen)
    assert result.stat == likelihood.stat(np.zeros(0))
    assert "no parameter is free" in result.minimiser["warnings"][0]


def test_a_dataset_without_usable_bins_keeps_its_background(
    small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    good = small_dataset("good")
    empty = replace(small_dataset("empty", seed=1), mask_safe=np.zeros((3, 40, 40), dtype=bool))
    result = fit([good, empty], add_backgrounds([good, empty], point_models(), ["norm"]))
    assert result.success, result.message
    assert "empty-bkg.norm" not in result.free
    assert any("empty-bkg.norm was kept at 1" in w for w in result.minimiser["warnings"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"s.lon_0": 120.0},
            "source 's' at (120.0000, 22.0100) deg (icrs) lies outside the field of every dataset",
        ),
        ({"s.amplitude": np.nan}, "model 's': the parameter 'amplitude' is nan"),
    ],
)
def test_impossible_starts(
    change: dict[str, float], words: str, small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    models = point_models()
    changed = {n: replace(models.parameters()[n], value=v) for n, v in change.items()}
    with pytest.raises(InputError) as caught:
        fit([small_dataset()], models.with_parameters(changed))
    assert words in str(caught.value)


def test_start_outside_limits_and_unknown_dataset(
    small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    models = point_models()
    index = replace(models.parameters()["s.index"], min=3.0, max=4.0)
    with pytest.raises(InputError, match=r"'s\.index' starts at 2\.5, outside its limits 3 to 4"):
        fit([small_dataset()], models.with_parameters({"s.index": index}))
    elsewhere = Models((replace(models.sources[0], datasets=("other",)),))
    with pytest.raises(InputError, match="restricted to the datasets other, of which none is in the fit"):
        fit([small_dataset()], elsewhere)


def _drawn(dataset: Dataset, models: Models, seed: int) -> Dataset:
    """The dataset with counts drawn from models."""
    mu = np.add(*predict_counts(dataset, models))
    return replace(
        dataset, counts=dataset.counts.with_data(np.random.default_rng(seed).poisson(mu).astype(float))
    )


def test_position_errors_of_a_weak_source_hold_at_pixel_centres(
    small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    """The likelihood has a kink there, over which a second derivative by small steps is far too large."""
    lon, lat = small_dataset().geom.wcs.all_pix2world(20, 20, 0)
    truth = point_models(2.5e-11, 2.5, float(lon), float(lat))
    pulls, errors = [], []
    for seed in range(12):
        dataset = _drawn(small_dataset(), truth, 100 + seed)
        result = fit([dataset], add_backgrounds([dataset], truth, ["norm"]))
        for name, at in (("s.lon_0", lon), ("s.lat_0", lat)):
            p = result.parameter(name)
            errors.append(p.error)
            pulls.append((p.value - at) / p.error)
    # 40 to 50 counts and a point spread of 0.08 deg: some 0.012 deg and more with the background
    assert min(errors) > 0.008
    assert np.sqrt(np.mean(np.square(pulls))) == pytest.approx(1, abs=0.4)


def test_two_sources_from_bad_starts(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    strong = replace(point_models(3e-10).sources[0], name="strong")
    weak = replace(point_models(6e-11, 2.5, 83.63, 22.36).sources[0], name="weak")
    dataset = _drawn(small_dataset(), Models((strong, weak)), 7)
    good = fit([dataset], add_backgrounds([dataset], Models((strong, weak)), ["norm"]))
    poor = Models((weak, replace(point_models(5e-11).sources[0], name="strong")))
    bad = fit([dataset], add_backgrounds([dataset], poor, ["norm"]))
    assert bad.stat == pytest.approx(good.stat, abs=0.02)
    # the test statistic of the strong one is not shared with the weak one, which must not walk into its place
    ts = good.minimiser["ts"]
    alone = {
        name: replace(good.models, sources=tuple(s for s in good.models.sources if s.name != name))
        for name in ts
    }
    for name, models in alone.items():
        kept = models.with_parameters(
            {
                f"{s.name}.{p.name}": replace(p, frozen=True)
                for s in models.sources
                for p in s.spatial.parameters
            }
        )
        assert ts[name] == pytest.approx(fit([dataset], kept).stat - good.stat, abs=0.02)
    assert ts["strong"] > 5 * ts["weak"] > 100


def test_a_source_that_walks_to_another_is_told(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    dataset = small_dataset(seed=90)
    result = fit([dataset], add_backgrounds([dataset], point_models(lat=22.35), ["norm"]))
    assert any("s was found 0.3" in w for w in result.minimiser["warnings"])


def test_a_source_beyond_the_border_is_seen_by_its_tail(
    small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    outside = point_models(6e-10, lat=22.01 + 1.05)
    dataset = _drawn(small_dataset(), outside, 5)
    result = fit([dataset], add_backgrounds([dataset], outside, ["norm"]))
    assert result.parameter("s.amplitude").value == pytest.approx(6e-10, rel=0.3)


def test_linked_parameters_share_one_unit(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    first, second = point_models().sources[0], replace(point_models(lon=83.9).sources[0], name="t")
    models = Models((first, second))
    p = models.parameters()
    mixed = models.with_parameters(
        {
            "s.amplitude": replace(p["s.amplitude"], link="a"),
            "t.amplitude": replace(p["t.amplitude"], link="a", unit=u.Unit("m-2 s-1 TeV-1"), value=3e-6),
        }
    )
    with pytest.raises(
        InputError, match=r"'s\.amplitude' and 't\.amplitude' are linked but have different units"
    ):
        fit([small_dataset()], mixed)


def test_longitude_limits_widen_with_latitude(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    models = point_models(lat=60.0)
    low, high = fit_limits(models)
    k = build_likelihood([small_dataset()], models).names.index("s.lon_0")
    assert (low[k], high[k]) == (pytest.approx(81.63), pytest.approx(85.63))


def test_events_that_count_twice_are_told(small_dataset: MakeDataset, point_models: MakeModels) -> None:
    one, two, three = small_dataset("a", seed=1), small_dataset("b", seed=1), small_dataset("c", seed=2)
    models = point_models()
    frozen = models.with_parameters({n: replace(p, frozen=True) for n, p in models.parameters().items()})

    def told(*datasets: Dataset) -> list[str]:
        return [w for w in fit(list(datasets), frozen).minimiser["warnings"] if "count twice" in w]

    assert told(one, three) == []
    (sentence,) = told(one, two, three)
    assert sentence.startswith("datasets 'a' and 'b' hold the same observation at the same energies")
    # the one below, the other above, and other types of events, are other events
    low, high = (
        replace(d, mask_fit=np.broadcast_to(keep, (3, 40, 40)))
        for d, keep in (
            (one, np.array([True, False, False])[:, None, None]),
            (two, np.array([False, True, True])[:, None, None]),
        )
    )
    assert told(low, high) == []
    assert told(one, replace(two, meta={**two.meta, "event_types": [1]})) == []
    # so are those of another time
    end = one.gti.stop[-1]
    later = replace(one.gti, start=one.gti.start + end, stop=one.gti.stop + end)
    assert told(one, replace(two, gti=later)) == []


def test_regions_apart_hold_other_events(small_dataset: MakeDataset) -> None:
    def within(text: str) -> Dataset:
        cube, region = small_dataset("a"), RegionGeometry(text)
        counts = replace(cube.counts, geom=region, data=cube.counts.data[:, :1, :1])
        safe = np.ones((3, 1, 1), dtype=bool)
        return replace(cube, name=text, counts=counts, mask_safe=safe, mask_fit=None)

    here, near, there = (within(f"icrs;circle({lon}, 22.01, 0.2)") for lon in (83.63, 83.9, 84.3))
    assert counted_twice(outlines_of([here, there], Models(()))) == []
    assert len(counted_twice(outlines_of([here, near], Models(())))) == 1
    assert len(counted_twice(outlines_of([there, near], Models(())))) == 1


def test_events_count_twice_also_where_a_file_names_no_telescope(
    small_dataset: MakeDataset, point_models: MakeModels
) -> None:
    one, two = small_dataset("a", seed=1), small_dataset("b", seed=1)
    for name, n in (("unknown", 1), ("", 1), ("X", 0)):
        other = replace(two, meta={**two.meta, "telescope": name})
        assert len(counted_twice(outlines_of([one, other], Models(())))) == n
