"""ObservationEntry: one row of an observation index with the places of its HDUs; plain values, cheap to import."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl3flow.errors import InputError

if TYPE_CHECKING:
    from astropy.time import Time

HDU_TYPES = ("events", "gti", "aeff", "edisp", "psf", "bkg", "rad_max", "pointing")


@dataclass(frozen=True)
class HduEntry:
    """Where one HDU of an observation lies.

    Attributes
    ----------
    path : str
        File, relative to the folder of the index.
    hdu : str
        Name of the HDU.
    kind : str
        HDU_CLASS in lower case, such as ``aeff_2d``.
    """

    path: str
    hdu: str
    kind: str


@dataclass(frozen=True)
class ObservationEntry:
    """What an index says of one observation.

    Attributes
    ----------
    obs_id : int
    target : str
        Target, or the observed object where the index names no target; empty if neither.
    ra, dec : float
        Pointing, ICRS, deg.
    tstart, tstop : float
        Seconds after ``reference``.
    reference : float or None
        MJD of the time reference; None where the index does not state it.
    timesys : str
        Time scale in lower case, such as ``tt``.
    livetime : float or None
        Dead-time corrected observing time, s.
    quality : int or None
    telescope : str
    hdus : mapping of HduEntry
        By HDU_TYPE: events, gti, aeff, edisp, psf, bkg.
    location : (float, float, float) or None
        Longitude and latitude, deg, and altitude, m, of the observatory.
    zenith, azimuth : float or None
        Mean pointing in the horizon's frame, deg; None where the index does not state it.
    columns : mapping
        Number or text of every column of the index, by its name; no part of what a job is given.
    """

    obs_id: int
    target: str
    ra: float
    dec: float
    tstart: float
    tstop: float
    reference: float | None
    timesys: str
    livetime: float | None
    quality: int | None
    telescope: str
    hdus: Mapping[str, HduEntry]
    location: tuple[float, float, float] | None = None
    zenith: float | None = None
    azimuth: float | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def paths(self) -> list[str]:
        """Files of this observation, each once, relative to the index."""
        return sorted({hdu.path for hdu in self.hdus.values()})

    def root_of(self, events: Path) -> Path:
        """Folder of the index, from where the file of the events lies."""
        return Path(str(events).removesuffix(self.hdus["events"].path))

    def to_json(self) -> dict[str, Any]:
        """Plain values, HDUs in a fixed order."""
        plain = asdict(replace(self, columns={}))
        # an index that says more of an observation changes no product
        del plain["columns"]
        plain["hdus"] = {name: asdict(self.hdus[name]) for name in HDU_TYPES if name in self.hdus}
        plain["location"] = None if self.location is None else list(self.location)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "ObservationEntry":
        """Entry from what :meth:`to_json` gave."""
        hdus = {name: HduEntry(**hdu) for name, hdu in plain["hdus"].items()}
        location = plain.get("location")
        return cls(**{**plain, "hdus": hdus, "location": None if location is None else tuple(location)})


def parse_utc(value: Any, where: str) -> "Time":
    """UTC moment from ISO text or ``MJD 53347.9``; YAML turns an unquoted date into a date object, which is as good.

    Raises
    ------
    InputError
        Naming ``where`` and the text.
    """
    from astropy.time import Time  # slow to import: only where a configuration names a time

    expected = "expected UTC text such as '2004-12-08 21:55' or 'MJD 53347.9'"
    text = value.isoformat() if hasattr(value, "isoformat") else value
    if not isinstance(text, str):
        raise InputError(f"{where}: {expected}, found {value!r}")
    try:
        if text.upper().startswith("MJD"):
            return Time(float(text[3:]), format="mjd", scale="utc")
        return Time(text, scale="utc")
    except ValueError:
        raise InputError(f"{where}: {expected}, found '{text}'") from None
