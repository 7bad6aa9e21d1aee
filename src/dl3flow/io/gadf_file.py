"""One DL3 file by itself: an observation, with the help of an index where its responses lie elsewhere, or responses alone."""

from pathlib import Path

from astropy.io import fits

from dl3flow.data.index import HduEntry, ObservationEntry
from dl3flow.data.observation import Observation
from dl3flow.errors import InputError
from dl3flow.io.fits_files import number_key, open_fits, text_key
from dl3flow.io.gadf import read_observation
from dl3flow.io.gadf_index import read_index
from dl3flow.io.gadf_irf import LAYOUTS, read_irfs
from dl3flow.irf.table import IrfTable

# the index of a data release lies at most so many folders above the files
_LEVELS = 4


def read_dl3_file(path: Path) -> Observation | dict[str, IrfTable]:
    """What a DL3 file holds: its observation where it has events, else its responses.

    Parameters
    ----------
    path : Path

    Returns
    -------
    content : Observation, or dict of IrfTable
        The latter by ``aeff``, ``edisp``, ``psf``, ``bkg`` and ``rad_max``.

    Raises
    ------
    InputError
        If there is neither, no index tells where the responses of the events lie, or what is there is wrong.
    """
    path = Path(path)
    hdus: dict[str, HduEntry] = {}
    with open_fits(path) as opened:
        headers = {hdu.name: hdu.header for hdu in opened if isinstance(hdu, fits.BinTableHDU)}
        for name, header in headers.items():
            kind = _kind(header, name)
            if kind:
                role = "rad_max" if kind == "rad_max_2d" else kind.split("_")[0]
                hdus.setdefault(role, HduEntry(path.name, name, kind))
        if "events" not in hdus:
            return read_irfs(path)
        if not {"gti", "aeff"} <= hdus.keys():
            return read_observation(*_indexed(path))
        header, where = headers[hdus["events"].hdu], f"{path}: HDU '{hdus['events'].hdu}'"
        entry = ObservationEntry(
            obs_id=int(number_key(header, "OBS_ID", where, 0)),
            target=text_key(header, "OBJECT", "", where),
            ra=number_key(header, "RA_PNT", where),
            dec=number_key(header, "DEC_PNT", where),
            tstart=number_key(header, "TSTART", where),
            tstop=number_key(header, "TSTOP", where),
            reference=None,
            timesys=text_key(header, "TIMESYS", "tt", where).lower(),
            livetime=None,
            quality=None,
            telescope=text_key(header, "TELESCOP", "", where),
            hdus=hdus,
        )
    return read_observation(entry, path.parent)


def _kind(header: fits.Header, name: str) -> str:
    """Class of a table as an index names it; empty for one that is no part of an observation."""
    first = text_key(header, "HDUCLAS1", name, name).lower()
    last = text_key(header, "HDUCLAS4", "", name).lower()
    return first if first in ("events", "gti") else last if last in LAYOUTS else ""


def _indexed(path: Path) -> tuple[ObservationEntry, Path]:
    """Entry of the index that names this file, and the folder of the index."""
    for folder in path.resolve().parents[:_LEVELS]:
        try:
            entries = read_index(folder)
        except InputError:
            continue
        for entry in entries:
            if "events" in entry.hdus and (folder / entry.hdus["events"].path).resolve() == path.resolve():
                return entry, folder
    raise InputError(
        f"{path}: the file has events without their responses, and no index in the folders above names it: put the index of the "
        "data release there, or inspect a file that holds both"
    )
