"""Models of the user's own: files that register them, and one sentence for each way in which they fail."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dl3flow.errors import InputError
from dl3flow.io.models_yaml import parse_models
from dl3flow.models.resolve import resolve
from dl3flow.models.soundness import find_fault
from dl3flow.models.spectral import SPECTRAL_MODELS
from dl3flow.plugins import REGISTRIES, load_plugins, plugin_files

HEAD = """\
import numpy as np
from dl3flow.models.spectral import SPECTRAL_MODELS
from dl3flow.models.spatial import SPATIAL_MODELS
from dl3flow.models.priors import PRIORS
from dl3flow.units import Angle, Energy, Flux, Number
"""
BUMP = (
    HEAD
    + """
def bump_gradient(energy, amplitude, centre):
    shape = np.exp(-np.log(energy / centre) ** 2)
    return np.array([shape, amplitude * shape * 2 * np.log(energy / centre) / centre])

@SPECTRAL_MODELS.register("my-bump", gradient=bump_gradient)
def bump(energy, amplitude: Flux = 1e-12, centre: Energy = 2.0):
    return amplitude * np.exp(-np.log(energy / centre) ** 2)
"""
)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    before = {part: registry.entries() for part, registry in REGISTRIES.items()}
    yield
    load_plugins([])
    assert {part: registry.entries() for part, registry in REGISTRIES.items()} == before


def written(folder: Path, text: str, name: str = "my_model.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_model_of_a_file_is_used_by_its_name_and_tag(tmp_path: Path) -> None:
    load_plugins([written(tmp_path, BUMP)])
    entry = {"type": "my-bump", "parameters": [{"name": "centre", "value": 4.0, "unit": "TeV"}]}
    models = parse_models({"components": [{"name": "mine", "spectral": entry}]}, "here")
    assert models.sources[0].spectral.kind == "bump"
    model = resolve(models.sources[0].spectral, "spectral", "here")
    # exp(-ln(8 / 4)^2) by hand
    assert model.function(np.array([4.0, 8.0]), 1e-12, 4.0) == pytest.approx([1e-12, 6.1850313780157e-13])


def test_the_example_of_the_manual_is_a_sound_model(tmp_path: Path) -> None:
    manual = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    load_plugins([written(tmp_path, manual.split("```python\n")[1].split("```")[0])])
    spectral = (
        parse_models({"components": [{"name": "mine", "spectral": {"type": "my-bump"}}]}, "here")
        .sources[0]
        .spectral
    )
    assert [(p.name, p.value, str(p.unit), p.frozen) for p in spectral.parameters] == [
        ("amplitude", 1e-12, "1 / (TeV s cm2)", False),
        ("centre", 2.0, "TeV", True),
    ]


def test_a_file_that_is_named_no_more_leaves_no_model(tmp_path: Path) -> None:
    path = written(tmp_path, BUMP)
    load_plugins([path])
    plugin = SPECTRAL_MODELS.find("bump", "here")
    load_plugins([])
    with pytest.raises(InputError, match="unknown spectral model 'bump'"):
        SPECTRAL_MODELS.find("bump", "here")
    load_plugins([path])
    assert SPECTRAL_MODELS.find("bump", "here") is plugin, "an unchanged file is imported once"


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path, BUMP)
    load_plugins([path])
    path.write_text(BUMP.replace("centre: Energy = 2.0", "centre: Energy = 3.0"))
    load_plugins([path])
    assert SPECTRAL_MODELS.find("bump", "here").parameters["centre"][1] == 3.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "import numpy as np\n\nx = = 1\n",
            r"line 3: the plug-in cannot be imported \(SyntaxError: invalid syntax",
        ),
        (
            "import numpy as np\nx = np.arange(3) / lost\n",
            r"line 2: .*\(NameError: name 'lost' is not defined\): correct it",
        ),
        ("raise SystemExit(3)\n", r"line 1: .*\(SystemExit: 3\)"),
        ("x = 1\n", r"registers no model: write `@SPECTRAL_MODELS.register\(\)`"),
        (
            HEAD + "@SPECTRAL_MODELS.register\ndef f(energy):\n    return energy\n",
            r"registers no model: write `@SPECTRAL_MODELS.register\(\)` \(with its brackets\)",
        ),
        (
            HEAD + "@SPECTRAL_MODELS.register()\ndef power_law(energy):\n    return energy\n",
            r"line 6: the spectral model 'power_law' is registered twice: give yours a name",
        ),
        (
            HEAD + "@SPECTRAL_MODELS.register()\ndef f(energy, a):\n    return a * energy\n",
            r"spectral model 'f': the parameter `a` has no unit: annotate it, such as `a: Number = 1.0`",
        ),
        (
            HEAD + "@SPECTRAL_MODELS.register()\ndef f(energy, a: Number):\n    return a * energy\n",
            r"'f': the parameter `a` has no default: give it one",
        ),
        (
            HEAD
            + "@SPECTRAL_MODELS.register()\ndef f(energy, a: Number = 1.0):\n    return a if energy > 1 else 0.0\n",
            r"'f': it fails at its defaults \(ValueError: The truth value",
        ),
        (
            HEAD + "@SPECTRAL_MODELS.register()\ndef f(energy, a: Number = 1.0):\n    return a\n",
            r"'f': it returns the shape \(\) for 6 energies: use functions of numpy",
        ),
        (
            HEAD
            + "@SPECTRAL_MODELS.register()\ndef f(energy, a: Number = 1.0):\n    return np.log(energy - energy - a + 1)\n",
            r"'f': it is -inf at its defaults for 0.03: make it finite",
        ),
        (
            HEAD
            + "@SPECTRAL_MODELS.register()\ndef f(energy, a: Number = 1.0):\n    energy *= a\n    return energy\n",
            r"'f': it fails at its defaults \(ValueError: output array is read-only\)",
        ),
        (BUMP.replace("* 2 *", "* 3 *"), r"'bump': its gradient by `centre` is .* where differences give"),
        (
            # right at the default of 2 alone
            BUMP.replace("/ centre])", "/ 2])"),
            r"'bump': its gradient by `centre` is .* where differences give .* \(at amplitude = 1.03e-12, centre = 2.12\)",
        ),
        (
            BUMP.replace("np.array([shape, amp", "np.array([amp"),
            r"'bump': its gradient has the shape \(1, 6\)",
        ),
        (
            HEAD
            + "@SPATIAL_MODELS.register()\ndef f(lon, lat, lon_0: Angle = 0.0, lat_0: Angle = 0.0):\n    return lon * 0\n",
            r"spatial model 'f': it needs the companion `radius`",
        ),
        (
            HEAD + "@PRIORS.register()\ndef f(value, *, mu: float = 0.0):\n    return (value - mu) ** 2\n",
            r"prior 'f': it needs the companion `gradient`",
        ),
        (
            HEAD
            + "@PRIORS.register(gradient=lambda value, mu: 2 * value, curvature=lambda value, mu: 3.0)\n"
            + "def f(value, *, mu: float = 0.0):\n    return (value - mu) ** 2\n",
            r"prior 'f': its curvature is 3 at 0.37 where differences give 2",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence_and_leaves_nothing(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=said) as raised:
        load_plugins([path])
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_two_files_with_one_name_are_refused_and_either_alone_is_used(tmp_path: Path) -> None:
    one, other = written(tmp_path, BUMP), written(tmp_path, BUMP, "other.py")
    for _ in range(2):
        with pytest.raises(InputError, match=r"other.py.*'bump' is registered twice"):
            load_plugins([one, other])
        load_plugins([other])
        with pytest.raises(InputError, match=r"my_model.py.*'(bump|my-bump)' is registered twice"):
            load_plugins([other, one])


def test_the_list_of_files_is_checked(tmp_path: Path) -> None:
    path = written(tmp_path, BUMP)
    assert plugin_files([str(path)], "a.yaml: plugins") == [path]
    for entry, said in {
        "x.py": r"expected a list of Python files such as `\[config/plugins/my_model.py\]`, found 'x.py'",
        ("x.txt",): r"plugins\[0\]: expected the name of a Python file \(.py\), found 'x.txt'",
        ("lost.py",): r"plugins\[0\]: there is no file 'lost.py'",
        (str(path), str(path)): "named twice",
    }.items():
        with pytest.raises(InputError, match=said):
            plugin_files(list(entry) if isinstance(entry, tuple) else entry, "a.yaml: plugins")
    with pytest.raises(InputError, match="cannot be read .No such file"):
        load_plugins([tmp_path / "lost.py"])


@pytest.mark.parametrize(
    ("part", "name"), [(part, name) for part, registry in REGISTRIES.items() for name in registry.names()]
)
def test_every_model_that_comes_along_is_sound(part: str, name: str) -> None:
    assert find_fault(REGISTRIES[part].find(name, "here"), part) == ""
