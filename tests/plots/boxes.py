"""Where the texts of a picture lie."""

from itertools import combinations

from matplotlib.legend import Legend
from matplotlib.text import Text


def texts(figure):
    """Visible texts; matplotlib keeps labels of ticks beyond the limits, and does not draw them."""
    beyond = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            margin = 1e-6 * (high - low)
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low - margin <= tick.get_loc() <= high + margin:
                    beyond |= {tick.label1, tick.label2}
    return [t for t in figure.findobj(Text) if t not in beyond and t.get_visible() and t.get_text().strip()]


def overlaps(figure):
    """Pairs of drawn texts, or a text and a legend, whose boxes share more than a rounding of a pixel."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    width, height = figure.canvas.get_width_height()
    legends = figure.findobj(Legend)
    inside = {text: legend for legend in legends for text in legend.findobj(Text)}
    boxes = []
    for text in texts(figure):
        if hasattr(text, "update_positions"):
            text.update_positions(renderer)
        box = Text.get_window_extent(text, renderer)
        boxes.append((text, box))
    drawn = [(text, b) for text, b in boxes if b.width > 0 and is_in_view(b, width, height)]
    found = [(one.get_text(), two.get_text()) for (one, a), (two, b) in combinations(drawn, 2) if share(a, b)]
    for legend in legends:
        box = legend.get_window_extent(renderer)
        found += [
            (text.get_text(), "a legend")
            for text, b in drawn
            if inside.get(text) is not legend and share(b, box)
        ]
    return found


def share(a, b):
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1


def is_in_view(box, width, height):
    return box.x1 > 0 and box.x0 < width and box.y1 > 0 and box.y0 < height


def text_outside(figure):
    renderer = figure.canvas.get_renderer()
    width, height = figure.canvas.get_width_height()
    found = []
    for text in texts(figure):
        if hasattr(text, "update_positions"):
            text.update_positions(renderer)
        box = Text.get_window_extent(text, renderer)
        is_cut = box.x0 < -1 or box.x1 > width + 1 or box.y0 < -1 or box.y1 > height + 1
        if box.width > 0 and is_in_view(box, width, height) and is_cut:
            found.append(text.get_text())
    return found
