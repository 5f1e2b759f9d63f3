"""How a variant looks: colour, marker and dash by its place, the same in every chart.

Colours are CSS variables (light and dark); marker and dash say the same without colour.
"""

from __future__ import annotations

import math

from markupsafe import Markup

from trimton.perf.report.charts import svg

COLOURS = 8


def variant_class(index: int) -> str:
    """The class that carries the variant's colour."""
    return f"v{index % COLOURS}"


def dash(index: int) -> str | None:
    """The variant's dash pattern; None is a solid line."""
    return _DASHES[index % len(_DASHES)]


def marker(index: int, x: float, y: float, radius: float = 4.5) -> Markup:
    """The variant's marker, centred at ``(x, y)``."""
    if index % len(_SHAPES) == 0:
        return svg.element("circle", cx=x, cy=y, r=radius, class_="marker")
    corners, turn, stretch = _SHAPES[index % len(_SHAPES)]
    reach = radius * stretch
    points = " ".join(
        f"{x + reach * math.sin(angle):.2f},{y - reach * math.cos(angle):.2f}"
        for angle in (turn + 2 * math.pi * corner / corners for corner in range(corners))
    )
    return svg.element("polygon", points=points, class_="marker")


# Corners, rotation in radians, and the reach that makes the areas look alike.
_SHAPES = (
    (0, 0.0, 1.0),
    (4, math.pi / 4, 1.25),
    (3, 0.0, 1.4),
    (4, 0.0, 1.3),
    (3, math.pi, 1.4),
    (5, 0.0, 1.15),
    (6, 0.0, 1.1),
    (3, math.pi / 2, 1.4),
)
_DASHES = (None, "7 3", "2 3", "9 3 2 3", "12 3", "5 2 1 2 1 2", "1 2", "4 4")
