"""The chain of one reduction: filter events, bin them, mask bins, measure the background."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dl3flow.background.registry import BackgroundInputs
from dl3flow.background.section import BackgroundSection, parse_background
from dl3flow.data.dataset import Dataset
from dl3flow.data.maps import Map
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.geometry.axis import Axis
from dl3flow.geometry.region import Geometry, RegionGeometry
from dl3flow.irf.table import IrfTable
from dl3flow.reduce import RECIPES, SAFE_MASKS
from dl3flow.reduce.filter import filter_observation
from dl3flow.reduce.reshape import to_image
from dl3flow.reduce.safe_mask import apply_safe_masks
from dl3flow.registry import Plugin

FILTER = Plugin("events", filter_observation)


@dataclass(frozen=True, eq=False)
class Chain:
    """What the sections of one reduction say.

    Attributes
    ----------
    recipe : Plugin
        Of `RECIPES`.
    bound : mapping
        Its keyword arguments.
    masks : tuple of (Plugin, mapping)
        Of `SAFE_MASKS`, with their keyword arguments.
    background : BackgroundSection or None
    section : mapping
        The section ``recipe`` as it was given.
    """

    recipe: Plugin
    bound: Mapping[str, Any]
    masks: tuple[tuple[Plugin, Mapping[str, Any]], ...]
    background: BackgroundSection | None
    section: Any = None

    @property
    def plugins(self) -> list[Plugin]:
        """Every plug-in that the chain calls."""
        methods = [] if self.background is None else [self.background.method]
        return [self.recipe, *(mask for mask, _ in self.masks), *methods]

    @property
    def geometries(self) -> tuple[Geometry, Geometry] | None:
        """Whole geometry of the analysis: counts, and response maps; None where each observation has its own."""
        found: tuple[Geometry, Geometry] | None = self.recipe.companions["geometry"](**self.bound)
        return found

    @property
    def makes_spectra(self) -> bool:
        """True where the datasets are spectra of a region."""
        return self.geometries is not None and isinstance(self.geometries[0], RegionGeometry)

    @property
    def measures_off(self) -> bool:
        """True where the background method gives off counts."""
        return self.background is not None and not self.background.method.companions.get("expected")

    @property
    def makes_image(self) -> bool:
        """True where the background method works on images: all energies are summed before it."""
        return self.background is not None and bool(self.background.method.companions.get("image"))

    @property
    def energy(self) -> Axis:
        """Energy axis of the datasets."""
        axis: Axis = self.bound["energy"]
        return Axis("energy", axis.edges[[0, -1]], axis.scale) if self.makes_image else axis


def parse_chain(options: Mapping[str, Any], where: str) -> Chain:
    """Check the sections ``recipe``, ``safe_mask`` and ``background``.

    Raises
    ------
    InputError
    """
    recipe, bound = RECIPES.bind(options["recipe"], f"{where}recipe")
    masks = options.get("safe_mask") or []
    if not isinstance(masks, list):
        raise InputError(
            f"{where}safe_mask: expected a list such as `[{{name: aeff_default}}]`, found {masks!r}"
        )
    background = options.get("background")
    chain = Chain(
        recipe,
        bound,
        tuple(SAFE_MASKS.bind(mask, f"{where}safe_mask[{n}]") for n, mask in enumerate(masks)),
        None if background is None else parse_background(background, f"{where}background"),
        options["recipe"],
    )
    if chain.background is not None and chain.makes_image and chain.makes_spectra:
        raise InputError(
            f"{where}background: '{chain.background.method.name}' measures around every pixel of a map, and the recipe '{recipe.name}' makes "
            "spectra: take the recipe `cube`, or a background such as `reflected`"
        )
    return chain


def reduce_observation(
    observation: Observation,
    name: str,
    chain: Chain,
    drawn: Map | None = None,
    off: Sequence[Observation] = (),
    models: Sequence[IrfTable] = (),
    predict: Callable[[Dataset], Any] | None = None,
) -> Dataset:
    """Reduce one observation.

    Parameters
    ----------
    observation : Observation
    name : str
        Of the dataset.
    chain : Chain
    drawn : Map, optional
        Mask file that takes the place of the exclusion regions.
    off : sequence of Observation
        Further runs of the background method.
    models : sequence of IrfTable
        Its background models.
    predict : function, optional
        Expected counts of known sources in the dataset.

    Returns
    -------
    dataset : Dataset
        With a background.

    Raises
    ------
    InputError
        Naming the observation.
    """
    dataset = apply_safe_masks(observation, chain.recipe(observation, name, **chain.bound), chain.masks)
    section = chain.background
    if section is not None:
        if chain.makes_image:
            dataset = to_image(dataset)
        known = None if predict is None else predict(dataset)
        whole = None if chain.geometries is None else chain.geometries[0]
        usable = partial(section.usable_sky, whole=whole, drawn=drawn)
        inputs = BackgroundInputs(usable, known, tuple(off), tuple(models))
        dataset = section.method(observation, dataset, inputs, **section.options)
    if dataset.background is None:
        raise InputError(
            f"observation {observation.obs_id}: there is no background: its files hold no background response, so name a method such "
            "as `background: {name: reflected}`"
        )
    return dataset
