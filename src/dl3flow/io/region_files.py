"""Region files: DS9 text (``.reg``) and FITS tables of shapes (HDU REGION); both become DS9 text."""

from pathlib import Path

from dl3flow.errors import InputError
from dl3flow.geometry.region_shapes import ds9_text
from dl3flow.geometry.regions import parse_regions
from dl3flow.io.files import read_text, write_text
from dl3flow.io.fits_files import open_fits
from dl3flow.io.fits_products import own_text, primary_hdu, provenance_hdu, write_hdus
from dl3flow.io.provenance import Provenance
from dl3flow.io.region_hdus import read_region, region_hdu

_MAX_BYTES = 10_000_000


def read_region_file(path: Path) -> str:
    """DS9 text of the regions in a file, for `RegionGeometry` or an exclusion; colours and other looks are left out.

    Raises
    ------
    InputError
        If the file is missing or damaged, or holds no region on the sky.
    """
    path = Path(path)
    if path.suffix.lower() in (".reg", ".ds9", ".txt"):
        text = read_text(path, _MAX_BYTES)
        try:
            return ds9_text(parse_regions(text, "", is_point_allowed=True))
        except InputError as error:
            reason = " ".join(str(error).replace(text, "...").split()).removeprefix(": ")
            raise InputError(f"{path}: {reason}") from None
    with open_fits(path) as hdus:
        name = next((hdu.name for hdu in hdus if hdu.name.upper().endswith("REGION")), "REGION")
        return own_text(hdus, path, "REGION") or read_region(hdus, name, path)


def write_region_file(path: Path, text: str, provenance: Provenance) -> None:
    """Write DS9 region text, as DS9 or FITS by the ending of the name (``.reg`` or ``.fits``).

    Raises
    ------
    InputError
        If the text holds no region, the ending is another one, or FITS has no word for a shape.
    """
    path = Path(path)
    parse_regions(text, str(path), is_point_allowed=True)
    if path.suffix == ".reg":
        lines = "\n".join(text.split(";", 1))
        write_text(path, f"# Region file format: DS9 version 4.1\n# {provenance.to_json()}\n{lines}\n")
    elif path.suffix == ".fits":
        last = provenance_hdu({}, provenance, REGION=text)
        write_hdus(path, [primary_hdu(), region_hdu("REGION", text), last])
    else:
        raise InputError(
            f"{path}: cannot write regions to a file ending in '{path.suffix}': end its name in .reg or .fits"
        )
