"""SVG pictures made part of an HTML page: nothing active, nothing from outside, ids of their own."""

import re
import xml.etree.ElementTree as ET

from markupsafe import Markup

from dl3flow.errors import InputError

_DRAWN = frozenset(
    [
        "svg",
        "g",
        "defs",
        "clipPath",
        "path",
        "rect",
        "circle",
        "ellipse",
        "line",
        "polyline",
        "polygon",
        "use",
        "image",
        "text",
        "tspan",
        "pattern",
        "linearGradient",
        "radialGradient",
        "stop",
    ]
)
# what matplotlib adds that a page does not need; its one style rule is set on the root instead
_DROPPED = frozenset({"metadata", "style", "title", "desc"})
_ROOT_STYLE = "stroke-linejoin:round;stroke-linecap:butt"
_REFERENCE = re.compile(r"url\(\s*#([^)\s]+)\s*\)")
_OUTSIDE = re.compile(r"url\(\s*[^#\s]", re.IGNORECASE)
_IMAGE = "data:image/png;base64,"


def inline_svg(text: str, name: str, prefix: str, label: str) -> Markup:
    """Markup of a picture with every id prefixed.

    Parameters
    ----------
    text : str
        The SVG file.
    name : str
        Of the figure, for errors.
    prefix : str
        Made part of each id, different for each figure of a page.
    label : str
        What the picture shows, for those who cannot see it.

    Raises
    ------
    InputError
        If it is no SVG, or holds a script, an event handler or a reference to the outside.
    """
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise InputError(f"figure '{name}': this is not an SVG picture ({error}): make it again") from None
    if _local(root.tag) != "svg":
        raise InputError(
            f"figure '{name}': the root element is '{_local(root.tag)}', not 'svg': make it again"
        )
    clean = _copy(root, name, prefix)
    clean.set("viewBox", root.get("viewBox", f"0 0 {_length(root, 'width')} {_length(root, 'height')}"))
    for attribute in ("width", "height", "version"):
        clean.attrib.pop(attribute, None)
    clean.set("style", _ROOT_STYLE)
    clean.set("role", "img")
    clean.set("aria-label", label)
    return Markup(ET.tostring(clean, encoding="unicode"))


def _copy(old: ET.Element, name: str, prefix: str) -> ET.Element:
    new = ET.Element(_local(old.tag))
    new.text, new.tail = old.text, old.tail
    for key, value in old.attrib.items():
        attribute = _local(key)
        if attribute.lower().startswith("on") or _OUTSIDE.search(value) or "javascript:" in value.lower():
            raise InputError(
                f"figure '{name}': the attribute '{attribute}' may not stand in a report: make it again"
            )
        if attribute == "href":
            if not value.startswith(("#", _IMAGE)):
                raise InputError(
                    f"figure '{name}': it refers to '{value[:80]}' outside the page: make it again"
                )
            new.set("href", f"#{prefix}{value[1:]}" if value.startswith("#") else value)
        elif attribute == "id":
            new.set("id", prefix + value)
        elif not key.startswith("{http://www.w3.org/XML"):
            new.set(attribute, _REFERENCE.sub(lambda m: f"url(#{prefix}{m.group(1)})", value))
    for child in old:
        tag = _local(child.tag)
        if tag in _DROPPED:
            continue
        if tag not in _DRAWN:
            raise InputError(f"figure '{name}': the element '{tag}' may not stand in a report: make it again")
        new.append(_copy(child, name, prefix))
    return new


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]


def _length(root: ET.Element, which: str) -> str:
    return re.sub(r"[a-z%]+$", "", root.get(which, "100"))
