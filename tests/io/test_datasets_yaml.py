"""Lists of datasets in the field's YAML."""

import pytest

from dl3flow.errors import InputError
from dl3flow.io.datasets_yaml import read_datasets, write_datasets
from dl3flow.io.ogip import write_ogip

CIRCLE = "icrs;circle(83.63, 22.01, 0.11)"


def test_round_trip_of_all_kinds(tmp_path, make_dataset, provenance, assert_equal):
    of_region = {"region": CIRCLE, "with_psf": False}
    kinds = ({}, {"background": "off"}, of_region, {**of_region, "background": "off"})
    datasets = [make_dataset(name=f"d{n}", **options) for n, options in enumerate(kinds)]
    write_datasets(tmp_path / "datasets.yaml", datasets, provenance)
    text = (tmp_path / "datasets.yaml").read_text()
    for n, kind in enumerate(("MapDataset", "MapDatasetOnOff", "SpectrumDataset", "SpectrumDatasetOnOff")):
        assert f"type: {kind}\n" in text
        assert f"filename: d{n}.fits\n" in text
    for found, expected in zip(read_datasets(tmp_path / "datasets.yaml"), datasets, strict=True):
        assert_equal(found, expected)


def test_public_fermi_list(public_data):
    (found,) = read_datasets(public_data / "fermi-3fhl-crab" / "Fermi-LAT-3FHL_datasets.yaml")
    assert found.name == "Fermi-LAT"
    assert found.counts.data.sum() == 3004


def test_spectra_in_ogip_files(tmp_path, make_dataset, provenance):
    dataset = make_dataset(region=CIRCLE, with_psf=False, background="off", mask_fit=False)
    write_ogip(tmp_path / "pha_1.fits", dataset, provenance)
    (tmp_path / "list.yaml").write_text(
        "datasets:\n- {name: 1, type: SpectrumDatasetOnOff, filename: pha_1.fits}\n"
    )
    (found,) = read_datasets(tmp_path / "list.yaml")
    assert found.name == "1"
    assert found.counts.data.sum() == dataset.counts.data.sum()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models: []", "holds no list `datasets`"),
        ("datasets: []", "holds no list `datasets`"),
        ("datasets: [3]", r"datasets\[0\]: expected `name`, `type` and `filename`, found 3"),
        ("datasets: [{name: a, type: MapDataset}]", "the key `filename` must be text, found None"),
        (
            "datasets: [{name: a, type: FluxPointsDataset, filename: a.fits}]",
            "the type 'FluxPointsDataset' is not supported",
        ),
        ("datasets: [{name: a, type: MapDataset, filename: ../a.fits}]", "lies outside the data folder"),
        (
            "datasets: [{name: a, type: MapDatasetOnOff, filename: a.fits}]",
            "holds a MapDataset, not a MapDatasetOnOff",
        ),
        (
            "datasets:\n- &a {name: a, type: MapDataset, filename: a.fits}\n- {name: a, type: MapDataset, filename: a.fits}",
            "two datasets have the name 'a'",
        ),
    ],
)
def test_bad_list_is_refused_in_one_sentence(tmp_path, make_dataset, provenance, text, words):
    write_datasets(tmp_path / "good.yaml", [make_dataset(name="a")], provenance)
    path = tmp_path / "list.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_datasets(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_names_are_unique(tmp_path, make_dataset, provenance):
    with pytest.raises(InputError, match="two datasets have the name 'run-1'"):
        write_datasets(tmp_path / "a.yaml", [make_dataset(), make_dataset()], provenance)
    assert list(tmp_path.iterdir()) == []
